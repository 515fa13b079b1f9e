"""Everything at once, from a seed: producers, relays, operators and strangers at work while processes, sessions, network and servers fail.

    scripts/test --soak MINUTES [--seed N]      under ASan, TSan and the release build in turn; see tests/README.md
"""
import collections
import contextlib
import os
import random
import signal
import subprocess
import time

import pika
import psycopg2
import pytest

import order
from accounting import Accounting
from fault_proxy import FaultProxy
from harness import AMQP_URL, Relay, amqp, rabbitmqctl, relay, wait_until
from test_broker import reconnect

MINUTES = float(os.environ.get("TEST_SOAK_MINUTES", "0.5"))
SEED = int(os.environ.get("TEST_SEED", "20261126"))
MEMORY = os.environ.get("TEST_SOAK_MEMORY") == "1"  # only the plain build's memory means anything
QUEUE_TYPE = os.environ.get("TEST_SOAK_QUEUE", "classic")
RELAYS, WORKERS, BATCH = 3, 3, 50
IN_FLIGHT = WORKERS * BATCH
CHANNELS = ["orders", "bills"]
MAY_GROW_KIB = 1024


class Mixed(order.Aggregates):
    """Beside the aggregates: messages without a key, delayed ones, and poison that the backend refuses for good."""

    def transaction(self, cursor):
        made = super().transaction(cursor)
        for chance, call in ((0.3, "outbox.publish(%s, 'order.placed', '{}')"), (0.1, "outbox.publish(%s, 'order.placed', '{}', delay => '1 s')"),
                             (0.01, "outbox.publish(%s, 'order.placed', '{}', headers => '{\"x-poison\": 1}')")):
            if self.chance.random() < chance:
                cursor.execute(f"SELECT {call}::text", (self.channel,))
                made.append((f"{call} {self.name}", len(self.committed), cursor.fetchone()[0]))
        return made


