"""The machine runs short: of descriptors, of room for the log, of somebody who reads. No loss; a retry, or an honest exit code."""
import collections
import contextlib
import json
import os
import resource
import select
import signal
import subprocess
import time

import pytest

from harness import RELAY, amqp, clean_environment, wait_until


def drain(database, *arguments, prefix=(), env=None, **more):
    streams = {"stderr": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True, **more}
    return subprocess.run([*prefix, RELAY, "drain", "-q", "-d", database.conninfo, *arguments],
                          env=clean_environment(**(env or {})), timeout=60, check=False, **streams)


def without(*descriptors):
    """A shell that closes descriptors before it becomes the relay."""
    return ["sh", "-c", 'exec "$@" ' + " ".join(f"{fd}>&-" for fd in descriptors), "sh"]


def orders(database, broker, count):
    """Ids, oracle and option of `count` messages to an exchange."""
    exchange = broker.exchange("orders")
    return database.fill(count), broker.oracle(broker.queue("all", exchange)), "amqp.exchange=" + exchange


@contextlib.contextmanager
def full_pipe():
    """(reading end, writing end) of a pipe with no room left."""
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    with contextlib.suppress(BlockingIOError):
        while True:
            os.write(writing, b"x" * 4096)
    os.set_blocking(writing, True)
    try:
        yield reading, writing
    finally:
        os.close(reading)
        os.close(writing)


def ended(process, within):
    """Its exit code, or None; it is ended in any case."""
    try:
        return process.wait(within)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait(10)
        return None


# ---- descriptors ------------------------------------------------------------------------------------------------------------


def test_a_drain_short_of_descriptors_keeps_every_row_that_did_not_arrive_and_says_so(database, broker):
    """From none at all for the relay to just enough: what cannot be opened ends in 69 or 70, and what was deleted has arrived."""
    ids, oracle, exchange = orders(database, broker, 0)
    codes = []
    for limit in range(4, 14):
        ids |= database.fill(20)
        done = drain(database, *amqp(exchange, "workers=1", "publish_timeout=1s", "drain.unavailable_after=200ms", "breaker.open_min=50ms"),
                     prefix=["prlimit", f"--nofile={limit}", "--"], env={"ASAN_OPTIONS": "detect_leaks=0"})  # the leak check opens files, too
        codes.append(done.returncode)
        assert done.returncode in (0, 69, 70) and (done.returncode == 0) == (database.left() == 0), (limit, done.returncode, done.stderr)
        assert done.stderr, "somebody must be told"
        oracle.await_ids(ids - database.ids_left(), 20)
    print(codes)
    assert codes[0] == 70 and 69 in codes and codes[-1] == 0, "the limits must reach from none to enough"
    assert collections.Counter(oracle.ids()) == dict.fromkeys(ids, 1)


def test_a_relay_that_runs_out_of_descriptors_in_mid_run_waits_and_goes_on_when_it_has_some(database, broker, start):
    ids, oracle, exchange = orders(database, broker, 100)
    running = start("-d", database.conninfo, *amqp(exchange))
    oracle.await_ids(ids)
    wait_until(lambda: database.left() == 0, what="an empty outbox")
    before = resource.prlimit(running.pid, resource.RLIMIT_NOFILE, (3, resource.getrlimit(resource.RLIMIT_NOFILE)[1]))
    database.run("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = %s AND application_name LIKE 'outbox-relay/%%'",
                 database.name)
    running.await_log("Too many open files")
    ids |= database.fill(100)
    resource.prlimit(running.pid, resource.RLIMIT_NOFILE, before)
    oracle.await_ids(ids)
    wait_until(lambda: database.left() == 0, what="an empty outbox")
    assert collections.Counter(oracle.ids()) == dict.fromkeys(ids, 1)
    running.signal(signal.SIGTERM)
    assert running.wait() == 0


# ---- standard output --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("how", ["closed", "full"])
def test_a_result_that_cannot_be_written_ends_in_70_with_everything_delivered(database, broker, how):
    ids, oracle, exchange = orders(database, broker, 200)
    with open("/dev/full", "wb") as full:
        done = drain(database, "--json", *amqp(exchange), prefix=without(1) if how == "closed" else (),
                     **({} if how == "closed" else {"stdout": full}))
    assert done.returncode == 70, done.stderr
    assert sorted(oracle.await_ids(ids)) == sorted(ids) and database.left() == 0


