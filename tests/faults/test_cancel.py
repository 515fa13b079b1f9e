"""Whoever gives up a statement, or a connect, leaves nothing behind: no session that waits on the server, no stop that waits for a silent peer."""
import contextlib
import signal
import socket
import time

import psycopg2
import pytest

from harness import Database, amqp, relay, wait_until


def waiting(database, events):
    return database.value("SELECT count(*) FROM pg_stat_activity WHERE datname = %s AND application_name LIKE 'outbox-relay/%%' AND wait_event = ANY (%s)",
                          database.name, events)


def highest(count, seconds):
    """The largest of many looks."""
    most, deadline = 0, time.monotonic() + seconds
    while time.monotonic() < deadline:
        most = max(most, count())
        time.sleep(0.2)
    return most


def test_a_lock_on_the_relays_own_row_leaves_at_most_one_session_waiting(database, start):
    running = start("-d", database.conninfo, "-b", "null")
    wait_until(lambda: database.value("SELECT count(*) FROM outbox.relay") == 1, what="its row")
    stranger = database.connect(autocommit=False)
    with stranger.cursor() as cursor:
        cursor.execute("SELECT 1 FROM outbox.relay FOR UPDATE")
    try:
        running.await_log("cannot write to outbox.relay", 30)
        assert highest(lambda: waiting(database, ["transactionid", "tuple"]), 15) <= 1
        ids = database.fill(10)
        wait_until(lambda: not ids & database.ids_left(), 10, "messages go on")
    finally:
        stranger.close()
    seen = database.value("SELECT seen_at FROM outbox.relay")
    wait_until(lambda: database.value("SELECT seen_at > %s FROM outbox.relay", seen), 30, "a row that is refreshed again")


def test_a_standby_that_nobody_is_leaves_no_session_waiting_and_keeps_the_relays_row_fresh(servers, start):
    """synchronous_standby_names names nobody: each COMMIT waits for ever. The workers' own are theirs; the ledger's needs no standby."""
    server = servers("lonely")
    database = Database(server=server.conninfo)
    running = start("-d", database.conninfo, "-b", "null", "-o", "workers=2", "-o", "batch.max_messages=5", "--log-level", "debug")
    wait_until(lambda: database.value("SELECT count(*) FROM outbox.relay") == 1, what="its row")
    with contextlib.closing(psycopg2.connect(server.conninfo + " dbname=postgres")) as admin:
        admin.autocommit = True
        with admin.cursor() as cursor:
            cursor.execute("ALTER SYSTEM SET synchronous_standby_names = 'nobody'")
            cursor.execute("SELECT pg_reload_conf()")
    connection = database.connect()
    with connection.cursor() as cursor:
        cursor.execute("SET synchronous_commit = local")
        cursor.execute("SELECT outbox.publish('a', 't', '{}') FROM generate_series(1, 100)")
    connection.close()
    seen = database.value("SELECT seen_at FROM outbox.relay")
    assert highest(lambda: waiting(database, ["SyncRep"]), 25) <= 2, "one for each worker, and no more with the time"
    assert database.value("SELECT seen_at > %s FROM outbox.relay", seen), "its row was refreshed meanwhile"
    assert "cannot write to outbox.relay" not in running.log()
    wait_until(lambda: database.value("SELECT state FROM outbox.relay") == "blocked", 20, "a relay that says that its COMMITs have no answer")
    assert "did not answer in time" in relay("status", "-d", database.conninfo).stdout
    assert highest(lambda: database.value("SELECT (state <> 'blocked')::int FROM outbox.relay"), 5) == 0, "claims that work are no sign of health"
    running.signal(signal.SIGTERM)
    assert running.wait(40) in (0, 70)
    wait_until(lambda: waiting(database, ["SyncRep"]) == 0, 10, "no session is left behind")
    database.connection.close()


class Full:
    """A port whose queue of connections is full: it answers no SYN, as a broker behind a firewall that drops."""

    def __init__(self):
        self.listener = socket.socket()
        self.listener.bind(("127.0.0.1", 0))
        self.listener.listen(0)
        self.port = self.listener.getsockname()[1]
        self.sockets = []
        while True:
            one = socket.socket()
            one.settimeout(0.5)
            self.sockets.append(one)
            try:
                one.connect(("127.0.0.1", self.port))
            except TimeoutError:
                return

    def knocking(self):
        """Who waits for an answer: SYN_SENT."""
        with open("/proc/net/tcp", encoding="ascii") as lines:
            return sum(f":{self.port:04X} 02 " in line for line in lines)

    def close(self):
        for one in [*self.sockets, self.listener]:
            one.close()


@pytest.mark.parametrize("scheme", ["amqp", "amqps"])
@pytest.mark.parametrize("command", ["run", "drain"])
def test_a_stop_does_not_wait_for_a_broker_that_answers_no_connect(database, start, scheme, command):
    full = Full()
    try:
        before = full.knocking()
        database.fill(1)
        running = start("-d", database.conninfo, *amqp(url=f"{scheme}://guest:guest@127.0.0.1:{full.port}/"), command=command)
        wait_until(lambda: full.knocking() > before, 20, "a connect under way")
        began = time.monotonic()
        running.signal(signal.SIGTERM)
        assert running.wait(20) == (75 if command == "drain" else 0)
        assert time.monotonic() - began < 3
    finally:
        full.close()


def test_a_refused_question_about_an_exchange_is_no_answer_and_publishing_shows(database, scripted, start):
    """RabbitMQ 4.2.6 answers 403 to a passive declare of a user who may only write."""
    def on_declare(session, exchange):
        session.close_channel(403, f"ACCESS_REFUSED - read access to exchange '{exchange}' in vhost '/' refused", channel=2)
        return False

    broker = scripted(lambda session, message: session.ack(message.tag), on_declare=on_declare)
    ids = database.fill(30, channel="mine")
    start("-d", database.conninfo, *amqp("workers=1", url=broker.url))
    wait_until(lambda: database.left() == 0, what="an empty outbox")
    assert {message.id for message in broker.received} == ids


def test_a_statement_that_is_given_up_is_ended_on_the_server(database, start):
    """Not only its socket: a drain that is told to stop while it asks a long question leaves nobody behind."""
    locker = database.connect(autocommit=False)
    with locker.cursor() as cursor:
        cursor.execute("LOCK TABLE outbox.scheduled IN ACCESS EXCLUSIVE MODE")
    running = start("-q", "-b", "null", "-d", database.conninfo, command="drain")
    wait_until(lambda: waiting(database, ["relation"]) == 1, what="its question")
    running.signal(signal.SIGTERM)
    assert running.wait(10) == 75
    wait_until(lambda: waiting(database, ["relation"]) == 0, 5, "the end of its statement, although the lock is still there")
    locker.close()
