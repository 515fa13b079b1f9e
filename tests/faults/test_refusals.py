"""What makes RabbitMQ itself close the channel: an internal exchange, an exchange that this user may not write to, one that changed its type."""
import collections
import json
import threading
import uuid

import pytest

from accounting import Accounting
from harness import AMQP_URL, PATIENCE, amqp, rabbitmqctl, relay, wait_until
from scripted_broker import ScriptedBroker

TIMES = 3  # a neighbour may arrive at most so often
WORKERS, BATCH = 2, 50


@pytest.fixture
def user():
    """A RabbitMQ user who may write everywhere but to exchanges named like the given pattern."""
    name = "u" + uuid.uuid4().hex[:8]
    rabbitmqctl("add_user", name, name)

    def permit(pattern):
        rabbitmqctl("set_permissions", name, ".*", f"^(?!{pattern}).*" if pattern else ".*", ".*")
        return AMQP_URL.replace("guest:guest", f"{name}:{name}")

    yield permit
    rabbitmqctl("delete_user", name)


class Feeder(threading.Thread):
    """Keeps good messages coming until it is told to stop."""

    def __init__(self, database, channel):
        super().__init__(daemon=True)
        self.database, self.channel, self.ids, self.enough = database, channel, [], threading.Event()
        self.start()

    def run(self):
        connection = self.database.connect()
        with connection.cursor() as cursor:
            while not self.enough.wait(0.05):
                cursor.execute("INSERT INTO outbox.message (channel, type, key, payload) SELECT %s, 'good', (i %% 10)::text, '{}'"
                               " FROM generate_series(1, 10) i RETURNING id::text", (self.channel,))
                self.ids += [row[0] for row in cursor.fetchall()]
        connection.close()

    def stop(self):
        self.enough.set()
        self.join()
        return self.ids


def put(database, channel, type_):
    return database.value("INSERT INTO outbox.message (channel, type, key, payload) VALUES (%s, %s, 'own', '{}') RETURNING id::text", channel, type_)


def arguments(database, mode, url, *more):
    return ["-d", database.conninfo, *amqp("order=" + mode, f"workers={WORKERS}", f"batch.max_messages={BATCH}", "retry.max_attempts=3",
                                           "retry.backoff_min=50ms", "retry.backoff_max=500ms", "breaker.open_min=50ms", "breaker.open_max=500ms",
                                           "poll.max=100ms", *more, url=url)]


def refusing_exchange(broker, user, kind):
    """(url, name of an exchange whose messages make RabbitMQ close the channel, mends it)"""
    name = broker.name("bad")
    if kind == "internal":
        broker.channel.exchange_declare(name, exchange_type="topic", durable=True, internal=True)
        broker.exchanges.append(name)

        def mend():
            broker.channel.exchange_delete(name)
            broker.channel.exchange_declare(name, exchange_type="topic", durable=True)
            broker.channel.queue_bind(broker.name("all"), name, "#")
        return AMQP_URL, name, mend
    broker.exchange("bad")

    def permit():
        broker.channel.queue_bind(broker.name("all"), name, "#")
        user("")
    return user(broker.prefix + r"\.bad"), name, permit


def check_neighbours(database, oracle, good, others=()):
    arrived = [i for i in oracle.ids() if i not in others]
    accounting = Accounting.of_oracle(good, oracle, attempted=others, bound=(TIMES - 1) * len(good))
    accounting.check(ordered=True)
    counts = collections.Counter(arrived)
    print(f"of {len(good)} neighbours so many arrived so often: {sorted(collections.Counter(counts.values()).items())}")
    assert max(counts.values()) <= TIMES


@pytest.mark.parametrize("kind, mode", [("internal", "none"), ("forbidden", "key")])
def test_a_channel_that_the_broker_refuses_rests_and_its_messages_go_when_that_is_mended(database, broker, user, start, kind, mode):
    """Nothing of that channel was ever confirmed: no attempt may count."""
    assert relay("migrate", "-d", database.conninfo, "--order", mode).returncode == 0
    exchange = broker.exchange("good")
    oracle = broker.oracle(broker.queue("all", exchange))
    url, bad, mend = refusing_exchange(broker, user, kind)
    running = start(*arguments(database, mode, url))
    feeder = Feeder(database, exchange)
    try:
        wait_until(oracle.ids, what="the first delivery")
        poison = [put(database, bad, "good") for _ in range(3)]
        running.await_log(f"channel={bad}")
        assert "403" in running.log()
        assert database.value("SELECT count(*) FROM outbox.message WHERE channel = %s", bad) == 3, "no attempt was counted"
        before = len(oracle.ids())
        wait_until(lambda: len(oracle.ids()) > before + 50, what="neighbours that flow meanwhile")
        mend()
        oracle.await_ids(poison, 30)
    finally:
        good = feeder.stop()
    oracle.await_ids(good, PATIENCE)
    wait_until(lambda: database.left() == 0, what="an empty outbox")
    check_neighbours(database, oracle, good if mode == "key" else set(good), poison)
    assert not database.dead() and running.process.poll() is None


