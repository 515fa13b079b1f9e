"""Breaker, watchdog and stop, observed from outside: by the log, the broker and the database."""
import os
import random
import signal
import socket
import threading
import time

import pytest

import plugins
from harness import amqp, relay, wait_until
from scripted_broker import ScriptedBroker

CYCLES = int(os.environ.get("TEST_CYCLES", "15"))


def scripted(broker, *options):
    arguments = ["-b", "amqp", "-o", f"amqp.url={broker.url}"]
    for option in options:
        arguments += ["-o", option]
    return arguments


# ---- breaker ----------------------------------------------------------------------------------------------------------------


def test_the_breaker_opens_lets_one_message_through_and_closes(database, start):
    away, held = threading.Event(), []
    away.set()

    def login(session):
        if away.is_set():
            session.cut()

    def message(session, got):
        if len(broker.received) == 1:
            held.append((session, got))  # the one of the half-open breaker: no answer yet
        else:
            session.ack(got.tag)

    broker = ScriptedBroker(on_login=login, on_message=message)
    ids = database.fill(500)
    running = start("-d", database.conninfo, *scripted(broker, "workers=4", "breaker.failures=3", "breaker.open_min=200ms", "breaker.open_max=1s"))
    running.await_log("breaker is open")
    assert database.open_transactions() == 0 and not broker.received
    running.await_log("breaker is half-open")
    away.clear()
    wait_until(lambda: held, what="the message that tries")
    sessions = len(broker.connects)
    running.signal(signal.SIGUSR1)
    running.await_log("breaker=half-open")
    assert len(broker.received) == 1 and database.open_transactions() == 1, "one message, one transaction"
    assert len(broker.connects) == sessions, "nobody else tries"
    held[0][0].ack(held[0][1].tag)
    wait_until(lambda: broker.accepted() == ids, what="all messages")
    log = running.log()
    places = [log.index(text) for text in ("breaker is open", "breaker is half-open", "the broker takes messages again")]
    assert places == sorted(places)
    assert max(broker.counts.values()) == 1
    running.process.terminate()
    assert running.wait() == 0
    broker.close()


# ---- watchdog ---------------------------------------------------------------------------------------------------------------


def test_a_database_that_dies_during_a_publish_ends_it_and_is_not_the_brokers_fault(database, start):
    """The publish would run for a minute; the server's end of the session is noticed at once, and no breaker, suspect or attempt follows."""
    answers = []
    broker = ScriptedBroker(on_message=lambda session, message: session.ack(message.tag) if answers else None)
    ids = database.fill(20)
    running = start("-d", database.conninfo, *scripted(broker, "workers=1", "publish_timeout=60s"))
    wait_until(lambda: len(broker.received) == 20, what="all messages in flight")
    answers.append(True)
    assert database.value("SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE datname = %s AND backend_xid IS NOT NULL"
                          " AND application_name LIKE 'outbox-relay/%%'", database.name) >= 1
    wait_until(lambda: broker.accepted() == ids, 15, "the messages, sent again")
    wait_until(lambda: database.left() == 0, what="an empty outbox")
    log = running.log()
    assert "possible duplicates" in log and "no connection to the database" in log
    assert "no session to the broker" not in log and "breaker" not in log
    assert database.value("SELECT count(*) FROM outbox.scheduled") == 0 and max(broker.counts.values()) == 2
    running.process.terminate()
    assert running.wait() == 0
    broker.close()


def test_a_worker_that_nothing_brings_back_is_told_of(database, start, tmp_path):
    """A plugin that ignores deadline and interrupt: log and status name the worker, and a second signal still ends the process."""
    plugin = plugins.build(tmp_path, "stubborn", source=os.path.join(plugins.HERE, "plugin_sample", "stubborn.c"))
    database.fill(1)
    running = start("-d", database.conninfo, "-b", plugin, "-o", "publish_timeout=100ms", "-o", "shutdown_timeout=1s",
                    "-o", "stubborn.how=hang", "-o", "stubborn.good=0")
    running.await_log("a worker makes no progress", 60)
    wait_until(lambda: "has made no progress" in relay("status", "-d", database.conninfo).stdout, what="status")
    running.signal(signal.SIGTERM)
    assert running.wait(15) == 70
    assert database.left() == 1


# ---- stop -------------------------------------------------------------------------------------------------------------------


