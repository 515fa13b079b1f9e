"""order: key, and a process dies that holds lanes: the server frees them with its session, and the survivors take up its keys."""
import signal
import time

import pytest

from accounting import Accounting
from harness import amqp, relay, wait_until

WORKERS, BATCH, POLL_MAX, KEYS, LANES = 4, 40, 1, 64, 16


def lanes_of(database, running):
    return {lane for name, _, lane in database.lanes_held() if name.endswith(f"-{running.pid}")}


def lanes_with_rows(database):
    return {row[0] for row in database.run(f"SELECT DISTINCT (hashtextextended(channel, 0) # hashtextextended(key, 0)) & {LANES - 1} FROM outbox.message")}


@pytest.mark.parametrize("idle", [True, False], ids=["idle survivors", "busy survivors"])
def test_the_keys_of_a_killed_process_are_taken_up_within_poll_max_and_two_seconds(database, broker, start, idle):
    """Scenario 3 in order. Frozen first, so that it is killed with its lanes; the survivors could not have its keys until then."""
    assert relay("migrate", "-d", database.conninfo, "--order", "key", "--lanes", str(LANES)).returncode == 0
    exchange = broker.exchange("orders")
    oracle = broker.oracle(broker.queue("all", exchange))
    arguments = ["-d", database.conninfo, *amqp("amqp.exchange=" + exchange, "order=key", f"workers={WORKERS}", f"batch.max_messages={BATCH}",
                                                f"poll.max={POLL_MAX}s")]

    def fill(count):
        return [row[0] for row in database.run("INSERT INTO outbox.message (channel, type, key, payload) SELECT 'orders', 't', (i %% %s)::text, '{}'"
                                               " FROM generate_series(1, %s) i RETURNING id::text", KEYS, count)]

    ids = fill(2000)
    victim = start(*arguments, "-o", "publish_timeout=60s")  # the server, too, leaves it its transactions for so long

    def frozen_with_lanes():
        victim.signal(signal.SIGSTOP)
        if database.stuck_in_transaction():
            held = lanes_of(database, victim)
            if len(held) < LANES and lanes_with_rows(database) & held:
                return True
        victim.signal(signal.SIGCONT)
        ids.extend(fill(100))
        return False

    wait_until(frozen_with_lanes, what="a freeze between claim and COMMIT")
    held = lanes_of(database, victim)
    survivors = [start(*arguments) for _ in range(2)]

    wait_until(lambda: lanes_with_rows(database) <= held, what="the other keys' messages")
    left = database.ids_left()
    assert left and not database.value("SELECT count(*) FROM outbox.scheduled"), "what the victim holds, nobody else may send"
    if not idle:
        ids += fill(1000)
    victim.kill()
    killed = time.monotonic()
    before = oracle.ids()
    wait_until(lambda: left & set(oracle.ids()[len(before):]), 30, "the victim's keys")
    took = time.monotonic() - killed
    oracle.await_ids(ids)
    wait_until(lambda: database.left() == 0, what="an empty outbox")
    print(f"{len(held)} lanes held, {len(left)} messages behind them, the first {took:.1f} s after the kill")
    Accounting.of_oracle(ids, oracle, bound=WORKERS * BATCH).check(ordered=True)
    assert took <= POLL_MAX + 2
    assert all(survivor.process.poll() is None for survivor in survivors)
    wait_until(lambda: not database.lanes_held(), 5, "no lane held by anybody")
