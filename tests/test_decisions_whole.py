"""Decisions on real parts: served, explained, logged, decided again from the file; what was learned outlives the daemon."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.broker import Broker
from tests.engine_environments import require_engine
from tests.gateway import Gateway, add_speaker, client, gatewayd, start_board

BY_REFERENCE = {"device": "door-1", "input": "mic"}
REQUESTS = 12


@pytest.fixture
def gateway(tmp_path: Path, broker: Broker) -> Iterator[Gateway]:
    running = Gateway(tmp_path, broker_port=broker.port, extra=_extra(tmp_path))
    yield running
    running.end()


def _extra(folder: Path) -> str:
    return f"decisions: {{file: {folder / 'decisions.jsonl'}}}\npushes: {{automatic: false}}\ndevices: {{join: open}}"


def test_what_was_decided_can_be_explained_and_decided_again(tmp_path: Path, gateway: Gateway, broker: Broker) -> None:
    require_engine("litert")
    add_speaker(gateway)
    log = tmp_path / "decisions.jsonl"
    with client(broker.port) as (mqtt, events):
        board = start_board(tmp_path, broker_port=broker.port, link="wifi")
        try:
            events.until("event/device", lambda event: event["device"] == "door-1" and bool(event["online"]))
            answers = [mqtt.infer("speaker", BY_REFERENCE) for _ in range(REQUESTS)]
        finally:
            board.end()
        told = mqtt.command("why", {"request": answers[-1]["id"]})
        assert {option["target"] for option in told["options"]} == {"node", "device:door-1"}
        assert told["rent"]["requests"] == REQUESTS
        assert told["rent"]["price"] > 0
    assert not log.exists()
    assert gateway.end() == 0
    replayed = gatewayd("replay", str(log), "--policy", "node-only")
    assert replayed.stdout.startswith(f"{REQUESTS} decisions replayed: {REQUESTS} the same to the last bit, 0 not")
    assert f"{REQUESTS} would have gone where they went" in replayed.stdout
    again = Gateway(tmp_path, broker_port=broker.port, extra=_extra(tmp_path))
    again.end()
    assert any("estimates taken over" in line for line in again.lines)
