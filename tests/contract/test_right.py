"""Backends on other people's libraries, right ones: each conforms, or the kit says why it cannot tell."""
import os
import re
import subprocess

import pytest

import plugins
from advertiser import Advertiser
from harness import HERE, Database, relay
from ports import free_port

BACKENDS = os.path.join(HERE, "..", "backends")
MQTT = "127.0.0.1:" + os.environ.get("TEST_MQTT_PORT", "")
STRICT = ("-Wpedantic", "-Wconversion", "-Wshadow", "-Wstrict-prototypes", "-Werror")


def kit(path, *arguments):
    return relay("backends", "test", str(path), *arguments, timeout=400)


@pytest.fixture
def mqtt(tmp_path):
    return plugins.build(tmp_path, "mqtt", *STRICT, source=os.path.join(BACKENDS, "mqtt", "mqtt.c"), libraries=["-lmosquitto"])


@pytest.fixture
def kafka(tmp_path):
    return plugins.build(tmp_path, "kafka", *STRICT, source=os.path.join(BACKENDS, "kafka", "kafka.c"), libraries=["-lrdkafka"])


@pytest.fixture
def cluster(tmp_path):
    """HOST:PORT of librdkafka's own mock."""
    program = tmp_path / "kafka_mock"
    subprocess.run(["cc", "-std=c11", "-Wall", "-Wextra", "-Werror", os.path.join(HERE, "tools", "kafka_mock.c"), "-o", str(program), "-lrdkafka"], check=True)
    with subprocess.Popen([program], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as process:
        yield process.stdout.readline().strip()
        process.stdin.close()
        assert process.wait(timeout=30) == 0


def test_mqtt_by_libmosquitto_conforms(mqtt):
    done = kit(mqtt, "-o", "address=" + MQTT, "--proxy", "address")
    assert done.returncode == 0 and done.stdout.endswith(f"0 failed, 0 skipped\n# mqtt 0.1.0 ({mqtt}), backend ABI 1.4: conformant\n"), done.stdout
    assert "libmosquitto 2." in relay("backends", "show", mqtt).stdout


def test_a_topic_that_mqtt_cannot_have_is_refused_before_the_wire(mqtt):
    done = kit(mqtt, "-o", "address=" + MQTT, "--refusing", "topic=a/#", "--only", "refuses is not confirmed")
    assert done.returncode == 0 and "\nok 1 - what the destination refuses is not confirmed\n" in done.stdout, done.stdout


def test_kafka_by_librdkafka_conforms_as_far_as_can_be_told(kafka, cluster):
    done = kit(kafka, "-o", "brokers=" + cluster, "--proxy", "brokers")
    assert done.returncode == 0 and done.stdout.endswith(f" 0 failed, 30 skipped\n# kafka 0.1.0 ({kafka}), backend ABI 1.4: partial\n"), done.stdout
    assert re.search(r"# SKIP the data went past the proxy: .* --proxy brokers=LISTENPORT", done.stdout)


def test_kafka_whose_broker_advertises_the_proxy_is_asked_everything_and_conforms_but_for_some_bytes(kafka, cluster):
    """The recipe of backends/README.md, for clients that go where their broker sends them."""
    port = free_port()
    with Advertiser(int(cluster.split(":")[1]), port) as front:
        done = kit(kafka, "-o", f"brokers=127.0.0.1:{front.port}", "--proxy", f"brokers={port}")
    failed = re.findall(r"^not ok \d+ - (.*)$", done.stdout, re.M)
    # Some 45 bytes for each producer that has lost its broker, seen under ASan alone, which counts the memory of threads, too. They are librdkafka's:
    # kafka.c has no memory of its own that outlives a session, and LeakSanitizer finds nothing lost.
    known = {"what a lost session held is given back": r"each session that is lost leaks \d\d bytes of memory",
             "refused connections confirm nothing, and leak nothing": r"each connect\(\) that fails leaks \d\d? bytes of memory"}
    assert set(failed) <= known.keys() and "SKIP" not in done.stdout, done.stdout
    assert all(re.search(known[name], done.stdout) for name in failed), done.stdout


@pytest.mark.parametrize("order", ["none", "key"])
def test_all_of_a_thousand_messages_are_in_the_cluster(kafka, cluster, order, tmp_path):
    database = Database()
    try:
        database.fill(1000)
        if order == "key":
            assert relay("migrate", "-d", database.conninfo, "--order", "key").returncode == 0
        done = relay("drain", "-q", "-d", database.conninfo, "-b", kafka, "-o", "kafka.brokers=" + cluster, "-o", "order=" + order)
        assert done.returncode == 0 and database.left() == 0, done.stderr
    finally:
        database.drop()
    counter = tmp_path / "count"
    subprocess.run(["cc", "-std=c11", os.path.join(HERE, "tools", "kafka_count.c"), "-o", str(counter), "-lrdkafka"], check=True)
    counted = subprocess.run([counter, cluster, "orders"], capture_output=True, text=True, timeout=60, check=True)
    assert int(counted.stdout) == 1000
