"""The schema: its migration, its functions, and what each role may do."""
import concurrent.futures
import json
import os
import re
import subprocess
import threading
import time

import psycopg2
import pytest

from harness import DATABASE, Database, Relay, relay


@pytest.fixture
def empty():
    made = Database(migrate=False)
    yield made
    made.drop()


def test_migrate_installs_once_and_is_idempotent(empty):
    first = relay("migrate", "-d", empty.conninfo)
    second = relay("migrate", "-d", empty.conninfo)
    assert (first.returncode, first.stdout) == (0, "schema outbox migrated from version 0 to 5\n")
    assert (second.returncode, second.stdout) == (0, "schema outbox is up to date (version 5)\n")
    assert empty.run("SELECT version, relay_version IS NOT NULL FROM outbox.schema_version") == [(1, True), (2, True), (3, True), (4, True), (5, True)]


def test_several_migrations_at_once_all_succeed(empty):
    with concurrent.futures.ThreadPoolExecutor(6) as threads:
        done = list(threads.map(lambda _: relay("migrate", "-d", empty.conninfo), range(6)))
    assert [d.returncode for d in done] == [0] * 6, [d.stderr for d in done]
    assert sum("from version 0" in d.stdout for d in done) == 1
    assert empty.value("SELECT count(*) FROM outbox.schema_version") == 5


def test_dry_run_changes_nothing_and_prints_sql_that_psql_runs(empty):
    dry = relay("migrate", "--dry-run", "-d", empty.conninfo)
    assert dry.returncode == 0
    assert empty.value("SELECT to_regnamespace('outbox')") is None
    psql = subprocess.run(
        ["psql", "-X", "-q", "-v", "ON_ERROR_STOP=1", empty.conninfo], input=dry.stdout, text=True, capture_output=True, check=False
    )
    assert psql.returncode == 0, psql.stderr
    assert relay("migrate", "-d", empty.conninfo).stdout == "schema outbox is up to date (version 5)\n"


def test_the_sql_files_run_in_psql_as_they_are(empty):
    schema = os.path.join(os.path.dirname(__file__), "../../schema")
    for name in ("0001_outbox.sql", "0002_paused_now.sql", "0003_pause_patterns.sql", "0004_subscriber_owner.sql", "0005_bounds.sql", "roles.sql", "grants.sql", "order_key.sql", "order_none.sql"):
        psql = subprocess.run(
            ["psql", "-X", "-q", "-1", "-v", "ON_ERROR_STOP=1", "-v", "mask=63", "-f", os.path.join(schema, name), empty.conninfo],
            text=True, capture_output=True, check=False,
        )
        assert psql.returncode == 0, psql.stderr


def with_version_4(empty):
    names = ("0001_outbox.sql", "0002_paused_now.sql", "0003_pause_patterns.sql", "0004_subscriber_owner.sql")
    schema = os.path.join(os.path.dirname(__file__), "../../schema")
    subprocess.run(["psql", "-X", "-q", "-1", "-v", "ON_ERROR_STOP=1", *(word for name in names for word in ("-f", os.path.join(schema, name))), empty.conninfo], check=True)


def test_an_upgrade_sets_aside_what_is_larger_than_any_message_may_be(empty):
    with_version_4(empty)
    empty.run("SELECT outbox.publish_bytes('a', word, convert_to(repeat('x', (256 << 20) + 1), 'UTF8'), delay => CASE word WHEN 'delayed' THEN interval '1 h' END)"
              " FROM unnest(ARRAY['waits', 'delayed']) word")
    empty.run("SELECT outbox.publish('a', 'small', '{}')")
    done = relay("migrate", "-d", empty.conninfo)
    assert (done.returncode, done.stdout) == (0, "schema outbox migrated from version 4 to 5\n"), done.stderr
    assert empty.run("SELECT type, bytes, reason, last_error FROM outbox.dead_letter ORDER BY type") == [
        ("delayed", (256 << 20) + 3, "rejected", "larger than 256 MiB"), ("waits", (256 << 20) + 3, "rejected", "larger than 256 MiB")]
    assert empty.run("SELECT type FROM outbox.message") == [("small",)] and empty.value("SELECT count(*) FROM outbox.scheduled") == 0
    retried = relay("dead", "retry", "--all", "-d", empty.conninfo)
    assert (retried.returncode, empty.value("SELECT count(*) FROM outbox.scheduled")) == (0, 2), retried.stderr
    again = relay("drain", "-b", "null", "-d", empty.conninfo)
    assert again.returncode == 1 and "drained 1 in" in again.stderr and "2 dead-lettered, 0 left" in again.stderr, again.stderr
    assert empty.run("SELECT reason FROM outbox.dead_letter") == [("rejected",), ("rejected",)]


