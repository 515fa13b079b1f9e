"""Whatever somebody else wrote - a producer, a broker, a receiver, a plugin, a database, a file - is text in our outputs and nothing more: it
speaks to no terminal, begins no line of its own, hides nothing and does not read backwards."""
import base64
import json
import re
import signal
import socket
import threading

import pytest

import plugins
from harness import amqp, http, relay, wait_until
from receiver import Answer
from scripted_broker import ScriptedBroker

# ESC [2J and CSI 31m (C1), BEL, DEL, bidi override and isolate, line separator, zero width space, byte order mark, an invisible tag, and a line of its own.
PLANT = "\x1b[2J\x9b31m\x07\x7f\u202e\u2066\u2028\u200b\ufeff\U000e0041\r\nFORGED: all is well\n"
RAW = PLANT.encode() + b"\0\x9b2K\xc0\x80\xff\xed\xa0\x80"  # NUL, Latin-1's CSI, an overlong NUL, a surrogate: where bytes are free
HIDDEN = re.compile("[\x00-\x09\x0b-\x1f\x7f-\x9f\xad\u061c\u200b\u200e\u200f\u2028-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb\U000e0000-\U000e007f]|^FORGED", re.M)
FORMATS = ("text", "logfmt", "json")


class Reader:
    """Reads outputs, and counts them."""

    def __init__(self, database=None):
        self.database, self.count, self.thorough = database, 0, True

    def clean(self, name, text):
        text = text.decode() if isinstance(text, bytes) else text  # strict: what is no UTF-8 fails here
        found = HIDDEN.search(text)
        assert not found, (name, text[max(0, found.start() - 80):found.end() + 80])
        self.count += 1
        return text

    def command(self, *arguments, codes=(0,), said="", **more):
        done = relay(*arguments, **more)
        assert done.returncode in codes, (arguments, done.returncode, done.stdout[-500:], done.stderr[-500:])
        text = self.clean(arguments, done.stdout) + self.clean(arguments, done.stderr)
        assert said in text, (arguments, said, text)
        if "--json" in arguments and done.stdout:
            json.loads(done.stdout)
        return text

    def rows(self):
        """What the relay writes into tables that people look at, and what it calls itself to the server."""
        for sql in ("SELECT concat_ws(' ', instance, version, backend, host, state, reason, holds::text, last_error) FROM outbox.relay",
                    "SELECT last_error FROM outbox.scheduled WHERE last_error IS NOT NULL", "SELECT last_error FROM outbox.dead_letter",
                    "SELECT application_name FROM pg_stat_activity WHERE datname = current_database()"):
            for row in self.database.run(sql):
                self.clean(sql, row[0])

    def everywhere(self, *arguments):
        """Every command that tells of what is there, in each of its forms."""
        place = ("-d", self.database.conninfo)
        self.command("status", *place)
        self.command("status", "--json", *place)
        self.rows()
        if not self.thorough:
            return
        for id_, in self.database.run("SELECT id::text FROM outbox.message UNION ALL SELECT id::text FROM outbox.scheduled UNION ALL SELECT id::text FROM outbox.dead_letter"):
            self.command("explain", "--id", id_, *place, *arguments)
            self.command("explain", "--id", id_, "--json", *place, *arguments)
        for more in ((), ("--json",)):
            self.command("dead", "list", *more, *place)
            self.command("dead", "retry", "--all", "--dry-run", *more, *place)
            self.command("dead", "discard", "--all", "--dry-run", *more, *place)
        for line in self.command("dead", "export", "--all", *place).splitlines():
            json.loads(line)
        self.command("check", "--connect", *place, *arguments, codes=(0, 69, 77, 78))


@pytest.fixture
def reader(database):
    made = Reader(database)
    yield made
    print(f"{made.count} outputs read")


