"""The operator's commands: dead letters, pauses, explain."""
import json
import time

import pytest

from harness import amqp, relay, wait_until


def run(database, *arguments, user=None, **more):
    conninfo = database.conninfo.replace("user=postgres", f"user={user}") if user else database.conninfo
    return relay(*arguments, "-d", conninfo, **more)


def bury(database, count, channel="orders", reason="rejected"):
    """Dead letters, made by a relay whose backend rejects everything."""
    before = {row[0] for row in database.run("SELECT id::text FROM outbox.dead_letter")}
    database.fill(count, channel=channel)
    assert run(database, "drain", "-q", "-b", "fail", "-o", "fail.script=reject").returncode == 1
    database.run("UPDATE outbox.dead_letter SET reason = %s WHERE channel = %s", reason, channel)
    return {row[0] for row in database.run("SELECT id::text FROM outbox.dead_letter")} - before


# ---- dead letters -----------------------------------------------------------------------------------------------------------


def test_dead_letters_are_listed_counted_and_filtered(database):
    orders = bury(database, 3)
    bills = bury(database, 2, channel="bills.eu", reason="attempts")
    assert run(database, "dead", "list").stdout.count("\n") == 5
    for filters, wanted in ((["--channel", "bills.*"], bills), (["--reason", "rejected"], orders), (["--since", "1h"], orders | bills),
                            (["--channel", "order"], set()), (["--since", "1ms"], set())):
        document = json.loads(run(database, "dead", "list", "--json", *filters).stdout)
        assert {letter["id"] for letter in document["dead_letters"]} == wanted and document["count"] == len(wanted), filters
    letter = json.loads(run(database, "dead", "list", "--json", "--limit", "1").stdout)["dead_letters"][0]
    assert letter["backend"] == "fail" and letter["last_error"] == "the script of backend fail says so" and letter["seq"] > 0
    assert "no dead letters" in run(database, "dead", "list", "--channel", "none").stdout


def test_a_retried_dead_letter_keeps_id_and_seq_and_is_delivered(database, broker):
    ids = bury(database, 3)
    before = dict(database.run("SELECT id::text, seq FROM outbox.dead_letter"))
    one = sorted(ids)[0]
    assert run(database, "dead", "retry", one).stdout == "1 dead letter retried\n"
    assert dict(database.run("SELECT id::text, seq FROM outbox.scheduled WHERE attempts = 0")) == {one: before[one]}
    assert run(database, "dead", "retry", "--all", "--json").stdout == '{"retried":2}\n'
    exchange = broker.exchange("orders")
    oracle = broker.oracle(broker.queue("all", exchange))
    assert run(database, "drain", "-q", *amqp("amqp.exchange=" + exchange)).returncode == 0
    oracle.await_ids(ids)
    assert {d["id"]: d["seq"] for d in oracle.deliveries()} == before
    assert database.value("SELECT count(*) FROM outbox.dead_letter") == 0


def test_an_expired_dead_letter_that_is_retried_is_sent(database):
    """Its expiry was meant for the first time: with it, it would die again at once."""
    database.run("SELECT outbox.publish('orders', 't', '{}', ttl => '1 ms')")
    time.sleep(0.01)
    assert run(database, "drain", "-q", "-b", "null").returncode == 1
    run(database, "dead", "retry", "--reason", "expired")
    assert run(database, "drain", "-q", "-b", "null").returncode == 0
    assert database.value("SELECT count(*) FROM outbox.dead_letter") == 0


def test_a_dry_run_of_retry_and_discard_changes_nothing(database):
    bury(database, 4)
    for verb in ("retry", "discard"):
        done = run(database, "dead", verb, "--dry-run")
        assert done.returncode == 0 and "4 dead letters would be" in done.stdout and "nothing was done" in done.stdout
        assert "of these, the oldest 1 dead letter would be" in run(database, "dead", verb, "--limit", "1", "--dry-run").stdout
    assert database.value("SELECT count(*) FROM outbox.dead_letter") == 4


def test_discard_wants_a_yes(database):
    ids = bury(database, 4)
    refused = run(database, "dead", "discard", "--all")
    assert refused.returncode == 64 and "--yes" in refused.stderr
    assert database.value("SELECT count(*) FROM outbox.dead_letter") == 4
    assert run(database, "dead", "discard", "--yes", *sorted(ids)[:3]).stdout == "3 dead letters discarded\n"
    assert database.value("SELECT count(*) FROM outbox.dead_letter") == 1


