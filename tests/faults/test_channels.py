"""Many channels that cannot go, and one that can: what one channel does is that channel's matter, however many of them there are."""
import collections
import json
import os
import re
import time

import pytest

from harness import amqp, relay, wait_until

GOOD = 1000


def summary_of(done):
    return json.loads(done.stdout)


def refusing_names(broker, kind):
    """Two exchanges that RabbitMQ refuses only when something is published to them."""
    names = []
    for word in ("one", "two"):
        name = broker.name(word)
        if kind == "internal":
            broker.channel.exchange_declare(name, exchange_type="topic", durable=True, internal=True)
            broker.exchanges.append(name)
        else:  # a declaration forgets the line break at the end of a name, and publishing does not
            broker.exchange(word)
            name += {"one": "\r", "two": "\n"}[word]
        names.append(name)
    return names


@pytest.mark.parametrize("mode", ["none", "key"])
@pytest.mark.parametrize("kind", ["internal", "line break"])
def test_channels_that_the_broker_refuses_at_publish_do_not_keep_the_good_ones_from_going(database, broker, start, kind, mode):
    """The breaker has no reason to open, however soon it would."""
    assert relay("migrate", "-d", database.conninfo, "--order", mode).returncode == 0
    topic = broker.exchange("good")
    oracle = broker.oracle(broker.queue("all", topic))
    for name in refusing_names(broker, kind):
        database.fill(3, channel=name)
    good = database.fill(GOOD, channel=topic)
    running = start("-d", database.conninfo, *amqp("order=" + mode, "breaker.failures=1"))
    oracle.await_ids(good, 15)
    wait_until(lambda: database.left() == 6, 15, "deletion of the good ones")
    assert "breaker is open" not in running.log() and running.process.poll() is None
    assert database.value("SELECT count(*) FROM outbox.scheduled") == 0 and not database.dead()
    assert max(collections.Counter(oracle.ids()).values()) <= 3


def test_a_channel_that_cost_a_session_is_sent_when_nothing_else_is_in_flight(database, broker, start):
    """It is tried again and again, and its neighbours do not notice."""
    topic = broker.exchange("good")
    oracle = broker.oracle(broker.queue("all", topic))
    (name, _) = refusing_names(broker, "internal")
    database.fill(3, channel=name)
    running = start("-d", database.conninfo, *amqp("workers=1", "breaker.open_min=50ms", "breaker.open_max=100ms", "poll.max=50ms", "log.level=debug"))
    good = set()

    def feed(seconds):
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            good.update(database.fill(20, channel=topic))
            time.sleep(0.02)  # the pace of a producer

    feed(3)  # it learns
    lost, losses = running.log().count("possible duplicates"), running.log().count("a refused message cost the session")
    feed(5)
    assert running.log().count("a refused message cost the session") > losses, "it was tried again"
    assert running.log().count("possible duplicates") == lost, "and cost nobody anything"
    oracle.await_ids(good, 20)


@pytest.mark.parametrize("good_ones_come", ["with_them", "afterwards"])
def test_a_probe_takes_a_row_of_a_channel_that_worked(database, broker, scripted, start, good_ones_come):
    """The broker comes back, and in front stands what it refuses: half-open must not go on for ever."""
    refused = []

    def on_message(session, message):
        if message.exchange.startswith("bad"):
            refused.append(message.id)
            session.close_channel(404, f"NOT_FOUND - no exchange '{message.exchange}' in vhost '/'")
        else:
            session.ack(message.tag)

    fake = scripted(on_message)
    running = start("-d", database.conninfo, *amqp("workers=1", "breaker.failures=1", "breaker.open_min=1s", "breaker.open_max=1s", url=fake.url))
    database.fill(5, channel="good")
    wait_until(lambda: database.left() == 0, what="evidence that one channel works")
    fake.sessions[-1].cut()
    running.await_log("breaker is open")
    before = len(fake.received)
    if good_ones_come == "afterwards":
        database.fill(2, channel="bad1")
        wait_until(lambda: refused, what="a refusal")
        ids = database.fill(5, channel="good")
    else:  # all of them in one moment
        both = database.run("INSERT INTO outbox.message (channel, type) SELECT CASE WHEN i > 2 THEN 'good' ELSE 'bad1' END, 't'"
                            " FROM generate_series(1, 7) i RETURNING id::text, channel")
        ids = {identity for identity, channel in both if channel == "good"}
        wait_until(lambda: len(fake.received) > before, what="the probe")
        assert fake.received[before].exchange == "good", "the probe takes what worked"
    wait_until(lambda: ids <= {message.id for message in fake.received}, 15, "the good ones")
    running.await_log("the broker can be reached again" if good_ones_come == "afterwards" else "the broker takes messages again")