@pytest.mark.parametrize("closed", [(0,), (1,), (2,), (1, 2), (0, 1, 2)], ids=str)
def test_what_opens_under_the_number_of_a_closed_stream_is_never_written_to_by_mistake(database, broker, start, closed):
    """Descriptors 0 to 2 then belong to whatever was opened first; neither log nor messages may end up there."""
    ids, oracle, exchange = orders(database, broker, 100)
    running = start("-d", database.conninfo, "--log-level", "debug", *amqp(exchange), prefix=without(*closed))
    oracle.await_ids(ids, 20)
    wait_until(lambda: database.left() == 0, what="an empty outbox")
    database.run("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = %s AND application_name LIKE 'outbox-relay/%%'",
                 database.name)
    ids |= database.fill(100)  # and again, with something to log about
    oracle.await_ids(ids, 20)
    wait_until(lambda: database.left() == 0, what="an empty outbox")
    running.signal(signal.SIGTERM)
    assert running.wait() == 0
    kept = database.fill(100)
    done = drain(database, "-b", "stdout", "-o", "publish_timeout=500ms", "-o", "drain.unavailable_after=500ms", prefix=without(*closed))
    got = {json.loads(line)["id"] for line in done.stdout.splitlines()}
    assert database.ids_left() == kept - got and (len(got) == 0 if 1 in closed else done.returncode == 0)


def test_messages_into_a_full_pipe_wait_for_a_reader_and_every_deleted_row_was_read(database):
    """backend stdout: CONFIRMED means that the pipe took the whole line."""
    ids = database.fill(100)
    with full_pipe() as (reading, writing):
        running = subprocess.Popen([RELAY, "run", "-d", database.conninfo, "-b", "stdout", "-o", "publish_timeout=500ms", "-o", "breaker.open_max=1s"],
                                   stdout=writing, env=clean_environment())
        try:
            wait_until(lambda: database.open_transactions() > 0, what="a batch that waits for the reader")
            wait_until(lambda: database.open_transactions() == 0, what="its end")
            assert database.left() == 100, "nothing of it was written"
            text, read = b"", os.read(reading, 65536)
            while read or database.left():  # the filling first
                text += read
                wait_until(lambda: database.left() == 0 or readable(reading), what="more lines")
                read = os.read(reading, 65536) if readable(reading) else b""
        finally:
            running.terminate()
            code = ended(running, 30)
    lines = text.lstrip(b"x").decode().splitlines()
    whole = collections.Counter(identity for identity in map(identity_of, lines) if identity)
    assert code == 0 and set(whole) == ids


def identity_of(line):
    """None of a line that was cut off."""
    try:
        return json.loads(line)["id"]
    except ValueError:
        return None


def readable(descriptor):
    return bool(select.select([descriptor], [], [], 0)[0])


# ---- the log ----------------------------------------------------------------------------------------------------------------


def test_a_log_on_a_full_disk_stops_no_message(database, broker):
    ids, oracle, exchange = orders(database, broker, 200)
    database.fill(5, channel="nowhere")
    with open("/dev/full", "wb") as full:
        running = subprocess.Popen([RELAY, "run", "-d", database.conninfo, "--log-level", "debug", *amqp(exchange)], stderr=full, env=clean_environment())
        try:
            oracle.await_ids(ids, 20)
        finally:
            running.terminate()
            code = ended(running, 30)
    assert code == 0


def test_a_log_that_nobody_reads_holds_no_transaction_stops_no_message_and_no_stop(database, broker):
    """Standard error is a pipe, as under systemd or `| tee`, and its reader hangs."""
    ids, oracle, _ = orders(database, broker, 100)
    database.run("UPDATE outbox.message SET channel = %s", broker.name("orders"))
    database.run("INSERT INTO outbox.message (channel, type, payload) VALUES (%s, 't', '{}')", broker.name("missing"))  # something to tell
    arrived, open_transactions = set(), -1

    def all_is_well():
        nonlocal arrived, open_transactions
        arrived, open_transactions = set(oracle.ids()), database.open_transactions()
        return ids <= arrived and open_transactions == 0

    with full_pipe() as (_, writing):
        running = subprocess.Popen([RELAY, "run", "-d", database.conninfo, *amqp("shutdown_timeout=1s", "workers=1", "batch.max_messages=1000")],
                                   stderr=writing, env=clean_environment())
        try:
            with contextlib.suppress(AssertionError):
                wait_until(all_is_well, 20)
        finally:
            began = time.monotonic()
            running.terminate()
            code = ended(running, 15)
    print(f"{len(arrived)} arrived, {open_transactions} transactions open, ended {code} after {time.monotonic() - began:.1f} s")
    assert ids <= arrived and open_transactions == 0 and code == 0
