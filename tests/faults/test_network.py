"""The network fails between the relay and its servers: holes, resets, lost replies, crawling links, refused secrets, foreign certificates."""
import json
import os
import random
import re
import ssl
import subprocess
import threading
import time

import pytest

from accounting import Accounting
from harness import amqp, http, relay, wait_until
from receiver import Receiver

PG_PORT, AMQP_PORT = os.environ["TEST_PG_PORT"], os.environ["TEST_AMQP_PORT"]
ANSWER_WITHIN = 15  # seconds that the relay waits for PostgreSQL (relay/store/source.c)
DELETE, CLAIM = b"DELETE FROM outbox.message", b"FOR UPDATE SKIP LOCKED"


def url(proxy):
    return f"amqp://guest:guest@127.0.0.1:{proxy.port}/"


def possible_duplicates(log):
    return sum(int(number) for number in re.findall(r"possible duplicates .*?at_most=(\d+)", log))


def assert_no_hot_loop(connects, began, workers=2):
    """One attempt per second and worker, and the ledger's and the supervisor's own."""
    allowed = (workers + 2) * (time.monotonic() - began + 1)
    assert len(connects) <= allowed, f"{len(connects)} connections where {allowed:.0f} are promised at most"


def orders(broker):
    """An exchange with a queue, and what arrives there."""
    exchange = broker.exchange("orders")
    return exchange, broker.oracle(broker.queue("all", exchange))


# ---- between the relay and PostgreSQL ----


def test_a_partition_from_postgres_during_a_publish_frees_the_rows_in_time_and_heals_by_itself(database, broker, proxied, start):
    """The server ends the transaction (publish_timeout + 5 s), whatever the relay does; duplicates are what was in flight."""
    exchange, oracle = orders(broker)
    proxy = proxied(PG_PORT)
    batch, workers, publish_timeout = 50, 2, 1
    ids = database.fill(5000)
    running = start("-d", database.through(proxy.port),
                    *amqp("amqp.exchange=" + exchange, f"batch.max_messages={batch}", f"workers={workers}", f"publish_timeout={publish_timeout}s"))

    def in_a_transaction():
        proxy.up.hole = proxy.down.hole = True
        if database.stuck_in_transaction():
            return True
        proxy.heal()
        return False

    wait_until(oracle.ids, what="the first delivery")
    wait_until(in_a_transaction, what="a partition between claim and COMMIT")
    began = time.monotonic()
    wait_until(lambda: database.open_transactions() == 0, publish_timeout + 5 + 3, "the end of the transactions at the server")
    proxy.heal()
    oracle.await_ids(ids, 30)
    wait_until(lambda: database.left() == 0, what="an empty outbox")
    assert_no_hot_loop(proxy.connects, began - 1)
    assert "no connection to the database" in running.log()
    found = Accounting.of_oracle(ids, oracle, bound=batch * workers).check()
    assert found.duplicates <= possible_duplicates(running.log()), "every possible duplicate is told"


def test_a_reset_in_claim_delete_or_commit_loses_nothing_and_deletes_nothing_again(database, broker, proxied, start):
    """Only a connection lost between publish and a COMMIT that the server saw may send a batch again: three of these five."""
    exchange, oracle = orders(broker)
    proxy = proxied(PG_PORT, postgres=True)
    batch = 20
    running = start("-d", database.through(proxy.port), *amqp("amqp.exchange=" + exchange, f"batch.max_messages={batch}", "breaker.open_max=1s"))
    database.run("CREATE TABLE public.deleted (id uuid)")
    database.run("CREATE FUNCTION public.note() RETURNS trigger LANGUAGE plpgsql AS"
                 " $$ BEGIN INSERT INTO public.deleted VALUES (OLD.id); RETURN NULL; END $$")
    database.run("CREATE TRIGGER note AFTER DELETE ON outbox.message FOR EACH ROW EXECUTE FUNCTION public.note()")
    ids, began = set(), time.monotonic()
    for text, tag, since in ((CLAIM, b"", b""), (CLAIM, b"SELECT", b""), (DELETE, b"", b""), (DELETE, b"DELETE", b""),
                             (b"COMMIT", b"", DELETE), (b"COMMIT", b"COMMIT", DELETE)):
        trap = proxy.trap(text, tag, since)
        ids |= database.fill(5 * batch)
        assert trap.sprung.wait(20), f"no {text} came by"
    oracle.await_ids(ids, 30)
    wait_until(lambda: database.left() == 0, what="an empty outbox")
    assert_no_hot_loop(proxy.connects, began - 1)
    found = Accounting.of_oracle(ids, oracle, bound=3 * batch).check()
    assert found.duplicates <= possible_duplicates(running.log())
    assert database.run("SELECT count(*), count(DISTINCT id) FROM public.deleted") == [(len(ids), len(ids))], "each row was deleted once"


