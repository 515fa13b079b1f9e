"""The http backend against nginx and against receivers that misbehave: verdicts, outages, order, connections, TLS."""
import json
import os
import random
import re
import signal
import time

import pytest

from harness import PATIENCE, http, relay, wait_until
from receiver import Answer, Receiver, Wire, hang_up, reset
from webhooks import CA, TLS, dead_letters, drain, holds, status

SIZE = int(os.environ.get("TEST_HTTP_MESSAGES", "2000"))
NGINX = f"http://127.0.0.1:{os.environ.get('TEST_NGINX_PORT')}/hooks/${{channel}}"
NGINX_TLS = f"https://localhost:{os.environ.get('TEST_NGINX_TLS_PORT')}/hooks"


def logged_ids(ids):
    """The lines of nginx's log that tell of these ids: nginx is the oracle, it writes each request down by itself."""
    wanted = set(ids)
    with open(os.environ["TEST_NGINX_LOG"], encoding="utf-8") as lines:
        return [line.split() for line in lines if line.split(" ", 1)[0] in wanted]


# ---- delivery ----


def test_all_messages_arrive_at_nginx_and_the_table_is_empty(database):
    ids = database.fill(SIZE)
    done, summary = drain(database, NGINX, timeout=300)
    assert done.returncode == 0 and summary["published"] == SIZE, done.stderr
    wait_until(lambda: len(logged_ids(ids)) >= SIZE, what="nginx's log")
    lines = logged_ids(ids)
    print(f"{len(ids)} committed, {len(lines)} arrived, {len({line[0] for line in lines})} different")
    assert sorted(line[0] for line in lines) == sorted(ids) and {line[1] for line in lines} == {"204"}
    assert database.left() == 0


def any_answer(request):
    """What receivers do on a bad day."""
    choice = random.random()
    if choice < 0.70:
        return Answer(200)
    if choice < 0.75:
        return Answer(429, headers={"Retry-After": "1"})
    if choice < 0.80:
        return Answer(503)
    if choice < 0.85:
        return Answer(raw=reset)
    if choice < 0.90:
        return Answer(raw=hang_up)
    if choice < 0.99:
        return Answer(200, close=True)
    return Answer(raw=lambda connection: time.sleep(0.7))


def test_a_random_receiver_gets_every_message_and_none_dies(database, receiver, start):
    random.seed(20261121)
    receiver.answer = any_answer
    database.run("INSERT INTO outbox.message (channel, type, payload) SELECT 'c' || i %% 40, 't', json_build_object('n', i)"
                 " FROM generate_series(1, %s) i", SIZE)
    ids = {row[0] for row in database.run("SELECT id::text FROM outbox.message")}
    start("-d", database.conninfo, *http(receiver.url, "retry.max_attempts=0", "http.timeout=500ms", "retry.backoff_min=50ms",
                                         "retry.backoff_max=500ms", "breaker.open_max=1s", "workers=2"))
    wait_until(lambda: database.left() + database.value("SELECT count(*) FROM outbox.scheduled") == 0, PATIENCE * 2, "an empty outbox")
    assert set(receiver.ids()) == ids and dead_letters(database) == 0
    print(f"{len(ids)} committed, {len(receiver.ids())} requests, {len(set(receiver.ids()))} different, 0 dead")


# ---- verdicts ----


def test_a_400_is_a_dead_letter_with_an_excerpt_of_the_body(database, receiver):
    receiver.answer = lambda request: Answer(400, b"order\n42 is unknown: " + b"x" * 5000)
    ids = database.fill(3, channel="orders")
    done, summary = drain(database, receiver.url)
    assert done.returncode == 1 and summary["dead_lettered"] == 3, done.stderr
    reasons = {row[0] for row in database.run("SELECT last_error FROM outbox.dead_letter WHERE reason = 'rejected'")}
    assert reasons and all(f"http://127.0.0.1:{receiver.port} answered 400: order 42 is unknown: xxx" in reason for reason in reasons)
    assert sorted(receiver.ids()) == sorted(ids) and max(len(reason) for reason in reasons) < 400