@pytest.fixture(params=FORMATS)
def logged(request, start):
    """Starts relays that log all there is to log, in one of the formats, and reads the log when they have stopped."""
    def run(reader, *arguments, until, dump=True, **more):
        reader.thorough = request.param == FORMATS[0]  # commands know nothing of the format
        running = start("-d", reader.database.conninfo, "-o", "log.level=debug", "-o", "log.format=" + request.param, "-o", "poll.max=100ms",
                        "--instance", "relay" + PLANT.replace("\r\n", "\n"), *arguments, **more)
        wait_until(lambda: until(raw_log(running)) or running.process.poll() is not None, 40, "what was to be logged")
        if dump:
            running.signal(signal.SIGUSR1)
            wait_until(lambda: "breaker" in raw_log(running), 20, "the dump of the state")
        yield running
        running.process.terminate()
        running.process.wait(30)
        text = reader.clean(arguments, raw_log(running))
        assert until(text), text
        if request.param == "json":
            for line in text.splitlines():
                json.loads(line)

    return run


def raw_log(running):
    with open(running.log_file.name, encoding="utf-8", errors="surrogateescape", newline="") as lines:
        return lines.read()


# ---- a producer ----

COLUMNS = ("channel", "type", "key", "correlation_id", "causation_id", "reply_to", "content_type")


def put(database, step, **more):
    values = {"channel": "c", "type": "t", "headers": "{}", **more}
    values["headers"] = json.dumps({**json.loads(values["headers"]), "fail": step})
    names = ", ".join(values)
    return database.value(f"INSERT INTO outbox.message ({names}) VALUES ({', '.join(['%s'] * len(values))}) RETURNING id::text", *values.values())


def hostile_rows(database, step):
    """One message per place that a producer can write to."""
    count = 0
    for column in COLUMNS:
        put(database, step, **{column: PLANT + column})
        count += 1
    for more in ({"headers": json.dumps({PLANT: "v"})}, {"headers": json.dumps({"name": PLANT})}, {"headers": json.dumps({"n": {"m": [PLANT]}})},
                 {"payload": json.dumps({PLANT: PLANT}, ensure_ascii=False)}, {"payload": '"\\u0000"'}, {"payload_bytes": RAW},
                 {"payload_bytes": RAW, "content_type": "text/plain"}, {"payload_bytes": RAW, "content_type": "application/json"}):
        put(database, step, **more)
        count += 1
    return count


def test_what_a_producer_writes(reader, logged):
    places = 0
    for step in ("reject", "retry", "hold", "confirm"):
        places += hostile_rows(reader.database, step)
    print(f"{places} places")
    options = ("-b", "fail", "-o", "retry.backoff_min=1h", "-o", "retry.backoff_max=1h", "-o", "fail.retry_after=1h")
    for _ in logged(reader, *options, until=lambda log: "dead letter" in log and "on hold" in log):
        wait_until(lambda: reader.database.value("SELECT count(*) FROM outbox.relay WHERE holds <> '[]'") > 0, 20, "holds in the ledger")
        reader.everywhere(*options)
        for scope in (PLANT + "channel", PLANT + "*"):
            reader.command("pause", scope, "--reason", PLANT, "--for", "1h", "-d", reader.database.conninfo)
            reader.command("status", "-d", reader.database.conninfo, said="PAUSED: ")
            reader.command("resume", scope, "-d", reader.database.conninfo)
    hostile_rows(reader.database, "confirm")
    for backend in ("null", "stdout"):
        reader.database.run("INSERT INTO outbox.message (channel, type) VALUES ('c', 't')")
        for more in ((), ("--json",)):
            hostile_rows(reader.database, "confirm")
            done = relay("drain", *more, "-b", backend, "-d", reader.database.conninfo)
            assert done.returncode == 1, done.stderr  # one has a header that brokers do not carry
            for line in reader.clean(backend, done.stdout).splitlines():
                json.loads(line)
            reader.clean(backend, done.stderr)


def test_bytes_that_call_themselves_json_add_nothing_to_the_line_of_their_message(reader):
    """What is JSON stays as it was written, digits and all."""
    written = '{"n": 123456789012345678901234567890.10, "i": 123456789012345678901234567890}'
    ids = [reader.database.value(f"INSERT INTO outbox.message (channel, type, content_type, {column}) VALUES ('c', 't', 'application/json', %s) RETURNING id::text", payload)
           for column, payload in (("payload_bytes", b'1,"id":"forged"'), ("payload_bytes", b'1}\n{"id":"forged"'), ("payload", written), ("payload_bytes", b'{"n": 1}'))]
    lines = reader.command("drain", "-q", "-b", "stdout", "-d", reader.database.conninfo).splitlines()
    assert [json.loads(line)["id"] for line in lines if line.startswith("{")] == ids and "forged" not in json.loads(lines[0])["id"]
    assert json.loads(lines[1])["payload"] == '1}\n{"id":"forged"' and f'"payload":{written}}}' in lines[2], lines
    assert json.loads(lines[3])["payload"] == '{"n": 1}', "nobody parses what nobody has parsed"


