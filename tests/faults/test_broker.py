"""The broker fails: alarms, silence, death. No transaction is held, no attempt counted, nothing lost."""
import collections
import os
import signal
import socket
import time

import pika

from harness import AMQP_URL, Producer, amqp, rabbitmqctl, relay, restart_server, wait_until

PUBLISH_TIMEOUT = 2


def attempts(database):
    return database.value("SELECT (SELECT coalesce(sum(attempts), 0) FROM outbox.scheduled) + (SELECT count(*) FROM outbox.dead_letter)")


def reconnect(broker):
    """The oracle and the test's own connection may have died with the broker."""
    broker.connection = pika.BlockingConnection(pika.URLParameters(AMQP_URL + "?heartbeat=0"))
    broker.channel = broker.connection.channel()
    for oracle in broker.oracles:
        oracle.ensure_running()


def test_a_memory_alarm_in_mid_run_holds_no_transaction_counts_no_attempt_and_ends_well(database, broker, start):
    """Done 5 of step 1."""
    exchange = broker.exchange("orders")
    oracle = broker.oracle(broker.queue("all", exchange))
    arguments = ["-d", database.conninfo,
                 *amqp("amqp.exchange=" + exchange, f"publish_timeout={PUBLISH_TIMEOUT}s", "batch.max_messages=100", "breaker.open_max=2s",
                       "shutdown_timeout=5s")]
    producer = Producer(database, size=2000)
    running = start(*arguments)
    wait_until(oracle.ids, what="the first delivery")
    rabbitmqctl("set_vm_memory_high_watermark", "0")
    try:
        alarmed = time.monotonic()
        wait_until(lambda: "pause" in running.log() or "breaker is open" in running.log() or "no session" in running.log(), 20, "the relay's notice")
        assert database.left() > 0, "rows must be waiting, or the test proves nothing"
        wait_until(lambda: database.open_transactions() == 0, PUBLISH_TIMEOUT + 2, "no session in a transaction")
        longest = 0
        while time.monotonic() - alarmed < 3 * PUBLISH_TIMEOUT + 2:
            age = database.value("SELECT coalesce(max(extract(epoch FROM clock_timestamp() - xact_start)), 0) FROM pg_stat_activity"
                                 " WHERE datname = %s AND application_name LIKE 'outbox-relay/%%' AND backend_xid IS NOT NULL", database.name)
            longest = max(longest, float(age))
            time.sleep(0.05)
        assert longest <= PUBLISH_TIMEOUT + 2, f"a transaction lived {longest} s during the alarm"
        running.signal(signal.SIGTERM)
        stopping = time.monotonic()
        assert running.wait(15) in (0, 70)
        assert time.monotonic() - stopping <= 5 + 2
        running = start(*arguments)
        time.sleep(PUBLISH_TIMEOUT)
    finally:
        ids = producer.stop()
        rabbitmqctl("set_vm_memory_high_watermark", "0.4")
    arrived = collections.Counter(oracle.await_ids(ids))
    wait_until(lambda: database.left() == 0, what="an empty outbox")
    assert set(arrived) == ids and attempts(database) == 0


def test_a_silent_broker_causes_no_loss_no_hot_loop_and_no_restart(database, broker, start):
    """Done 6 of step 1, first half: SIGSTOP for longer than publish_timeout and two heartbeats."""
    exchange = broker.exchange("orders")
    oracle = broker.oracle(broker.queue("all", exchange))
    running = start("-d", database.conninfo, "--log-format", "json",
                    *amqp("amqp.exchange=" + exchange, f"publish_timeout={PUBLISH_TIMEOUT}s", "amqp.heartbeat=2s", "breaker.open_max=2s",
                          "batch.max_messages=50"))
    ids = database.fill(20000)
    wait_until(oracle.ids, what="the first delivery")
    with open(os.environ["TEST_RABBITMQ_PID_FILE"], encoding="ascii") as file:
        server = int(file.read())
    os.kill(server, signal.SIGSTOP)
    try:
        silent = time.monotonic()
        ids |= database.fill(100)
        time.sleep(PUBLISH_TIMEOUT + 1.5)
        wait_until(lambda: database.open_transactions() == 0, 3, "the end of the batches in flight: what was confirmed before is settled")
        left = database.left()
        while time.monotonic() - silent < 10:
            assert database.value("SELECT coalesce(max(extract(epoch FROM clock_timestamp() - xact_start)), 0) FROM pg_stat_activity"
                                  " WHERE datname = %s AND application_name LIKE 'outbox-relay/%%' AND backend_xid IS NOT NULL",
                                  database.name) <= PUBLISH_TIMEOUT + 2
            time.sleep(0.1)
        assert database.left() == left >= 100, "a silent broker confirms nothing, so nothing may be deleted"
    finally:
        os.kill(server, signal.SIGCONT)
    reconnect(broker)
    arrived = collections.Counter(oracle.await_ids(ids))
    wait_until(lambda: database.left() == 0, what="an empty outbox")
    assert set(arrived) == ids and attempts(database) == 0
    running.signal(signal.SIGUSR1)
    running.await_log('"msg":"state"')
    connects = int(running.log().rsplit('"backend_connects":', 1)[1].split("}")[0].split(",")[0])
    assert connects <= 2 * (time.monotonic() - silent) + 2, "at most one attempt per second and worker"
    assert running.process.poll() is None


