"""A plugin fails: it hangs and cannot be interrupted, crashes, says OK and settles nothing, or asks for absurd pauses. Only what it confirmed is gone."""
import json
import os
import signal
import time

import pytest

import plugins
from harness import Relay, relay, wait_until

GOOD, COUNT = 5, 20
SOURCE = os.path.join(plugins.HERE, "plugin_sample", "stubborn.c")


@pytest.fixture(scope="module")
def stubborn(tmp_path_factory):
    return plugins.build(tmp_path_factory.mktemp("plugins"), "stubborn", source=SOURCE)


def options(database, plugin, how, *more):
    arguments = ["-d", database.conninfo, "-b", plugin]
    for option in (f"stubborn.how={how}", f"stubborn.good={GOOD}", "workers=1", f"batch.max_messages={COUNT}", *more):
        arguments += ["-o", option]
    return arguments


def test_rows_of_a_plugin_that_hangs_for_ever_are_free_in_time_and_a_stop_is_forced_in_time(database, stubborn):
    """It has no interrupt(). The server frees the rows at publish_timeout + 5 s; what was confirmed in the batch goes again, or was settled."""
    publish_timeout, shutdown_timeout, let_go = 1, 1, 3
    ids = database.fill(COUNT)
    running = Relay(*options(database, stubborn, "hang", f"publish_timeout={publish_timeout}s", f"shutdown_timeout={shutdown_timeout}s"))
    try:
        wait_until(lambda: database.idle_in_transaction_s() > 0.5, what="a claim that nobody settles")
        wait_until(lambda: database.open_transactions() == 0, publish_timeout + 5 + 2, "the end of the transaction at the server")
        done = relay("drain", "-q", "-b", "null", "-d", database.conninfo, timeout=30)
        assert done.returncode == 0 and database.left() == 0, "another process takes the rows"
        assert running.process.poll() is None
        began = time.monotonic()
        running.signal(signal.SIGTERM)
        assert running.wait(20) == 70, "a forced stop"
        assert time.monotonic() - began < shutdown_timeout + let_go + 2
    finally:
        running.kill()
        running.close()
    assert len(ids) == COUNT and not database.dead()


def test_a_plugin_that_crashes_takes_the_process_along_and_no_row(database, stubborn):
    """In its first batch, after some were confirmed: the transaction dies with it, and the next process finds every row."""
    ids = database.fill(COUNT)
    done = relay("drain", "-q", *options(database, stubborn, "crash"), env={"ASAN_OPTIONS": "handle_segv=0"}, timeout=30)
    assert done.returncode == -signal.SIGSEGV
    wait_until(lambda: database.open_transactions() == 0, 5, "the end of its transaction")
    assert database.ids_left() == ids
    assert relay("drain", "-q", "-b", "null", "-d", database.conninfo).returncode == 0
    assert database.left() == 0


def test_what_a_library_does_at_exit_neither_holds_a_drain_nor_changes_its_result(database, stubborn):
    database.fill(COUNT)
    began = time.monotonic()
    done = relay("drain", *options(database, stubborn, "stay", "stubborn.good=0"), timeout=60)
    assert done.returncode == 0 and f"drained {COUNT} in" in done.stderr and database.left() == 0, done.stderr
    assert done.stderr.endswith("a library of the backend still works at exit after 5 s; ended without it\n"), done.stderr
    assert time.monotonic() - began < 5 + 10


def test_a_plugin_that_ends_the_process_is_told_and_makes_no_success_of_it(database, stubborn):
    ids = database.fill(COUNT)
    done = relay("drain", "-q", *options(database, stubborn, "exit"), timeout=30)
    assert done.returncode == 70 and "the backend, or a library of it, ended the process by exit()" in done.stderr, done.stderr
    wait_until(lambda: database.open_transactions() == 0, 5, "the end of its transaction")
    assert database.ids_left() == ids


def test_an_option_that_is_not_declared_is_named(database, stubborn):
    database.fill(COUNT)
    done = relay("drain", "-q", *options(database, stubborn, "ask"), env={"ASAN_OPTIONS": "handle_abort=0"}, timeout=30)
    assert done.returncode == -signal.SIGABRT and "option 'undeclared' was asked for, which the table of stubborn does not have" in done.stderr, done.stderr


def test_a_plugin_that_settles_nothing_loses_nothing_counts_no_attempt_and_is_asked_without_a_hot_loop(database, stubborn, start):
    """OK with messages unsettled is a session that is LOST: the rows stay, the breaker opens."""
    ids = database.fill(COUNT)
    running = start(*options(database, stubborn, "unsettled", "breaker.open_max=1s", "breaker.failures=2"), "--log-format", "json")
    began = time.monotonic()
    wait_until(lambda: database.left() == COUNT - GOOD, what="deletion of what was confirmed")
    running.await_log("possible duplicates")
    running.await_log("breaker is open", 20)
    assert database.left() == COUNT - GOOD and len(database.ids_left() - ids) == 0
    assert database.value("SELECT count(*) FROM outbox.scheduled") == 0 and not database.dead()
    running.signal(signal.SIGUSR1)
    running.await_log('"msg":"state"')
    connects = int(running.log().rsplit('"backend_connects":', 1)[1].split("}")[0].split(",")[0])
    assert connects <= time.monotonic() - began + 2


def test_a_pause_without_an_end_is_one_of_a_day_and_the_channel_rests(database, stubborn, start):
    database.fill(COUNT)
    running = start(*options(database, stubborn, "pause"))
    running.await_log("on hold")
    held = wait_until(lambda: [hold for one in json.loads(relay("status", "--json", "-d", database.conninfo).stdout)["relays"] for hold in one["holds"]],
                      what="a hold in status")
    assert 86000 <= held[0]["next_try_in_s"] <= 86400 and database.left() == COUNT - GOOD
    batches = database.value("SELECT xact_commit FROM pg_stat_database WHERE datname = current_database()")
    time.sleep(2)  # nothing is to happen: there is no event
    more = database.value("SELECT xact_commit FROM pg_stat_database WHERE datname = current_database()") - batches
    assert more < 200, f"{more} transactions in 2 s"


def test_a_plugin_that_asks_for_a_moment_again_and_again_and_says_so_each_time_does_not_fill_the_log(database, stubborn, start):
    database.fill(COUNT)
    running = start(*options(database, stubborn, "chatter"))
    running.await_log("on hold")
    wait_until(lambda: running.log().count("another message") >= 60, what="what it may say")
    time.sleep(2)  # for as many lines as there would be
    assert running.log().count("another message") == 60 and running.log().count("on hold") == 1
    assert database.left() == COUNT - GOOD and not database.dead()
