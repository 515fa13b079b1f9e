"""Somebody else deletes and changes rows of the outbox by hand, whether a relay holds them or not."""
import collections
import json
import time

import psycopg2
import pytest

from accounting import Accounting
from harness import Repeater, amqp, relay, wait_until
from scripted_broker import ScriptedBroker

WORKERS, BATCH = 2, 20


class Stranger(Repeater):
    """`done` are the ids that its commits concern."""

    def __init__(self, database, sql):
        self.done = set()
        super().__init__(database, lambda cursor: (cursor.execute(sql), self.done.update(row[0] for row in cursor.fetchall())))

    def stop(self):
        super().stop()
        return self.done


def setting(database, broker, mode):
    """(ids in order, oracle, arguments) of 3,000 messages of 50 keys."""
    assert relay("migrate", "-d", database.conninfo, "--order", mode).returncode == 0
    exchange = broker.exchange("orders")
    ids = [row[0] for row in database.run(
        "INSERT INTO outbox.message (channel, type, key, payload) SELECT 'orders', 't', (i % 50)::text, '{\"v\": 1}' FROM generate_series(1, 3000) i"
        " RETURNING id::text")]
    return ids, broker.oracle(broker.queue("all", exchange)), [
        "-d", database.conninfo, *amqp("amqp.exchange=" + exchange, "order=" + mode, f"workers={WORKERS}", f"batch.max_messages={BATCH}")]


@pytest.mark.parametrize("mode", ["none", "key"])
def test_what_a_stranger_deleted_is_never_delivered_and_the_rest_is_once_and_in_order(database, broker, start, mode):
    """His DELETE waits for rows in flight, and finds them gone; others he is the first to get."""
    ids, oracle, arguments = setting(database, broker, mode)
    running = start(*arguments)
    wait_until(oracle.ids, what="the first delivery")
    stranger = Stranger(database, "DELETE FROM outbox.message WHERE seq IN (SELECT seq FROM outbox.message ORDER BY seq"
                                  " OFFSET (random() * 100)::int LIMIT 2) RETURNING id::text")
    wait_until(lambda: database.left() == 0, what="an empty outbox")
    deleted = stranger.stop()
    oracle.await_ids(set(ids) - deleted)
    print(f"{len(deleted)} deleted by hand")
    assert len(deleted) > 2 and len(ids) - len(deleted) > 100, "both must have had their share"
    Accounting.of_oracle([i for i in ids if i not in deleted], oracle).check(ordered=mode == "key")
    assert "warning" not in running.log()


@pytest.mark.parametrize("mode", ["none", "key"])
def test_what_a_stranger_changed_is_delivered_as_he_left_it(database, broker, start, mode):
    """A race: tried again and again, so that it is found if it is there."""
    ids, oracle, arguments = setting(database, broker, mode)
    stranger = Stranger(database, "UPDATE outbox.message SET payload = '{\"v\": 2}' WHERE seq IN"
                                  " (SELECT seq FROM outbox.message ORDER BY seq OFFSET 10 LIMIT 20) AND payload::text = '{\"v\": 1}' RETURNING id::text")
    start(*arguments)
    old, rounds = [], 0
    try:
        while rounds < 10 and not old:
            rounds += 1
            wait_until(lambda: database.left() == 0, what="an empty outbox")
            changed = set(stranger.done)
            oracle.await_ids(changed)
            old = [d["id"] for d in oracle.deliveries() if d["id"] in changed and json.loads(d["body"])["v"] == 1]
            ids += [row[0] for row in database.run("INSERT INTO outbox.message (channel, type, key, payload) SELECT 'orders', 't', (i % 50)::text,"
                                                   " '{\"v\": 1}' FROM generate_series(1, 1500) i RETURNING id::text")]
    finally:
        changed = stranger.stop()
    oracle.await_ids(ids)
    print(f"{len(changed)} changed by hand, {len(old)} of them delivered as they were before, {rounds} rounds")
    assert changed and not old