def test_a_401_holds_its_channel_counts_no_attempt_and_the_others_flow(database, receiver, start):
    receiver.answer = lambda request: Answer(401, b"token expired") if request.path.endswith("/locked") else Answer(200)
    locked = database.fill(300, channel="locked")
    free = database.fill(500, channel="free")
    start("-d", database.conninfo, *http(receiver.url, "http.max_in_flight=8"))
    wait_until(lambda: free <= set(receiver.ids()), what="the other channel's messages")
    reason = wait_until(lambda: holds(database).get("locked"), what="a hold in status")
    assert "answered 401: token expired" in reason
    wait_until(lambda: database.left() == 300, what="the other channel's end")
    assert dead_letters(database) == 0 and database.value("SELECT count(*) FROM outbox.scheduled") == 0
    tried = [i for i in receiver.ids() if i in locked]
    assert len(tried) < len(locked) / 2, "a wall is not run against by the whole batch"
    receiver.answer = lambda request: Answer(200)
    wait_until(lambda: database.left() == 0, PATIENCE, "the locked channel's messages")
    assert locked <= set(receiver.ids()) and dead_letters(database) == 0


@pytest.mark.parametrize("hasty_url", [None, NGINX_TLS.replace("hooks", "hasty")], ids=["http/1.1, and reads no more", "http/2, and ends the stream"])
def test_a_2xx_that_comes_before_all_was_sent_confirms_nothing(database, receiver, hasty_url):
    """RFC 9113, section 8.1, allows it to a server that needs no more of the request; nobody can have taken what nobody has."""
    receiver.hasty = True
    database.fill(2, size=12 << 20)  # more than sockets hold
    done, summary = drain(database, hasty_url or receiver.url, CA, "http.timeout=2s", "http.max_in_flight=1", "retry.backoff_min=1m")
    assert done.returncode == 1 and summary["published"] == 0, done.stderr
    ((kept, reason),) = database.run("SELECT count(*), max(last_error) FROM (SELECT id, NULL AS last_error FROM outbox.message"
                                     " UNION ALL SELECT id, last_error FROM outbox.scheduled) rows")
    assert kept == 2 and dead_letters(database) == 0
    assert re.search(r"answered 20[04] before all of the \d+ bytes were sent to it", f"{reason} {done.stderr}"), (reason, done.stderr)


@pytest.mark.parametrize("value, at_least, at_most", [("2", 2, 4), ("-5", 0, 3), ("soon", 0, 3)])
def test_retry_after_is_honoured(database, receiver, start, value, at_least, at_most):
    receiver.answer = lambda request: Answer(200) if len(receiver.requests) > 1 else Answer(429, headers={"Retry-After": value})
    database.fill(1, channel="slow")
    start("-d", database.conninfo, *http(receiver.url, "workers=1", "breaker.open_min=100ms", "breaker.open_max=200ms"))
    wait_until(lambda: database.left() == 0, what="the second try")
    first, second = receiver.requests[:2]
    assert at_least <= second.at - first.at <= at_most + 5
    assert first.id == second.id


def test_an_absurd_retry_after_is_cut_to_a_day(database, receiver, start):
    receiver.answer = lambda request: Answer(503, headers={"Retry-After": "99999999999999999999"})
    database.fill(1, channel="slow")
    start("-d", database.conninfo, *http(receiver.url))
    held = wait_until(lambda: [hold for one in status(database)["relays"] for hold in one["holds"]], what="a hold")
    assert 86000 <= held[0]["next_try_in_s"] <= 86400


def test_a_redirect_is_not_followed(database, receiver, start):
    other = Receiver()
    try:
        receiver.answer = lambda request: Answer(302, headers={"Location": f"http://127.0.0.1:{other.port}/elsewhere"})
        database.fill(1, channel="moved")
        start("-d", database.conninfo, *http(receiver.url))
        reason = wait_until(lambda: holds(database).get("moved"), what="a hold")
        assert "answered 302, a redirect, and none is followed" in reason
        assert other.connections == 0 and database.left() == 1
    finally:
        other.close()


