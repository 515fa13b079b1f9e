"""An AMQP 0-9-1 broker for what RabbitMQ will not do on demand: it plays a script of the test, and notes every message it got.

    broker = ScriptedBroker(on_message=lambda session, message: session.ack(message.tag))
    broker.received                 every message in order of arrival, over all connections
    broker.accepted()               ids for which it took responsibility: acked on the right channel and not returned

The script are callbacks, all optional: on_login(session), on_declare(session, exchange), on_message(session, message). They run in
the connection's thread; the session's methods may be called from the test's thread as well. It speaks just enough for one publisher.

From the command line it prints each message as a line of JSON, and answers with the words in turn, over and over:

    scripted_broker.py PORT [ack|nack|return|silence|close|cut...]
"""
import collections
import contextlib
import dataclasses
import itertools
import json
import socket
import struct
import sys
import threading
import time

METHOD, HEADER, BODY, HEARTBEAT = 1, 2, 3, 8
FRAME_END = b"\xce"
FRAME_MAX = 131072
PUBLISHING = 1  # the channel that the relay publishes on

START, START_OK, TUNE, TUNE_OK, OPEN, OPEN_OK, CLOSE, CLOSE_OK, BLOCKED, UNBLOCKED = (
    (10, 10), (10, 11), (10, 30), (10, 31), (10, 40), (10, 41), (10, 50), (10, 51), (10, 60), (10, 61))
CHANNEL_OPEN, CHANNEL_OPEN_OK, CHANNEL_CLOSE, CHANNEL_CLOSE_OK = (20, 10), (20, 11), (20, 40), (20, 41)
DECLARE, DECLARE_OK, SELECT, SELECT_OK = (40, 10), (40, 11), (85, 10), (85, 11)
PUBLISH, RETURN, ACK, NACK = (60, 40), (60, 50), (60, 80), (60, 120)


# ---- the wire ----


def short(text):
    data = text.encode()
    return bytes([len(data)]) + data


def long(data):
    return struct.pack(">I", len(data)) + data


def table(entries):
    """Booleans, integers and texts."""
    out = b""
    for name, value in entries.items():
        kind = b"t" if isinstance(value, bool) else b"l" if isinstance(value, int) else b"S"
        out += short(name) + kind + (bytes([value]) if kind == b"t" else struct.pack(">q", value) if kind == b"l" else long(value.encode()))
    return long(out)


class Reader:
    """Reads fields from a payload."""

    def __init__(self, data):
        self.data, self.at = data, 0

    def take(self, size):
        self.at += size
        return self.data[self.at - size:self.at]

    def number(self, form):
        return struct.unpack(form, self.take(struct.calcsize(form)))[0]

    def short(self):
        return self.take(self.number(">B")).decode()

    def long(self):
        return self.take(self.number(">I"))

    def table(self):
        inner = Reader(self.long())
        entries = {}
        while inner.at < len(inner.data):
            name = inner.short()
            entries[name] = inner.value()
        return entries

    def value(self):
        kind = self.take(1)
        forms = {b"l": ">q", b"I": ">i", b"d": ">d", b"T": ">Q"}
        if kind in forms:
            return self.number(forms[kind])
        if kind == b"S":
            return self.long().decode("utf-8", "replace")
        if kind == b"F":
            return self.table()
        return None if kind == b"V" else bool(self.number(">B"))


def read_properties(payload):
    """The properties of a content header, by name."""
    reader = Reader(payload[12:])
    flags = reader.number(">H")
    names = ["content_type", "content_encoding", "headers", "delivery_mode", "priority", "correlation_id", "reply_to", "expiration",
             "message_id", "timestamp", "type", "user_id", "app_id"]
    found = {}
    for bit, name in enumerate(names):
        if flags & 1 << 15 - bit:
            found[name] = (reader.table() if name == "headers" else reader.number(">B") if name in ("delivery_mode", "priority") else
                           reader.number(">Q") if name == "timestamp" else reader.short())
    return found


@dataclasses.dataclass
class Message:
    id: str
    seq: int
    key: str
    exchange: str
    routing_key: str
    tag: int
    connection: int  # 1 is the first
    count: int  # how often this id came, with this time
    at: float
    body: bytes
    header: bytes  # as it came
    properties: dict
    acked: bool = False
    nacked: bool = False
    returned: bool = False


# ---- one connection ----


