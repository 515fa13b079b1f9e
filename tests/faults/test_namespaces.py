"""Real partitions: the relay lives in a network namespace of its own, and iptables drops its packets. No FIN and no RST tells anybody.

As root only: a namespace, a veth pair and iptables need the rights. CTest starts this file by tests/as_root, which asks sudo; without
the rights the tests fail, they are never skipped. The servers listen on 127.0.0.1, so fault proxies without faults forward from the
veth address.
"""
import os
import shutil
import signal
import socket
import subprocess
import time
import uuid

import pytest

from accounting import Accounting
from harness import amqp, http, wait_until

PATH = os.environ["PATH"] + ":/usr/sbin:/sbin"
BATCH, WORKERS = 50, 2
ANSWER_WITHIN = 15  # seconds that the relay waits for PostgreSQL (relay/store/source.c)


def tool(name):
    path = shutil.which(name, path=PATH)
    assert path, f"{name} is not installed: run scripts/setup"
    return path


class Namespace:
    """A network namespace with one veth pair; what goes to a port outside can be dropped."""

    def __init__(self):
        assert os.geteuid() == 0, "a network namespace needs root: start pytest by tests/as_root"
        word = uuid.uuid4().hex[:6]
        self.name, self.outer, inner = "outbox" + word, "obo" + word, "obi" + word
        number = int(word, 16)
        subnet = f"10.{200 + number % 50}.{number // 50 % 250}"
        self.address = subnet + ".1"
        self.command("ip", "netns", "add", self.name)
        try:
            self.command("ip", "link", "add", self.outer, "type", "veth", "peer", "name", inner, "netns", self.name)
            self.command("ip", "address", "add", self.address + "/30", "dev", self.outer)
            self.command("ip", "link", "set", self.outer, "up")
            self.inside("ip", "link", "set", "lo", "up")
            self.inside("ip", "address", "add", subnet + ".2/30", "dev", inner)
            self.inside("ip", "link", "set", inner, "up")
        except BaseException:
            self.close()
            raise

    @property
    def prefix(self):
        return [tool("ip"), "netns", "exec", self.name]

    @staticmethod
    def command(name, *arguments):
        subprocess.run([tool(name), *arguments], check=True, capture_output=True, text=True)

    def inside(self, name, *arguments):
        self.command("ip", "netns", "exec", self.name, tool(name), *arguments)

    def drop(self, port):
        """From now on, silently, both ways."""
        self.inside("iptables", "-A", "OUTPUT", "-p", "tcp", "--dport", str(port), "-j", "DROP")
        self.inside("iptables", "-A", "INPUT", "-p", "tcp", "--sport", str(port), "-j", "DROP")

    def dropped(self, port):
        """Packets of ours that were dropped on their way to the port."""
        listed = subprocess.run([*self.prefix, tool("iptables"), "-L", "OUTPUT", "-n", "-v", "-x"],
                                check=True, capture_output=True, text=True)
        return sum(int(line.split()[0]) for line in listed.stdout.splitlines() if f"dpt:{port}" in line)

    def heal(self):
        self.inside("iptables", "-F")

    def close(self):
        # Both ends; orphaned sockets would keep them, with the namespace, for a while.
        subprocess.run([tool("ip"), "link", "delete", self.outer], check=False, capture_output=True)
        self.command("ip", "netns", "delete", self.name)


@pytest.fixture
def namespace():
    made = Namespace()
    yield made
    made.close()


@pytest.fixture
def setting(namespace, database, broker, proxied, start):
    """A relay in the namespace, with its servers outside."""
    exchange = broker.exchange("orders")
    oracle = broker.oracle(broker.queue("all", exchange))
    postgres = proxied(os.environ["TEST_PG_PORT"], host=namespace.address)
    rabbit = proxied(os.environ["TEST_AMQP_PORT"], host=namespace.address)
    running = start("-d", database.through(postgres.port, namespace.address),
                    *amqp("amqp.exchange=" + exchange, f"batch.max_messages={BATCH}", f"workers={WORKERS}", "publish_timeout=1s",
                          "amqp.heartbeat=1s", "breaker.open_max=1s", "shutdown_timeout=3s",
                          url=f"amqp://guest:guest@{namespace.address}:{rabbit.port}/"), prefix=namespace.prefix)
    return running, oracle, postgres, rabbit


def test_a_partition_from_postgres_frees_the_rows_at_the_server_and_the_relay_gives_up_by_itself(namespace, database, setting):
    """Neither side hears of the other: only deadlines help. What is there when it heals goes on without a restart."""
    running, oracle, postgres, _ = setting
    ids = database.fill(6000)
    wait_until(oracle.ids, what="the first delivery")
    namespace.drop(postgres.port)
    began = time.monotonic()
    assert database.left() > 0, "rows must be waiting, or the test proves nothing"
    wait_until(lambda: database.open_transactions() == 0, 1 + 5 + 3, "the end of the transactions at the server")
    running.await_log("no connection to the database", 2 * ANSWER_WITHIN + 3)
    print(f"the relay gave up after {time.monotonic() - began:.1f} s")
    assert namespace.dropped(postgres.port) <= 40 * (time.monotonic() - began), "no hot loop of connection attempts"
    namespace.heal()
    oracle.await_ids(ids, 60)
    wait_until(lambda: database.left() == 0, what="an empty outbox")
    Accounting.of_oracle(ids, oracle, bound=BATCH * WORKERS).check()
    assert running.process.poll() is None


