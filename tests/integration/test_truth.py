"""What is said is so: status, check, exit codes and the log never call well what is not, and say what would mend it."""
import contextlib
import json
import os
import signal
import subprocess
import threading
import time

import jsonschema
import psycopg2
import pytest
import yaml

from harness import AMQP_URL, DATABASE, RELAY, amqp, clean_environment, http, rabbitmqctl, relay, wait_until
from receiver import Answer

HERE = os.path.dirname(os.path.abspath(__file__))


def said(*arguments):
    done = relay(*arguments)
    return done.returncode, done.stdout + done.stderr


# ---- a reload that cannot be run ----


@pytest.mark.parametrize("mistake, text", [("order: key", "this outbox is not ordered"), ("database: '%(database)s dbname=mistyped'", "mistyped"),
                                           ("database: 'host=127.0.0.1 port=1 user=postgres'", "refused"), ("backend: nonsense", "nonsense"),
                                           ("backend: amqp\namqp: {url: 'amqp://nobody:wrong@127.0.0.1:%(amqp)s/'}", "ACCESS_REFUSED"),
                                           ("backend: amqp\namqp: {url: 'amqps://127.0.0.1:%(amqp)s/', tls: {ca_file: /none.pem}}", "/none.pem")])
def test_a_reload_that_could_not_run_keeps_the_old_configuration(database, start, tmp_path, mistake, text):
    file = tmp_path / "relay.yaml"
    good = f"database: '{database.conninfo}'\nbackend: 'null'\n"
    file.write_text(good)
    running = start("-c", str(file))
    running.await_log("running")
    key = mistake.split(":")[0]
    kept = "".join(line + "\n" for line in good.splitlines() if not line.startswith(key + ":"))
    file.write_text(kept + mistake % {"database": DATABASE, "amqp": AMQP_URL.rsplit(":", 1)[1].split("/")[0]} + "\n")
    running.signal(signal.SIGHUP)
    running.await_log("the old one stays", 20)
    assert text in running.log()
    ids = database.fill(5)
    wait_until(lambda: not ids & database.ids_left(), what="messages go on")
    assert running.process.poll() is None
    file.write_text(good + "workers: 3\n")
    running.signal(signal.SIGHUP)
    wait_until(lambda: "workers=3" in running.log(), 30, "the good one")


def test_a_reload_tells_mistakes_as_events_of_the_log(database, start, tmp_path):
    file = tmp_path / "relay.yaml"
    file.write_text(f"database: '{database.conninfo}'\nbackend: 'null'\n")
    running = start("-c", str(file), "--log-format", "json")
    running.await_log('"msg":"running"')
    file.write_text(f"database: '{database.conninfo}'\nbackend: 'null'\nworkers: many\nbrekaer: 1\n")
    running.signal(signal.SIGHUP)
    running.await_log("the old one stays", 20)
    events = [json.loads(line) for line in running.log().splitlines()]
    told = [event["place"] for event in events if event["msg"] == "configuration"]
    assert len(told) == 2 and told[0].startswith(f"{file}:3:") and "did you mean" in told[1], told


def test_a_broker_that_is_away_is_no_reason_to_refuse_a_configuration(database, start, tmp_path):
    file = tmp_path / "relay.yaml"
    file.write_text(f"database: '{database.conninfo}'\nbackend: 'null'\n")
    running = start("-c", str(file))
    running.await_log("running")
    file.write_text(f"database: '{database.conninfo}'\nbackend: amqp\namqp: {{url: 'amqp://127.0.0.1:1/'}}\n")
    running.signal(signal.SIGHUP)
    running.await_log("the broker of the new configuration cannot be reached", 20)
    running.await_log("backend=amqp", 20)


# ---- what was typed wrongly ----


@pytest.mark.parametrize("option, text", [('channels.include=["orders"]', "channels.include: write one,another, without brackets"),
                                          ("http.headers={a: b}", "http.headers: write NAME=VALUE,NAME=VALUE, without brackets"),
                                          ("http.headers=X-Api-Key: sesame", "http.headers: '***' is not NAME=VALUE")])