@pytest.mark.parametrize("kind, mode", [("internal", "key"), ("forbidden", "none")])
def test_a_message_that_the_broker_refuses_dies_and_its_neighbours_in_the_channel_are_spared(database, broker, user, start, kind, mode):
    """Others of its channel are confirmed between its attempts: three of them, and it is set aside."""
    assert relay("migrate", "-d", database.conninfo, "--order", mode).returncode == 0
    exchange = broker.exchange("good")
    oracle = broker.oracle(broker.queue("all", exchange))
    url, _, _ = refusing_exchange(broker, user, kind)
    running = start(*arguments(database, mode, url, "amqp.exchange=" + broker.prefix + ".${type}", "amqp.routing_key=${channel}"))
    feeder = Feeder(database, "orders")
    try:
        wait_until(oracle.ids, what="the first delivery")
        poison = put(database, "orders", "bad")
        wait_until(lambda: database.dead() == {poison}, PATIENCE, "its death")
    finally:
        good = feeder.stop()
    oracle.await_ids(good, PATIENCE)
    wait_until(lambda: database.left() == 0, what="an empty outbox")
    assert database.run("SELECT reason, attempts, last_error ~ '403' FROM outbox.dead_letter") == [("attempts", 3, True)]
    check_neighbours(database, oracle, good if mode == "key" else set(good))
    assert running.process.poll() is None


@pytest.mark.parametrize("mode", ["none", "key"])
def test_an_exchange_that_comes_back_with_another_type_gets_what_it_routes_and_loses_nothing(database, broker, start, mode):
    """From topic to direct, with a queue that is not bound to it at first: what it cannot route waits."""
    assert relay("migrate", "-d", database.conninfo, "--order", mode).returncode == 0
    exchange = broker.exchange("good")
    queue = broker.queue("all", exchange)
    oracle = broker.oracle(queue)
    running = start(*arguments(database, mode, AMQP_URL, "retry.max_attempts=0"))
    feeder = Feeder(database, exchange)
    try:
        wait_until(oracle.ids, what="the first delivery")
        broker.channel.exchange_delete(exchange)
        running.await_log("404")
        broker.channel.exchange_declare(exchange, exchange_type="direct", durable=True)
        running.await_log("312 NO_ROUTE")
        before = len(oracle.ids())
        broker.channel.queue_bind(queue, exchange, "good")
        wait_until(lambda: len(oracle.ids()) > before, what="deliveries by the new one")
    finally:
        good = feeder.stop()
    oracle.await_ids(good, PATIENCE)
    wait_until(lambda: database.value("SELECT (SELECT count(*) FROM outbox.message) + (SELECT count(*) FROM outbox.scheduled)") == 0,
               what="an empty outbox")
    check_neighbours(database, oracle, good if mode == "key" else set(good))
    assert not database.dead() and running.process.poll() is None