def test_a_run_that_gets_no_answer_to_its_commit_tells_possible_duplicates_and_loses_nothing(database, broker, proxied, start):
    """The COMMIT arrived: what the relay cannot know must neither be believed nor be undone."""
    exchange, oracle = orders(broker)
    proxy = proxied(PG_PORT, postgres=True)
    ids = database.fill(30)
    trap = proxy.trap(b"COMMIT", b"COMMIT", DELETE)
    running = start("-d", database.through(proxy.port), "-o", "workers=1", *amqp("amqp.exchange=" + exchange, "batch.max_messages=10"))
    assert trap.sprung.wait(20)
    running.await_log("possible duplicates")
    assert possible_duplicates(running.log()) == 10
    oracle.await_ids(ids)
    wait_until(lambda: database.left() == 0, what="an empty outbox")
    Accounting.of_oracle(ids, oracle, bound=0).check()


@pytest.mark.parametrize("stays_away, code", [(False, 0), (True, 69)], ids=["comes back", "stays away"])
def test_a_drain_without_an_answer_to_its_last_commit_never_claims_that_it_finished_unless_it_looked(database, broker, proxied, stays_away, code):
    """A drain that comes back may end with 0, because it looked again and found nothing; else the outcome is unknown, and says so."""
    exchange, oracle = orders(broker)
    proxy = proxied(PG_PORT, postgres=True)
    ids = database.fill(10)
    trap = proxy.trap(b"COMMIT", b"COMMIT", DELETE, outage=stays_away)
    done = relay("drain", "-q", "--json", "-d", database.through(proxy.port), "-o", "workers=1",
                 *amqp("amqp.exchange=" + exchange, f"drain.unavailable_after={2 if stays_away else 10}s"), timeout=40)
    assert trap.sprung.is_set()
    summary = json.loads(done.stdout)
    assert done.returncode == code, done.stderr
    assert summary["possible_duplicates"] == 10 and summary["published"] == 0
    assert database.left() == 0, "it was committed"
    oracle.await_ids(ids)
    Accounting.of_oracle(ids, oracle, bound=0).check()


def test_a_postgres_that_falls_silent_at_commit_is_given_up_when_its_answer_is_late(database, broker, proxied, start):
    """The connection stays open and says nothing; the worker must not wait for ever, nor longer than for one answer."""
    exchange, oracle = orders(broker)
    proxy = proxied(PG_PORT, postgres=True)
    ids = database.fill(10)
    trap = proxy.trap(b"COMMIT", b"COMMIT", DELETE, "hole")
    running = start("-d", database.through(proxy.port), "-o", "workers=1", *amqp("amqp.exchange=" + exchange))
    assert trap.sprung.wait(20)
    try:
        running.await_log("possible duplicates", ANSWER_WITHIN + 2)
    finally:
        running.kill()
    oracle.await_ids(ids)
    Accounting.of_oracle(ids, oracle, bound=0).check()


# ---- between the relay and the broker ----


def test_a_half_open_broker_is_noticed_while_idle_and_new_rows_wait_without_a_transaction(database, broker, proxied, start):
    """librabbitmq 0.11 would hang in the publish for ever (reliability.md F2)."""
    exchange, oracle = orders(broker)
    proxy = proxied(AMQP_PORT)
    heartbeat, publish_timeout = 1, 2
    running = start("-d", database.conninfo, *amqp("amqp.exchange=" + exchange, f"amqp.heartbeat={heartbeat}s", f"publish_timeout={publish_timeout}s",
                                                   "breaker.open_max=1s", url=url(proxy)))
    ids = database.fill(10)
    wait_until(lambda: database.left() == 0, what="an empty outbox")
    proxy.up.hole = proxy.down.hole = True
    began = time.monotonic()
    running.await_log("no session to the broker", 2 * heartbeat + 3)
    ids |= database.fill(10)
    until = time.monotonic() + publish_timeout + 2
    while time.monotonic() < until:
        assert database.idle_in_transaction_s() <= publish_timeout + 1
        time.sleep(0.05)
    assert database.left() == 10
    assert_no_hot_loop(proxy.connects, began - 1)
    proxy.heal()
    oracle.await_ids(ids, 20)
    wait_until(lambda: database.left() == 0, what="an empty outbox")
    Accounting.of_oracle(ids, oracle, bound=10).check()


