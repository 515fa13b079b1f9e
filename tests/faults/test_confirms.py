"""Confirm games that RabbitMQ never plays: rows go or stay exactly as their tags were answered.

The oracle is what the scripted broker noted: a row may be gone only if the broker took responsibility for one of its deliveries.
"""
import json
import random
import signal
import threading
import time

import pytest

from accounting import Accounting
from harness import amqp, relay, wait_until

COUNT = 20
PUBLISH_TIMEOUT = 1


def options(broker, *more):
    return amqp("amqp.exchange=orders", "workers=1", f"batch.max_messages={COUNT}", f"publish_timeout={PUBLISH_TIMEOUT}s", "amqp.heartbeat=5s",
                *more, url=broker.url)


def drain(database, broker, *more):
    done = relay("drain", "-q", "--json", "-d", database.conninfo, "-o", "drain.unavailable_after=5s", *options(broker, *more), timeout=60)
    return done, json.loads(done.stdout)


def kept(database):
    """Ids in all the tables where a row may be."""
    return {row[0] for row in database.run("SELECT id::text FROM outbox.message UNION ALL SELECT id::text FROM outbox.scheduled"
                                           " UNION ALL SELECT id::text FROM outbox.dead_letter")}


def assert_taken(database, broker, ids):
    wrong = ids - kept(database) - broker.accepted()
    assert not wrong, f"rows were deleted that the broker never took: {[m for m in broker.received if m.id in wrong][:3]}"


def account(database, broker, ids, bound):
    assert_taken(database, broker, ids)
    return Accounting(ids - database.ids_left(), broker.deliveries(), attempted=ids, bound=bound)


def once_then_ack(game):
    """The first connection's first COUNT messages are a game that is played when the last of them is there; afterwards all is acked."""
    def on_message(session, message):
        if session.number > 1 or message.tag > COUNT:
            session.ack(message.tag)
        elif message.tag == COUNT:
            game(session)

    return on_message


# ---- answers that are allowed, and only unusual ----


@pytest.mark.parametrize("game", [
    lambda s: [s.ack(tag) for tag in range(COUNT, 0, -1)],
    lambda s: s.ack(COUNT, multiple=True),
    lambda s: s.ack(0, multiple=True),
    lambda s: [s.ack(7), s.ack(3), s.ack(10, multiple=True), s.ack(COUNT), s.ack(COUNT - 1, multiple=True)],
    lambda s: [s.ack(tag) for tag in range(1, COUNT + 1) for _ in range(2)],
    lambda s: [s.ack(5), s.ack(5, multiple=True), s.ack(5), s.ack(COUNT, multiple=True), s.ack(COUNT, multiple=True), s.ack(1)],
], ids=["reversed", "multiple", "multiple of tag zero", "out of order and multiple", "each twice", "again and again"])
def test_acks_in_any_order_and_number_delete_every_row_once(database, scripted, game):
    """A bug that takes a repeated ack for the next one's would delete a row early; one that wants order would wait for ever."""
    broker = scripted(once_then_ack(game))
    ids = database.fill(COUNT)
    done, summary = drain(database, broker, "publish_timeout=10s")
    assert done.returncode == 0 and summary["possible_duplicates"] == 0, done.stderr
    assert len(broker.connects) == 1
    account(database, broker, ids, bound=0).check()


# ---- answers that are missing ----


def test_an_ack_that_never_comes_keeps_exactly_its_row_and_the_row_goes_again(database, scripted):
    missing = 7
    broker = scripted(once_then_ack(lambda s: [s.ack(tag) for tag in range(1, COUNT + 1) if tag != missing]))
    ids = database.fill(COUNT)
    done, summary = drain(database, broker)
    assert done.returncode == 0, done.stderr
    twice = [message.id for message in broker.received if message.count == 2]
    assert twice == [broker.received[missing - 1].id], "that one again, and no other"
    assert "1 messages were not confirmed within publish_timeout" in done.stderr and summary["possible_duplicates"] == 1
    account(database, broker, ids, bound=1).check()


def test_acks_beyond_the_deadline_count_for_nothing(database, scripted):
    """They come when the session is gone: the rows go again, at most once more, and none is lost or counted as an attempt."""
    late = []

    def ack_late(session):
        wait_until(lambda: len(broker.connects) > 1, what="the next session")
        session.ack(COUNT, multiple=True)

    def game(session):
        late.append(threading.Thread(target=ack_late, args=(session,)))
        late[0].start()

    broker = scripted(once_then_ack(game))
    ids = database.fill(COUNT)
    done, summary = drain(database, broker)
    late[0].join()
    assert done.returncode == 0 and summary["possible_duplicates"] == COUNT, done.stderr
    assert summary["dead_lettered"] == summary["retried"] == 0
    account(database, broker, ids, bound=COUNT).check()


