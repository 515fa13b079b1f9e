"""An administrator works on the table while relays run: every lock is waited for, every error is told with its SQLSTATE, nothing is lost."""
import contextlib
import io
import os
import re
import subprocess

import psycopg2
import pytest

import order
from accounting import Accounting
from harness import amqp, relay, wait_until

WORKERS, BATCH = 2, 50


def arguments(database, exchange, mode="key"):
    return ["-d", database.conninfo, *amqp("amqp.exchange=" + exchange, "order=" + mode, f"workers={WORKERS}", f"batch.max_messages={BATCH}",
                                           "poll.max=100ms")]


def setting(database, broker, mode="key"):
    """An outbox of that order, an exchange and its oracle."""
    assert relay("migrate", "-d", database.conninfo, "--order", mode, *(["--lanes", "16"] if mode == "key" else [])).returncode == 0
    exchange = broker.exchange("orders")
    return exchange, broker.oracle(broker.queue("all", exchange))


def rebuild_index(database):
    definition = database.value("SELECT pg_get_indexdef('outbox.message_order_idx'::regclass)")
    database.run("DROP INDEX outbox.message_order_idx")
    database.run(definition)


def lock(database):
    """3 s: longer than the relay's lock_timeout."""
    database.run("BEGIN; LOCK TABLE outbox.message IN ACCESS EXCLUSIVE MODE; SELECT pg_sleep(3); COMMIT")


def dump(database):
    own = os.path.join(os.environ["TEST_PG_BIN"], "pg_dump")
    done = subprocess.run([own if os.path.exists(own) else "pg_dump", "-d", database.conninfo], capture_output=True, check=False, timeout=60)
    if b"server version mismatch" in done.stderr:  # an older pg_dump than the server: what it would do
        with database.connect(autocommit=False) as reader, reader.cursor() as cursor:
            cursor.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY")
            cursor.execute("LOCK TABLE outbox.message, outbox.scheduled, outbox.dead_letter IN ACCESS SHARE MODE")
            cursor.copy_expert("COPY outbox.message TO STDOUT", io.BytesIO())
        return
    assert done.returncode == 0 and b"COPY outbox.message" in done.stdout, done.stderr


def statement(sql):
    return lambda database: database.run(sql)


WORK = {
    "a new column": statement("ALTER TABLE outbox.message ADD COLUMN note text DEFAULT 'none'"),
    "an index that goes and comes": rebuild_index,
    "a lock of 3 s": lock,
    "VACUUM FULL": statement("VACUUM FULL outbox.message"),
    "REINDEX": statement("REINDEX TABLE CONCURRENTLY outbox.message"),  # the plain one runs into deadlocks with every writer
    "CLUSTER": statement("CLUSTER outbox.message USING message_pkey"),
    "pg_dump": dump,
}


@pytest.mark.parametrize("work", WORK)
def test_messages_flow_on_after_heavy_work_on_the_table_each_once_and_in_order(database, broker, start, work):
    exchange, oracle = setting(database, broker)
    running = start(*arguments(database, exchange))
    producers = order.start_all(database, 2, 29, backlog=500)
    try:
        wait_until(oracle.ids, what="the first delivery")
        for _ in range(1 if work in ("a lock of 3 s", "a new column") else 3):
            WORK[work](database)
        after = database.value("SELECT max(number) FROM aggregate WHERE key = 'hot'") or 0
        wait_until(lambda: (database.value("SELECT max(number) FROM aggregate WHERE key = 'hot'") or 0) > after, what="messages after it")
    finally:
        committed, _ = order.stop_all(producers)
    oracle.await_ids(committed, 30)
    wait_until(lambda: database.left() == 0, what="an empty outbox")
    Accounting.of_oracle(committed, oracle).check(ordered=True)
    if work == "a lock of 3 s":
        assert re.search(r"warning the database refuses, trying on .*SQLSTATE 55P03", running.log())
    assert running.process.poll() is None


@pytest.mark.parametrize("mode", ["none", "key"])
def test_a_table_that_is_locked_against_writes_is_noticed_before_anything_is_sent(database, broker, start, mode):
    """CREATE INDEX, or LOCK ... IN SHARE MODE, for 8 s: one fault, so at most what was in flight may arrive twice."""
    exchange, oracle = setting(database, broker, mode)
    running = start(*arguments(database, exchange, mode))
    running.await_log("running")
    administrator = database.connect(autocommit=False)
    with administrator.cursor() as cursor:
        ids = database.fill(1000)
        cursor.execute("LOCK TABLE outbox.message IN SHARE MODE")
        cursor.execute("SELECT pg_sleep(8)")
        administrator.commit()
    administrator.close()
    oracle.await_ids(ids, 30)
    wait_until(lambda: database.left() == 0, what="an empty outbox")
    Accounting.of_oracle(ids, oracle, bound=WORKERS * BATCH).check()


