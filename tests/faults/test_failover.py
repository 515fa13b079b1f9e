"""PostgreSQL fails over to an asynchronous standby that was behind; and servers of the list that take no writes, or say nothing at all."""
import collections
import contextlib
import os
import socket
import time
import uuid

import pika
import psycopg2

from accounting import Accounting
from harness import Database, amqp, relay, wait_until

WORKERS, BATCH = 2, 50


def fill(database, count):
    """Ids in the order of their seq."""
    return [row[0] for row in database.run("INSERT INTO outbox.message (channel, type, key, payload) SELECT 'orders', 't', (i %% 20)::text, '{}'"
                                           " FROM generate_series(1, %s) i RETURNING id::text", count)]


def test_after_a_failover_every_row_that_the_standby_has_is_delivered_in_order_and_none_more_than_twice(servers, broker, proxied, start):
    """Scenario 9. The standby hears no more from the primary, whose relay goes on; then the primary dies, and the standby is promoted."""
    primary = servers("primary")
    link = proxied(primary.port)
    standby = servers("standby", primary, link.port)
    database = Database(server=primary.conninfo)
    assert relay("migrate", "-d", database.conninfo, "--order", "key").returncode == 0
    exchange = broker.exchange("orders")
    oracle = broker.oracle(broker.queue("all", exchange))
    ids = fill(database, 4000)
    end = database.value("SELECT pg_current_wal_lsn()::text")
    wait_until(lambda: standby.value(f"SELECT pg_last_wal_replay_lsn() >= '{end}'") == [(True,)], what="a standby that has all")

    alone = f"{standby.conninfo} dbname={database.name}"
    backend = amqp("amqp.exchange=" + exchange, "order=key", f"workers={WORKERS}", f"batch.max_messages={BATCH}")
    done = relay("drain", "-q", "-d", alone, *backend, "-o", "drain.unavailable_after=1s")
    assert done.returncode == 69 and "read-only" in done.stderr and not oracle.ids()

    running = start("-d", f"{database.conninfo} host=127.0.0.1,127.0.0.1 port={primary.port},{standby.port}", *backend)
    wait_until(oracle.ids, what="the first delivery")
    link.down.hole = True
    behind = len(oracle.ids())
    late = fill(database, 100)  # committed, and lost with the primary: nothing that a relay could do about
    wait_until(lambda: len(oracle.ids()) > behind + 500, what="deliveries that the standby does not hear of")
    primary.control("stop")
    database.connection.close()
    link.end_links()
    there = {row[0] for row in standby.value("SELECT id::text FROM outbox.message", database.name)}
    last = str(uuid.uuid4())  # behind all that the broker took
    broker.channel.basic_publish("", broker.queues[0], b"", pika.BasicProperties(message_id=last))
    oracle.await_ids([last])
    before = set(oracle.ids())
    assert there - before and there & before, "some must reappear, and some must be new"
    standby.control("promote")
    oracle.await_ids(there, 30)
    wait_until(lambda: standby.value("SELECT count(*) FROM outbox.message", database.name) == [(0,)], 30, what="an empty outbox")
    got = oracle.ids()
    reappeared = len(got) - len(set(got))
    print(f"{len(there)} rows on the standby, {reappeared} delivered again, of {len(before)} before")
    Accounting.of_oracle([i for i in ids if i in there or i in before], oracle, attempted=[*late, last],
                         bound=len(there & before) + WORKERS * BATCH).check(ordered=True)
    assert 0 < reappeared and max(collections.Counter(got).values()) == 2 and running.process.poll() is None


def test_a_database_that_takes_no_writes_is_waited_for_without_a_hot_loop_and_drain_says_69(database, broker, proxied, start):
    exchange = broker.exchange("orders")
    oracle = broker.oracle(broker.queue("all", exchange))
    proxy = proxied(os.environ["TEST_PG_PORT"])
    conninfo = database.through(proxy.port)
    running = start("-d", conninfo, *amqp("amqp.exchange=" + exchange))
    running.await_log("running")
    database.run(f"ALTER DATABASE {database.name} SET default_transaction_read_only = on")
    proxy.end_links()
    ids = set()
    with database.connection.cursor() as cursor:  # a session from before
        cursor.execute("INSERT INTO outbox.message (channel, type, payload) SELECT 'orders', 't', '{}' FROM generate_series(1, 100) RETURNING id::text")
        ids |= {row[0] for row in cursor.fetchall()}
    began, mark = time.monotonic(), len(proxy.connects)
    done = relay("drain", "-q", "-d", conninfo, *amqp("amqp.exchange=" + exchange, "drain.unavailable_after=1s"))
    assert done.returncode == 69 and "read-only" in done.stderr
    running.await_log("session is read-only")
    wait_until(lambda: len(proxy.connects) > mark + 5, 20, "some attempts")
    attempts, took = len(proxy.connects) - mark, time.monotonic() - began
    assert attempts <= (2 + 1 + 2) * (took + 1), f"{attempts} attempts in {took:.1f} s by two workers, their supervisor and a drain"
    assert not oracle.ids()
    database.run("BEGIN READ WRITE")
    database.run(f"ALTER DATABASE {database.name} RESET default_transaction_read_only")
    database.run("COMMIT")
    oracle.await_ids(ids, 30)
    wait_until(lambda: database.left() == 0, what="an empty outbox")
    assert sorted(oracle.ids()) == sorted(ids) and running.process.poll() is None


def test_a_first_host_that_says_nothing_does_not_keep_the_relay_from_the_second(database, start):
    """PQconnectStart ignores connect_timeout: a frozen primary must cost no more than that."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        conninfo = f"{database.conninfo} host=127.0.0.1,127.0.0.1 port={silent.getsockname()[1]},{os.environ['TEST_PG_PORT']} connect_timeout=2"
        began = time.monotonic()
        with contextlib.closing(psycopg2.connect(conninfo)):
            took = time.monotonic() - began
        database.fill(10)
        start("-d", conninfo, "-b", "null")
        wait_until(lambda: database.left() == 0, 2 * took + 8, "an empty outbox: its supervisor and a worker needed only connect_timeout")