def test_a_publish_into_a_black_hole_returns_at_its_deadline(database, broker, proxied, start):
    """New rows before the heartbeats could tell: the publish itself meets the silence, and its transaction ends all the same."""
    exchange, oracle = orders(broker)
    proxy = proxied(AMQP_PORT)
    publish_timeout = 1
    running = start("-d", database.conninfo, *amqp("amqp.exchange=" + exchange, "amqp.heartbeat=30s", f"publish_timeout={publish_timeout}s",
                                                   "breaker.open_max=1s", "workers=1", url=url(proxy)))
    ids = database.fill(10)
    wait_until(lambda: database.left() == 0, what="an empty outbox")
    proxy.up.hole = proxy.down.hole = True
    ids |= database.fill(300, size=20000)
    wait_until(lambda: database.open_transactions() > 0, what="a claim")
    began = time.monotonic()
    running.await_log("no session to the broker", publish_timeout + 8)  # else only the heartbeats would end it, after a minute
    wait_until(lambda: database.open_transactions() == 0, 5, "the end of the transaction")
    assert time.monotonic() - began < publish_timeout + 8
    proxy.heal()
    oracle.await_ids(ids, 30)
    wait_until(lambda: database.left() == 0, what="an empty outbox")
    found = Accounting.of_oracle(ids, oracle, bound=300).check()
    assert found.duplicates <= possible_duplicates(running.log())


# ---- links that crawl and break ----


@pytest.mark.parametrize("faults", [{"slice": 1}, {"latency": 0.02, "jitter": 0.05}], ids=["one byte at a time", "latency and jitter"])
def test_a_crawling_link_to_both_servers_changes_nothing_but_the_time(database, broker, proxied, faults):
    """Any reader that expects whole frames or rows from one read fails here; no fault, so no duplicate."""
    exchange, oracle = orders(broker)
    proxies = [proxied(PG_PORT), proxied(AMQP_PORT)]
    for proxy in proxies:
        for direction in (proxy.up, proxy.down):
            direction.__init__(**faults)
    ids = database.fill(40)
    done = relay("drain", "-q", "-d", database.through(proxies[0].port), "-o", "workers=1",
                 *amqp("amqp.exchange=" + exchange, "batch.max_messages=10", url=url(proxies[1])))
    assert done.returncode == 0, done.stderr
    oracle.await_ids(ids)
    Accounting.of_oracle(ids, oracle, bound=0).check()


def test_a_link_too_slow_for_a_batch_within_its_deadline_still_makes_headway(database, broker, proxied):
    """1 kB/s: a batch takes twice publish_timeout. Whoever sends the same batch again and again livelocks; suspect mode sends singles."""
    exchange, oracle = orders(broker)
    proxy = proxied(AMQP_PORT)
    proxy.up.rate = proxy.down.rate = 1000
    ids = database.fill(6, size=300)
    done = relay("drain", "-q", "--json", "-d", database.conninfo, "-o", "workers=1", "-o", "drain.unavailable_after=30s",
                 *amqp("amqp.exchange=" + exchange, "publish_timeout=2s", "retry.max_attempts=0", "breaker.open_max=1s", url=url(proxy)), timeout=60)
    summary = json.loads(done.stdout)
    assert done.returncode == 0, done.stderr
    assert len(proxy.connects) > 1, "the deadline must have passed once, or the test proves nothing"
    oracle.await_ids(ids)
    Accounting.of_oracle(ids, oracle, bound=summary["possible_duplicates"]).check()
    assert summary["possible_duplicates"] <= 2 * len(ids) and summary["dead_lettered"] == 0


