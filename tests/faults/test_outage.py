"""The broker is away for long: no attempt, no dead letter, no transaction while it lasts, and all is delivered soon after."""
import os
import time

from accounting import Accounting
from harness import amqp, rabbitmqctl, wait_until
from test_broker import attempts, reconnect

SECONDS = int(os.environ.get("TEST_OUTAGE_SECONDS", "20"))
ROWS = int(os.environ.get("TEST_OUTAGE_ROWS", "5000"))
OPEN_MAX, WORKERS, BATCH = 5, 2, 200


def test_an_outage_counts_no_attempt_holds_nothing_and_is_made_up_for(database, broker, start):
    """Done 3 of step 3."""
    exchange = broker.exchange("orders")
    oracle = broker.oracle(broker.queue("all", exchange))
    running = start("-d", database.conninfo, *amqp(
        "amqp.exchange=" + exchange, f"breaker.open_max={OPEN_MAX}s", f"workers={WORKERS}", f"batch.max_messages={BATCH}", "retry.max_attempts=2"))
    ids = database.fill(500)
    oracle.await_ids(ids)
    rabbitmqctl("stop_app")
    try:
        began = time.monotonic()
        ids |= database.fill(ROWS)
        running.await_log("breaker is open")
        wait_until(lambda: database.open_transactions() == 0, what="no transaction")
        waiting, looks = database.left(), 0
        assert waiting > 0, "rows must be waiting, or the test proves nothing"
        while time.monotonic() - began < SECONDS:
            assert database.open_transactions() == 0 and attempts(database) == 0
            assert database.value("SELECT count(*) FROM outbox.scheduled") == 0
            looks += 1
            time.sleep(0.1)
        assert database.left() == waiting, "nothing was deleted"
    finally:
        rabbitmqctl("start_app")
    back = time.monotonic()
    reconnect(broker)
    oracle.await_ids(ids, OPEN_MAX + 60)
    took = time.monotonic() - back
    wait_until(lambda: database.left() == 0, what="an empty outbox")
    dead = [row[0] for row in database.run("SELECT id::text FROM outbox.dead_letter")]
    print(f"away for {SECONDS} s, {looks} looks, {waiting} rows waiting; all delivered {took:.1f} s after it was back")
    Accounting.of_oracle(ids, oracle, dead=dead, bound=2 * WORKERS * BATCH).check()
    assert not dead and attempts(database) == 0 and running.process.poll() is None
