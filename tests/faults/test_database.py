"""The database fails: restarts, terminated sessions, lost replies. No loss, no hot loop, no restart of the relay needed."""
import collections
import signal
import time

import psycopg2

from harness import DATABASE, Producer, amqp, relay, restart_server, wait_until


def reconnected(database):
    def attempt():
        try:
            return database.connect()
        except psycopg2.OperationalError:
            return None

    database.connection = wait_until(attempt, what="PostgreSQL")


def test_a_restart_in_the_middle_of_a_batch_loses_nothing_and_needs_no_restart(database, broker, start):
    """Done 6 of step 1, second half."""
    exchange = broker.exchange("orders")
    oracle = broker.oracle(broker.queue("all", exchange))
    ids = database.fill(20000)
    running = start("-d", database.conninfo, "--log-format", "json", *amqp("amqp.exchange=" + exchange, "batch.max_messages=50"))
    began = time.monotonic()
    wait_until(oracle.ids, what="the first delivery")
    for mode in ("fast", "immediate"):
        restart_server("postgres", mode)
        reconnected(database)
        ids |= database.fill(100)
        time.sleep(0.5)
    arrived = collections.Counter(oracle.await_ids(ids))
    wait_until(lambda: database.left() == 0, what="an empty outbox")
    assert set(arrived) == ids
    assert sum(count - 1 for count in arrived.values()) <= 2 * 50 * 2 * 2
    running.signal(signal.SIGUSR1)
    running.await_log('"msg":"state"')
    connects = int(running.log().rsplit('"database_connects":', 1)[1].split(",")[0])
    assert connects <= 2 * (time.monotonic() - began) + 2, "at most one attempt per second and worker"
    assert running.process.poll() is None


def test_terminated_sessions_are_replaced_and_what_was_unknown_is_sent_again(database, broker, start):
    exchange = broker.exchange("orders")
    oracle = broker.oracle(broker.queue("all", exchange))
    producer = Producer(database)
    running = start("-d", database.conninfo, *amqp("amqp.exchange=" + exchange, "batch.max_messages=20"))
    killed = 0

    def kill_more():
        nonlocal killed
        time.sleep(0.1)  # not faster than the relay may connect again
        killed += database.value("SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE datname = %s"
                                 " AND application_name LIKE 'outbox-relay/%%' AND backend_xid IS NOT NULL", database.name)
        return killed >= 5

    wait_until(oracle.ids, what="the first delivery")
    try:
        wait_until(kill_more, 60, "five sessions killed in a transaction")
    finally:
        ids = producer.stop()
    arrived = collections.Counter(oracle.await_ids(ids))
    wait_until(lambda: database.left() == 0, what="an empty outbox")
    assert set(arrived) == ids
    assert sum(count - 1 for count in arrived.values()) <= killed * 20
    assert running.process.poll() is None


def test_a_frozen_relay_loses_its_transaction_to_the_server_and_others_deliver(database, broker, start):
    exchange = broker.exchange("orders")
    oracle = broker.oracle(broker.queue("all", exchange))
    producer = Producer(database)
    frozen = start("-d", database.conninfo, *amqp("amqp.exchange=" + exchange, "batch.max_messages=20", "publish_timeout=1s"))
    wait_until(oracle.ids, what="the first delivery")

    def stopped_in_a_transaction():
        frozen.signal(signal.SIGSTOP)
        if database.stuck_in_transaction():
            return True
        frozen.signal(signal.SIGCONT)
        return False

    try:
        wait_until(stopped_in_a_transaction, what="a freeze between claim and COMMIT")
    finally:
        ids = producer.stop()
    start("-d", database.conninfo, *amqp("amqp.exchange=" + exchange))
    oracle.await_ids(ids, 60)
    wait_until(lambda: database.left() == 0, 20, "an empty outbox: the server ends the frozen transaction")
    frozen.signal(signal.SIGCONT)
    frozen.await_log("no connection to the database")
    assert frozen.process.poll() is None


def test_too_many_connections_are_waited_for(database, start):
    database.fill(10)
    user = f"u_{database.name}"
    database.run(f"CREATE ROLE {user} LOGIN CONNECTION LIMIT 0 IN ROLE outbox_relay")
    try:
        running = start("-d", DATABASE.replace("user=postgres", f"user={user}") + f" dbname={database.name}", "-b", "null")
        running.await_log("too many connections")
        database.run(f"ALTER ROLE {user} CONNECTION LIMIT 10")
        wait_until(lambda: database.left() == 0, what="an empty outbox")
    finally:
        running.close()  # nobody may use the role
        running.close = lambda: None
        database.run(f"DROP ROLE {user}")


def test_a_dropped_column_is_told_and_an_upgrade_resumes_by_itself(database, start):
    running = start("-d", database.conninfo, "-b", "null")
    database.fill(1)
    wait_until(lambda: database.left() == 0, what="an empty outbox")
    database.run("ALTER TABLE outbox.message RENAME COLUMN channel TO chanel")
    running.await_log("42703")
    database.run("ALTER TABLE outbox.message RENAME COLUMN chanel TO channel")
    database.fill(1)
    wait_until(lambda: database.left() == 0, what="an empty outbox")


def test_a_commit_that_a_trigger_refuses_is_unknown_and_keeps_the_rows(database):
    """An error from COMMIT must never count as done."""
    ids = database.fill(10)
    database.run("CREATE FUNCTION public.refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE 'not today'; END $$")
    database.run("CREATE CONSTRAINT TRIGGER refuse AFTER DELETE ON outbox.message DEFERRABLE INITIALLY DEFERRED"
                 " FOR EACH ROW EXECUTE FUNCTION public.refuse()")
    done = relay("drain", "-q", "--json", "-b", "null", "-d", database.conninfo, "-o", "drain.unavailable_after=2s", timeout=60)
    assert done.returncode == 78 and '"published":0' in done.stdout, (done.stdout, done.stderr)
    assert "not today" in done.stderr and "possible duplicates" in done.stderr
    assert database.left() == len(ids)
    database.run("DROP TRIGGER refuse ON outbox.message")
    assert relay("drain", "-q", "-b", "null", "-d", database.conninfo).returncode == 0