class Soak:
    """The world, and what can happen to it. Each fault returns how many duplicates it may cause."""

    def __init__(self, database, broker, seed):
        self.database, self.broker = database, broker
        self.chance = random.Random(seed)
        self.exchange = broker.exchange("orders")
        self.queue = broker.queue("all", self.exchange, "order.placed", x_queue_type=QUEUE_TYPE)
        self.bind()
        self.oracle = broker.oracle(self.queue)
        self.proxy = FaultProxy(int(os.environ["TEST_AMQP_PORT"]), seed=seed)
        self.ever_dead = set()
        self.ended = []
        self.counts = collections.Counter()
        self.bound = 0
        assert relay("migrate", "-d", database.conninfo, "--order", "key").returncode == 0
        self.witness = self.start()  # lives throughout: its memory and descriptors are watched
        self.relays = [self.start() for _ in range(RELAYS - 1)]
        self.samples = []

    def start(self):
        url = f"amqp://guest:guest@127.0.0.1:{self.proxy.port}/"
        return Relay("-d", self.database.conninfo, *amqp(
            "amqp.exchange=" + self.exchange, "order=key", f"batch.max_messages={BATCH}", f"workers={WORKERS}", "poll.max=200ms",
            "publish_timeout=3s", "retry.max_attempts=3", "retry.backoff_min=50ms", "retry.backoff_max=500ms", "breaker.open_min=50ms",
            "breaker.open_max=1s", "amqp.heartbeat=2s", "shutdown_timeout=10s", "debuggable=true", url=url))  # its descriptors are counted

    @staticmethod
    def connect():
        """As soon as the broker lets us in."""
        def attempt():
            with contextlib.suppress(pika.exceptions.AMQPError):
                return pika.BlockingConnection(pika.URLParameters(AMQP_URL + "?heartbeat=0"))
            return None

        return wait_until(attempt, 60, "the broker")

    def bind(self):
        """Again after each death of the broker: RabbitMQ 3.10, killed, was seen to forget a binding."""
        connection = self.connect()
        channel = connection.channel()
        for key in ("order.placed", "order.flaky"):
            channel.queue_bind(self.queue, self.exchange, key)
        connection.close()

    def flaky(self, bound):
        connection = self.connect()
        (connection.channel().queue_bind if bound else connection.channel().queue_unbind)(self.queue, self.exchange, "order.flaky")
        connection.close()

    def pause(self, most):
        time.sleep(self.chance.random() * most)

    def rows(self, sql, *values):
        with psycopg2.connect(self.database.conninfo) as connection, connection.cursor() as cursor:
            cursor.execute(sql, values or None)
            return cursor.fetchall()

    # ---- relays ----

    @staticmethod
    def in_main(running):
        """Before its first line it may not have come to set up its signals, and die of the first (a sanitizer starts slowly)."""
        wait_until(running.log, 60, "a line of a relay that starts")
        return running

    def replace(self, number):
        at = self.chance.randrange(len(self.relays))
        self.in_main(self.relays[at]).signal(number)
        if number == signal.SIGTERM:
            assert self.relays[at].wait(60) in (0, 70)
        else:
            self.relays[at].kill()
        self.ended.append(self.relays[at])
        self.relays[at] = self.start()
        return IN_FLIGHT

    def kill_a_relay(self):
        return self.replace(signal.SIGKILL)

    def stop_a_relay(self):
        return self.replace(signal.SIGTERM)

    def freeze_a_relay(self):
        victim = self.chance.choice(self.relays)
        victim.signal(signal.SIGSTOP)
        self.pause(10)
        victim.signal(signal.SIGCONT)
        return IN_FLIGHT

    def reload_a_relay(self):
        self.in_main(self.chance.choice(self.relays)).signal(signal.SIGHUP)
        return IN_FLIGHT

    # ---- database ----

    def terminate_sessions(self):
        return BATCH * self.rows("SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE datname = %s AND backend_xid IS NOT NULL"
                                 " AND application_name LIKE 'outbox-relay/%%'", self.database.name)[0][0]

    def restart_the_database(self):
        mode = self.chance.choice(["fast", "immediate"])
        subprocess.run([os.environ["TEST_DEV_SERVERS"], "restart", os.environ["TEST_DIR"], "postgres", mode], check=True, capture_output=True)
        return RELAYS * IN_FLIGHT

    def lock_rows(self):
        with psycopg2.connect(self.database.conninfo) as connection, connection.cursor() as cursor:
            cursor.execute("SELECT seq FROM outbox.message ORDER BY random() LIMIT 20 FOR UPDATE SKIP LOCKED")
            self.pause(2)
            connection.rollback()
        return 0

    # ---- broker and network ----

    def stop_the_broker(self):
        rabbitmqctl("stop_app")
        self.pause(5)
        rabbitmqctl("start_app")
        self.bind()
        return RELAYS * IN_FLIGHT

    def kill_the_broker(self):
        with contextlib.suppress(subprocess.TimeoutExpired):
            rabbitmqctl("eval", "mnesia:sync_log().", timeout=10)  # keeps 3.10 from forgetting what was declared last; bind() mends what it forgot
        with open(os.environ["TEST_RABBITMQ_PID_FILE"], encoding="ascii") as file:
            os.kill(int(file.read()), signal.SIGKILL)
        subprocess.run([os.environ["TEST_DEV_SERVERS"], "restart", os.environ["TEST_DIR"], "rabbitmq"], check=True, capture_output=True)
        self.bind()
        return RELAYS * IN_FLIGHT

    def alarm(self):
        rabbitmqctl("set_vm_memory_high_watermark", "0")
        self.pause(6)
        rabbitmqctl("set_vm_memory_high_watermark", "0.4")
        return RELAYS * IN_FLIGHT

    def reset_connections(self):
        self.proxy.end_links()
        return RELAYS * IN_FLIGHT

    def slow_network(self):
        self.proxy.up.latency, self.proxy.down.latency = self.chance.random(), self.chance.random()
        self.proxy.up.jitter = self.proxy.down.jitter = self.chance.random()
        self.proxy.up.slice = self.chance.choice([0, 0, 100])
        self.pause(4)
        self.proxy.heal()
        return RELAYS * IN_FLIGHT

    def black_hole(self):
        self.chance.choice([self.proxy.up, self.proxy.down]).hole = True
        self.pause(6)
        self.proxy.heal()
        return RELAYS * IN_FLIGHT

    # ---- operators ----

    def refuse_some(self):
        self.flaky(False)
        self.pause(2)
        self.flaky(True)
        return 0

    def pause_a_channel(self):
        channel = self.chance.choice([[], [CHANNELS[0]], [CHANNELS[1]]])
        relay("pause", *channel, "-d", self.database.conninfo, "--for", "5s")
        self.pause(2)
        relay("resume", *channel, "-d", self.database.conninfo)
        return 0

    def retry_the_dead(self):
        ids = [row[0] for row in self.rows("SELECT id::text FROM outbox.dead_letter LIMIT 12")]
        self.ever_dead |= set(ids)
        if ids:
            relay("dead", "retry", *ids, "-d", self.database.conninfo)
        return 0

    def drain_beside(self):
        done = relay("drain", "-q", "--max-time", "2s", "-d", self.database.conninfo, *amqp("amqp.exchange=" + self.exchange, "order=key"))
        assert done.returncode in (0, 1, 69, 75), done.stderr
        return IN_FLIGHT

    FAULTS = [(kill_a_relay, 10), (stop_a_relay, 4), (freeze_a_relay, 3), (reload_a_relay, 2), (terminate_sessions, 5), (restart_the_database, 1),
              (lock_rows, 4), (stop_the_broker, 1), (kill_the_broker, 1), (alarm, 2), (reset_connections, 4), (slow_network, 3), (black_hole, 3),
              (refuse_some, 8), (pause_a_channel, 3), (retry_the_dead, 5), (drain_beside, 2)]

    def step(self):
        fault = self.chance.choices([f for f, _ in self.FAULTS], [w for _, w in self.FAULTS])[0]
        self.bound += fault(self)
        self.counts[fault.__name__] += 1
        self.oracle.ensure_running()
        assert self.witness.process.poll() is None, "the witness died"
        self.sample()
        self.pause(1)

    def sample(self):
        with open(f"/proc/{self.witness.pid}/status", encoding="ascii") as status:
            resident = next(int(line.split()[1]) for line in status if line.startswith("VmRSS"))
        self.samples.append((time.monotonic(), resident))

    def settle(self):
        """Faults are over: what was committed must arrive."""
        reconnect(self.broker)
        self.proxy.heal()
        relay("resume", "-d", self.database.conninfo)
        self.bind()
        self.oracle.ensure_running()
        wait_until(lambda: self.rows("SELECT (SELECT count(*) FROM outbox.message) + (SELECT count(*) FROM outbox.scheduled)")[0][0] == 0,
                   240, "an empty outbox")

    def compare_descriptors(self):
        """In calm, the witness has no more of them than one that has just come."""
        self.relays.append(self.start())
        newcomer = self.relays[-1]
        wait_until(lambda: descriptors(self.witness) <= descriptors(newcomer), 60,
                   "a witness with no more descriptors than a newcomer")

    def deliveries(self):
        """What the broker gave the oracle again because the oracle had not acked it yet is not the relay's doing."""
        seen = set()
        for delivery in self.oracle.deliveries():
            if delivery["redelivered"] and delivery["id"] in seen:
                continue
            seen.add(delivery["id"])
            yield delivery["id"], delivery.get("headers", {}).get("outbox-key")  # which names the channel, too

    def close(self):
        try:
            for running in [*self.relays, self.witness, *self.ended]:
                running.close()
        finally:
            self.proxy.close()