@pytest.mark.parametrize("sql", ["DELETE FROM outbox.message", "UPDATE outbox.message SET type = 'other'"])
def test_a_stranger_waits_for_the_rows_in_flight_and_comes_too_late(database, start, sql):
    """No commit of his can come between a publish and its DELETE; one with a lock_timeout gives up, and harms nobody."""
    answers = []
    broker = ScriptedBroker(on_message=lambda session, message: answers.append((session, message)))
    ids = database.fill(BATCH)
    running = start("-d", database.conninfo, "-b", "amqp", "-o", f"amqp.url={broker.url}", "-o", "workers=1", "-o", "publish_timeout=20s")
    wait_until(lambda: len(answers) == BATCH, what="all messages in flight")
    hasty = database.connect()
    with hasty.cursor() as cursor:
        cursor.execute("SET lock_timeout = '200ms'")
        with pytest.raises(psycopg2.errors.LockNotAvailable):
            cursor.execute(sql)
    hasty.close()
    patient = Stranger(database, sql + " RETURNING id::text")
    wait_until(lambda: database.value("SELECT count(*) FROM pg_locks WHERE NOT granted AND database ="
                                      " (SELECT oid FROM pg_database WHERE datname = current_database())")
               or database.value("SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"), what="his wait")
    patient.enough.set()
    for session, message in answers:
        session.ack(message.tag)
    assert patient.stop() == set(), "he found nothing"
    wait_until(lambda: database.left() == 0, what="an empty outbox")
    assert broker.accepted() == ids and max(broker.counts.values()) == 1 and "warning" not in running.log()
    running.process.terminate()
    assert running.wait() == 0
    broker.close()


def test_rows_that_a_stranger_holds_are_passed_over_and_delivered_when_he_lets_go(database, broker, start):
    ids, oracle, arguments = setting(database, broker, "key")
    stranger = database.connect(autocommit=False)
    with stranger.cursor() as cursor:
        cursor.execute("UPDATE outbox.message SET payload = '{\"v\": 2}' WHERE key IN ('1', '2') AND seq > 1000 RETURNING id::text")
        held = {row[0] for row in cursor.fetchall()}
    running = start(*arguments)
    oracle.await_ids(set(ids) - held)
    wait_until(lambda: database.ids_left() == held, what="the deletion of all that arrived")
    assert not held & set(oracle.ids())
    stranger.commit()
    stranger.close()
    oracle.await_ids(ids)
    wait_until(lambda: database.left() == 0, what="an empty outbox")
    Accounting.of_oracle(ids, oracle).check(ordered=True)
    assert all(json.loads(d["body"])["v"] == (2 if d["id"] in held else 1) for d in oracle.deliveries())
    assert "warning" not in running.log()


@pytest.mark.parametrize("mode", ["none", "key"])
def test_a_trigger_that_keeps_confirmed_rows_is_told_and_sends_nothing_in_a_hot_loop(database, broker, start, mode):
    """A soft delete, say: the DELETE of a confirmed row does nothing. A worker rests for poll.max (1 s) after each, one claim may be in hand: twelve more deliveries take two workers three rests."""
    ids, oracle, arguments = setting(database, broker, mode)
    database.run("CREATE FUNCTION public.keep() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RETURN NULL; END $$")
    database.run("CREATE TRIGGER keep BEFORE DELETE ON outbox.message FOR EACH ROW WHEN (OLD.seq = 7) EXECUTE FUNCTION public.keep()")
    running = start(*arguments, "-o", "batch.max_messages=500")
    oracle.await_ids(ids)
    began, before = time.monotonic(), collections.Counter(oracle.ids())[ids[6]]
    wait_until(lambda: collections.Counter(oracle.ids())[ids[6]] >= before + 12, what="some more deliveries of what is kept")
    counts, took = collections.Counter(oracle.ids()), time.monotonic() - began
    print(f"most often: {counts.most_common(1)}, the last twelve in {took:.1f} s")
    assert took > 2 and sorted(counts.values())[-2] == 1
    assert "confirmed rows are still in the outbox" in running.log()
    database.run("DROP TRIGGER keep ON outbox.message")
    wait_until(lambda: database.left() == 0, what="an empty outbox")