def test_lists_of_the_command_line_have_no_brackets_and_secrets_stay_so(option, text):
    code, told = said("check", "-d", "dbname=x", "-b", "http", "-o", "http.url=http://x/", "-o", option)
    assert code == 78 and text in told and "sesame" not in told, told


@pytest.mark.parametrize("database, text", [("postgresql://u:sesa%me@127.0.0.1/db", "invalid percent-encoded token"), ("postgresq://u:sesame@127.0.0.1:1/db", "a word without '='"),
                                            ("host=h password=se same", "a word without '='"), ("hst=foo", 'invalid connection option "hst"')])
def test_a_connection_string_that_cannot_be_read_is_a_mistake_of_the_configuration_and_is_not_quoted(database, text, tmp_path):
    secret = tmp_path / "database"
    secret.write_text(database)
    for how in (["check", "-d", database], ["run", "-o", f"database_file={secret}"], ["status", "-d", database]):
        code, told = said(*how, *(["-b", "null"] if how[0] != "status" else []))
        assert code == 78 and text in told and "written %XX" in told and "same" not in told and "sesa" not in told, (how, told)


def test_a_list_of_channels_that_lets_nothing_through_is_refused(tmp_path):
    file = tmp_path / "relay.yaml"
    file.write_text("database: dbname=x\nbackend: 'null'\nchannels:\n  include: []\n")
    code, told = said("check", "-c", str(file))
    assert code == 78 and f"{file}:4:12: channels.include: an empty list lets nothing through" in told, told


def test_a_file_of_a_list_has_an_entry_on_each_line(tmp_path):
    urls = tmp_path / "urls"
    urls.write_text("amqp://one/\namqp://two/\n")
    shown = yaml.safe_load(relay("config", "show", "-d", "dbname=x", "-b", "amqp", "-o", f"amqp.url_file={urls}").stdout)
    assert len(shown["amqp.url"]) == 2


def test_a_dead_letter_that_is_not_there_is_told_and_the_others_are_done(database):
    database.run("INSERT INTO outbox.message (channel, type, expires_at) VALUES ('a', 't', now())")
    assert relay("drain", "-q", "-d", database.conninfo, "-b", "null").returncode == 1
    there, missing = database.value("SELECT id::text FROM outbox.dead_letter"), "2dffab5b-c69c-497d-b9d8-4cffeb3b5339"
    for action in ("show", "retry"):
        done = relay("dead", action, "-d", database.conninfo, missing)
        assert done.returncode == 64 and f"no dead letter of this selection has the id {missing}\n" in done.stderr, done.stderr
    done = relay("dead", "retry", "-d", database.conninfo, missing, there.upper())
    assert done.returncode == 64 and "1 dead letter retried" in done.stdout and missing in done.stderr and database.value("SELECT count(*) FROM outbox.scheduled") == 1


def test_a_user_without_any_grant_is_told_the_grant(database):
    with contextlib.closing(psycopg2.connect(database.conninfo)) as owner:
        owner.autocommit = True
        owner.cursor().execute("DROP ROLE IF EXISTS stranger_without; CREATE ROLE stranger_without LOGIN")
    stranger = database.conninfo.replace("user=postgres", "user=stranger_without")
    for command in (["check", "--connect", "-b", "null"], ["drain", "-b", "null"], ["status"], ["dead", "list"]):
        code, told = said(*command, "-d", stranger)
        assert code == 77 and "GRANT outbox_relay TO this user" in told, (command, code, told)


def test_a_drain_that_never_looked_does_not_say_what_is_left(database):
    database.fill(3)
    done = relay("drain", "--json", "-d", database.conninfo, "-b", "null", "--max-time", "0")
    assert done.returncode == 75 and json.loads(done.stdout)["left"] is None and "away or busy" not in done.stderr, done.stdout + done.stderr


