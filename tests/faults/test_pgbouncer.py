"""PgBouncer in transaction mode is restarted, and replaces its server connections every second: no session state is missed."""
import os
import pathlib
import re
import shutil
import signal
import socket
import subprocess
import tempfile
import time

import psycopg2
import pytest

from accounting import Accounting
from harness import Producer, amqp, relay, superuser_password, wait_until
from ports import free_port

BATCH, WORKERS = 50, 2


class Bouncer:
    """A PgBouncer of one test, with settings of its own."""

    def __init__(self, directory, *settings):
        self.port = free_port()
        self.file = directory / "pgbouncer.ini"
        self.file.write_text("\n".join([
            "[databases]", f"* = host=127.0.0.1 port={os.environ['TEST_PG_PORT']}", "[pgbouncer]", "listen_addr = 127.0.0.1",
            f"listen_port = {self.port}", "unix_socket_dir =", "auth_type = scram-sha-256", f"auth_file = {directory}/users", "pool_mode = transaction",
            "server_round_robin = 1", *settings, ""]))
        users = directory / "users"
        users.touch(0o600)
        users.write_text(f'"postgres" "{superuser_password()}"\n')
        if os.geteuid() == 0:
            shutil.chown(users, "postgres")
        os.chmod(directory, 0o755)
        self.log = directory / "log"
        self.process = None
        self.start()

    def start(self):
        as_postgres = ["setpriv", "--reuid=postgres", "--regid=postgres", "--clear-groups"] if os.geteuid() == 0 else []  # it refuses to be root
        binary = shutil.which("pgbouncer", path=os.environ["PATH"] + ":/usr/sbin")
        assert binary, "PgBouncer is not installed: run scripts/setup"
        with open(self.log, "ab") as log:
            self.process = subprocess.Popen([*as_postgres, binary, str(self.file)], stdout=log, stderr=log, cwd="/")
        wait_until(self.listens, what="PgBouncer")

    def listens(self):
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", self.port)) == 0

    def logged(self, text):
        return self.log.read_text().count(text)

    def version(self):
        """(1, 18); its greeting names the mode of pooling from 1.26 on."""
        binary = shutil.which("pgbouncer", path=os.environ["PATH"] + ":/usr/sbin")
        said = subprocess.run([binary, "--version"], check=True, capture_output=True, text=True).stdout
        return tuple(int(number) for number in re.match(r"PgBouncer (\d+)\.(\d+)", said).groups())

    def stop(self, number=signal.SIGINT):  # since 1.23 SIGTERM waits for the clients to go
        self.process.send_signal(number)
        self.process.wait(20)


@pytest.fixture
def bouncer():
    """In a directory that user postgres may enter, which pytest's own are not."""
    made, directories = [], []

    def make(*settings):
        directories.append(pathlib.Path(tempfile.mkdtemp(prefix="outbox-bouncer-", dir="/tmp")))
        made.append(Bouncer(directories[-1], *settings))
        return made[-1]

    yield make
    for one in made:
        one.stop(signal.SIGKILL)
    for directory in directories:
        shutil.rmtree(directory)


def run_through(bouncer, database, broker, start):
    exchange = broker.exchange("orders")
    oracle = broker.oracle(broker.queue("all", exchange))
    running = start("-d", database.through(bouncer.port), "--log-format", "json", "-o", "breaker.open_max=1s",
                    *amqp("amqp.exchange=" + exchange, f"batch.max_messages={BATCH}", f"workers={WORKERS}"))
    return running, oracle


