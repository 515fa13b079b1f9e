"""The conformance kit judges by behaviour: our backends conform, and each of many wrong ones is told what its author did wrong."""
import concurrent.futures
import os
import re
import signal
import subprocess
import time

import pytest

import plugins
from harness import AMQP_URL, RELAY, Broker, clean_environment, relay
from ports import free_port

REDIS = "127.0.0.1:" + os.environ.get("TEST_REDIS_PORT", "")
NGINX = os.environ.get("TEST_NGINX_PORT")
NGINX_TLS = os.environ.get("TEST_NGINX_TLS_PORT")
CA = os.environ.get("TEST_TLS_DIR", "") + "/ca.pem"
TESTS, FAULTS = 59, 30

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
    "CRASHES_ON_AN_EMPTY_PAYLOAD": r"empty payloads and NUL bytes are confirmed or rejected\n# publish\(\) crashed.*signal 6",
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
    "INDEXES_THE_HEADERS": r"headers are found where header_size says\n# publish\(\) crashed.*read them by outbox_header_at\(\)",
    "TRUNCATES_AT_NUL": r"not ok \d+ - (no text is read beyond its end|empty payloads and NUL bytes are confirmed or rejected)\n",
    "CUTS_LARGE_PAYLOADS": r"payloads of \d+ bytes were CONFIRMED, and \d+ bytes went to the broker: they are cut off",
    "CONFIRMS_ON_ANY_ANSWER": r"messages were CONFIRMED while (the broker's answers arrived as noise|connections ended after the first byte)",
    "KEEPS_ITS_CONNECTION": r"messages were CONFIRMED while nothing of the batch reached the broker",
    "LEAKS_ON_A_FAILED_CONNECT": r"each connect\(\) that fails leaks a file descriptor",
    "SLEEPS_FOR_EVER": r"publish\(\) has not returned 8 s after it had to",
    "RECONNECTS_WITHIN_PUBLISH": r"after a connection that died with what was sent over it: \d+ of 200 messages were CONFIRMED and never reached",
    "CONFIRMS_BY_ID": r"messages of one id are messages each\n# message 1 was settled twice",
    "SKIPS_IDS_THAT_IT_HAS_SEEN": r"messages of one id: 19 of 20 messages were CONFIRMED and never reached the broker, message 2 the first",
    "CONFIRMS_EMPTY_PAYLOADS_UNSENT": r"50 messages without a payload were CONFIRMED, and 0 bytes went to the broker: they were not sent",
    "SHARES_ONE_CONNECTION": r"not ok \d+ - (two sessions publish at once|four sessions side by side)",
    "SHARES_ITS_BUFFER": r"not ok \d+ - (two sessions publish at once|four sessions side by side)",
    "HOLDS_FOR_A_DEAD_CONNECTION": r"publish\(\) said that the session is OK, with a verdict for 50 of 50 messages: a connection that broke is no",
    "RETRIES_FOR_A_DEAD_CONNECTION": r"publish\(\) said that the session is OK, with a verdict for 50 of 50 messages: a connection that broke is no",
    "BLOCKS_IN_CONNECT": r"a black hole does not hold connect\(\) beyond its deadline\n# connect\(\) has not returned 8 s after it had to",
    "HAS_A_TIMEOUT_PER_MESSAGE": r"a byte at a time do not hold publish\(\) beyond its deadline\n# publish\(\) has not returned 8 s after",
    "TAKES_AN_ERROR_FOR_AN_ANSWER": r"20 of 20 messages were CONFIRMED that the destination refused: an answer is no confirmation before it is read",
    "CONFIRMS_THE_SECOND_ATTEMPT": r"75 of 100 messages were CONFIRMED while",
    "SAYS_UNSENT_OF_WHAT_WENT": r"a message was settled as UNSETTLED, which means not sent, although all of it went to the broker",
    "TELLS_A_SECRET": r"the error of connect\(\) holds the value of a setting that is secret",
    "LOGS_A_SECRET": r"it logs a secret: .*KITSECRET",
    "QUOTES_THE_PAYLOAD": r"the reason that settle\(\) was given quotes a payload or a header's value",
    "PRINTS_THE_PAYLOAD": r"it writes to standard error what stands in a payload or in a header's value: sample: sending",
    "CHANGES_A_SIGNAL": r"it changed what the process does on SIGTERM: signals are the relay's",
    "CHANGES_THE_MASK": r"it changed the calling thread's signal mask \(SIGUSR2\)",
    "CHANGES_THE_UMASK": r"it changed the umask from 0\d\d to 000",
    "CHANGES_THE_DIRECTORY": r"it changed the working directory",
    "CHANGES_THE_LOCALE": r"it changed the locale to C.UTF-8",
    "LEAVES_A_TIMER": r"it left a timer of the process running",
    "CLOSES_STANDARD_INPUT": r"it closed or replaced standard input, which is the relay's",
    "PRINTS_TO_STANDARD_OUTPUT": r"it writes to standard output, where `drain` tells its result",
    "LEAVES_A_CHILD": r"it leaves a child process( that has ended and nobody waited for, a zombie)?: wait for it before close\(\) returns",
    "LEAKS_MEMORY_WHEN_LOST": r"each session that is lost leaks \d+ bytes of memory",
    "LEAKS_A_DESCRIPTOR_WHEN_LOST": r"each session that is lost leaks a file descriptor",
    "CHECKS_NOTHING": r"check\(\) said OK 20 times after the connection was closed by its peer",
    "EXPLAINS_BEYOND_THE_END": r"explain\(\) wrote beyond the 1 bytes that it was given",
    "KEEPS_LATE_ANSWERS": r"1 of 100 messages were CONFIRMED while nothing of the batch reached the broker, and answers to the batch before it came late",
    "CHECKS_FOR_A_RESET_ONLY": r"check\(\) said OK 20 times after the connection was closed by its peer",
    "LEAKS_MEMORY_ON_A_FAILED_CONNECT": r"each connect\(\) that fails leaks \d+ bytes of memory",
    "GREETS_WITH_A_TIMEOUT_PER_BYTE": r"hold neither connect\(\) nor check\(\) beyond the deadline\n# connect\(\) has not returned 8 s after it had to",
    "SENDS_ALL_TO_THE_FIRST_CHANNEL": r"the channel of message 3 is nowhere in what went to the broker, although that of another is",
    "BREAKS_ON_A_LINE_BREAK": r"a channel of odd characters cost the session, and would with each attempt: say REJECTED of such a message, before the wire",
    "BREAKS_ON_HUGE_HEADERS": r"a header of 1 MiB cost the session",
    "OVERFLOWS_A_TTL": r"extreme times and numbers cost the session",
    "CHANGES_THE_LOCALE_WHEN_LOADED": r"when it was loaded, it changed the locale to C.UTF-8",
    "CRASHES_AT_EXIT": r"ends as it should\n# a destructor, or what runs at exit, crashed.*signal 6",
    "CUTS_AT_64_KIB": r"payloads go whole, to their last byte\n# a payload of 70001 bytes was CONFIRMED, and its end never reached the broker",
    "SKIPS_LOWER_SEQS": r"messages of falling seqs \(they rise within a key only\): 29 of 30 messages were CONFIRMED and never reached the broker",
    "REMEMBERS_WHAT_IT_SENT": r"messages that were given before to a session that was lost: \d+ of 30 messages were CONFIRMED and never reached the broker",
    "LEAVES_OUT_OLD_ONES": r"messages that are older than a month: 5 of 5 messages were CONFIRMED and never reached the broker",
    "LEAVES_OUT_KEYLESS_ONES": r"messages without a key: 5 of 5 messages were CONFIRMED and never reached the broker",
    "PINGS_AND_DOES_NOT_READ": r"\d+ of 50 messages were CONFIRMED while nothing of the batch reached the broker, after check\(\) had asked it",
    "CLOSES_TWICE": r"disconnect\(\) closed a descriptor that was not the session's any more",
    "HAS_ONE_SET_OF_SETTINGS": r"a second open\(\) and its close\(\) change nothing\n# (connect|publish)\(\) (crashed|failed)",
    "HAS_EIGHT_SESSIONS": r"not ok \d+ - 64 sessions work, each in another thread than made it",
    "CALLS_AN_OUTAGE_A_MISTAKE": r"the broker was gone, and the error's kind is CONFIG, at which `drain` gives up",
    "CHECKS_DEAF_TO_INTERRUPTS": r"and a check\(\), every time\n# interrupt\(\) took effect after \d+ ms",
    "TRIES_AGAIN_DEAF_TO_INTERRUPTS": r"interrupt\(\) ends a connect\(\) that waits, within 1 s\n# interrupt\(\) took effect after \d+ ms",
    "GIVES_A_DATE_FOR_A_WAIT": r"a retry_after_ms of \d+: milliseconds from now on, 24 h at most",
    "HANGS_AT_EXIT": r"a destructor, or what runs at exit, has not returned 8 s after it had to: end your threads in close\(\), and wait for nothing here",
}