@pytest.mark.parametrize("mode", ["none", "key"])
def test_a_drain_that_finds_confirmed_rows_kept_ends_with_78_and_loses_nothing(database, broker, mode):
    ids, oracle, arguments = setting(database, broker, mode)
    database.run("CREATE RULE keep AS ON DELETE TO outbox.message DO INSTEAD NOTHING")
    done = relay("drain", "-q", *arguments)
    assert done.returncode == 78 and "does a trigger, a rule, a policy or a constraint keep them" in done.stderr, done.stderr
    assert database.ids_left() == set(ids), "what a rule keeps is still there"
    wait_until(lambda: oracle.ids(), what="deliveries")
    assert max(collections.Counter(oracle.ids()).values()) <= WORKERS + 1
    database.run("DROP RULE keep ON outbox.message")
    assert relay("drain", "-q", *arguments).returncode == 0
    oracle.await_ids(ids)


# ---- who stands in the way is named ----

LOCK_HEAD = "SELECT FROM outbox.message ORDER BY seq LIMIT 1 FOR UPDATE"


def open_one(database, *statements):
    session = database.connect(autocommit=False)
    with session.cursor() as cursor:
        for statement in statements:
            cursor.execute(statement)
    return session


def told(database, sentence):
    return wait_until(lambda: [line for line in relay("status", "-d", database.conninfo).stdout.splitlines() if line.startswith("IN THE WAY: ") and sentence in line],
                      20, f"a status that says: {sentence}")


@pytest.mark.parametrize("statements", [[LOCK_HEAD], ["SAVEPOINT s", LOCK_HEAD]], ids=["by a transaction", "within a savepoint"])
def test_who_has_locked_the_first_row_is_named(database, statements):
    database.fill(3)
    session = open_one(database, *statements)
    line = told(database, "the first message that waits (seq 1, channel orders) is locked by process ")
    assert f"SELECT pg_terminate_backend({session.info.backend_pid}) ends it" in line[0], line
    session.close()


def test_who_has_locked_the_first_retry_is_named(database):
    database.run("INSERT INTO outbox.scheduled (seq, id, kind, channel, type, headers, created_at, bytes, due_at)"
                 " SELECT 7, gen_random_uuid(), 'event', 'orders', 't', '{}', now(), 2, now()")
    session = open_one(database, "SELECT FROM outbox.scheduled FOR UPDATE")
    told(database, "the first retry that is due (seq 7, channel orders) is locked by process ")
    session.close()


def test_a_prepared_transaction_that_has_locked_the_first_row_is_named_and_how_it_ends(database):
    database.fill(3)
    open_one(database, LOCK_HEAD, "PREPARE TRANSACTION 'left over'").close()
    line = told(database, "is locked by prepared transaction \"left over\" (user postgres)")
    assert "ROLLBACK PREPARED 'left over', or COMMIT PREPARED, ends it" in line[0], line
    database.run("ROLLBACK PREPARED 'left over'")


def test_those_who_share_the_lock_of_the_first_row_are_named(database):
    database.fill(3)
    sessions = [open_one(database, "SELECT FROM outbox.message ORDER BY seq LIMIT 1 FOR SHARE") for _ in range(2)]
    for session in sessions:
        told(database, f"rows of outbox.message are locked by process {session.info.backend_pid} ")
    for session in sessions:
        session.close()


def test_who_holds_a_table_against_writes_is_named(database):
    database.fill(3)
    session = open_one(database, "LOCK TABLE outbox.dead_letter IN SHARE MODE")
    told(database, "table outbox.dead_letter is locked against writes by process ")
    session.close()


def test_a_producer_at_work_stands_in_nobodys_way(database):
    database.fill(3)
    session = open_one(database, "INSERT INTO outbox.message (channel, type) VALUES ('a', 't')")
    wait_until(lambda: database.value("SELECT clock_timestamp() - xact_start > interval '6 s' FROM pg_stat_activity WHERE pid = %s", session.info.backend_pid),
               10, "a transaction that is old enough to be told")
    assert "IN THE WAY" not in relay("status", "-d", database.conninfo).stdout
    session.close()
