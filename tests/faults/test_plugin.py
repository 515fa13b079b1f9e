"""A plugin fails: it hangs and cannot be interrupted, crashes, or says OK and settles nothing. Only what it confirmed is gone."""
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
