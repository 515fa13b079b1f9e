"""What the tests of backend http share: drains, figures, and the certificates of scripts/dev-servers."""
import json
import os

from harness import http, relay

TLS = os.environ.get("TEST_TLS_DIR")
CA = f"http.tls.ca_file={TLS}/ca.pem"


def drain(database, url, *options, timeout=120):
    done = relay("drain", "-q", "--json", "-d", database.conninfo, *http(url, *options), timeout=timeout)
    return done, json.loads(done.stdout) if done.stdout else None


def status(database):
    return json.loads(relay("status", "--json", "-d", database.conninfo).stdout)


def holds(database):
    return {hold["channel"]: hold["reason"] for one in status(database)["relays"] for hold in one["holds"]}


def dead_letters(database):
    return database.value("SELECT count(*) FROM outbox.dead_letter")