def test_an_upgrade_that_cannot_set_something_aside_changes_nothing(empty):
    with_version_4(empty)
    empty.run("SELECT outbox.publish_bytes('a', 'large', convert_to(repeat('x', (256 << 20) + 1), 'UTF8'))")
    empty.run("CREATE FUNCTION keep() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END'")
    empty.run("CREATE TRIGGER keep BEFORE INSERT ON outbox.dead_letter FOR EACH ROW EXECUTE FUNCTION keep()")
    done = relay("migrate", "-d", empty.conninfo)
    assert done.returncode == 70 and "a trigger, a rule or a policy keeps rows out of outbox.dead_letter" in done.stderr, done.stderr
    assert empty.run("SELECT type FROM outbox.message") == [("large",)] and empty.value("SELECT max(version) FROM outbox.schema_version") == 4


@pytest.mark.parametrize("statement", ["SELECT outbox.publish('a', 'b', '{}')", "LOCK TABLE outbox.dead_letter IN SHARE MODE"])
def test_an_upgrade_waits_for_a_transaction_on_the_outbox_and_makes_nobody_wait(empty, statement):
    with_version_4(empty)
    slow = empty.connect(autocommit=False)
    slow.cursor().execute(statement)
    running = Relay("-d", empty.conninfo, command="migrate")
    began, longest = time.monotonic(), 0
    while time.monotonic() < began + 3:
        at = time.monotonic()
        empty.run("SELECT outbox.publish('a', 'b', '{}')")
        longest = max(longest, time.monotonic() - at)
    assert running.process.poll() is None and longest < 1.5, longest
    slow.commit()
    assert running.wait() == 0 and empty.value("SELECT max(version) FROM outbox.schema_version") == 5
    running.close()


def test_a_newer_schema_is_refused_with_a_sentence(database):
    database.run("INSERT INTO outbox.schema_version (version) VALUES (99)")
    for command in (["migrate"], ["drain", "-b", "null"], ["run", "-b", "null"], ["status"]):
        done = relay(*command, "-d", database.conninfo)
        assert done.returncode == 78, command
        assert "schema outbox has version 99" in done.stderr and "install a newer outbox-relay" in done.stderr


def test_a_missing_or_old_schema_is_refused_and_names_migrate(empty):
    done = relay("drain", "-b", "null", "-d", empty.conninfo)
    assert done.returncode == 78 and "run 'outbox-relay migrate'" in done.stderr
    relay("migrate", "-d", empty.conninfo)
    empty.run("DELETE FROM outbox.schema_version; INSERT INTO outbox.schema_version (version) VALUES (0)")
    done = relay("drain", "-b", "null", "-d", empty.conninfo)
    assert done.returncode == 78 and "run 'outbox-relay migrate'" in done.stderr


def test_a_plain_owner_without_createrole_migrates_and_is_told_the_rest(empty):
    empty.run("CREATE ROLE plain_owner LOGIN")
    try:
        empty.run(f"ALTER DATABASE {empty.name} OWNER TO plain_owner")
        # The roles of the cluster may exist from other tests: hide them behind other names for a moment.
        for role in ("producer", "relay", "consumer"):
            if empty.run("SELECT 1 FROM pg_roles WHERE rolname = %s", f"outbox_{role}"):
                empty.run(f"ALTER ROLE outbox_{role} RENAME TO hidden_{role}")
        done = relay("migrate", "-d", empty.conninfo.replace("user=postgres", "user=plain_owner"))
        assert done.returncode == 0, done.stderr
        assert "migrated from version 0 to 5" in done.stdout and "CREATE ROLE" in done.stdout and "GRANT" in done.stdout
        assert empty.value("SELECT count(*) FROM outbox.message") == 0
    finally:
        for role in ("producer", "relay", "consumer"):
            if empty.run("SELECT 1 FROM pg_roles WHERE rolname = %s", f"hidden_{role}"):
                empty.run(f"ALTER ROLE hidden_{role} RENAME TO outbox_{role}")
        empty.run(f"ALTER DATABASE {empty.name} OWNER TO postgres")
        empty.run("REASSIGN OWNED BY plain_owner TO postgres; DROP OWNED BY plain_owner; DROP ROLE plain_owner")


