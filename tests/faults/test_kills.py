"""kill -9 at any instant is safe: nothing is lost, duplicates stay within what was in flight."""
import collections
import os
import random
import signal
import time

from harness import Producer, amqp, wait_until

KILLS = int(os.environ.get("TEST_KILLS", "5"))
BATCH, WORKERS = 100, 2


def test_kill_9_loses_nothing_and_duplicates_at_most_what_was_in_flight(database, broker, start):
    """Done 3 of step 1: at least half of the kills fall between claim and COMMIT, and the test counts them."""
    exchange = broker.exchange("orders")
    oracle = broker.oracle(broker.queue("all", exchange))
    arguments = ["-d", database.conninfo, *amqp("amqp.exchange=" + exchange, f"batch.max_messages={BATCH}", f"workers={WORKERS}")]
    producer = Producer(database)
    chance = random.Random(20261120)
    kills = between = 0
    try:
        while kills < KILLS or between * 2 < kills:
            assert kills < KILLS * 4, f"only {between} of {kills} kills fell between claim and COMMIT"
            before = len(oracle.ids())
            running = start(*arguments)
            wait_until(lambda mark=before: len(oracle.ids()) > mark, what="deliveries of this life")
            time.sleep(chance.random() * 0.3)
            running.signal(signal.SIGSTOP)  # frozen at an instant of its own choosing, so that we can look before we kill
            between += database.open_transactions() > 0
            kills += 1
            running.kill()
    finally:
        committed = producer.stop()
    start(*arguments)
    arrived = collections.Counter(oracle.await_ids(committed))
    wait_until(lambda: database.left() == 0, what="an empty outbox")
    assert set(arrived) == committed, "no id lost, no id that was never committed"
    duplicates = sum(count - 1 for count in arrived.values())
    print(f"{kills} kills, {between} between claim and COMMIT, {len(committed)} messages, {duplicates} duplicates")
    assert duplicates <= kills * BATCH * WORKERS
    assert database.value("SELECT count(*) FROM outbox.dead_letter") == 0


def test_the_rows_of_a_killed_process_are_picked_up_by_the_survivors_at_once(database, broker, start):
    exchange = broker.exchange("orders")
    oracle = broker.oracle(broker.queue("all", exchange))
    ids = database.fill(2000)
    arguments = ["-d", database.conninfo, *amqp("amqp.exchange=" + exchange, "batch.max_messages=50")]
    victim = start(*arguments)
    wait_until(lambda: database.open_transactions() > 0, what="a claim")
    victim.signal(signal.SIGSTOP)
    start(*arguments)
    victim.kill()
    oracle.await_ids(ids, 20)
    wait_until(lambda: database.left() == 0, 5, "an empty outbox")