def kit(path, *arguments, timeout=400):
    return relay("backends", "test", str(path), *arguments, timeout=timeout)


def conforms(done, name, place):
    return done.returncode == 0 and done.stdout.endswith(
        f"# {TESTS} tests, 0 failed, 0 skipped\n# {name} ({place}), backend ABI 1.4: conformant\n")


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


def test_one_whose_library_starts_threads_when_it_is_loaded_and_blocks_their_signals_conforms(tmp_path):
    path = plugins.build(tmp_path, "sample", "-DSTARTS_A_THREAD")
    done = kit(path, "-o", "address=" + REDIS, "--proxy", "address")
    assert conforms(done, "sample 1.0.0", path), done.stdout


# Those that make the kit wait.
SLOW = {"IGNORES_THE_DEADLINE", "SLEEPS_IN_DISCONNECT", "IGNORES_THE_INTERRUPT", "INTERRUPTS_SLOWLY", "LEAKS_MEMORY", "SLEEPS_FOR_EVER", "BLOCKS_IN_CONNECT",
        "HAS_A_TIMEOUT_PER_MESSAGE", "GREETS_WITH_A_TIMEOUT_PER_BYTE", "HANGS_AT_EXIT"}

# Not wrong enough to fail: said beside the result.
DOUBTFUL = {"SENDS_WHAT_HAS_EXPIRED": "# a message whose ttl_ms was over was sent: settle such a one as UNSETTLED\n"}


