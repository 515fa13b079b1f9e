"""The program around the machine: commands, configuration, bad input, exit codes, signals, logs."""
import fcntl
import json
import os
import re
import shutil
import signal
import struct
import subprocess
import termios
import time

import psycopg2
import pytest

from harness import DATABASE, RELAY, clean_environment, relay, wait_until


@pytest.fixture
def file(tmp_path):
    def write(text):
        path = tmp_path / "relay.yaml"
        path.write_text(text, encoding="utf-8")
        return str(path)

    return write


# ---- the command line ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("arguments, text", [
    ([], "which command?"),
    (["rnu"], "unknown command 'rnu'"),
    (["run", "--nonsense"], "unknown option --nonsense"),
    (["run", "--dry-run"], "--dry-run is not an option of 'run'"),
    (["drain", "--max-time"], "--max-time needs a value"),
    (["drain", "--max-time", "soon", "-b", "null"], "--max-time: 'soon' is not a duration"),
    (["drain", "--max-messages", "-3", "-b", "null"], "--max-messages: '-3' is not a number above 0"),
    (["drain", "-o", "workers"], "-o: write KEY=VALUE (what was given is not shown: it may be a secret)"),
    (["drain", "all"], "'all' is one word too many"),
    (["config", "sow"], "write 'outbox-relay config show'"),
])
def test_a_wrong_command_line_is_told_in_one_sentence_with_exit_code_64(arguments, text):
    done = relay(*arguments)
    assert done.returncode == 64 and text in done.stderr, done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_help_lists_every_command_and_option():
    done = relay("--help")
    assert done.returncode == 0
    for word in ("run", "drain", "migrate", "status", "check", "config", "version", "--config", "--database", "--log-format"):
        assert word in done.stdout
    assert "--max-messages" in relay("drain", "--help").stdout


def test_version_tells_program_abi_schema_and_libraries():
    version = json.loads(relay("version", "--json").stdout)
    assert version["backend_abi"] == [1, 4] and version["schema"] == 5
    assert set(version["backends"]) == {"amqp", "http", "stdout", "null", "fail"} and version["libpq"] >= 140000
    assert set(version["libraries"]) == {"libpq", "libyaml", "jansson", "amqp", "http"}
    shown = relay("version").stdout
    assert shown.startswith(f"outbox-relay {version['version']} ")
    assert all(text in shown for text in [*version["libraries"].values(), *version["warnings"]])
    assert re.match(r"librabbitmq \d+\.\d+\.\d+", version["libraries"]["amqp"]) and re.match(r"libcurl \d+\.\d+\.\d+, ", version["libraries"]["http"])
    assert version["libraries"]["amqp"] in relay("backends", "show", "amqp").stdout


# ---- configuration -------------------------------------------------------------------------------------------------------


def test_all_mistakes_of_a_file_are_reported_at_once_with_78(file):
    path = file("wrokers: 2\nworkers: many\npoll: { max: 1y }\nbackend: kafka\n")
    done = relay("check", "-c", path)
    assert done.returncode == 78
    lines = done.stderr.splitlines()
    assert lines[0] == f"{path}:1:1: unknown key 'wrokers'; did you mean 'workers'?"
    assert lines[1].startswith(f"{path}:2:10: workers: 'many' is not a whole number")
    assert lines[2].startswith(f"{path}:3:14: poll.max: '1y' is not a duration")
    assert lines[3].startswith(f"{path}:4:10: backend: there is no backend 'kafka', built in or in /")
    assert lines[4] == "outbox-relay: the configuration has 4 mistakes"


def test_a_configuration_may_come_through_a_pipe(file):
    with open(file("backend: stdout\nworkers: 7\n"), "rb") as content:
        done = relay("config", "show", "-c", "/dev/stdin", stdin=content)
    assert done.returncode == 0 and "workers: 7  # file /dev/stdin:2:10\n" in done.stdout and "backend: stdout" in done.stdout
    read, write = os.pipe()
    os.write(write, b"backend: stdout\nworkers: 7\n")
    os.close(write)
    done = relay("config", "show", "-c", f"/dev/fd/{read}", pass_fds=[read])
    os.close(read)
    assert done.returncode == 0 and "workers: 7" in done.stdout and "backend: stdout" in done.stdout, done.stderr


def test_config_show_tells_each_value_its_origin_and_no_secret(file):
    path = file("workers: 4\namqp: { url: ['amqp://me:s3cret@host/'] }\n")
    done = relay("config", "show", "-c", path, "-b", "amqp", env={"OUTBOX_POLL__MAX": "2s", "OUTBOX_DATABASE": "postgresql://u:s3cret@h/d"})
    assert done.returncode == 0, done.stderr
    assert f"workers: 4  # file {path}:1:10\n" in done.stdout
    assert "poll.max: 2s  # environment OUTBOX_POLL__MAX\n" in done.stdout
    assert "backend: amqp  # flag backend\n" in done.stdout
    assert "poll.min: 5ms  # default\n" in done.stdout
    assert "amqp://***@host/" in done.stdout and "host=h" in done.stdout
    assert "s3cret" not in done.stdout + done.stderr


