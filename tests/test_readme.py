"""The README's commands, run as they stand against a real daemon, a real mosquitto and a simulated board."""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.broker import Broker
from tests.documentation import bash, bash_all, blocks, environment
from tests.gateway import NODE, REPOSITORY, Gateway, client, start_board


@pytest.fixture
def gateway(tmp_path: Path, broker: Broker) -> Iterator[Gateway]:
    running = Gateway(tmp_path, broker_port=broker.port, extra="devices: {join: approve}")
    yield running
    running.end()


@pytest.mark.usefixtures("mosquitto_clients", "promtool")
def test_what_the_readme_says_works(gateway: Gateway, broker: Broker, tmp_path: Path) -> None:
    exports, admit, attach, *rest = blocks("README.md")
    assert exports.startswith("export PATH=")
    assert "sim-device" in attach
    environ = environment(NODE=NODE, MQTT_PORT=str(broker.port), BOARD_PORT=str(broker.port), GATEWAYD_URL=gateway.http)
    output = bash(admit, environ)
    with client(broker.port) as (_, events):
        board = start_board(tmp_path, broker_port=broker.port, board="nucleo-u575zi-q", link="ble")
        try:
            events.until("event/device", lambda event: bool(event["online"]))
            output += bash_all(rest, environ)
        finally:
            board.end()
    assert "speaker" in output
    assert "accepted" in output
    assert '"ran_on":"device:door-1"' in output.replace(" ", "")


def test_every_file_that_the_documentation_links_to_exists() -> None:
    for page in [REPOSITORY / "README.md", *(REPOSITORY / "docs").glob("*.md")]:
        for target in re.findall(r"\]\(([^)#:]+)\)", page.read_text()):
            assert (page.parent / target).exists(), f"{page.name} links to {target}"