def test_bytes_that_call_themselves_json_add_nothing_to_a_cloudevent(reader, receiver):
    said = {}
    for payload in (b'1,"id":"forged","data":2', b'{"n": 1}', b'\xff'):
        said[reader.database.value("SELECT outbox.publish_bytes('c', 't', %s, content_type => 'application/json')::text", payload)] = payload
    parsed = reader.database.value("INSERT INTO outbox.message (channel, type, content_type, payload)"
                                   " VALUES ('c', 't', 'application/vnd.shop+json; charset=utf-8', '{\"n\": 1.00}') RETURNING id::text")
    reader.command("drain", "-q", *http(receiver.url, "http.cloudevents=structured"), "-d", reader.database.conninfo)
    bodies = {json.loads(request.body)["id"]: request.body for request in receiver.requests}
    assert bodies.keys() == said.keys() | {parsed} and bodies[parsed].endswith(b'"data":{"n": 1.00}}')
    for identity, payload in said.items():
        event = json.loads(bodies[identity])
        assert base64.b64decode(event["data_base64"]) == payload and "data" not in event and event["id"] == identity


# ---- a broker ----


def broker_that(does):
    def play(session, message):
        words = {"closes": lambda: session.close_channel(312, PLANT), "refuses": lambda: session.close_channel(403, PLANT),
                 "hangs up": lambda: session.close_connection(320, PLANT), "is full": lambda: session.block(PLANT),
                 "returns": lambda: (session.return_(message), session.ack(message.tag))}
        words[does]()

    return ScriptedBroker(on_message=play, properties={"product": PLANT, "version": PLANT, "cluster_name": PLANT, "platform": PLANT})


@pytest.mark.parametrize("does", ["closes", "refuses", "hangs up", "is full", "returns"])
def test_what_a_broker_says(reader, logged, does):
    scripted = broker_that(does)
    reader.database.run("INSERT INTO outbox.message (channel, type, key) SELECT 'c' || %s, 't', 'k' FROM generate_series(1, 3)", PLANT.replace("\r", "").replace("\n", ""))
    options = amqp("retry.backoff_min=1h", "retry.backoff_max=1h", "publish_timeout=1s", "drain.unavailable_after=1s", url=scripted.url)
    for _ in logged(reader, *options, until=lambda log: "on hold" in log or "breaker" in log or "lost" in log or "possible duplicates" in log or "alarm" in log):
        reader.everywhere(*options)
    reader.command("drain", *options, "-d", reader.database.conninfo, codes=(0, 1, 69, 75))
    reader.command("drain", "--json", *options, "-d", reader.database.conninfo, codes=(0, 1, 69, 75))
    scripted.close()