def test_a_broker_that_falls_silent_in_mid_batch_holds_a_transaction_no_longer_than_publish_timeout(database, scripted, start):
    def on_message(session, message):
        session.ack(message.tag)
        session.silent = session.silent or (session.number == 1 and message.tag == 8)

    broker = scripted(on_message)
    ids = database.fill(COUNT)
    start("-d", database.conninfo, *options(broker))
    wait_until(lambda: broker.sessions and broker.sessions[0].silent, what="silence")
    silent = time.monotonic()
    wait_until(lambda: database.left() == COUNT - 8, PUBLISH_TIMEOUT + 2, "deletion of what was acked before")
    wait_until(lambda: database.open_transactions() == 0 or database.left() < COUNT - 8, PUBLISH_TIMEOUT + 2, "the end of the transaction")
    assert time.monotonic() - silent < PUBLISH_TIMEOUT + 2
    wait_until(lambda: database.left() == 0, what="an empty outbox")
    account(database, broker, ids, bound=COUNT - 8).check()
    assert broker.sessions[0].messages[-1].tag == COUNT and not [m for m in broker.received[:8] if broker.counts[m.id] > 1]


# ---- refusals ----


@pytest.mark.parametrize("game, tags", [
    (lambda s: [s.nack(tag) if tag == 9 else s.ack(tag) for tag in range(1, COUNT + 1)], {9}),
    (lambda s: [s.nack(5, multiple=True), s.ack(COUNT, multiple=True)], {1, 2, 3, 4, 5}),
    (lambda s: [s.ack(3), s.nack(5, multiple=True), s.ack(COUNT, multiple=True)], {1, 2, 4, 5}),
    (lambda s: [s.nack(9), s.ack(9), s.ack(COUNT, multiple=True)], {9}),
    (lambda s: [s.ack(9), s.nack(9), s.ack(COUNT, multiple=True)], set()),
], ids=["one", "multiple", "multiple behind an ack", "nack, then ack", "ack, then nack"])
def test_a_nack_keeps_exactly_its_rows(database, scripted, game, tags):
    """Few of them wait on their own, in outbox.scheduled; where they are half of the batch or more, their channel rests."""
    broker = scripted(once_then_ack(game))
    ids = database.fill(COUNT)
    done, summary = drain(database, broker, "breaker.open_min=60s", "publish_timeout=10s", "retry.backoff_min=60s")
    kept_ids = {broker.received[tag - 1].id for tag in tags}
    few = 2 * len(tags) < COUNT
    assert done.returncode == (1 if tags else 0) and summary["waiting" if few else "on_hold"] == len(tags), done.stderr
    assert kept(database) == kept_ids and summary["dead_lettered"] == 0
    assert database.value("SELECT count(*) FROM outbox.scheduled WHERE attempts = 0") == (len(tags) if few else 0), "no attempt is counted"
    account(database, broker, ids, bound=0).check()


@pytest.mark.parametrize("game, tags", [
    (lambda s: [s.return_(s.messages[8]), s.ack(COUNT, multiple=True)], {9}),
    (lambda s: [s.return_(s.messages[8]), s.return_(s.messages[2]), s.ack(9), s.ack(COUNT, multiple=True)], {3, 9}),
    (lambda s: [s.return_(s.messages[8]), s.return_(s.messages[8]), s.ack(COUNT, multiple=True)], {9}),
    (lambda s: [s.return_(s.messages[at]) for at in range(COUNT)] + [s.ack(COUNT, multiple=True)], set(range(1, COUNT + 1))),
    (lambda s: [s.return_(s.messages[8], {"outbox-seq": 4711}), s.ack(COUNT, multiple=True)], set()),
], ids=["one", "two, in another order than sent", "one twice", "all", "one that nobody sent"])
def test_the_ack_of_a_returned_message_keeps_exactly_its_row(database, scripted, game, tags):
    """With amqp.unroutable=fail; a return whose outbox-seq belongs to no row in flight changes nothing."""
    broker = scripted(once_then_ack(game))
    ids = database.fill(COUNT)
    done, _ = drain(database, broker, "breaker.open_min=60s", "retry.backoff_min=60s", "publish_timeout=10s")
    kept_ids = {broker.received[tag - 1].id for tag in tags}
    assert done.returncode == (1 if tags else 0), done.stderr
    assert kept(database) == kept_ids and not database.dead()
    account(database, broker, ids, bound=0).check()