def test_a_reset_after_any_number_of_bytes_loses_nothing(database, broker, proxied, start):
    """Resets in handshake, declaration, publish (first byte, header, body) or confirm; at most the batch of one is sent again per reset."""
    exchange, oracle = orders(broker)
    proxy = proxied(AMQP_PORT)
    arguments = ["--instance", "sweep", *amqp("amqp.exchange=" + exchange, "batch.max_messages=1", "retry.max_attempts=0", "retry.backoff_min=100ms",
                                              "retry.backoff_max=200ms", "breaker.failures=1000", "breaker.open_max=1s", url=url(proxy))]
    ids = database.fill(1)
    assert relay("drain", "-q", "-d", database.conninfo, *arguments, "-o", "workers=1").returncode == 0
    first = proxy.links[0]
    chance = random.Random(20)
    cuts = [(k, None) for k in chance.sample(range(first.up.sent), 12) + list(range(first.up.sent - 9, first.up.sent + 12, 3))]
    cuts += [(None, k) for k in chance.sample(range(first.down.sent), 6) + list(range(first.down.sent - 20, first.down.sent + 20, 5))]
    chance.shuffle(cuts)
    proxy.up_cuts, proxy.down_cuts = (iter(ways) for ways in zip(*cuts))
    connected, began = len(proxy.connects), time.monotonic()
    ids |= database.fill(600)
    start("-d", database.conninfo, *arguments, "-o", "workers=8")
    wait_until(lambda: len(proxy.connects) >= connected + len(cuts), 40, "all resets")
    oracle.await_ids(ids, 40)
    wait_until(lambda: database.left() + database.value("SELECT count(*) FROM outbox.scheduled") == 0, what="an empty outbox")
    assert_no_hot_loop(proxy.connects, began, workers=8)
    Accounting.of_oracle(ids, oracle, dead=database.dead(), bound=len(cuts)).check()
    assert not database.dead()


# ---- secrets that no longer fit ----


def test_a_rotated_database_password_ends_a_drain_with_77_and_a_run_waits_without_a_hot_loop(database, proxied, start):
    proxy = proxied(PG_PORT)
    user = "password_user"  # the one whose password scripts/dev-servers has PostgreSQL check
    conninfo = f"host=127.0.0.1 port={proxy.port} user={user} dbname={database.name} password="
    database.run(f"CREATE ROLE {user} LOGIN PASSWORD 'old' IN ROLE outbox_relay")
    running = None
    try:
        running = start("-d", conninfo + "old", "-b", "null", "-o", "breaker.open_max=1s")
        database.fill(1)
        wait_until(lambda: database.left() == 0, what="an empty outbox")
        database.run(f"ALTER ROLE {user} PASSWORD 'new'")
        # Whoever had got in already may still be at work when it is told to go.
        wait_until(lambda: database.run("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = %s", user) == [], what="the end of all sessions")
        began, connected = time.monotonic(), len(proxy.connects)
        database.fill(1)
        running.await_log("password authentication failed")
        assert relay("drain", "-q", "-b", "null", "-d", conninfo + "old").returncode == 77
        wait_until(lambda: time.monotonic() - began > 2.5, what="seconds of refusals")
        assert database.left() == 1 and running.process.poll() is None
        assert_no_hot_loop(proxy.connects[connected:], began)
        database.run(f"ALTER ROLE {user} PASSWORD 'old'")
        wait_until(lambda: database.left() == 0, 15, "an empty outbox: it comes back by itself")
        assert "'old'" not in running.log() and "password=old" not in running.log()
    finally:
        if running:
            running.process.terminate()
            running.wait(30)
        database.run(f"DROP OWNED BY {user}; DROP ROLE {user}")


def test_a_rotated_broker_password_ends_a_drain_with_77_and_a_run_waits_without_a_hot_loop(database, scripted, start):
    """As RabbitMQ says it: connection.close 403 in the middle of the login."""
    refusing = threading.Event()

    def on_login(session):
        if refusing.is_set():
            session.close_connection(403, "ACCESS_REFUSED - Login was refused using authentication mechanism PLAIN")

    broker = scripted(on_login=on_login)
    arguments = ["-d", database.conninfo, *amqp("amqp.exchange=orders", "breaker.open_max=1s", url=broker.url)]
    running = start(*arguments)
    ids = database.fill(10)
    wait_until(lambda: database.left() == 0, what="an empty outbox")
    refusing.set()
    for session in broker.sessions:
        session.cut()
    began, connected = time.monotonic(), len(broker.connects)
    ids |= database.fill(10)
    running.await_log("refused the login")
    done = relay("drain", "-q", *arguments)
    assert done.returncode == 77, done.stderr
    assert "guest:guest" not in done.stderr + running.log()
    wait_until(lambda: time.monotonic() - began > 2.5, what="seconds of refusals")
    assert database.left() == 10 and database.open_transactions() == 0
    assert_no_hot_loop(broker.connects[connected:], began)
    refusing.clear()
    wait_until(lambda: database.left() == 0, 15, "an empty outbox: it comes back by itself")
    Accounting(ids, broker.deliveries()).check()


# ---- TLS ----