@pytest.mark.parametrize("payload", ["jsonb_build_object('n', 1)", "json_build_object('n', 1)", "'{\"n\" : 1}'", "'{\"n\": 1}'::text"])
def test_publish_takes_jsonb_json_literals_and_text(database, payload):
    identity = database.value(f"SELECT outbox.publish('orders', 'order.placed', {payload}, key => '42', headers => '{{\"a\": 1}}')::text")
    row = database.run("SELECT id::text, kind, channel, type, key, headers, payload, payload_bytes, bytes FROM outbox.message")[0]
    assert row[:6] == (identity, "event", "orders", "order.placed", "42", {"a": 1})
    assert row[6] == {"n": 1} and row[7] is None and row[8] > 0


def test_an_untyped_driver_parameter_resolves(database):
    database.run("SELECT outbox.publish(%s, %s, %s)", "orders", "order.placed", json.dumps({"n": 1}))
    assert database.value("SELECT payload FROM outbox.message") == {"n": 1}


def test_the_text_of_a_json_payload_is_kept_as_written(database):
    database.run("""SELECT outbox.publish('a', 'b', '{"z": 1.50,   "a": 12345678901234567890}'::json)""")
    assert database.value("SELECT payload::text FROM outbox.message") == '{"z": 1.50,   "a": 12345678901234567890}'


def test_send_and_reply_fill_correlation_and_reply_to(database):
    identity = database.value("SELECT outbox.send('billing', 'charge', '{}', reply_to => 'answers')::text")
    database.run("SELECT outbox.reply('answers', 'c-7', 'charged', '{}')")
    assert database.run("SELECT kind, channel, reply_to, correlation_id FROM outbox.message ORDER BY seq") == [
        ("command", "billing", "answers", identity),
        ("reply", "answers", "answers", "c-7"),
    ]


def test_publish_bytes_keeps_bytes_and_content_type(database):
    database.run("SELECT outbox.publish_bytes('img', 'made', %s, 'image/png')", psycopg2.Binary(b"\x00\xff"))
    row = database.run("SELECT payload_bytes, content_type, bytes FROM outbox.message")[0]
    assert (bytes(row[0]), row[1], row[2]) == (b"\x00\xff", "image/png", 4)


def test_transaction_local_settings_stamp_every_message(database):
    connection = database.connect(autocommit=False)
    with connection.cursor() as cursor:
        cursor.execute("SET LOCAL outbox.traceparent = '00-1-2-01'; SET LOCAL outbox.correlation_id = 'co'; SET LOCAL outbox.causation_id = 'ca'")
        cursor.execute("SELECT outbox.publish('a', 'b', '{}'); SELECT outbox.publish('a', 'b', '{}', headers => '{\"traceparent\": \"own\"}')")
    connection.commit()
    connection.close()
    assert database.run("SELECT headers->>'traceparent', correlation_id, causation_id FROM outbox.message ORDER BY seq") == [
        ("00-1-2-01", "co", "ca"), ("own", "co", "ca")]


def test_delayed_messages_wait_in_scheduled_and_ttl_sets_expires_at(database):
    database.run("SELECT outbox.publish('a', 'b', '{}', delay => '1 hour', ttl => '2 hours')")
    assert database.left() == 0
    assert database.run("SELECT seq, due_at > now(), expires_at > due_at FROM outbox.scheduled") == [(None, True, True)]


@pytest.mark.parametrize("call", [
    "outbox.publish('', 'b', '{}')",
    "outbox.publish(repeat('c', 256), 'b', '{}')",
    "outbox.publish('a', repeat('t', 256), '{}')",
    "outbox.publish('a', 'b', '{}', key => repeat('k', 256))",
    "outbox.publish('a', 'b', '{}', correlation_id => repeat('ü', 128))",
    "outbox.publish('a', 'b', '{}', headers => '[]')",
    "outbox.publish('a', 'b', '{}', key => repeat('k', 256), delay => '1 s')",
    "outbox.publish('a', repeat('t', 256), '{}', delay => '1 s')",
    "outbox.publish('a', 'b', '{}', headers => '[]', delay => '1 s')",
    "outbox.send('a', 'b', '{}', reply_to => repeat('r', 256))",
    "outbox.reply('a', NULL, 'b', '{}')",
])
def test_what_amqp_cannot_carry_fails_in_the_producers_transaction(database, call):
    with pytest.raises(psycopg2.errors.CheckViolation):
        database.run("SELECT " + call)


