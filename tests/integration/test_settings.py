"""What a role or a database may set: whatever it is, the outbox works as ever, or it is refused by name.

Each setting at its most hostile value, one by one and all together, on the relay's own role: migrate, publish, drain, order by key, retries,
dead letters, status and check give the same results as without.
"""
import json
import os
import uuid

import psycopg2
import pytest

from harness import DATABASE, Database, relay

# What says nothing about our statements: logging, the server's own housekeeping, and what only a library that is not there would read.
HARMLESS = ("log_", "debug_print", "debug_pretty", "trace_", "track_", "vacuum_", "gin_", "wal_", "backend_flush_after", "compute_query_id", "plpgsql.",
            "event_triggers", "stats_fetch_consistency")
# Names of things: the most hostile that are there.
TEXTS = {
    "DateStyle": "German, DMY", "TimeZone": "Asia/Kathmandu", "IntervalStyle": "sql_standard", "search_path": "nowhere", "lc_numeric": "C", "lc_monetary": "C",
    "lc_time": "C", "default_text_search_config": "pg_catalog.german", "default_tablespace": "", "temp_tablespaces": "", "application_name": "somebody else",
    "client_encoding": "LATIN1", "role": "none", "restrict_nonsystem_relation_kind": "view", "timezone_abbreviations": "India",
    "default_table_access_method": "heap", "createrole_self_grant": "set",
}
# At its worst nothing of the server works, whoever asks: the server refuses a login, or each statement. With what is wanted of us.
WORST = {
    "default_transaction_read_only": "default_transaction_read_only",  # libpq takes it for a standby
    "max_stack_depth": None,
}


def hostile_value(name, kind, setting, low, high, words):
    """The value furthest from the one in force; None: it has no other."""
    if kind == "bool":
        return "off" if setting == "on" else "on"
    if kind == "enum":
        worst = {"bytea_output": "escape", "default_transaction_isolation": "serializable", "plan_cache_mode": "force_generic_plan",
                 "synchronous_commit": "remote_apply", "xmloption": "document", "client_min_messages": "debug5", "IntervalStyle": "sql_standard",
                 "default_toast_compression": "pglz", "session_replication_role": "replica", "backslash_quote": "off", "constraint_exclusion": "on",
                 "force_parallel_mode": "on", "debug_parallel_query": "on", "password_encryption": "md5", "xmlbinary": "hex"}.get(name)
        return worst or next((word for word in words if word != setting), None)
    if name.endswith("_timeout"):
        return "200"  # ms
    if kind in ("integer", "real"):
        return low if setting != low else high
    return TEXTS.get(name)


def hostile_settings():
    """(name, value) of all that this server lets a user set and that might matter."""
    with psycopg2.connect(DATABASE + " dbname=postgres") as connection, connection.cursor() as cursor:
        cursor.execute("SELECT name, vartype, setting, min_val, max_val, enumvals FROM pg_settings WHERE context IN ('user', 'superuser') ORDER BY name")
        rows = cursor.fetchall()
    connection.close()
    found = []
    for name, *rest in rows:
        value = None if name.startswith(HARMLESS) else hostile_value(name, *rest)
        if value is not None and name not in WORST:
            found.append((name, value))
    return found


class Hostile:
    """A database whose owner, and relay, has settings of his own."""

    def __init__(self, settings):
        self.role = "h_" + uuid.uuid4().hex[:10]
        self.database = Database(migrate=False)
        run = self.database.run
        run(f"CREATE ROLE {self.role} LOGIN CREATEROLE")
        run(f"ALTER DATABASE {self.database.name} OWNER TO {self.role}")
        self.refused = []
        for name, value in settings:
            try:
                run(f"ALTER ROLE {self.role} SET \"{name}\" = %s", value)
            except psycopg2.Error as error:
                self.refused.append((name, str(error)))
        self.conninfo = self.database.conninfo.replace("user=postgres", "user=" + self.role)
        assert self.role in self.conninfo

    def close(self):
        self.database.drop()
        with psycopg2.connect(DATABASE + " dbname=postgres") as connection, connection.cursor() as cursor:
            cursor.execute(f"DROP ROLE {self.role}")
        connection.close()

    def relay(self, *arguments):
        return relay(*arguments, "-d", self.conninfo)


def publish(hostile):
    """By the hostile role's own session, in a transaction for each; its limits of time are the producer's own matter."""
    limits = "-c statement_timeout=0 -c lock_timeout=0 -c idle_in_transaction_session_timeout=0 -c idle_session_timeout=0 -c tcp_user_timeout=0"
    with psycopg2.connect(hostile.conninfo, options=limits) as connection:
        for sql in ("outbox.publish('a', 't', '{\"n\": 1.10}', key => 'k')", "outbox.publish('a', 't', '[]', key => 'k')",
                    "outbox.publish('a', 't', '{}', delay => interval '-1 s')", "outbox.publish('a', 't', '{}', headers => '{\"fail\": \"reject\"}')",
                    "outbox.publish('a', 't', '{}', headers => '{\"fail\": \"retry\"}')", "outbox.publish('b', 't', '{}', headers => '{\"fail\": \"hold\"}')",
                    "outbox.publish_bytes('a', 't', decode('00ff', 'hex'), headers => '{\"i\": 7}')", "outbox.publish('a', 't', '{}', ttl => interval '-1 s')"):
            with connection.cursor() as cursor:
                cursor.execute("SELECT " + sql)
            connection.commit()
    connection.close()