# ---- names and rows of relays ----


def test_two_relays_of_one_name_are_warned_and_one_that_ends_does_not_take_the_others_row_along(database, start):
    first = start("-d", database.conninfo, "-b", "null", "--instance", "twin")
    wait_until(lambda: database.value("SELECT count(*) FROM outbox.relay") == 1, what="the first's row")
    second = start("-d", database.conninfo, "-b", "null", "--instance", "twin")
    second.await_log("another relay runs under the same name", 20)
    first.signal(signal.SIGTERM)
    assert first.wait() == 0
    assert database.run("SELECT pid FROM outbox.relay") == [(second.pid,)]
    code, text = said("status", "-d", database.conninfo)
    assert code == 0 and "OK: 1 relay is running" in text, text


def test_a_relay_that_was_killed_and_is_back_is_no_namesake_of_its_own(database, start):
    first = start("-d", database.conninfo, "-b", "null", "--instance", "phoenix")
    wait_until(lambda: database.value("SELECT count(*) FROM outbox.relay") == 1, what="its row")
    first.kill()
    second = start("-d", database.conninfo, "-b", "null", "--instance", "phoenix")
    second.await_log("if it still runs")
    wait_until(lambda: database.value("SELECT seen_at > started_at + interval '5 s' FROM outbox.relay"), what="its second write")
    assert "another relay runs" not in second.log()


def test_due_retries_that_no_relay_carries_are_told_as_a_stop(database):
    database.run("INSERT INTO outbox.scheduled (seq, id, kind, channel, type, headers, created_at, bytes, due_at)"
                 " SELECT i, gen_random_uuid(), 'event', 'a', 't', '{}', now(), 2, now() FROM generate_series(1, 10) i")
    _, text = said("status", "-d", database.conninfo)
    assert "STOPPED: no relay is running and 10 messages wait" in text, text


# ---- strangers ----


@contextlib.contextmanager
def stranger(database, *statements):
    connection = psycopg2.connect(database.conninfo, application_name="a forgotten psql")
    with connection.cursor() as cursor:
        for statement in statements:
            cursor.execute(statement)
        yield connection.info.backend_pid
    connection.close()


def test_a_relay_under_another_application_name_is_no_stranger(database, receiver, start):
    database.run("DROP SCHEMA outbox CASCADE")
    assert relay("migrate", "--order", "key", "-d", database.conninfo).returncode == 0
    gate = threading.Event()
    receiver.answer = lambda request: Answer(200 if gate.wait(20) else 500)
    database.fill(3)
    start("-d", database.conninfo + " application_name=shop", *http(receiver.url, "order=key"))
    wait_until(lambda: receiver.requests, what="a batch in flight")
    code, text = said("status", "-d", database.conninfo)
    gate.set()
    assert code == 0 and "IN THE WAY" not in text, text


def test_a_stranger_who_has_locked_the_first_message_is_named(database, start):
    database.fill(3)
    with stranger(database, "SELECT 1 FROM outbox.message ORDER BY seq LIMIT 1 FOR UPDATE") as pid:
        running = start("-d", database.conninfo, "-b", "null")
        wait_until(lambda: database.left() == 1, what="the others")
        running.await_log("somebody stands in the way", 40)
        assert f"process {pid} ('a forgotten psql', user postgres)" in running.log()
        wait_until(lambda: "IN THE WAY: the first message that waits" in said("status", "-d", database.conninfo)[1], what="status")
        _, text = said("status", "-d", database.conninfo)
        assert f"process {pid} ('a forgotten psql', user postgres)" in text and f"pg_terminate_backend({pid})" in text and "OK:" not in text, text
        assert any(str(pid) in one for one in json.loads(relay("status", "--json", "-d", database.conninfo).stdout)["strangers"])
        done = relay("drain", "-q", "-b", "null", "-d", database.conninfo)
        assert done.returncode == 75 and f"process {pid}" in done.stderr, done.stderr
    wait_until(lambda: database.left() == 0, what="the last one")


