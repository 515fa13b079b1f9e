"""What fault_proxy.py knows of PostgreSQL's protocol: it cuts a connection at a statement, or in front of the statement's answer."""
import dataclasses
import struct
import threading

STARTUP_3_0 = 196608


@dataclasses.dataclass
class Trap:
    """Cuts a connection at a statement that holds the text: in front of it, or of the answer with that command tag."""

    text: bytes
    tag: bytes  # empty = the statement itself never arrives
    since: bytes  # an earlier statement of the same transaction must have held this
    how: str  # "reset", "close" or "hole"
    outage: bool  # all connections end like this one, and nobody gets in until healed
    sprung: threading.Event = dataclasses.field(default_factory=threading.Event)


class Watch:
    """Watches one connection's messages; passes on whole ones only."""

    def __init__(self, link):
        self.link, self.proxy = link, link.proxy
        self.started = False
        self.answers_one_byte = 0  # to a request for encryption
        self.buffers = {"up": b"", "down": b""}
        self.statements = []  # of this transaction
        self.armed = None

    def messages(self, way, data):
        """Whole messages as (type, content, bytes)."""
        self.buffers[way] += data
        while True:
            buffer = self.buffers[way]
            typed = self.started or way == "down"
            if way == "down" and self.answers_one_byte and buffer:
                self.answers_one_byte -= 1
                size, kind = 1, b""
            elif len(buffer) < 4 + typed:
                return
            else:
                kind = buffer[:1] if typed else b""
                size = typed + struct.unpack_from(">I", buffer, typed)[0]
            if len(buffer) < size:
                return
            self.buffers[way] = buffer[size:]
            yield kind, buffer[4 + typed:size], buffer[:size]

    def up(self, data):
        out = b""
        for kind, content, whole in self.messages("up", data):
            if not self.started:
                code = struct.unpack_from(">I", content)[0]
                self.started = code == STARTUP_3_0
                self.answers_one_byte += not self.started
            elif kind in b"QP":
                trap = self.trapped(content if kind == b"Q" else content[content.index(b"\0") + 1:])
                if trap and not trap.tag:
                    return out, self.spring(trap)
                self.armed = trap or self.armed
            out += whole
        return out, None

    def down(self, data):
        out = b""
        for kind, content, whole in self.messages("down", data):
            if self.armed and kind == b"C" and content.startswith(self.armed.tag):
                return out, self.spring(self.armed)
            out += whole
        return out, None

    def trapped(self, statement):
        if statement.startswith(b"BEGIN"):
            self.statements.clear()
        earlier = list(self.statements)
        self.statements.append(statement)
        for trap in self.proxy.traps:
            if trap.text in statement and (not trap.since or any(trap.since in one for one in earlier)):
                self.proxy.traps.remove(trap)
                return trap
        return None

    def spring(self, trap):
        if trap.outage and trap.how == "hole":
            self.proxy.up.hole = self.proxy.down.hole = True
        elif trap.outage:
            self.proxy.refusing = True
            self.proxy.end_all(trap.how, but=self.link)
        trap.sprung.set()
        return trap.how