def test_a_stop_while_a_silent_broker_is_asked_to_let_us_in_is_immediate(database, start):
    """It accepts the connection and says nothing; no batch is in hand, so there is nothing to wait for."""
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen(16)
        database.fill(10)
        running = start("-d", database.conninfo, "-b", "amqp", "-o", f"amqp.url=amqp://127.0.0.1:{silent.getsockname()[1]}/", "-o", "publish_timeout=30s")
        silent.settimeout(20)
        silent.accept()
        assert database.open_transactions() == 0, "connect before locking"
        began = time.monotonic()
        running.signal(signal.SIGTERM)
        assert running.wait(20) == 0
        assert time.monotonic() - began < 5
    assert database.left() == 10


def test_a_killed_broker_comes_back_and_gets_everything_with_no_attempt_counted(database, broker, start):
    exchange = broker.exchange("orders")
    queue = broker.queue("all", exchange)
    oracle = broker.oracle(queue)
    running = start("-d", database.conninfo, *amqp("amqp.exchange=" + exchange, "batch.max_messages=50", "breaker.open_max=2s"))
    ids = database.fill(5000)
    wait_until(oracle.ids, what="the first delivery")
    rabbitmqctl("eval", "mnesia:sync_log().")  # RabbitMQ 3.10 keeps what was declared last in memory for a while
    with open(os.environ["TEST_RABBITMQ_PID_FILE"], encoding="ascii") as file:
        os.kill(int(file.read()), signal.SIGKILL)
    running.await_log("no session to the broker")
    ids |= database.fill(100)
    restart_server("rabbitmq")
    reconnect(broker)
    broker.channel.queue_bind(queue, exchange, "#")  # and was seen to forget a binding all the same: 1 of 16 kills
    arrived = collections.Counter(oracle.await_ids(ids))
    wait_until(lambda: database.left() == 0, what="an empty outbox")
    assert set(arrived) == ids and attempts(database) == 0
    wait_until(lambda: relay("status", "-d", database.conninfo).stdout.startswith("OK"), what="status OK")


def test_a_channel_closed_over_one_message_finds_it_and_spares_its_neighbours(database, broker, start):
    """RabbitMQ closes the channel over an invalid user_id-like property: here an exchange that is deleted in mid-run."""
    exchange = broker.exchange("orders")
    oracle = broker.oracle(broker.queue("all", exchange))
    doomed = broker.exchange("doomed")
    broker.queue("doomed", doomed)
    running = start("-d", database.conninfo, *amqp("workers=1"))
    first = database.fill(1, channel=doomed) | database.fill(1, channel=exchange)
    wait_until(lambda: database.left() == 0, what="an empty outbox")
    broker.channel.exchange_delete(doomed)  # the relay's session still believes in it
    database.run("BEGIN")
    good = database.fill(50, channel=exchange)
    lost = database.fill(1, channel=doomed)
    good |= database.fill(50, channel=exchange)
    database.run("COMMIT")
    good |= {i for i in first if i in oracle.ids()}
    arrived = collections.Counter(oracle.await_ids(good, 60))
    wait_until(lambda: {row[0] for row in database.run("SELECT id::text FROM outbox.message")} == lost, what="only the doomed row")
    assert max(arrived.values()) <= 3
    running.await_log(f"channel={doomed}")
    broker.exchange("doomed")
    broker.channel.queue_bind(broker.name("doomed"), doomed, "#")
    wait_until(lambda: database.left() == 0, 90, "an empty outbox")
    assert attempts(database) == 0
