"""What the operator lets messages go to: who writes into the outbox names any exchange, queue and host."""
import pytest

from harness import amqp, http, relay
from receiver import Receiver


def reasons(database):
    return dict(database.run("SELECT id::text, last_error FROM outbox.dead_letter"))


# ---- exchanges and queues ----


def test_only_channels_of_the_list_are_sent_and_what_others_were_told_is_a_dead_letter(database, broker):
    exchange, queue = broker.exchange("orders"), broker.queue("commands")
    oracle = broker.oracle(broker.queue("all", exchange))
    commands = broker.oracle(queue)

    def put(kind, channel, reply_to=None):
        return database.value("INSERT INTO outbox.message (kind, channel, type, correlation_id, reply_to) VALUES (%s, %s, 't', 'c', %s) RETURNING id::text",
                              kind, channel, reply_to)

    good = {put("event", exchange)}
    sent = {put("command", queue, "anything"), put("reply", queue, queue)}
    bad = {put("event", "amq.topic"), put("event", exchange + "2"), put("event", exchange[:-1]), put("command", "other.queue"), put("reply", "other.queue", "other.queue"),
           put("reply", queue, "other.queue")}
    done = relay("drain", "-q", "-d", database.conninfo, *amqp(f"amqp.channels={exchange[:-2]}??,{queue[:-3]}*"))
    assert done.returncode == 1, done.stderr
    assert set(oracle.await_ids(good)) == good and set(commands.await_ids(sent)) == sent and database.left() == 0
    assert reasons(database) == dict.fromkeys(bad, "amqp.channels does not name where this message is to go")


@pytest.mark.parametrize("options, said", [
    (["amqp.exchange=${type}"], "would not say where messages go"), (["amqp.exchange=", "amqp.routing_key=${type}"], "would not say where messages go"),
    (["amqp.command_routing_key=${key}"], "would not say where messages go"), (["amqp.channels=orders[1]"], "a pattern holds '['"),
    (["amqp.routing_key=${type}.${key}"], None), (["amqp.exchange=shop.${channel}"], None)])
def test_a_list_that_would_not_hold_is_a_mistake(database, options, said):
    done = relay("drain", "-q", "-d", database.conninfo, *amqp("amqp.channels=orders", *options))
    assert done.returncode == (78 if said else 0) and (said or "") in done.stderr, done.stderr


def test_explain_says_that_a_channel_is_not_of_the_list(database):
    identity = database.value("SELECT outbox.send('payroll', 't', '{}')::text")
    said = relay("explain", "--id", identity, "-d", database.conninfo, *amqp("amqp.channels=orders"))
    assert "amqp.channels does not name where this message is to go" in said.stdout + said.stderr, said


# ---- hosts ----

CREDENTIALS = {"a token": ["http.bearer_token=t"], "a password": ["http.username=u", "http.password=p"], "a header": ["http.headers=X-Key=k"],
               "a certificate": ["http.tls.cert_file=/c.pem", "http.tls.key_file=/k.pem"], "a user of the URL": []}


@pytest.mark.parametrize("kind", CREDENTIALS)
@pytest.mark.parametrize("url", ["https://${key}/", "https://${channel}.example.com/", "http://127.0.0.1:${key}/", "${key}", "https${key}"])
def test_credentials_go_to_no_host_that_a_message_names_unless_the_hosts_are_named(database, kind, url):
    sends = kind != "a user of the URL"
    with_user = url.replace("://", "://u:p@") if "://" in url else None
    if not sends and not with_user:
        return  # the whole URL is the message's

    def judged(*options, to=url):
        return relay("drain", "-q", "-d", database.conninfo, *http(to, *options))

    done = judged(*CREDENTIALS[kind], to=url if sends else with_user)
    assert done.returncode == 78 and "http.url: takes its host from the message" in done.stderr and "http.hosts" in done.stderr, done.stderr
    assert judged().returncode == 0, "who sends none may"
    assert judged("http.hosts=*.example.com", *CREDENTIALS[kind], to=url if sends else with_user).returncode == 0


@pytest.mark.parametrize("url, hosts, fine", [("https://Shop.example.com:8443/${key}", "*.example.com", True), ("https://u:p@shop.example.com./x", "shop.example.com", True),
                                              ("https://[::1]:1/", "::1", True), ("https://shop.example.com/", "shop.example.org", False),
                                              ("https://shop.example.com@evil.example/", "shop.example.com", False), ("http://0x7f.1/", "127.0.0.1", True), ("https://shop.example.com/", "shop.example.com:443", True),
                                              ("https://shop.example.com:8443/", "*.example.com:443", False)])
def test_a_host_of_the_url_that_is_not_of_the_list_is_a_mistake(database, url, hosts, fine):
    done = relay("drain", "-q", "-d", database.conninfo, *http(url, "http.hosts=" + hosts))
    assert done.returncode == (0 if fine else 78), done.stderr
    assert fine or "http.hosts: does not name the host of http.url" in done.stderr


def test_a_message_that_names_another_host_is_a_dead_letter_and_its_connection_is_never_made(database, receiver):
    other = Receiver()
    put = "INSERT INTO outbox.message (channel, type, key) VALUES ('c', 't', %s) RETURNING id::text"
    good = {database.value(put, f"http://127.0.0.1:{receiver.port}/{at}") for at in range(3)}
    bad = {database.value(put, url) for url in (
        f"http://localhost:{other.port}/", f"http://127.0.0.1@localhost:{other.port}/", f"http://127.0.0.1:1@localhost:{other.port}/127.0.0.1",
        f"http://localhost:{other.port}#@127.0.0.1/", f"http://localhost:{other.port}/?@127.0.0.1", f"http://[::1]:{other.port}/", f"http://127.0.0.2:{other.port}/")}
    done = relay("drain", "-q", "-d", database.conninfo, *http("${key}", "http.hosts=127.0.0.1", "http.bearer_token=t"))
    assert done.returncode == 1, done.stderr
    assert set(receiver.ids()) == good and other.connections == 0 and database.left() == 0
    said = reasons(database)
    other.close()
    assert said.keys() == bad and {text for text in said.values()} <= {"http.hosts does not name the host of this message's URL"}, said


def test_credentials_go_in_clear_text_to_no_host_but_this(database, receiver):
    put = "INSERT INTO outbox.message (channel, type, key) VALUES ('c', 't', %s) RETURNING id::text"
    good = database.value(put, f"http://127.0.0.1:{receiver.port}/")
    bad = database.value(put, "http://shop.example.com/")
    done = relay("drain", "-q", "-d", database.conninfo, *http("${key}", "http.hosts=*", "http.bearer_token=t"))
    assert done.returncode == 1 and receiver.ids() == [good], done.stderr
    assert reasons(database) == {bad: "the URL of this message is not https://, and what goes along is secret"}
