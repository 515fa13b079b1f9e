"""The pairs of scripts/bench: each line is A against B, measured alternately, as the ratio of the medians of their rates."""
import os
import statistics
import subprocess
import sys
import time

import pika
import psycopg2

BUILD = sys.argv[1]
QUICK = "--quick" in sys.argv
ONLY = [text for text in sys.argv[2:] if text != "--quick"]  # parts of names; none = all
ROWS = 20_000 if QUICK else 200_000
AMQP_ROWS = 10_000 if QUICK else 100_000
ROUNDS = 2 if QUICK else 4
WORKERS = 2
BATCH = 500
BODY = 300
CONNINFO = os.environ["TEST_DATABASE"] + " dbname=bench"
URL = os.environ["TEST_AMQP_URL"]
PORT = os.environ["TEST_AMQP_PORT"]
WEBHOOK = f"http://127.0.0.1:{os.environ['TEST_NGINX_PORT']}/bench"
IN_FLIGHT = 32
IN_FRONT = 20_000 if QUICK else 200_000  # rows that cannot go, or of one hot key
KEYS = 1000
CHANNELS = 50 if QUICK else 5_000  # that rest


def connect(dbname="bench"):
    connection = psycopg2.connect(f"{os.environ['TEST_DATABASE']} dbname={dbname}")
    connection.autocommit = True
    return connection


def run(sql):
    connection = connect()
    connection.cursor().execute(sql)
    connection.close()


def put(rows, channel, key):
    run(f"INSERT INTO outbox.message (channel, type, key, payload) SELECT '{channel}', 'order.placed', {key},"
        f" json_build_object('n', i, 'pad', repeat('x', {BODY - 30})) FROM generate_series(1, {rows}) i")


def fill(rows, channel="bench", front=None):
    """A fresh backlog, with the last one's dead rows gone, so that both sides of a pair meet the same table; front: (channel, key) of
    many rows in front of it."""
    run("TRUNCATE outbox.message, outbox.scheduled, outbox.paused")
    if front:
        put(IN_FRONT, *front)
    put(rows, channel, f"(i % {KEYS})::text")
    run("VACUUM ANALYZE outbox.message")
    run("CHECKPOINT")


def timed(*commands):
    """Seconds until all commands, started together, have ended."""
    began = time.monotonic()
    running = [subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True) for command in commands]
    for process in running:
        _, err = process.communicate()
        if process.returncode not in (0, 1):  # 1: a drain that left what is paused or waits
            sys.exit(f"bench: {process.args[0]} ended with {process.returncode}: {err}")
    return time.monotonic() - began


def drain(*options):
    return [f"{BUILD}/outbox-relay", "drain", "-q", "-d", CONNINFO, "-o", f"workers={WORKERS}", "-o", f"batch.max_messages={BATCH}", *options]


def bare_sql():
    return [f"{BUILD}/bare_sql", CONNINFO, str(WORKERS), str(BATCH)]


def timed_until_only_hot_is_left(command):
    """Seconds until all but the hot key's rows are gone."""
    connection = connect()
    began = time.monotonic()
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    with connection.cursor() as cursor:
        while True:
            cursor.execute("SELECT EXISTS (SELECT FROM outbox.message WHERE key <> 'hot')")
            if not cursor.fetchone()[0]:
                break
            time.sleep(0.05)
    took = time.monotonic() - began
    process.terminate()
    process.wait()
    connection.close()
    return took


measured = []


def pair(name, bar, rows, ours, theirs, prepare):
    if ONLY and not any(text in name for text in ONLY):
        return
    measured.append(name)
    rates = {"ours": [], "theirs": []}
    for _ in range(ROUNDS):
        for side, measure in (("ours", ours), ("theirs", theirs)):
            (prepare[side] if isinstance(prepare, dict) else prepare)()
            rates[side].append(rows / measure())
    ours_rate, theirs_rate = (statistics.median(rates[side]) for side in ("ours", "theirs"))
    ratio = ours_rate / theirs_rate
    judged = "" if bar is None else f"  (bar {bar:.2f}{'' if ratio >= bar else ', MISSED'})"
    print(f"{name:<78} {ours_rate:>9.0f}/s {theirs_rate:>9.0f}/s  ratio {ratio:.2f}{judged}", flush=True)


class Queue:
    """One queue behind an exchange, of the type asked for."""

    def __init__(self, type_):
        self.name = f"bench.{type_}"
        self.channel = pika.BlockingConnection(pika.URLParameters(URL + "?heartbeat=0")).channel()
        self.channel.exchange_declare(self.name, exchange_type="topic", durable=True)
        self.channel.queue_declare(self.name, durable=True, arguments={"x-queue-type": type_})
        self.channel.queue_bind(self.name, self.name, "#")

    def purge(self):
        self.channel.queue_purge(self.name)


def migrate(*order):
    subprocess.run([f"{BUILD}/outbox-relay", "migrate", "-d", CONNINFO, *order], check=True, stdout=subprocess.DEVNULL)


