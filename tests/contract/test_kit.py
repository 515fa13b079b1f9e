"""The conformance kit judges by behaviour: our backends conform, and each of many wrong ones is told what its author did wrong."""
import concurrent.futures
import os
import re
import subprocess

import pytest

import plugins
from harness import AMQP_URL, RELAY, Broker, clean_environment, relay

REDIS = "127.0.0.1:" + os.environ.get("TEST_REDIS_PORT", "")
NGINX = os.environ.get("TEST_NGINX_PORT")
NGINX_TLS = os.environ.get("TEST_NGINX_TLS_PORT")
CA = os.environ.get("TEST_TLS_DIR", "") + "/ca.pem"
TESTS, FAULTS = 36, 14

# Each wrong sample, and what the kit must say of it.
WRONG = {
    "SETTLES_TWICE": r"message 1 was settled twice: nothing is known of it then",
    "SETTLES_AFTER_RETURN": r"settle\(\) was called after publish\(\) had returned",
    "SETTLES_IN_ANOTHER_THREAD": r"settle\(\) was called from another thread than publish\(\)",
    "IGNORES_THE_DEADLINE": r"publish\(\) has not returned 8 s after it had to: wait only for what is left of the deadline",
    "SLEEPS_IN_DISCONNECT": r"disconnect\(\) returned \d{4} ms after it had to",
    "LEAKS_MEMORY": r"it leaks \d+ bytes of memory with each of a life",
    "LEAKS_A_DESCRIPTOR": r"it leaks 1 file descriptors with each of a life",
    "LEAKS_A_THREAD": r"it leaks 1 threads with each of a life",
    "CONFIRMS_ON_A_WRITE_ERROR": r"publish\(\) confirmed 20 messages although every write, send and fsync failed",
    "CONFIRMS_WITHOUT_AN_ANSWER": r"100 of 100 messages were CONFIRMED while no answer of the broker arrived",
    "REJECTS_IN_AN_OUTAGE": r"messages were REJECTED while .*: an outage is no message's fault",
    "CRASHES_ON_AN_EMPTY_PAYLOAD": r"empty payloads and NUL bytes are confirmed\n# publish\(\) crashed.*signal 6",
    "CRASHES_ON_AN_EMPTY_BATCH": r"an empty batch is OK\n# publish\(\) crashed.*signal 11",
    "READS_BEYOND_THE_END": r"no text is read beyond its end\n# publish\(\) crashed, or read or wrote where it must not",
    "READS_AFTER_RETURN": r"nothing of a batch is used after publish\(\) has returned\n# publish\(\) crashed, or read or wrote where",
    "WRITES_INTO_THE_MESSAGE": r"publish\(\) crashed, or read or wrote where it must not",
    "EXITS": r"publish\(\) ended the process with exit code 3: a backend must never do that",
    "SAYS_OK_AND_SETTLES_NOTHING": r"publish\(\) said OK and left 1 of 1 messages without settle\(\)",
    "SAYS_OK_AND_SENDS_NOTHING": r"publish\(\) said OK and sent nothing",
    "SAYS_AN_UNKNOWN_STATE": r"publish\(\) returned 7, which is no session state",
    "GIVES_NO_REASON": r"message 1 was not confirmed and got no reason",
    "GIVES_NO_ERROR_TEXT": r"connect\(\) failed without a reason: write a sentence with cause and fix into error->text",
    "IGNORES_THE_INTERRUPT": r"interrupt\(\) took effect after \d+ ms: 1 s is what it has",
    "INTERRUPTS_SLOWLY": r"interrupt\(\) itself took \d{4} ms: it must not block",
    "CANNOT_CONNECT_AGAIN": r"connect\(\) failed: sample: connect\(\) a second time",
    "FREES_NOT_WITHOUT_CONNECT": r"a session that never connected can be freed\n# session_free\(\) crashed",
    "TRUNCATES_AT_NUL": r"not ok \d+ - (no text is read beyond its end|empty payloads and NUL bytes are confirmed)\n",
    "CUTS_LARGE_PAYLOADS": r"payloads of \d+ bytes were CONFIRMED, and \d+ bytes went to the broker: they are cut off",
    "CONFIRMS_ON_ANY_ANSWER": r"messages were CONFIRMED while (the broker's answers arrived as noise|connections ended after the first byte)",
    "KEEPS_ITS_CONNECTION": r"messages were CONFIRMED while nothing of the batch reached the broker",
    "LEAKS_ON_A_FAILED_CONNECT": r"each connect\(\) that fails leaks a file descriptor",
}


