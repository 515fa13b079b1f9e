"""Order by key: who may start, what a key's head is, and what neither a hot key nor a stranger may do to the others."""
import collections
import concurrent.futures
import json
import os
import re
import time

import pytest

from harness import amqp, relay, wait_until

ONE_WORKER = ["-b", "stdout", "-o", "workers=1"]  # it asks for retries first
QUERIES = os.path.join(os.path.dirname(__file__), "../../schema/queries")


@pytest.fixture
def ordered(database):
    done = relay("migrate", "-d", database.conninfo, "--order", "key", "--lanes", "16")
    assert done.returncode == 0 and "order: key, 16 lanes" in done.stdout
    return database


def drain(database, *more, order="key"):
    """With the ids that arrived, in order, as .ids; what became of it stands on standard error."""
    done = relay("drain", "-q", "-d", database.conninfo, "-o", "order=" + order, *(more or ["-b", "stdout"]))
    done.ids = [json.loads(line)["id"] for line in done.stdout.splitlines()]
    return done


def put(database, key, count=1, type_="t"):
    """Ids, in order."""
    return [database.value("SELECT outbox.publish('orders', %s, '{}', key => %s)::text", type_, key) for _ in range(count)]


def wait_in_scheduled(database, identity, due_in):
    """As after a refusal."""
    database.run("WITH row AS (DELETE FROM outbox.message WHERE id = %s RETURNING *)"
                 " INSERT INTO outbox.scheduled (seq, id, kind, channel, type, key, headers, payload, created_at, bytes, due_at, tried_at)"
                 " SELECT seq, id, kind, channel, type, key, headers, payload, created_at, bytes, now() + %s::interval, now() FROM row",
                 identity, due_in)


# ---- who may start ----------------------------------------------------------------------------------------------------------


def test_a_relay_that_disagrees_about_the_order_refuses_to_start(ordered):
    for command in ("run", "drain", "check"):
        more = ["--connect"] if command == "check" else []
        done = relay(command, *more, "-d", ordered.conninfo, "-b", "null", timeout=20)
        assert done.returncode == 78 and "this outbox is ordered by key" in done.stdout + done.stderr, command
    assert relay("migrate", "-d", ordered.conninfo, "--order", "none").returncode == 0
    done = drain(ordered, "-b", "null")
    assert done.returncode == 78 and "run 'outbox-relay migrate --order key'" in done.stderr
    assert relay("drain", "-q", "-d", ordered.conninfo, "-b", "null").returncode == 0


@pytest.mark.parametrize("lanes", ["0", "3", "2048", "x"])
def test_lanes_that_are_no_power_of_two_are_refused(database, lanes):
    done = relay("migrate", "-d", database.conninfo, "--order", "key", "--lanes", lanes)
    assert done.returncode == 64 and "--lanes" in done.stderr
    assert database.value("SELECT value FROM outbox.setting WHERE name = 'order'") == "none"


def test_lanes_that_somebody_wrote_by_hand_are_refused_with_the_fix(ordered):
    ordered.run("UPDATE outbox.setting SET value = '6' WHERE name = 'lanes'")
    done = drain(ordered, "-b", "null")
    assert done.returncode == 78 and "migrate --order key --lanes N" in done.stderr


def test_a_change_of_order_stops_the_relays_that_run_and_waits_for_their_transactions(ordered, start):
    """Otherwise two relays would claim one key by different lanes."""
    running = start("-d", ordered.conninfo, "-b", "null", "-o", "order=key")
    put(ordered, "a")
    wait_until(lambda: ordered.left() == 0, what="an empty outbox")
    assert relay("migrate", "-d", ordered.conninfo, "--order", "key", "--lanes", "32").returncode == 0
    put(ordered, "a")
    running.await_log("was changed")
    assert ordered.left() <= 1
    wait_until(lambda: ordered.left() == 0, what="the new lanes, found on the next connection")
    relay("migrate", "-d", ordered.conninfo, "--order", "none")
    put(ordered, "a")
    running.await_log("this outbox is not ordered")
    assert ordered.left() == 1


