"""Delayed messages that become due: with a seq that nobody overtakes, in pieces that no limit ends, and never in front of what waits elsewhere."""
import json
import os
import re
import signal
import threading
import time

import pytest

from harness import Relay, relay, wait_until

LARGE = 3 << 20


@pytest.fixture
def ordered(database):
    assert relay("migrate", "-d", database.conninfo, "--order", "key", "--lanes", "8").returncode == 0
    return database


def promotes_slowly(database, seconds):
    """A trigger that keeps the transaction open in which a message of type 'slow' enters outbox.message, behind those before it."""
    database.run("CREATE TABLE public.seqs (id text PRIMARY KEY, seq bigint)")
    database.run("CREATE FUNCTION public.dawdle() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN INSERT INTO public.seqs VALUES (NEW.id, NEW.seq);"
                 " IF NEW.type = 'slow' THEN PERFORM pg_sleep(%s); END IF; RETURN NULL; END $$", seconds)
    database.run("CREATE TRIGGER dawdle AFTER INSERT ON outbox.message FOR EACH ROW EXECUTE FUNCTION public.dawdle()")


class Lines(threading.Thread):
    """What backend stdout has delivered, in order."""

    def __init__(self, running):
        super().__init__(daemon=True)
        self.running, self.messages = running, []
        self.start()

    def run(self):
        for line in self.running.process.stdout:
            self.messages.append(json.loads(line))

    def of(self, key):
        return [message for message in self.messages if message.get("key") == key]


@pytest.mark.parametrize("by_drain", [False, True], ids=["run", "drain"])
def test_a_delayed_message_gets_its_seq_and_nobody_overtakes_it(ordered, start, by_drain):
    """Its row is invisible until the transaction that gave it its seq commits: meanwhile later ones of its key must wait."""
    promotes_slowly(ordered, 1.5)
    running = start("-d", ordered.conninfo, "-b", "stdout", "-o", "order=key", "-o", "workers=2", "-o", "poll.max=20ms")
    seen = Lines(running)
    ordered.run("SELECT outbox.publish('a', 'live', '{}', key => 'k')")
    wait_until(lambda: len(seen.of("k")) == 1, what="the first delivery")
    delay = "-1 s" if by_drain else "1 s"
    drain = None
    if by_drain:
        running.signal(signal.SIGSTOP)  # the daemon must not be the one that moves them
    ordered.run(f"SELECT outbox.publish('a', 'delayed', '{{}}', key => 'k', delay => interval '{delay}'),"
                f" outbox.publish('a', 'slow', '{{}}', key => 'other', delay => interval '{delay}');"
                f" UPDATE outbox.scheduled SET due_at = now() + interval '{delay}'")  # at one moment, so that both are moved in one piece
    if by_drain:
        drain = Relay("-q", "-d", ordered.conninfo, "-b", "null", "-o", "order=key", "-o", "channels.include=nothing", command="drain")
        wait_until(lambda: ordered.value("SELECT count(*) FROM pg_locks l JOIN pg_stat_activity a USING (pid)"
                                         " WHERE l.locktype = 'advisory' AND a.wait_event = 'PgSleep'"), what="the promotion under way")
        running.signal(signal.SIGCONT)
    deadline = time.monotonic() + 4
    while time.monotonic() < deadline:
        ordered.run("SELECT outbox.publish('a', 'live', '{}', key => 'k')")
        time.sleep(0.02)  # the pace of a producer
    wait_until(lambda: ordered.left() == 0 and ordered.value("SELECT count(*) FROM outbox.scheduled") == 0, what="an empty outbox")
    if drain:
        drain.wait(30)
        drain.close()
    wait_until(lambda: any(message["type"] == "delayed" for message in seen.of("k")), what="the delayed one")
    numbers = dict(ordered.run("SELECT id, seq FROM public.seqs"))
    seqs = [numbers[message["id"]] for message in seen.of("k")]
    place = [message["type"] for message in seen.of("k")].index("delayed")
    assert seqs == sorted(seqs), f"the delayed one came as number {place} of {len(seqs)}, with seq {seqs[place]} behind {max(seqs[:place])}"
    assert place < len(seqs) - 10, "later ones were there to overtake it, or the test proves nothing"