def test_a_rate_spreads_the_retries_and_an_interrupt_leaves_the_rest_dead(database, start):
    bury(database, 40)
    slow = start("--rate", "10", "--all", "retry", "-d", database.conninfo, command="dead")
    wait_until(lambda: database.value("SELECT count(*) FROM outbox.scheduled") >= 20, what="the second piece")
    slow.kill()
    assert database.value("SELECT extract(epoch FROM max(due_at) - min(due_at)) FROM outbox.scheduled") > 0.5
    ((moved, dead),) = database.run("SELECT (SELECT count(*) FROM outbox.scheduled), (SELECT count(*) FROM outbox.dead_letter)")
    assert moved % 10 == 0 and moved + dead == 40


def test_export_and_show_give_back_every_byte(database):
    payload = '{"z": 1.50,   "text": "a\\nb \\u00e9"}'
    database.run("SELECT outbox.publish('orders', 't', %s, key => 'k', headers => '{\"h\": 1}')", payload)
    database.run("SELECT outbox.publish_bytes('orders', 't', '\\x00ff'::bytea)")
    run(database, "drain", "-q", "-b", "fail", "-o", "fail.script=reject")
    text, binary = (json.loads(line) for line in run(database, "dead", "export").stdout.splitlines())
    assert text["payload"] == payload and text["headers"] == {"h": 1} and text["key"] == "k" and text["reason"] == "rejected"
    assert binary["payload_base64"] == "AP8="
    shown = json.loads(run(database, "dead", "show", text["id"]).stdout)
    assert shown == text
    missing = run(database, "dead", "show", "00000000-0000-0000-0000-000000000000")
    assert missing.returncode == 64 and "no dead letter" in missing.stderr


@pytest.mark.parametrize("arguments, word", [
    (["dead", "bury"], "list, show, retry"), (["dead", "list", "--reason", "bad luck"], "--reason"), (["dead", "retry", "7"], "'7'"),
    (["dead", "list", "--since", "yesterday"], "--since"), (["dead", "retry", "--rate", "0"], "--rate"), (["dead", "show"], "which id"),
    (["pause", "a", "b"], "one channel"), (["pause", "--for", "soon"], "--for"), (["pause", "--for", "999999999h"], "ten years"), (["explain"], "--id"), (["explain", "--id", "x"], "'x'")])
def test_bad_arguments_are_64_and_named(database, arguments, word):
    done = run(database, *arguments, *(["-b", "null"] if arguments[0] == "explain" else []))
    assert done.returncode == 64 and word in done.stderr


def test_the_relays_own_role_may_do_all_of_it(database):
    user = f"u_{database.name}"
    ids = bury(database, 2)
    database.run(f"CREATE ROLE {user} LOGIN IN ROLE outbox_relay")
    try:
        for arguments in (["dead", "list"], ["dead", "retry", "--all", "--limit", "1"], ["dead", "discard", "--all", "--yes"], ["pause", "orders", "--wait"],
                          ["resume", "orders"], ["status"], ["dead", "export"]):
            done = run(database, *arguments, user=user)
            assert done.returncode == 0, (arguments, done.stderr)
        waiting = database.value("SELECT id::text FROM outbox.scheduled")
        assert waiting in ids and run(database, "explain", "--id", waiting, "-b", "null", user=user).returncode == 0
    finally:
        database.run(f"DROP ROLE {user}")


def test_a_retry_ends_although_its_letters_die_again(database, start):
    """Or poison would be sent again every second for ever."""
    bury(database, 3)
    start("-d", database.conninfo, "-b", "fail", "-o", "fail.script=reject", "-o", "poll.max=50ms")
    done = run(database, "dead", "retry", "--all", "--rate", "1", timeout=20)
    assert done.returncode == 0 and done.stdout == "3 dead letters retried\n"


def test_export_survives_a_payload_that_jsonb_cannot_hold(database):
    database.run("SELECT outbox.publish('orders', 't', %s::json)", '{"a": "x\\u0000"}')
    bury(database, 1)
    lines = run(database, "dead", "export").stdout.splitlines()
    assert len(lines) == 2 and json.loads(lines[0])["payload"] == '{"a": "x\\u0000"}'


