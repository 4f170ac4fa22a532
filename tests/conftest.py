"""Fixtures that several rooms share."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.broker import MOSQUITTO, Broker


@pytest.fixture
def broker(tmp_path: Path) -> Iterator[Broker]:
    """A running mosquitto of this test's own; `broker.restart()`, `broker.stop()`, `broker.start()`."""
    if MOSQUITTO is None:
        pytest.skip("mosquitto is not installed (Debian: apt install mosquitto)")
    running = Broker(tmp_path)
    running.start()
    yield running
    running.stop()


@pytest.fixture
def mosquitto_clients() -> None:
    """Skip, visibly, where Debian's command line clients are missing."""
    if shutil.which("mosquitto_rr") is None:
        pytest.skip("mosquitto_rr is not installed (Debian: apt install mosquitto-clients)")


@pytest.fixture
def promtool() -> str:
    """The path of Prometheus's checker; skips, visibly, where it is missing."""
    found = shutil.which("promtool")
    if found is None:
        pytest.skip("promtool is not installed (Debian: apt install prometheus)")
    return found