def test_the_change_of_order_waits_for_a_claim_in_flight(ordered, start):
    """The relay reads outbox.setting first thing in each transaction: while one is open, the lanes cannot change."""
    put(ordered, "a")
    start("-d", ordered.conninfo, "-b", "fail", "-o", "fail.script=hang", "-o", "order=key", "-o", "workers=1", "-o", "publish_timeout=3s")
    wait_until(ordered.lanes_held, what="a claim in flight")
    change = start("-d", ordered.conninfo, "--order", "key", "--lanes", "32", command="migrate")
    wait_until(lambda: ordered.value("SELECT count(*) FROM pg_locks WHERE NOT granted AND relation = 'outbox.setting'::regclass"),
               what="migrate's wait")
    assert ordered.lanes_held() and change.process.poll() is None
    assert change.wait(30) == 0


def test_check_warns_about_what_breaks_order(ordered):
    def warnings():
        return relay("check", "--connect", "-d", ordered.conninfo, "-b", "null", "-o", "order=key").stdout

    assert "warning" not in warnings()
    ordered.run("ALTER SEQUENCE outbox.message_seq CACHE 32")
    assert "has CACHE 32" in warnings() and "ALTER SEQUENCE outbox.message_seq CACHE 1" in warnings()
    ordered.run("ALTER SEQUENCE outbox.message_seq CACHE 1; DROP INDEX outbox.message_order_idx;"
                " ALTER TABLE outbox.message ALTER seq SET DEFAULT nextval('outbox.message_seq')")
    assert "message_order_idx is missing" in warnings() and "another default" in warnings()
    ordered.run("CREATE INDEX message_order_idx ON outbox.message (channel, key, seq)")
    assert "missing" not in warnings() and "message_order_idx is not the one that claims need" in warnings()


# ---- heads ------------------------------------------------------------------------------------------------------------------


def test_each_key_arrives_in_order_and_rows_without_a_key_too(ordered):
    ids = {key: put(ordered, key, 30) for key in ("a", "b", None)}
    mixed = [put(ordered, key)[0] for _ in range(20) for key in ("a", "c", None)]
    done = drain(ordered, "-b", "stdout", "-o", "batch.max_messages=7")
    got = done.ids
    assert done.returncode == 0
    assert len(got) == len(set(got)) == 150
    assert [i for i in got if i in set(ids["a"] + mixed[0::3])] == ids["a"] + mixed[0::3]
    assert [i for i in got if i in set(mixed[1::3])] == mixed[1::3]


def test_a_refused_head_blocks_its_key_and_no_other_until_it_is_delivered(ordered, broker, start):
    exchange = broker.exchange("orders")
    queue = broker.queue("all", exchange, "good")
    oracle = broker.oracle(queue)
    first = put(ordered, "a", type_="bad")
    behind = put(ordered, "a", 5, type_="good")
    others = put(ordered, "b", 50, type_="good")
    start("-d", ordered.conninfo, *amqp("amqp.exchange=" + exchange, "order=key", "retry.max_attempts=0", "retry.backoff_max=1s"))
    oracle.await_ids(others)
    wait_until(lambda: ordered.value("SELECT count(*) FROM outbox.scheduled WHERE attempts >= 2") or put(ordered, "b", type_="good") == [],
               what="two counted attempts")
    assert not set(oracle.ids()) & set(behind), "nothing overtakes the head of its key"
    assert ordered.value("SELECT count(*) FROM outbox.message WHERE key = 'a'") == 5
    broker.channel.queue_bind(queue, exchange, "bad")
    oracle.await_ids(first + behind)
    assert [i for i in oracle.ids() if i in set(first + behind)] == first + behind


