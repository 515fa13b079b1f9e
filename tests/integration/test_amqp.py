"""The amqp backend against a real RabbitMQ."""
import json
import os
import re
import time

import pika
import pytest

from accounting import Accounting
from harness import AMQP_URL, amqp, rabbitmqctl, relay, restart_server, wait_until

PORT = os.environ["TEST_AMQP_PORT"]


def drain(database, *options, env=None, timeout=120):
    done = relay("drain", "-q", "--json", "-d", database.conninfo, *amqp(*options), env=env, timeout=timeout)
    return done, json.loads(done.stdout) if done.stdout else None


def status(database):
    return json.loads(relay("status", "--json", "-d", database.conninfo).stdout)


def test_an_event_carries_every_property_and_scalar_header(database, broker):
    exchange = broker.exchange("orders")
    oracle = broker.oracle(broker.queue("all", exchange))
    identity = database.value(
        "SELECT outbox.publish(%s, 'order.placed', '{\"n\":1}', key => 'k-1', correlation_id => 'co', causation_id => 'ca', ttl => '1 hour',"
        " headers => '{\"s\":\"ü\",\"i\":9007199254740993,\"d\":1.5,\"t\":true,\"n\":null}')::text", exchange)
    done, _ = drain(database)
    assert done.returncode == 0, done.stderr
    oracle.await_ids([identity])
    (delivery,) = oracle.deliveries()
    assert (delivery["exchange"], delivery["key"], delivery["body"]) == (exchange, "order.placed", '{"n":1}')
    # pika 1.2 reads a double as a whole number.
    assert delivery["headers"] == {"outbox-seq": 1, "outbox-key": "k-1", "outbox-causation-id": "ca", "s": "ü",
                                   "i": 9007199254740993, "d": 1, "t": True, "n": None}
    properties = delivery["properties"]
    expiration = int(properties.pop("expiration"))
    assert 3500_000 < expiration <= 3600_000
    assert abs(properties.pop("timestamp") - time.time()) < 60
    assert properties == {"type": "order.placed", "correlation_id": "co", "reply_to": None, "content_type": "application/json",
                          "delivery_mode": 2, "app_id": "outbox-relay"}


def test_commands_go_to_the_queue_and_replies_to_reply_to_by_the_default_exchange(database, broker):
    commands, answers = broker.oracle(broker.queue("commands")), broker.oracle(broker.queue("answers"))
    sent = database.value("SELECT outbox.send(%s, 'charge', '{}', reply_to => %s)::text", broker.name("commands"), broker.name("answers"))
    replied = database.value("SELECT outbox.reply(%s, 'c-1', 'charged', '{}')::text", broker.name("answers"))
    done, _ = drain(database)
    assert done.returncode == 0, done.stderr
    commands.await_ids([sent])
    answers.await_ids([replied])
    command, reply = commands.deliveries()[0], answers.deliveries()[0]
    assert command["properties"]["reply_to"] == broker.name("answers") and command["properties"]["correlation_id"] == sent
    assert reply["properties"]["correlation_id"] == "c-1" and reply["exchange"] == ""


def test_templates_address_any_exchange_type(database, broker):
    exchange = broker.exchange("direct", "direct")
    oracle = broker.oracle(broker.queue("all", exchange, "orders/42/event"))
    database.run("SELECT outbox.publish('orders', 't', '1', key => '42')")
    done, _ = drain(database, "amqp.exchange=" + exchange, "amqp.routing_key=${channel}/${key}/${kind}")
    assert done.returncode == 0, done.stderr
    wait_until(lambda: len(oracle.ids()) == 1, what="one delivery")


def test_declare_ensure_creates_the_exchange_and_passive_does_not(database, broker):
    name = broker.name("made")
    broker.exchanges.append(name)
    database.run("SELECT outbox.publish(%s, 't', '1')", name)
    done, summary = drain(database)
    assert done.returncode == 1 and summary["on_hold"] == 1
    assert f"exchange '{name}': 404" in done.stderr and "create it, or set amqp.declare: ensure" in done.stderr
    done, _ = drain(database, "amqp.declare=ensure", "amqp.exchange_type=fanout", "amqp.unroutable=accept")
    assert done.returncode == 0, done.stderr
    broker.channel.exchange_declare(name, exchange_type="fanout", durable=True, passive=True)


