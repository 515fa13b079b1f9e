"""Signatures and CloudEvents of the http backend, judged by other people's code: npm standardwebhooks and cloudevents."""
import base64
import hmac
import json
import os
import shutil
import subprocess

import pytest

import npm
from harness import HERE, http, relay, wait_until
from receiver import Answer

OLD = "whsec_" + base64.b64encode(b"the old key, twenty-four+").decode()[:32]
NEW = "whsec_" + base64.b64encode(bytes(range(64))).decode()
OTHER = "whsec_" + base64.b64encode(b"somebody else's key, yes").decode()


@pytest.fixture(scope="module")
def node(tmp_path_factory):
    """A directory with check.js and the libraries."""
    directory = tmp_path_factory.mktemp("interop")
    for name in ("package.json", "check.js"):
        shutil.copy(os.path.join(HERE, "interop", name), directory)
    return npm.install(directory)


def judge(node, requests, *arguments):
    lines = "".join(json.dumps({"headers": r.headers, "body": base64.b64encode(r.body).decode()}) + "\n" for r in requests)
    done = subprocess.run(["node", "check.js", *arguments], cwd=node, input=lines, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


def drain(database, receiver, *options):
    done = relay("drain", "-q", "-d", database.conninfo, *http(receiver.url, *options))
    assert done.returncode == 0, done.stderr
    return receiver.requests


def by_hand(request, key):
    """The signature as the standard's text has it."""
    signed = f"{request.id}.{request.headers['webhook-timestamp']}.".encode() + request.body
    return "v1," + base64.b64encode(hmac.new(base64.b64decode(key.removeprefix("whsec_")), signed, "sha256").digest()).decode()


PAYLOADS = ["json_build_object('n', 1)", "'{\"text\": \"grüß Gott €\", \"list\": [1, 2.50, null]}'::json"]


def publish_all(database):
    for payload in PAYLOADS:
        database.run(f"SELECT outbox.publish('orders', 'order.placed', {payload}, key => 'k 1', correlation_id => 'corr \"1\" 100%%')".replace("%%", "%"))
    database.run("INSERT INTO outbox.message (channel, type, payload_bytes, content_type) VALUES ('orders', 'raw', '\\x00ff0a', 'application/octet-stream')")
    database.run("INSERT INTO outbox.message (channel, type, payload_bytes, content_type) VALUES ('orders', 'text', 'plain text', 'text/plain')")
    database.run("INSERT INTO outbox.message (channel, type) VALUES ('orders', 'empty')")


def test_signatures_are_verified_by_the_reference_library_also_while_keys_rotate(node, database, receiver):
    publish_all(database)
    requests = drain(database, receiver, f"http.secret={NEW},{OLD}")
    placed = [request for request in requests if request.headers["outbox-type"] == "order.placed"]  # the library takes JSON only
    assert len(requests) == 5 and len(placed) == 2
    for key in (NEW, OLD):
        assert judge(node, placed, "webhook", key) == [{"verified": True}] * 2, key
        assert all(by_hand(request, key) in request.headers["webhook-signature"].split() for request in requests)
    assert all("error" in said for said in judge(node, placed, "webhook", OTHER))
    placed[0].body += b" "
    assert "error" in judge(node, placed, "webhook", NEW)[0], "one byte more, and the signature is void"


def test_every_attempt_is_signed_anew_under_the_same_id(node, database, receiver, start):
    receiver.answer = lambda request: Answer(200) if len(receiver.requests) > 1 else Answer(429, headers={"Retry-After": "1"})
    database.run("SELECT outbox.publish('orders', 't', '{}')")
    running = start("-d", database.conninfo, *http(receiver.url, f"http.secret={NEW}"))
    wait_until(lambda: database.left() == 0, what="the second try")
    running.signal(15)
    first, second = receiver.requests
    assert first.id == second.id and first.headers["webhook-timestamp"] != second.headers["webhook-timestamp"]
    assert first.headers["webhook-signature"] != second.headers["webhook-signature"]
    assert judge(node, receiver.requests, "webhook", NEW) == [{"verified": True}] * 2


@pytest.mark.parametrize("mode", ["binary", "structured"])
def test_cloudevents_are_understood_by_the_reference_library(node, database, receiver, mode):
    publish_all(database)
    rows = dict(database.run("SELECT id::text, type FROM outbox.message"))
    requests = drain(database, receiver, f"http.cloudevents={mode}", "http.source=//shop.example/${channel}")
    events = judge(node, requests, "cloudevent")
    assert all(event.get("valid") for event in events), events
    by_type = {}
    for said, request in zip(events, requests):
        event = said["event"]
        assert event["id"] == request.id and rows[event["id"]] == event["type"] and event["source"] == "//shop.example/orders"
        assert event["specversion"] == "1.0" and event["time"]
        by_type.setdefault(event["type"], []).append((event, request))
    placed = by_type["order.placed"]
    assert sorted(json.dumps(event.get("data"), sort_keys=True) for event, _ in placed) == sorted(
        json.dumps(value, sort_keys=True) for value in ({"n": 1}, {"text": "grüß Gott €", "list": [1, 2.5, None]}))
    for event, request in placed:
        wanted = ("k 1", "k 1", 'corr "1" 100%') if mode == "structured" else ("k%201", "k%201", "corr%20%221%22%20100%25")
        assert (event["subject"], event["partitionkey"], event["correlationid"]) == wanted  # the library leaves binary headers encoded
        if mode == "binary":
            assert request.headers["content-type"] == "application/json" and "ce-datacontenttype" not in request.headers
        else:
            assert request.headers["content-type"].startswith("application/cloudevents+json")
    raw, request = by_type["raw"][0]
    if mode == "structured":
        assert base64.b64decode(raw["data_base64"]) == b"\x00\xff\x0a" and by_type["text"][0][0]["data"] == "plain text"
        assert b"2.50" in next(r.body for _, r in placed if b"list" in r.body), "numbers stay as they were written"
    else:
        assert request.body == b"\x00\xff\x0a" and by_type["text"][0][1].body == b"plain text"
