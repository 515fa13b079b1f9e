"""What a drain waits for: rests, pauses and retries that end within drain.patience of its last progress; and messages too large to be loaded."""
import json
import os
import random
import re
import threading
import time

import pytest

from harness import http, relay, wait_until
from receiver import Answer
from webhooks import drain

SIZE = int(os.environ.get("TEST_HTTP_MESSAGES", "1000"))


def put_retry(database, due, channel="a"):
    return database.value("INSERT INTO outbox.scheduled (seq, id, kind, channel, type, headers, created_at, bytes, due_at)"
                          " VALUES (0, gen_random_uuid(), 'event', %s, 't', '{}', now(), 2, now() + %s::interval) RETURNING id::text", channel, due)


def timed(*arguments):
    began = time.monotonic()
    done = relay("drain", "-q", "--json", *arguments, timeout=60)
    return done, json.loads(done.stdout), time.monotonic() - began


def test_a_short_rest_is_waited_for(database, receiver):
    receiver.answer = lambda request: Answer(200) if len(receiver.requests) > 1 else Answer(503, headers={"Retry-After": "1"})
    database.fill(20)
    done, summary = drain(database, receiver.url, "drain.patience=10s", "workers=1", "http.max_in_flight=1")
    assert done.returncode == 0 and summary["published"] == 20, done.stdout


@pytest.mark.parametrize("due", ["1 s", "2 s"])
def test_a_retry_that_is_due_soon_is_waited_for(database, due):
    put_retry(database, due)
    database.fill(3)
    done, summary, _ = timed("-b", "null", "-d", database.conninfo, "-o", "drain.patience=10s")
    assert done.returncode == 0 and summary["published"] == 4 and summary["waiting"] == 0, done.stdout


def test_a_retry_that_is_due_later_is_not(database):
    put_retry(database, "1 h")
    done, summary, took = timed("-b", "null", "-d", database.conninfo, "-o", "drain.patience=10s")
    assert done.returncode == 1 and summary["waiting"] == 1 and took < 5, (took, done.stdout)


def test_a_pause_that_ends_soon_is_waited_for_and_one_without_an_end_is_not(database):
    database.fill(3, channel="a")
    assert relay("pause", "a", "--for", "2s", "-d", database.conninfo).returncode == 0
    done, summary, _ = timed("-b", "null", "-d", database.conninfo, "-o", "drain.patience=10s")
    assert done.returncode == 0 and summary["published"] == 3, done.stdout
    database.fill(3, channel="a")
    assert relay("pause", "a", "-d", database.conninfo).returncode == 0
    done, summary, took = timed("-b", "null", "-d", database.conninfo, "-o", "drain.patience=10s")
    assert done.returncode == 1 and summary["on_hold"] == 3 and took < 5, (took, done.stdout)


@pytest.mark.parametrize("channel", ["a", "its_own"])
def test_patience_is_for_what_was_there_and_not_for_what_producers_add(database, receiver, channel):
    """One message is never taken, and others come and go: a drain that waited for it with each of their confirms would never end."""
    receiver.answer = lambda request: Answer(503 if request.headers["outbox-type"] == "stubborn" else 200)
    database.fill(1, channel=channel, type_="stubborn")
    database.fill(20, channel="a")
    stop = threading.Event()

    def produce():
        connection = database.connect()
        with connection.cursor() as cursor:
            while not stop.wait(0.05):
                cursor.execute("SELECT outbox.publish('a', 't', '{}')")
        connection.close()

    producer = threading.Thread(target=produce)
    producer.start()
    try:
        began = time.monotonic()
        done, _ = drain(database, receiver.url, "drain.patience=2s", "breaker.open_min=200ms", "breaker.open_max=400ms", "retry.backoff_min=100ms",
                        "retry.backoff_max=300ms")
        assert done.returncode == 1 and time.monotonic() - began < 25, done.stderr
    finally:
        stop.set()
        producer.join()


def test_patience_has_an_end_where_nothing_is_confirmed(database, receiver):
    """Each rest is short, and there is always another."""
    receiver.answer = lambda request: Answer(503)
    database.fill(5)
    began = time.monotonic()
    done, summary = drain(database, receiver.url, "drain.patience=3s", "breaker.open_min=200ms", "breaker.open_max=400ms")
    assert done.returncode == 1 and summary["on_hold"] == 5 and summary["published"] == 0, done.stdout
    assert 1.5 <= time.monotonic() - began < 15, "rests that end in time, and no other"


def test_a_second_of_nothing_but_rest_is_no_other_process(database, receiver):
    """What rests is ours."""
    receiver.answer = lambda request: Answer(429, headers={"Retry-After": "3"}) if len(receiver.requests) == 1 else Answer(200)
    database.fill(5)
    done, _ = drain(database, receiver.url, "drain.patience=10s", "workers=2", "http.max_in_flight=1", "batch.max_messages=1")
    assert done.returncode == 0, done.stdout


def some_refuse(share, statuses):
    """A share of the answers are those, without Retry-After."""
    chance = random.Random(20261129)
    return lambda request: Answer(chance.choice(statuses) if chance.random() < share else 200)


