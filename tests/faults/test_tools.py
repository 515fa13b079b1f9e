"""The tools of these tests: faults that do not happen, and an accounting that misses something, would prove nothing."""
import json
import os
import socket
import subprocess
import sys
import time

import psycopg2
import pytest

import harness
from accounting import Accounting
from fault_proxy import FaultProxy


def test_the_fault_proxy_does_what_it_says(proxied):
    """Tests of faults that do not happen prove nothing."""
    listener = socket.create_server(("127.0.0.1", 0))
    listener.settimeout(5)

    def connect(proxy):
        client = socket.create_connection(("127.0.0.1", proxy.port), 5)
        server, _ = listener.accept()
        server.settimeout(5)
        return client, server

    def read(end, size):
        data = b""
        while len(data) < size:
            data += end.recv(size - len(data)) or pytest.fail("ended early")
        return data

    proxy = proxied(listener.getsockname()[1])
    client, server = connect(proxy)
    client.sendall(b"x" * 1000)
    assert read(server, 1000) == b"x" * 1000
    proxy.up.hole = True
    client.sendall(b"lost?")
    server.sendall(b"down")
    assert read(client, 4) == b"down"
    server.settimeout(0.3)
    with pytest.raises(TimeoutError):
        server.recv(1)
    server.settimeout(5)
    proxy.heal()
    assert read(server, 5) == b"lost?"
    proxy.up.latency = 0.2
    began = time.monotonic()
    client.sendall(b"late")
    assert read(server, 4) == b"late" and time.monotonic() - began >= 0.2
    proxy.heal()
    proxy.up.rate = 1000
    began = time.monotonic()
    client.sendall(b"x" * 500)
    assert read(server, 500) and time.monotonic() - began >= 0.4
    proxy.heal()
    proxy.half_close("up")
    assert server.recv(1) == b""
    server.sendall(b"half")
    assert read(client, 4) == b"half"
    proxy.end_links()
    with pytest.raises(ConnectionResetError):
        client.recv(1)
    proxy.up_cuts = iter([3])
    client, server = connect(proxy)
    client.sendall(b"12345")
    assert read(server, 3) == b"123"
    with pytest.raises(ConnectionResetError):
        server.recv(1)
    proxy.refusing = True
    with pytest.raises(ConnectionResetError):
        socket.create_connection(("127.0.0.1", proxy.port), 5).recv(1)
    assert len(proxy.connects) == 3 and proxy.alive() == 0
    listener.close()


@pytest.mark.parametrize("committed, arrived, more, numbers, fine", [
    ("abc", "abc", {}, "3 0 0 0 0 0 0", True),
    ("abc", "ab", {}, "2 0 1 0 0 0 0", False),
    ("abc", "ab", {"dead": "c"}, "2 1 0 0 0 0 0", True),
    ("abc", "abcx", {}, "4 0 0 1 0 0 0", False),
    ("abc", "abcx", {"attempted": "x"}, "4 0 0 0 0 0 0", True),
    ("abc", "ababc", {"bound": 2}, "5 0 0 0 2 2 0", True),
    ("abc", "ababc", {"bound": 1}, "5 0 0 0 2 1 0", False),
    ("abc", "acb", {}, "3 0 0 0 0 0 1", False),
    ("abc", "abac", {"bound": 1}, "4 0 0 0 1 1 0", True),
], ids=["all once", "lost", "dead", "unexpected", "perhaps committed", "duplicates within", "duplicates beyond", "out of order", "a late duplicate"])
def test_the_accounting_tells_lost_unexpected_duplicated_and_out_of_order_apart(committed, arrived, more, numbers, fine):
    found = Accounting(list(committed), [(identity, "key") for identity in arrived], **more)
    assert str(found) == ("3 committed, {} deliveries, {} dead, {} lost, {} unexpected, {} duplicates (bound {});"
                          " {} first deliveries out of order").format(*numbers.split())
    if fine:
        found.check(ordered=True)
    else:
        with pytest.raises(AssertionError):
            found.check(ordered=True)


def test_the_accounting_promises_no_order_across_keys_or_without_one():
    across = Accounting(["a1", "b1", "a2"], [("b1", "b"), ("a1", "a"), ("a2", "a")]).check(ordered=True)
    assert not across.disorder
    assert not Accounting(["a", "b"], ["b", "a"]).check(ordered=True).disorder, "no key, no order"


def tool(name, *arguments):
    """A tool from its command line, and the first line that it prints."""
    process = subprocess.Popen([sys.executable, os.path.join(harness.HERE, "tools", name), *arguments], text=True,
                               stdin=subprocess.PIPE, stdout=subprocess.PIPE, bufsize=1)
    word, _, value = process.stdout.readline().rstrip().partition(" ")
    return process, word, value