def test_every_misdeed_of_the_sample_has_its_sentence():
    with open(plugins.MISDEEDS, encoding="utf-8") as misdeeds:
        declared = set(re.findall(r"^    ([A-Z_0-9]+),?$", misdeeds.read().split("enum wrong {")[1].split("}")[0], re.M))
    assert declared - {"NOTHING"} == set(WRONG) | set(DOUBTFUL) and SLOW < set(WRONG)


@pytest.mark.parametrize("doubtful", DOUBTFUL)
def test_what_is_not_wrong_enough_to_fail_is_said_beside_the_result(tmp_path, doubtful):
    path = plugins.build(tmp_path, doubtful, "-DWRONG=" + doubtful, "-Wno-unused-parameter")
    done = kit(path, "-o", "address=" + REDIS, "--only", "extreme times")
    assert done.returncode == 0 and DOUBTFUL[doubtful] in done.stdout, done.stdout
    done = kit(plugins.build(tmp_path, "sample"), "-o", "address=" + REDIS, "--only", "extreme times")
    assert done.returncode == 0 and DOUBTFUL[doubtful] not in done.stdout, done.stdout


QUICK = sorted(set(WRONG) - SLOW)


@pytest.mark.parametrize("names", [pytest.param(QUICK[0::2], id="quick_1"), pytest.param(QUICK[1::2], id="quick_2"),
                                   pytest.param(sorted(SLOW), id="slow")])
def test_a_wrong_sample_is_told_what_is_wrong(tmp_path, names):
    def judge(wrong):
        path = plugins.build(tmp_path, wrong, "-DWRONG=" + wrong, "-Wno-unused-parameter")
        command = [RELAY, "backends", "test", path, "-o", "address=" + REDIS, "--proxy", "address", "--refusing", "command=NONESUCH"]
        said = ""
        with subprocess.Popen(command, stdout=subprocess.PIPE, env=clean_environment(), text=True) as process:
            for line in process.stdout:
                said += line
                if re.search(WRONG[wrong], said) and names.index(wrong) % 8 != 0:
                    process.terminate()  # what comes behind the sentence is looked at in one of eight
            process.wait()
        return wrong, said, process.returncode

    with concurrent.futures.ThreadPoolExecutor(8) as pool:  # they mostly wait
        judged = list(pool.map(judge, names))
    for wrong, said, code in judged:
        assert re.search(WRONG[wrong], said), (wrong, said)
        assert code == -signal.SIGTERM or (code == 1 and "NOT conformant" in said.splitlines()[-1]), (wrong, code, said)
    assert len([code for _, _, code in judged if code == 1]) >= len(names) / 8


def test_what_the_destination_refuses_is_asked_for_where_the_author_says_how(tmp_path):
    path = plugins.build(tmp_path, "sample")
    done = kit(path, "-o", "address=" + REDIS, "--refusing", "sample.command=NONESUCH", "--only", "refuses is not confirmed")
    assert done.returncode == 0 and "ok 1 - what the destination refuses is not confirmed\n" in done.stdout, done.stdout
    done = kit(path, "-o", "address=" + REDIS, "--refusing", "comand=NONESUCH", "--only", "refuses is not confirmed")
    assert done.returncode == 64 and "--refusing comand=NONESUCH: write KEY=VALUE with an option of this backend" in done.stderr, done.stderr