def test_an_unroutable_message_is_never_deleted_unless_events_accept_it(database, broker):
    exchange = broker.exchange("nobody")
    database.run("SELECT outbox.publish('a', 't', '1')")
    done, summary = drain(database, "amqp.exchange=" + exchange)
    assert done.returncode == 1 and summary["published"] == 0 and summary["dead_lettered"] == 0
    assert "unroutable: 312 NO_ROUTE" in done.stderr and database.left() == 1
    done, summary = drain(database, "amqp.exchange=" + exchange, "amqp.unroutable=accept")
    assert done.returncode == 0 and summary["published"] == 1
    database.run("SELECT outbox.send('no-such-queue', 't', '1')")
    done, summary = drain(database, "amqp.unroutable=accept")
    assert done.returncode == 1 and database.left() == 1, "a command without a queue is never accepted"
    assert "create queue 'no-such-queue'" in done.stderr


def test_of_two_retries_with_one_seq_the_one_that_nobody_took_is_never_deleted(database, broker):
    """A sequence that began anew (TRUNCATE ... RESTART IDENTITY, a logical replica): the broker returns a message without saying which delivery it was."""
    topic = broker.exchange("twice", "direct")
    oracle = broker.oracle(broker.queue("routed", topic, "routed"))
    rows = database.run("INSERT INTO outbox.scheduled (seq, id, kind, channel, type, headers, created_at, bytes, due_at)"
                        " SELECT i, gen_random_uuid(), 'event', %s, t, '{}', now(), 2, now() FROM generate_series(1, 30) i, unnest(ARRAY['routed', 'nowhere']) t"
                        " ORDER BY i, random() RETURNING id::text, type", topic)
    routed = {id_ for id_, type_ in rows if type_ == "routed"}
    drain(database, "workers=1", "drain.patience=0")
    oracle.await_ids(routed)
    kept = {row[0] for row in database.run("SELECT id::text FROM outbox.scheduled UNION ALL SELECT id::text FROM outbox.dead_letter")}
    assert kept >= {id_ for id_, type_ in rows if type_ == "nowhere"}, "what nobody took is still there"


def test_poison_among_good_rows_is_set_aside_and_a_missing_exchange_holds_its_channel(database, broker, start):
    """Done 4 of step 1."""
    topic = broker.exchange("topic")
    oracle = broker.oracle(broker.queue("orders", topic, "order.*"))
    missing = broker.name("missing")
    good = database.fill(500, channel=topic)
    unbound = database.value("INSERT INTO outbox.message (channel, type, payload) VALUES (%s, 'invoice.sent', '{}') RETURNING id::text", topic)
    giant = database.value("INSERT INTO outbox.message (channel, type, payload_bytes) VALUES (%s, 'order.giant', repeat('x', 200 << 20)::bytea)"
                           " RETURNING id::text", topic)
    stray = database.value("INSERT INTO outbox.message (channel, type, payload) VALUES (%s, 'order.placed', '{}') RETURNING id::text", missing)
    good |= database.fill(500, channel=topic)
    running = start("-d", database.conninfo, *amqp("retry.max_attempts=3", "retry.backoff_min=100ms", "retry.backoff_max=300ms",
                                                    "batch.max_message_bytes=256MiB"))

    def dead():
        return dict(database.run("SELECT id::text, reason || ': ' || last_error FROM outbox.dead_letter"))

    def more_good_ones_until_the_bad_one_is_dead():
        good.update(database.fill(5, channel=topic))
        return unbound in dead()

    wait_until(more_good_ones_until_the_bad_one_is_dead, 60, "death of the unroutable message")
    wait_until(lambda: giant in dead(), what="death of the giant")
    assert re.match(r"rejected: the payload has 209715200 bytes, RabbitMQ [0-9.]+ takes \d+: if its max_message_size is larger, set"
                    r" amqp.max_message_bytes", dead()[giant])
    assert dead()[unbound].startswith("attempts: unroutable: 312 NO_ROUTE") and "bind a queue" in dead()[unbound]
    assert database.run("SELECT attempts FROM outbox.dead_letter WHERE id = %s", unbound) == [(3,)]
    arrived = oracle.await_ids(good)
    assert sorted(arrived) == sorted(good), "every good one, none of them twice"
    # The row of the missing exchange stays; log and status name the channel and the fix.
    wait_until(lambda: database.run("SELECT id::text FROM outbox.message") == [(stray,)], what="the stray row alone")
    running.await_log(f"channel={missing}")
    assert "create it, or set amqp.declare: ensure" in running.log()
    held = wait_until(lambda: [hold for r in status(database)["relays"] for hold in r["holds"] if hold["channel"] == missing], what="a hold in status")
    assert "404" in held[0]["reason"]
    broker.queue("late", broker.exchange("missing"))
    late = broker.oracle(broker.name("late"))
    late.await_ids([stray], timeout=90)
    wait_until(lambda: database.left() == 0, what="an empty outbox")
    assert running.process.poll() is None