class Session(threading.Thread):
    def __init__(self, broker, connection, number):
        super().__init__(daemon=True)
        self.broker, self.socket, self.number = broker, connection, number
        self.lock = threading.Lock()
        self.messages = []  # of the publishing channel; the tag is the place plus one
        self.channels = 0  # how often the publishing channel was opened
        self.early = {}  # what was answered to tags before their messages were read
        self.reading = threading.Event()  # cleared: takes nothing more from the socket, as RabbitMQ in an alarm; heartbeats go on
        self.reading.set()
        self.silent = False  # sends nothing, not even heartbeats
        self.over = False
        self.content = None
        self.heartbeat = 10
        self.start()

    def send(self, kind, channel, payload):
        with self.lock, contextlib.suppress(OSError):
            if not self.silent and not self.over:
                self.socket.sendall(struct.pack(">BHI", kind, channel, len(payload)) + payload + FRAME_END)

    def method(self, channel, name, arguments=b""):
        self.send(METHOD, channel, struct.pack(">HH", *name) + arguments)

    # ---- what a script may do ----

    def ack(self, tag, multiple=False, channel=PUBLISHING):
        self.note("acked", tag, multiple, channel)
        self.method(channel, ACK, struct.pack(">QB", tag, multiple))

    def nack(self, tag, multiple=False, channel=PUBLISHING):
        self.note("nacked", tag, multiple, channel)
        self.method(channel, NACK, struct.pack(">QB", tag, multiple))

    def note(self, what, tag, multiple, channel):
        """The first answer to a tag counts; one that was not read yet is answered all the same, should the publisher have sent it."""
        if channel == PUBLISHING and tag > len(self.messages):
            self.early.setdefault(tag, what)
        for message in self.messages[0 if multiple else max(tag - 1, 0):tag or len(self.messages)]:
            if channel == PUBLISHING and not message.acked and not message.nacked and not self.silent:
                setattr(message, what, True)

    def return_(self, message, headers=None):
        """Sends it back as unroutable; with headers, under these instead of its own."""
        message.returned |= headers is None and not message.acked  # the ack came first: it was taken
        header = message.header if headers is None else (
            struct.pack(">HHQH", 60, 0, len(message.body), 1 << 13) + table(headers))
        self.method(PUBLISHING, RETURN, struct.pack(">H", 312) + short("NO_ROUTE") + short(message.exchange) + short(message.routing_key))
        self.send(HEADER, PUBLISHING, header)
        for at in range(0, len(message.body), FRAME_MAX - 8):
            self.send(BODY, PUBLISHING, message.body[at:at + FRAME_MAX - 8])

    def close_channel(self, code, text, channel=PUBLISHING):
        self.method(channel, CHANNEL_CLOSE, struct.pack(">H", code) + short(text) + struct.pack(">HH", *PUBLISH))

    def close_connection(self, code, text):
        self.method(0, CLOSE, struct.pack(">H", code) + short(text) + struct.pack(">HH", 0, 0))

    def block(self, reason="low on memory"):
        self.method(0, BLOCKED, short(reason))
        self.reading.clear()

    def unblock(self):
        self.method(0, UNBLOCKED)
        self.reading.set()

    def cut(self):
        """A reset, when called by the script."""
        with contextlib.suppress(OSError):
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            if threading.current_thread() is not self:
                self.socket.shutdown(socket.SHUT_RDWR)
        self.over = True
        self.reading.set()

    # ---- the connection's thread ----

    def run(self):
        try:
            with contextlib.suppress(OSError), self.socket:
                if self.broker.tls:
                    self.socket.settimeout(10)
                    self.socket = self.broker.tls.wrap_socket(self.socket, server_side=True)
                self.serve()
        except Exception as mistake:  # of the script or of ours: the test must hear of it
            self.broker.mistakes.append(mistake)
            raise
        finally:
            self.over = True

    def serve(self):
        buffer = bytearray()  # grows and shrinks in place: messages may be large
        greeted = False
        while not self.over:
            if not self.reading.wait(self.heartbeat / 2):
                self.send(HEARTBEAT, 0, b"")
                continue
            self.socket.settimeout(self.heartbeat / 2)
            try:
                data = self.socket.recv(FRAME_MAX)
            except TimeoutError:
                self.send(HEARTBEAT, 0, b"")
                continue
            if not data:
                return
            buffer += data
            if not greeted and len(buffer) >= 8:
                if not buffer.startswith(b"AMQP\0\0\x09\x01"):
                    return
                del buffer[:8]
                greeted = True
                abilities = long(b"".join(short(name) + b"t\1" for name in ("publisher_confirms", "basic.nack", "connection.blocked")))
                properties = b"".join(short(name) + b"S" + long(text.encode()) for name, text in self.broker.properties.items())
                self.method(0, START, b"\0\x09" + long(properties + short("capabilities") + b"F" + abilities) + long(b"PLAIN") + long(b"en_US"))
            while greeted and len(buffer) >= 8 and not self.over and self.reading.is_set():
                kind, channel, size = struct.unpack_from(">BHI", buffer)
                if len(buffer) < 8 + size:
                    break
                payload = bytes(buffer[7:7 + size])
                del buffer[:8 + size]
                self.frame(kind, channel, payload)

    def frame(self, kind, channel, payload):
        if kind == METHOD:
            self.called(channel, struct.unpack_from(">HH", payload), Reader(payload[4:]))
        elif kind == HEADER:
            self.content += [payload, struct.unpack_from(">Q", payload, 4)[0], bytearray()]
            self.complete()
        elif kind == BODY:
            self.content[4] += payload
            self.complete()

    def called(self, channel, name, arguments):
        script = self.broker
        if name == START_OK:
            script.on_login(self)
            self.method(0, TUNE, struct.pack(">HIH", 2047, FRAME_MAX, 0))
        elif name == TUNE_OK:
            self.heartbeat = struct.unpack(">HIH", arguments.take(8))[2] or 60
        elif name == OPEN:
            self.method(0, OPEN_OK, short(""))
        elif name == CHANNEL_OPEN:
            if channel == PUBLISHING:
                self.channels += 1
                self.messages, self.early = [], {}  # tags begin anew
            self.method(channel, CHANNEL_OPEN_OK, long(b""))
        elif name == CHANNEL_CLOSE:
            self.method(channel, CHANNEL_CLOSE_OK)
        elif name == SELECT:
            self.method(channel, SELECT_OK)
            script.on_ready(self)
        elif name == DECLARE:
            arguments.take(2)
            if script.on_declare(self, arguments.short()) is not False:
                self.method(channel, DECLARE_OK)
        elif name == PUBLISH:
            arguments.take(2)
            self.content = [arguments.short(), arguments.short()]
        elif name == CLOSE:
            self.method(0, CLOSE_OK)
            self.over = True
        elif name == CLOSE_OK:
            self.over = True

    def complete(self):
        exchange, routing_key, header, size, body = self.content
        if len(body) < size:
            return
        properties = read_properties(header)
        headers = properties.get("headers", {})
        message = Message(properties.get("message_id"), headers.get("outbox-seq"), headers.get("outbox-key"), exchange, routing_key,
                          len(self.messages) + 1, self.number, 0, time.monotonic(), bytes(body), header, properties)
        if message.tag in self.early:
            setattr(message, self.early[message.tag], True)
        self.messages.append(message)
        self.broker.take(message)
        self.broker.on_message(self, message)


