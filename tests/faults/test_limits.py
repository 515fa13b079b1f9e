"""Commands among limits of role and database, locks, cancelled statements and a network that is cut: none waits longer than it may, none ends
for a limit that is not its own, and none leaves a statement or a lock behind on the server."""
import contextlib
import json
import os
import signal
import subprocess
import threading
import time

import pytest

from harness import RELAY, clean_environment, relay, wait_until

IDLE_S = 10  # limits_set.sql


@contextlib.contextmanager
def locked(database, tables, seconds=None):
    """Somebody holds the tables, until the end or for so long."""
    holder = database.connect(autocommit=False)
    with holder.cursor() as cursor:
        cursor.execute(f"LOCK TABLE {tables}")
    timer = threading.Timer(seconds, holder.rollback) if seconds else None
    if timer:
        timer.start()
    try:
        yield
    finally:
        if timer:
            timer.join()
        holder.close()


def sessions_of(database, name):
    return database.value("SELECT count(*) FROM pg_stat_activity WHERE datname = %s AND application_name = %s", database.name, name)


def drained(*arguments, env=None):
    began = time.monotonic()
    done = relay("drain", "-q", "--json", *arguments, env=env)
    return done, json.loads(done.stdout), time.monotonic() - began


# ---- what migrate holds ----