def kit(path, *arguments, timeout=400):
    return relay("backends", "test", str(path), *arguments, timeout=timeout)


def conforms(done, name, place):
    return done.returncode == 0 and done.stdout.endswith(
        f"# {TESTS} tests, 0 failed, 0 skipped\n# {name} ({place}), backend ABI 1.2: conformant\n")


@pytest.fixture
def queue():
    made = Broker()
    exchange = made.exchange("kit", "fanout")
    made.queue("kit", exchange, x_max_length=100)
    yield exchange
    made.close()


@pytest.fixture
def shared():
    """Where this build's .so backends are."""
    return relay("backends", "list").stdout.rsplit("looked for in ", 1)[1].split(";")[0]


def test_the_sample_conforms_built_with_the_header_of_the_tree(tmp_path):
    path = plugins.build(tmp_path, "sample")
    done = kit(path, "-o", "address=" + REDIS, "--proxy", "address")
    assert conforms(done, "sample 1.0.0", path), done.stdout


# Those that make the kit wait.
SLOW = {"IGNORES_THE_DEADLINE", "SLEEPS_IN_DISCONNECT", "IGNORES_THE_INTERRUPT", "INTERRUPTS_SLOWLY", "LEAKS_MEMORY"}


def test_every_misdeed_of_the_sample_has_its_sentence():
    with open(plugins.SAMPLE, encoding="utf-8") as sample:
        declared = set(re.findall(r"^    ([A-Z_]+),?$", sample.read().split("enum wrong {")[1].split("}")[0], re.M))
    assert declared - {"NOTHING"} == set(WRONG) and SLOW < set(WRONG)


@pytest.mark.parametrize("names", [pytest.param(sorted(set(WRONG) - SLOW), id="quick"), pytest.param(sorted(SLOW), id="slow")])
def test_a_wrong_sample_is_told_what_is_wrong(tmp_path, names):
    def judge(wrong):
        path = plugins.build(tmp_path, wrong, "-DWRONG=" + wrong, "-Wno-unused-parameter")
        return wrong, kit(path, "-o", "address=" + REDIS, "--proxy", "address")

    with concurrent.futures.ThreadPoolExecutor(6) as pool:  # they mostly wait
        judged = dict(pool.map(judge, names))
    for wrong, done in judged.items():
        assert done.returncode == 1 and "NOT conformant" in done.stdout.splitlines()[-1], (wrong, done.stdout, done.stderr)
        assert re.search(WRONG[wrong], done.stdout), (wrong, done.stdout)


def test_without_a_proxy_nothing_is_called_conformant(tmp_path):
    path = plugins.build(tmp_path, "sample")
    done = kit(path, "-o", "address=" + REDIS)
    assert done.returncode == 0 and done.stdout.count("# SKIP needs --proxy OPTION") == FAULTS, done.stdout
    assert done.stdout.endswith(f"# {TESTS} tests, 0 failed, {FAULTS} skipped\n# sample 1.0.0 ({path}), backend ABI 1.2: partial\n")


def test_the_output_is_tap(tmp_path):
    lines = kit("null").stdout.splitlines()
    assert lines[:2] == ["TAP version 14", f"1..{TESTS}"]
    points = [line for line in lines[2:] if not line.startswith("#")]
    assert [re.match(r"(not )?ok (\d+) - \S", line).group(2) for line in points] == [str(n) for n in range(1, TESTS + 1)]


