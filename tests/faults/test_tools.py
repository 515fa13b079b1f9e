"""The tools of these tests: faults that do not happen, and an accounting that misses something, would prove nothing."""
import socket
import time

import pytest

from accounting import Accounting


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