@pytest.mark.parametrize("mode", ["none", "key"])
def test_what_is_due_at_once_enters_in_pieces_of_a_batchs_bytes(database, mode):
    """All of it, with a due retry that must not wait for it; no transaction moves more than batch.max_bytes."""
    assert relay("migrate", "-d", database.conninfo, "--order", mode).returncode == 0
    database.run("SELECT outbox.publish_bytes('large', 't', (SELECT string_agg(decode(md5(random()::text || j), 'hex'), '') FROM generate_series(1, 1000) j)"
                 " || convert_to(repeat('x', %s), 'UTF8'), key => (i %% 7)::text, delay => interval '-1 s') FROM generate_series(1, 40) i", LARGE)
    assert relay("pause", "-d", database.conninfo).returncode == 0
    done = relay("drain", "-q", "-b", "null", "-d", database.conninfo, "-o", "order=" + mode)
    assert done.returncode == 1 and database.left() == 40, done.stderr
    moved = [row[0] for row in database.run("SELECT sum(bytes) FROM outbox.message GROUP BY xmin::text")]
    assert max(moved) <= 8 << 20 and len(moved) >= 20, moved
    assert relay("resume", "-d", database.conninfo).returncode == 0
    assert relay("drain", "-q", "-b", "null", "-d", database.conninfo, "-o", "order=" + mode).returncode == 0 and database.left() == 0


def test_a_daemon_moves_all_that_is_due_and_its_retries_go_meanwhile(database, start):
    database.run("SELECT outbox.publish_bytes('large', 't', convert_to(repeat('x', %s), 'UTF8'), delay => interval '-1 s') FROM generate_series(1, 60) i", LARGE)
    retry = database.value("INSERT INTO outbox.scheduled (seq, id, kind, channel, type, headers, created_at, bytes, due_at)"
                           " VALUES (0, gen_random_uuid(), 'event', 'a', 't', '{}', now(), 2, now()) RETURNING id::text")
    running = start("-d", database.conninfo, "-b", "null", "-o", "workers=1")
    wait_until(lambda: database.value("SELECT count(*) FROM outbox.scheduled WHERE id = %s", retry) == 0, 10, "the retry's turn")
    wait_until(lambda: database.left() + database.value("SELECT count(*) FROM outbox.scheduled") == 0, 40, "all of them: one piece a second would take 30 s")
    assert running.process.poll() is None


def put_retries(database, count, key, due, first_seq):
    database.run("INSERT INTO outbox.scheduled (seq, id, kind, channel, type, key, headers, created_at, bytes, due_at)"
                 " SELECT %s + i, gen_random_uuid(), 'event', 'a', 't', %s, '{}', now(), 2, now() + %s::interval FROM generate_series(1, %s) i",
                 first_seq, key, due, count)


def test_due_retries_of_a_key_whose_head_waits_do_not_keep_the_others_from_going(ordered):
    """20,000 of them have been due for longer than what may go."""
    put_retries(ordered, 1, "blocked", "1 h", 0)
    put_retries(ordered, 20000, "blocked", "-1 h", 1)
    put_retries(ordered, 3, "free", "-1 s", 50000)
    put_retries(ordered, 2, None, "-1 s", 60000)
    done = relay("drain", "-q", "--json", "-b", "null", "-d", ordered.conninfo, "-o", "order=key", timeout=60)
    summary = json.loads(done.stdout)
    assert done.returncode == 1 and summary["published"] == 5, (done.stdout, done.stderr)
    assert "on hold" in summary["result"]
    assert ordered.run("SELECT DISTINCT key FROM outbox.scheduled") == [("blocked",)]


