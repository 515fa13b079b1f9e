"""No output of ours holds a secret, whoever says it and however it was given: well formed or not, in its place or where another thing belongs."""
import base64
import json
import os
import signal
import urllib.parse

import pytest

import plugins
from harness import amqp, http, relay, wait_until
from receiver import Answer
from scripted_broker import ScriptedBroker
from webhooks import CA

SECRET = "sEcReT7Zq9Xw"
FORMS = (SECRET, base64.b64encode(SECRET.encode()).decode().rstrip("="), urllib.parse.quote(SECRET + "/@")[:-5], SECRET.encode().hex())
WHSEC = "whsec_" + base64.b64encode((SECRET * 3).encode()).decode()
NGINX_TLS = f"https://localhost:{os.environ.get('TEST_NGINX_TLS_PORT')}/hooks"
NOWHERE = {"OUTBOX_DATABASE": "host=127.0.0.1 port=1 dbname=x"}


class Reader:
    def __init__(self):
        self.count = 0

    def clean(self, name, text):
        for form in (*FORMS, WHSEC[6:40], "Mnh"):  # "Mnh": of base64("x:" + SECRET)
            assert form not in text, (name, form, text[max(0, text.find(form) - 200):text.find(form) + 80])
        self.count += 1
        return text

    def command(self, *arguments, codes=(64, 69, 78), said="", env=None, **more):
        done = relay(*arguments, env={**NOWHERE, **(env or {})}, **more)
        assert done.returncode in codes, (arguments, done.returncode, done.stdout[-500:], done.stderr[-500:])
        text = self.clean(arguments, done.stdout) + self.clean(arguments, done.stderr)
        assert said in text, (arguments, said, text)
        return text


@pytest.fixture
def reader():
    made = Reader()
    yield made
    print(f"{made.count} outputs read")


# ---- in its place, and not as it should be ----

DATABASES = {
    "a URL's password": f"postgresql://app:{SECRET}@127.0.0.1:1/x",
    "with characters that must be encoded": f"postgresql://app:{SECRET}/@#%@127.0.0.1:1/x",
    "a bad port": f"postgresql://app:{SECRET}@127.0.0.1:port/x",
    "a bad address": f"postgresql://app:{SECRET}@[127.0.0.1/x",
    "a bad percent": f"postgresql://app:%zz{SECRET}@127.0.0.1:1/x",
    "in the query": f"postgresql://127.0.0.1:1/x?password={SECRET}&sslpassword={SECRET}",
    "a query that is none": f"postgresql://127.0.0.1:1/x?{SECRET}",
    "of an unknown option": f"postgresql://127.0.0.1:1/x?pasword={SECRET}",
    "an '@' in the password": f"postgres://app:p@{SECRET}@127.0.0.1:1/x",
    "a '?' and an '@' in the password": f"postgres://app:p?s@{SECRET}@127.0.0.1:1/x",
    "a query without a path": f"postgres://127.0.0.1?password=p@{SECRET}",
    "a '/' in the password": f"postgres://app:p/{SECRET}@127.0.0.1:1/x",
    "a '/' behind a number": f"postgres://app:5432/{SECRET}@127.0.0.1/x",
    "one for each host": f"postgres://app:s@127.0.0.1:1,app:{SECRET}@127.0.0.1:2/x",
    "an option of the session": f"host=127.0.0.1 port=1 options=-csome.token={SECRET}",
    "key=value": f"host=127.0.0.1 port=1 password={SECRET}",
    "key=value with a space": f"host=127.0.0.1 port=1 password=a {SECRET}",
    "key=value without an end": f"host=127.0.0.1 port=1 password='{SECRET}",
    "key=value of an unknown option": f"host=127.0.0.1 port=1 pasword={SECRET}",
    "the secret alone": f"host=127.0.0.1 port=1 {SECRET}",
    "another scheme": f"mysql://app:{SECRET}@127.0.0.1/x",
    "a port of it": f"host=127.0.0.1 port={SECRET}",
    "an option of it": f"host=127.0.0.1 port=1 sslmode={SECRET}",
}