def test_a_full_queue_that_rejects_is_a_hold_and_empties_later(database, broker, start):
    exchange = broker.exchange("full")
    queue = broker.queue("small", exchange, x_max_length=5, x_overflow="reject-publish")
    ids = database.fill(50, channel="full")
    start("-d", database.conninfo, *amqp("amqp.exchange=" + exchange, "breaker.open_max=2s"))
    wait_until(lambda: broker.depth(queue) >= 5, what="a full queue")
    held = wait_until(lambda: [hold for r in status(database)["relays"] for hold in r["holds"]], what="a hold in status")
    assert "basic.nack" in held[0]["reason"]
    oracle = broker.oracle(queue)
    oracle.await_ids(ids, 90)
    wait_until(lambda: database.left() == 0, what="an empty outbox")
    assert database.value("SELECT count(*) FROM outbox.dead_letter") == 0


def test_a_message_larger_than_the_broker_takes_is_a_dead_letter_and_spares_its_neighbours(database, broker):
    exchange = broker.exchange("large")
    oracle = broker.oracle(broker.queue("all", exchange))
    limit = int(rabbitmqctl("eval", "rabbit_misc:get_env(rabbit, max_message_size, 0).").strip())
    rabbitmqctl("eval", "persistent_term:put(max_message_size, 100000), application:set_env(rabbit, max_message_size, 100000).")
    try:
        good = database.fill(20, channel="large")
        bad = database.value("INSERT INTO outbox.message (channel, type, payload_bytes) VALUES ('large', 't', repeat('x', 200000)::bytea) RETURNING id::text")
        good |= database.fill(20, channel="large")
        done, summary = drain(database, "amqp.exchange=" + exchange, "workers=1")
    finally:
        rabbitmqctl("eval", f"persistent_term:put(max_message_size, {limit}), application:set_env(rabbit, max_message_size, {limit}).")
    assert done.returncode == 1 and summary["dead_lettered"] == 1, done.stderr
    assert database.run("SELECT id::text, reason FROM outbox.dead_letter") == [(bad, "rejected")]
    arrived = oracle.await_ids(good)
    assert set(arrived) == good and max(arrived.count(i) for i in good) <= 3


@pytest.mark.parametrize("sql, reason", [
    ("SELECT outbox.publish('a', repeat('t', 200), '{}', key => repeat('k', 200))", "the routing key is longer than 255 bytes"),
    ("SELECT outbox.publish('a', 't', '{}', headers => '{\"x-delay\": 1}')", "header 'x-delay' means something to the broker"),
    ("SELECT outbox.publish('a', 't', '{}', headers => '{\"CC\": \"q\"}')", "header 'CC' would have to be a list"),
    ("SELECT outbox.publish('a', 't', '{}', headers => '{\"outbox-seq\": 7}')", "header 'outbox-seq' has a name that belongs to the relay"),
    ("SELECT outbox.publish('a', 't', '{}', headers => '{\"list\": [1]}')", "header 'list' is an array or object"),
    ("SELECT outbox.publish('a', 't', '{}', headers => jsonb_build_object(repeat('h', 256), 1))", "longer than 255 bytes"),
    ("SELECT outbox.publish('a', 't', '{}', headers => jsonb_build_object('h', repeat('v', 200000)))", "the headers are larger than one AMQP frame"),
])
def test_what_amqp_cannot_carry_is_a_dead_letter_and_the_session_survives(database, broker, sql, reason):
    exchange = broker.exchange("checked")
    oracle = broker.oracle(broker.queue("all", exchange))
    database.run(sql)
    good = database.fill(3)
    done, summary = drain(database, "amqp.exchange=" + exchange, "amqp.routing_key=${type}${key}", "workers=1")
    assert done.returncode == 1 and summary["dead_lettered"] == 1 and summary["possible_duplicates"] == 0, done.stderr
    assert reason in database.value("SELECT last_error FROM outbox.dead_letter")
    assert sorted(oracle.await_ids(good)) == sorted(good)


