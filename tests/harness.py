"""What integration and fault tests share: databases, queues, oracles and relays, against the servers of scripts/dev-servers."""
import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
import uuid

import pika
import psycopg2

HERE = os.path.dirname(os.path.abspath(__file__))
RELAY = os.environ["TEST_RELAY"]
DATABASE = os.environ["TEST_DATABASE"]
DIRECTORY = os.environ["TEST_DIR"]
PASSFILE = os.path.join(DIRECTORY, "pgpass")  # the superuser's password: of scripts/dev-servers' PostgreSQL, and of those that tests start
AMQP_URL = os.environ["TEST_AMQP_URL"]
SANITIZER = 86  # its exit code, by scripts/test
COMPLAINT = "runtime" + " error:"  # in two pieces: scripts/test looks for the whole in what failed
PATIENCE = int(os.environ.get("TEST_PATIENCE", "120"))  # seconds for an arrival after a fault; scripts/mutate has less


def wait_until(condition, timeout=30, what="condition"):
    """Polls until the condition holds, and returns its value; fails after the timeout."""
    deadline = time.monotonic() + timeout
    while True:
        value = condition()
        if value:
            return value
        assert time.monotonic() < deadline, f"{what} did not come true within {timeout} s"
        time.sleep(0.02)


def own_directory(word):
    """Below the servers that were lent to this test, and ended with them: for servers of its own. It does not exist yet."""
    parent = os.path.join(DIRECTORY, "own")
    os.makedirs(parent, exist_ok=True)
    return os.path.join(parent, f"{word}-{uuid.uuid4().hex[:8]}")


def clean_environment(**more):
    environment = {k: v for k, v in os.environ.items() if not k.startswith("OUTBOX_") and not k.startswith("PG")}
    environment["OUTBOX_DRAIN__PATIENCE"] = "0"  # a drain that waits for rests and retries is what a few tests are about: -o drain.patience=
    environment.update(more)
    return environment


def superuser_password():
    with open(PASSFILE, encoding="ascii") as line:
        return line.read().strip().rsplit(":", 1)[1]


def relay(*arguments, timeout=120, env=None, **more):
    """Runs the relay to its end."""
    done = subprocess.run(
        [RELAY, *arguments], capture_output=True, text=True, timeout=timeout, env=clean_environment(**(env or {})), check=False, **more
    )
    assert done.returncode != SANITIZER and COMPLAINT not in done.stderr, done.stderr
    return done


class Database:
    """A database of one test, with schema outbox unless told otherwise."""

    def __init__(self, migrate=True, server=DATABASE):
        self.name = "t_" + uuid.uuid4().hex[:12]
        self.server = server
        admin = psycopg2.connect(server + " dbname=postgres")
        admin.autocommit = True
        admin.cursor().execute(f"CREATE DATABASE {self.name}")
        admin.close()
        self.conninfo = f"{server} dbname={self.name}"
        if migrate:
            done = relay("migrate", "-d", self.conninfo)
            assert done.returncode == 0, done.stderr
        self.connection = self.connect()

    def connect(self, autocommit=True, **more):
        connection = psycopg2.connect(self.conninfo, **more)
        connection.autocommit = autocommit
        return connection

    def run(self, sql, *values):
        with self.connection.cursor() as cursor:
            cursor.execute(sql, values or None)
            return cursor.fetchall() if cursor.description else None

    def value(self, sql, *values):
        return self.run(sql, *values)[0][0]

    def fill(self, count, channel="orders", type_="order.placed", size=300):
        """Commits `count` rows and returns their ids."""
        rows = self.run(
            "INSERT INTO outbox.message (channel, type, key, payload)"
            " SELECT %s, %s, (i %% 100)::text, json_build_object('n', i, 'pad', repeat('x', %s)) FROM generate_series(1, %s) i"
            " RETURNING id::text",
            channel, type_, max(size - 30, 1), count,
        )
        return {row[0] for row in rows}

    def left(self):
        return self.value("SELECT count(*) FROM outbox.message")

    def open_transactions(self, pattern="outbox-relay/%"):
        return self.value(
            "SELECT count(*) FROM pg_stat_activity WHERE datname = %s AND application_name LIKE %s AND xact_start IS NOT NULL"
            " AND (backend_xid IS NOT NULL OR state LIKE 'idle in transaction%%') AND query NOT LIKE '%%outbox.relay%%'",  # not the ledger's
            self.name, pattern,
        )

    def lanes_held(self):
        """(application name, server process, lane) of each lane that is held."""
        return self.run("SELECT a.application_name, l.pid, l.objid FROM pg_locks l JOIN pg_stat_activity a USING (pid) WHERE l.locktype = 'advisory'"
                        " AND l.granted AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database())")

    def idle_in_transaction_s(self):
        """For how long the oldest transaction of a relay has waited for the relay."""
        return float(self.value(
            "SELECT coalesce(max(extract(epoch FROM clock_timestamp() - state_change)), 0) FROM pg_stat_activity"
            " WHERE datname = %s AND application_name LIKE 'outbox-relay/%%' AND state LIKE 'idle in transaction%%'", self.name))

    def stuck_in_transaction(self):
        """Of relays that were frozen or cut off: whether one holds a transaction, when the server has done all that they had sent."""
        def known():
            return "stuck" if self.idle_in_transaction_s() > 0.2 else None if self.open_transactions() else "free"

        return wait_until(known, 10, "an end of what was sent") == "stuck"

    def through(self, port, host="127.0.0.1"):
        """The conninfo by way of a proxy."""
        return f"{self.conninfo} host={host} port={port}"

    def ids_left(self):
        return {row[0] for row in self.run("SELECT id::text FROM outbox.message")}

    def dead(self):
        return {row[0] for row in self.run("SELECT id::text FROM outbox.dead_letter")}

    def drop(self):
        self.connection.close()
        admin = psycopg2.connect(DATABASE + " dbname=postgres")
        admin.autocommit = True
        admin.cursor().execute(f"DROP DATABASE IF EXISTS {self.name} WITH (FORCE)")
        admin.close()