def test_a_url_that_is_not_http_is_refused(database, receiver):
    done, _ = drain(database, "file:///etc/passwd")
    assert done.returncode == 78 and "must begin with https:// or http://" in done.stdout
    database.run("SELECT outbox.publish('file', 't', '{}')")
    database.run("SELECT outbox.publish('http', 't', '{}')")
    done, _ = drain(database, "${channel}:///etc/passwd", "drain.unavailable_after=1s")
    assert done.returncode == 1 and database.left() == 2, done.stderr
    assert receiver.connections == 0 and dead_letters(database) == 0


# ---- hostile messages and receivers ----


@pytest.mark.parametrize("sql, reason", [
    ("headers => jsonb_build_object('x-note', E'a\\r\\nx-injected: 1')", "header 'x-note' holds a line break"),
    ("headers => jsonb_build_object(E'x-a\\r\\nx-injected', '1')", "is not one for HTTP"),
    ("headers => jsonb_build_object('Authorization', 'Basic eDp5')", "header 'Authorization' is not a message''s to set"),
    ("headers => jsonb_build_object('webhook-signature', 'v1,x')", "header 'webhook-signature' is not a message''s to set"),
    ("key => E'k\\r\\nx-injected: 1'", "header 'outbox-key' holds a line break"),
    ("headers => jsonb_build_object('long', repeat('v', 20000))", "header 'long' is longer than 16 KiB"),
])
def test_what_http_cannot_carry_is_a_dead_letter_and_injects_nothing(database, receiver, sql, reason):
    database.run(f"SELECT outbox.publish('a', 't', '{{}}', {sql})")
    good = database.fill(3)
    done, summary = drain(database, receiver.url)
    assert done.returncode == 1 and summary["dead_lettered"] == 1, done.stderr
    assert reason.replace("''", "'") in database.value("SELECT last_error FROM outbox.dead_letter")
    assert sorted(receiver.ids()) == sorted(good)
    assert not any("x-injected" in request.headers for request in receiver.requests)


def test_a_message_cannot_leave_its_place_in_the_url(database, receiver):
    for channel in ("a b", "../../admin?x=1#y", "grün", "..", "http://evil/"):
        database.run("SELECT outbox.publish(%s, 't', '{}')", channel)
    done, summary = drain(database, receiver.url)
    assert done.returncode == 1 and summary["dead_lettered"] == 1, done.stderr
    assert sorted(request.path for request in receiver.requests) == [
        "/hooks/..%2F..%2Fadmin%3Fx%3D1%23y", "/hooks/a%20b", "/hooks/gr%C3%BCn", "/hooks/http%3A%2F%2Fevil%2F"]
    assert "a path segment '.' or '..' came out" in database.value("SELECT last_error FROM outbox.dead_letter")
    database.run("SELECT outbox.publish('evil.net/', 't', '{}')")
    done, _ = drain(database, "http://${channel}.example.com/")
    assert done.returncode == 1 and database.value("SELECT count(*) FROM outbox.dead_letter WHERE last_error LIKE '%%a host name made of this%%'") == 1