@pytest.mark.parametrize("since, order", [(b"500ms", "key"), (b"500ms", "none"), (b"outbox_producer", "key")], ids=["key", "none", "grants"])
def test_a_migrate_that_is_cut_off_before_its_commit_holds_its_locks_for_seconds(database, proxied, since, order):
    if order == "none":
        assert relay("migrate", "--order", "key", "-d", database.conninfo).returncode == 0
    proxy = proxied(os.environ["TEST_PG_PORT"], postgres=True)
    trap = proxy.trap(b"COMMIT", since=since, how="hole")
    migrate = subprocess.Popen([RELAY, "migrate", "--order", order, "-d", database.through(proxy.port)], env=clean_environment(),
                               stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    assert trap.sprung.wait(20)
    producer = database.connect()
    began = time.monotonic()
    with producer.cursor() as cursor:
        cursor.execute("SET statement_timeout = '30s'")
        cursor.execute("SELECT outbox.publish('orders', 't', '{}')")
    assert time.monotonic() - began < IDLE_S + 5
    assert migrate.wait(40) == 69
    wait_until(lambda: sessions_of(database, "outbox-relay migrate") == 0, IDLE_S + 5, "the end of its session")
    producer.close()


def test_a_migrate_that_gives_up_leaves_no_statement_behind(database):
    with locked(database, "outbox.schema_version"):
        done = relay("migrate", "-d", database.conninfo)
        assert done.returncode == 69, done.stderr
        wait_until(lambda: sessions_of(database, "outbox-relay migrate") == 0, 3, "the end of its session")


def test_a_transaction_of_migrate_has_its_limits_from_the_first_moment_on(database, proxied):
    """Between BEGIN and the limits of our own those of the role would count."""
    proxy = proxied(os.environ["TEST_PG_PORT"])
    database.run(f"ALTER DATABASE {database.name} SET idle_in_transaction_session_timeout = '100ms'")
    proxy.up.latency = proxy.down.latency = 0.15
    done = relay("migrate", "--order", "key", "-d", database.through(proxy.port))
    assert done.returncode == 0, done.stderr


# ---- idle sessions ----


def test_an_export_that_is_read_slowly_is_whole_whatever_the_role_says_of_idle_sessions(database):
    database.run("INSERT INTO outbox.message (channel, type, payload) SELECT 'c', 't', '{}' FROM generate_series(1, 400)")
    assert relay("drain", "-q", "-b", "fail", "-o", "fail.script=reject", "-d", database.conninfo).returncode == 1
    assert len(database.dead()) == 400
    database.run(f"ALTER DATABASE {database.name} SET idle_session_timeout = '300ms'")
    process = subprocess.Popen([RELAY, "dead", "export", "-d", database.conninfo], env=clean_environment(), stdout=subprocess.PIPE)
    first = process.stdout.readline()
    time.sleep(1)
    assert len([first, *process.stdout.readlines()]) == 400 and process.wait(20) == 0
    process.stdout.close()


def test_names_that_only_look_like_limits_of_a_session_are_none(database):
    with open(os.path.join(os.path.dirname(__file__), "../../schema/queries/limits_unknown.sql"), encoding="utf-8") as file:
        query = file.read()
    assert query.count("pg_catalog.pg_settings") == 1
    rows = ("('bdr.global_lock_statement_timeout', '60000', 'user'), ('x.lock_timeout', '1', 'superuser'), ('idle_query_timeout', '-1', 'user'),"
            " ('idle_replication_slot_timeout', '86400', 'sighup'), ('statement_timeout', '1', 'user'), ('tcp_user_timeout', '5', 'user')")
    strange = "('idle_query_timeout', '7', 'user')"
    for more, wanted in (("", []), (", " + strange, [("idle_query_timeout", "7")])):
        source = f"(VALUES {rows}{more}) AS s (name, setting, context)"
        assert database.run(query.replace("pg_catalog.pg_settings", source).replace("$1::text[]", "ARRAY['statement_timeout']")) == wanted


# ---- a drain that cannot look ----


def test_a_drain_that_waits_for_a_look_ends_at_a_signal(database, start):
    database.fill(200)
    running = start("-q", "--json", "-d", database.conninfo, "-b", "fail", "-o", "fail.script=hang", "-o", "publish_timeout=1s", "-o",
                    "shutdown_timeout=8s", "-o", "workers=1", command="drain")
    running.await_log("possible duplicates")
    with locked(database, "outbox.scheduled"):
        looks = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock' AND query LIKE '%%What drain%%'"
        wait_until(lambda: database.value(looks), 20, "a look that waits")
        running.signal(signal.SIGTERM)
        summary = json.loads(running.output(7))
    assert (running.process.returncode, summary["result"]) == (75, "stopped by a signal")


@pytest.mark.parametrize("how", ["signal", "time"])
def test_a_drain_that_cannot_begin_ends_at_a_signal_and_when_its_time_is_over(database, start, how):
    database.fill(3)
    with locked(database, "outbox.scheduled"):
        running = start("--json", "-d", database.conninfo, "-b", "null", *(["--max-time", "2s"] if how == "time" else []), command="drain")
        if how == "signal":
            wait_until(lambda: database.value("SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"),
                       20, "a statement that waits")
            running.signal(signal.SIGTERM)
        summary = json.loads(running.output(6))
    assert running.process.returncode == 75 and summary["result"].startswith("stopped by " + ("a signal" if how == "signal" else "--max-time"))
    assert summary["left"] is None and summary["on_hold"] is None and summary["waiting"] is None, "nobody could look"


def cancel_looks(database, until):
    """Cancels each look of a drain at the outbox, by pg_cancel_backend, until told to stop."""
    with contextlib.closing(database.connect()) as own, own.cursor() as cursor:
        while not until.is_set():
            cursor.execute("SELECT pg_cancel_backend(pid) FROM pg_stat_activity WHERE datname = current_database() AND query LIKE '%%What drain%%'"
                           " AND state = 'active' AND pid <> pg_backend_pid()")
            until.wait(0.01)


def test_a_look_that_is_cancelled_once_is_taken_again(database):
    database.fill(10)
    with locked(database, "outbox.paused", 2):
        over = threading.Event()
        canceller = threading.Thread(target=cancel_looks, args=(database, over))
        stop = threading.Timer(1.5, over.set)
        canceller.start()
        stop.start()
        done, summary, _ = drained("-d", database.conninfo, "-b", "null")
        canceller.join()
        stop.join()
    assert done.returncode == 0 and summary["published"] == 10 and database.left() == 0, done.stderr


def test_looks_that_are_cancelled_for_longer_than_the_drain_waits_end_it(database):
    database.fill(10)
    over = threading.Event()
    canceller = threading.Thread(target=cancel_looks, args=(database, over))
    with locked(database, "outbox.paused"):
        canceller.start()
        done, summary, seconds = drained("-d", database.conninfo, "-b", "null", "-o", "drain.unavailable_after=3s")
        over.set()
        canceller.join()
    assert done.returncode == 69 and "57014" in summary["result"] and seconds < 10
    assert "the database is away or busy; trying on" in done.stderr and database.left() == 10