def test_a_dead_head_blocks_its_key_no_longer(ordered, broker, start):
    exchange = broker.exchange("orders")
    oracle = broker.oracle(broker.queue("all", exchange, "good"))
    dead = put(ordered, "a", type_="bad")
    behind = put(ordered, "a", 5, type_="good")
    start("-d", ordered.conninfo, *amqp("amqp.exchange=" + exchange, "order=key", "retry.max_attempts=2", "retry.backoff_min=10ms"))
    wait_until(lambda: ordered.value("SELECT count(*) FROM outbox.dead_letter") or put(ordered, "b", type_="good") == [], what="a dead letter")
    assert [row[0] for row in ordered.run("SELECT id::text FROM outbox.dead_letter")] == dead
    oracle.await_ids(behind)


def test_an_expired_head_never_blocks_its_key(ordered):
    ordered.run("SELECT outbox.publish('orders', 't', '{}', key => 'a', ttl => '1 ms')")
    behind = put(ordered, "a", 3)
    time.sleep(0.01)
    done = drain(ordered)
    assert done.returncode == 1 and done.ids == behind
    assert ordered.run("SELECT reason FROM outbox.dead_letter") == [("expired",)]


def test_drain_says_1_and_claims_nothing_of_a_key_whose_head_waits(ordered):
    wait_in_scheduled(ordered, put(ordered, "a", 2)[0], "1 h")
    free = put(ordered, "b", 3)
    done = drain(ordered)
    assert done.returncode == 1 and "waits behind a retry of its key" in done.stderr
    assert done.ids == free and ordered.left() == 1


def test_a_retry_that_is_due_does_not_overtake_an_earlier_one_that_waits(ordered):
    first, second = put(ordered, "a", 2)
    wait_in_scheduled(ordered, first, "1 h")
    wait_in_scheduled(ordered, second, "0 s")
    other = put(ordered, "b")  # or the drain has nothing to begin with
    assert drain(ordered, *ONE_WORKER).ids == other
    ordered.run("UPDATE outbox.scheduled SET due_at = now() WHERE id = %s", first)
    assert drain(ordered, *ONE_WORKER).ids == [first, second]


def test_a_retry_does_not_overtake_an_earlier_message_of_its_key(ordered):
    """Such as one whose transaction committed late: its seq is smaller, and it stands in outbox.message."""
    first, second = put(ordered, "a", 2)
    wait_in_scheduled(ordered, second, "0 s")
    assert drain(ordered, *ONE_WORKER).ids == [first, second]


# ---- strangers, late commits ----------------------------------------------------------------------------------------------


def test_a_row_that_a_stranger_has_locked_cuts_its_key_there(ordered):
    ids = put(ordered, "a", 5)
    others = put(ordered, "b", 5)
    stranger = ordered.connect(autocommit=False)
    stranger.cursor().execute("SELECT 1 FROM outbox.message WHERE id = %s FOR UPDATE", (ids[2],))
    done = drain(ordered)
    assert done.returncode == 75 and "another process holds the rest" in done.stderr
    assert [i for i in done.ids if i in set(ids)] == ids[:2] and set(others) < set(done.ids)
    stranger.rollback()
    stranger.close()
    assert drain(ordered).ids == ids[2:]


def test_a_lane_that_another_process_holds_is_left_alone(ordered):
    relay("migrate", "-d", ordered.conninfo, "--order", "key", "--lanes", "1")
    put(ordered, "a", 5)
    unkeyed = put(ordered, None, 5)
    holder = ordered.connect(autocommit=False)
    holder.cursor().execute("SELECT pg_advisory_xact_lock('outbox.message'::regclass::oid::int, 0)")
    done = drain(ordered)
    assert done.returncode == 75 and done.ids == unkeyed
    holder.rollback()
    holder.close()


def test_a_smaller_seq_that_commits_late_is_delivered_and_loses_nobody(ordered, start, broker):
    """Two transactions of one key that did not serialise: no order is promised among them, but nothing is lost and nothing stalls."""
    exchange = broker.exchange("orders")
    oracle = broker.oracle(broker.queue("all", exchange))
    start("-d", ordered.conninfo, *amqp("amqp.exchange=" + exchange, "order=key"))
    late = ordered.connect(autocommit=False)
    with late.cursor() as cursor:
        cursor.execute("SELECT outbox.publish('orders', 't', '{}', key => 'a')::text")
        identity = cursor.fetchone()[0]
        early = put(ordered, "a", 3)
        wait_until(lambda: oracle.ids() == early, what="the early ones")
        late.commit()
    late.close()
    wait_until(lambda: oracle.ids() == [*early, identity], what="the late one")