def endless_body(connection):
    connection.sendall(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
    while True:
        connection.sendall(b"1000\r\n" + b"y" * 4096 + b"\r\n")


def endless_headers(connection):
    connection.sendall(b"HTTP/1.1 200 OK\r\n")
    while True:
        connection.sendall(b"x-more: " + b"y" * 1000 + b"\r\n")


def cut_off_headers(connection):
    connection.sendall(b"HTTP/1.1 200 OK\r\nx-more: ye")


def cut_off_status(connection):
    connection.sendall(b"HTTP/1.1 200 OK\r\n")


def dripping_headers(connection):
    connection.sendall(b"HTTP/1.1 200 OK\r\n")
    while True:
        connection.sendall(b"x")
        time.sleep(0.05)


def dripping_body(connection):
    connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n")
    while True:
        connection.sendall(b"x")
        time.sleep(0.05)


@pytest.mark.parametrize("rudeness", [endless_body, dripping_body])
def test_an_answer_without_an_end_counts_by_its_status_and_is_cut_off(database, receiver, rudeness):
    receiver.answer = lambda request: Answer(raw=rudeness)
    ids = database.fill(3)
    began = time.monotonic()
    done, summary = drain(database, receiver.url, "http.timeout=1s")
    assert done.returncode == 0 and summary["published"] == 3, done.stderr
    assert sorted(receiver.ids()) == sorted(ids) and time.monotonic() - began < 20


@pytest.mark.parametrize("rudeness", [endless_headers, dripping_headers, cut_off_headers, cut_off_status])
def test_headers_without_an_end_confirm_nothing(database, receiver, rudeness):
    receiver.answer = lambda request: Answer(raw=rudeness)
    database.fill(3)
    began = time.monotonic()
    done, summary = drain(database, receiver.url, "http.timeout=1s")
    assert done.returncode == 1 and summary["published"] == 0, done.stderr
    assert database.left() + database.value("SELECT count(*) FROM outbox.scheduled") == 3 and time.monotonic() - began < 30


# ---- order, connections, time ----


def test_messages_of_one_key_follow_each_other(database, receiver):
    on_the_way = {}
    overlaps = []

    def answer(request):
        key = request.headers["outbox-key"]
        on_the_way[key] = on_the_way.get(key, 0) + 1
        overlaps.append(on_the_way[key])
        time.sleep(0.002)
        on_the_way[key] -= 1
        return Answer(200)

    receiver.answer = answer
    database.run("INSERT INTO outbox.message (channel, type, key, payload) SELECT 'a', 't', (i % 5)::text, json_build_object('n', i)"
                 " FROM generate_series(1, 200) i")
    done, _ = drain(database, receiver.url, "workers=1")
    assert done.returncode == 0, done.stderr
    numbers = {}
    for request in receiver.requests:
        numbers.setdefault(request.headers["outbox-key"], []).append(json.loads(request.body)["n"])
    assert max(overlaps) == 1 and all(seen == sorted(seen) for seen in numbers.values()) and len(numbers) == 5
    assert receiver.connections > 3, "and yet several are in flight"


def test_connections_are_used_again(database, receiver):
    database.fill(300)
    done, _ = drain(database, receiver.url, "workers=1", "http.max_in_flight=4")
    assert done.returncode == 0 and len(receiver.requests) == 300, done.stderr
    assert receiver.connections <= 4 + 1  # one more to see whether it is there


def test_a_connection_that_idled_for_too_long_is_not_used_again(database, receiver, start):
    start("-d", database.conninfo, *http(receiver.url, "workers=1", "http.max_idle=1s"))
    for round_ in range(2):
        ids = database.fill(1)
        wait_until(lambda: ids <= set(receiver.ids()), what="the message")
        wait_until(lambda: database.left() == 0, what="an empty outbox")
        before = receiver.connections
        if round_ == 0:
            time.sleep(2.5)  # the connection must grow old: there is no event
    assert receiver.requests[0].connection != receiver.requests[1].connection and before >= 2


def test_a_repetition_of_curls_own_bears_the_same_id(database, receiver):
    receiver.answer = lambda request: Answer(200, close=True) if len(receiver.requests) % 2 else Answer(raw=hang_up)
    ids = database.fill(20)
    done, _ = drain(database, receiver.url, "workers=1", "http.max_in_flight=1", "retry.backoff_min=10ms", "retry.max_attempts=0")
    assert done.returncode in (0, 1), done.stderr
    assert set(receiver.ids()) <= ids and dead_letters(database) == 0


def test_a_batch_with_more_than_time_allows_is_continued_without_duplicates(database, receiver):
    def answer(request):
        time.sleep(0.1)
        return Answer(200)

    receiver.answer = answer
    ids = database.fill(60)
    done, summary = drain(database, receiver.url, "workers=1", "http.max_in_flight=2", "publish_timeout=2s", "http.timeout=1s")
    assert done.returncode == 0 and summary["possible_duplicates"] == 0, done.stderr
    assert sorted(receiver.ids()) == sorted(ids)


def test_one_request_that_hangs_does_not_stop_the_others(database, receiver):
    database.run("INSERT INTO outbox.message (channel, type, key) SELECT 'a', 't', i::text FROM generate_series(1, 40) i")
    receiver.answer = lambda request: Answer(raw=lambda connection: time.sleep(3)) if request.headers["outbox-key"] == "1" else Answer(200)
    done, summary = drain(database, receiver.url, "workers=1", "http.timeout=1s", "retry.backoff_min=1h", "retry.backoff_max=1h")
    assert done.returncode == 1 and summary["published"] == 39, done.stdout
    assert database.run("SELECT key, attempts FROM outbox.scheduled") == [("1", 1)]


def test_a_host_that_is_away_stops_only_its_own_messages_where_each_names_one(database, receiver):
    for host in ("127.0.0.2", "127.0.0.1", "127.0.0.1"):  # at the first nobody listens
        database.run("SELECT outbox.publish('a', 't', '{}', key => %s)", host)
    done, summary = drain(database, f"http://${{key}}:{receiver.port}/", "workers=1", "http.max_in_flight=1")
    assert done.returncode == 1 and summary["published"] == 2 and len(receiver.requests) == 2, done.stdout


def test_a_timeout_longer_than_the_batchs_still_lets_messages_go(database, receiver):
    ids = database.fill(100)
    done, summary = drain(database, receiver.url, "publish_timeout=2s", "http.timeout=5s", "http.max_in_flight=8", "workers=1")
    assert done.returncode == 0 and summary["possible_duplicates"] == 0 and sorted(receiver.ids()) == sorted(ids), done.stdout


def test_connections_that_the_network_has_forgotten_are_given_up_also_with_http_2(database, start):
    wire = Wire(int(os.environ["TEST_NGINX_TLS_PORT"]))
    try:
        start("-d", database.conninfo, *http(f"https://localhost:{wire.port}/hooks", CA, "workers=1", "http.timeout=1s", "breaker.open_max=1s"))
        ids = database.fill(20)
        wait_until(lambda: database.left() == 0, what="an empty outbox")
        wire.forget()
        ids |= database.fill(20)
        wait_until(lambda: database.left() + database.value("SELECT count(*) FROM outbox.scheduled") == 0, PATIENCE, "an empty outbox")
        wait_until(lambda: {line[0] for line in logged_ids(ids)} == ids, what="nginx's log, which is written behind the answers")
        assert dead_letters(database) == 0
    finally:
        wire.close()


def test_a_long_token_arrives_whole_and_headers_that_are_ours_are_refused(database, receiver):
    database.fill(1)
    token = "t" * 6000
    done, _ = drain(database, receiver.url, "http.bearer_token=" + token)
    assert done.returncode == 0 and receiver.requests[0].headers["authorization"] == "Bearer " + token, done.stderr
    done, _ = drain(database, receiver.url, "http.headers=Content-Length=5")
    assert done.returncode == 78 and "a name is one that the backend sets itself" in done.stdout


def test_an_excerpt_that_is_no_text_is_stored_all_the_same(database, receiver):
    receiver.answer = lambda request: Answer(400, b"\xff\xfe\x00 gr\xc3\xbc\xc3" + b"\xc3\xbc" * 200)
    database.fill(1)
    done, _ = drain(database, receiver.url)
    assert done.returncode == 1 and "answered 400" in database.value("SELECT last_error FROM outbox.dead_letter"), done.stderr


def test_what_was_claimed_before_its_channel_began_to_rest_is_not_sent_within_the_rest(database, receiver, start):
    """The other worker has the second row in hand when the receiver asks for a pause over the first."""
    receiver.answer = lambda request: time.sleep(1) or Answer(429, headers={"Retry-After": "60"})
    database.fill(2)
    running = start("-d", database.conninfo, *http(receiver.url, "workers=2", "batch.max_messages=1"), env={"RELAY_FAIL": "after_claim:sleep:2"})
    running.await_log("on hold")
    wait_until(lambda: database.idle_in_transaction_s() > 1, what="the row in hand")
    wait_until(lambda: database.open_transactions() == 0, what="its return")
    assert len(receiver.requests) == 1 and database.left() == 2


# ---- outages ----


def test_an_outage_opens_the_breaker_holds_nothing_and_kills_nothing(database, start):
    receiver = Receiver(start=False)
    try:
        ids = database.fill(200)
        done, _ = drain(database, receiver.url, "drain.unavailable_after=2s", "breaker.open_max=1s")
        assert done.returncode == 69 and f"http://127.0.0.1:{receiver.port}" in done.stderr, done.stderr
        start("-d", database.conninfo, *http(receiver.url, "breaker.open_max=1s"))
        wait_until(lambda: any(one["state"] == "blocked" for one in status(database)["relays"]), what="BLOCKED")
        assert database.open_transactions() == 0
        receiver.start()
        wait_until(lambda: ids <= set(receiver.ids()), PATIENCE, "the messages")
        wait_until(lambda: database.left() == 0, what="an empty outbox")
        assert dead_letters(database) == 0 and sorted(receiver.ids()) == sorted(ids)
    finally:
        receiver.close()


def test_a_stop_does_not_wait_for_a_silent_receiver(database, receiver, start):
    receiver.answer = lambda request: Answer(raw=lambda connection: time.sleep(30))
    database.fill(10)
    running = start("-d", database.conninfo, *http(receiver.url, "http.timeout=60s", "publish_timeout=60s", "shutdown_timeout=1s"))
    wait_until(lambda: receiver.requests, what="a request")
    began = time.monotonic()
    running.signal(signal.SIGTERM)
    assert running.wait(20) in (0, 70) and time.monotonic() - began < 8
    assert database.left() == 10


# ---- TLS ----


def test_https_verifies_and_speaks_http_2(database):
    ids = database.fill(1000)
    done, summary = drain(database, NGINX_TLS, CA)
    assert done.returncode == 0 and summary["possible_duplicates"] == 0, done.stderr
    wait_until(lambda: len(logged_ids(ids)) >= 1000, what="nginx's log")
    assert {line[3] for line in logged_ids(ids)} == {"HTTP/2.0"} and len(logged_ids(ids)) == 1000


@pytest.mark.parametrize("url, options", [(NGINX_TLS, []), (NGINX_TLS.replace("localhost", "127.0.0.1"), [CA])])
def test_a_certificate_that_cannot_be_verified_stops_everything_and_loses_nothing(database, url, options):
    ids = database.fill(5)
    done, _ = drain(database, url, "drain.unavailable_after=1s", "breaker.open_max=1s", *options)
    assert done.returncode == 69 and re.search("SSL|certificate", done.stderr), done.stderr
    assert database.left() == 5 and dead_letters(database) == 0 and logged_ids(ids) == []


def test_a_client_certificate_is_shown_where_it_is_wanted(database):
    url = f"https://localhost:{os.environ['TEST_NGINX_MTLS_PORT']}/hooks"
    ids = database.fill(5)
    done, _ = drain(database, url, CA, f"http.tls.cert_file={TLS}/client.pem", f"http.tls.key_file={TLS}/client.key")
    assert done.returncode == 0, done.stderr
    wait_until(lambda: len(logged_ids(ids)) >= 5, what="nginx's log")
    assert {(line[1], line[4]) for line in logged_ids(ids)} == {("204", "SUCCESS")}


def test_nothing_secret_reaches_log_configuration_or_database(database, receiver):
    secret = "whsec_" + "c2VjcmV0LXNlY3JldC1zZWNyZXQtc2VjcmV0"
    receiver.answer = lambda request: Answer(401)
    database.fill(2, channel="locked")
    options = ("http.secret=" + secret, "http.bearer_token=tok-5150", "http.headers=X-Api-Key=key-4711")
    url = receiver.url.replace("http://", "http://user-1701:pass-1701@") + "?sig=query-1984"
    done, _ = drain(database, url, *options, "log.level=debug")
    shown = relay("config", "show", *http(url, *options))
    told = done.stderr + done.stdout + shown.stdout + json.dumps(status(database))
    assert done.returncode == 1 and len(receiver.requests) >= 1, done.stderr
    for word in ("c2VjcmV0", "tok-5150", "key-4711", "pass-1701", "user-1701"):
        assert word not in told, told
    assert "query-1984" not in done.stderr + json.dumps(status(database))
    assert receiver.requests[0].headers["x-api-key"] == "key-4711"
