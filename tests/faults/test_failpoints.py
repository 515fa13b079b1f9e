"""Dies, ends, sleeps or fails at every step of the sentence; whatever it does, nothing is lost and duplicates are what was in flight."""
import os

import pytest

from accounting import Accounting
from harness import amqp, relay, wait_until

ROUNDS = int(os.environ.get("TEST_FAILPOINT_ROUNDS", "1"))
BATCH, WORKERS = 20, 2
POINTS = ["after_claim", "after_publish", "after_confirm", "before_delete", "after_delete", "before_commit", "after_commit", "in_move"]
KILLED, ENDED = -9, 99


def drain(database, exchange, order, fail=None, timeout=60):
    options = [f"batch.max_messages={BATCH}", f"workers={WORKERS}", "publish_timeout=2s", "retry.max_attempts=1", "retry.backoff_min=10ms",
               "breaker.open_min=50ms", "breaker.open_max=200ms", "order=" + order, "amqp.exchange=" + exchange]
    return relay("drain", "-q", "-d", database.conninfo, *amqp(*options), env={"RELAY_FAIL": fail} if fail else None, timeout=timeout)


def is_empty(database):
    return database.value("SELECT (SELECT count(*) FROM outbox.message) + (SELECT count(*) FROM outbox.scheduled)") == 0


@pytest.mark.parametrize("order", ["none", "key"])
@pytest.mark.parametrize("action", ["abort", "exit", "sleep", "error"])
@pytest.mark.parametrize("point", POINTS)
def test_whatever_happens_at_any_step_loses_nothing(database, broker, point, action, order):
    """Scenarios 1 and 2 of reliability.md: a crash at each step, between the last confirm and COMMIT among them."""
    exchange = broker.exchange("orders")
    oracle = broker.oracle(broker.queue("all", exchange, "good"))
    assert relay("migrate", "-d", database.conninfo, "--order", order).returncode == 0
    committed, fired = [], 0
    for round_ in range(ROUNDS):
        committed += [row[0] for row in database.run(
            "INSERT INTO outbox.message (channel, type, key, payload) SELECT 'orders', CASE WHEN i % 10 = 9 THEN 'bad' ELSE 'good' END,"
            " (i % 7)::text, '{}' FROM generate_series(1, 100) i RETURNING id::text")]
        done = drain(database, exchange, order, f"{point}:{action}:{1 + round_ % 3}")
        fired += done.returncode in (KILLED, ENDED) or "failpoint" in done.stderr or action == "sleep" or point == "after_publish"
        assert done.returncode in {"abort": (KILLED,), "exit": (ENDED,)}.get(
            action, (0, 1, 70) if point == "after_publish" else (0, 1)), (done.returncode, done.stderr)
        if action not in ("abort", "exit"):
            wait_until(lambda: database.open_transactions() == 0, 5, "no transaction")
        while not is_empty(database):  # the next life needs no repair; good messages bring the evidence by which the last bad ones die
            committed += [database.value("SELECT outbox.publish('orders', 'good', '{}')::text")]
            assert drain(database, exchange, order).returncode in (0, 1)
            assert len(committed) < 200 * (round_ + 1), "the outbox does not become empty"
    assert fired == ROUNDS, "the point was not reached"
    dead = [row[0] for row in database.run("SELECT id::text FROM outbox.dead_letter")]
    oracle.await_ids(set(committed) - set(dead))
    accounting = Accounting.of_oracle(committed, oracle, dead=dead, bound=ROUNDS * BATCH * WORKERS)
    accounting.check(ordered=order == "key")
    assert len(dead) == 10 * ROUNDS and not set(dead) & set(oracle.ids())