def test_many_refused_channels_in_front_cost_a_session_each_and_no_outage(database, broker, scripted, start):
    """After a start in an outage, so that no channel has worked yet: each probe meets another refused one."""
    def on_message(session, message):
        if message.exchange.startswith("bad"):
            session.close_channel(403, f"ACCESS_REFUSED - write access to exchange '{message.exchange}' in vhost '/' refused for user 'u'")
        else:
            session.ack(message.tag)

    for number in range(30):
        database.fill(1, channel=f"bad{number}")
    ids = database.fill(200, channel="good")
    fake = scripted(on_message, on_ready=lambda session: session.cut() if session.number <= 2 else None)
    running = start("-d", database.conninfo, *amqp("workers=2", "breaker.failures=1", "breaker.open_min=1s", "breaker.open_max=60s", url=fake.url))
    running.await_log("breaker is open")
    wait_until(lambda: ids <= fake.accepted(), 60, "the good ones")
    assert database.left() >= 30


@pytest.mark.parametrize("kind", ["resting", "paused"])
def test_more_channels_than_fit_into_a_claims_text_end_a_drain_and_let_the_good_one_go(database, broker, kind):
    """2,500 names of 253 bytes: over half a megabyte."""
    topic = broker.exchange("good")
    broker.queue("all", topic)
    database.run("INSERT INTO outbox.message (channel, type, payload) SELECT rpad('bad' || i || '.', 253, 'x'), 't', '{}' FROM generate_series(1, 2500) i")
    if kind == "paused":
        database.run("INSERT INTO outbox.paused (scope) SELECT channel FROM outbox.message")
    database.fill(200, channel=topic)
    done = relay("drain", "-q", "--json", "-d", database.conninfo, *amqp("breaker.open_min=30m", "breaker.open_max=60m"), timeout=100)
    summary = summary_of(done)
    assert done.returncode == 1 and summary["published"] == 200 and summary["on_hold"] == 2500, (summary, done.stderr[-500:])
    assert database.left() == 2500


def plan_of(database, name, values):
    path = os.path.join(os.path.dirname(__file__), "../../schema/queries", name)
    with open(path, encoding="utf-8") as file:
        sql = re.sub(r"--.*", "", file.read())
    sql = re.sub(r"\$(\d+)", lambda match: values[int(match.group(1)) - 1], sql)
    with database.connection.cursor() as cursor:
        cursor.execute("EXPLAIN (VERBOSE) " + sql)
        return "\n".join(row[0] for row in cursor.fetchall())