def test_connections_in_clear_text_to_another_host_are_told_once(namespace, database, setting, proxied, start, receiver):
    """Those to this host are not."""
    running, oracle, postgres, _ = setting
    ids = database.fill(200)
    oracle.await_ids(ids)
    assert running.log().count("the database is on another host, and the connection without TLS") == 1
    assert running.log().count("the broker is on another host, and the connection without TLS") == 1
    running.process.terminate()
    assert running.wait(30) == 0
    web = proxied(receiver.port, host=namespace.address)
    database.fill(20)
    other = start("-d", database.through(postgres.port, namespace.address), *http(f"http://{namespace.address}:{web.port}/"), prefix=namespace.prefix)
    wait_until(lambda: database.left() == 0, 30, "an empty outbox")
    assert other.log().count("requests go to another host without TLS") == 1
    other.process.terminate()
    assert other.wait(30) == 0
    database.fill(20)
    near = start("-d", database.conninfo, *http(receiver.url))
    wait_until(lambda: database.left() == 0, 30, "an empty outbox")
    near.process.terminate()
    assert near.wait(30) == 0 and "TLS" not in near.log()


def in_the_dark(namespace, tmp_path):
    """A prefix for a program that asks a name server that says nothing, and that server's socket."""
    resolv = tmp_path / "resolv.conf"
    resolv.write_text(f"nameserver {namespace.address}\noptions timeout:20 attempts:5\n")
    silent = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    silent.bind((namespace.address, 53))
    silent.settimeout(20)
    return [*namespace.prefix, tool("unshare"), "--mount", "sh", "-c", 'mount --bind "$0" /etc/resolv.conf && exec "$@"', str(resolv)], silent


@pytest.mark.parametrize("scheme", ["amqp", "amqps", "http"])
def test_a_stop_does_not_wait_for_a_name_server_that_says_nothing(namespace, database, proxied, start, tmp_path, scheme):
    """getaddrinfo(3) would wait 20 s and longer."""
    prefix, silent = in_the_dark(namespace, tmp_path)
    where = "https://hooks.example/" if scheme == "http" else f"{scheme}://guest:guest@broker.example/"
    postgres = proxied(os.environ["TEST_PG_PORT"], host=namespace.address)
    database.fill(1)
    with silent:
        running = start("-d", database.through(postgres.port, namespace.address),
                        *(http(where) if scheme == "http" else amqp(url=where)), prefix=prefix)
        assert silent.recv(1000), "its question"
        began = time.monotonic()
        running.signal(signal.SIGTERM)
        assert running.wait(60) == 0
        assert time.monotonic() - began < 3


@pytest.mark.parametrize("conninfo", ["host=db.example dbname=shop", "postgresql://one.example,two.example/shop"])
@pytest.mark.parametrize("command", ["run", "drain"])
def test_a_stop_does_not_wait_for_a_name_server_that_says_nothing_about_the_database(namespace, start, tmp_path, command, conninfo):
    prefix, silent = in_the_dark(namespace, tmp_path)
    with silent:
        running = start("-d", conninfo, "-b", "null", prefix=prefix, command=command)
        assert silent.recv(1000), "its question"
        began = time.monotonic()
        running.signal(signal.SIGTERM)
        assert running.wait(60) == (75 if command == "drain" else 0)
        assert time.monotonic() - began < 3


def test_a_partition_from_the_broker_holds_no_transaction_and_heals_by_itself(namespace, database, setting):
    running, oracle, _, rabbit = setting
    ids = database.fill(5000)
    wait_until(oracle.ids, what="the first delivery")
    before = running.log().count("possible duplicates")
    namespace.drop(rabbit.port)
    running.await_log("no session to the broker", 1 + 3)
    began = time.monotonic()
    while time.monotonic() < began + 2.5:
        assert database.idle_in_transaction_s() <= 1 + 3
        time.sleep(0.05)
    left = database.left()
    assert left > 0 and len(rabbit.connects) <= 3 * WORKERS, "nothing gets out, nothing is deleted"
    losses = running.log().count("possible duplicates") - before
    assert losses <= WORKERS, "each worker lost one batch; afterwards none was claimed without a session"
    namespace.heal()
    oracle.await_ids(ids, 60)
    wait_until(lambda: database.left() == 0, what="an empty outbox")
    Accounting.of_oracle(ids, oracle, bound=BATCH * running.log().count("possible duplicates")).check()


@pytest.mark.parametrize("which", ["postgres", "broker"])
def test_a_stop_behind_a_partition_ends_in_time(namespace, database, setting, which):
    running, oracle, postgres, rabbit = setting
    database.fill(6000)
    wait_until(oracle.ids, what="the first delivery")
    namespace.drop((postgres if which == "postgres" else rabbit).port)
    running.signal(signal.SIGTERM)
    began = time.monotonic()
    code = running.wait(30)
    print(f"exit {code} after {time.monotonic() - began:.1f} s")
    assert code in (0, 70) and time.monotonic() - began < 3 + 3 + 2, "shutdown_timeout, and what is let go of"
    assert database.left() > 0