def test_a_stranger_who_holds_a_lane_of_the_order_is_named(database):
    assert relay("migrate", "-d", database.conninfo, "--order", "key", "--lanes", "4").returncode == 0
    database.run("SELECT outbox.publish('a', 't', '{}', key => 'k')")
    with stranger(database, "SELECT pg_advisory_lock('outbox.message'::regclass::oid::int, lane) FROM generate_series(0, 3) lane") as pid:
        done = relay("drain", "-q", "-b", "null", "-d", database.conninfo, "-o", "order=key")
        assert done.returncode == 75 and f"process {pid}" in done.stderr and "lanes" in done.stderr, done.stderr
        assert f"process {pid}" in said("status", "-d", database.conninfo)[1]


# ---- pauses and dead letters ----


def test_a_pause_of_what_is_not_there_says_so_and_a_resume_names_what_is_paused(database):
    database.fill(2, channel="orders")
    assert said("pause", "orders", "-d", database.conninfo) == (0, "channel orders: paused\n")
    code, text = said("pause", "ghost", "-d", database.conninfo)
    assert code == 0 and "channel ghost: paused\nnote: no message that is here concerns that: is the name right?" in text
    assert "channels like ord*: paused\n" == said("pause", "ord*", "-d", database.conninfo)[1]
    code, text = said("resume", "oders", "-d", database.conninfo)
    assert code == 0 and text == "channel oders: was not paused\npaused are: ghost, ord*, orders\n"


def test_a_resume_tells_what_still_holds_and_a_pause_of_no_time_is_a_mistake(database):
    for scope in ([], ["orders"], ["ord*"]):
        assert said("pause", *scope, "-d", database.conninfo)[0] == 0
    assert said("resume", "-d", database.conninfo) == (0, "all channels: resumed\nstill paused are: ord*, orders\n")
    assert said("resume", "orders", "-d", database.conninfo) == (0, "channel orders: resumed\nstill paused are: ord*\n")
    assert said("resume", "ord*", "-d", database.conninfo) == (0, "channels like ord*: resumed\n")
    code, text = said("pause", "orders", "--for", "0", "-d", database.conninfo)
    assert code == 64 and "--for 0 pauses nothing" in text


def test_a_running_relay_tells_that_channels_were_paused_and_that_none_is_any_more(database, start):
    running = start("-d", database.conninfo, "-b", "null")
    running.await_log("running")
    relay("pause", "orders", "-d", database.conninfo)
    running.await_log("an operator has paused channels")
    assert "{orders}" in running.log()
    relay("resume", "orders", "-d", database.conninfo)
    running.await_log("no pause is in force any more")


def bury(database, count):
    database.run("INSERT INTO outbox.dead_letter (seq, id, kind, channel, type, headers, payload, created_at, bytes, backend, attempts, reason, last_error)"
                 " SELECT i, gen_random_uuid(), 'event', 'a', 't', '{}', '{}', now(), 4, 'null', 0, 'rejected', 'why' FROM generate_series(1, %s) i", count)


@pytest.mark.parametrize("limit", [1, 2, 19, 20, 21, 50])
def test_an_export_has_as_many_lines_as_the_limit_says(database, limit):
    bury(database, 45)
    done = relay("dead", "export", "--limit", str(limit), "-d", database.conninfo)
    assert done.returncode == 0 and len(done.stdout.splitlines()) == min(limit, 45)


def test_an_export_of_large_ones_is_whole_and_in_pages_of_bytes(database):
    bury(database, 30)
    database.run("UPDATE outbox.dead_letter SET payload_bytes = convert_to(repeat('x', 1 << 20), 'UTF8'), payload = NULL, bytes = 1 << 20 WHERE seq % 2 = 0")
    done = relay("dead", "export", "-d", database.conninfo)
    seqs = [json.loads(line)["seq"] for line in done.stdout.splitlines()]
    assert seqs == list(range(1, 31))