def test_a_return_in_many_frames_with_heartbeats_in_between_is_understood(database, scripted):
    """Legal, and what a naive reader takes for the end of the content, or for content of something else."""
    def on_message(session, message):
        send = session.send
        session.send = lambda kind, channel, payload: (send(kind, channel, payload), send(8, 0, b"") if kind != 1 else None)
        if message.tag == 2:
            session.return_(message)
        session.ack(message.tag)

    broker = scripted(on_message)
    ids = database.fill(3, size=400000)
    done, _ = drain(database, broker, "breaker.open_min=60s", "retry.backoff_min=60s", "publish_timeout=10s")
    assert done.returncode == 1, done.stderr
    assert kept(database) == {broker.received[1].id} and not database.dead()
    assert "unroutable: 312 NO_ROUTE" in database.value("SELECT last_error FROM outbox.scheduled")
    account(database, broker, ids, bound=0).check()


def test_a_declaration_that_is_never_answered_sends_nothing_and_keeps_every_row(database, scripted):
    """As in an alarm: RabbitMQ stops reading before it looks at the exchange."""
    broker = scripted(on_declare=lambda session, exchange: False)
    ids = database.fill(COUNT)
    done, summary = drain(database, broker, "drain.unavailable_after=2s", "publish_timeout=300ms")
    assert done.returncode in (1, 69) and summary["published"] == summary["dead_lettered"] == 0, done.stderr
    assert not broker.received and database.ids_left() == ids


# ---- answers that make no sense: whatever was in doubt stays ----


@pytest.mark.parametrize("game, text", [
    (lambda s: s.ack(COUNT + 1), "delivery tag 21, which was never used"),
    (lambda s: s.ack(0), "delivery tag 0, which was never used"),
    (lambda s: [s.return_(s.messages[8], {"other": 1}), s.ack(COUNT, multiple=True)], "returned a message without its header outbox-seq"),
    (lambda s: s.send(2, 1, s.messages[0].header), "content that does not belong to a return"),
], ids=["tag never used", "tag zero, single", "return without a seq", "stray content"])
def test_an_answer_that_makes_no_sense_ends_the_session_and_every_unanswered_row_stays(database, scripted, game, text):
    """Whatever the relay made of it, it must not delete: everything goes again, and again only once."""
    broker = scripted(once_then_ack(game))
    ids = database.fill(COUNT)
    done, summary = drain(database, broker, "publish_timeout=10s")
    assert done.returncode == 0 and text in done.stderr, done.stderr
    assert all(broker.counts[identity] == 2 for identity in ids), "none was answered, so all must go again, once"
    assert summary["possible_duplicates"] == COUNT and summary["dead_lettered"] == 0
    account(database, broker, ids, bound=COUNT).check()


def test_confirms_on_another_channel_are_no_confirms_of_ours(database, scripted):
    """Tags count per channel: an ack on the one that only declares exchanges says nothing about a message."""
    broker = scripted(once_then_ack(lambda s: s.ack(COUNT, multiple=True, channel=2)))
    ids = database.fill(COUNT)
    done, _ = drain(database, broker)
    assert done.returncode == 0, done.stderr
    account(database, broker, ids, bound=COUNT).check()


# ---- ends in mid-batch ----


@pytest.mark.parametrize("end", [
    lambda s: s.close_channel(406, "PRECONDITION_FAILED - not this one"),
    lambda s: s.close_channel(404, "NOT_FOUND - no exchange 'poison' in vhost '/'"),
], ids=["406 closes the channel", "404 closes the channel"])
def test_an_end_over_one_message_spares_its_neighbours_and_finds_it(database, scripted, end):
    """Every time message 9 comes, the broker ends. Its neighbours go at most twice, it is not lost, and nothing livelocks."""
    ids = database.fill(8)
    (poison,) = database.fill(1, channel="poison")
    ids |= database.fill(COUNT - 9)

    def on_message(session, message):
        if message.id == poison:
            end(session)
        elif message.tag < 5 or session.number > 1:
            session.ack(message.tag)

    broker = scripted(on_message)
    done, _ = drain(database, broker, "retry.max_attempts=3", "retry.backoff_min=100ms", "retry.backoff_max=200ms", "breaker.open_max=1s")
    assert done.returncode == 1, done.stderr
    assert kept(database) == {poison} and broker.accepted() == ids
    assert max(broker.counts[identity] for identity in ids) <= 2
    print(f"the poison was sent {broker.counts[poison]} times")
    assert broker.counts[poison] <= 8, "once in company, then alone, once per connection"


# ---- alarms ----