@pytest.mark.parametrize("kind", DATABASES)
def test_a_database_that_holds_one(reader, tmp_path, kind):
    value = DATABASES[kind]
    (tmp_path / "file.yaml").write_text(f"database: {json.dumps(value)}\n")
    (tmp_path / "secret").write_text(value + "\n")
    few = (("check", "--connect", "-b", "null"), ("status",))
    many = few + (("migrate", "--dry-run"), ("drain", "-b", "null", "-o", "drain.unavailable_after=200ms"), ("dead",))
    shown = () if kind == "an option of it" else (("config", "show"),)
    for arguments, env, commands in ((["-d", value], {}, many), ([], {"OUTBOX_DATABASE": value}, few), (["-c", str(tmp_path / "file.yaml")], {"OUTBOX_WORKERS": "1"}, few),
                                     ([], {"OUTBOX_DATABASE_FILE": str(tmp_path / "secret")}, few)):
        for command in commands + shown:
            environment = {name: word for name, word in {**NOWHERE, **env}.items() if name != "OUTBOX_DATABASE" or "OUTBOX_DATABASE" in env}
            done = relay(*command, *arguments, env=environment)
            assert done.returncode in (0, 64, 69, 70, 77, 78)
            reader.clean(command, done.stdout + done.stderr)


BROKERS = {
    "a password": f"amqp://app:{SECRET}@127.0.0.1:1/",
    "with characters that must be encoded": f"amqp://app:{SECRET}/@#%@127.0.0.1:1/",
    "a bad port": f"amqp://app:{SECRET}@127.0.0.1:port/",
    "another scheme": f"amq://app:{SECRET}@127.0.0.1/",
    "no scheme": f"app:{SECRET}@127.0.0.1",
    "no host": f"amqp://app:{SECRET}",
    "a query": f"amqp://127.0.0.1:1/?password={SECRET}",
    "two": f"amqp://app:{SECRET}@127.0.0.1:1/,amqp://app:{SECRET}@[::1:1/",
    "the secret alone": SECRET,
    "with brackets": f'["amqp://app:{SECRET}@127.0.0.1:1/"]',
    "with a comma in it": f"amqp://app:a,{SECRET}@127.0.0.1:1/",
}


@pytest.mark.parametrize("kind", BROKERS)
def test_a_brokers_url_that_holds_one(reader, database, tmp_path, kind):
    value = BROKERS[kind]
    (tmp_path / "secret").write_text(value + "\n")
    (tmp_path / "file.yaml").write_text(f"amqp:\n  url: {json.dumps(value)}\n")
    database.run("INSERT INTO outbox.message (channel, type) VALUES ('c', 't')")
    id_ = database.value("SELECT id::text FROM outbox.message")
    drain = ("drain", "-o", "drain.unavailable_after=200ms", "-o", "log.level=debug")
    few = (("check",), ("config", "show"))
    for more, commands in ((["-o", "amqp.url=" + value], (drain, ("check", "--connect"), ("config", "show"), ("explain", "--id", id_))),
                           (["-o", f"amqp.url_file={tmp_path}/secret"], few), (["-c", str(tmp_path / "file.yaml")], few), (["-o", "amqp.url_file=" + value], few)):
        for command in commands:
            reader.command(*command, "-b", "amqp", "-d", database.conninfo, *more, codes=(0, 64, 69, 77, 78))