# ---- what must stay fast ----------------------------------------------------------------------------------------------------


def query(name, *values):
    sql = open(os.path.join(QUERIES, name), encoding="utf-8").read()
    sql = re.sub(r"--.*", "", sql)
    return re.sub(r"\$(\d+)", lambda match: values[int(match.group(1)) - 1], sql)


def lanes_of(names, first=0, sharers=1):
    return query("lanes.sql", "15", "0", str(sharers), str(first), "'{}'", "NULL", "NULL", names)


def claim_plan(database, first=0, names="NULL"):
    """EXPLAIN ANALYZE of a keyed claim of 100 rows in all lanes, or in those of channels of such names."""
    nowhere = "'{" + ",".join(["0"] * 16) + "}'"
    connection = database.connect(autocommit=False)
    with connection.cursor() as cursor:
        cursor.execute(query("guards.sql", "'5000'", "'5000'", "'5000'", "'9000'"))
        cursor.execute(lanes_of(names, first))
        cursor.execute("EXPLAIN (FORMAT JSON, ANALYZE, BUFFERS) "
                       + query("claim_keyed.sql", f"'{first}'", "100", "8388608", "'{}'", "NULL", "NULL", "15", nowhere, nowhere, "134217728", names))
        plan = cursor.fetchone()[0][0]["Plan"]
    connection.rollback()
    connection.close()
    return plan


def blocks(plan):
    return plan["Shared Hit Blocks"] + plan["Shared Read Blocks"]


def whole_scan(plan, table):
    return (plan["Node Type"] in ("Seq Scan", "Bitmap Heap Scan") and plan["Relation Name"] == table) or any(
        whole_scan(child, table) for child in plan.get("Plans", []))


@pytest.mark.parametrize("blocked", [False, True])
def test_a_hot_key_in_front_costs_a_claim_nothing_whether_it_waits_or_not(ordered, blocked):
    """And the plan is right on a table without statistics."""
    ordered.run("ALTER TABLE outbox.message SET (autovacuum_enabled = off)")
    ordered.run("INSERT INTO outbox.message (channel, type, key, payload) SELECT 'orders', 't', 'hot', '{}' FROM generate_series(1, 50000) i")
    if blocked:
        ordered.run("INSERT INTO outbox.scheduled (seq, id, kind, channel, type, key, headers, created_at, bytes, due_at)"
                    " SELECT 0, gen_random_uuid(), 'event', 'orders', 't', 'hot', '{}', now(), 2, now() + '1 h'")
    ordered.run("INSERT INTO outbox.message (channel, type, key, payload)"
                " SELECT 'orders', 't', (i % 200)::text, '{}' FROM generate_series(1, 1000) i")
    plan = claim_plan(ordered)
    assert not whole_scan(plan, "message") and plan["Actual Rows"] == 100
    assert blocks(plan) < 6000, "50,000 rows of the hot key were read"


def test_a_resting_channel_with_many_keys_in_front_costs_a_step_per_lane(ordered):
    ordered.run("INSERT INTO outbox.message (channel, type, key, payload) SELECT 'paused', 't', i::text, '{}' FROM generate_series(1, 20000) i")
    ordered.run("INSERT INTO outbox.message (channel, type, key, payload) SELECT 'orders', 't', i::text, '{}' FROM generate_series(1, 500) i")
    ordered.run("INSERT INTO outbox.paused (scope) VALUES ('paused')")
    plan = claim_plan(ordered)
    assert plan["Actual Rows"] == 100 and blocks(plan) < 6000, blocks(plan)


