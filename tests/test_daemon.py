import json
import os
import select
import signal
import socket
import sqlite3
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.broker import Broker
from tests.gateway import PATIENCE_S, REPOSITORY, Gateway, add_speaker, client, gatewayd, infer_raw, start_board


@pytest.fixture
def gateway(tmp_path: Path, broker: Broker) -> Iterator[Gateway]:
    running = Gateway(tmp_path, broker_port=broker.port)
    yield running
    running.end()


def _children(pid: int) -> list[int]:
    return [int(each) for each in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def test_sigterm_ends_it_with_0_and_leaves_no_orphans(gateway: Gateway, broker: Broker) -> None:
    add_speaker(gateway)
    assert infer_raw(gateway)[0] == 200
    workers = _children(gateway.pid)
    assert workers
    with client(broker.port) as (_, events):
        assert gateway.end(signal.SIGTERM) == 0
        events.until("status", lambda status: status.get("state") == "offline")
    assert not any(Path(f"/proc/{pid}").exists() for pid in workers)


def test_workers_end_with_a_daemon_that_is_killed(gateway: Gateway) -> None:
    add_speaker(gateway)
    assert infer_raw(gateway)[0] == 200
    workers = [os.pidfd_open(pid) for pid in _children(gateway.pid)]
    assert workers
    gateway.end(signal.SIGKILL)
    for worker in workers:
        # A pidfd becomes readable when its process has ended.
        readable, _, _ = select.select([worker], [], [], PATIENCE_S)
        os.close(worker)
        assert readable


def test_a_part_that_fails_brings_the_process_down_with_1(gateway: Gateway, broker: Broker, tmp_path: Path) -> None:
    with sqlite3.connect(tmp_path / "data" / "gatewayd.sqlite") as database:
        database.execute("DROP TABLE devices")
    database.close()
    board = start_board(tmp_path, broker_port=broker.port)  # join: open, so that it is stored at once
    try:
        assert gateway.wait() == 1
    finally:
        board.end()
    assert any("stopping because a part failed" in line for line in gateway.lines)
    (line,) = [line for line in gateway.lines if "level=critical" in line]
    assert "devices" in line
    assert "gatewayd.sqlite" in line
    assert "Traceback" not in line


def test_a_broker_that_is_away_at_start_is_no_error(tmp_path: Path, broker: Broker) -> None:
    broker.stop()
    gateway = Gateway(tmp_path, broker_port=broker.port)
    try:
        assert gateway.get("/healthz")[0] == 200
        broker.start()
        with client(broker.port) as (mqtt, _):
            assert mqtt.command("status", {})["node"] == "test"
    finally:
        assert gateway.end() == 0


def test_an_address_in_use_is_one_clear_line(tmp_path: Path, broker: Broker) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        config = tmp_path / "gatewayd.yaml"
        port = taken.getsockname()[1]
        config.write_text(
            f"node: {{data_dir: data}}\nmqtt: {{port: {broker.port}}}\nhttp: {{port: {port}}}\n"
            "coap: {enabled: false}\nlwm2m: {enabled: false}\n"
        )
        ended = gatewayd("run", "--config", str(config))
    assert ended.returncode == 1
    assert "cannot start" in ended.stderr
    assert str(port) in ended.stderr
    assert "Traceback" not in ended.stderr


def test_a_config_with_four_mistakes_tells_all_four(tmp_path: Path) -> None:
    config = tmp_path / "bad.yaml"
    config.write_text("mqtt: {port: 99999, hots: x}\nhttp: {max_body_bytes: many}\npushes: {stall_s: -1}\n")
    for arguments in (["--check-config", str(config)], ["run", "--config", str(config)]):
        ended = gatewayd(*arguments)
        assert ended.returncode == 1
        for place in ("mqtt.port", "mqtt.hots", "http.max_body_bytes", "pushes.stall_s"):
            assert place in ended.stderr


def test_the_shipped_config_is_valid() -> None:
    ended = gatewayd("--check-config", str(REPOSITORY / "config" / "gatewayd.yaml"))
    assert (ended.returncode, ended.stderr) == (0, "")
    assert "listens on 127.0.0.1:5683/udp  coap: clients, unprotected; lwm2m: devices" in ended.stdout


def test_systemd_is_told_ready_and_stopping_and_is_fed(
    tmp_path: Path, broker: Broker, monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as notified:
        notified.bind(str(tmp_path / "notify"))
        notified.settimeout(30)
        monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "notify"))
        monkeypatch.setenv("WATCHDOG_USEC", "200000")
        gateway = Gateway(tmp_path, broker_port=broker.port)
        told = b""
        while b"READY=1" not in told or b"WATCHDOG=1" not in told:
            told += notified.recv(4096) + b"\n"
        assert gateway.end() == 0
        while b"STOPPING=1" not in told:
            told += notified.recv(4096) + b"\n"


def test_everything_is_there_after_a_restart(gateway: Gateway, broker: Broker, tmp_path: Path) -> None:
    add_speaker(gateway)
    before = json.loads(gateway.get("/api/models/list")[1])
    gateway.end(signal.SIGKILL)
    again = Gateway(tmp_path, broker_port=broker.port)
    try:
        assert json.loads(again.get("/api/models/list")[1]) == before
        assert infer_raw(again)[0] == 200
    finally:
        again.end()


def test_a_second_daemon_on_the_same_data_is_told_who_has_it(gateway: Gateway, tmp_path: Path) -> None:
    config = tmp_path / "second.yaml"
    config.write_text(f"node: {{name: other, data_dir: {tmp_path / 'data'}}}\nhttp: {{port: 0}}\ncoap: {{port: 0}}\n")
    ended = gatewayd("run", "--config", str(config))
    assert ended.returncode == 1
    assert f"process {gateway.pid}" in ended.stderr
    assert "Traceback" not in ended.stderr


@pytest.mark.parametrize("limit", [1024, 4096])
def test_a_broker_that_takes_small_packets_only_costs_what_is_large(tmp_path: Path, limit: int) -> None:
    broker = Broker(tmp_path, lines=[f"max_packet_size {limit}"])
    broker.start()
    gateway = Gateway(tmp_path, broker_port=broker.port)
    try:
        board = start_board(tmp_path, broker_port=broker.port)
        with client(broker.port) as (mqtt, events):
            events.until("event/device", lambda event: bool(event["online"]))
            assert mqtt.command("status", {})["node"] == "test"
        board.end()
    finally:
        assert gateway.end() == 0
        broker.stop()
