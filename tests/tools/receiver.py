"""A scriptable HTTP receiver: notes every request in a file before it answers, and answers as the test says, rudely if need be.

    receiver = Receiver(answer=lambda request: Answer(503, headers={"Retry-After": "1"}))
    receiver.requests               every request in order of arrival; receiver.url is where it listens

From the command line it prints each request as a line of JSON, and answers with the statuses in turn, over and over:

    receiver.py PORT [STATUS...]
"""
import itertools
import json
import os
import socket
import socketserver
import struct
import sys
import tempfile
import threading
import time

from ports import free_port


class Request:
    def __init__(self, method, path, headers, body, connection):
        self.method = method
        self.path = path
        self.headers = headers  # names in lower case
        self.body = body
        self.connection = connection
        self.at = time.monotonic()

    @property
    def id(self):
        return self.headers.get("webhook-id")


class Answer:
    """What comes back; the sends are raw so that anything can be said."""

    def __init__(self, status=200, body=b"", headers=None, close=False, raw=None, again=None):
        self.status = status
        self.body = body
        self.headers = headers or {}
        self.close = close
        self.raw = raw  # a function of the socket, in place of an answer; the connection ends with it
        self.again = again  # seconds after which the same is said once more, asked or not; 0 = in the same breath
        self.said_again = threading.Event()

    def send(self, connection):
        if self.raw:
            self.raw(connection)
            return False
        lines = [f"HTTP/1.1 {self.status} Said"] + [f"{name}: {value}" for name, value in self.headers.items()]
        lines += [f"Content-Length: {len(self.body)}", "", ""]
        text = "\r\n".join(lines).encode() + self.body
        connection.sendall(text * 2 if self.again == 0 else text)
        if self.again:
            threading.Timer(self.again, self.say_again, (connection, text)).start()
        return not self.close  # closed without "Connection: close": what a keep-alive that runs out looks like

    def say_again(self, connection, text):
        connection.sendall(text)
        self.said_again.set()


def reset(connection):
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


def hang_up(_connection):
    """Closes politely without a word."""


class _Handler(socketserver.StreamRequestHandler):
    def handle(self):
        number = self.server.receiver.connected()
        while True:
            line = self.rfile.readline(65536).decode("latin-1").strip()
            if not line:
                return
            method, path, _ = line.split(" ")
            headers = {}
            while True:
                field = self.rfile.readline(65536).decode("latin-1").rstrip("\r\n")
                if not field:
                    break
                name, _, value = field.partition(":")
                headers[name.lower()] = value.strip()
            hasty = self.server.receiver.hasty
            body = b"" if hasty else self.rfile.read(int(headers.get("content-length", 0)))
            answer = self.server.receiver.received(Request(method, path, headers, body, number))
            if not answer.send(self.connection):
                return
            if hasty:
                self.server.receiver.over.wait(60)
                return


class _Server(socketserver.ThreadingTCPServer):
    daemon_threads = True
    allow_reuse_address = True
    request_queue_size = 256

    def handle_error(self, request, client_address):
        pass  # the relay hanging up on us is part of the game


class Receiver:
    def __init__(self, answer=lambda request: Answer(), port=0, start=True, tls=None):
        self.answer = answer
        self.tls = tls  # an ssl.SSLContext
        self.file = tempfile.NamedTemporaryFile("w", prefix="receiver-", suffix=".jsonl", delete=False)
        self.lock = threading.Lock()
        self.requests = []
        self.connections = 0
        self.hasty, self.over = False, threading.Event()  # hasty: answers when it has the headers, and reads no more
        self.server = None
        self.port = port or free_port()
        if start:
            self.start()

    def start(self):
        self.over.clear()
        self.server = _Server(("127.0.0.1", self.port), _Handler)
        self.server.receiver = self
        if self.tls:
            self.server.socket = self.tls.wrap_socket(self.server.socket, server_side=True)
        threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()

    @property
    def url(self):
        return f"{'https://localhost' if self.tls else 'http://127.0.0.1'}:{self.port}/hooks/${{channel}}"

    def connected(self):
        with self.lock:
            self.connections += 1
            return self.connections

    def received(self, request):
        with self.lock:
            self.file.write(json.dumps({"id": request.id, "path": request.path, "headers": request.headers}) + "\n")
            self.file.flush()
            self.requests.append(request)
        return self.answer(request)

    def ids(self):
        with self.lock:
            return [request.id for request in self.requests]

    def stop(self):
        self.over.set()
        if self.server:
            self.server.shutdown()
            self.server.server_close()
            self.server = None

    def close(self):
        self.stop()
        self.file.close()
        os.unlink(self.file.name)


class Wire:
    """A TCP line to a port of this machine that can forget its connections, as a NAT does: they stay open, and nothing passes any more."""

    def __init__(self, port):
        self.target = port
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port = self.listener.getsockname()[1]
        self.sockets = []
        self.generation = 0
        threading.Thread(target=self.accept, daemon=True).start()

    def accept(self):
        while True:
            try:
                client, _ = self.listener.accept()
            except OSError:
                return
            server = socket.create_connection(("127.0.0.1", self.target))
            self.sockets += [client, server]
            for source, sink in ((client, server), (server, client)):
                threading.Thread(target=self.carry, args=(source, sink, self.generation), daemon=True).start()

    def carry(self, source, sink, generation):
        try:
            while data := source.recv(65536):
                if generation == self.generation:
                    sink.sendall(data)
            sink.shutdown(socket.SHUT_WR)
        except OSError:
            pass  # closed by one side or by us

    def forget(self):
        self.generation += 1

    def close(self):
        self.listener.close()
        for one in self.sockets:
            one.close()


def main(port, *statuses):
    turn = itertools.cycle([int(status) for status in statuses] or [200])
    lock = threading.Lock()

    def answer(request):
        with lock:
            status = next(turn)
            print(json.dumps({"status": status, "method": request.method, "path": request.path, "headers": request.headers,
                              "body": request.body.decode("utf-8", "replace")}), flush=True)
        return Answer(status)

    receiver = Receiver(answer, port=int(port))
    print(f"url {receiver.url}", flush=True)
    sys.stdin.read()  # until whoever started it hangs up
    receiver.close()


if __name__ == "__main__":
    sys.exit(__doc__) if len(sys.argv) < 2 or sys.argv[1].startswith("-") else main(*sys.argv[1:])
