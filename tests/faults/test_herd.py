"""Scenario 37: many relays at once, after an outage of both servers. No herd at their doors; everything once, and in order."""
import os
import time

from accounting import Accounting
from harness import amqp, relay, wait_until

RELAYS = int(os.environ.get("TEST_HERD_RELAYS", "8"))
ROWS = int(os.environ.get("TEST_HERD_ROWS", "5000"))
WORKERS, OUTAGE = 2, 6  # seconds


def crowd(times, width):
    """The most connects within `width` seconds."""
    return max((sum(begin <= other < begin + width for other in times) for begin in times), default=0)


def test_many_relays_after_an_outage_come_one_by_one_and_deliver_everything_once_and_in_order(database, broker, proxied, start):
    assert relay("migrate", "-d", database.conninfo, "--order", "key").returncode == 0
    exchange = broker.exchange("orders")
    oracle = broker.oracle(broker.queue("all", exchange))
    ids = [row[0] for row in database.run("INSERT INTO outbox.message (channel, type, key, payload) SELECT 'orders', 't', (i %% 500)::text, '{}'"
                                          " FROM generate_series(1, %s) i RETURNING id::text", ROWS)]
    postgres, rabbitmq = proxied(os.environ["TEST_PG_PORT"]), proxied(os.environ["TEST_AMQP_PORT"])
    url = f"amqp://guest:guest@127.0.0.1:{rabbitmq.port}/"
    relays = [start("-d", database.through(postgres.port), *amqp("amqp.exchange=" + exchange, "order=key", f"workers={WORKERS}",
                                                                 "batch.max_messages=50", "poll.max=200ms", "breaker.open_max=2s", url=url))
              for _ in range(RELAYS)]
    for running in relays:
        running.await_log("running")
    wait_until(oracle.ids, what="the first delivery")
    for proxy in (postgres, rabbitmq):
        proxy.refusing = True
    for proxy in (postgres, rabbitmq):
        proxy.end_links()
    began = time.monotonic()
    sent = len(oracle.ids())
    wait_until(lambda: time.monotonic() - began > OUTAGE / 2, OUTAGE, "half of the outage")
    rabbitmq.heal()  # first, so that all of them come to PostgreSQL's door with a session in hand
    wait_until(lambda: time.monotonic() - began > OUTAGE, OUTAGE, "the other half")
    postgres.heal()
    healed = time.monotonic()
    oracle.await_ids(ids, 120)
    wait_until(lambda: database.left() == 0, what="an empty outbox")
    over = time.monotonic()
    for name, proxy, people in (("PostgreSQL", postgres, WORKERS + 1), ("RabbitMQ", rabbitmq, WORKERS)):
        times = [at for at in proxy.connects if at >= began]
        spread = [at for at in times if at >= began + 1]  # the first try may come at once: each has lost a session at the same time
        print(f"{name}: {len(times)} connects of {RELAYS * people} in {over - began:.1f} s, {crowd(times, 1)} within a second, {crowd(spread, 0.1)} within 0.1 s")
        assert crowd(times, 1) <= RELAYS * people * 2, "at most one per second and worker, and two such seconds may meet"
        assert len(times) <= RELAYS * people * (over - began + 1)
        assert crowd(spread, 0.1) <= max(4, RELAYS * people * 3 / 4), "a herd comes all at once; a machine that stalls bunches some"
    assert [at for at in postgres.connects if at >= healed], "somebody came back"
    print(f"{sent} were sent before the outage")
    Accounting.of_oracle(ids, oracle, bound=RELAYS * WORKERS * 50).check(ordered=True)
    assert all(running.process.poll() is None for running in relays)
