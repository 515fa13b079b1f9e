"""Order by key under everything at once: late commits, rollbacks, a hot key, refusals, and kills at any instant."""
import os
import random
import signal
import time

import pika

import order
from accounting import Accounting
from harness import AMQP_URL, PATIENCE, amqp, relay, wait_until

SECONDS = int(os.environ.get("TEST_ORDER_SECONDS", "30"))  # each of two runs
DELIVERIES = int(os.environ.get("TEST_ORDER_DELIVERIES", "0"))
SEED = int(os.environ.get("TEST_SEED", "20261126"))
PROCESSES, WORKERS, BATCH = 3, 4, 50


def connect():
    return pika.BlockingConnection(pika.URLParameters(AMQP_URL + "?heartbeat=0"))


def arguments(database, exchange):
    return ["-d", database.conninfo, *amqp(
        "amqp.exchange=" + exchange, "order=key", f"batch.max_messages={BATCH}", f"workers={WORKERS}", "poll.max=200ms",
        "retry.max_attempts=0", "retry.backoff_min=50ms", "retry.backoff_max=500ms", "breaker.open_min=50ms", "breaker.open_max=500ms")]


def holds_a_batch(database, running):
    """Is a transaction of this very process open, with rows locked? Its backends bear its pid in their name."""
    return database.value(
        "SELECT count(*) FROM pg_stat_activity WHERE datname = %s AND application_name LIKE %s AND backend_xid IS NOT NULL",
        database.name, f"outbox-relay/%-{running.pid}") > 0


def freeze_with_a_batch(database, relays, chance, tries):
    """Freezes processes at instants of their own choosing until one is found between claim and COMMIT."""
    for _ in range(tries):
        at = chance.randrange(len(relays))
        relays[at].signal(signal.SIGSTOP)
        if holds_a_batch(database, relays[at]):
            return at
        relays[at].signal(signal.SIGCONT)
        time.sleep(chance.random() * 0.01)
    return None


def refusals(database):
    """How many rows have entered outbox.scheduled, whoever was killed behind it: nothing is delayed here, so each was refused."""
    return database.value("SELECT last_value - (NOT is_called)::int FROM outbox.scheduled_entry_seq")


def kill_one(database, start, relays, exchange, chance):
    """True if that was between claim and COMMIT; one kill in four falls wherever it falls."""
    at = freeze_with_a_batch(database, relays, chance, 50) if chance.random() < 0.75 else None
    between = at is not None
    if not between:
        at = chance.randrange(len(relays))
        relays[at].signal(signal.SIGSTOP)
        between = holds_a_batch(database, relays[at])
    relays[at].kill()
    relays[at] = start(*arguments(database, exchange))
    return between


def run(database, broker, start, seed, faults):
    """One life of producers and relays, its Accounting, kills and refusals."""
    chance = random.Random(seed)
    exchange = broker.exchange("orders")
    queue = broker.queue("all", exchange, "order.placed")
    broker.channel.queue_bind(queue, exchange, "order.flaky")
    oracle = broker.oracle(queue)
    assert relay("migrate", "-d", database.conninfo, "--order", "key").returncode == 0
    relays = [start(*arguments(database, exchange)) for _ in range(PROCESSES)]
    producers = order.start_all(database, 4, seed)
    flaky = order.Flaky(connect, queue, exchange, seed) if faults else None
    kills = between = 0
    began = time.monotonic()
    try:
        wait_until(oracle.ids, what="the first delivery")
        while time.monotonic() - began < SECONDS or (faults and refusals(database) == 0 and time.monotonic() - began < 3 * SECONDS):
            time.sleep(chance.random() * 2 if faults else 0.5)
            if faults:
                between += kill_one(database, start, relays, exchange, chance)
                kills += 1
    finally:
        committed, rolled_back = order.stop_all(producers)
        if flaky:
            flaky.stop()
    oracle.await_ids(committed, PATIENCE + SECONDS / 2)
    wait_until(lambda: database.value("SELECT (SELECT count(*) FROM outbox.message) + (SELECT count(*) FROM outbox.scheduled)") == 0,
               what="an empty outbox")
    dead = [row[0] for row in database.run("SELECT id::text FROM outbox.dead_letter")]
    refused = refusals(database)
    accounting = Accounting.of_oracle(committed, oracle, dead=dead, bound=kills * BATCH * WORKERS)
    print(f"{kills} kills, {between} between claim and COMMIT, {rolled_back} rolled back, {refused} refused")
    accounting.check(ordered=True)
    assert not dead and rolled_back > 0
    assert len(accounting.deliveries) >= DELIVERIES
    hot = sum(1 for _, key in accounting.deliveries if key and key[1] == order.HOT)
    assert hot * 5 > len(accounting.deliveries), "the hot key has its share"
    return accounting, kills, between, refused


def test_first_deliveries_of_a_key_follow_its_commits_whatever_is_killed_refused_or_late(database, broker, start):
    """Done 1 of step 3, with faults."""
    _, kills, between, refused = run(database, broker, start, SEED, faults=True)
    assert kills >= SECONDS / 2 and between * 2 >= kills, f"only {between} of {kills} kills fell between claim and COMMIT"
    assert refused > 0, "publish failures"


def test_without_faults_there_is_neither_disorder_nor_a_duplicate(database, broker, start):
    """Done 1 of step 3, without faults."""
    accounting, *_ = run(database, broker, start, SEED + 1, faults=False)
    assert accounting.duplicates == 0


def test_rows_of_the_largest_and_the_least_seq_are_claimed_like_others(database):
    assert relay("migrate", "-d", database.conninfo, "--order", "key", "--lanes", "8").returncode == 0
    for seq in (-2**63, -1, 0, 2**63 - 1):
        database.run("INSERT INTO outbox.message (seq, channel, type, key) VALUES (%s, 'a', 't', 'k')", seq)
    done = relay("drain", "-q", "-d", database.conninfo, "-b", "null", "-o", "order=key")
    assert database.left() == 0, done.stderr
