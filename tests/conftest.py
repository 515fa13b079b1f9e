import pytest

import harness
from receiver import Receiver


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