def listed():
    rows = [re.match(r" ?(\d+)  (.*?)(?: \((needs --proxy|only with --refusing)\))?$", line).groups()
            for line in relay("backends", "test", "--list").stdout.splitlines()]
    assert [row[0] for row in rows] == [str(n) for n in range(1, len(rows) + 1)]
    return rows


def test_the_tests_are_listed_and_chosen_by_number_or_by_words():
    rows = listed()
    assert len([row for row in rows if row[2] != "only with --refusing"]) == TESTS
    assert len([row for row in rows if row[2] == "needs --proxy"]) == FAULTS
    number, name, _ = rows[5]
    done = kit("null", "--only", number)
    assert done.stdout == f"TAP version 14\n1..1\nok 1 - {name}\n# 1 tests, 0 failed, 0 skipped\n" \
        "# null 1.0.0 (built in), backend ABI 1.4: partial\n", done.stdout
    some = [row for row in rows if "is leaked" in row[1]]
    done = kit("null", "--only", "is leaked")
    assert done.returncode == 0 and done.stdout.startswith(f"TAP version 14\n1..{len(some)}\n") and len(some) == 3, done.stdout
    done = kit("null", "--only", "no such words")
    assert done.returncode == 64 and "--only no such words: no test has that number or those words in its name" in done.stderr


def test_one_that_hangs_everywhere_is_given_up_early(tmp_path):
    path = plugins.build(tmp_path, "HANGS", "-DWRONG=SLEEPS_FOR_EVER", "-Wno-unused-parameter")
    began = time.monotonic()
    done = kit(path, "-o", "address=" + REDIS, "--proxy", "address")
    assert done.returncode == 1 and done.stdout.count("has not returned 8 s after it had to") == 3, done.stdout
    assert done.stdout.count("# SKIP not begun: too many hang") == TESTS - 6 and time.monotonic() - began < 120, done.stdout


def test_what_a_library_says_on_standard_error_is_told(tmp_path):
    path = plugins.build(tmp_path, "CHATTY", "-DCHATTERS")
    done = kit(path, "-o", "address=" + REDIS, "--only", "a message is confirmed")
    assert done.returncode == 0 and "\n# its standard error, 2 lines:\n#   the library is \\u001b[1mpleased\n# 1 tests" in done.stdout, done.stdout
    path = plugins.build(tmp_path, "UNHAPPY", "-DCHATTERS", "-DWRONG=EXITS", "-Wno-unused-parameter")
    done = kit(path, "-o", "address=" + REDIS, "--only", "a message is confirmed")
    assert done.returncode == 1 and "2 lines:\n#   the library is \\u001b[1mpleased\n#   and says so\n" in done.stdout, done.stdout


def test_a_client_that_goes_where_its_broker_sends_it_is_told_how_to_be_followed(tmp_path):
    """As Kafka's do: the first connection learns the address of the second."""
    path = plugins.build(tmp_path, "sample", f'-DADVERTISED="{REDIS}"')
    done = kit(path, "-o", "address=" + REDIS, "--proxy", "address")
    assert done.returncode == 0 and re.search(r"# SKIP the data went past the proxy: .* connection to port \d+ .* --proxy address=LISTENPORT", done.stdout), done.stdout
    assert done.stdout.count("# SKIP the data goes past the proxy") == FAULTS - 1 and done.stdout.endswith("partial\n"), done.stdout
    port = free_port()
    path = plugins.build(tmp_path, "sample", f'-DADVERTISED="127.0.0.1:{port}"')
    done = kit(path, "-o", "address=" + REDIS, "--proxy", f"address={port}", "--only", "proxy")
    assert done.returncode == 0 and "ok 1 - all is as before through a proxy" in done.stdout and "SKIP" not in done.stdout, done.stdout


def test_host_and_port_may_be_two_options(tmp_path):
    path = plugins.build(tmp_path, "sample", "-DHOST_AND_PORT")
    where = ("-o", "host=127.0.0.1", "-o", "port=" + REDIS.split(":")[1])
    done = kit(path, *where, "--proxy", "host,port")
    assert conforms(done, "sample 1.0.0", path), done.stdout
    done = kit(path, *where, "--proxy", "host", "--only", "proxy")
    assert done.returncode == 64 and "option 'host' holds no host:port (where host and port are two options, write --proxy HOST_OPTION,PORT_OPTION)" in done.stderr


