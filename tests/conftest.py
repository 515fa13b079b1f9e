import pytest

import harness
import postgres_server
from fault_proxy import FaultProxy
from receiver import Receiver
from scripted_broker import ScriptedBroker


@pytest.fixture
def database():
    made = harness.Database()
    yield made
    made.drop()


@pytest.fixture
def broker():
    made = harness.Broker()
    yield made
    made.close()


@pytest.fixture
def start():
    """Starts relays that are ended, and checked for sanitizer complaints, when the test is over."""
    relays = []

    def start_relay(*arguments, **more):
        relays.append(harness.Relay(*arguments, **more))
        return relays[-1]

    yield start_relay
    for relay in relays:
        relay.close()


@pytest.fixture
def receiver():
    made = Receiver()
    yield made
    made.close()


@pytest.fixture
def proxied():
    """Makes fault proxies in front of a port."""
    proxies = []

    def make(port, **more):
        proxies.append(FaultProxy(port, **more))
        return proxies[-1]

    yield make
    for proxy in proxies:
        proxy.close()


@pytest.fixture
def scripted():
    """Makes brokers that play a script."""
    brokers = []

    def make(*arguments, **more):
        brokers.append(ScriptedBroker(*arguments, **more))
        return brokers[-1]

    yield make
    for broker in brokers:
        broker.close()


@pytest.fixture
def servers():
    """Makes PostgreSQL servers of the test's own."""
    with postgres_server.servers() as make:
        yield make