def test_a_claim_for_named_channels_goes_from_one_to_the_next_past_thousands_of_others(ordered):
    ordered.run("INSERT INTO outbox.message (channel, type, key, payload) SELECT 'foreign' || i, 't', 'k', '{}' FROM generate_series(1, 20000) i")
    ordered.run("INSERT INTO outbox.message (channel, type, key, payload) SELECT channel, 't', i::text, '{}'"
                " FROM generate_series(1, 50) i, (VALUES ('orders'), (E'o_d%r\\\\s')) c (channel)")
    plan = claim_plan(ordered, names="ARRAY['orders', 'o_d%r\\s', 'none']")
    assert plan["Actual Rows"] == 100 and blocks(plan) < 6000, blocks(plan)


def test_of_the_lanes_those_alone_are_taken_in_which_the_named_channels_have_rows(ordered):
    """A lane with more than twenty channels of others would be taken unseen, had it to be walked."""
    ordered.run("INSERT INTO outbox.message (channel, type, key, payload) SELECT 'foreign' || i, 't', 'k', '{}' FROM generate_series(1, 2000) i")
    ordered.run("INSERT INTO outbox.message (channel, type, key, payload) VALUES ('orders', 't', 'k', '{}')")
    lane = ordered.value("SELECT (hashtextextended('orders', 0) # hashtextextended('k', 0)) & 15")
    assert ordered.value(lanes_of("ARRAY['none', 'orders', 'nor this']")) == f"{{{lane}}}"
    assert ordered.value(lanes_of("ARRAY['none']")) == "{}"
    assert ordered.value(lanes_of("NULL")) == "{" + ",".join(map(str, range(16))) + "}", "all, unseen"


def test_no_key_waits_for_ever_behind_others_that_are_refilled(ordered, start, broker):
    """More keys with messages than one claim takes, all of them refilled all the time: each key makes progress."""
    ordered.run("INSERT INTO outbox.message (channel, type, key, payload)"
                " SELECT 'orders', 't', k::text, '{}' FROM generate_series(1, 100) i, generate_series(1, 300) k")
    exchange = broker.exchange("orders")
    oracle = broker.oracle(broker.queue("all", exchange))
    start("-d", ordered.conninfo, *amqp("amqp.exchange=" + exchange, "order=key", "batch.max_messages=20", "workers=1"))
    wait_until(lambda: len(oracle.ids()) >= 6000, 60, "a fifth of the messages")
    counts = {}
    for delivery in oracle.deliveries():
        key = delivery["headers"]["outbox-key"]
        counts[key] = counts.get(key, 0) + 1
    assert len(counts) == 300 and min(counts.values()) * 3 > max(counts.values()), f"unfair: {sorted(counts.values())}"
    assert ordered.left() > 0, "all keys still had messages, or the test proves nothing"


def test_an_index_scan_of_unkeyed_rows_does_not_wade_through_keyed_ones(ordered):
    ordered.run("INSERT INTO outbox.message (channel, type, key, payload) SELECT 'orders', 't', i::text, '{}' FROM generate_series(1, 20000) i")
    ordered.run("INSERT INTO outbox.message (channel, type, payload) SELECT 'orders', 't', '{}' FROM generate_series(1, 100) i")
    sql = re.sub(r"--.*", "", open(os.path.join(QUERIES, "claim.sql"), encoding="utf-8").read())
    values = ["'0'", "'50'", "'8388608'", "'{}'", "NULL", "NULL", "15", "NULL", "134217728", "NULL"]
    sql = re.sub(r"\$(\d+)", lambda match: values[int(match.group(1)) - 1], sql)
    plan = ordered.value("EXPLAIN (FORMAT JSON, ANALYZE, BUFFERS) " + sql.replace("%", "%%"))[0]["Plan"]
    assert plan["Actual Rows"] == 50 and blocks(plan) < 1000


# ---- what other processes, channels and retries may not take away -----------------------------------------------------------


def lanes_held(database):
    """How many lanes each server process holds."""
    return collections.Counter(pid for _, pid, _ in database.lanes_held())