def test_the_readmes_configuration_is_valid_and_says_the_defaults(file):
    readme = open(os.path.join(os.path.dirname(__file__), "../../README.md"), encoding="utf-8").read()
    short, whole = re.findall(r"```yaml\n(.*?)```", readme, re.S)
    assert relay("check", "-c", file(short)).returncode == 0
    done = relay("check", "-c", file(whole))
    assert (done.returncode, done.stdout) == (0, "configuration: ok\n"), done.stderr
    shown = {line.split("  # ")[0] for line in relay("config", "show", "-c", file(whole)).stdout.splitlines()}
    defaults = {line.split("  # ")[0] for line in relay("config", "show", "-b", "amqp").stdout.splitlines()}
    chosen_by_the_readme = {line.split(":")[0] for line in shown - defaults}
    assert chosen_by_the_readme <= {"instance", "amqp.tls.ca_file", "amqp.tls.cert_file", "amqp.tls.key_file"}, shown - defaults


def test_a_backend_must_be_chosen(database):
    done = relay("drain", "-d", database.conninfo)
    assert done.returncode == 78 and "backend is not set" in done.stderr


# ---- the database that is not as it should be ----------------------------------------------------------------------------


@pytest.mark.parametrize("conninfo, code, text", [
    ("host=127.0.0.1 prot=1", 78, "database: invalid connection option"),
    ("postgresql://127.0.0.1:notaport/", 78, "invalid"),
    ("host=127.0.0.1 port=1", 69, "127.0.0.1"),
    (DATABASE + " dbname=no_such_database", 78, 'database "no_such_database" does not exist'),
    (DATABASE.replace("user=postgres", "user=password_user password=wrong") + " dbname=postgres", 77, "password authentication failed"),
])
def test_a_database_that_cannot_be_used_ends_in_one_sentence_and_its_exit_code(conninfo, code, text):
    for command in (["drain", "-q", "-o", "drain.unavailable_after=1s"], ["check", "--connect"], ["status"], ["migrate"]):
        done = relay(*command, "-b", "null", "-d", conninfo, timeout=60)
        assert done.returncode == code, (command, done.stderr, done.stdout)
        assert text in done.stderr + done.stdout, (command, done.stderr, done.stdout)
        assert "wrong" not in done.stderr + done.stdout


def test_the_daemon_refuses_at_once_what_only_a_person_can_mend(database):
    done = relay("run", "-b", "null", "-d", DATABASE + " dbname=no_such_database", timeout=20)
    assert done.returncode == 78
    database.run("DROP SCHEMA outbox CASCADE")
    assert relay("run", "-b", "null", "-d", database.conninfo, timeout=20).returncode == 78


def test_missing_privileges_are_named_with_77(database):
    user = f"u_{database.name}"
    database.run(f"CREATE ROLE {user} LOGIN; GRANT USAGE ON SCHEMA outbox TO {user}; GRANT SELECT ON outbox.schema_version TO {user}")
    try:
        conninfo = database.conninfo.replace("user=postgres", f"user={user}")
        check = relay("check", "--connect", "-b", "null", "-d", conninfo)
        assert check.returncode == 77 and f"user {user} lacks" in check.stdout and "GRANT outbox_relay" in check.stdout
        assert relay("drain", "-q", "-b", "null", "-d", conninfo).returncode == 77
    finally:
        database.run(f"DROP OWNED BY {user}; DROP ROLE {user}")


# ---- stdout, as the README shows it ----------------------------------------------------------------------------------------


def test_stdout_prints_one_json_line_per_message_with_the_payload_as_written(database):
    database.run("""SELECT outbox.publish('orders', 'order.placed', '{"id": 42,  "price": 1.50}'::json, key => '42', headers => '{"a": 1}')""")
    database.run("SELECT outbox.publish_bytes('img', 'made', %s, 'image/png')", psycopg2.Binary(b"\x00\xff"))
    database.run("""SELECT outbox.publish('a', 'b', E'{\n"multi": "line"\n}'::json)""")
    done = relay("drain", "-q", "-b", "stdout", "-d", database.conninfo, "-o", "workers=1")
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert len(lines) == 3
    assert '"payload":{"id": 42,  "price": 1.50}}' in lines[0]
    first = json.loads(lines[0])
    assert re.fullmatch("[0-9a-f-]{36}", first.pop("id"))
    assert first == {"kind": "event", "channel": "orders", "type": "order.placed", "key": "42", "content_type": "application/json",
                     "headers": {"a": 1}, "payload": {"id": 42, "price": 1.5}}
    assert json.loads(lines[1])["payload_base64"] == "AP8="
    assert json.loads(lines[2])["payload"] == {"multi": "line"}