def test_a_broker_that_speaks_another_language(reader):
    """What is no AMQP at all: its first bytes may be quoted."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        def speak():
            while True:
                try:
                    connection, _ = listener.accept()
                except OSError:
                    return
                with connection:
                    connection.sendall(RAW)

        threading.Thread(target=speak, daemon=True).start()
        reader.database.run("INSERT INTO outbox.message (channel, type) VALUES ('c', 't')")
        port = listener.getsockname()[1]
        for options in (amqp(url=f"amqp://guest:guest@127.0.0.1:{port}/"), http(f"http://127.0.0.1:{port}/")):
            reader.command("drain", *options, "-d", reader.database.conninfo, "-o", "drain.unavailable_after=1s", codes=(1, 69, 75))
            reader.command("check", "--connect", *options, "-d", reader.database.conninfo, codes=(0, 69))
        reader.command("status", "-d", f"host=127.0.0.1 port={port} dbname=x user=x", codes=(69,))


# ---- a receiver ----

ANSWERS = {
    "a body": lambda request: Answer(400, body=RAW),
    "a body of what is away": lambda request: Answer(503, body=RAW, headers={"Retry-After": "3600"}),
    "a type": lambda request: Answer(422, body=RAW, headers={"Content-Type": "text/" + PLANT.replace("\r\n", " ").replace("\n", " ")}),
    "a redirect": lambda request: Answer(302, body=RAW, headers={"Location": "http://" + PLANT.split("\r")[0]}),
    "a reason": lambda request: Answer(raw=lambda to: to.sendall(b"HTTP/1.1 500 " + PLANT.split("\r")[0].encode() + b"\r\nContent-Length: 0\r\n\r\n")),
    "no time": lambda request: Answer(429, body=RAW, headers={"Retry-After": PLANT.split("\r")[0]}),
}


@pytest.mark.parametrize("answer", ANSWERS)
def test_what_a_receiver_answers(reader, logged, receiver, answer):
    receiver.answer = ANSWERS[answer]
    reader.database.run("INSERT INTO outbox.message (channel, type) SELECT 'c', 't' FROM generate_series(1, 3)")
    options = http(receiver.url, "retry.backoff_min=1h", "retry.backoff_max=1h")
    for _ in logged(reader, *options, until=lambda log: "dead letter" in log or "on hold" in log or "breaker is open" in log):
        reader.everywhere(*options)
    assert receiver.requests and all(not HIDDEN.search(request.headers.get("user-agent", "")) for request in receiver.requests)


# ---- a plugin ----

PLUGIN = r"""
#include <outbox_backend.h>
#include <stdio.h>
#include <string.h>
#define PLANT %(plant)s
#define SHORT "\033[2J\302\233\n"
static const struct outbox_host *host;
static int open_(void **backend, const struct outbox_host *given, const struct outbox_settings *settings, struct outbox_error *error)
{
    (void)settings;
    host = given;
    host->log(host, OUTBOX_LOG_WARNING, "opened " PLANT);
    *backend = (void *)&host;
    (void)snprintf(error->text, sizeof error->text, "cannot open " PLANT);
    return %(open)s;
}
static void close_(void *backend) { (void)backend; }
static int session_new(void *backend, void **session, struct outbox_error *error) { (void)error; *session = backend; return 0; }
static void session_free(void *session) { (void)session; }
static int connect_(void *session, int64_t deadline_ms, struct outbox_error *error)
{
    (void)session; (void)deadline_ms;
    (void)snprintf(error->text, sizeof error->text, "cannot connect " PLANT);
    return %(connect)s;
}
static void disconnect_(void *session) { (void)session; }
static enum outbox_session_state publish(void *session, struct outbox_batch *batch, int64_t deadline_ms, struct outbox_error *error)
{
    (void)session; (void)deadline_ms;
    for (size_t at = 0; at < batch->count; at++)
        batch->settle(batch, at, %(verdict)s, "the reason " PLANT, 3600000);
    (void)snprintf(error->text, sizeof error->text, "lost " PLANT);
    return %(state)s;
}
static int explain(void *backend, const struct outbox_message *message, char *out, size_t bytes, struct outbox_error *error)
{
    (void)backend; (void)message; (void)error;
    (void)snprintf(out, bytes, "to " PLANT);
    return 0;
}
static void library(char *out, size_t bytes) { (void)snprintf(out, bytes, "library " PLANT); }
static const struct outbox_option options[] = {{.name = "x", .type = OUTBOX_OPT_STRING, .fallback = "f" PLANT, .help = "help " PLANT}, {0}};
static const struct outbox_backend table = {.size = sizeof table, .name = "planted", .version = "1.0" SHORT, .options = options, .open = open_,
    .close = close_, .session_new = session_new, .session_free = session_free, .connect = connect_, .disconnect = disconnect_,
    .publish = publish, .explain = explain, .library = library};