def results(hostile):
    """What an operator sees of all that."""
    migrated = hostile.relay("migrate", "--order", "key", "--lanes", "4")
    assert migrated.returncode == 0, migrated.stderr
    publish(hostile)
    drained = hostile.relay("drain", "-q", "--json", "-b", "fail", "-o", "order=key", "-o", "retry.backoff_min=1h", "-o", "retry.backoff_max=2h",
                            "-o", "workers=1")
    summary = json.loads(drained.stdout)
    status = json.loads(hostile.relay("status", "--json").stdout)
    listed = json.loads(hostile.relay("dead", "list", "--json").stdout)
    exported = [json.loads(line) for line in hostile.relay("dead", "export").stdout.splitlines()]
    retried = hostile.relay("dead", "retry", listed["dead_letters"][0]["id"])
    checked = hostile.relay("check", "--connect", "-b", "fail", "-o", "order=key")
    paused = hostile.relay("pause", "a", "--for", "1h"), hostile.relay("resume", "a")
    return {
        "drain": (drained.returncode, {key: summary[key] for key in ("published", "retried", "dead_lettered", "left", "on_hold", "waiting", "result")}),
        "status": {key: status[key] for key in ("backlog", "scheduled", "dead_letters", "order", "lanes", "relays", "paused")},
        "retrying": [(one["channel"], one["messages"], one["attempts"]) for one in status["retrying"]],
        "dead": sorted((one["channel"], one["reason"], one["attempts"]) for one in listed["dead_letters"]),
        "export": sorted((one["reason"], json.dumps(one["headers"]), one.get("payload")) for one in exported),
        "retry": (retried.returncode, retried.stdout), "check": (checked.returncode, checked.stdout),
        "pause": [(done.returncode, done.stdout) for done in paused],
    }


@pytest.fixture(scope="module")
def expected():
    plain = Hostile([])
    try:
        yield results(plain)
    finally:
        plain.close()


def differences(settings, expected):
    hostile = Hostile(settings)
    try:
        seen = results(hostile)
        return {what: (seen[what], expected[what]) for what in expected if seen[what] != expected[what]}, hostile.refused
    except (AssertionError, psycopg2.Error, ValueError) as error:
        return {"error": str(error)}, hostile.refused
    finally:
        hostile.close()


def test_whatever_a_role_sets_one_by_one_the_results_are_the_same(expected):
    settings = hostile_settings()
    assert len(settings) > 80, "the server has more than that"
    wrong, refused = {}, []
    for name, value in settings:
        difference, not_set = differences([(name, value)], expected)
        refused += not_set
        if difference:
            wrong[f"{name} = {value}"] = difference
    print(f"{len(settings)} settings, {len(refused)} of them the server does not let set: {[name for name, _ in refused]}")
    assert not wrong, json.dumps(wrong, indent=1, default=str)
    assert len(refused) < 10, refused


def test_all_hostile_settings_together_change_nothing_either(expected):
    difference, _ = differences(hostile_settings(), expected)
    assert not difference, json.dumps(difference, indent=1, default=str)


def test_a_role_that_may_only_read_is_refused_by_the_name_of_its_setting():
    hostile = Hostile([])
    try:
        assert hostile.relay("migrate").returncode == 0
        hostile.database.run(f"ALTER ROLE {hostile.role} SET default_transaction_read_only = on")
        done = hostile.relay("drain", "-q", "-b", "null", "-o", "drain.unavailable_after=1s")
        assert done.returncode == 69 and "default_transaction_read_only" in done.stderr, done.stderr
    finally:
        hostile.close()


# ---- what hides rows, and what cannot hold texts ----


@pytest.mark.parametrize("table", ["message", "scheduled", "paused"])
def test_a_policy_that_hides_rows_is_an_error_that_names_table_and_fix_and_no_emptiness(database, table):
    role = "r_" + uuid.uuid4().hex[:10]
    database.run(f"CREATE ROLE {role} LOGIN IN ROLE outbox_relay")
    try:
        database.fill(5)
        database.run(f"ALTER TABLE outbox.{table} ENABLE ROW LEVEL SECURITY")
        conninfo = database.conninfo.replace("user=postgres", "user=" + role)
        for command in (["drain", "-q", "-b", "null"], ["status"], ["run", "-b", "null"], ["check", "--connect", "-b", "null"]):
            done = relay(*command, "-d", conninfo, timeout=30)
            assert done.returncode == 77, (command, done.stdout, done.stderr)
            said = done.stdout + done.stderr
            assert f'"{table}"' in said and "BYPASSRLS" in said, (command, said)
        assert database.left() == 5
        database.run(f"ALTER ROLE {role} BYPASSRLS")
        assert relay("drain", "-q", "-b", "null", "-d", conninfo).returncode == 0 and database.left() == 0
    finally:
        database.run(f"DROP OWNED BY {role}")
        database.run(f"DROP ROLE {role}")


@pytest.mark.parametrize("encoding", ["LATIN1", "SQL_ASCII", "EUC_JP"])
@pytest.mark.parametrize("command", [["migrate"], ["check", "--connect", "-b", "null"], ["run", "-b", "null"], ["drain", "-b", "null"], ["status"]],
                         ids=lambda command: command[0])
def test_a_database_that_cannot_hold_all_texts_is_refused(encoding, command):
    name = "e_" + uuid.uuid4().hex[:12]
    admin = psycopg2.connect(DATABASE + " dbname=postgres")
    admin.autocommit = True
    with admin.cursor() as cursor:
        cursor.execute(f"CREATE DATABASE {name} ENCODING '{encoding}' LOCALE 'C' TEMPLATE template0")
        try:
            done = relay(*command, "-d", f"{DATABASE} dbname={name}", timeout=30)
            assert done.returncode == 78, done.stderr
            assert encoding in done.stdout + done.stderr and "ENCODING 'UTF8'" in done.stdout + done.stderr
        finally:
            cursor.execute(f"DROP DATABASE {name} WITH (FORCE)")
    admin.close()
    assert os.environ["TEST_RELAY"]