OPTIONS = {
    "a token in the path": ["http.url=http://127.0.0.1:1/services/" + SECRET],
    "a token in the query": ["http.url=http://127.0.0.1:1/hooks?token=" + SECRET],
    "a user's password": [f"http.url=http://app:{SECRET}@127.0.0.1:1/hooks"],
    "a URL that is none": ["http.url=" + SECRET],
    "a URL of another scheme": [f"http.url=ftp://app:{SECRET}@127.0.0.1/"],
    "a template that is none": ["http.url=http://127.0.0.1:1/${nothing}/" + SECRET],
    "a header": ["http.headers=Authorization=Token " + SECRET],
    "a header that is none": ["http.headers=Authorization: Token " + SECRET],
    "a header twice": [f"http.headers={SECRET}=1,{SECRET}=2"],
    "a header behind a comma": [f"http.headers=Cookie=sid=abc,{SECRET}=x"],
    "a header in curl's spelling, with padding": [f"http.headers=Authorization: Bearer {SECRET}="],
    "a password with a slash": [f"http.url=https://app:hun/{SECRET}@127.0.0.1/hook"],
    "a password that a slash cuts": [f"http.url=https://app:{SECRET}/ter2@127.0.0.1/hook"],
    "a password that a number sign cuts": [f"http.url=https://app:{SECRET}#ter2@127.0.0.1/hook"],
    "a header that is ours": [f"http.headers=Content-Length={SECRET}"],
    "a header with a variable that is none": ["http.headers=X=${" + SECRET + "}"],
    "a bearer token": ["http.bearer_token=" + SECRET],
    "a bearer token with a line break": ["http.bearer_token=a\n" + SECRET],
    "a bearer token and a user": ["http.bearer_token=" + SECRET, "http.username=x", "http.password=" + SECRET],
    "basic authentication": ["http.username=x", "http.password=" + SECRET],
    "a password without a user": ["http.password=" + SECRET],
    "a key": ["http.secret=" + WHSEC],
    "a key that is none": ["http.secret=" + SECRET],
    "a key of wrong length": ["http.secret=whsec_" + base64.b64encode(SECRET.encode()).decode()],
    "a key's file": ["http.secret_file=" + SECRET],
    "a key's file, with a path": ["http.secret_file=/" + WHSEC],
    "a token's file": ["http.bearer_token_file=" + SECRET],
    "a URL's file": ["http.url_file=http://x/" + SECRET],
    "a certificate's file": ["http.tls.cert_file=/none", "http.tls.key_file=-----BEGIN PRIVATE KEY-----\n" + SECRET],
}


@pytest.mark.parametrize("kind", OPTIONS)
def test_an_option_of_http_that_holds_one(reader, database, kind):
    database.run("INSERT INTO outbox.message (channel, type) VALUES ('c', 't')")
    id_ = database.value("SELECT id::text FROM outbox.message")
    url = [] if any(option.startswith("http.url") for option in OPTIONS[kind]) else ["http.url=https://127.0.0.1:1/hooks"]
    options = [word for option in url + OPTIONS[kind] for word in ("-o", option)]
    for command in (("drain", "-o", "drain.unavailable_after=200ms", "-o", "log.level=debug"), ("check",), ("config", "show"), ("explain", "--id", id_)):
        reader.command(*command, "-b", "http", "-d", database.conninfo, *options, codes=(0, 64, 69, 77, 78))
    reader.command("config", "show", "-b", "http", env={"OUTBOX_" + option.partition("=")[0].upper().replace(".", "__"): option.partition("=")[2] for option in OPTIONS[kind]},
                   codes=(0, 78))


SHAPES = ("secret: {{{0}: 1}}", "secret: [[{0}]]", "secret: [{{a: {0}}}]", "bearer_token: [{0}]", "bearer_token: {{{0}: {0}}}", "headers: [{0}]", "headers: {0}",
          "headers: {{A: [{0}]}}", "headers: {{A: {0}, A: {0}}}", "bearer_token: {0}\n  bearer_token: {0}", "bearer_token: &{0}", "bearer_token: '{0}", "bearer_token: \"{0}\\q\"",
          "bearer_token: !{0} x", "bearer_token: *{0}", "bearer_token: {0}: x", "bearer_token: |\n    {0}\n   {0}", "pasword: {0}", "max_in_flight: {{a: {0}}}", "bearer_token_file: [{0}]")


@pytest.mark.parametrize("shape", SHAPES)
def test_a_file_of_another_shape(reader, tmp_path, shape):
    path = tmp_path / "file.yaml"
    path.write_text("backend: http\nhttp:\n  url: http://127.0.0.1:1/\n  " + shape.format(SECRET) + "\n")
    path.chmod(0o600)
    for command in (("check",), ("config", "show"), ("status",)):
        reader.command(*command, "-c", str(path), codes=(0, 69, 78))


