"""Stands in front of a Kafka broker and tells its clients another port in its metadata, as advertised.listeners would.

    with Advertiser(port, advertised) as front:    front.port is where it listens
"""
import socket
import struct
import threading


class Advertiser:
    def __init__(self, port, advertised, host="127.0.0.1"):
        self.target = (host, port)
        self.old, self.new = (host.encode() + struct.pack(">i", number) for number in (port, advertised))
        self.listener = socket.create_server((host, 0))
        self.port = self.listener.getsockname()[1]
        self.sockets = []
        threading.Thread(target=self.accept, daemon=True).start()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        for each in (self.listener, *self.sockets):
            try:
                each.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass  # it has ended by itself
            each.close()

    def accept(self):
        while True:
            try:
                client, _ = self.listener.accept()
                server = socket.create_connection(self.target)
            except OSError:
                return
            self.sockets += [client, server]
            for one, other, change in ((client, server, lambda data: data), (server, client, lambda data: data.replace(self.old, self.new))):
                one.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                threading.Thread(target=self.carry, args=(one, other, change), daemon=True).start()

    @staticmethod
    def carry(source, sink, change):
        try:
            while data := source.recv(1 << 18):
                sink.sendall(change(data))
        except OSError:
            pass  # either side has gone, and so goes the other
        for each in (source, sink):
            try:
                each.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass
