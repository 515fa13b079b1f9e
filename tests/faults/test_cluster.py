"""A cluster of three RabbitMQ nodes with a quorum queue: leaders die, nodes are cut off or restarted, the quorum goes and comes back."""
import contextlib
import os
import random
import time
import uuid

import pytest

import harness
import order
from accounting import Accounting
from cluster import NODES, PROBE, Cluster
from harness import Oracle, amqp, relay, wait_until

SECONDS = int(os.environ.get("TEST_CLUSTER_SECONDS", "20"))  # of leaders that are killed
SEED = int(os.environ.get("TEST_SEED", "20261128"))
PROCESSES, WORKERS, BATCH = 2, 2, 50
IN_FLIGHT = PROCESSES * WORKERS * BATCH
RECOVERY = 30  # seconds from a quorum to the delivery of what waited: reconnects, the breaker, and two noisy cores


@pytest.fixture(scope="module")
def cluster():
    made = Cluster(harness.own_directory("cluster"))
    yield made
    made.close()


class Life:
    """Producers, relays and a quorum queue that nobody consumes from until the end: what stands in it is what the cluster has taken."""

    def __init__(self, cluster, database, start):
        self.cluster, self.database = cluster, database
        self.name = "t" + uuid.uuid4().hex[:8]
        with contextlib.closing(cluster.connect(1)) as connection:
            channel = connection.channel()
            channel.exchange_declare(self.name, exchange_type="topic", durable=True)
            channel.queue_declare(self.name, durable=True, arguments={"x-queue-type": "quorum", "x-quorum-initial-group-size": 3})
            channel.queue_bind(self.name, self.name, "#")
        assert relay("migrate", "-d", database.conninfo, "--order", "key").returncode == 0
        self.relays = [start("-d", database.conninfo, *amqp(
            "amqp.exchange=" + self.name, "order=key", f"workers={WORKERS}", f"batch.max_messages={BATCH}", "poll.max=200ms", "publish_timeout=3s",
            "amqp.heartbeat=2s", "breaker.open_min=50ms", "breaker.open_max=1s", url=",".join(cluster.urls))) for _ in range(PROCESSES)]
        self.producers = order.start_all(database, 2, SEED)
        self.faults = 0
        self.await_what_waits()

    def highest(self):
        return self.database.value("SELECT last_value FROM outbox.message_seq")

    def await_what_waits(self, within=RECOVERY):
        """What was committed up to now leaves the outbox."""
        seq, began = self.highest(), time.monotonic()
        wait_until(lambda: self.database.value("SELECT count(*) FROM outbox.message WHERE seq <= %s", seq) == 0, within, "delivery of what waited")
        return time.monotonic() - began

    def await_since_quorum(self, within=RECOVERY):
        """The same since the last moment without a quorum: nodes that were frozen or cut off find out some time after they are back, and pause."""
        seq, since, give_up = self.highest(), None, time.monotonic() + 300
        while True:
            if not self.cluster.takes(self.name):
                since = None
            elif since is None:
                since = time.monotonic()
            waited = time.monotonic() - since if since else 0
            if self.database.value("SELECT count(*) FROM outbox.message WHERE seq <= %s", seq) == 0:
                return waited
            assert waited < within, f"delivery of what waited did not come within {within} s of a quorum"
            assert time.monotonic() < give_up, "no quorum that lasts"

    def burnt(self):
        """What a destination that is away must never cost: attempts, dead letters."""
        return self.database.value("SELECT (SELECT count(*) FROM outbox.scheduled) + (SELECT count(*) FROM outbox.dead_letter)")

    def finish(self):
        """All nodes are up: everything arrives, and is judged."""
        committed, _ = order.stop_all(self.producers)
        wait_until(lambda: self.database.left() == 0, RECOVERY, "an empty outbox")
        assert self.burnt() == 0
        for running in self.relays:
            running.signal(15)
            assert running.wait() == 0
        oracle = Oracle(self.name, self.cluster.urls[0])
        try:
            oracle.await_ids(committed)
            accounting = Accounting.of_oracle(committed, oracle, attempted={PROBE}, bound=self.faults * IN_FLIGHT).check(ordered=True)
        finally:
            oracle.stop()
            self.cluster.forget(self.name)
        return accounting


@pytest.fixture
def life(cluster, database, start):
    cluster.heal()
    made = Life(cluster, database, start)
    yield made
    for producer in made.producers:
        producer.enough.set()
    cluster.heal()


def test_the_leaders_node_is_killed_again_and_again(life, cluster):
    began, longest = time.monotonic(), 0
    while life.faults == 0 or time.monotonic() - began < SECONDS:
        leader = wait_until(lambda: cluster.leader(life.name, NODES[life.faults % 3]), 60, "a leader")
        cluster.kill(leader)
        life.faults += 1
        longest = max(longest, life.await_what_waits())  # two nodes are a quorum
        cluster.up(leader)
        longest = max(longest, life.await_what_waits())
        life.faults += cluster.await_members(life.name, leader)
    accounting = life.finish()
    print(f"{life.faults} leaders killed; what waited was delivered within {longest:.1f} s; {accounting}")


def test_a_node_that_is_cut_off_is_left_and_what_it_took_is_not_lost(life, cluster):
    """The relays' first choice becomes a minority of one."""
    pauses = cluster.pauses_minorities()
    for node in (1, 2):
        cluster.isolate(node)
        life.faults += 1
        if pauses:
            wait_until(lambda: not cluster.listens(node), 30, "the pause of the minority")
        print(f"node {node} cut off: what waited was delivered within {life.await_since_quorum():.1f} s of a quorum")
        cluster.join(node)
        cluster.back(node)
        life.faults += 1
        life.await_since_quorum()
        life.faults += cluster.await_members(life.name, node)
    print(life.finish())


def test_a_rolling_restart_loses_nothing_and_the_relays_move_on_and_come_back(life, cluster):
    for node in NODES:
        cluster.down(node)
        life.faults += 1
        print(f"node {node} down: what waited was delivered within {life.await_what_waits():.1f} s")
        cluster.up(node)
        cluster.back(node)
        life.faults += cluster.await_members(life.name, node)
    life.await_what_waits()
    print(life.finish())


@pytest.mark.parametrize("how", ["killed", "frozen"])
def test_without_a_quorum_nothing_is_confirmed_and_nothing_burns_attempts(life, cluster, how):
    chance = random.Random(SEED)
    staying = chance.choice(NODES)
    going = [node for node in NODES if node != staying]
    for node in going:
        (cluster.kill if how == "killed" else cluster.freeze)(node)
    life.faults += 2
    settled = time.monotonic() + 4  # what had a quorum when it was sent may still be confirmed: until publish_timeout
    while time.monotonic() < settled:
        assert life.burnt() == 0
        time.sleep(0.2)
    left = wait_until(lambda: life.database.run("SELECT min(seq) FROM outbox.message")[0][0], what="a row that stays")
    until = time.monotonic() + 10  # longer than publish_timeout, two heartbeats and the cluster's own patience
    while time.monotonic() < until:
        assert life.burnt() == 0
        time.sleep(0.2)
    assert life.database.value("SELECT count(*) FROM outbox.message WHERE seq = %s", left) == 1, "confirmed without a quorum"
    back = going[0]
    (cluster.up if how == "killed" else cluster.thaw)(back)
    life.faults += 1
    print(f"two nodes {how}: what waited was delivered within {life.await_since_quorum():.1f} s of a quorum")
    life.faults += cluster.heal()
    print(life.finish())