def database_connects(running):
    running.signal(signal.SIGUSR1)
    running.await_log('"msg":"state"')
    return int(running.log().rsplit('"database_connects":', 1)[1].split(",")[0])


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT], ids=["killed", "stopped"])
def test_a_restart_of_pgbouncer_in_mid_run_loses_nothing_and_needs_no_restart_of_the_relay(database, broker, start, bouncer, number):
    """Twice; each may send again what was in flight."""
    pooler = bouncer()
    running, oracle = run_through(pooler, database, broker, start)
    began = time.monotonic()
    producer = Producer(database)
    try:
        for _ in range(2):
            before = len(oracle.ids())
            wait_until(lambda mark=before: len(oracle.ids()) > mark, what="deliveries of this life")
            wait_until(lambda: database.open_transactions() > 0, what="a claim")
            pooler.stop(number)
            pooler.start()
    finally:
        ids = producer.stop()
    oracle.await_ids(ids, 30)
    wait_until(lambda: database.left() == 0, what="an empty outbox")
    Accounting.of_oracle(ids, oracle, bound=2 * BATCH * WORKERS).check()
    assert running.process.poll() is None
    assert database_connects(running) <= WORKERS * (time.monotonic() - began + 1)


def test_server_connections_that_live_a_second_cause_no_error_and_no_duplicate(database, broker, start, bouncer):
    """server_lifetime=1: consecutive transactions of one worker meet servers that know nothing of the ones before."""
    pooler = bouncer("server_lifetime = 1", "server_idle_timeout = 1", "query_wait_timeout = 5", "default_pool_size = 4")
    running, oracle = run_through(pooler, database, broker, start)
    producer = Producer(database)
    servers = set()

    def look():
        servers.update(row[0] for row in database.run("SELECT pid FROM pg_stat_activity WHERE datname = %s"
                                                      " AND application_name LIKE 'outbox-relay/%%'", database.name))
        return len(servers) >= 8

    try:
        wait_until(look, 30, "eight different server connections")
    finally:
        ids = producer.stop()
    oracle.await_ids(ids, 30)
    wait_until(lambda: database.left() == 0, what="an empty outbox")
    Accounting.of_oracle(ids, oracle, bound=0).check()
    assert "no connection to the database" not in running.log() and '"level":"error"' not in running.log()


def test_a_full_pool_that_turns_the_relay_away_is_waited_for_without_a_hot_loop(database, start, bouncer):
    """query_wait_timeout ends the relay's connection, as a crash of the pooler would: one attempt per second and worker, then all is delivered."""
    pooler = bouncer("query_wait_timeout = 1", "default_pool_size = 1", "max_db_connections = 1")
    hog = psycopg2.connect(database.through(pooler.port))
    hog.cursor().execute("SELECT 1")  # its transaction keeps the only server connection
    database.fill(100)
    began = time.monotonic()
    running = start("-d", database.through(pooler.port), "--log-format", "json", "-b", "null", "-o", "breaker.open_max=1s")
    running.await_log("query_wait_timeout")
    wait_until(lambda: pooler.logged("query_wait_timeout") >= 2 * WORKERS, what="more attempts")
    assert database.left() == 100 and running.process.poll() is None
    assert pooler.logged("query_wait_timeout") <= (WORKERS + 2) * (time.monotonic() - began + 1)
    hog.rollback()
    wait_until(lambda: database.left() == 0, 15, "an empty outbox: it comes back by itself")
    hog.close()


def test_a_pooler_of_sessions_is_no_reason_to_be_careful(database, bouncer):
    pooler = bouncer("pool_mode = session")
    database.fill(1000)
    done = relay("drain", "-d", f"{database.conninfo} port={pooler.port}", "-b", "null")
    assert done.returncode == 0 and database.left() == 0, done.stderr


def test_a_pooler_of_single_statements_is_refused(database, bouncer):
    """By its own word where it says so; else by the first transaction that it refuses. Nothing is deleted."""
    pooler = bouncer("pool_mode = statement")
    database.fill(10)
    conninfo = f"{database.conninfo} port={pooler.port}"
    says_so = pooler.version() >= (1, 26)
    for command in (["drain", "-q", "-o", "drain.unavailable_after=1s"], ["check", "--connect"], ["status"]):
        done = relay(*command, "-d", conninfo, "-b", "null")
        said = done.stdout + done.stderr
        if says_so:
            assert done.returncode == 78 and "PgBouncer pools single statements here" in said, (command, said)
        elif command[0] == "drain":
            assert done.returncode == 69 and "statement pooling" in said, (command, done.returncode, said)
    assert database.left() == 10