def silent_listener():
    listener = socket.socket()
    listener.bind(("127.0.0.1", 0))
    listener.listen(16)
    return listener, listener.getsockname()[1]


STATES = {
    "idle": (["-b", "null"], 0, None),
    "a batch in flight": (["-b", "fail", "-o", "fail.script=hang", "-o", "publish_timeout=60s"], 10, None),
    "connecting to a broker that hangs": (["-b", "fail", "-o", "fail.connect=hang", "-o", "publish_timeout=60s"], 10, None),
    "an open breaker": (["-b", "fail", "-o", "fail.connect=unavailable", "-o", "breaker.failures=1", "-o", "breaker.open_min=60s"], 10, "breaker is open"),
    "a session that is lost again and again": (["-b", "fail", "-o", "fail.script=lost"], 10, "no session"),
    "a pause that the broker asked for": (["-b", "fail", "-o", "fail.script=busy", "-o", "fail.retry_after=60s"], 10, "pause"),
    "a channel on hold": (["-b", "fail", "-o", "fail.script=hold", "-o", "fail.retry_after=60s"], 10, "on hold"),
    "retries that wait": (["-b", "fail", "-o", "fail.script=retry"], 10, "on hold"),
}


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT], ids=["SIGTERM", "SIGINT"])
@pytest.mark.parametrize("state", STATES)
def test_a_stop_is_bounded_in_every_state(database, start, state, number):
    """shutdown_timeout 1 s: 0, or 70 where something had to be let go of; no transaction is left, no row lost."""
    arguments, rows, sign = STATES[state]
    database.fill(rows)
    running = start("-d", database.conninfo, *arguments, "-o", "shutdown_timeout=1s")
    running.await_log("running")
    if sign:
        running.await_log(sign)
    elif rows and "connecting" not in state:
        wait_until(lambda: database.open_transactions() > 0, what="a batch in flight")
    began = time.monotonic()
    running.signal(number)
    assert running.wait(20) in ((0, 70) if "batch" in state else (0,))
    assert time.monotonic() - began < 1 + 3 + 2
    wait_until(lambda: database.open_transactions() == 0, 5, "no transaction")
    assert database.left() == rows


def test_a_stop_is_bounded_while_the_database_is_away(start):
    listener, port = silent_listener()
    with listener:
        running = start("-d", f"host=127.0.0.1 port={port} user=x dbname=x", "-b", "null", "-o", "shutdown_timeout=1s")
        listener.settimeout(20)
        listener.accept()
        began = time.monotonic()
        running.signal(signal.SIGTERM)
        assert running.wait(20) in (0, 69, 75)
        assert time.monotonic() - began < 6


@pytest.mark.parametrize("order", ["none", "key"])
def test_many_lives_end_well_and_leave_no_lock_behind(database, broker, start, tmp_path, order):
    """Scenario 34: TERM, INT, twice, HUP with a bad file, at any instant of a life; every message arrives."""
    chance = random.Random(34)
    exchange = broker.exchange("orders")
    oracle = broker.oracle(broker.queue("all", exchange))
    assert relay("migrate", "-d", database.conninfo, "--order", order).returncode == 0
    file = tmp_path / "relay.yaml"
    ids = set()
    for _ in range(CYCLES):
        ids |= database.fill(50)
        file.write_text(f"database: \"{database.conninfo}\"\norder: {order}\nbatch: {{ max_messages: 10 }}\n")
        running = start("-c", str(file), *amqp("amqp.exchange=" + exchange))
        running.await_log("running")
        time.sleep(chance.random() * 0.1)
        what = chance.choice(["term", "int", "twice", "hup"])
        if what == "hup":
            file.write_text("workers: none of your business\n")
            running.signal(signal.SIGHUP)
            running.await_log("the old one stays")
        running.signal(signal.SIGINT if what == "int" else signal.SIGTERM)
        if what == "twice":
            running.signal(signal.SIGTERM)
        assert running.wait(30) in ((0, 70) if what == "twice" else (0,)), what
        wait_until(lambda: database.open_transactions() == 0 and not database.lanes_held(), 5, "no transaction and no lane locked")
    assert relay("drain", "-q", "-d", database.conninfo, *amqp("amqp.exchange=" + exchange, "order=" + order)).returncode == 0
    assert set(oracle.await_ids(ids)) == ids