def test_what_a_list_prints_cannot_move_the_cursor(database):
    database.run("SELECT outbox.publish('orders', 't', '{}', key => E'\\x1b[2Jk\\n')")
    bury(database, 1)
    listed = run(database, "dead", "list").stdout
    assert "\x1b" not in listed and listed.count("\n") == 2


# ---- pauses -----------------------------------------------------------------------------------------------------------------


def test_a_paused_channel_rests_alone_until_it_is_resumed(database, broker, start):
    exchange = broker.exchange("orders")
    oracle = broker.oracle(broker.queue("all", exchange))
    assert run(database, "pause", "slow", "--reason", "upgrade").returncode == 0
    start("-d", database.conninfo, *amqp("amqp.exchange=" + exchange, "poll.max=50ms"))
    slow, quick = database.fill(10, channel="slow"), database.fill(10, channel="quick")
    assert set(oracle.await_ids(quick)) == quick
    status = run(database, "status")
    assert status.stdout.startswith("PAUSED: channel slow by postgres") and "upgrade" in status.stdout
    assert json.loads(run(database, "status", "--json").stdout)["paused"][0]["scope"] == "slow"
    assert run(database, "resume", "slow").stdout == "channel slow: resumed\n"
    oracle.await_ids(slow)
    assert run(database, "resume", "slow").stdout == "channel slow: was not paused\n"


def test_a_pause_of_all_survives_a_restart_and_ends_by_itself(database):
    database.fill(5)
    assert run(database, "pause", "--for", "1m").returncode == 0
    done = run(database, "drain", "-q", "--json", "-b", "null")
    assert done.returncode == 1 and json.loads(done.stdout)["on_hold"] == 5 and database.left() == 5
    database.run("UPDATE outbox.paused SET until = until - interval '59 s'")
    wait_until(lambda: run(database, "drain", "-q", "-b", "null").returncode == 0, 10, "the end of the pause")
    assert database.left() == 0


def test_retries_of_a_paused_channel_wait_too(database):
    database.fill(1)
    database.run("INSERT INTO outbox.scheduled (seq, id, kind, channel, type, headers, payload, created_at, bytes, due_at)"
                 " SELECT seq, id, kind, channel, type, headers, payload, created_at, bytes, now() FROM outbox.message;"
                 " DELETE FROM outbox.message")
    run(database, "pause", "orders")
    assert run(database, "drain", "-q", "-b", "null").returncode == 1
    assert database.value("SELECT count(*) FROM outbox.scheduled") == 1
    run(database, "resume", "orders")
    assert run(database, "drain", "-q", "-b", "null").returncode == 0
    assert database.value("SELECT count(*) FROM outbox.scheduled") == 0


def test_pause_wait_returns_when_nothing_that_began_before_is_in_flight(database, start):
    database.fill(5)
    start("-d", database.conninfo, "-b", "fail", "-o", "fail.script=hang", "-o", "publish_timeout=3s")
    wait_until(lambda: database.open_transactions() > 0, what="a batch in flight")
    waiting = start("orders", "--wait", "-d", database.conninfo, command="pause")
    wait_until(lambda: database.value("SELECT count(*) FROM outbox.paused"), what="the pause")
    open_ones = "SELECT pid, xact_start FROM pg_stat_activity WHERE datname = current_database() AND application_name LIKE 'outbox-relay/%%' AND state LIKE 'idle in%%'"
    in_flight = set(database.run(open_ones))
    assert in_flight and waiting.process.poll() is None
    assert "nothing of it is in flight" in waiting.output(30) and waiting.process.returncode == 0
    assert not in_flight & set(database.run(open_ones))


# ---- explain ----------------------------------------------------------------------------------------------------------------


def explain(database, identity, *more):
    return json.loads(run(database, "explain", "--json", "--id", identity, *more).stdout)


def test_explain_says_what_would_be_sent_and_where_to_and_sends_nothing(database, broker):
    exchange = broker.exchange("orders")
    queue = broker.queue("all", exchange)
    identity = database.value("SELECT outbox.publish('orders', 'order.placed', '{\"n\": 1}', key => 'k')::text")
    told = explain(database, identity, *amqp("amqp.exchange=" + exchange))
    assert told["destination"] == f"exchange {exchange}, routing key order.placed"
    assert (told["stands_in"], told["payload"], told["key"], told["waits_for"]) == ("outbox.message", '{"n": 1}', "k", "")
    command = database.value("SELECT outbox.send('bills', 'charge', '{}')::text")
    assert explain(database, command, *amqp())["destination"] == "the default exchange, queue bills"
    assert database.left() == 2 and broker.depth(queue) == 0