class Producer(threading.Thread):
    """Commits messages until it is told to stop; remembers the id of every committed one."""

    def __init__(self, database, size=20):
        super().__init__(daemon=True)
        self.database = database
        self.size = size
        self.ids = set()
        self.enough = threading.Event()
        self.start()

    def run(self):
        connection = self.database.connect(autocommit=False)
        with connection.cursor() as cursor:
            while not self.enough.is_set():
                if self.backlog(cursor) > 3000:
                    time.sleep(0.01)  # keeps the backlog bounded: the relay must always find work, not drown
                    connection.rollback()
                    continue
                cursor.execute("INSERT INTO outbox.message (channel, type, payload) SELECT 'orders', 'order.placed',"
                               " json_build_object('n', i, 'pad', repeat('x', %s)) FROM generate_series(1, 50) i RETURNING id::text", (self.size,))
                new = {row[0] for row in cursor.fetchall()}
                connection.commit()
                self.ids |= new
        connection.close()

    @staticmethod
    def backlog(cursor):
        cursor.execute("SELECT count(*) FROM outbox.message")
        return cursor.fetchone()[0]

    def stop(self):
        self.enough.set()
        self.join()
        return self.ids


class Repeater(threading.Thread):
    """Does something in a session of its own, again and again, until it is stopped: step(cursor), each a transaction, with a pause behind it."""

    def __init__(self, database, step, pause_s=0):
        super().__init__(daemon=True)
        self.database, self.step, self.pause_s = database, step, pause_s
        self.times, self.enough, self.failure = 0, threading.Event(), None
        self.start()

    def run(self):
        try:
            connection = self.database.connect()
            with connection.cursor() as cursor:
                while not self.enough.is_set():
                    self.step(cursor)
                    self.times += 1
                    self.enough.wait(self.pause_s)
            connection.close()
        except psycopg2.Error as failure:
            self.failure = failure

    def stop(self):
        self.enough.set()
        self.join()
        assert not self.failure, self.failure


class Broker:
    """Exchanges and queues of one test, under names of its own; everything is deleted at the end."""

    def __init__(self):
        self.connection = pika.BlockingConnection(pika.URLParameters(AMQP_URL + "?heartbeat=0"))
        self.channel = self.connection.channel()
        self.prefix = "t" + uuid.uuid4().hex[:8]
        self.exchanges = []
        self.queues = []
        self.oracles = []

    def name(self, word):
        return f"{self.prefix}.{word}"

    def exchange(self, word, type_="topic"):
        name = self.name(word)
        self.channel.exchange_declare(name, exchange_type=type_, durable=True)
        self.exchanges.append(name)
        return name

    def queue(self, word, exchange=None, key="#", **arguments):
        name = self.name(word)
        self.channel.queue_declare(name, durable=True, arguments={k.replace("_", "-"): v for k, v in arguments.items()})
        self.queues.append(name)
        if exchange:
            self.channel.queue_bind(name, exchange, key)
        return name

    def depth(self, queue):
        return self.channel.queue_declare(queue, passive=True).method.message_count

    def consumers(self, queue):
        return self.channel.queue_declare(queue, passive=True).method.consumer_count

    def oracle(self, queue):
        """Consuming when this returns: what a test sees first is the first delivery."""
        before = self.consumers(queue)
        oracle = Oracle(queue)
        self.oracles.append(oracle)
        wait_until(lambda: self.consumers(queue) > before, what="the oracle's consumer")
        return oracle

    def close(self):
        for oracle in self.oracles:
            oracle.stop()
        if self.connection.is_closed:
            self.connection = pika.BlockingConnection(pika.URLParameters(AMQP_URL))
        if self.channel.is_closed or self.channel.connection is not self.connection:
            self.channel = self.connection.channel()
        for queue in self.queues:
            self.channel.queue_delete(queue)
        for exchange in self.exchanges:
            self.channel.exchange_delete(exchange)
        self.connection.close()