@pytest.mark.parametrize("verb", ["retry", "discard"])
def test_all_dead_letters_are_meant_only_if_that_is_said(database, verb):
    bury(database, 3)
    code, text = said("dead", verb, "--yes", "-d", database.conninfo)
    assert code == 64 and "--all" in text
    assert database.value("SELECT count(*) FROM outbox.dead_letter") == 3
    code, text = said("dead", verb, "--yes", "--all", "--limit", "1", "-d", database.conninfo)
    assert code == 0 and text == ("1 dead letter retried\n" if verb == "retry" else "1 dead letter discarded\n")
    code, text = said("dead", verb, "--yes", "--channel", "a", "-d", database.conninfo)
    assert code == 0 and text.startswith("2 dead letters ")


def test_a_selection_of_dead_letters_that_is_empty_says_that_it_is_one(database):
    bury(database, 1)
    assert "of that selection" in said("dead", "list", "--channel", "nobody", "-d", database.conninfo)[1]


# ---- what is gone, and what would be refused ----


def dropped(database):
    """PostgreSQL may choose the one who drops as the victim of a deadlock with a claim."""
    try:
        database.run("DROP SCHEMA outbox CASCADE")
    except psycopg2.errors.DeadlockDetected:
        return False
    return True


def test_a_schema_that_is_dropped_under_a_running_relay_is_told_in_the_words_of_the_start(database, start):
    running = start("-d", database.conninfo, "-b", "null")
    running.await_log("running")
    wait_until(lambda: dropped(database), what="DROP SCHEMA")
    running.await_log("run 'outbox-relay migrate' as its owner", 30)
    running.kill()


def test_what_somebodys_trigger_misses_is_not_told_as_our_schema(database):
    database.run("CREATE FUNCTION public.audit() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN INSERT INTO audit_log VALUES (1); RETURN OLD; END $$")
    database.run("CREATE TRIGGER audit BEFORE DELETE ON outbox.message FOR EACH ROW EXECUTE FUNCTION public.audit()")
    database.fill(1)
    done = relay("drain", "-d", database.conninfo, "-b", "null", "-o", "drain.unavailable_after=1s")
    assert done.returncode != 0 and "audit_log" in done.stderr and "not installed" not in done.stderr, done.stderr


def test_a_relay_whose_confirmed_rows_stay_is_not_well(database, start):
    database.run("CREATE FUNCTION public.keep() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END'")
    database.run("CREATE TRIGGER keep BEFORE DELETE ON outbox.message FOR EACH ROW EXECUTE FUNCTION public.keep()")
    database.fill(3)
    start("-d", database.conninfo, "-b", "null")
    wait_until(lambda: "does a trigger" in said("status", "-d", database.conninfo)[1], 30, "a status that tells")
    database.run("DROP TRIGGER keep ON outbox.message")
    wait_until(lambda: database.left() == 0, 30, "their end")


def test_rows_ahead_of_the_sequence_are_aimed_at(database):
    """Logical replication carries rows and no sequences: after a failover, the sequence stands at its beginning."""
    database.fill(5)
    database.run("SELECT setval('outbox.message_seq', 1, false)")
    done = relay("drain", "-q", "--json", "-d", database.conninfo, "-b", "null")
    assert done.returncode == 0 and json.loads(done.stdout)["published"] == 5, done.stdout


def test_a_drain_that_reaches_its_limit_with_the_last_message_has_drained(database):
    database.fill(5)
    done = relay("drain", "-q", "--json", "-d", database.conninfo, "-b", "null", "--max-messages", "5")
    assert done.returncode == 0 and json.loads(done.stdout)["left"] == 0, done.stdout
    database.fill(5)
    done = relay("drain", "-q", "--json", "-d", database.conninfo, "-b", "null", "--max-messages", "4")
    assert done.returncode == 75 and json.loads(done.stdout)["left"] == 1, done.stdout


