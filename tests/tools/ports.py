"""Ports on loopback for servers that are stopped and started again.

The kernel gives outgoing connections a port of the ephemeral range. A server whose own port is one of these may not get it back: somebody's
connection has it meanwhile. So these are ports outside of that range.

    python3 ports.py 3      prints three that are free now, all different
"""
import contextlib
import random
import socket
import sys

FIRST, LAST = 10240, 65535


def lasting_ports():
    """Those that no connection is given (ip(7), ip_local_port_range)."""
    with open("/proc/sys/net/ipv4/ip_local_port_range", encoding="ascii") as file:
        low, high = map(int, file.read().split())
    return [port for port in range(FIRST, LAST + 1) if not low <= port <= high]


def free_ports(count):
    candidates = lasting_ports()
    random.SystemRandom().shuffle(candidates)
    with contextlib.ExitStack() as held:
        found = []
        while len(found) < count:
            port = candidates.pop()  # IndexError: none is free outside of the range
            taken = held.enter_context(socket.socket())
            with contextlib.suppress(OSError):
                taken.bind(("127.0.0.1", port))
                found.append(port)
        return found


def free_port():
    return free_ports(1)[0]


if __name__ == "__main__":
    sys.exit(__doc__) if len(sys.argv) != 2 or sys.argv[1].startswith("-") else print(*free_ports(int(sys.argv[1])))