# ---- the broker ----


class ScriptedBroker:
    def __init__(self, on_message=None, on_ready=None, on_login=None, on_declare=None, tls=None, port=0, properties=None):
        self.on_message = on_message or (lambda session, message: session.ack(message.tag))
        self.on_ready = on_ready or (lambda session: None)  # the channel is open, confirms are selected
        self.on_login = on_login or (lambda session: None)
        self.on_declare = on_declare or (lambda session, exchange: None)  # False: no answer
        self.tls = tls
        self.properties = properties or {}  # what it says of itself, such as {"product": "RabbitMQ", "version": "4.0.5"}
        self.received = []
        self.counts = collections.Counter()
        self.sessions = []
        self.connects = []
        self.mistakes = []
        self.lock = threading.Lock()
        self.listener = socket.create_server(("127.0.0.1", port), backlog=64)
        self.port = self.listener.getsockname()[1]
        self.url = f"amqp://guest:guest@127.0.0.1:{self.port}/"
        self.done = False
        self.thread = threading.Thread(target=self.accept, daemon=True)
        self.thread.start()

    def accept(self):
        with contextlib.suppress(OSError):
            while not self.done:
                connection, _ = self.listener.accept()
                connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                self.connects.append(time.monotonic())
                self.sessions.append(Session(self, connection, len(self.sessions) + 1))

    def take(self, message):
        with self.lock:
            self.counts[message.id] += 1
            message.count = self.counts[message.id]
            self.received.append(message)

    def ids(self):
        return [message.id for message in self.received]

    def accepted(self):
        return {message.id for message in self.received if message.acked and not message.returned}

    def deliveries(self):
        """For Accounting."""
        return [(message.id, (message.exchange, message.key) if message.key else None) for message in self.received]

    def close(self):
        self.done = True
        with contextlib.suppress(OSError):
            self.listener.shutdown(socket.SHUT_RDWR)
        self.listener.close()
        for session in self.sessions:
            session.cut()
        assert not self.mistakes, self.mistakes


# ---- the command line ----


def answer(session, message, word):
    if word in ("ack", "return"):
        if word == "return":
            session.return_(message)
        session.ack(message.tag)
    elif word == "nack":
        session.nack(message.tag)
    elif word == "close":
        session.close_channel(406, "PRECONDITION_FAILED - the script says so")
    elif word == "cut":
        session.cut()


def main(port, *words):
    known = ("ack", "nack", "return", "silence", "close", "cut")
    if not set(words) <= set(known):
        sys.exit(f"scripted_broker.py PORT [{'|'.join(known)}...]")
    turn = itertools.cycle(words or ("ack",))
    lock = threading.Lock()

    def on_message(session, message):
        with lock:
            word = next(turn)
            print(json.dumps({"answer": word, "id": message.id, "count": message.count, "exchange": message.exchange,
                              "routing_key": message.routing_key, "body": message.body.decode("utf-8", "replace")}), flush=True)
        answer(session, message, word)

    broker = ScriptedBroker(on_message, port=int(port))
    print(f"url {broker.url}", flush=True)
    sys.stdin.read()  # until whoever started it hangs up
    broker.close()


if __name__ == "__main__":
    sys.exit(__doc__) if len(sys.argv) < 2 or sys.argv[1].startswith("-") else main(*sys.argv[1:])