def test_explain_names_the_rejection_and_hides_secrets(database):
    identity = database.value("SELECT outbox.publish('orders', 't', '{}', headers => '{\"x-delay\": 1}')::text")
    assert "amqp.allowed_headers" in explain(database, identity, *amqp())["would_be_rejected"]
    done = run(database, "explain", "--id", identity, "-b", "http", "-o", "http.url=https://user:pass@example.com/${channel}")
    assert "POST https://example.com/orders" in done.stdout and "pass" not in done.stdout + done.stderr


def test_explain_says_that_a_channel_rests_and_that_a_relay_is_blocked(database, start):
    identity = database.value("SELECT outbox.publish('orders', 't', '{}')::text")
    running = start("-d", database.conninfo, "-b", "fail", "-o", "fail.script=hold", "-o", "retry.backoff_min=30s", "--instance", "r1")
    running.await_log("channel is on hold")
    wait_until(lambda: "its channel rests, says relay r1: " in explain(database, identity, "-b", "null")["waits_for"], what="explain that tells of the rest")
    running.process.terminate()
    assert running.process.wait(20) == 0
    start("-d", database.conninfo, "-b", "http", "-o", "http.url=http://127.0.0.1:1/", "-o", "breaker.failures=1", "--instance", "r2")
    wait_until(lambda: "relay r2 is blocked: " in explain(database, identity, "-b", "null")["waits_for"], what="explain that tells of the breaker")


def test_explain_says_what_a_message_waits_for(database):
    assert run(database, "migrate", "--order", "key").returncode == 0
    first, second = (database.value("SELECT outbox.publish('orders', 't', '{}', key => 'k')::text") for _ in range(2))
    assert f"waits behind message {first} of its key" in explain(database, second, "-b", "null")["waits_for"]
    run(database, "pause", "orders")
    assert explain(database, first, "-b", "null")["waits_for"] == "its channel is paused"
    run(database, "resume", "orders")
    assert explain(database, first, "-b", "null", "-o", "channels.exclude=ord*")["waits_for"] == "the channels of this configuration leave it out"
    assert explain(database, first, "-b", "null", "-o", "channels.include=other")["waits_for"] == "the channels of this configuration leave it out"
    assert explain(database, first, "-b", "null", "-o", "channels.include=ord*")["waits_for"] == ""
    run(database, "drain", "-q", "-b", "fail", "-o", "fail.script=reject", "-o", "order=key")
    told = explain(database, first, "-b", "null")
    assert told["stands_in"] == "outbox.dead_letter" and f"outbox-relay dead retry {first}" in told["waits_for"]
    unknown = run(database, "explain", "--id", "00000000-0000-0000-0000-000000000000", "-b", "null")
    assert unknown.returncode == 64 and "delivered, or never committed" in unknown.stderr


def test_status_of_very_many_relays_rests_and_pauses_tells_the_first_and_how_many_more(database):
    database.run("INSERT INTO outbox.relay (instance, version, backend, host, pid, state, holds, seen_at) SELECT 'relay' || i, '1', 'x', 'h', 1, 'running',"
                 " (SELECT jsonb_agg(jsonb_build_object('channel', repeat('c', 250) || n, 'reason', repeat('r', 300))) FROM generate_series(1, 230) n),"
                 " now() - interval '1 hour' * (i - 1) FROM generate_series(1, 300) i")
    database.run("INSERT INTO outbox.paused (scope, paused_by) SELECT 'c' || i, 'me' FROM generate_series(1, 1500) i")
    done = run(database, "status")
    assert done.returncode == 0 and [line for line in done.stdout.splitlines() if " more " in line] == [
        "ON HOLD: and 130 more channels", "PAUSED: and 500 more scopes", "  and 100 more relays"], done.stdout[-500:]
    told = json.loads(run(database, "status", "--json").stdout)
    assert (len(told["relays"]), len(told["paused"]), told["paused_more"], told["relays_more"], told["relays"][0]["holds_more"]) == (200, 1000, 500, 100, 130)