@pytest.mark.parametrize("name, values", [
    ("claim.sql", ["0", "500", "8388608", "{}", "NULL", "NULL", "NULL", "NULL", "134217728", "NULL"]),
    ("claim_scheduled.sql", ["500", "8388608", "{}", "NULL", "NULL", "134217728", "NULL"]),
    ("look.sql", ["0", "{}", "NULL", "NULL"]),
    ("mark_rows.sql", ["0", "0", "1000000", "{}", "NULL", "NULL", "'{}'", "'f'", "'{}'", "NULL"]),
    ("drain_left.sql", ["1000000", "NULL", "NULL", "{}", "0", "'f'"]),
])
def test_a_row_is_looked_up_among_the_resting_channels_and_not_compared_with_each(database, name, values):
    """5,000 resting channels in front of 500,000 rows cost claims 25 s and more before."""
    resting = "ARRAY(SELECT 'channel ' || i FROM generate_series(1, 5000) i)"
    plan = plan_of(database, name, [value if value != "{}" else resting for value in values])
    assert "hashed SubPlan" in plan and "<> ALL" not in plan.replace("<> ALL ('{}'", ""), plan


@pytest.mark.parametrize("name, values", [
    ("claim.sql", ["0", "500", "8388608", "'{}'", "NULL", "NULL", "NULL", "NULL", "134217728", "{}"]),
    ("claim_scheduled.sql", ["500", "8388608", "'{}'", "NULL", "NULL", "134217728", "{}"]),
    ("mark_rows.sql", ["0", "0", "1000000", "'{}'", "NULL", "NULL", "'{}'", "'f'", "'{}'", "{}"]),
    ("lanes.sql", ["15", "0", "2", "0", "'{}'", "NULL", "NULL", "{}"]),
    ("claim_keyed.sql", ["0", "500", "8388608", "'{}'", "NULL", "NULL", "15", "'{0}'", "'{0}'", "134217728", "{}"]),
    ("lanes_scheduled.sql", ["15", "0", "2", "500", "'{}'", "NULL", "NULL", "0", "0", "{}"]),
])
def test_so_is_it_among_the_channels_that_are_asked_for_by_name(database, name, values):
    named = "ARRAY(SELECT 'channel ' || i FROM generate_series(1, 4000) i)"
    plain = plan_of(database, name, ["NULL" if value == "{}" else value for value in values])
    plan = plan_of(database, name, [named if value == "{}" else value for value in values])
    assert plan.count("hashed SubPlan") > plain.count("hashed SubPlan") and "= ANY (" not in plan, plan


def test_of_the_new_channels_in_a_batch_few_are_in_flight(database):
    """A session is lost with all that is in flight: the possible duplicates tell how much that was."""
    database.run("INSERT INTO outbox.message (channel, type, payload) SELECT 'new' || i, 't', '{}' FROM generate_series(1, 200) i")
    done = relay("drain", "-q", "--json", "-b", "fail", "-o", "fail.script=lost" + ",confirm" * 255, "-o", "workers=1", "-d", database.conninfo)
    summary = summary_of(done)
    assert summary["published"] == 200 and summary["possible_duplicates"] == 64, summary


def test_thousands_of_resting_channels_with_many_rows_in_front_do_not_keep_a_good_one_from_going(database, start):
    """The plan above at work: 2,000 channels on hold, 60,000 rows of theirs."""
    database.run("INSERT INTO outbox.message (channel, type, headers, payload) SELECT 'bad' || i % 2000, 't', '{\"fail\": \"hold\"}', '{}'"
                 " FROM generate_series(1, 60000) i")
    running = start("-d", database.conninfo, "-b", "fail", "-o", "fail.retry_after=1h", "-o", "batch.max_messages=2000", "-o", "log.level=error")
    wait_until(lambda: database.value("SELECT coalesce(sum(jsonb_array_length(holds)), 0) FROM outbox.relay") >= 1000, 60, "their rests")
    good = database.fill(10, channel="good")
    wait_until(lambda: not good & database.ids_left(), 20, "the good ones")
    assert database.left() == 60000 and running.process.poll() is None