@pytest.mark.parametrize("mode", ["none", "key"])
def test_a_renamed_table_is_told_and_its_messages_go_on_when_it_is_back(database, broker, start, mode):
    exchange, oracle = setting(database, broker, mode)
    ids = [row[0] for row in database.run("INSERT INTO outbox.message (channel, type, key, payload) SELECT 'orders', 't', (i % 20)::text, '{}'"
                                          " FROM generate_series(1, 10000) i RETURNING id::text")]
    running = start(*arguments(database, exchange, mode))
    wait_until(oracle.ids, what="the first delivery")
    database.run("ALTER TABLE outbox.message RENAME TO elsewhere")
    running.await_log("SQLSTATE 42P01")
    assert database.value("SELECT count(*) FROM outbox.elsewhere") > 0, "too late: all was delivered"
    assert relay("drain", "-q", *arguments(database, exchange, mode)).returncode == 78
    database.run("ALTER TABLE outbox.elsewhere RENAME TO message")
    oracle.await_ids(ids, 30)
    wait_until(lambda: database.left() == 0, what="an empty outbox")
    Accounting.of_oracle(ids, oracle).check(ordered=mode == "key")
    assert re.search(r"warning the database refuses, trying on .*SQLSTATE 42P01", running.log()) and running.process.poll() is None


@pytest.mark.parametrize("mode", ["none", "key"])
def test_what_was_truncated_is_never_delivered_and_what_comes_later_is(database, broker, start, mode):
    """TRUNCATE waits for the batches in flight, so everything that it threw away had not been sent."""
    exchange, oracle = setting(database, broker, mode)
    database.fill(20000)
    running = start(*arguments(database, exchange, mode))
    wait_until(oracle.ids, what="the first delivery")
    thrown = set()
    administrator = database.connect(autocommit=False)
    for _ in range(3):
        with administrator.cursor() as cursor:
            cursor.execute("LOCK TABLE outbox.message IN ACCESS EXCLUSIVE MODE")
            cursor.execute("SELECT id::text FROM outbox.message")
            thrown |= {row[0] for row in cursor.fetchall()}
            cursor.execute("TRUNCATE outbox.message")
            administrator.commit()
        database.fill(1000)
    administrator.close()
    assert len(thrown) > 1000
    late = database.fill(100)
    oracle.await_ids(late, 20)
    wait_until(lambda: database.left() == 0, what="an empty outbox")
    assert not thrown & set(oracle.ids()) and len(oracle.ids()) == len(set(oracle.ids()))
    assert running.process.poll() is None


def test_a_sequence_that_begins_anew_delays_nobody(database, broker, start):
    """TRUNCATE ... RESTART IDENTITY, or a failover behind a pooler to a standby that is behind: seq 1 comes again."""
    exchange, oracle = setting(database, broker, "none")
    start(*arguments(database, exchange, "none"))
    oracle.await_ids(database.fill(500))
    wait_until(lambda: database.left() == 0, what="an empty outbox")
    first = database.fill(1)  # the mark is known by now
    oracle.await_ids(first)
    database.run("TRUNCATE outbox.message RESTART IDENTITY")
    oracle.await_ids(database.fill(10), 30)  # idle, a relay looks at the sequence every 10 s, and reads all only every 60 s


def drop(database):
    """Takes locks on all tables, in an order of its own: a relay may be in the way, and then PostgreSQL ends one of the two."""
    for _ in range(10):
        with contextlib.suppress(psycopg2.errors.DeadlockDetected):
            return database.run("DROP SCHEMA outbox CASCADE")
    raise AssertionError("ten deadlocks in a row")


def test_a_dropped_schema_ends_no_relay_and_a_new_one_is_found(database, broker, start):
    exchange, oracle = setting(database, broker, "none")
    running = start(*arguments(database, exchange, "none"))
    oracle.await_ids(database.fill(10))
    wait_until(lambda: database.left() == 0, what="an empty outbox")
    drop(database)
    running.await_log("SQLSTATE 42P01")
    with pytest.raises(psycopg2.Error):
        database.fill(1)
    assert relay("migrate", "-d", database.conninfo).returncode == 0
    oracle.await_ids(database.fill(10), 20)
    assert running.process.poll() is None
