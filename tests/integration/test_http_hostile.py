"""Receivers that confuse the http backend: answers nobody asked for, errors here and there, answers that come too late for a message's life."""
import random
import ssl
import threading
import time

import pytest

from harness import PATIENCE, http, relay, wait_until
from receiver import Answer, Receiver, hang_up
from webhooks import CA, TLS, dead_letters, drain, holds


def tls_receiver():
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(f"{TLS}/server.pem", f"{TLS}/server.key")
    return Receiver(tls=context)


@pytest.fixture(params=["http", "https"])
def kept_open(request, receiver):
    """A receiver that keeps its connections, in plain text and by TLS."""
    if request.param == "http":
        yield receiver
    else:
        made = tls_receiver()
        yield made
        made.close()


def everywhere(database):
    return database.left() + database.value("SELECT count(*) FROM outbox.scheduled")


# ---- answers that nobody asked for ----


def test_a_second_answer_to_one_request_is_not_taken_for_the_answer_to_the_next(database, kept_open, start):
    """It waits on the connection when the next message is due, and says 200 where that message is told 500."""
    twice = Answer(200, again=0.05)
    kept_open.answer = lambda request: twice if len(kept_open.requests) == 1 else Answer(500)
    start("-d", database.conninfo, *http(kept_open.url, CA, "workers=1", "http.max_in_flight=1", "breaker.open_max=1s"))
    database.fill(1)
    wait_until(lambda: database.left() == 0, what="the first message's end")
    assert twice.said_again.wait(10)
    ids = database.fill(1)
    wait_until(lambda: len(kept_open.requests) >= 3, what="the second message, told 500 twice")
    assert everywhere(database) == 1 and dead_letters(database) == 0
    kept_open.answer = lambda request: Answer(200)
    wait_until(lambda: everywhere(database) == 0, PATIENCE, "the second message's end")
    assert set(kept_open.ids()[1:]) == ids
    assert kept_open.requests[0].connection != kept_open.requests[1].connection, "that connection is given up"


def test_two_answers_in_one_breath_confirm_one_message(database, kept_open):
    """Within a batch: the next request is about to go out on the same connection."""
    kept_open.answer = lambda request: Answer(200, again=0) if len(kept_open.requests) == 1 else Answer(500)
    database.fill(2)
    done, summary = drain(database, kept_open.url, CA, "workers=1", "http.max_in_flight=1", "retry.backoff_min=1m")
    assert done.returncode == 1 and summary["published"] == 1, done.stderr
    assert everywhere(database) == 1 and len(set(kept_open.ids())) == 2


def test_a_receiver_that_closes_between_two_requests_gets_both(database, receiver):
    """An end on an idle connection is no answer: the next request goes on a new one."""
    receiver.answer = lambda request: Answer(200, close=True)
    ids = database.fill(20)
    done, summary = drain(database, receiver.url, "workers=1", "http.max_in_flight=1", "retry.backoff_min=10ms", "drain.patience=5s")
    assert done.returncode == 0 and summary["published"] == 20, done.stderr
    assert set(receiver.ids()) == ids


# ---- errors here and there ----


def failing(rate, statuses, seed=7):
    """Answers with one of the statuses at that rate, else 200."""
    dice = random.Random(seed)
    lock = threading.Lock()

    def answer(_request):
        with lock:
            return Answer(dice.choice(statuses) if dice.random() < rate else 200)

    return answer


@pytest.mark.parametrize("mode", ["none", "key"])
def test_three_answers_of_a_hundred_that_say_503_cost_their_messages_a_retry_and_not_the_channel_a_rest(database, receiver, mode):
    assert relay("migrate", "-d", database.conninfo, "--order", mode).returncode == 0
    receiver.answer = failing(0.03, [503])
    ids = database.fill(2000)
    done, summary = drain(database, receiver.url, "order=" + mode, "drain.patience=10s", "retry.backoff_min=100ms")
    assert done.returncode == 0 and summary["published"] == 2000 and summary["dead_lettered"] == 0, done.stdout
    assert set(receiver.ids()) == ids and everywhere(database) == 0
    assert mode == "key" or "on hold" not in done.stderr, "nothing rested: no batch is so small that a few are most of it"


def test_a_twentieth_of_any_5xx_ends_in_one_drain_and_kills_nothing(database, receiver):
    receiver.answer = failing(0.05, [500, 502, 503, 504])
    ids = database.fill(2000)
    done, summary = drain(database, receiver.url, "drain.patience=10s", "retry.backoff_min=100ms")
    assert done.returncode == 0 and summary["published"] == 2000 and summary["dead_lettered"] == 0, done.stdout
    assert set(receiver.ids()) == ids


def test_where_most_answers_are_503_the_channel_rests_and_no_attempt_is_counted(database, receiver, start):
    receiver.answer = failing(0.6, [503])
    database.fill(1000, channel="busy")
    running = start("-d", database.conninfo, *http(receiver.url, "workers=1"))
    running.await_log("on hold")
    assert "answered 503" in wait_until(lambda: holds(database).get("busy"), what="a hold in status")
    wait_until(lambda: database.left() < 900, what="some of them, between rests")
    assert database.value("SELECT coalesce(max(attempts), 0) FROM outbox.scheduled") == 0 and dead_letters(database) == 0


