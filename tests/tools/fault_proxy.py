"""A TCP proxy on loopback that misbehaves when the test tells it to, for everything behind one port of a real server.

    proxy = FaultProxy(port)                what comes to proxy.port goes to the port
    proxy.up.hole = proxy.down.hole = True  faults of one direction, to be changed at any time; `up` is towards the server
    proxy.heal()                            no more faults; what lives goes on
    proxy.connects                          the times of all attempts to connect: a test sees a hot loop here

With postgres=True it reads the protocol, and trap() cuts at a statement or in front of its answer, such as the one to COMMIT.

From the command line, with an order a line on standard input:

    fault_proxy.py PORT [LISTEN_PORT]       latency 0.2 | jitter 0.1 | rate 1000 | slice 1 | hole | reset | close | refuse | heal | show
"""
import collections
import contextlib
import dataclasses
import random
import select
import socket
import struct
import sys
import threading
import time

from postgres_trap import Trap, Watch

CHUNK = 65536


@dataclasses.dataclass
class Faults:
    """Of one direction."""

    latency: float = 0  # seconds
    jitter: float = 0  # up to so many seconds more, at random; the order stays
    rate: int = 0  # bytes per second; 0 = as fast as they come
    slice: int = 0  # bytes at a time; 0 = as they come
    hole: bool = False  # nothing gets through, as behind a firewall that drops; goes on where it stood when healed
    cut_after: int = -1  # so many bytes of one connection, then `cut`; -1 = never
    cut: str = "reset"  # "reset" and "close" end the connection on both sides, "half" only ends this direction