def test_a_worker_takes_no_more_than_its_share_of_the_lanes_that_have_messages(ordered, start):
    """Six keys and four workers: the slow key of one must not hold up the other five."""
    for key in range(6):
        put(ordered, str(key))
    start("-d", ordered.conninfo, "-b", "fail", "-o", "fail.script=hang", "-o", "order=key", "-o", "workers=4", "-o", "publish_timeout=30s",
          "-o", "shutdown_timeout=1s")
    held = wait_until(lambda: (lambda now: now if len(now) >= 4 else None)(lanes_held(ordered)), what="four workers with a batch each")
    assert max(held.values()) <= 2, held


def test_a_process_leaves_the_lanes_of_other_channels_to_others(ordered, start):
    """One relay carries a, which is slow and has one message, another b: only what shares a's lane may wait for it."""
    ordered.run("SELECT outbox.publish('a', 't', '{}', key => 'k')")
    ordered.run("SELECT outbox.publish('b', 't', '{}', key => i::text) FROM generate_series(1, 60) i")
    start("-d", ordered.conninfo, "-b", "fail", "-o", "fail.script=hang", "-o", "order=key", "-o", "workers=1", "-o", "publish_timeout=30s",
          "-o", "channels.include=a", "-o", "shutdown_timeout=1s")
    held = wait_until(lambda: lanes_held(ordered), what="the batch of a in flight")
    assert list(held.values()) == [1]
    start("-d", ordered.conninfo, "-b", "null", "-o", "order=key", "-o", "channels.include=b", "-o", "poll.max=50ms")
    lane = "(hashtextextended(channel, 0) # hashtextextended(key, 0)) & 15"
    wait_until(lambda: ordered.value(f"SELECT count(*) FROM outbox.message WHERE channel = 'b' AND {lane} <>"
                                     f" (SELECT {lane} FROM outbox.message WHERE channel = 'a')") == 0, 20, "b, but for a's lane")


@pytest.mark.parametrize("workers", [2, 8])
def test_retries_are_not_starved_by_due_ones_that_cannot_go(ordered, workers):
    """In front of them: 3,000 due retries of one key of a paused channel, and 300 of many keys."""
    ordered.run("INSERT INTO outbox.scheduled (seq, id, kind, channel, type, key, headers, created_at, bytes, due_at)"
                " SELECT -i, gen_random_uuid(), 'event', 'away', 't', CASE WHEN i <= 3000 THEN 'one' ELSE i::text END, '{}', now(), 2,"
                " now() - '1 h'::interval FROM generate_series(1, 3300) i")
    ordered.run("INSERT INTO outbox.paused (scope) VALUES ('away')")
    ids = [put(ordered, f"k{key}", 2) for key in range(64)]
    for first, _ in ids:
        wait_in_scheduled(ordered, first, "0 s")
    done = drain(ordered, "-b", "stdout", "-o", f"workers={workers}")
    assert done.returncode == 1 and "on hold" in done.stderr, done.stderr
    for first, second in ids:
        assert done.ids.index(first) < done.ids.index(second)


def test_many_due_retries_of_one_key_go_in_runs_and_in_order(ordered):
    """A thousand dead letters of one key, sent again at once, must not cost a thousand transactions."""
    ids = [row[0] for row in ordered.run(
        "INSERT INTO outbox.scheduled (seq, id, kind, channel, type, key, headers, created_at, bytes, due_at)"
        " SELECT i, gen_random_uuid(), 'event', 'orders', 't', 'one', '{}', now(), 2, now() FROM generate_series(1, 1000) i RETURNING id::text")]
    before = ordered.value("SELECT xact_commit FROM pg_stat_database WHERE datname = current_database()")
    assert drain(ordered).ids == ids
    wait_until(lambda: ordered.value("SELECT pg_stat_clear_snapshot(), count(*) FROM outbox.scheduled") is not None, what="statistics")
    spent = ordered.value("SELECT xact_commit FROM pg_stat_database WHERE datname = current_database()") - before
    assert spent < 500, f"{spent} transactions"


