"""Three RabbitMQ nodes as one cluster, started by scripts/dev-servers for the tests of one file; nodes are numbered from 1."""
import concurrent.futures
import contextlib
import json
import os
import signal
import subprocess
import sys

import pika

from harness import wait_until

NODES = (1, 2, 3)
PROBE = "probe"
PUBLISH = """
import sys, pika
channel = pika.BlockingConnection(pika.URLParameters(sys.argv[1] + "?heartbeat=0")).channel()
channel.confirm_delivery()
channel.basic_publish("", sys.argv[2], b"", pika.BasicProperties(message_id=sys.argv[3], delivery_mode=2), mandatory=True)
"""


class Cluster:
    def __init__(self, directory):
        self.directory = directory
        self.servers("start", directory, "cluster")
        with open(os.path.join(directory, "env"), encoding="utf-8") as env:
            self.ports = [word.rsplit(":", 1)[1].split("/")[0] for line in env if "TEST_CLUSTER_URLS" in line for word in line.split("\\ ")]
        self.urls = [f"amqp://guest:guest@127.0.0.1:{port}/" for port in self.ports]
        self.names = [f"outbox{port}@localhost" for port in self.ports]
        self.frozen, self.alone = set(), set()

    @staticmethod
    def servers(*arguments):
        done = subprocess.run([os.environ["TEST_DEV_SERVERS"], *arguments], capture_output=True, text=True, timeout=200, check=False)
        assert done.returncode == 0, done.stdout + done.stderr

    def home(self, node):
        return os.path.join(self.directory, "cluster", str(node))

    def pid(self, node):
        with open(os.path.join(self.home(node), "pid"), encoding="ascii") as file:
            return int(file.read())

    def ctl(self, node, *arguments):
        return subprocess.run([os.path.join(self.home(node), "rabbitmqctl"), "-q", *arguments], capture_output=True, text=True, timeout=120,
                              check=True).stdout

    def connect(self, node):
        try:
            return pika.BlockingConnection(pika.URLParameters(self.urls[node - 1] + "?heartbeat=0"))
        except ValueError as gone:  # pika's word for a socket that the other side has closed meanwhile
            raise ConnectionError(f"node {node} hung up") from gone

    # ---- faults ----

    def kill(self, node):
        os.kill(self.pid(node), signal.SIGKILL)
        wait_until(lambda: not self.listens(node), what=f"the end of node {node}")

    def up(self, node):
        self.servers("node", self.directory, str(node), "up")

    def down(self, node):
        self.servers("node", self.directory, str(node), "down")

    def freeze(self, node):
        os.kill(self.pid(node), signal.SIGSTOP)
        self.frozen.add(node)

    def thaw(self, node):
        os.kill(self.pid(node), signal.SIGCONT)
        self.frozen.discard(node)

    def others(self, node):
        return "[" + ", ".join(f"'{name}'" for number, name in zip(NODES, self.names) if number != node) + "]"

    def isolate(self, node):
        """The others refuse it, and it them: a partition with this node as the minority. Clients still come in."""
        self.ctl(node, "eval", f"[begin erlang:set_cookie(N, wrong), erlang:disconnect_node(N) end || N <- {self.others(node)}].")
        self.alone.add(node)

    def join(self, node):
        self.ctl(node, "eval", f"[begin erlang:set_cookie(N, erlang:get_cookie()), net_adm:ping(N) end || N <- {self.others(node)}].")
        self.alone.discard(node)

    # ---- what is ----

    def pauses_minorities(self):
        """RabbitMQ 4.3 has no partition handling any more: a minority goes on, and confirms nothing."""
        return tuple(int(part) for part in self.ctl(1, "version").strip().split(".")[:2]) < (4, 3)

    def listens(self, node):
        try:
            self.connect(node).close()
        except (pika.exceptions.AMQPError, OSError):
            return False
        return True

    def takes(self, queue):
        """Does a quorum take a message for the queue, published by us? Its id is PROBE."""
        for url in self.urls:
            with contextlib.suppress(subprocess.TimeoutExpired):  # a node may be frozen, and a confirm may never come
                if subprocess.run([sys.executable, "-c", PUBLISH, url, queue, PROBE], timeout=4, capture_output=True, check=False).returncode == 0:
                    return True
        return False

    def look(self, queue, ask):
        """What a node that is up knows of a queue: its leader, and the members that are online."""
        found = json.loads(self.ctl(ask, "list_queues", "name", "leader", "online", "--formatter", "json"))
        return next((entry for entry in found if entry["name"] == queue), {})

    def leader(self, queue, ask):
        """The number of the node that leads the queue; None while there is none. ask: a node that is up."""
        name = self.look(queue, ask).get("leader")
        return self.names.index(name) + 1 if name in self.names else None

    def await_members(self, queue, node):
        """A node that is back is of no use to a queue before its member there is: in front of the next fault an operator waits for that, and begins
        the node anew where it does not come by itself. How often that was."""
        def whole():
            with contextlib.suppress(subprocess.CalledProcessError):  # it may stop once more when it finds out that it was alone
                return len(self.look(queue, node % len(NODES) + 1).get("online", ())) == len(NODES)
            return False

        try:
            wait_until(whole, 45)
            return 0
        except AssertionError:
            self.down(node)
            self.up(node)
            wait_until(whole, 90, "all members of the queue")
            return 1

    def back(self, node):
        """Waits for a node that was cut off or begun anew."""
        wait_until(lambda: self.listens(node), 60, f"the return of node {node}")

    def together(self):
        """Does each node see all of them at work? One that was frozen listens at first, finds out, and stops for a while."""
        def seen(node):
            try:
                return len(json.loads(self.ctl(node, "cluster_status", "--formatter", "json"))["running_nodes"])
            except subprocess.CalledProcessError:
                return 0  # it has stopped, as a minority does

        with concurrent.futures.ThreadPoolExecutor(len(NODES)) as pool:
            return list(pool.map(seen, NODES)) == [len(NODES)] * len(NODES)

    def forget(self, queue):
        """Deletes the queue, by whichever node is at work."""
        def deleted():
            for node in NODES:
                with contextlib.suppress(pika.exceptions.AMQPError, OSError):
                    connection = self.connect(node)
                    connection.channel().queue_delete(queue)
                    connection.close()
                    return True
            return False

        wait_until(deleted, 60, "a node that deletes the queue")

    def heal(self):
        """All nodes up, thawed and together again; how many had to be begun anew for it, as an operator does after a partition that stays."""
        for node in list(self.frozen):
            self.thaw(node)
        for node in list(self.alone):
            self.join(node)
        for node in NODES:
            if not os.path.exists(f"/proc/{self.pid(node)}"):
                self.up(node)
        for node in NODES:
            self.back(node)
        try:
            wait_until(self.together, 45)
            return 0
        except AssertionError:
            for node in NODES[1:]:
                self.down(node)
                self.up(node)
            wait_until(self.together, 120, "three nodes that see each other")
            return len(NODES) - 1

    def close(self):
        for node in list(self.frozen):
            self.thaw(node)
        self.servers("stop", self.directory)