def test_a_reader_that_goes_away_loses_nothing(database):
    database.fill(2000)
    process = subprocess.Popen([RELAY, "drain", "-q", "-b", "stdout", "-d", database.conninfo, "-o", "drain.unavailable_after=1s",
                                "-o", "batch.max_messages=10"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=clean_environment())
    read = [process.stdout.readline() for _ in range(100)]
    process.stdout.close()
    err = process.stderr.read().decode()
    process.stderr.close()
    assert process.wait(60) == 69 and "cannot write to standard output: Broken pipe" in err
    assert all(line.endswith(b"\n") for line in read)
    assert database.left() > 0


# ---- signals ----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_the_daemon_stops_cleanly_on_a_signal_with_0(database, start, number):
    running = start("-d", database.conninfo, "-b", "null")
    database.fill(100)
    wait_until(lambda: database.left() == 0, what="an empty outbox")
    began = time.monotonic()
    running.signal(number)
    assert running.wait(10) == 0
    assert time.monotonic() - began < 5
    assert "stopped" in running.log()
    assert database.value("SELECT count(*) FROM outbox.relay") == 0, "a clean end leaves no row in outbox.relay"


def waiting_bytes(pipe):
    """How much nobody has read yet."""
    return struct.unpack("i", fcntl.ioctl(pipe.fileno(), termios.FIONREAD, b"\0\0\0\0"))[0]


def blocked_stdout(database, start, *options):
    """A relay that hangs in a publish, because nobody reads its standard output."""
    database.run("SELECT outbox.publish('a', 'b', jsonb_build_object('pad', repeat('x', 1000000)))")
    running = start("-d", database.conninfo, "-b", "stdout", "-o", "workers=1", *options)
    wait_until(lambda: waiting_bytes(running.process.stdout) >= 60000, what="a full pipe")
    assert database.open_transactions() == 1
    return running


def test_a_stop_waits_for_the_batch_in_flight_no_longer_than_shutdown_timeout(database, start):
    running = blocked_stdout(database, start, "-o", "shutdown_timeout=1s", "-o", "publish_timeout=3s")
    began = time.monotonic()
    running.signal(signal.SIGTERM)
    assert running.wait(20) == 70, "a forced stop"
    assert time.monotonic() - began < 1 + 5
    assert database.left() == 1
    wait_until(lambda: database.open_transactions() == 0, what="the end of the transaction")


def test_a_second_signal_stops_at_once(database, start):
    running = blocked_stdout(database, start, "-o", "shutdown_timeout=60s", "-o", "publish_timeout=10s")
    running.signal(signal.SIGTERM)
    running.await_log("stopping")
    assert running.process.poll() is None
    began = time.monotonic()

    def told_again():
        """What comes within 0.1 s is one signal that was sent twice, as a shell and its group do."""
        running.signal(signal.SIGTERM)
        return running.process.poll() is not None

    wait_until(told_again, 8, what="the end at once")
    assert running.wait(1) == 70
    assert time.monotonic() - began < 8
    assert database.left() == 1


def test_hup_reloads_a_good_file_and_keeps_the_old_one_when_it_is_bad(database, start, file):
    path = file("workers: 1\n")
    running = start("-c", path, "-d", database.conninfo, "-b", "null")
    running.await_log("workers=1")
    file("workers: none\n")
    running.signal(signal.SIGHUP)
    running.await_log("the old one stays")
    assert f"{path}:1:10: workers: 'none' is not a whole number" in running.log()
    database.fill(10)
    wait_until(lambda: database.left() == 0, what="an empty outbox")
    file("workers: 3\n")
    running.signal(signal.SIGHUP)
    running.await_log("workers=3")
    database.fill(10)
    wait_until(lambda: database.left() == 0, what="an empty outbox")
    running.signal(signal.SIGTERM)
    assert running.wait(10) == 0


def test_usr1_writes_the_state_to_the_log(database, start):
    running = start("-d", database.conninfo, "-b", "null", "--log-format", "json")
    database.fill(10)
    wait_until(lambda: database.left() == 0, what="an empty outbox")
    running.signal(signal.SIGUSR1)
    running.await_log('"msg":"state"')
    state = next(json.loads(line) for line in running.log().splitlines() if '"msg":"state"' in line)
    assert state["published"] == 10 and state["state"] == "running" and state["possible_duplicates"] == 0


# ---- status and logs ----------------------------------------------------------------------------------------------------------


def test_status_shows_backlog_age_relays_and_their_state(database, start):
    database.fill(5, channel="orders")
    text = relay("status", "-d", database.conninfo).stdout
    assert text.startswith("STOPPED: no relay is running and 5 messages wait")
    status = json.loads(relay("status", "--json", "-d", database.conninfo).stdout)
    assert status["backlog"] == 5 and status["oldest_message_age_s"] >= 0 and status["channels"][0]["channel"] == "orders"
    running = start("-d", database.conninfo, "-b", "null", "--instance", "one")

    def seen():
        found = json.loads(relay("status", "--json", "-d", database.conninfo).stdout)
        return found["relays"] if found["backlog"] == 0 and found["relays"] else None

    (row,) = wait_until(seen, what="the relay's row")
    assert (row["instance"], row["backend"], row["pid"], row["state"], row["stale"]) == ("one", "null", running.pid, "running", False)
    assert relay("status", "-d", database.conninfo).stdout.startswith("OK: 1 relay is running")


def test_status_names_what_blocks_a_relay_and_that_nothing_is_lost(database, start):
    database.fill(5)
    start("-d", database.conninfo, "-b", "amqp", "-o", "amqp.url=amqp://127.0.0.1:1/", "-o", "breaker.failures=1")
    text = wait_until(lambda: (lambda out: out if out.startswith("BLOCKED") else None)(relay("status", "-d", database.conninfo).stdout),
                      what="BLOCKED")
    assert "cannot connect to 127.0.0.1:1" in text and "nothing is lost" in text
    assert database.open_transactions() == 0, "no transaction while the broker is away"


@pytest.mark.parametrize("form", ["text", "logfmt", "json"])
def test_every_log_format_has_one_event_per_line(database, form):
    database.run("INSERT INTO outbox.message (channel, type, payload_bytes, expires_at) VALUES (E'new\nline \"q\"', 'b', 'secret payload', now())")
    done = relay("drain", "-q", "-b", "null", "-d", database.conninfo, "--log-format", form)
    assert done.returncode == 1
    lines = [line for line in done.stderr.splitlines() if "dead letter" in line and "outbox-relay:" not in line]
    assert len(lines) == 1 and "secret payload" not in done.stderr
    if form == "json":
        event = json.loads(lines[0])
        assert event["level"] == "warning" and event["channel"] == 'new\nline "q"' and event["reason"] == "expired"
    elif form == "logfmt":
        assert re.match(r'ts=\S+Z level=warning msg="message set aside as a dead letter" id=\S+ channel="new\\nline \\"q\\""', lines[0])


def test_log_level_hides_what_is_less_important(database):
    done = relay("drain", "-q", "-b", "null", "-d", database.conninfo, "--log-level", "error", "--json")
    assert done.returncode == 0 and done.stderr == ""


def test_drain_shows_progress_as_a_bar_only_on_a_terminal(database):
    database.fill(1000)
    pid, terminal = os.forkpty()
    if pid == 0:
        os.execve(RELAY, [RELAY, "drain", "-b", "null", "-d", database.conninfo], clean_environment())
    text = b""
    try:
        while chunk := os.read(terminal, 4096):
            text += chunk
    except OSError:
        pass
    _, code = os.waitpid(pid, 0)
    assert code == 0 and b"[" in text and b"%" in text and b"of 1000" in text
    database.fill(10)
    assert "[#" not in relay("drain", "-b", "null", "-d", database.conninfo).stderr


def test_sessions_use_the_instance_as_application_name(database, start):
    start("-d", database.conninfo, "-b", "null", "--instance", "named", "-o", "workers=3")
    wait_until(lambda: database.value("SELECT count(*) FROM pg_stat_activity WHERE application_name = 'outbox-relay/named'") == 4,
               what="three workers and the ledger")


def test_a_librabbitmq_that_is_no_packages_is_not_taken_for_debians_mended_one(tmp_path):
    linked = subprocess.run(["ldd", RELAY], capture_output=True, text=True, check=True).stdout
    found = re.search(r"librabbitmq\.so\.4 => (\S+)", linked)
    if not found:  # the backend is a .so of its own
        plugin = os.path.join(os.path.dirname(RELAY), "backends", "amqp.so")
        found = re.search(r"librabbitmq\.so\.4 => (\S+)", subprocess.run(["ldd", plugin], capture_output=True, text=True, check=True).stdout)
    shutil.copy(os.path.realpath(found[1]), tmp_path / "librabbitmq.so.4")
    words = ["backends", "show", "amqp"]
    ours, theirs = relay(*words).stdout, relay(*words, env={"LD_LIBRARY_PATH": str(tmp_path)}).stdout
    assert "librabbitmq" in ours and "(Debian " in ours
    assert "librabbitmq" in theirs and "(Debian " not in theirs