def test_a_broker_that_blocks_before_the_start_gets_no_message_and_no_transaction_waits(database, scripted, start):
    broker = scripted(on_ready=lambda session: session.block())
    ids = database.fill(COUNT)
    running = start("-d", database.conninfo, *options(broker, "breaker.open_max=1s"))
    running.await_log("the broker blocks publishers: low on memory")
    until = time.monotonic() + 2
    while time.monotonic() < until:
        assert database.idle_in_transaction_s() < 0.5
        time.sleep(0.05)
    assert not broker.received and database.ids_left() == ids
    assert len(broker.connects) == 1, "blocked is not lost"
    running.signal(signal.SIGTERM)
    assert running.wait(10) == 0, "nothing is in flight, so there is nothing to wait for"


def test_a_block_in_mid_batch_ends_the_transaction_in_time_and_sends_on_by_itself_when_it_is_over(database, scripted, start):
    """The session stays; what was not confirmed goes again, and answers that come late count for nothing."""
    def on_message(session, message):
        if message.tag <= 5 or message.tag > COUNT:
            session.ack(message.tag)
        elif message.tag == COUNT:
            session.block()

    broker = scripted(on_message)
    ids = database.fill(COUNT)
    running = start("-d", database.conninfo, *options(broker, "breaker.open_max=1s"))
    running.await_log("the broker blocks publishers: low on memory")
    running.await_log("possible duplicates", PUBLISH_TIMEOUT + 2)
    wait_until(lambda: database.left() == COUNT - 5, what="deletion of what was confirmed")
    wait_until(lambda: database.open_transactions() == 0, 5, "the end of the transaction")
    broker.sessions[0].ack(COUNT, multiple=True)  # late
    broker.sessions[0].unblock()
    wait_until(lambda: database.left() == 0, 15, "an empty outbox: it resumes by itself")
    assert len(broker.connects) == 1, "blocked is not lost"
    account(database, broker, ids, bound=COUNT - 5).check()
    assert not database.dead()


def test_a_publish_that_hangs_in_a_full_socket_is_interrupted_at_its_deadline(database, scripted, start):
    """The broker stops reading and says nothing, and the next message is larger than all buffers: librabbitmq's publish has no timeout
    (reliability.md F1), so another thread must end it."""
    def on_message(session, message):
        session.ack(message.tag)
        if session.number == 1 and message.tag == 5:
            session.reading.clear()

    broker = scripted(on_message)
    ids = database.fill(5) | database.fill(1, size=24 << 20) | database.fill(COUNT - 6)
    timeout = 5
    running = start("-d", database.conninfo, *options(broker, "batch.max_bytes=64MiB", "breaker.open_max=1s", f"publish_timeout={timeout}s"))
    wait_until(lambda: broker.sessions and not broker.sessions[0].reading.is_set(), what="the end of reading")
    running.await_log("possible duplicates", timeout + 0.5 + 2)
    wait_until(lambda: database.left() == 0, what="an empty outbox")  # the acks that nobody read while it hung do not count
    account(database, broker, ids, bound=COUNT - 5).check()


def test_a_stop_while_the_broker_blocks_in_mid_batch_ends_in_time_and_keeps_what_was_not_confirmed(database, scripted, start):
    """It stops reading, as RabbitMQ in an alarm: with large messages the publish blocks in the socket until it is interrupted."""
    shutdown_timeout, answers = 2, 5

    def on_message(session, message):
        if message.tag <= answers:
            session.ack(message.tag)
        if message.tag == answers:
            session.block()

    broker = scripted(on_message)
    ids = database.fill(COUNT, size=1 << 20)
    running = start("-d", database.conninfo, "-o", f"shutdown_timeout={shutdown_timeout}s",
                    *options(broker, "batch.max_bytes=64MiB"), "-o", "publish_timeout=30s")
    wait_until(lambda: broker.sessions and not broker.sessions[0].reading.is_set(), what="the block")
    running.signal(signal.SIGTERM)
    began = time.monotonic()
    code = running.wait(30)
    seconds = time.monotonic() - began
    print(f"exit {code} after {seconds:.1f} s")
    assert code == 0 and seconds < shutdown_timeout, "what the broker does not read is given up after half a second"
    wait_until(lambda: database.open_transactions() == 0, 5, "the end of the transaction")
    assert ids - database.ids_left() <= broker.accepted() and database.left() >= COUNT - answers


# ---- everything at once ----