def test_free_keys_behind_thousands_that_wait_are_found(database):
    assert relay("migrate", "-d", database.conninfo, "--order", "key", "--lanes", "1").returncode == 0
    database.run("INSERT INTO outbox.message (channel, type, key, payload) SELECT 'orders', 't', i::text, '{}' FROM generate_series(1, 9000) i")
    database.run("INSERT INTO outbox.scheduled (seq, id, kind, channel, type, key, headers, created_at, bytes, due_at)"
                 " SELECT -i, gen_random_uuid(), 'event', 'orders', 't', i::text, '{}', now(), 2, now() + '1 h' FROM generate_series(1, 9000) i")
    free = [row[0] for row in database.run(
        "INSERT INTO outbox.message (channel, type, key, payload) SELECT 'orders', 't', 'free' || i, '{}' FROM generate_series(1, 20) i"
        " RETURNING id::text")]
    done = drain(database, "-b", "stdout", "-o", "poll.max=20ms")
    assert set(done.ids) == set(free), (done.returncode, done.stderr)


def test_a_lane_of_which_all_keys_wait_does_not_hide_the_lane_behind_it(database):
    """A worker takes one lane at a time here: begun at random, it would be that lane in 1023 of 1024 claims, and drain would blame another process.
    Eight drains, since each makes many claims, and may meet the free lane by chance."""
    assert relay("migrate", "-d", database.conninfo, "--order", "key", "--lanes", "1024").returncode == 0
    waiting, free = database.run(
        "WITH k AS (SELECT i::text AS key, (hashtextextended('orders', 0) # hashtextextended(i::text, 0)) & 1023 AS lane FROM generate_series(1, 20000) i)"
        " SELECT a.key, b.key FROM k a JOIN k b ON b.lane = a.lane + 1 LIMIT 1")[0]
    wait_in_scheduled(database, put(database, waiting, 2)[0], "1 h")
    for _ in range(8):
        wanted = put(database, free, 3)
        done = drain(database, *ONE_WORKER)
        assert done.returncode == 1 and done.ids == wanted, done.stderr


def test_a_delayed_message_is_not_hidden_by_the_retries_that_are_published_meanwhile(ordered, start):
    """It enters outbox.message in a transaction of its own."""
    wait_in_scheduled(ordered, put(ordered, "slow")[0], "0 s")
    ordered.run("SELECT outbox.publish('orders', 't', '{}', key => 'k', delay => '0 s')")
    start("-d", ordered.conninfo, "-b", "fail", "-o", "fail.script=hang", "-o", "order=key", "-o", "workers=1", "-o", "publish_timeout=30s",
          "-o", "shutdown_timeout=1s")
    moved = "SELECT count(*) FROM outbox.message WHERE key = 'k'"
    wait_until(lambda: ordered.value(moved) == 1 and ordered.open_transactions() > 0, 15, "the delayed one, seen while the retry hangs")


def test_a_change_of_order_kills_no_producer_and_makes_nobody_wait_for_long(database):
    """It gives up and tries again rather than wait with half of its locks."""
    producer = database.connect(autocommit=False)
    with producer.cursor() as cursor:
        cursor.execute("SELECT outbox.publish('orders', 't', '{}', delay => '1 h')")
        with concurrent.futures.ThreadPoolExecutor(1) as threads:
            change = threads.submit(relay, "migrate", "-d", database.conninfo, "--order", "key")
            wait_until(lambda: database.value("SELECT count(*) FROM pg_locks WHERE NOT granted AND mode = 'AccessExclusiveLock'"), what="its wait")
            cursor.execute("SELECT pg_sleep(1.5)")  # deadlock_timeout is 1 s: whoever begins to wait now would be the victim
            cursor.execute("SET statement_timeout = '3s'; SELECT outbox.publish('orders', 't', '{}')")
            producer.commit()
            assert change.result().returncode == 0
    producer.close()
    assert database.left() == 1 and database.value("SELECT count(*) FROM outbox.scheduled") == 1