# ---- where another thing belongs ----


def test_one_that_stands_where_a_command_an_option_or_a_file_is_read(reader):
    url = f"amqp://app:{SECRET}@127.0.0.1/"
    for value in (SECRET, url, WHSEC):
        for arguments in ((value,), ("run", value), ("drain", "--" + value), ("drain", "--password=" + value), ("drain", "-" + value), ("drain", "-o", value),
                          ("drain", "-o", value + "=1"), ("drain", "--nonsense=" + value), ("status", value), ("version", value),
                          ("config", "show", value), ("check", "--json=" + value), ("migrate", value), ("status", "-q=" + value)):
            reader.command(*arguments, codes=(64, 69, 78))
    reader.command("run", "-c", url, codes=(78,), said="-c: cannot read the configuration file")


def test_a_secret_that_is_set_and_empty_is_a_mistake(reader, tmp_path):
    empty, blank = tmp_path / "empty", tmp_path / "blank"
    empty.write_text("")
    blank.write_text("\n\r\n")
    url = ["-b", "http", "-o", "http.url=http://127.0.0.1:1/"]
    for key in ("http.secret", "http.bearer_token", "http.password"):
        name = "OUTBOX_" + key.upper().replace(".", "__")
        text = reader.command("check", *url, "-o", key + "=", codes=(78,))
        assert key + ": a secret that is set and empty" in text, text
        reader.command("check", *url, env={name: ""}, codes=(78,), said="set and empty")
        reader.command("check", *url, env={name: " "}, codes=(78,), said="set and empty")
        for file in (empty, blank):
            reader.command("check", *url, "-o", f"{key}_file={file}", codes=(78,), said=f"{key}_file: that file is empty")
            reader.command("check", *url, env={name + "_FILE": str(file)}, codes=(78,), said="that file is empty")
        for text in ("''", "", '" "', "['']"):
            path = tmp_path / "file.yaml"
            path.write_text(f"backend: http\nhttp:\n  url: http://127.0.0.1:1/\n  {key[5:]}: {text}\n")
            done = reader.command("check", "-c", str(path), codes=(78,))
            assert key in done, (text, done)
    for key in ("http.url", "amqp.url", "database"):
        reader.command("check", "-b", key[:4] if key != "database" else "null", "-o", f"{key}_file={empty}", codes=(78,), said=f"{key}_file: that file is empty")


@pytest.mark.parametrize("mode", [0o600, 0o640, 0o644, 0o666, 0o602])
def test_files_that_every_user_may_read_or_write_are_told(reader, tmp_path, mode):
    secret, file = tmp_path / "secret", tmp_path / "file.yaml"
    secret.write_text(WHSEC)
    secret.chmod(mode)
    text = reader.command("check", "-b", "http", "-o", "http.url=http://127.0.0.1:1/", "-o", f"http.secret_file={secret}", codes=(0,))
    word = "write to" if mode & 0o2 else "read" if mode & 0o4 else None
    assert (f"http.secret_file: every user of this host can {word} that file" in text) if word else ("every user" not in text), text
    file.write_text(f"backend: http\nhttp:\n  url: http://127.0.0.1:1/\n  secret: {WHSEC}\n")
    file.chmod(mode)
    text = reader.command("check", "-c", str(file), codes=(0,))
    assert (f"warning: every user of this host can {word} this file" in text) if word else ("every user" not in text), text
    file.write_text("backend: http\nhttp:\n  url: http://127.0.0.1:1/\n")
    assert ("every user" in reader.command("check", "-c", str(file), codes=(0,))) == bool(mode & 0o2)


def test_a_pipe_that_nobody_feeds_is_given_up(reader, tmp_path):
    os.mkfifo(tmp_path / "fifo")
    reader.command("check", "-b", "http", "-o", "http.url=http://127.0.0.1:1/", "-o", f"http.secret_file={tmp_path}/fifo", codes=(78,), said="timed out", timeout=30)
    reader.command("check", "-c", f"{tmp_path}/fifo", codes=(78,), said="timed out", timeout=30)