def test_check_meets_what_run_would_meet_at_a_broker_of_one_channel(database):
    rabbitmqctl("eval", "application:set_env(rabbit, channel_max, 1).")
    try:
        code, text = said("check", "--connect", "-d", database.conninfo, *amqp())
        assert code == 78 and "channel_max" in text, text
    finally:
        rabbitmqctl("eval", "application:set_env(rabbit, channel_max, 2047).")


def test_a_missing_right_is_told_with_the_grant_that_mends_it(database):
    database.run("DO $$ BEGIN IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = 'barely') THEN CREATE ROLE barely LOGIN; END IF; END $$")
    conninfo = database.conninfo.replace("user=postgres", "user=barely")
    database.run("GRANT USAGE ON SCHEMA outbox TO barely")
    database.run("GRANT SELECT ON outbox.schema_version TO barely")
    try:
        for command in (["drain", "-q", "-b", "null"], ["run", "-b", "null"], ["check", "--connect", "-b", "null"]):
            done = relay(*command, "-d", conninfo, timeout=20)
            assert done.returncode == 77 and "GRANT outbox_relay TO barely" in done.stdout + done.stderr, (command, done.stdout, done.stderr)
    finally:
        database.run("DROP OWNED BY barely")
        database.run("DROP ROLE barely")


# ---- values and messages ----


def test_numbers_in_headers_keep_their_digits(database, broker):
    topic = broker.exchange("numbers")
    oracle = broker.oracle(broker.queue("all", topic))
    database.run("INSERT INTO outbox.message (channel, type, headers) VALUES (%s, 't', '{\"a\": 1.1, \"b\": 0.1, \"c\": 12345678901234567890123, \"d\": 42, \"e\": -1e400,"
                 " \"f\": \"9\\\\\\\"99999999999999999999\", \"g\": 1e22}')", topic)
    done = relay("drain", "-q", "-d", database.conninfo, *amqp())
    assert done.returncode == 0 and not database.dead(), done.stderr
    headers = wait_until(oracle.deliveries, what="the delivery")[0]["headers"]
    # pika 1.2 reads a double as a whole number; the webhook below shows all its digits.
    assert headers["a"] == 1 and headers["b"] == 0 and headers["c"] == "12345678901234567890123" and headers["d"] == 42
    assert headers["e"].startswith("-1000") and len(headers["e"]) == 402 and headers["f"] == '9\\"99999999999999999999'


def test_numbers_in_http_headers_are_written_as_short_as_they_are(database, receiver):
    database.run("INSERT INTO outbox.message (channel, type, headers) VALUES ('a', 't', '{\"x-a\": 1.1, \"x-b\": 0.30000000000000004, \"x-c\": 18446744073709551616}')")
    assert relay("drain", "-q", "-d", database.conninfo, *http(receiver.url)).returncode == 0
    headers = receiver.requests[0].headers
    assert (headers["x-a"], headers["x-b"], headers["x-c"]) == ("1.1", "0.30000000000000004", "18446744073709551616")


@pytest.mark.parametrize("when", ["0044-03-15 12:00 BC", "200000-01-01", "0001-01-01", "infinity", "-infinity"])
def test_a_message_of_any_date_goes(database, broker, receiver, when):
    topic = broker.exchange("dates")
    oracle = broker.oracle(broker.queue("all", topic))
    database.run("INSERT INTO outbox.message (channel, type, created_at, expires_at) VALUES (%s, 't', %s, 'infinity')", topic, when)
    assert relay("drain", "-q", "-d", database.conninfo, *amqp()).returncode == 0
    wait_until(oracle.ids, what="the delivery")
    database.run("INSERT INTO outbox.message (channel, type, created_at, expires_at) VALUES ('a', 't', %s, '290000-01-01')", when)
    assert relay("drain", "-q", "-d", database.conninfo, *http(receiver.url, "http.cloudevents=binary")).returncode == 0
    assert len(receiver.requests[0].headers["ce-time"].split("-")[0]) == 4, receiver.requests[0].headers["ce-time"]


