"""Who is nobody in this database must not come to act with the rights of who migrates it or runs a relay."""
import contextlib
import os
import subprocess
import uuid

import psycopg2
import pytest

import shadows
from harness import Database, relay, wait_until

SCHEMA = os.path.join(shadows.ROOT, "schema")
FILES = ("0001_outbox.sql", "0002_paused_now.sql", "0003_pause_patterns.sql", "0004_subscriber_owner.sql", "0005_bounds.sql", "roles.sql", "grants.sql", "order_key.sql", "order_none.sql")


@pytest.fixture
def empty():
    made = Database(migrate=False)
    yield made
    made.drop()


@pytest.fixture
def mallory(empty):
    """A user without any right but what everybody has by default in upgraded databases: CREATE on schema public."""
    name = "mallory_" + uuid.uuid4().hex[:8]
    empty.run(f"CREATE ROLE {name} LOGIN; GRANT CREATE ON SCHEMA public TO {name}")
    connection = psycopg2.connect(empty.conninfo.replace("user=postgres", "user=" + name))
    connection.autocommit = True
    yield connection
    connection.close()
    empty.run(f"DROP OWNED BY {name} CASCADE; DROP ROLE {name}")


def is_superuser(database, mallory):
    return database.value("SELECT rolsuper FROM pg_roles WHERE rolname = %s", mallory.info.user)


def as_mallory(mallory, *statements):
    with mallory.cursor() as cursor:
        for statement in statements:
            cursor.execute(statement)


# ---- what stands in schema public, in front of pg_catalog ----


def hostile(database):
    return database.conninfo + " options='-c search_path=public,pg_catalog'"


def test_no_function_or_operator_of_a_stranger_is_called_by_any_command(empty, mallory, start):
    functions, operators = shadows.plant(mallory)
    print(f"{functions} functions, {operators} operators")
    assert functions > 100 and operators > 1000
    place = hostile(empty)
    commands = 0

    def run(*arguments, code=0, user=None):
        nonlocal commands
        commands += 1
        done = relay(*arguments, "-d", place.replace("user=postgres", "user=" + user) if user else place, timeout=60)
        assert done.returncode == code and "shadow" not in done.stderr, (arguments, done.returncode, done.stdout, done.stderr)
        assert shadows.calls(empty) == 0, arguments
        return done.stdout

    run("migrate", "--dry-run")
    run("migrate")
    for order in ("none", "key"):
        run("migrate", "--order", order, *(["--lanes", "8"] if order == "key" else []))
        with contextlib.closing(psycopg2.connect(place)) as producer, producer.cursor() as cursor:
            producer.autocommit = True
            cursor.execute("SELECT outbox.publish('a', 't', '{}', 'k'), outbox.publish('a', 't', '{}'::jsonb, 'k'), outbox.send('b', 't', '{}', NULL, 'r'),"
                           " outbox.reply('r', 'c', 't', '{}'), outbox.publish_bytes('a', 't', 'x'), outbox.accept('s', '00000000-0000-0000-0000-000000000001')")
            cursor.execute("""SELECT outbox.publish('late', 't', '{}', 'k', '{"fail": "reject"}', NULL, NULL, NULL, '0 s'), outbox.publish('bad', 't', '{}', NULL, '{"fail": "reject"}'),"""
                           """ outbox.publish('slow', 't', '{}', NULL, '{"fail": "retry"}'), outbox.publish('slow', 't', '{}', NULL, NULL)""")
        run("explain", "--id", "00000000-0000-0000-0000-000000000001", "-b", "null", code=64)
        run("pause", "never*", "--for", "1h", "--wait")
        run("check", "--connect", "-b", "null", "-o", "order=" + order)
        run("drain", "-q", "-b", "fail", "-o", "fail.script=confirm", "-o", "order=" + order, "-o", "workers=1", "-o", "drain.patience=0", code=1)
        run("status")
        run("status", "--json")
        run("resume", "never*")
        run("dead", "list")
        run("dead", "export", "--all")
        run("dead", "retry", "--all", "--limit", "1")
        run("dead", "discard", "--all", "--yes")
        running = start("-d", place, "-b", "null", "-o", "order=" + order, "-o", "poll.max=50ms")
        empty.run("INSERT INTO outbox.message (channel, type) VALUES ('a', 't')")
        wait_until(lambda: empty.left() == 0, 30, "a message that the daemon has sent")
        running.process.terminate()
        assert running.process.wait(20) == 0 and shadows.calls(empty) == 0
    print(f"{commands} commands")
    assert not is_superuser(empty, mallory)


@pytest.mark.parametrize("one", [["-1"], []], ids=["in one transaction", "statement by statement"])
def test_nor_by_the_sql_files_in_psql(empty, mallory, one):
    shadows.plant(mallory)
    for name in FILES:
        psql = subprocess.run(["psql", "-X", "-q", *one, "-v", "ON_ERROR_STOP=1", "-v", "mask=63", "-f", os.path.join(SCHEMA, name), hostile(empty)],
                              text=True, capture_output=True, check=False)
        assert (psql.returncode == 0 or not one) and shadows.calls(empty) == 0, (name, psql.stderr)