# ---- said by others ----


def watch(reader, database, running, until):
    """Reads all that a relay which runs lets be seen, then what it has logged."""
    wait_until(lambda: until in running.log() or running.process.poll() is not None, 40, until)
    running.signal(signal.SIGUSR1)
    wait_until(lambda: "breaker=" in running.log(), 20, "the dump of the state")
    with open(f"/proc/{running.pid}/cmdline", encoding="utf-8") as line:
        reader.clean("cmdline", line.read())
    for command in (("status",), ("status", "--json"), ("dead", "list"), ("dead", "export", "--all"), ("dead", "list", "--json")):
        reader.command(*command, "-d", database.conninfo, codes=(0,))
    for sql in ("SELECT concat_ws(' ', instance, backend, state, reason, holds::text, last_error) FROM outbox.relay", "SELECT last_error FROM outbox.scheduled",
                "SELECT last_error FROM outbox.dead_letter", "SELECT application_name || query FROM pg_stat_activity WHERE datname = current_database()"):
        for row in database.run(sql):
            reader.clean(sql, row[0] or "")
    running.process.terminate()
    running.process.wait(30)
    reader.clean("log", running.log())


@pytest.mark.parametrize("status", [401, 422, 500])
@pytest.mark.parametrize("kind", ["a bearer token", "basic authentication", "a header", "a token in the path", "a key"])
def test_a_receiver_that_repeats_what_it_was_sent(reader, database, receiver, start, kind, status):
    def answer(request):
        return Answer(status, body=json.dumps({"you sent": request.headers, "to": request.path}).encode())

    receiver.answer = answer
    database.run("INSERT INTO outbox.message (channel, type) SELECT 'c', 't' FROM generate_series(1, 3)")
    base = f"http://127.0.0.1:{receiver.port}/"
    url = base + "services/" + SECRET + "/${channel}" if kind == "a token in the path" else base + "hooks"
    options = [] if kind == "a token in the path" else OPTIONS[kind]
    running = start("-d", database.conninfo, *http(url, "log.level=debug", "retry.backoff_min=1h", "retry.backoff_max=1h", *options))
    watch(reader, database, running, "channel=c")
    assert any(SECRET in json.dumps(request.headers) + request.path or "webhook-signature" in request.headers or "Mnh" in str(request.headers) or "Basic" in str(request.headers)
               for request in receiver.requests)


@pytest.mark.parametrize("does", ["closes", "hangs up", "refuses"])
def test_a_broker_that_repeats_what_it_was_told(reader, database, start, does):
    def play(session, message):
        text = f"user app with password {SECRET} may not publish"
        if does == "closes":
            session.close_channel(403, text)
        else:
            session.close_connection(320 if does == "hangs up" else 530, text)

    scripted = ScriptedBroker(on_message=play)
    database.run("INSERT INTO outbox.message (channel, type) SELECT 'c', 't' FROM generate_series(1, 3)")
    running = start("-d", database.conninfo, *amqp("log.level=debug", "retry.backoff_min=1h", "retry.backoff_max=1h", url=f"amqp://app:{SECRET}@127.0.0.1:{scripted.port}/"))
    watch(reader, database, running, "with password ***")
    scripted.close()


