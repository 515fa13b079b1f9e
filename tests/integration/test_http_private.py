"""http.deny_private, in a network namespace with a listener at the address of cloud metadata: no connection is made, and the reason says why."""
import json
import os
import subprocess
import sys
import uuid

import pytest

from harness import HERE, RELAY, clean_environment

METADATA = "169.254.169.254"

# Runs in the namespace: a listener that counts, then the relay's own check of the destination.
SCRIPT = r"""
import json, os, select, socket, subprocess, sys, threading
relay, url, options = sys.argv[1], sys.argv[2], sys.argv[3:]
count = 0
def serve(family, address):
    listener = socket.socket(family)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.bind((address, 8080))
    listener.listen(16)
    def run():
        global count
        while True:
            last = over.is_set()  # then all have connected that ever will
            if select.select([listener], [], [], 0 if last else 0.05)[0]:
                connection, _ = listener.accept()
                count += 1
                connection.close()
            elif last:
                return
    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    return thread
over = threading.Event()
listening = serve(socket.AF_INET, "0.0.0.0")
command = [relay, "backends", "test", "http", "-o", "url=" + url] if "--kit" in options else \
    [relay, "check", "--connect", "-d", "host=127.0.0.1 port=1 dbname=x", "-b", "http", "-o", "http.url=" + url, "-o", "log.level=error"]
for option in options:
    if option != "--kit":
        command += ["-o", option]
done = subprocess.run(command, capture_output=True, text=True, timeout=60)
over.set()
listening.join(10)
print(json.dumps({"connections": count, "code": done.returncode, "said": done.stdout + done.stderr}))
"""


@pytest.fixture(scope="module")
def namespace(tmp_path_factory):
    """The way into a namespace of our own in which the metadata address is a dummy interface, or stands on lo where this kernel has none."""
    name = "outbox" + uuid.uuid4().hex[:8]
    as_root = [] if os.geteuid() == 0 else ["sudo"]
    ip = [*as_root, "/usr/sbin/ip"] if os.path.exists("/usr/sbin/ip") else [*as_root, "ip"]
    subprocess.run([*ip, "netns", "add", name], check=True)
    try:
        inside = [*ip, "netns", "exec", name]
        subprocess.run([*inside, "ip", "link", "set", "lo", "up"], check=True)
        dummy = subprocess.run([*inside, "ip", "link", "add", "meta0", "type", "dummy"], capture_output=True, check=False)
        device = "meta0" if dummy.returncode == 0 else "lo"
        subprocess.run([*inside, "ip", "address", "add", METADATA + "/32", "dev", device], check=True)
        subprocess.run([*inside, "ip", "link", "set", device, "up"], check=True)
        # Names come from /etc/netns/NAME/hosts, which "ip netns exec" puts over /etc/hosts.
        subprocess.run([*as_root, "mkdir", "-p", f"/etc/netns/{name}"], check=True)
        hosts = tmp_path_factory.mktemp("hosts") / "hosts"
        hosts.write_text(f"127.0.0.1 localhost\n{METADATA} metadata.example kit\n10.0.0.1 both.example\n{METADATA} both.example\n")
        subprocess.run([*as_root, "cp", str(hosts), f"/etc/netns/{name}/hosts"], check=True)
        yield inside
    finally:
        subprocess.run([*as_root, "rm", "-rf", f"/etc/netns/{name}"], check=True)
        subprocess.run([*ip, "netns", "delete", name], check=True)


def try_url(namespace, url, *options):
    done = subprocess.run([*namespace, sys.executable, "-c", SCRIPT, RELAY, url, *options], capture_output=True, text=True, timeout=120,
                          env=clean_environment(), check=False, cwd=HERE)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_without_deny_private_the_listener_is_reached(namespace):
    for host in (METADATA, "metadata.example"):
        seen = try_url(namespace, f"http://{host}:8080/latest/meta-data")
        assert seen["connections"] >= 1 and "broker: ok" in seen["said"], seen


@pytest.mark.parametrize("host", [
    METADATA, "metadata.example", "both.example", "2852039166", "0xA9FEA9FE", "0251.0376.0251.0376", "[::ffff:169.254.169.254]",
    "127.0.0.1", "localhost", "0.0.0.0", "[::1]", "169.254.169.254.",
])
def test_with_deny_private_no_connection_is_made_and_the_reason_says_why(namespace, host):
    seen = try_url(namespace, f"http://{host}:8080/latest/meta-data", "http.deny_private=true")
    assert seen["connections"] == 0, seen
    assert "broker: ok" not in seen["said"], seen
    if host != "169.254.169.254.":  # a name that nobody resolves
        assert "is not of the public internet, and http.deny_private refuses such" in seen["said"], seen
        assert seen["code"] == 78, seen


def test_where_the_host_comes_from_the_message_the_channel_rests_with_the_reason(namespace):
    seen = try_url(namespace, "http://${channel}:8080/", "deny_private=true", "--kit")  # the kit's channel is a name for the address here
    assert seen["connections"] == 0, seen
    assert f"is HOLD: http://kit:8080: its address {METADATA} is not of the public internet" in seen["said"], seen