def ended(process):
    process.stdin.close()
    assert process.wait(20) == 0
    process.stdout.close()


def test_the_fault_proxy_obeys_from_the_command_line(receiver):
    process, word, port = tool("fault_proxy.py", str(receiver.port))
    assert word == "port"
    ask = b"POST /x HTTP/1.1\r\nwebhook-id: one\r\nContent-Length: 0\r\n\r\n"

    def order(words):
        process.stdin.write(words + "\n")
        return process.stdout.readline()

    with socket.create_connection(("127.0.0.1", int(port)), 5) as client:
        assert "hole=True" in order("hole")
        client.sendall(ask)
        client.settimeout(0.3)
        with pytest.raises(TimeoutError):
            client.recv(100)
        assert "hole=False" in order("heal")
        client.settimeout(5)
        assert client.recv(100).startswith(b"HTTP/1.1 200")
        assert "1 connects, 1 alive" in order("latency 0.2") and "no order 'melt'" in order("melt")
        began = time.monotonic()
        client.sendall(ask)
        assert client.recv(100) and time.monotonic() - began >= 0.4
        assert "0 alive" in order("reset")
        with pytest.raises(ConnectionResetError):
            client.recv(1)
    ended(process)


def test_the_scripted_broker_answers_in_turn_from_the_command_line(database):
    process, word, url = tool("scripted_broker.py", "0", "nack", "ack")
    assert word == "url"
    database.fill(1)
    relay = harness.Relay("-d", database.conninfo, *harness.amqp(url=url), "-o", "workers=1", "-o", "retry.backoff_min=50ms")
    harness.wait_until(lambda: database.left() == 0, what="the second answer")
    relay.close()
    told = [json.loads(process.stdout.readline()) for _ in range(2)]
    assert [(line["answer"], line["count"]) for line in told] == [("nack", 1), ("ack", 2)]
    ended(process)


def test_the_receiver_answers_in_turn_from_the_command_line(database):
    process, word, url = tool("receiver.py", "0", "503", "204")
    assert word == "url"
    database.fill(1)
    relay = harness.Relay("-d", database.conninfo, *harness.http(url), "-o", "workers=1", "-o", "retry.backoff_min=50ms")
    harness.wait_until(lambda: database.left() == 0, what="the second answer")
    relay.close()
    told = [json.loads(process.stdout.readline()) for _ in range(2)]
    assert [line["status"] for line in told] == [503, 204] and told[0]["headers"]["webhook-id"] == told[1]["headers"]["webhook-id"]
    ended(process)


def test_a_proxy_whose_thread_is_gone_before_the_bell_is_rung_is_closed_all_the_same():
    proxy = FaultProxy(1)
    proxy.done = True  # as close() does it first
    proxy.thread.join(10)
    proxy.close()


@pytest.mark.parametrize("door", ["TEST_PG_PORT", "TEST_PGBOUNCER_PORT"])
def test_who_has_no_password_is_not_the_superuser_of_a_test_server(door):
    with pytest.raises(psycopg2.OperationalError, match="password"):
        psycopg2.connect(f"host=127.0.0.1 port={os.environ[door]} user=postgres dbname=postgres passfile=/none")
    assert os.stat(harness.PASSFILE).st_mode & 0o777 == 0o600
    assert os.stat(os.path.join(harness.DIRECTORY, "postgres")).st_mode & 0o777 == 0o700, "the folder of its socket"


def test_what_dev_servers_did_not_start_it_does_not_end_whatever_a_pid_file_says(tmp_path):
    bystander = subprocess.Popen(["sleep", "60"], env={}, cwd="/")
    servers = tmp_path / "servers"
    for place in ("redis/pid", "nginx/pid", "postgres/data/postmaster.pid", "other/postmaster.pid", "rabbitmq/pid", "rabbitmq/epmd.pid"):
        (servers / place).parent.mkdir(parents=True, exist_ok=True)
        (servers / place).write_text(f"{bystander.pid}\n")
    command = [os.environ["TEST_DEV_SERVERS"], "stop", "servers"]
    if os.getuid() == 0:
        os.chown(servers, 65534, 65534)
        refused = subprocess.run(command, cwd=tmp_path, check=False, capture_output=True, text=True)
        assert refused.returncode == 1 and "belongs to another user" in refused.stderr and servers.exists(), refused
        os.chown(servers, 0, 0)
    done = subprocess.run(command, cwd=tmp_path, check=False, capture_output=True, text=True, timeout=60)
    alive = bystander.poll() is None
    bystander.kill()
    bystander.wait()
    assert alive and done.returncode == 0 and not servers.exists(), done