@pytest.fixture(scope="module")
def certificates(tmp_path_factory):
    """A CA, and certificates for localhost, for another host, one that has expired, one that another CA signed, and two that call no host by its
    name but in their subject, the second with another kind of name."""
    directory = tmp_path_factory.mktemp("tls")

    def openssl(*arguments):
        subprocess.run(["openssl", *arguments], cwd=directory, check=True, capture_output=True)

    for ca in ("ca", "stranger"):
        openssl("req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", f"/CN={ca}", "-keyout", ca + ".key", "-out", ca + ".pem")
    (directory / "index").write_text("")
    (directory / "ca.conf").write_text("[ca]\ndefault_ca=c\n[c]\ndatabase=index\nnew_certs_dir=.\ndefault_md=sha256\npolicy=p\nrand_serial=yes\n"
                                       "unique_subject=no\ncopy_extensions=copy\n[p]\ncommonName=supplied\n")
    later = "20991231000000Z"
    for name, host, names, ca, ends in (("good", "localhost", "DNS:localhost", "ca", later), ("elsewhere", "example.org", "DNS:example.org", "ca", later),
                                        ("expired", "localhost", "DNS:localhost", "ca", "20200102000000Z"),
                                        ("unknown", "localhost", "DNS:localhost", "stranger", later),
                                        ("nameless", "localhost", None, "ca", later), ("mailbox", "localhost", "email:a@localhost", "ca", later)):
        openssl("req", "-newkey", "rsa:2048", "-nodes", "-subj", "/CN=" + host, *(("-addext", "subjectAltName=" + names) if names else ()),
                "-keyout", name + ".key", "-out", name + ".csr")
        openssl("ca", "-batch", "-config", "ca.conf", "-cert", ca + ".pem", "-keyfile", ca + ".key", "-in", name + ".csr", "-out", name + ".pem",
                "-startdate", "20200101000000Z", "-enddate", ends)
    return directory


def who_shows(certificates, name):
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificates / (name + ".pem"), certificates / (name + ".key"))
    return context


def tls_broker(scripted, certificates, name):
    return scripted(tls=who_shows(certificates, name))


def drain_tls(database, certificates, address):
    return relay("drain", "-q", "-d", database.conninfo, "-o", "drain.unavailable_after=1s",
                 *amqp("amqp.exchange=orders", f"amqp.tls.ca_file={certificates}/ca.pem", "publish_timeout=2s", url=address), timeout=30)


def test_a_broker_with_a_good_certificate_gets_everything(database, scripted, certificates):
    """The proof that the next test could fail: the same broker takes what it is sent."""
    broker = tls_broker(scripted, certificates, "good")
    ids = database.fill(10)
    done = drain_tls(database, certificates, f"amqps://guest:guest@localhost:{broker.port}/")
    assert done.returncode == 0, done.stderr
    Accounting(ids, broker.deliveries()).check()


@pytest.mark.parametrize("name, scheme", [("elsewhere", "amqps"), ("expired", "amqps"), ("unknown", "amqps"), ("nameless", "amqps"), ("mailbox", "amqps"),
                                          (None, "amqps"), ("good", "amqp")],
                         ids=["another host's", "expired", "unknown authority's", "a name in the subject alone", "a mailbox's", "no TLS at all",
                              "TLS where none was asked for"])
def test_a_broker_that_cannot_prove_who_it_is_gets_nothing(database, scripted, certificates, name, scheme):
    broker = tls_broker(scripted, certificates, name) if name else scripted()
    ids = database.fill(10)
    began = time.monotonic()
    done = drain_tls(database, certificates, f"{scheme}://guest:guest@localhost:{broker.port}/")
    assert done.returncode == 69, done.stderr
    assert not broker.received and database.ids_left() == ids and not database.dead()
    assert_no_hot_loop(broker.connects, began)
    last = done.stderr.splitlines()[-1]
    print(last)
    assert f"localhost:{broker.port}" in last and "guest:guest" not in done.stderr


@pytest.mark.parametrize("name", ["good", "elsewhere", "expired", "unknown", "nameless", "mailbox"])
def test_a_receiver_that_cannot_prove_who_it_is_gets_nothing(database, certificates, name):
    tls_receiver = Receiver(tls=who_shows(certificates, name))
    ids = database.fill(10)
    done = relay("drain", "-q", "-d", database.conninfo, *http(tls_receiver.url, f"http.tls.ca_file={certificates}/ca.pem", "drain.unavailable_after=1s"), timeout=30)
    got = set(tls_receiver.ids())
    tls_receiver.close()
    if name == "good":
        assert done.returncode == 0 and got == ids, done.stderr
    else:
        assert done.returncode == 69 and "certificate" in done.stderr, done.stderr
        assert not got and database.ids_left() == ids and not database.dead()