@pytest.mark.parametrize("name", ["null", "stdout", "fail"])
@pytest.mark.parametrize("how", ["built in", "shared"])
def test_backends_without_a_network_are_partial(shared, name, how):
    path = name if how == "built in" else os.path.join(shared, name + ".so")
    done = kit(path)
    assert done.returncode == 0, done.stdout
    assert done.stdout.endswith(f"{TESTS} tests, 0 failed, {FAULTS} skipped\n# {name} 1.0.0 ({how if how == 'built in' else path}),"
                                " backend ABI 1.2: partial\n")


@pytest.mark.parametrize("how", ["built in", "shared"])
def test_amqp_conforms(shared, queue, how):
    path = "amqp" if how == "built in" else os.path.join(shared, "amqp.so")
    done = kit(path, "-o", "amqp.url=" + AMQP_URL, "-o", "amqp.exchange=" + queue, "--proxy", "url")
    assert conforms(done, "amqp 1.0.0", how if how == "built in" else path), done.stdout


@pytest.mark.parametrize("how", ["built in", "shared"])
def test_http_conforms(shared, how):
    path = "http" if how == "built in" else os.path.join(shared, "http.so")
    done = kit(path, "-o", f"url=http://127.0.0.1:{NGINX}/kit", "--proxy", "url")
    assert conforms(done, "http 1.0.0", how if how == "built in" else path), done.stdout


def test_http_conforms_over_tls_and_http_2():
    done = kit("http", "-o", f"url=https://localhost:{NGINX_TLS}/kit", "-o", "tls.ca_file=" + CA, "--proxy", "url")
    assert conforms(done, "http 1.0.0", "built in"), done.stdout


def test_http_conforms_where_every_channel_has_a_host_of_its_own():
    done = kit("http", "-o", "url=${channel}", "--proxy", "url")
    assert done.returncode == 1 and "option 'url' holds no host:port" in done.stdout
    done = kit("http", "-o", f"url=http://127.0.0.1:{NGINX}/${{channel}}/${{type}}", "-o", "cloudevents=structured",
               "-o", "secret=whsec_c2VjcmV0LXNlY3JldC1zZWNyZXQtc2VjcmV0", "--proxy", "url")
    assert conforms(done, "http 1.0.0", "built in"), done.stdout


def test_the_tutorials_redis_backend_conforms(tmp_path):
    path = plugins.build(tmp_path, "redis", source=plugins.REDIS, libraries=["-lhiredis"])
    done = kit(path, "-o", "address=" + REDIS, "--proxy", "address")
    assert conforms(done, "redis 0.1.0", path), done.stdout


@pytest.mark.parametrize("arguments, code, text", [
    (["--proxy", "adress"], 64, "--proxy adress: backend sample has no such option"),
    (["--proxy", "sample.address"], 64, "--proxy sample.address: write the option without 'sample.'"),
    (["-o", "adress=1"], 78, "unknown key 'adress'"),
])
def test_mistakes_of_the_command_line_are_told(tmp_path, arguments, code, text):
    done = kit(plugins.build(tmp_path, "sample"), "-o", "address=" + REDIS, *arguments)
    assert done.returncode == code and text in done.stderr, done.stderr


def test_a_destination_that_does_not_work_is_told_as_such(tmp_path):
    done = kit(plugins.build(tmp_path, "sample"), "-o", "address=127.0.0.1:1")
    assert done.returncode == 1 and "the kit needs a destination that works: see -o" in done.stdout


def test_the_kit_leaves_no_process_behind(tmp_path):
    path = plugins.build(tmp_path, "HANGS", "-DWRONG=IGNORES_THE_DEADLINE", "-Wno-unused-parameter")
    process = subprocess.Popen([RELAY, "backends", "test", path, "-o", "address=" + REDIS], stdout=subprocess.PIPE, env=clean_environment())
    process.communicate(timeout=300)
    found = subprocess.run(["pgrep", "-f", path], capture_output=True, text=True, check=False).stdout.split()
    assert found == []