def test_a_broker_that_plays_at_random_never_makes_a_row_disappear(database, scripted, start):
    """Seeded; acks, nacks, returns, repeats, multiples, dropped and early answers, ends of any kind. Finds what no single game does."""
    chance = random.Random(20261126)
    calm = threading.Event()

    def on_message(session, message):
        open_tags = [m.tag for m in session.messages if not m.acked and not m.nacked]
        dice = 1.0 if calm.is_set() else chance.random()
        if dice < 0.04:
            session.nack(message.tag)
        elif dice < 0.08:
            session.return_(message)
            session.ack(message.tag)
        elif dice < 0.11:
            chance.choice([lambda: session.close_channel(406, "at random"), session.cut, lambda: session.close_connection(320, "at random")])()
        elif dice < 0.12:
            session.ack(message.tag + chance.randrange(1, 5))
        elif dice < 0.13:
            pass  # dropped
        elif dice < 0.4:
            session.ack(chance.choice(open_tags or [message.tag]))
            session.ack(message.tag)
        else:
            session.ack(message.tag, multiple=dice < 0.6 or calm.is_set())

    broker = scripted(on_message)
    ids = database.fill(400)
    start("-d", database.conninfo, *options(broker, "workers=4", "publish_timeout=300ms", "retry.max_attempts=0", "retry.backoff_min=100ms",
                                            "retry.backoff_max=200ms", "breaker.open_min=100ms", "breaker.open_max=500ms", "breaker.failures=20"))
    until = time.monotonic() + 5
    while time.monotonic() < until and database.left() > 0:
        assert_taken(database, broker, ids)
        time.sleep(0.1)
    calm.set()
    wait_until(lambda: database.left() + database.value("SELECT count(*) FROM outbox.scheduled") == 0, 30, "an empty outbox")
    print(f"{len(broker.connects)} connections")
    account(database, broker, ids, bound=20 * len(broker.connects)).check()


def test_a_channel_on_which_refusals_last_is_opened_anew_and_no_connection_is_lost(database, scripted, start):
    """RabbitMQ 3.10 nacks for ever on a channel that was opened while its quorum queue had no leader; only another channel helps."""
    def on_message(session, message):
        (session.ack if session.channels > 1 else session.nack)(message.tag)

    broker = scripted(on_message)
    ids = database.fill(100)
    start("-d", database.conninfo, *amqp("workers=1", "retry.backoff_min=100ms", "retry.backoff_max=200ms", url=broker.url))
    wait_until(lambda: database.left() == 0, 20, "an empty outbox")
    assert {message.id for message in broker.received if message.acked} == ids
    assert len(broker.connects) == 1 and broker.sessions[0].channels == 2
    assert all(message.acked != message.nacked for message in broker.received)
    assert database.value("SELECT (SELECT count(*) FROM outbox.scheduled) + (SELECT count(*) FROM outbox.dead_letter)") == 0


def test_refusals_that_last_on_a_channel_with_open_answers_end_its_connection(database, scripted, start):
    """A late ack of the old channel must not be taken for one of the new channel, whose tags count from 1 again."""
    def on_message(session, message):
        if session.number > 1:
            session.ack(message.tag)
        elif message.tag > COUNT:
            session.nack(message.tag)
        elif message.tag == COUNT:
            session.block()

    broker = scripted(on_message)
    ids = database.fill(COUNT)
    running = start("-d", database.conninfo, *options(broker, "breaker.open_max=1s", "retry.backoff_min=100ms", "retry.backoff_max=200ms"))
    running.await_log("possible duplicates", PUBLISH_TIMEOUT + 5)
    broker.sessions[0].unblock()
    wait_until(lambda: database.left() == 0, 20, "an empty outbox")
    assert broker.sessions[0].channels == 1 and len(broker.connects) == 2
    assert running.log().count("possible duplicates") == 1, "of the block; at the end of the connection nothing had been sent"
    assert {message.id for message in broker.received if message.acked} == ids
    assert database.value("SELECT (SELECT count(*) FROM outbox.scheduled) + (SELECT count(*) FROM outbox.dead_letter)") == 0


def test_a_broker_that_takes_logins_and_answers_for_nothing_is_left_for_the_next(database, scripted, start):
    """As a node does that is cut off from its cluster, and that nothing pauses (RabbitMQ 4.3)."""
    silent, good = scripted(lambda session, message: None), scripted(lambda session, message: session.ack(message.tag))
    ids = database.fill(COUNT)
    start("-d", database.conninfo, *amqp("amqp.exchange=orders", "workers=1", f"batch.max_messages={COUNT}", f"publish_timeout={PUBLISH_TIMEOUT}s",
                                         "breaker.open_min=50ms", "breaker.open_max=1s", url=f"{silent.url},{good.url}"))
    wait_until(lambda: database.left() == 0, what="an empty outbox")
    assert silent.connects, "the first one has its turn first"
    account(database, good, ids, bound=COUNT).check()
    assert not database.dead()