@pytest.mark.parametrize("delay", [None, "1 h"])
def test_more_than_a_statement_could_move_is_not_taken(database, delay):
    database.run("SELECT outbox.publish_bytes('a', 't', convert_to(repeat('x', (256 << 20) - 2), 'UTF8'), delay => %s)", delay)  # and {} for its headers
    with pytest.raises(psycopg2.errors.CheckViolation, match="_bytes_ck"):
        database.run("SELECT outbox.publish_bytes('a', 't', convert_to(repeat('x', (256 << 20) + 1), 'UTF8'), delay => %s)", delay)


def test_a_delay_below_zero_is_none(database):
    """Else it would be due before all that others have delayed."""
    database.run("SELECT outbox.publish('a', 'b', '{}', delay => '-10 years')")
    assert database.value("SELECT due_at BETWEEN now() - interval '10 s' AND clock_timestamp() FROM outbox.scheduled")


def test_seq_takes_the_xid_first_and_rises(database):
    database.fill(3)
    assert database.value("SELECT array_agg(seq ORDER BY seq) FROM outbox.message") == [1, 2, 3]
    default = database.value("SELECT column_default FROM information_schema.columns WHERE table_schema = 'outbox' AND table_name = 'message'"
                             " AND column_name = 'seq'")
    assert default.index("pg_current_xact_id") < default.index("nextval")


def as_role(database, role, sql):
    """Runs one statement as a fresh member of the role."""
    user = f"u_{database.name}"
    if not database.run("SELECT 1 FROM pg_roles WHERE rolname = %s", user):
        database.run(f"CREATE ROLE {user} LOGIN IN ROLE {role}")
    connection = psycopg2.connect(DATABASE.replace("user=postgres", f"user={user}") + f" dbname={database.name}")
    connection.autocommit = True
    try:
        with connection.cursor() as cursor:
            cursor.execute(sql)
            return cursor.fetchall() if cursor.description else None
    finally:
        connection.close()


@pytest.fixture
def role_database(database):
    yield database
    database.run(f"DROP ROLE IF EXISTS u_{database.name}")


def test_a_producer_may_publish_and_nothing_else(role_database):
    as_role(role_database, "outbox_producer", "SELECT outbox.publish('a', 'b', '{}'), outbox.send('a', 'b', '{}'), outbox.publish_bytes('a', 'b', '')")
    for sql in ("SELECT * FROM outbox.message", "DELETE FROM outbox.message", "SELECT * FROM outbox.dead_letter",
                "INSERT INTO outbox.message (channel, type) VALUES ('a', 'b')", "SELECT outbox.accept('s', gen_random_uuid())"):
        with pytest.raises(psycopg2.errors.InsufficientPrivilege):
            as_role(role_database, "outbox_producer", sql)


def test_a_stranger_may_not_publish(role_database):
    role_database.run(f"CREATE ROLE u_{role_database.name} LOGIN")
    with pytest.raises(psycopg2.errors.InsufficientPrivilege):
        as_role(role_database, "", "SELECT outbox.publish('a', 'b', '{}')")


def test_the_relay_role_can_drain_and_cannot_change_a_message(role_database):
    ids = role_database.fill(20)
    with pytest.raises(psycopg2.errors.InsufficientPrivilege):
        as_role(role_database, "outbox_relay", "UPDATE outbox.message SET channel = 'x'")
    with pytest.raises(psycopg2.Error):
        as_role(role_database, "outbox_relay", "UPDATE outbox.message SET bytes = 1")
    conninfo = role_database.conninfo.replace("user=postgres", f"user=u_{role_database.name}")
    done = relay("drain", "-b", "null", "-d", conninfo)
    assert done.returncode == 0, done.stderr
    assert len(ids) == 20 and role_database.left() == 0
    check = relay("check", "--connect", "-b", "null", "-d", conninfo)
    assert (check.returncode, check.stdout) == (0, "configuration: ok\ndatabase: ok\nbroker: ok\n")