def descriptors(running):
    return len(os.listdir(f"/proc/{running.pid}/fd"))


def growth(samples, since):
    """KiB between the medians of the first and the last fifth of what was sampled since then."""
    late = [sample for sample in samples if sample[0] >= since]
    fifth = max(len(late) // 5, 1)
    first, last = late[:fifth], late[-fifth:]
    middle = [sorted(s[1] for s in part)[len(part) // 2] for part in (first, last)]
    return middle[1] - middle[0]


@pytest.fixture
def soak(database, broker):
    made = Soak(database, broker, SEED)
    yield made
    made.close()


def test_everything_at_once_loses_nothing_and_keeps_every_promise(database, soak):
    """Done 6 of step 3."""
    order.Aggregates.prepare(database)
    producers = [Mixed(database, SEED * 100 + at, channel=CHANNELS[at % 2], keys=100, prefix=CHANNELS[at % 2]) for at in range(3)]
    for producer in producers:
        producer.start()
    began = time.monotonic()
    try:
        while time.monotonic() - began < MINUTES * 60:
            soak.step()
    finally:
        committed, rolled_back = order.stop_all(producers)
    soak.settle()
    attempted = set().union(*(producer.attempted for producer in producers))
    dead = {row[0] for row in soak.rows("SELECT id::text FROM outbox.dead_letter")}
    wanted = set(committed) - dead
    wait_until(lambda: wanted <= set(soak.oracle.ids()), 60, "the last arrivals")
    deliveries = list(soak.deliveries())
    print(f"seed {SEED}, {MINUTES} minutes, {QUEUE_TYPE}: {dict(soak.counts)}; {rolled_back} rolled back, {len(attempted)} of unknown outcome")
    Accounting(committed, [identity for identity, _ in deliveries], dead=dead, attempted=attempted, bound=soak.bound).check()
    late = soak.ever_dead | dead  # what an operator sends again comes late, of course
    Accounting([i for i in committed if i not in late], [d for d in deliveries if d[0] not in late], attempted=attempted | late,
               bound=soak.bound).check(ordered=True)
    kib = growth(soak.samples, began + MINUTES * 20)
    print(f"resident memory of the witness grew by {kib} KiB in the last two thirds, to {soak.samples[-1][1]} KiB")
    soak.compare_descriptors()
    assert not MEMORY or kib < MAY_GROW_KIB
