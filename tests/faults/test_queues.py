"""order: key against RabbitMQ's queues: unbound and bound again, full and drained. A returned message deletes nothing; keys keep their order."""
import threading
import time

import pika
import pytest

from accounting import Accounting
from harness import AMQP_URL, amqp, relay, wait_until

WORKERS, BATCH, KEYS = 2, 30, 10


class Feeder(threading.Thread):
    """Commits messages of KEYS keys, each key in its order, until it is told to stop; their types take turns within a key."""

    def __init__(self, database, types, pause=0.05):
        super().__init__(daemon=True)
        self.database, self.types, self.pause = database, types, pause
        self.ids, self.enough = [], threading.Event()
        self.start()

    def run(self):
        connection = self.database.connect()
        with connection.cursor() as cursor:
            while not self.enough.wait(self.pause):
                cursor.execute("INSERT INTO outbox.message (channel, type, key, payload) SELECT 'orders', substr(%s, 1 + i / %s %% %s, 1),"
                               " (i %% %s)::text, '{}' FROM generate_series(0, 19) i RETURNING id::text", (self.types, KEYS, len(self.types), KEYS))
                self.ids += [row[0] for row in cursor.fetchall()]
        connection.close()

    def stop(self):
        self.enough.set()
        self.join()
        return self.ids


def arguments(database, exchange, *more):
    return ["-d", database.conninfo, *amqp(
        "amqp.exchange=" + exchange, "order=key", f"workers={WORKERS}", f"batch.max_messages={BATCH}", "poll.max=100ms", "retry.max_attempts=0",
        "retry.backoff_min=50ms", "retry.backoff_max=500ms", "breaker.open_min=50ms", "breaker.open_max=500ms", *more)]


def safe(database, oracle, ids):
    """Are all ids that did not arrive still in the database? The database is read first: arrivals only grow."""
    here = {row[0] for row in database.run("SELECT id::text FROM outbox.message UNION ALL SELECT id::text FROM outbox.scheduled")}
    return lambda: set(ids) <= here | set(oracle.ids())


@pytest.mark.parametrize("types", ["t", "tu"], ids=["all of the channel is unroutable", "half of the channel is unroutable"])
def test_a_queue_that_is_unbound_and_bound_again_loses_nothing_and_keeps_the_order_of_keys(database, broker, start, types):
    """Scenario 17. RabbitMQ returns each message, and acks it all the same: that ack must delete nothing."""
    assert relay("migrate", "-d", database.conninfo, "--order", "key").returncode == 0
    exchange = broker.exchange("orders")
    queue = broker.queue("all", exchange, "t")
    if "u" in types:
        broker.channel.queue_bind(queue, exchange, "u")
    oracle = broker.oracle(queue)
    running = start(*arguments(database, exchange))
    feeder = Feeder(database, types)
    try:
        wait_until(oracle.ids, what="the first delivery")
        for _ in range(2):
            broker.channel.queue_unbind(queue, exchange, "t")
            wait_until(lambda: "312 NO_ROUTE" in running.log() or database.value("SELECT count(*) FROM outbox.scheduled"), what="a returned message")
            mark = wait_until(lambda: {row[0] for row in database.run("SELECT id::text FROM outbox.message WHERE type = 't'"
                                                                      " UNION ALL SELECT id::text FROM outbox.scheduled WHERE type = 't'")},
                              what="a message that cannot go")
            until = time.monotonic() + 1
            while time.monotonic() < until:
                wait_until(safe(database, oracle, mark), 5, "every id that was not delivered, in the database")
            broker.channel.queue_bind(queue, exchange, "t")
            wait_until(lambda waiting=mark: waiting & set(oracle.ids()), what="deliveries after the new binding")
    finally:
        ids = feeder.stop()
    oracle.await_ids(ids, 30)
    wait_until(lambda: database.value("SELECT (SELECT count(*) FROM outbox.message) + (SELECT count(*) FROM outbox.scheduled)") == 0,
               what="an empty outbox")
    Accounting.of_oracle(ids, oracle).check(ordered=True)
    assert not database.dead() and running.process.poll() is None


def test_a_full_queue_that_rejects_and_is_drained_again_and_again_keeps_the_order_of_keys(database, broker, start):
    """Scenario 18. The consumer takes a few at a time; what was nacked is sent again, never past the head of its key."""
    assert relay("migrate", "-d", database.conninfo, "--order", "key").returncode == 0
    exchange = broker.exchange("orders")
    queue = broker.queue("small", exchange, x_max_length=5, x_overflow="reject-publish")
    running = start(*arguments(database, exchange))
    ids = [row[0] for row in database.run("INSERT INTO outbox.message (channel, type, key, payload) SELECT 'orders', 't', (i %% %s)::text, '{}'"
                                          " FROM generate_series(1, 200) i RETURNING id::text", KEYS)]
    got = []
    connection = pika.BlockingConnection(pika.URLParameters(AMQP_URL + "?heartbeat=0"))
    channel = connection.channel()
    for _ in range(3):  # full, seen to be full, drained to the last
        running.await_log("basic.nack")
        wait_until(lambda: broker.depth(queue) >= 5, what="a full queue")
        here = database.value("SELECT (SELECT count(*) FROM outbox.message) + (SELECT count(*) FROM outbox.scheduled)")
        assert here + len(got) + broker.depth(queue) >= len(ids), "a nacked row was deleted"
        take(channel, queue, got)
    while set(got_ids(got)) < set(ids):
        before = len(got)
        wait_until(lambda: take(channel, queue, got) or len(got) > before, 30, "more messages")
    connection.close()
    wait_until(lambda: database.value("SELECT (SELECT count(*) FROM outbox.message) + (SELECT count(*) FROM outbox.scheduled)") == 0,
               what="an empty outbox")
    Accounting(ids, got).check(ordered=True)
    assert not database.dead()


def test_a_fan_out_that_one_full_queue_refuses_is_tried_again_with_one_message_and_not_with_the_batch(database, broker, start):
    exchange = broker.exchange("orders", "fanout")
    small, other = broker.queue("small", exchange, x_max_length=10, x_overflow="reject-publish"), broker.queue("other", exchange)
    ids = database.fill(300, channel="orders")
    running = start(*arguments(database, exchange), "-o", "order=none", "-o", "workers=1", "-o", "batch.max_messages=500")
    wait_until(lambda: broker.depth(other) >= 305, what="some more tries after the first, which reached the other queue with all of it")
    assert depth_between_tries(database, broker, other) <= 305 + 20, "each refusal is one more copy there, and no batch of them"
    assert database.left() >= 300 - 10
    wait_until(lambda: broker.channel.queue_purge(small) is not None and database.left() == 0, 30, "an empty outbox, now that somebody takes from the small one")
    got = []
    take(broker.channel, other, got)
    assert set(got_ids(got)) == set(ids) and running.process.poll() is None


def depth_between_tries(database, broker, queue):
    """Not in the midst of one: what a worker has sent is there when its transaction is over."""
    in_hand = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND application_name LIKE 'outbox-relay%' AND state <> 'idle'"
    wait_until(lambda: database.value(in_hand) == 0, what="a pause between two tries")
    return broker.depth(queue)


def got_ids(got):
    return [identity for identity, _ in got]


def take(channel, queue, got):
    """Consumes what is there, in order; True if there was something."""
    before = len(got)
    while True:
        method, properties, _ = channel.basic_get(queue, auto_ack=True)
        if method is None:
            return len(got) > before
        got.append((properties.message_id, properties.headers["outbox-key"]))