def test_a_lane_that_somebody_else_holds_keeps_a_drain_from_saying_that_all_is_gone(ordered):
    """Its delayed messages cannot get a seq yet: another process holds the rest."""
    ordered.run("SELECT outbox.publish('a', 't', '{}', key => 'k', delay => interval '-1 s'), outbox.publish('a', 't', '{}', delay => interval '-1 s')")
    stranger = ordered.connect(autocommit=False)
    with stranger.cursor() as cursor:
        cursor.execute("SELECT pg_advisory_xact_lock('outbox.message'::regclass::oid::int, lane) FROM generate_series(0, 7) lane")
    done = relay("drain", "-q", "-b", "null", "-d", ordered.conninfo, "-o", "order=key", timeout=60)
    assert done.returncode == 75 and "another process holds the rest" in done.stderr, done.stderr
    assert ordered.value("SELECT count(*) FROM outbox.scheduled") == 1
    stranger.close()
    assert relay("drain", "-q", "-b", "null", "-d", ordered.conninfo, "-o", "order=key").returncode == 0
    assert ordered.left() + ordered.value("SELECT count(*) FROM outbox.scheduled") == 0


# ---- a turn for each channel ----

def promote(database, behind="", lanes=None):
    """What one claim does, and where the next goes on."""
    with open(os.path.join(os.path.dirname(__file__), "../../schema/queries/promote.sql"), encoding="utf-8") as file:
        sql = re.sub(r"--.*", "", file.read())
    values = {"1": 1000, "2": 8 << 20, "3": lanes, "4": behind}
    sql = re.sub(r"\$(\d+)", lambda match: f"%({match.group(1)})s", sql)
    with database.connection.cursor() as cursor:
        cursor.execute(sql, values)
        return cursor.fetchone()


def delay(database, channel, count, size=10, key=None):
    database.run("SELECT outbox.publish_bytes(%s, 't', convert_to(repeat('x', %s), 'UTF8'), key => %s, delay => '0') FROM generate_series(1, %s)",
                 channel, size, key, count)


def moved(database):
    return dict(database.run("SELECT channel, count(*) FROM outbox.message GROUP BY channel"))


@pytest.mark.parametrize("mode, key", [("none", None), ("key", "k")])
@pytest.mark.parametrize("count, size", [(30000, 10), (12, LARGE)], ids=["many", "large"])
def test_one_channel_whose_delayed_messages_are_due_does_not_keep_another_from_its_turn(database, mode, key, count, size):
    assert relay("migrate", "--order", mode, "-d", database.conninfo).returncode == 0
    delay(database, "flood", count, size, key)
    delay(database, "honest", 20, key=key)
    promote(database, lanes=63 if key else None)
    first = moved(database)
    assert first["honest"] >= 2 and 0 < first["flood"] < count, first


def test_of_very_many_channels_each_has_its_turn_and_a_giant_waits_for_none(database):
    """100 channels, each with three messages of which two fill a claim, and one that is small: each claim goes on where the last one ended."""
    for number in range(100):
        delay(database, f"flood {number:02}", 3, 6 << 20)
    delay(database, "honest", 1)
    behind, seen = "", []
    for _ in range(120):
        count, behind = promote(database, behind)
        seen.append(behind)
        assert count > 0
        if "honest" in moved(database):
            break
    assert seen[:3] == ["flood 00", "flood 01", "flood 02"] and len(seen) == 100, seen
    assert max(moved(database).values()) <= 2


def plan_of(database, name, values):
    with open(os.path.join(os.path.dirname(__file__), "../../schema/queries", name), encoding="utf-8") as file:
        sql = re.sub(r"\$(\d+)", lambda match: values[int(match.group(1)) - 1], re.sub(r"--.*", "", file.read()))
    with database.connection.cursor() as cursor:
        cursor.execute("BEGIN")
        cursor.execute("EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON) " + sql)
        plan = cursor.fetchone()[0][0]["Plan"]
        cursor.execute("ROLLBACK")
    return plan


def pages(plan):
    return plan["Shared Hit Blocks"] + plan["Shared Read Blocks"]


def passed(plan):
    """Rows that were read in vain."""
    return plan.get("Rows Removed by Filter", 0) * plan["Actual Loops"] + sum(passed(part) for part in plan.get("Plans", []))