# ---- a schema of that name that was there before ----

STEAL = "CREATE FUNCTION public.steal() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN EXECUTE format('ALTER ROLE %I SUPERUSER', '{}'); RETURN NEW; END $$"
TRAPS = {
    "a table with a trigger": "CREATE TABLE outbox.schema_version (version int PRIMARY KEY, applied_at timestamptz DEFAULT now(), relay_version text);"
                              " CREATE TRIGGER t BEFORE INSERT ON outbox.schema_version FOR EACH ROW EXECUTE FUNCTION public.steal()",
    "a view": "CREATE FUNCTION public.grab() RETURNS int LANGUAGE plpgsql AS $$ BEGIN EXECUTE format('ALTER ROLE %I SUPERUSER', '{}'); RETURN 1; END $$;"
              " CREATE VIEW outbox.schema_version AS SELECT public.grab() AS version, NULL::text AS relay_version",
    "nothing": "SELECT 1",
}


@pytest.mark.parametrize("trap", TRAPS)
def test_a_strangers_schema_outbox_is_refused_before_anything_of_it_is_touched(empty, mallory, trap):
    empty.run(f"GRANT CREATE ON DATABASE {empty.name} TO {mallory.info.user}")
    as_mallory(mallory, STEAL.format(mallory.info.user), "CREATE SCHEMA outbox", TRAPS[trap].format(mallory.info.user))
    for command in (["migrate"], ["migrate", "--dry-run"], ["migrate", "--order", "key"]):
        done = relay(*command, "-d", empty.conninfo)
        assert done.returncode == 78 and f"it belongs to {mallory.info.user}: run this as that user, or, after a look at what is in it" in done.stderr, done.stderr
    assert not is_superuser(empty, mallory)
    psql = subprocess.run(["psql", "-X", "-q", "-1", "-v", "ON_ERROR_STOP=1", "-f", os.path.join(SCHEMA, FILES[0]), empty.conninfo], text=True, capture_output=True, check=False)
    assert psql.returncode != 0 and "schema outbox belongs to somebody else" in psql.stderr and not is_superuser(empty, mallory)
    as_mallory(mallory, "DROP SCHEMA outbox CASCADE")


THINGS = {
    "a table of his": ("CREATE TABLE outbox.mine (a int)", "table outbox.mine belongs to "),
    "a function of his": ("CREATE FUNCTION outbox.mine() RETURNS int LANGUAGE sql AS 'SELECT 1'", "function outbox.mine() belongs to "),
}


@pytest.mark.parametrize("thing", THINGS)
def test_what_a_stranger_has_put_into_the_schema_is_named_and_not_migrated_over(empty, mallory, thing):
    statement, sentence = THINGS[thing]
    assert relay("migrate", "-d", empty.conninfo).returncode == 0
    empty.run(f"GRANT USAGE, CREATE ON SCHEMA outbox TO {mallory.info.user}")
    as_mallory(mallory, statement)
    done = relay("migrate", "-d", empty.conninfo)
    assert done.returncode == 78 and sentence + mallory.info.user in done.stderr, done.stderr
    done = relay("check", "--connect", "-b", "null", "-d", empty.conninfo)
    assert done.returncode == 0 and f"schema: warning: {sentence}{mallory.info.user}" in done.stdout, done.stdout


USES = {
    "a trigger": "CREATE TRIGGER t BEFORE INSERT ON outbox.message FOR EACH ROW EXECUTE FUNCTION public.seen()",
    "a constraint": "ALTER TABLE outbox.message ADD CONSTRAINT c CHECK (public.likes(channel))",
    "a default": "ALTER TABLE outbox.message ALTER content_type SET DEFAULT public.kind()",
    "an index": "CREATE INDEX i ON outbox.message (public.likes(channel))",
    "an operator": "ALTER TABLE outbox.message ADD CONSTRAINT c CHECK (channel OPERATOR(public.~=~) type)",
}


@pytest.mark.parametrize("use", USES)
def test_a_strangers_function_that_a_table_of_the_outbox_uses_is_named(empty, mallory, use):
    as_mallory(mallory, "CREATE FUNCTION public.seen() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NEW; END'",
               "CREATE FUNCTION public.likes(text) RETURNS boolean IMMUTABLE LANGUAGE sql AS 'SELECT true'",
               "CREATE FUNCTION public.kind() RETURNS text IMMUTABLE LANGUAGE sql AS $$ SELECT 'text/plain'::text $$",
               "CREATE FUNCTION public.both(text, text) RETURNS boolean IMMUTABLE LANGUAGE sql AS 'SELECT true'",
               "CREATE OPERATOR public.~=~ (FUNCTION = public.both, LEFTARG = text, RIGHTARG = text)")
    assert relay("migrate", "-d", empty.conninfo).returncode == 0
    assert "schema: warning" not in relay("check", "--connect", "-b", "null", "-d", empty.conninfo).stdout
    empty.run(USES[use])
    done = relay("check", "--connect", "-b", "null", "-d", empty.conninfo)
    assert done.returncode == 0 and "uses function public." in done.stdout and f"of user {mallory.info.user}" in done.stdout, done.stdout
    done = relay("migrate", "-d", empty.conninfo)
    assert done.returncode == 78 and "uses function public." in done.stderr, done.stderr