def test_headers_of_the_brokers_own_pass_when_they_are_allowed(database, broker):
    exchange = broker.exchange("special")
    oracle = broker.oracle(broker.queue("all", exchange))
    database.run("SELECT outbox.publish('a', 't', '{}', headers => jsonb_build_object('x-mine', 1))")
    done, _ = drain(database, "amqp.exchange=" + exchange, "amqp.allowed_headers=x-mine,x-other")
    assert done.returncode == 0, done.stderr
    wait_until(oracle.deliveries, what="the delivery")
    assert oracle.deliveries()[0]["headers"]["x-mine"] == 1


def test_several_brokers_are_tried_in_turn(database, broker):
    exchange = broker.exchange("turn")
    oracle = broker.oracle(broker.queue("all", exchange))
    ids = database.fill(10)
    done = relay("drain", "-q", "-d", database.conninfo, "-b", "amqp", "-o", "amqp.exchange=" + exchange,
                 "-o", f"amqp.url=amqp://127.0.0.1:1/,{AMQP_URL}")
    assert done.returncode == 0, done.stderr
    oracle.await_ids(ids)


def tls_url(host):
    return f"amqps://guest:guest@{host}:{os.environ['TEST_AMQPS_PORT']}/"


def test_tls_verifies_the_broker_and_delivers(database, broker):
    exchange = broker.exchange("tls")
    oracle = broker.oracle(broker.queue("all", exchange))
    ids = database.fill(10)
    done = relay("drain", "-q", "-d", database.conninfo, "-b", "amqp", "-o", "amqp.exchange=" + exchange,
                 "-o", "amqp.url=" + tls_url("localhost"), "-o", "amqp.tls.ca_file=" + os.environ["TEST_CA_FILE"])
    assert done.returncode == 0, done.stderr
    oracle.await_ids(ids)


@pytest.mark.parametrize("host, trusted", [("127.0.0.1", True), ("localhost", False)], ids=["wrong host name", "unknown authority"])
def test_tls_refuses_a_broker_that_it_cannot_verify(database, broker, host, trusted):
    exchange = broker.exchange("tls")
    queue = broker.queue("all", exchange)
    database.fill(10)
    arguments = ["-o", "amqp.tls.ca_file=" + os.environ["TEST_CA_FILE"]] if trusted else []
    done = relay("drain", "-q", "-d", database.conninfo, "-b", "amqp", "-o", "amqp.exchange=" + exchange,
                 "-o", "amqp.url=" + tls_url(host), "-o", "drain.unavailable_after=2s", *arguments)
    assert done.returncode == 69, done.stderr
    assert f"cannot connect to {host}" in done.stderr
    assert database.left() == 10 and broker.depth(queue) == 0


@pytest.mark.parametrize("url, code, text", [
    (f"amqp://guest:wrong@127.0.0.1:{PORT}/", 77, "refused the login"),
    (f"amqp://guest:guest@127.0.0.1:{PORT}/nowhere", 78, "vhost 'nowhere'"),
    ("amqp://guest:guest@127.0.0.1:1/", 69, "cannot connect to 127.0.0.1:1"),
    ("http://127.0.0.1/", 78, "amqp.url: entry 1 is not amqp://"),
])
def test_a_broker_that_cannot_be_used_ends_in_one_sentence_and_its_exit_code(database, url, code, text):
    database.fill(10)
    done = relay("drain", "-q", "-d", database.conninfo, "-b", "amqp", "-o", "amqp.url=" + url, "-o", "drain.unavailable_after=2s", timeout=60)
    assert done.returncode == code, done.stderr
    assert text in done.stderr.splitlines()[-1]
    assert "wrong" not in done.stderr.replace("wrong password", ""), "no password in the output"
    assert database.left() == 10