@pytest.mark.parametrize("rest", [0, 1])
def test_a_wall_is_not_run_against_by_the_whole_batch(database, receiver, rest):
    """Nor after it has worked for a while: the last answers count, not all of them."""
    receiver.answer = lambda request: Answer(200 if len(receiver.requests) <= 200 * rest else 503)
    database.fill(500)
    done, summary = drain(database, receiver.url, "workers=1", "http.max_in_flight=4")
    assert done.returncode == 1 and len(receiver.requests) <= 200 * rest + 20, done.stdout
    assert everywhere(database) == 500 - summary["published"] and dead_letters(database) == 0


def test_a_500_is_the_messages_own_matter_while_others_are_taken_and_dies_after_its_attempts(database, receiver):
    """503 would be the destination's."""
    bad = {"bad"}
    receiver.answer = lambda request: Answer(500 if request.headers.get("outbox-key") in bad else 200)
    database.run("SELECT outbox.publish('a', 't', '{}', key => 'bad')")
    database.fill(50, channel="a")
    for _ in range(20):  # an attempt counts where another message was taken since the last one
        drain(database, receiver.url, "retry.max_attempts=3", "retry.backoff_min=50ms", "retry.backoff_max=50ms", "drain.patience=1s")
        if dead_letters(database):
            break
        database.fill(5, channel="a")
    assert database.run("SELECT reason, attempts FROM outbox.dead_letter") == [("attempts", 3)]


# ---- a message's life ----


def test_nothing_is_sent_after_it_has_expired_however_long_the_batch_takes(database, receiver):
    """A keyed head that gets no answer keeps its followers, each in a wave of its own, beyond their time."""
    assert relay("migrate", "-d", database.conninfo, "--order", "key").returncode == 0
    receiver.answer = lambda request: time.sleep(2) or Answer(200)
    database.run("INSERT INTO outbox.message (channel, type, key, expires_at) SELECT 'a', 't', 'k', clock_timestamp() + interval '6 s'"
                 " FROM generate_series(1, 8)")
    put = time.monotonic()
    done, summary = drain(database, receiver.url, "order=key", "workers=1", "publish_timeout=20s")
    assert done.returncode == 1 and summary["published"] + summary["dead_lettered"] == 8, done.stdout
    assert {row[0] for row in database.run("SELECT reason FROM outbox.dead_letter")} == {"expired"}
    late = [request.at - put for request in receiver.requests if request.at - put > 6]
    assert not late, f"sent so many seconds after it was put: {late}"
    assert 1 <= len(receiver.requests) <= 4


def test_nothing_is_sent_after_it_has_expired_while_others_keep_all_connections_busy(database, receiver):
    receiver.answer = lambda request: time.sleep(0.5) or Answer(200)
    database.run("INSERT INTO outbox.message (channel, type, expires_at) SELECT 'a', 't', clock_timestamp() + interval '1200 ms' FROM generate_series(1, 20)")
    put = time.monotonic()
    done, summary = drain(database, receiver.url, "workers=1", "http.max_in_flight=2", "publish_timeout=20s")
    assert done.returncode == 1 and summary["published"] + summary["dead_lettered"] == 20, done.stdout
    assert all(request.at - put < 1.3 for request in receiver.requests) and len(receiver.requests) < 10
    assert {row[0] for row in database.run("SELECT reason FROM outbox.dead_letter")} == {"expired"}


@pytest.mark.parametrize("mode", ["none", "key"])
def test_a_retry_that_expires_is_buried_then_and_its_key_goes_on(database, receiver, start, mode):
    assert relay("migrate", "-d", database.conninfo, "--order", mode).returncode == 0
    receiver.answer = lambda request: Answer(500 if request.headers.get("outbox-type") == "bad" else 200)
    running = start("-d", database.conninfo, *http(receiver.url, "order=" + mode, "retry.backoff_min=9m", "retry.backoff_max=9m"))
    database.fill(30, channel="a")  # evidence, so that the refusal counts
    bad = database.value("SELECT outbox.publish('a', 'bad', '{}', key => 'k', ttl => '3 s')::text")
    wait_until(lambda: database.value("SELECT count(*) FROM outbox.scheduled WHERE id = %s", bad) == 1, what="its retry")
    follower = database.value("SELECT outbox.publish('a', 'good', '{}', key => 'k')::text")
    wait_until(lambda: bad in database.dead(), 20, "its burial, long before its next try")
    wait_until(lambda: follower in receiver.ids(), 20, "what stood behind it")
    assert database.value("SELECT reason FROM outbox.dead_letter") == "expired" and running.process.poll() is None
    assert receiver.ids().count(bad) == 1


def test_what_hangs_up_without_a_word_is_no_early_answer(database, receiver):
    receiver.answer = lambda request: Answer(raw=hang_up)
    database.fill(2)
    done, summary = drain(database, receiver.url, "workers=1")
    assert done.returncode == 1 and summary["published"] == 0 and "before it was asked" not in done.stderr, done.stderr