PLUGIN = r"""
#include <outbox_backend.h>
#include <stdio.h>
static const struct outbox_host *host;
static const char *password;
static int open_(void **backend, const struct outbox_host *given, const struct outbox_settings *settings, struct outbox_error *error)
{
    (void)error;
    host = given;
    password = host->get_string(settings, "password");
    char text[200];
    (void)snprintf(text, sizeof text, "opened with %s", password);
    host->log(host, OUTBOX_LOG_WARNING, text);
    *backend = (void *)&host;
    return 0;
}
static void close_(void *backend) { (void)backend; }
static int session_new(void *backend, void **session, struct outbox_error *error) { (void)error; *session = backend; return 0; }
static void session_free(void *session) { (void)session; }
static int connect_(void *session, int64_t deadline_ms, struct outbox_error *error) { (void)session; (void)deadline_ms; (void)error; return 0; }
static void disconnect_(void *session) { (void)session; }
static enum outbox_session_state publish(void *session, struct outbox_batch *batch, int64_t deadline_ms, struct outbox_error *error)
{
    (void)session; (void)deadline_ms;
    char reason[200];
    (void)snprintf(reason, sizeof reason, "refused with password %s", password);
    batch->settle(batch, 0, OUTBOX_REJECTED, reason, 0);
    (void)snprintf(error->text, sizeof error->text, "lost with password %s", password);
    return OUTBOX_SESSION_LOST;
}
static int explain(void *backend, const struct outbox_message *message, char *out, size_t bytes, struct outbox_error *error)
{
    (void)backend; (void)message; (void)error;
    (void)snprintf(out, bytes, "to app:%s@host", password);
    return 0;
}
static const struct outbox_option options[] = {{.name = "password", .type = OUTBOX_OPT_STRING, .flags = OUTBOX_OPT_SECRET, .help = "of the user"}, {0}};
static const struct outbox_backend table = {.size = sizeof table, .name = "teller", .version = "1.0", .options = options, .open = open_,
    .close = close_, .session_new = session_new, .session_free = session_free, .connect = connect_, .disconnect = disconnect_,
    .publish = publish, .explain = explain};
OUTBOX_BACKEND("teller", "1.0", table);
"""


def test_a_plugin_that_tells_its_settings(reader, database, start, tmp_path):
    source = tmp_path / "teller.c"
    source.write_text(PLUGIN)
    options = ["-b", plugins.build(tmp_path, "teller", source=str(source)), "-o", "teller.password=" + SECRET]
    ids = [row[0] for row in database.run("INSERT INTO outbox.message (channel, type) SELECT 'c', 't' FROM generate_series(1, 3) RETURNING id::text")]
    reader.command("config", "show", *options, codes=(0,), said="***")
    reader.command("explain", "--id", ids[0], "-d", database.conninfo, *options, codes=(0,), said="app:***@host")
    running = start("-d", database.conninfo, *options, "-o", "log.level=debug", "-o", "retry.backoff_min=1h", "-o", "retry.backoff_max=1h")
    watch(reader, database, running, "with password ***")
    assert "opened with ***" in running.log()


# ---- what others on this host can see of the process ----


@pytest.fixture(scope="module")
def looks(tmp_path_factory):
    return plugins.build(tmp_path_factory.mktemp("plugins"), "stubborn", source=os.path.join(plugins.HERE, "plugin_sample", "stubborn.c"))


@pytest.mark.parametrize("debuggable", [False, True])
def test_no_debugger_no_core_file_no_open_file_and_no_tls_keys_unless_asked_for(database, looks, tmp_path, debuggable):
    done = relay("drain", "-b", looks, "-d", database.conninfo, "-o", "stubborn.how=looks", "-o", "stubborn.good=1", *(("-o", "debuggable=true") if debuggable else ()),
                 env={"SSLKEYLOGFILE": str(tmp_path / "keys")}, umask=0o022)
    assert done.returncode == 0, done.stderr
    if debuggable:
        assert "dumpable=1 no_new_privs=1 umask=022 key_log=set" in done.stderr and "warning: debuggable: core files" in done.stderr, done.stderr
    else:
        assert "dumpable=0 no_new_privs=1 umask=077 key_log=unset" in done.stderr, done.stderr
        assert "environment: warning: SSLKEYLOGFILE reaches no library: debuggable: true lets it" in done.stderr, done.stderr


@pytest.mark.parametrize("debuggable", [False, True])
def test_the_keys_of_tls_connections_are_written_for_nobody_who_did_not_ask(database, tmp_path, debuggable):
    database.fill(3)
    done = relay("drain", "-q", "-d", database.conninfo, *http(NGINX_TLS, CA, f"debuggable={str(debuggable).lower()}"), env={"SSLKEYLOGFILE": str(tmp_path / "keys")})
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "keys").exists() == debuggable