def test_heartbeats_are_serviced_while_the_relay_is_idle(database, broker, start):
    exchange = broker.exchange("idle")
    oracle = broker.oracle(broker.queue("all", exchange))
    running = start("-d", database.conninfo, *amqp("amqp.exchange=" + exchange, "amqp.heartbeat=1s", "poll.max=5s", "workers=1"))
    first = database.fill(1)
    oracle.await_ids(first)
    time.sleep(5)  # five times what the broker would tolerate silence for
    second = database.fill(1)
    oracle.await_ids(first | second)
    assert "no session" not in running.log()


def test_the_connection_carries_the_instances_name(database, broker, start):
    exchange = broker.exchange("named")
    broker.queue("all", exchange)
    start("-d", database.conninfo, "--instance", "shop-1", *amqp("amqp.exchange=" + exchange))
    wait_until(lambda: "outbox-relay/shop-1" in rabbitmqctl("list_connections", "client_properties"), 20, "the connection's name")


def test_messages_survive_a_restart_of_the_broker(database, broker):
    exchange = broker.exchange("durable")
    queue = broker.queue("all", exchange)
    ids = database.fill(100)
    done, _ = drain(database, "amqp.exchange=" + exchange)
    assert done.returncode == 0
    restart_server("rabbitmq")
    broker.connection = pika.BlockingConnection(pika.URLParameters(AMQP_URL + "?heartbeat=0"))
    broker.channel = broker.connection.channel()
    oracle = broker.oracle(queue)
    assert sorted(oracle.await_ids(ids)) == sorted(ids)


LARGE = 17 << 20


def fill_around_a_large_one(database, channel):
    """20 messages, one of 17 MiB, 20 messages; the ids of the small ones, and that of the large one."""
    small = database.fill(20, channel=channel)
    large = database.value("INSERT INTO outbox.message (channel, type, payload_bytes) VALUES (%s, 'order.large', repeat('x', %s)::bytea)"
                           " RETURNING id::text", channel, LARGE)
    return small | database.fill(20, channel=channel), large


def test_what_a_broker_of_this_version_does_not_take_is_a_dead_letter_at_once_and_its_neighbours_arrive_once(database, scripted):
    """RabbitMQ 4 takes 16 MiB; a larger message would cost the channel, and the confirms of its neighbours."""
    broker = scripted(properties={"product": "RabbitMQ", "version": "4.0.5"})
    small, large = fill_around_a_large_one(database, "orders")
    done = relay("drain", "-d", database.conninfo, *amqp(url=broker.url))
    assert done.returncode == 1, done.stderr
    assert sorted(broker.ids()) == sorted(small)
    assert database.run("SELECT id::text, reason, attempts FROM outbox.dead_letter") == [(large, "rejected", 0)]
    said = database.value("SELECT last_error FROM outbox.dead_letter")
    assert said == f"the payload has {LARGE} bytes, RabbitMQ 4.0.5 takes 16777216: if its max_message_size is larger, set amqp.max_message_bytes"


def test_who_knows_the_brokers_maximum_sets_it(database, scripted):
    broker = scripted(properties={"product": "RabbitMQ", "version": "4.0.5"})
    small, large = fill_around_a_large_one(database, "orders")
    done = relay("drain", "-d", database.conninfo, *amqp("amqp.max_message_bytes=20MiB", url=broker.url))
    assert done.returncode == 0, done.stderr
    assert sorted(broker.ids()) == sorted(small | {large})


def test_17_mib_arrive_where_the_real_broker_takes_them_and_are_a_dead_letter_where_it_does_not(database, broker):
    version = broker.connection._impl.server_properties["version"]
    version = version.decode() if isinstance(version, bytes) else version
    exchange = broker.exchange("orders")
    oracle = broker.oracle(broker.queue("all", exchange))
    small, large = fill_around_a_large_one(database, exchange)
    done = relay("drain", "-d", database.conninfo, *amqp())
    takes = int(version.split(".")[0]) < 4
    assert done.returncode == (0 if takes else 1), done.stderr
    oracle.await_ids(small | ({large} if takes else set()))
    Accounting.of_oracle(small | {large}, oracle, dead=database.dead()).check()
    assert database.dead() == (set() if takes else {large})