def test_who_may_act_as_one_of_our_roles_is_named_where_an_outbox_is_made_and_checked(empty):
    """Roles are the server's: they may have been there before, with members of which nobody knew."""
    known = f"a0_{empty.name}"
    empty.run(f"CREATE ROLE {known} LOGIN; CREATE ROLE {known}_group IN ROLE outbox_relay ROLE {known}")
    empty.run(f"CREATE ROLE {known}_admin LOGIN; GRANT outbox_relay TO {known}_admin WITH ADMIN OPTION")
    try:
        done = relay("migrate", "-d", empty.conninfo)
        wanted = f"who may read and delete all messages, by role outbox_relay: {known}, {known}_admin (and let others in)"
        assert done.returncode == 0 and f"outbox-relay: {wanted}" in done.stderr, done.stderr
        assert wanted not in relay("migrate", "-d", empty.conninfo).stderr, "nothing was made"
        done = relay("check", "--connect", "-b", "null", "-d", empty.conninfo)
        assert done.returncode == 0 and f"roles: {wanted}" in done.stdout and f"{known}_group" not in done.stdout, done.stdout
    finally:
        empty.run(f"DROP ROLE {known}_admin, {known}_group, {known}")


def test_accept_is_true_once_per_subscriber_and_never_null(role_database):
    identity = "11111111-1111-1111-1111-111111111111"
    call = f"SELECT outbox.accept('shipping', '{identity}'), outbox.accept('shipping', '{identity}'), outbox.accept('billing', '{identity}')"
    assert as_role(role_database, "outbox_consumer", call) == [(True, False, True)]
    with pytest.raises(psycopg2.errors.NotNullViolation):
        as_role(role_database, "outbox_consumer", f"SELECT outbox.accept(NULL, '{identity}')")


def test_a_subscriber_that_belongs_to_a_role_is_nobody_elses_to_accept_for(role_database):
    """Whoever accepts in another's name makes him believe that he has seen what he has not."""
    identity, group = "11111111-1111-1111-1111-111111111111", f"g_{role_database.name}"
    call = f"SELECT outbox.accept('shipping', '{identity}')"
    role_database.run(f"CREATE ROLE {group}; INSERT INTO outbox.subscriber VALUES ('shipping', %s)", group)
    with pytest.raises(psycopg2.errors.InsufficientPrivilege, match=f"subscriber 'shipping' belongs to role {group}, of which u_{role_database.name} is no member"):
        as_role(role_database, "outbox_consumer", call)
    assert as_role(role_database, "outbox_consumer", f"SELECT outbox.accept('billing', '{identity}')") == [(True,)], "who belongs to nobody is anybody's"
    role_database.run(f"GRANT outbox_consumer TO {group}; GRANT {group} TO u_{role_database.name}")
    assert as_role(role_database, "outbox_consumer", call) == [(True,)] and as_role(role_database, "outbox_consumer", call) == [(False,)]
    with pytest.raises(psycopg2.errors.InsufficientPrivilege):
        as_role(role_database, "outbox_consumer", "UPDATE outbox.subscriber SET owner = 'outbox_consumer'")
    with pytest.raises(psycopg2.errors.InsufficientPrivilege, match="no member"):  # a role that one has put on is who one is
        as_role(role_database, "outbox_consumer", f"SET ROLE outbox_consumer; {call}")
    role_database.run(f"DROP OWNED BY {group}; DROP ROLE {group}")
    with pytest.raises(psycopg2.errors.InsufficientPrivilege):  # the owner is gone, the name is not free
        as_role(role_database, "outbox_consumer", call)


def test_a_reply_has_no_channel_but_its_reply_to(role_database):
    put = "SELECT outbox._put('reply', %s, 't', '{}', NULL, NULL, NULL, 'c', NULL, %s, NULL, NULL, NULL, NULL)"
    for channel, reply_to in (("'x'", "'secret.queue'"), ("'x'", "NULL")):
        with pytest.raises(psycopg2.errors.InvalidParameterValue, match="the channel of a reply is its reply_to"):
            as_role(role_database, "outbox_producer", put % (channel, reply_to))
    as_role(role_database, "outbox_producer", put % ("'q'", "'q'"))
    as_role(role_database, "outbox_producer", "SELECT outbox.reply('q', 'c', 't', '{}')")
    assert role_database.run("SELECT channel, reply_to FROM outbox.message") == [("q", "q")] * 2


def scanned(plan, table):
    """Is the table read as a whole anywhere in the plan?"""
    return (plan["Node Type"] in ("Seq Scan", "Bitmap Heap Scan") and plan["Relation Name"] == table) or any(
        scanned(child, table) for child in plan.get("Plans", []))