OUTBOX_BACKEND("planted", "1.0" SHORT, table);
"""
MANNERS = {"is refused at open": {"open": "-1"}, "cannot connect": {"connect": "-1"}, "rejects": {"verdict": "OUTBOX_REJECTED"},
           "holds": {"verdict": "OUTBOX_HOLD"}, "retries": {"verdict": "OUTBOX_RETRY"}, "loses": {"verdict": "OUTBOX_RETRY", "state": "OUTBOX_SESSION_LOST"}}


def c_text(text):
    return '"' + "".join(f"\\{byte:03o}" for byte in text.encode()) + '"'


@pytest.mark.parametrize("manner", MANNERS)
def test_what_a_plugin_says(reader, logged, tmp_path, manner):
    words = {"plant": c_text(PLANT), "open": "0", "connect": "0", "verdict": "OUTBOX_CONFIRMED", "state": "OUTBOX_SESSION_OK", **MANNERS[manner]}
    source = tmp_path / "planted.c"
    source.write_text(PLUGIN % words)
    path = plugins.build(tmp_path, "planted", source=str(source))
    reader.database.run("INSERT INTO outbox.message (channel, type) SELECT 'c', 't' FROM generate_series(1, 3)")
    options = ("-b", path, "-o", "retry.backoff_min=1h", "-o", "retry.backoff_max=1h", "-o", "drain.unavailable_after=1s")
    for more in (("show", path), ("test", path, "--only", "1"), ("list",), ("list", "--json")):
        reader.command("backends", *more, codes=(0, 1, 2, 70, 78), env={"OUTBOX_BACKEND_DIRECTORY": str(tmp_path)})
    reader.command("config", "show", *options)
    reader.command("config", "init", *options)
    reader.command("config", "schema", *options)
    if manner == "is refused at open":
        reader.command("check", *options, "-d", reader.database.conninfo, codes=(69, 78), said="cannot open")
        reader.command("drain", *options, "-d", reader.database.conninfo, codes=(69, 78), said="cannot open")
        return
    for _ in logged(reader, *options, until=lambda log: "dead letter" in log or "on hold" in log or "breaker is open" in log or "cannot connect" in log or "lost" in log):
        reader.everywhere(*options)
    reader.command("drain", *options, "-d", reader.database.conninfo, codes=(0, 1, 69, 75))


# ---- a database ----


def test_what_a_database_says(reader, logged):
    database, quoted = reader.database, '"' + PLANT + '"'
    long = database.connect(autocommit=False)
    database.run(f"CREATE ROLE {quoted} LOGIN; GRANT USAGE ON SCHEMA outbox TO {quoted}; GRANT ALL ON ALL TABLES IN SCHEMA outbox TO {quoted};"
                 f" GRANT CREATE ON SCHEMA public TO {quoted}")
    try:
        database.run(f"CREATE FUNCTION public.{quoted}() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE EXCEPTION USING MESSAGE = {pg_text(PLANT)},"
                     f" DETAIL = {pg_text(PLANT)}, HINT = {pg_text(PLANT)}; END $$")
        database.run("INSERT INTO outbox.message (channel, type) SELECT 'c', 't' FROM generate_series(1, 3)")
        database.run(f"CREATE TRIGGER {quoted} BEFORE DELETE ON outbox.message FOR EACH ROW EXECUTE FUNCTION public.{quoted}()")
        database.run(f"ALTER FUNCTION public.{quoted}() OWNER TO {quoted}")
        with long.cursor() as cursor:  # somebody of that name has locked a row
            cursor.execute(f"SET SESSION AUTHORIZATION {quoted}; SELECT FROM outbox.message ORDER BY seq LIMIT 1 FOR UPDATE")
        for _ in logged(reader, "-b", "null", until=lambda log: "SQLSTATE P0001" in log):
            reader.everywhere("-b", "null")
        long.rollback()
        reader.command("migrate", "-d", database.conninfo, codes=(78,), said="FORGED")
        reader.command("migrate", "--dry-run", "-d", database.conninfo, codes=(78,), said="FORGED")
        reader.command("drain", "-b", "null", "-d", database.conninfo, codes=(69, 75, 78))
        wrong = database.conninfo.replace(database.name, "'" + PLANT.replace("'", "") + "'")
        for command in (("status",), ("migrate", "--dry-run"), ("migrate",), ("drain", "-b", "null"), ("dead",), ("pause",)):
            text = reader.command(*command, "-d", wrong, codes=(0, 69, 78))
            assert "u009b31m" in text and (command[-1] != "--dry-run" or text.startswith("-- ")), text
    finally:
        long.close()
        database.run(f"DROP TRIGGER IF EXISTS {quoted} ON outbox.message; DROP OWNED BY {quoted} CASCADE; DROP ROLE {quoted}")


def pg_text(text):
    return "'" + text.replace("'", "''") + "'"


# ---- a file, the environment, the command line ----


def yaml_text(text):
    return json.dumps(text)


FILES = {
    "an unknown key": lambda: f"{yaml_text(PLANT)}: 1\n",
    "an unknown key in a section": lambda: f"retry: {{{yaml_text(PLANT)}: 1}}\n",
    "a number that is none": lambda: f"workers: {yaml_text(PLANT)}\n",
    "a choice that is none": lambda: f"order: {yaml_text(PLANT)}\n",
    "a duration that is none": lambda: f"poll.max: {yaml_text(PLANT)}\n",
    "a list": lambda: f"channels: {{include: [{yaml_text(PLANT)}, 1, {{}}]}}\n",
    "a backend": lambda: f"backend: {yaml_text(PLANT)}\n",
    "a backend by its path": lambda: f"backend: {yaml_text('/' + PLANT)}\n",
    "a key that stands there twice": lambda: f"{yaml_text(PLANT)}: 1\n{yaml_text(PLANT)}: 1\n",
    "a database": lambda: f"database: {yaml_text(PLANT)}\n",
    "a url": lambda: f"backend: amqp\namqp: {{url: {yaml_text('amqp://' + PLANT)}}}\n",
    "an instance": lambda: f"instance: {yaml_text(PLANT)}\nchannels: {{include: [{yaml_text(PLANT)}]}}\nbackend: 'null'\n",
    "what is no YAML": lambda: "a: [" + PLANT,
    "what is no text": lambda: RAW,
    "a secret's file": lambda: f"backend: http\nhttp: {{url: 'http://x/', secret_file: {yaml_text('/' + PLANT)}}}\n",
}


@pytest.mark.parametrize("file", FILES)
def test_what_a_file_holds(tmp_path, file):
    reader = Reader()
    content = FILES[file]()
    path = tmp_path / ("name" + PLANT.replace("/", ""))
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    for command in (("check",), ("config", "show"), ("config", "schema"), ("drain",), ("status",)):
        reader.command(*command, "-c", str(path), codes=(0, 64, 69, 78), env={"OUTBOX_DATABASE": "host=127.0.0.1 port=1 dbname=x"})


def test_what_is_named_on_the_command_line_and_in_the_environment():
    reader = Reader()
    for arguments in ((PLANT,), ("--" + PLANT,), ("run", PLANT), ("run", "-o", PLANT), ("run", "-o", PLANT + "=1"), ("run", "-o", "order=" + PLANT),
                      ("run", "-b", PLANT), ("run", "-c", "/" + PLANT), ("run", "-d", PLANT), ("run", "-o", "log.level=" + PLANT), ("drain", "--max-time", PLANT),
                      ("dead", PLANT), ("dead", "show", PLANT), ("dead", "list", "--reason", PLANT), ("dead", "list", "--since", PLANT),
                      ("explain", "--id", PLANT), ("config", PLANT), ("pause", PLANT, PLANT), ("pause", "--for", PLANT), ("migrate", "--order", PLANT),
                      ("migrate", "--lanes", PLANT, "--order", "key"), ("backends", PLANT), ("backends", "show", PLANT), ("backends", "new", PLANT),
                      ("backends", "test", PLANT), ("backends", "test", "null", "--only", PLANT), ("backends", "test", "null", "--proxy", PLANT)):
        reader.command(*arguments, codes=(1, 64, 69, 70, 78), env={"OUTBOX_DATABASE": "host=127.0.0.1 port=1 dbname=x"})
    for name in ("OUTBOX_ORDER", "OUTBOX_WORKERS", "OUTBOX_INSTANCE", "OUTBOX_BACKEND", "OUTBOX_" + PLANT, "OUTBOX_CHANNELS__INCLUDE", "OUTBOX_LOG__LEVEL"):
        for command in ("check", "config"):
            reader.command(command, *(["show"] if command == "config" else []), codes=(0, 64, 69, 78), env={name: PLANT})
    print(f"{reader.count} outputs read")