class Pipe:
    """One direction of one connection."""

    def __init__(self, link, source, sink, faults, cut_after):
        self.link, self.source, self.sink, self.faults = link, source, sink, faults
        self.cut_after = cut_after  # of this connection alone; None = as the faults say
        self.queue = collections.deque()  # [due, bytes]
        self.last_due = self.next_send = 0.0
        self.sent = 0
        self.eof = self.ended = False

    def waits_for(self, now):
        """(wants to read, seconds until it can write or None)"""
        if self.faults.hole or self.link.hole or self.ended:
            return False, None
        room = not self.eof and sum(len(data) for _, data in self.queue) < (CHUNK if not self.faults.rate else 2 * self.faults.rate)
        due = self.queue[0][0] if self.queue else self.last_due
        return room, max(0.0, due - now, self.next_send - now) if self.queue or self.eof else None

    def read(self, now, data):
        self.eof = not data
        faults = self.faults
        self.last_due = max(self.last_due, now + faults.latency + faults.jitter * self.link.proxy.chance.random())
        if data:
            self.next_send = self.next_send if self.queue else max(self.next_send, now)
            self.queue.append([self.last_due, data])

    def write(self, now):
        limit = self.faults.cut_after if self.cut_after is None else self.cut_after
        if limit >= 0 and self.sent >= limit:
            self.link.end(self.faults.cut, self)
            return
        if not self.queue:
            self.finish()
            return
        data = self.queue[0][1]
        size = min(len(data), self.faults.slice or CHUNK, max(1, self.faults.rate // 50) if self.faults.rate else CHUNK)
        size = self.sink.send(data[:size if limit < 0 else min(size, limit - self.sent)])
        self.sent += size
        self.next_send = self.next_send + size / self.faults.rate if self.faults.rate else 0.0  # on time on average, however late this was
        if size == len(data):
            self.queue.popleft()
        else:
            self.queue[0][1] = data[size:]

    def finish(self):
        self.ended = True
        with contextlib.suppress(OSError):  # it may be gone already
            self.sink.shutdown(socket.SHUT_WR)


class Link:
    """One connection through the proxy."""

    def __init__(self, proxy, client, server):
        self.proxy = proxy
        self.client, self.server = client, server
        self.hole = self.over = False
        self.up = Pipe(self, client, server, proxy.up, next(proxy.up_cuts, None))
        self.down = Pipe(self, server, client, proxy.down, next(proxy.down_cuts, None))
        self.watch = Watch(self) if proxy.postgres else None

    def read(self, pipe, now):
        data = pipe.source.recv(CHUNK)
        how = None
        if self.watch and data:
            data, how = self.watch.up(data) if pipe is self.up else self.watch.down(data)
            if not data and not how:
                return
        if data or not how:
            pipe.read(now, data)
        if how == "hole":
            self.hole = True
        elif how:
            while pipe.queue and not pipe.ended:
                pipe.write(now)
            self.end(how)

    def end(self, how, pipe=None):
        if how == "half" and pipe:
            pipe.queue.clear()
            pipe.eof = True
            pipe.finish()
            return
        for end in (self.client, self.server):
            if how == "reset":
                end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            end.close()
        self.over = True


class FaultProxy:
    def __init__(self, port, host="127.0.0.1", postgres=False, seed=20261126, listen=0):
        self.target = ("127.0.0.1", int(port))
        self.postgres = postgres
        self.chance = random.Random(seed)
        self.up, self.down = Faults(), Faults()
        self.up_cuts, self.down_cuts = iter(()), iter(())  # a cut_after for each new connection, until none is left
        self.refusing = False  # reset whoever connects
        self.traps = []
        self.connects = []
        self.links = []
        self.listener = socket.create_server((host, listen), backlog=128)
        self.listener.setblocking(False)
        self.port = self.listener.getsockname()[1]
        self.bell, self.ringer = socket.socketpair()
        self.orders = collections.deque()
        self.done = self.ended_well = False
        self.thread = threading.Thread(target=self.run, daemon=True)
        self.thread.start()

    # ---- for the test ----

    def heal(self):
        self.up.__init__()
        self.down.__init__()
        self.refusing = False
        self.ringer.send(b"!")

    def end_links(self, how="reset"):
        """Ends all connections: "reset" or "close"."""
        self.order(lambda: self.end_all(how))

    def half_close(self, way):
        """Ends one direction, "up" or "down", of all connections."""
        def end():
            for link in self.links:
                if not link.over:
                    link.end("half", getattr(link, way))
        self.order(end)

    def trap(self, text, tag=b"", since=b"", how="reset", outage=False):
        """One trap for one connection; trap.sprung says that it cut."""
        self.traps.append(Trap(text, tag, since, how, outage))
        return self.traps[-1]

    def alive(self):
        return sum(not link.over for link in self.links)

    def close(self):
        self.done = True
        self.ringer.send(b"!")
        self.thread.join(10)
        assert self.ended_well, "the proxy's thread failed"
        for end in (self.bell, self.ringer):  # not before: its thread may see `done` first, and be gone when the bell is rung
            end.close()

    # ---- its thread ----

    def end_all(self, how, but=None):
        for link in self.links:
            if not link.over and link is not but:
                link.end(how)

    def order(self, function):
        given = threading.Event()
        self.orders.append(lambda: (function(), given.set()))
        self.ringer.send(b"!")
        assert given.wait(10)

    def accept(self):
        client, _ = self.listener.accept()
        self.connects.append(time.monotonic())
        try:
            server = None if self.refusing else socket.create_connection(self.target, 5)
        except OSError:
            server = None
        if not server:
            client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            client.close()
            return
        for end in (client, server):
            end.setblocking(False)
            end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.links.append(Link(self, client, server))

    def run(self):
        while not self.done:
            while self.orders:
                self.orders.popleft()()
            now = time.monotonic()
            wanted, readers, writers, wait = {self.listener.fileno(): select.POLLIN, self.bell.fileno(): select.POLLIN}, {}, {}, 0.1
            for pipe in (pipe for link in self.links if not link.over for pipe in (link.up, link.down)):
                room, until_write = pipe.waits_for(now)
                if room:
                    readers[pipe.source.fileno()] = pipe
                    wanted[pipe.source.fileno()] = wanted.get(pipe.source.fileno(), 0) | select.POLLIN
                if until_write == 0:
                    writers[pipe.sink.fileno()] = pipe
                    wanted[pipe.sink.fileno()] = wanted.get(pipe.sink.fileno(), 0) | select.POLLOUT
                wait = min(wait, until_write) if until_write else wait
            poll = select.poll()
            for fd, mask in wanted.items():
                poll.register(fd, mask)
            for fd, events in poll.poll(wait * 1000 + 0.5):
                if fd == self.listener.fileno():
                    self.accept()
                elif fd == self.bell.fileno():
                    self.bell.recv(CHUNK)
                else:
                    self.serve(readers.get(fd), writers.get(fd), events)
        self.end_all("reset")
        self.listener.close()
        self.ended_well = True

    @staticmethod
    def serve(reader, writer, events):
        link = (reader or writer).link
        try:
            now = time.monotonic()
            if writer and not link.over and events & (select.POLLOUT | select.POLLERR):
                writer.write(now)
            if reader and not link.over and events & (select.POLLIN | select.POLLHUP | select.POLLERR):
                link.read(reader, now)
        except BlockingIOError:
            return
        except OSError:
            if not link.over:
                link.end("reset")
        if not link.over and link.up.ended and link.down.ended:
            link.end("close")


def obey(proxy, words):
    """One order from the command line; what there is to say."""
    name, *values = words
    if name in ("latency", "jitter", "rate", "slice") and len(values) == 1:
        for faults in (proxy.up, proxy.down):
            setattr(faults, name, int(values[0]) if name in ("rate", "slice") else float(values[0]))
    elif words == ["hole"]:
        proxy.up.hole = proxy.down.hole = True
    elif words in (["reset"], ["close"]):
        proxy.end_links(name)
    elif words == ["refuse"]:
        proxy.refusing = True
        proxy.end_links("reset")
    elif words == ["heal"]:
        proxy.heal()
    elif words != ["show"]:
        return f"no order '{' '.join(words)}': latency S, jitter S, rate BYTES, slice BYTES, hole, reset, close, refuse, heal or show"
    return f"{len(proxy.connects)} connects, {proxy.alive()} alive, refusing {proxy.refusing}, up {proxy.up}, down {proxy.down}"


def main(target, listen="0"):
    proxy = FaultProxy(int(target), listen=int(listen))
    print(f"port {proxy.port}", flush=True)
    for line in sys.stdin:
        if line.split():
            print(obey(proxy, line.split()), flush=True)
    proxy.close()


if __name__ == "__main__":
    sys.exit(__doc__) if len(sys.argv) not in (2, 3) or sys.argv[1].startswith("-") else main(*sys.argv[1:])
