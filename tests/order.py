"""Producers that keep the contract of order: key, and what they committed: they lock their aggregate before they publish."""
import collections
import contextlib
import random
import threading
import time

import psycopg2

HOT = "hot"
FLAKY_EVERY = 16  # of so many messages one is of a type that the broker refuses now and then


class Aggregates(threading.Thread):
    """One producer: picks an aggregate, locks it, counts it up, publishes what became of it; now and then rolls back or commits late.

    `committed` holds (key, number, id) of each message in the order of commits; within a key the numbers rise. What was in a transaction
    when the database went away is in `attempted`: it may be committed or not.
    """

    def __init__(self, database, seed, keys=200, channel="orders", burst=3, backlog=3000, late=0.2, prefix=""):
        super().__init__(daemon=True)
        self.database = database
        self.chance = random.Random(seed)
        self.keys, self.channel, self.burst, self.backlog, self.late = keys, channel, burst, backlog, late
        self.prefix = prefix
        self.committed, self.attempted = [], set()
        self.rolled_back = 0
        self.enough = threading.Event()
        self.failure = None

    @staticmethod
    def prepare(database):
        database.run("CREATE TABLE aggregate (key text PRIMARY KEY, number bigint NOT NULL DEFAULT 0)")

    def transaction(self, cursor):
        """The messages of one transaction: the row lock comes first, so that nobody else's message of the key gets a seq in between."""
        key = self.prefix + (HOT if self.chance.random() < 1 / 3 else str(self.chance.randrange(self.keys)))
        cursor.execute("INSERT INTO aggregate (key) VALUES (%s) ON CONFLICT DO NOTHING", (key,))
        cursor.execute("SELECT number FROM aggregate WHERE key = %s FOR UPDATE", (key,))
        number = cursor.fetchone()[0]
        made = []
        for _ in range(self.chance.randint(1, self.burst)):
            number += 1
            type_ = "order.flaky" if self.chance.randrange(FLAKY_EVERY) == 0 else "order.placed"
            cursor.execute("SELECT outbox.publish(%s, %s, json_build_object('key', %s::text, 'number', %s), key => %s)::text",
                           (self.channel, type_, key, number, key))
            made.append((key, number, cursor.fetchone()[0]))
        cursor.execute("UPDATE aggregate SET number = %s WHERE key = %s", (number, key))
        return made

    def run(self):
        while not self.enough.is_set():
            try:
                self.live()
            except (psycopg2.OperationalError, psycopg2.InterfaceError):
                self.enough.wait(0.2)  # the database is away
            except Exception as failure:  # noqa: BLE001  told by stop_all()
                self.failure = failure
                return

    def live(self):
        """Until it is enough, or the database goes away."""
        connection = self.database.connect(autocommit=False)
        with contextlib.closing(connection), connection.cursor() as cursor:
            while not self.enough.is_set():
                cursor.execute("SELECT count(*) FROM (SELECT FROM outbox.message LIMIT %s) waiting", (self.backlog,))
                if cursor.fetchone()[0] >= self.backlog:
                    connection.rollback()
                    self.enough.wait(0.02)  # the relays must always find work, not drown
                    continue
                made = self.transaction(cursor)
                if self.chance.random() < 0.02:
                    time.sleep(self.chance.random() * self.late)  # commits late: later seqs of other keys are visible before
                if self.chance.random() < 0.1:
                    connection.rollback()
                    self.rolled_back += len(made)
                    continue
                unsure = {identity for _, _, identity in made}
                self.attempted |= unsure
                connection.commit()
                self.attempted -= unsure
                self.committed += made


def start_all(database, count, seed, **more):
    Aggregates.prepare(database)
    producers = [Aggregates(database, seed * 100 + at, **more) for at in range(count)]
    for producer in producers:
        producer.start()
    return producers


def stop_all(producers):
    """All that was committed, as ids in an order that is right within each key, and how much was rolled back."""
    for producer in producers:
        producer.enough.set()
    for producer in producers:
        producer.join()
        if producer.failure:
            raise producer.failure
    by_key = collections.defaultdict(list)
    for producer in producers:
        for key, number, identity in producer.committed:
            by_key[key].append((number, identity))
    return [identity for key in by_key for _, identity in sorted(by_key[key])], sum(p.rolled_back for p in producers)


class Flaky(threading.Thread):
    """Binds and unbinds the key order.flaky, so that RabbitMQ itself refuses some messages for a while."""

    def __init__(self, connect, queue, exchange, seed, period=0.2):
        super().__init__(daemon=True)
        self.connect, self.queue, self.exchange, self.period = connect, queue, exchange, period
        self.chance = random.Random(seed)
        self.enough = threading.Event()
        self.failure = None
        self.start()

    def run(self):
        try:
            connection = self.connect()
            channel = connection.channel()
            while not self.enough.wait(self.chance.random() * self.period):
                channel.queue_unbind(self.queue, self.exchange, "order.flaky")
                self.enough.wait(self.chance.random() * self.period)
                channel.queue_bind(self.queue, self.exchange, "order.flaky")
            channel.queue_bind(self.queue, self.exchange, "order.flaky")
            connection.close()
        except Exception as failure:  # noqa: BLE001  told by stop()
            self.failure = failure

    def stop(self):
        self.enough.set()
        self.join()
        if self.failure:
            raise self.failure