def ordered_pairs(queue):
    """The ordered rows: against no order, and with many rows in front that cannot go."""
    options = ["-b", "amqp", "-o", "amqp.url=" + URL, "-o", "retry.backoff_min=10m", "-o", "drain.patience=0"]
    by_key, anyhow = drain(*options, "-o", "order=key"), drain(*options)

    def setup(order, front=None, then=None):
        def prepare():
            migrate("--order", order)
            queue.purge()
            fill(AMQP_ROWS, queue.name, front)
            if then:
                run(then)
        return prepare

    def null(order):
        return drain("-b", "null", "-o", "order=" + order)

    both = {"ours": setup("key"), "theirs": setup("none")}
    pair(f"order: key, {KEYS} keys | order: none, to a classic queue", 0.8, AMQP_ROWS, lambda: timed(by_key), lambda: timed(anyhow), both)
    pair("the same with the null backend", None, AMQP_ROWS, lambda: timed(null("key")), lambda: timed(null("none")), both)
    pause = "INSERT INTO outbox.paused (scope) VALUES ('away')"
    for order, command in (("none", anyhow), ("key", by_key)):
        for what, then in (("paused", pause), ("resting", None)):  # there is no exchange 'away': the channel rests by itself
            pair(f"order: {order}, a {what} channel with {IN_FRONT} rows in front | without", 0.8, AMQP_ROWS, lambda c=command: timed(c),
                 lambda c=command: timed(c), {"ours": setup(order, ("away", "i::text"), then), "theirs": setup(order)})
        # The names of as many channels, each of which rests: asked for once, they are in the way of every claim.
        pair(f"order: {order}, {CHANNELS} resting channels with {IN_FRONT} rows in front | without", 0.5, AMQP_ROWS, lambda c=command: timed(c),
             lambda c=command: timed(c), {"ours": setup(order, (f"away.' || i % {CHANNELS} || '", "i::text")), "theirs": setup(order)})
    wait = ("INSERT INTO outbox.scheduled (seq, id, kind, channel, type, key, headers, created_at, bytes, due_at)"
            f" VALUES (0, gen_random_uuid(), 'event', '{queue.name}', 't', 'hot', '{{}}', now(), 2, now() + '1 h')")
    pair(f"a key that waits with {IN_FRONT} rows in front | without", 0.8, AMQP_ROWS, lambda: timed(by_key), lambda: timed(by_key),
         {"ours": setup("key", (queue.name, "'hot'"), wait), "theirs": setup("key")})
    running = ["run" if word == "drain" else word for word in by_key if word != "-q"]
    pair(f"a hot key with {IN_FRONT} rows in front | without", 0.8, AMQP_ROWS, lambda: timed_until_only_hot_is_left(running),
         lambda: timed_until_only_hot_is_left(running), {"ours": setup("key", (queue.name, "'hot'")), "theirs": setup("key")})
    migrate("--order", "none")


def main():
    connection = connect("postgres")
    connection.cursor().execute("CREATE DATABASE bench")
    migrate()
    run("ALTER TABLE outbox.message SET (autovacuum_enabled = off)")
    print(f"{ROUNDS} rounds A B, {WORKERS} workers or sessions, batches and window of {BATCH}, bodies of {BODY} bytes; medians")
    print(f"{'A against B':<78} {'A':>11} {'B':>11}")
    pair("null backend | bare SQL loop, same statements", 0.8, ROWS, lambda: timed(drain("-b", "null")), lambda: timed(bare_sql()),
         lambda: fill(ROWS))
    for type_ in ("classic", "quorum"):
        queue = Queue(type_)
        publisher = [f"{BUILD}/bare_publisher", "127.0.0.1", PORT, queue.name, "order.placed", str(WORKERS), str(BATCH), str(AMQP_ROWS), str(BODY)]
        ours = drain("-b", "amqp", "-o", "amqp.url=" + URL, "-o", "amqp.exchange=" + queue.name)

        def prepare(purge=queue.purge):
            purge()
            fill(AMQP_ROWS)

        pair(f"drain to a {type_} queue | bare publisher beside a bare SQL loop", 0.95, AMQP_ROWS, lambda o=ours: timed(o),
             lambda p=publisher: timed(p, bare_sql()), prepare)
        pair(f"drain to a {type_} queue | bare publisher alone", None, AMQP_ROWS, lambda o=ours: timed(o), lambda p=publisher: timed(p), prepare)
    ordered_pairs(Queue("classic"))
    ours = drain("-b", "http", "-o", "http.url=" + WEBHOOK, "-o", f"http.max_in_flight={IN_FLIGHT}")
    bare = [f"{BUILD}/bare_http", WEBHOOK, str(WORKERS), str(IN_FLIGHT), str(AMQP_ROWS), str(BODY)]
    pair("drain to nginx | bare libcurl loop beside a bare SQL loop", 0.90, AMQP_ROWS, lambda: timed(ours), lambda: timed(bare, bare_sql()),
         lambda: fill(AMQP_ROWS))
    pair("drain to nginx | bare libcurl loop alone", None, AMQP_ROWS, lambda: timed(ours), lambda: timed(bare), lambda: fill(AMQP_ROWS))


main()
if not measured:
    sys.exit(f"bench: no pair has a name that contains one of {ONLY}")