def test_rows_that_a_topic_permission_refuses_do_not_hold_the_others_of_their_channel(database, broker, user):
    """The broker names the topic, and only what goes by that routing key is refused."""
    exchange = broker.exchange("topics")
    oracle = broker.oracle(broker.queue("all", exchange))
    url = user("")
    name = url.split("//")[1].split(":")[0]
    rabbitmqctl("set_topic_permissions", name, exchange, "^ok", ".*")
    rows = database.run("INSERT INTO outbox.message (channel, type) SELECT %s, CASE WHEN i %% 10 = 0 THEN 'bad' ELSE 'ok' END FROM generate_series(1, 300) i"
                        " RETURNING id::text, type", exchange)
    good = {id_ for id_, type_ in rows if type_ == "ok"}
    done = relay("drain", "-q", "--json", *arguments(database, "none", url, "retry.max_attempts=2", "retry.backoff_min=50ms", "drain.patience=20s"))
    assert done.returncode == 1 and database.left() == 0, done.stderr
    assert json.loads(done.stdout)["retried"] < 2 * len(good), "a loss puts back some 50 that were in flight; it takes a few of them to find the topic"
    oracle.await_ids(good)
    arrived = Accounting.of_oracle(good, oracle)
    assert not arrived.lost and not arrived.unexpected and max(arrived.counts.values()) <= TIMES, arrived
    assert {(row[0]) for row in database.run("SELECT id::text FROM outbox.dead_letter UNION ALL SELECT id::text FROM outbox.scheduled")} == {id_ for id_, type_ in rows if type_ == "bad"}


def test_only_the_topic_that_is_refused_is_blamed_for_what_was_in_flight_with_it(database):
    """One exchange, ten messages in flight, one of them by the topic that the broker names: the others bear no guilt, and their channel no rest."""
    def play(session, message):
        if message.connection == 1 and len(session.messages) < 10:
            return
        if message.connection == 1 or message.routing_key == "bad":
            session.close_channel(403, f"ACCESS_REFUSED - access to topic 'bad' in exchange '{message.exchange}' in vhost '/' refused for user 'guest'")
        else:
            session.ack(message.tag)

    scripted = ScriptedBroker(on_message=play)
    database.run("INSERT INTO outbox.message (channel, type) SELECT 'topics', CASE WHEN i = 5 THEN 'bad' ELSE 'ok' END FROM generate_series(1, 10) i")
    done = relay("drain", "--json", *arguments(database, "none", scripted.url, "retry.max_attempts=1", "workers=1", "drain.patience=20s"))
    scripted.close()
    assert "possible duplicates worker=0 at_most=9 after=\"the broker closed the channel: 403" in done.stderr, "nine of the ten may have been taken"
    assert done.returncode == 1 and database.left() == 0 and json.loads(done.stdout)["published"] == 9, done.stdout + done.stderr
    assert database.run("SELECT type, attempts FROM outbox.dead_letter") == [("bad", 1)]


def test_commands_that_ask_for_direct_replies_are_dead_letters_before_the_wire(database, broker):
    """RabbitMQ closes the channel of whoever publishes with reply_to amq.rabbitmq.reply-to and does not consume from it: 406, each time."""
    exchange = broker.exchange("good")
    oracle = broker.oracle(broker.queue("all", exchange))
    queue = broker.queue("commands")
    database.run("SELECT outbox.send(%s, 'ask', '{}', reply_to => 'amq.rabbitmq.reply-to') FROM generate_series(1, 30)", queue)
    good = {row[0] for row in database.run("INSERT INTO outbox.message (channel, type) SELECT %s, 'good' FROM generate_series(1, 200) RETURNING id::text", exchange)}
    done = relay("drain", "-q", *arguments(database, "none", AMQP_URL))
    oracle.await_ids(good)
    Accounting.of_oracle(good, oracle).check()
    assert done.returncode == 1 and database.value("SELECT count(*) FROM outbox.dead_letter WHERE last_error LIKE %s", "%name a queue%") == 30, done.stderr


def test_a_row_that_alone_costs_the_channel_is_that_rows_matter_whatever_the_code(database, start):
    """The breaker stays closed, and good ones go between."""
    def play(session, message):
        if b"poison" in message.body:
            session.close_channel(405, "RESOURCE_LOCKED - of a kind that nobody foresaw")
        else:
            session.ack(message.tag)

    scripted = ScriptedBroker(on_message=play)
    database.run("INSERT INTO outbox.message (channel, type, payload) SELECT 'bad', 'bad', '{\"is\": \"poison\"}' FROM generate_series(1, 5)")
    database.run("INSERT INTO outbox.message (channel, type, payload) SELECT 'good', 'good', '{}' FROM generate_series(1, 500)")
    running = start(*arguments(database, "none", scripted.url, "retry.max_attempts=3", "retry.backoff_min=20ms", "workers=1"))
    wait_until(lambda: database.value("SELECT count(*) FROM outbox.message WHERE channel = 'good'") == 0, 30, "the good ones")
    running.await_log("channel is on hold")
    assert "breaker is open" not in running.log() and not database.dead()
    scripted.close()