def test_where_a_certificate_is_for_a_name_that_the_proxy_cannot_bear_the_result_is_partial(tmp_path):
    path = plugins.build(tmp_path, "sample", '-DCERTIFIED="127.0.0.2"')
    port = free_port()
    with subprocess.Popen(["redis-server", "--bind", "127.0.0.2", "--port", str(port), "--save", "", "--dir", str(tmp_path)], stdout=subprocess.PIPE, text=True) as server:
        while "Ready to accept connections" not in server.stdout.readline():
            assert server.poll() is None
        done = kit(path, "-o", f"address=127.0.0.2:{port}", "--proxy", "address", "--only", "connect")
        server.terminate()
    assert done.returncode == 0 and "not ok" not in done.stdout and done.stdout.endswith("partial\n"), done.stdout
    done = done.stdout
    assert re.search(r"# SKIP the kit's proxy is 127.0.0.1, and that does not do in place of 127.0.0.2 .* let the name be 127.0.0.1 in /etc/hosts", done), done


@pytest.mark.parametrize("wrong, only", [("CONFIRMS_WITHOUT_AN_ANSWER", "answers that do not arrive"), ("SKIPS_IDS_THAT_IT_HAS_SEEN", "messages of one id")],
                         ids=["CONFIRMS_WITHOUT_AN_ANSWER", "SKIPS_IDS_THAT_IT_HAS_SEEN"])
def test_a_single_test_judges_as_it_does_among_the_others(tmp_path, wrong, only):
    path = plugins.build(tmp_path, wrong, "-DWRONG=" + wrong, "-Wno-unused-parameter")
    done = kit(path, "-o", "address=" + REDIS, "--proxy", "address", "--only", only)
    assert done.returncode == 1 and re.search(WRONG[wrong], done.stdout), done.stdout


def test_without_a_proxy_nothing_is_called_conformant(tmp_path):
    path = plugins.build(tmp_path, "sample")
    done = kit(path, "-o", "address=" + REDIS)
    assert done.returncode == 0 and done.stdout.count("# SKIP needs --proxy OPTION") == FAULTS, done.stdout
    assert done.stdout.endswith(f"# {TESTS} tests, 0 failed, {FAULTS} skipped\n# sample 1.0.0 ({path}), backend ABI 1.4: partial\n")


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
                                " backend ABI 1.4: partial\n")


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
    # Of the kit's ten seconds a request may have seven: five were too few for a TLS connection of ASan's on a machine that builds mutants meanwhile.
    done = kit("http", "-o", f"url=https://localhost:{NGINX_TLS}/kit", "-o", "tls.ca_file=" + CA, "-o", "timeout=7s", "-o", "connect_timeout=7s", "--proxy", "url")
    assert conforms(done, "http 1.0.0", "built in"), done.stdout


def test_http_conforms_where_every_channel_has_a_host_of_its_own():
    done = kit("http", "-o", "url=${channel}", "--proxy", "url")
    assert done.returncode == 64 and "option 'url' holds no host:port" in done.stderr
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
    (["--proxy", "address=0"], 64, "--proxy address=0: write OPTION=PORT with the port where the proxy is to listen"),
    (["--proxy", "address=80a"], 64, "--proxy address=80a: write OPTION=PORT"),
    (["--proxy", "address="], 64, "--proxy address=: write OPTION=PORT"),
    (["--proxy", "address,prt"], 64, "--proxy prt: backend sample has no such option"),
])
def test_mistakes_of_the_command_line_are_told(tmp_path, arguments, code, text):
    done = kit(plugins.build(tmp_path, "sample"), "-o", "address=" + REDIS, *arguments)
    assert done.returncode == code and text in done.stderr, done.stderr


def test_a_destination_that_does_not_work_is_told_as_such(tmp_path):
    done = kit(plugins.build(tmp_path, "sample"), "-o", "address=127.0.0.1:1")
    assert done.returncode == 1 and done.stdout.count("the kit needs a destination that works: see -o") == 1, done.stdout
    assert done.stdout.count("# SKIP not begun: the destination does not answer") > 20 and "2 failed" not in done.stdout, done.stdout


def test_the_kit_leaves_no_process_behind(tmp_path):
    path = plugins.build(tmp_path, "HANGS", "-DWRONG=IGNORES_THE_DEADLINE", "-Wno-unused-parameter")
    process = subprocess.Popen([RELAY, "backends", "test", path, "-o", "address=" + REDIS], stdout=subprocess.PIPE, env=clean_environment())
    process.communicate(timeout=300)
    found = subprocess.run(["pgrep", "-f", path], capture_output=True, text=True, check=False).stdout.split()
    assert found == []