@pytest.mark.parametrize("analyzed", [False, True])
@pytest.mark.parametrize("due", [True, False], ids=["due", "never due"])
def test_retries_and_delayed_messages_are_not_looked_for_among_the_delayed_messages_of_others(database, due, analyzed):
    """In pages that were read, with statistics and without."""
    database.run("ALTER TABLE outbox.scheduled SET (autovacuum_enabled = off)")
    database.run("INSERT INTO outbox.scheduled (id, kind, channel, type, headers, payload, created_at, bytes, due_at)"
                 " SELECT gen_random_uuid(), 'event', 'flood', 't', '{}', '{}', now(), 4, now() + %s::interval FROM generate_series(1, 60000)", "-1 s" if due else "10 y")
    delay(database, "honest", 3)
    database.run("INSERT INTO outbox.scheduled (seq, id, kind, channel, type, headers, created_at, bytes, due_at)"
                 " SELECT i, gen_random_uuid(), 'event', 'honest', 't', '{}', now(), 2, now() FROM generate_series(1, 3) i")
    if analyzed:
        database.run("ANALYZE outbox.scheduled")
    claim = pages(plan_of(database, "claim_scheduled.sql", ["500", "8388608", "'{}'", "NULL", "NULL", "134217728", "NULL"]))
    look = pages(plan_of(database, "look.sql", ["0", "'{}'", "NULL", "NULL"]))
    promoted = pages(plan_of(database, "promote.sql", ["100", "8388608", "NULL", "''"]))
    assert claim < 60 and look < 60 and promoted < (3000 if due else 200), (claim, look, promoted)


def test_of_channels_of_which_nothing_is_due_a_thousand_are_passed_at_once(database):
    database.run("INSERT INTO outbox.scheduled (id, kind, channel, type, headers, payload, created_at, bytes, due_at)"
                 " SELECT gen_random_uuid(), 'event', 'never ' || i, 't', '{}', '{}', now(), 4, 'infinity' FROM generate_series(1, 2500) i")
    delay(database, "flood", 1500)
    delay(database, "zzz", 1)
    behinds = []
    for _ in range(4):
        count, behind = promote(database, behinds[-1] if behinds else "")
        behinds.append(behind)
    assert behinds[0].startswith("never ") and behinds[2] == "" and moved(database) == {"flood": 1500, "zzz": 1}, behinds


def test_a_lane_that_somebody_else_holds_costs_a_claim_no_more_however_many_of_its_rows_are_due(ordered):
    """Of 60,000 of one key 50,000 are passed; and what is behind some of them goes."""
    lane = ordered.value("SELECT (hashtextextended('held', 0) # hashtextextended('k', 0)) & 7")
    delay(ordered, "held", 4000, key="k")
    free = next(key for key in "abcdefgh" if ordered.value("SELECT (hashtextextended('held', 0) # hashtextextended(%s, 0)) & 7", key) != lane)
    delay(ordered, "held", 5, key=free)
    delay(ordered, "held", 56000, key="k")
    stranger = ordered.connect(autocommit=False)
    stranger.cursor().execute("SELECT pg_advisory_xact_lock('outbox.message'::regclass::oid::int, %s)", (lane,))
    assert promote(ordered, lanes=7)[0] == 5 and moved(ordered) == {"held": 5}
    plan = plan_of(ordered, "promote.sql", ["1000", "8388608", "7", "''"])
    assert 50000 <= passed(plan) <= 56000, passed(plan)
    stranger.close()
    assert promote(ordered, lanes=7)[0] == 1000


@pytest.mark.parametrize("mode", ["none", "key"])
def test_of_one_channel_the_first_that_are_due_go_first(database, mode):
    """In order, a key's delayed messages get their seqs as they fell due, also where others are looked at first."""
    assert relay("migrate", "--order", mode, "-d", database.conninfo).returncode == 0
    delay(database, "a", 3, LARGE, "k")
    delay(database, "a", 1500, 10, "k")
    delay(database, "b", 40, 10, "k")
    for turn in range(20):
        if not promote(database, "", 63 if mode == "key" else None)[0]:
            break
    assert turn >= 2 and database.value("SELECT count(*) FROM outbox.scheduled") == 0
    assert database.value("SELECT count(*) FROM (SELECT seq, lag(seq) OVER (PARTITION BY channel ORDER BY created_at) AS before FROM outbox.message) s"
                          " WHERE seq < before") == 0