class Oracle:
    """tests/tools/oracle.py on one queue; its file is the truth about what arrived."""

    def __init__(self, queue, url=AMQP_URL):
        self.file = tempfile.NamedTemporaryFile(prefix="oracle-", suffix=".jsonl", delete=False)
        self.arguments = ["/usr/bin/python3", os.path.join(HERE, "tools", "oracle.py"), url, queue, self.file.name]
        self.process = subprocess.Popen(self.arguments)
        self.offset, self.parsed, self.reading = 0, [], threading.Lock()

    def deliveries(self):
        """Reads what is new, up to the last whole line: the end of the file may be in the middle of a write."""
        with self.reading, open(self.file.name, "rb") as file:
            file.seek(self.offset)
            whole = file.read().rpartition(b"\n")[0]
            if whole:
                self.offset += len(whole) + 1
                self.parsed += map(json.loads, whole.split(b"\n"))
            return list(self.parsed)

    def ids(self):
        return [delivery["id"] for delivery in self.deliveries()]

    def await_ids(self, wanted, timeout=PATIENCE):
        """Waits until every wanted id has arrived at least once; returns all ids in order of arrival."""
        wanted = set(wanted)
        try:
            wait_until(lambda: wanted <= set(self.ids()), timeout)
        except AssertionError:
            missing = sorted(wanted - set(self.ids()))
            raise AssertionError(f"{len(missing)} of {len(wanted)} messages did not arrive within {timeout} s: lost {missing[:5]}") from None
        return self.ids()

    def ensure_running(self):
        if self.process.poll() is not None:
            self.process = subprocess.Popen(self.arguments)

    def stop(self):
        if self.process.poll() is None:
            self.process.terminate()
            self.process.wait(10)
        os.unlink(self.file.name)


class Relay:
    """A relay process under test."""

    def __init__(self, *arguments, command="run", env=None, prefix=()):
        self.log_file = tempfile.NamedTemporaryFile(prefix="relay-", suffix=".log", delete=False)
        self.process = subprocess.Popen(
            [*prefix, RELAY, command, *arguments], stdout=subprocess.PIPE, stderr=self.log_file, text=True, env=clean_environment(**(env or {}))
        )

    @property
    def pid(self):
        return self.process.pid

    def log(self):
        with open(self.log_file.name, encoding="utf-8") as lines:
            return lines.read()

    def await_log(self, text, timeout=30):
        wait_until(lambda: text in self.log() or self.process.poll() is not None, timeout, f"'{text}' in the log")
        assert text in self.log(), self.log()

    def signal(self, number):
        self.process.send_signal(number)

    def wait(self, timeout=60):
        return self.process.wait(timeout)

    def output(self, timeout=120):
        out, _ = self.process.communicate(timeout=timeout)
        return out

    def kill(self):
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait(10)

    def close(self):
        """Ends it politely and shows what it said, should the test have failed."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGCONT)
            self.process.terminate()
            try:
                self.process.wait(40)
            except subprocess.TimeoutExpired:
                self.kill()
        self.process.stdout.close()
        crashed = self.process.returncode < 0 and -self.process.returncode != signal.SIGKILL
        text = self.log()
        sys.stderr.write(text[-20000:])
        os.unlink(self.log_file.name)
        assert not crashed, f"the relay died of signal {-self.process.returncode}"
        assert "Sanitizer" not in text and COMPLAINT not in text


def amqp(*options, url=AMQP_URL):
    """Arguments for the amqp backend."""
    arguments = ["-b", "amqp", "-o", "amqp.url=" + url]
    for option in options:
        arguments += ["-o", option]
    return arguments


def restart_server(name, *mode):
    """name: postgres or rabbitmq."""
    subprocess.run([os.environ["TEST_DEV_SERVERS"], "restart", DIRECTORY, name, *mode], check=True, stdout=subprocess.DEVNULL,
                   stderr=subprocess.DEVNULL, timeout=200)


def rabbitmqctl(*arguments, timeout=180):
    return subprocess.run([os.environ["TEST_RABBITMQCTL"], *arguments], capture_output=True, text=True, timeout=timeout, check=True).stdout


def http(url, *options):
    """Arguments for the http backend."""
    arguments = ["-b", "http", "-o", "http.url=" + url]
    for option in options:
        arguments += ["-o", option]
    return arguments