@pytest.mark.parametrize("when", ["infinity", "-infinity"])
def test_times_without_an_end_stop_no_command(database, when):
    database.run("INSERT INTO outbox.message (channel, type, created_at) VALUES ('a', 't', %s)", when)
    database.run("INSERT INTO outbox.scheduled (seq, id, kind, channel, type, headers, created_at, bytes, due_at, tried_at)"
                 " VALUES (0, gen_random_uuid(), 'event', 'a', 't', '{}', now(), 2, %s, %s)", when, when)
    database.run("INSERT INTO outbox.paused (scope, until) VALUES ('b', %s)", when)
    assert relay("status", "-d", database.conninfo).returncode == 0
    assert json.loads(relay("status", "--json", "-d", database.conninfo).stdout)["backlog"] == 1
    done = relay("drain", "-q", "--json", "-d", database.conninfo, "-b", "null")
    assert json.loads(done.stdout)["left"] == 0 and done.returncode == (1 if when == "infinity" else 0), done.stdout + done.stderr


@pytest.mark.parametrize("arguments, text", [
    (["stauts"], "did you mean 'status'?"), (["drian"], "did you mean 'drain'?"), (["drain", "--max-tiem", "3s"], "did you mean --max-time?"),
    (["dead", "lst", "-d", "host=192.0.2.1"], "write list, show, retry, discard or export"),
    (["check", "-b", "amqp", "-o", "amqp.url=amqp://localhost/?heartbeat=30"], "amqp.heartbeat"),
    (["check", "-b", "http", "-o", "http.url=https://gr\u00fc\u00dfe.example/"], "xn--"),
])
def test_a_mistake_is_told_with_what_was_meant(arguments, text):
    began = time.monotonic()
    code, told = said(*arguments)
    assert code in (64, 78) and text in told and time.monotonic() - began < 5, (code, told)


def test_an_option_that_is_another_backends_is_told():
    code, told = said("check", "-b", "null", "-o", "http.url=http://x/")
    assert code == 0 and "http.url is an option of backend http, and the backend is null" in told
    assert "warning" not in said("check", "-b", "http", "-o", "http.url=http://x/")[1]


@pytest.mark.parametrize("arguments", [["config", "init"], ["config", "schema"], ["config", "show"], ["--help"], ["version", "--json"], ["backends", "list"]])
def test_a_result_that_cannot_be_written_is_70(arguments):
    with open("/dev/full", "w", encoding="ascii") as full:
        done = subprocess.run([RELAY, *arguments], stdout=full, stderr=subprocess.PIPE, env=clean_environment(), timeout=30, check=False)
    assert done.returncode == 70


def test_a_stop_that_comes_twice_at_once_is_one(database, start):
    """As timeout(1) sends it: to the process, and to its group."""
    for _ in range(12):
        running = start("-d", database.conninfo, "-b", "null")
        running.await_log("running")
        running.signal(signal.SIGTERM)
        running.signal(signal.SIGTERM)
        assert running.wait() == 0


def test_the_configuration_that_is_shown_is_yaml_and_the_schemas_defaults_are_of_their_types():
    shown = yaml.safe_load(relay("config", "show", "-b", "amqp", "-o", "amqp.url=amqp://u:p@h/", "-o", "channels.exclude=a*,b").stdout)
    assert shown["backend"] == "amqp" and shown["workers"] == 2 and shown["channels.exclude"] == ["a*", "b"] and shown["amqp.url"] == ["amqp://***@h/"]
    schema = json.loads(relay("config", "schema").stdout)

    def check(node):
        for value in node.get("properties", {}).values():
            if "default" in value:
                jsonschema.validate(value["default"], {word: said for word, said in value.items() if word != "default"})
            check(value)

    check(schema)
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate({"poll": {"min": 5}}, schema)
    jsonschema.validate({"poll": {"min": 0, "max": "5ms"}}, schema)