def timed_drain(database, receiver, answer, *options):
    ids = database.fill(SIZE)
    receiver.answer = answer
    began = time.monotonic()
    done, summary = drain(database, receiver.url, *options, timeout=600)
    return ids, done, summary, time.monotonic() - began


def test_a_drain_among_a_few_refusals_ends_well_in_one_run(database, receiver):
    ids, done, _, without = timed_drain(database, receiver, lambda request: Answer(200))
    assert done.returncode == 0 and ids <= set(receiver.ids()), done.stderr
    ids, done, summary, among = timed_drain(database, receiver, some_refuse(0.05, [500, 502, 503, 504]), "drain.patience=10s")
    print(f"{SIZE} messages in {without:.1f} s, among 5 % of 500, 502, 503 and 504 in {among:.1f} s: {among / without:.2f} times")
    assert done.returncode == 0 and summary["published"] == SIZE and summary["dead_lettered"] == 0, done.stderr
    assert ids <= set(receiver.ids()) and database.left() + database.value("SELECT count(*) FROM outbox.scheduled") == 0


def test_a_channel_of_which_most_is_refused_rests_and_no_attempt_is_counted(database, receiver):
    ids, done, summary, _ = timed_drain(database, receiver, some_refuse(0.6, [503]), "drain.patience=3s", "retry.backoff_min=100ms", "retry.backoff_max=500ms")
    tried = database.value("SELECT coalesce(max(attempts), 0) FROM outbox.scheduled")
    assert tried == 0 and summary["dead_lettered"] == 0 and database.dead() == set(), (tried, done.stdout)
    assert re.search(r"on hold.*503", done.stderr), done.stderr
    assert ids & set(receiver.ids()) and (done.returncode == 0) == (database.left() + database.value("SELECT count(*) FROM outbox.scheduled") == 0)


# ---- too large ----


def peak_kb(running):
    with open(f"/proc/{running.pid}/status", encoding="ascii") as lines:
        return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM"))


@pytest.mark.parametrize("mode", ["none", "key"])
def test_a_message_beyond_the_bound_becomes_a_dead_letter_without_being_loaded(database, receiver, start, mode):
    assert relay("migrate", "-d", database.conninfo, "--order", mode).returncode == 0
    running = start("-d", database.conninfo, *http(receiver.url, "order=" + mode, "batch.max_message_bytes=10MiB", "workers=1"))
    first = database.fill(50)
    wait_until(lambda: database.left() == 0, what="an empty outbox")
    before = peak_kb(running)
    giants = [database.value("INSERT INTO outbox.message (channel, type, key, payload_bytes) VALUES ('a', 't', %s, repeat('x', 150 << 20)::bytea) RETURNING id::text", key)
              for key in ("k", None)]
    good = database.fill(50)
    wait_until(lambda: good <= set(receiver.ids()) and database.dead() == set(giants), 60, "the giants' burial, and what stood behind them")
    assert database.run("SELECT DISTINCT reason, last_error FROM outbox.dead_letter") == [
        ("rejected", "it has 157286402 bytes, batch.max_message_bytes allows 10485760")]
    assert peak_kb(running) - before < 100 << 10, "150 MiB are not loaded"
    assert set(receiver.ids()) == first | good


@pytest.mark.parametrize("backend", ["cloudevent", "stdout"])
def test_json_of_millions_of_values_takes_no_more_memory_than_its_text(database, receiver, start, backend):
    options = http(receiver.url, "workers=1", "http.cloudevents=structured") if backend == "cloudevent" else ("-b", "stdout", "-o", "workers=1")
    running = start("-d", database.conninfo, *options, prefix=("sh", "-c", 'exec "$@" > /dev/null', "sh"))
    small = database.value("SELECT outbox.publish('a', 't', '[{}]')::text")
    wait_until(lambda: database.left() == 0, what="an empty outbox")
    before = peak_kb(running)
    large = database.value("SELECT outbox.publish('a', 't', ('[{}' || repeat(',{}', 5000000) || ']')::json)::text")
    wait_until(lambda: database.left() == 0, what="an empty outbox")
    grown = peak_kb(running) - before
    print(f"{grown >> 10} MiB for 15 MB")
    assert grown < 120 << 10 and database.dead() == set()
    if backend == "cloudevent":
        assert receiver.ids() == [small, large] and b'"data":[{},{},' in receiver.requests[1].body[:1000]


def test_a_retry_beyond_the_bound_is_not_loaded_either_and_explain_says_so(database):
    identity = database.value("SELECT outbox.publish_bytes('a', 't', repeat('x', 3 << 20)::bytea)::text")
    said = relay("explain", "--id", identity, "-b", "null", "-d", database.conninfo, "-o", "batch.max_message_bytes=1MiB")
    assert said.returncode == 0 and "batch.max_message_bytes allows 1048576" in said.stdout, said.stdout
    database.run("WITH gone AS (DELETE FROM outbox.message RETURNING *) INSERT INTO outbox.scheduled (seq, id, kind, channel, type, headers, payload_bytes,"
                 " created_at, bytes, due_at) SELECT seq, id, kind, channel, type, headers, payload_bytes, created_at, bytes, now() FROM gone")
    done = relay("drain", "-q", "-b", "null", "-d", database.conninfo, "-o", "batch.max_message_bytes=1MiB")
    assert done.returncode == 1 and database.dead() == {identity}