# ---- locks that everybody may take ----


def test_who_takes_the_lanes_of_the_order_is_named_whatever_he_calls_himself(empty, mallory, start):
    assert relay("migrate", "--order", "key", "--lanes", "4", "-d", empty.conninfo).returncode == 0
    empty.run("SELECT outbox.publish('a', 't', '{}', key => 'k')")
    oid = empty.value("SELECT 'outbox.message'::regclass::oid::int")
    as_mallory(mallory, "SET application_name = 'outbox-relay/shop'", f"SELECT pg_advisory_lock({oid}, lane) FROM generate_series(0, 3) lane")
    named = f"process {mallory.info.backend_pid} ('outbox-relay/shop', user {mallory.info.user})"
    remedy = f"SELECT pg_terminate_backend({mallory.info.backend_pid}) ends it"
    running = start("-b", "null", "-d", empty.conninfo, "-o", "order=key")
    running.await_log("somebody stands in the way", 40)
    assert named in running.log() and remedy in running.log()
    status = relay("status", "-d", empty.conninfo).stdout
    assert named in status and remedy in status and "OK:" not in status, status
    done = relay("drain", "-q", "-b", "null", "-d", empty.conninfo, "-o", "order=key")
    assert done.returncode == 75 and named in done.stderr and remedy in done.stderr, done.stderr
    empty.run(f"SELECT pg_terminate_backend({mallory.info.backend_pid})")
    wait_until(lambda: empty.left() == 0, what="an empty outbox, as soon as he is gone")


@pytest.mark.parametrize("arguments", [(), ("--order", "key")])
def test_who_takes_the_lock_of_migrate_is_named_and_migrate_goes_on_without_him(empty, mallory, start, arguments):
    as_mallory(mallory, "SELECT pg_advisory_lock(hashtext('outbox-relay migrate'))")
    pid = mallory.info.backend_pid
    running = start(*arguments, "-d", empty.conninfo, command="migrate")
    running.await_log(f"waits for the lock of migrate, held by process {pid} (no application name, user {mallory.info.user}", 40)
    assert f"SELECT pg_terminate_backend({pid}) ends it" in running.log() and empty.value("SELECT to_regclass('outbox.message') IS NULL")
    empty.run(f"SELECT pg_terminate_backend({pid})")
    assert running.wait() == 0
    assert "schema outbox migrated from version 0 to 5" in running.output()


def test_who_shares_the_lock_of_migrate_or_has_prepared_it_is_named_too(empty, mallory, start):
    as_mallory(mallory, "SELECT pg_advisory_lock_shared(hashtext('outbox-relay migrate'))")
    running = start("-d", empty.conninfo, command="migrate")
    running.await_log(f"held by process {mallory.info.backend_pid} (", 40)
    as_mallory(mallory, "SELECT pg_advisory_unlock_all()")
    assert running.wait() == 0
    gid = "p_" + uuid.uuid4().hex
    as_mallory(mallory, "BEGIN", "SELECT pg_advisory_xact_lock(hashtext('outbox-relay migrate'))", "SELECT pg_current_xact_id()", f"PREPARE TRANSACTION '{gid}'")
    running = start("-d", empty.conninfo, command="migrate")
    running.await_log(f"held by prepared transaction {gid} (user {mallory.info.user}): ROLLBACK PREPARED '{gid}', or COMMIT PREPARED, ends it", 40)
    empty.run(f"ROLLBACK PREPARED '{gid}'")
    assert running.wait() == 0


def test_a_relay_that_puts_on_its_role_is_no_stranger(empty, mallory, start):
    assert relay("migrate", "--order", "key", "--lanes", "4", "-d", empty.conninfo).returncode == 0
    empty.run(f"ALTER ROLE {mallory.info.user} NOINHERIT; GRANT outbox_relay TO {mallory.info.user}")
    empty.run("SELECT outbox.publish('a', 't', '{}', key => i::text) FROM generate_series(1, 2000) i")
    conninfo = empty.conninfo.replace("user=postgres", "user=" + mallory.info.user) + " options='-c role=outbox_relay'"
    start("-b", "null", "-d", conninfo, "-o", "order=key", "-o", "batch.max_messages=1")
    wait_until(lambda: empty.value("SELECT count(*) FROM pg_locks WHERE locktype = 'advisory'") > 0 or empty.left() == 0, what="a lane in its hands")
    status = relay("status", "-d", empty.conninfo).stdout
    assert "IN THE WAY" not in status and "which is no relay" not in status, status