def test_the_claim_walks_the_primary_key_on_a_table_without_statistics(database):
    """A plan learned on an empty table once sorted 150 MB per claim."""
    database.run("ALTER TABLE outbox.message SET (autovacuum_enabled = off)")
    database.fill(20000)
    guards = open(os.path.join(os.path.dirname(__file__), "../../schema/queries/guards.sql"), encoding="utf-8").read()
    claim = open(os.path.join(os.path.dirname(__file__), "../../schema/queries/claim.sql"), encoding="utf-8").read()
    for number, value in enumerate(["'5000'", "'5000'", "'5000'", "'9000'"], 1):
        guards = guards.replace(f"${number}", value)
    values = ["'0'", "'500'", "'8388608'", "'{}'", "NULL", "NULL", "NULL", "NULL", "'134217728'", "NULL"]
    claim = re.sub(r"\$(\d+)", lambda match: values[int(match.group(1)) - 1], claim)
    connection = database.connect(autocommit=False)
    with connection.cursor() as cursor:
        cursor.execute(guards)
        cursor.execute("EXPLAIN (FORMAT JSON, ANALYZE, BUFFERS) " + claim)
        plan = json.dumps(cursor.fetchone()[0])
    connection.rollback()
    connection.close()
    assert not scanned(json.loads(plan)[0]["Plan"], "message") and "message_pkey" in plan
    assert json.loads(plan)[0]["Plan"]["Shared Hit Blocks"] + json.loads(plan)[0]["Plan"]["Shared Read Blocks"] < 5000


def test_a_limit_that_the_relay_does_not_set_itself_is_found_by_its_name(database):
    """A server newer than we are may have one: the relay refuses to start then. Here one that it knows is taken out of its list."""
    limits = open(os.path.join(os.path.dirname(__file__), "../../schema/queries/limits_unknown.sql"), encoding="utf-8").read().replace("($1::text[])", "(%s::text[])")
    known = ["statement_timeout", "lock_timeout", "idle_in_transaction_session_timeout", "idle_session_timeout"]
    for name in known:
        others = [other for other in known if other != name]
        with database.connect() as connection, connection.cursor() as cursor:
            cursor.execute(f"SET {name} = '5s'")
            cursor.execute(limits, (others,))
            assert cursor.fetchall() == [(name, "5000")]
            cursor.execute(limits, (known,))
            assert cursor.fetchall() == []


@pytest.mark.parametrize("command", [
    ["status"], ["check", "--connect", "-b", "null"], ["drain", "-b", "null"], ["dead", "list"], ["dead", "retry", "--all"], ["pause", "orders"],
    ["resume", "orders"], ["explain", "--id={id}", "-b", "null"], ["migrate"], ["migrate", "--order", "key"]], ids=lambda command: "_".join(command[:2]))
def test_no_limit_of_the_database_ends_what_a_command_does(database, command):
    """Here a statement takes longer because somebody holds the tables."""
    ids = database.fill(3)
    holder = database.connect(autocommit=False)
    for name in ("statement_timeout", "lock_timeout", "idle_in_transaction_session_timeout", "idle_session_timeout"):
        database.run(f"ALTER DATABASE {database.name} SET {name} = '300ms'")
    with holder.cursor() as cursor:
        cursor.execute("LOCK TABLE outbox.message, outbox.scheduled, outbox.dead_letter, outbox.paused, outbox.setting, outbox.schema_version")
    release = threading.Timer(1, holder.rollback)
    release.start()
    done = relay(*[word.format(id=min(ids)) for word in command], "-d", database.conninfo)
    release.join()
    holder.close()
    assert done.returncode == 0, done.stderr


def test_a_schema_outbox_that_is_somebody_elses_is_left_alone(empty):
    empty.run("CREATE SCHEMA outbox")
    empty.run("CREATE TABLE outbox.schema_version (version text, installed_by text)")
    empty.run("INSERT INTO outbox.schema_version VALUES ('2024-01', 'somebody')")
    for command in (["migrate"], ["migrate", "--dry-run"], ["status"], ["drain", "-b", "null"], ["check", "--connect", "-b", "null"]):
        done = relay(*command, "-d", empty.conninfo)
        said = done.stdout + done.stderr
        assert done.returncode == 78 and "its table schema_version is not ours: give the outbox another database" in said, (command, said)
    assert empty.run("SELECT version FROM outbox.schema_version") == [("2024-01",)]
