"""A message at which the broker ends the session every time: it is found, set aside, and its neighbours are spared."""
import collections
import re
import threading
import time

import pytest

from accounting import Accounting
from harness import PATIENCE, relay, wait_until
from scripted_broker import ScriptedBroker

NEIGHBOURS = {1: 1500, 4: 10000}  # by workers
TIMES = 3  # a neighbour may arrive at most so often


class Feeder(threading.Thread):
    """Keeps good messages coming until it is told to stop."""

    def __init__(self, database):
        super().__init__(daemon=True)
        self.database, self.ids, self.enough = database, set(), threading.Event()
        self.start()

    def run(self):
        connection = self.database.connect()
        with connection.cursor() as cursor:
            while not self.enough.wait(0.05):
                cursor.execute("INSERT INTO outbox.message (channel, type, key, payload) SELECT 'orders', 'good', (i % 100)::text, '{}'"
                               " FROM generate_series(1, 20) i RETURNING id::text")
                self.ids |= {row[0] for row in cursor.fetchall()}
        connection.close()

    def stop(self):
        self.enough.set()
        self.join()
        return self.ids


def close_channel(session, message):
    session.close_channel(406, "PRECONDITION_FAILED - poison")


def cut(session, message):
    session.cut()


@pytest.mark.parametrize("order", ["none", "key"])
@pytest.mark.parametrize("end", [close_channel, cut])
@pytest.mark.parametrize("workers", [1, 4])
def test_one_poison_message_dies_and_no_neighbour_arrives_more_than_three_times(database, start, workers, end, order):
    """Done 4 of step 3."""
    def play(session, message):
        if b"poison" in message.body:
            end(session, message)
        else:
            session.ack(message.tag)

    broker = ScriptedBroker(on_message=play)
    assert relay("migrate", "-d", database.conninfo, "--order", order).returncode == 0
    good = {row[0] for row in database.run(
        "INSERT INTO outbox.message (channel, type, key, payload) SELECT 'orders', 'good', (i %% 100)::text, '{}' FROM generate_series(1, %s) i"
        " RETURNING id::text", NEIGHBOURS[workers] // 2)}
    poison = database.value("INSERT INTO outbox.message (channel, type, key, payload) VALUES ('orders', 'good', 'own', '{\"is\": \"poison\"}')"
                            " RETURNING id::text")
    good |= {row[0] for row in database.run(
        "INSERT INTO outbox.message (channel, type, key, payload) SELECT 'orders', 'good', (i %% 100)::text, '{}' FROM generate_series(1, %s) i"
        " RETURNING id::text", NEIGHBOURS[workers] // 2)}
    running = start("-d", database.conninfo, "-b", "amqp", "-o", f"amqp.url={broker.url}", "-o", f"workers={workers}", "-o", "order=" + order,
                    "-o", "batch.max_messages=100", "-o", "retry.max_attempts=3", "-o", "retry.backoff_min=10ms", "-o", "retry.backoff_max=50ms",
                    "-o", "breaker.open_max=1s", "-o", "poll.max=50ms")
    feeder = Feeder(database)
    try:
        wait_until(lambda: database.value("SELECT count(*) FROM outbox.dead_letter"), PATIENCE, "the poison's death")
    finally:
        good |= feeder.stop()
    wait_until(lambda: good <= broker.accepted(), PATIENCE, "all good messages")
    wait_until(lambda: database.left() == 0, what="an empty outbox")
    assert database.run("SELECT id::text, reason, attempts FROM outbox.dead_letter") == [(poison, "attempts", 3)]
    counts = collections.Counter(i for i in broker.ids() if i != poison)
    accounting = Accounting(good, [i for i in broker.ids() if i != poison], bound=(TIMES - 1) * len(good))
    accounting.check()
    print(f"{broker.ids().count(poison)} sessions ended; of {len(good)} messages so many arrived so often:"
          f" {sorted(collections.Counter(counts.values()).items())}")
    assert max(counts.values()) <= TIMES
    running.process.terminate()
    assert running.wait() == 0
    broker.close()


def test_a_claim_that_was_planned_before_the_suspects_were_known_does_not_send_them_together(database, start):
    """Else one poison message ends as many sessions as there are workers, and its neighbours arrive once more each time."""
    def play(session, message):
        if b"poison" not in message.body:
            session.ack(message.tag)
        else:
            if session.broker.ids().count(message.id) == 1:
                wait_until(lambda: len(session.broker.connects) == 2, what="the other worker")
                time.sleep(2)  # by then it has planned its claim, and sleeps in front of it
            session.cut()

    broker = ScriptedBroker(on_message=play)
    for body in ('{"is": "poison"}', "{}", "{}"):
        database.run("INSERT INTO outbox.message (channel, type, payload) VALUES ('orders', 't', %s)", body)
    running = start("-d", database.conninfo, "-b", "amqp", "-o", f"amqp.url={broker.url}", "-o", "workers=2", "-o", "retry.max_attempts=2", "-o",
                    "retry.backoff_min=10ms", "-o", "retry.backoff_max=50ms", env={"RELAY_FAIL": "before_claim:sleep:2"})
    running.await_log("possible duplicates")
    feeder = Feeder(database)
    try:
        wait_until(lambda: database.value("SELECT count(*) FROM outbox.dead_letter"), PATIENCE, "the poison's death")
    finally:
        feeder.stop()
    assert [rows for rows in re.findall(r"possible duplicates .*at_most=(\d+)", running.log()) if rows != "1"] == ["3"]
    broker.close()


@pytest.mark.parametrize("attempts, left", [(2**31 - 1, "dead_letter"), (-2**31, "scheduled")])
def test_a_retry_of_any_number_of_attempts_can_be_set_aside(database, attempts, left):
    """Whatever somebody wrote there: one more has to fit into the column."""
    database.fill(4)
    database.run("INSERT INTO outbox.scheduled (seq, id, kind, channel, type, headers, payload, created_at, bytes, due_at, attempts)"
                 " SELECT seq, id, kind, channel, type, headers, payload, created_at, bytes, now(), %s FROM outbox.message WHERE seq %% 2 = 0;"
                 " DELETE FROM outbox.message WHERE seq %% 2 = 0", attempts)
    database.run("UPDATE outbox.scheduled SET headers = '{\"fail\": \"retry\"}' WHERE seq = (SELECT max(seq) FROM outbox.scheduled)")
    done = relay("drain", "-q", "-d", database.conninfo, "-b", "fail", "-o", "fail.script=confirm", "-o", "workers=1", "-o", "drain.patience=0", "-o", "retry.backoff_min=1m")
    assert done.returncode == 1 and database.value(f"SELECT count(*) FROM outbox.{left}") == 1, done.stderr