def test_channels_whose_rests_end_all_the_time_do_not_fill_the_batches(database, start):
    """40 rows of each stand in front; tried as soon as their rests end, of 40 rows each, they leave no room for others."""
    database.run("INSERT INTO outbox.message (channel, type, headers, payload) SELECT 'bad' || i % 1000, 't', '{\"fail\": \"hold\"}', '{}'"
                 " FROM generate_series(1, 40000) i")
    running = start("-d", database.conninfo, "-b", "fail", "-o", "breaker.open_min=100ms", "-o", "breaker.open_max=200ms", "-o", "log.level=error")
    wait_until(lambda: database.value("SELECT coalesce(sum(jsonb_array_length(holds)), 0) FROM outbox.relay") >= 900, 60, "their holds")
    good = database.fill(5000, channel="good")
    wait_until(lambda: not good & database.ids_left(), 10, "the good ones")
    assert database.left() == 40000 and running.process.poll() is None


def test_a_pattern_pauses_what_it_matches_and_nothing_else(database):
    for channel in ("orders.eu", "orders.us", "orders_eu", "mails"):
        database.fill(3, channel=channel)
    assert relay("pause", "orders.*", "-d", database.conninfo).returncode == 0
    done = relay("drain", "-q", "--json", "-b", "null", "-d", database.conninfo)
    assert done.returncode == 1 and summary_of(done)["published"] == 6 and summary_of(done)["on_hold"] == 6
    assert database.run("SELECT DISTINCT channel FROM outbox.message ORDER BY 1") == [("orders.eu",), ("orders.us",)]
    assert relay("resume", "orders.*", "-d", database.conninfo).returncode == 0
    assert relay("pause", "?ails", "-d", database.conninfo).returncode == 0
    database.fill(1, channel="mails")
    done = relay("drain", "-q", "--json", "-b", "null", "-d", database.conninfo)
    assert summary_of(done)["published"] == 6 and database.run("SELECT DISTINCT channel FROM outbox.message") == [("mails",)]


def test_dead_letters_of_one_batch_are_told_in_one_line_for_channel_and_reason(database):
    database.run("INSERT INTO outbox.message (channel, type, headers) SELECT 'a', 't', '{\"fail\": \"reject\"}' FROM generate_series(1, 400)")
    database.run("INSERT INTO outbox.message (channel, type, expires_at) SELECT 'a', 't', now() - interval '1 s' FROM generate_series(1, 50)")
    done = relay("drain", "-q", "-b", "fail", "-d", database.conninfo, "--log-format", "json", "-o", "workers=1")
    told = [json.loads(line) for line in done.stderr.splitlines() if "set aside" in line]
    assert sorted((line["reason"], line["messages"]) for line in told) == [("expired", 50), ("rejected", 400)], told


# ---- idle, and something was away ----


def state(database):
    return database.value("SELECT max(state) FROM outbox.relay")


def test_an_idle_relay_whose_database_session_was_ended_says_running_again_within_seconds(database, start):
    running = start("-d", database.conninfo, "-b", "null")
    wait_until(lambda: state(database) == "running", what="its first row")
    database.run("ALTER DATABASE " + database.name + " CONNECTION LIMIT 1")
    database.run("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = current_database() AND application_name LIKE 'outbox-relay/%'")
    running.await_log("no connection to the database")
    time.sleep(1)  # it must have been away for a while
    database.run("ALTER DATABASE " + database.name + " CONNECTION LIMIT -1")
    running.await_log("connected to the database", 30)
    wait_until(lambda: state(database) == "running", 15, "running, although no message came")


def test_an_idle_relay_whose_broker_was_away_says_running_again_within_the_breakers_time(database, scripted, start):
    fake = scripted(lambda session, message: session.ack(message.tag))
    running = start("-d", database.conninfo, *amqp("breaker.failures=1", "breaker.open_max=1s", url=fake.url))
    wait_until(lambda: state(database) == "running" and fake.sessions, what="its first session")
    for session in list(fake.sessions):
        session.cut()
    running.await_log("breaker is open")
    wait_until(lambda: state(database) == "running", 20, "running, although no message came")
