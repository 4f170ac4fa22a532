"""The embedded broker, for real: what gatewayd needs of it on both versions, how it starts, dies and ends."""

import asyncio
import os
import select
import signal
import socket
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from gatewayd.adapters.embedded_broker import BrokerDied, BrokerMissing, EmbeddedBroker, Restarts, embedded_broker
from gatewayd.wire.mqtt import Message
from tests.mqtt_client import Client, options, running

pytest.importorskip("iotcore", reason="the embedded broker needs the package iotcore")

# CONNECT of MQTT 3.1.1: clean session, keepalive 30 s, client id "dev", retained QoS 1 will "gone" on "dev/status".
BIRTH = (
    b"\x10\x21\x00\x04MQTT\x04\x2e\x00\x1e"
    b"\x00\x03dev"
    b"\x00\x0adev/status"
    b"\x00\x04gone"
)  # fmt: skip


@pytest.fixture
async def broker(tmp_path: Path) -> AsyncIterator[EmbeddedBroker]:
    async with embedded_broker(state_dir=tmp_path) as running_broker:
        yield running_broker


def clients(broker: EmbeddedBroker) -> tuple[Client, Client]:
    """One of each version: 3.1.1, 5."""
    return (
        Client(options(broker.port, version="3.1.1", name="old")),
        Client(options(broker.port_v5, version="5", name="new")),
    )


async def test_messages_cross_between_the_versions(broker: EmbeddedBroker) -> None:
    old, new = clients(broker)
    at_old, at_new = old.inbox("a/#"), new.inbox("a/#")
    async with running(old, new):
        for sender in (old, new):
            for content in (b"small", b"x" * 100_000, b"y" * 1_000_000):
                sender.publish(Message("a/b", content, qos=1))
                assert (await at_old.next()).payload == content
                assert (await at_new.next()).payload == content


async def test_retained_messages_reach_later_subscribers_of_both(broker: EmbeddedBroker) -> None:
    old, new = clients(broker)
    async with running(old, new):
        old.publish(Message("from/old", b"1", qos=1, retain=True))
        new.publish(Message("from/new", b"2", qos=1, retain=True))
        for reader in (old, new):
            box = reader.inbox("from/+")
            received = [await box.next(), await box.next()]
            assert {(message.topic, message.payload) for message in received} == {
                ("from/old", b"1"),
                ("from/new", b"2"),
            }


async def test_a_will_is_said_and_retained(broker: EmbeddedBroker) -> None:
    _, new = clients(broker)
    box = new.inbox("dev/status")
    async with running(new):
        with socket.create_connection(("127.0.0.1", broker.port), timeout=5) as device:
            device.sendall(BIRTH)
            connack = await asyncio.to_thread(device.recv, 4)
        assert connack == b"\x20\x02\x00\x00"
        assert (await box.next()).payload == b"gone"
        later = new.inbox("dev/+")
        assert (await later.next()).retain


async def test_requests_keep_their_properties_on_5(broker: EmbeddedBroker) -> None:
    _, new = clients(broker)
    box = new.inbox("ask")
    request = Message(
        "ask", b"?", qos=1, content_type="application/json", response_topic="reply/1", correlation=b"\0\xff"
    )
    async with running(new):
        new.publish(request)
        assert await box.next() == request


async def test_a_panic_is_noticed_and_mended(broker: EmbeddedBroker, caplog: pytest.LogCaptureFixture) -> None:
    # A property that reaches a 3.1.1 client ends that listener: the day this fails, the broker has been mended itself.
    old, new = clients(broker)
    box = old.inbox("a")
    async with asyncio.TaskGroup() as tasks:
        keeper = tasks.create_task(broker.keep(), name="keeper")
        async with running(old, new):
            new.publish(Message("a", b"poison", content_type="text/plain"))
            await old.stands()
            await new.stands()
            new.publish(Message("a", b"fine", qos=1))
            assert (await box.next()).payload == b"fine"
        keeper.cancel()
    (told,) = [each.getMessage() for each in caplog.records if "embedded broker died" in each.message]
    assert f"`mosquitto_sub -V 5 -p {broker.port_v5} -t 'gatewayd/#' -v`" in told
    assert f"never subscribe to '#' on port {broker.port}" in told
    assert ".rs" not in told


async def test_one_that_dies_too_often_is_given_up(broker: EmbeddedBroker, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gatewayd.adapters.embedded_broker.MAX_RESTARTS", 0)
    await broker.stop()
    with pytest.raises(BrokerDied, match="died 1 times in 10 minutes: not running"):
        await broker.keep()


def test_restarts_count_within_their_window_only() -> None:
    restarts = Restarts(2, window_s=600)
    assert [restarts.spend(at_s) for at_s in (0, 100, 200, 500)] == [1, 2, 0, 0]
    restarts = Restarts(2, window_s=600)
    assert [restarts.spend(at_s) for at_s in range(0, 10_000, 400)] == [1, *[2] * 24]


async def test_a_killed_broker_is_started_again(broker: EmbeddedBroker) -> None:
    _, new = clients(broker)
    async with asyncio.TaskGroup() as tasks:
        keeper = tasks.create_task(broker.keep(), name="keeper")
        async with running(new):
            os.kill(child_of(os.getpid()), signal.SIGKILL)
            await new.stands()
        keeper.cancel()


async def test_nothing_is_left_behind(tmp_path: Path) -> None:
    async with embedded_broker(state_dir=tmp_path) as broker:
        child = child_of(os.getpid())
        ports = (broker.port, broker.port_v5)
    with pytest.raises(ProcessLookupError):
        os.kill(child, 0)
    for port in ports:
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(("127.0.0.1", port))


OWNER = """
import asyncio, pathlib, sys
from gatewayd.adapters.embedded_broker import embedded_broker
async def main():
    async with embedded_broker(state_dir=pathlib.Path(sys.argv[1])) as broker:
        print("listening", flush=True)
        await asyncio.Event().wait()
asyncio.run(main())
"""


def test_it_goes_with_an_owner_that_is_killed(tmp_path: Path) -> None:
    root = Path(__file__).parents[2]
    with subprocess.Popen([sys.executable, "-c", OWNER, str(tmp_path)], stdout=subprocess.PIPE, cwd=root) as owner:
        assert owner.stdout is not None
        owner.stdout.readline()
        ended = os.pidfd_open(child_of(owner.pid))
        owner.kill()
        readable, _, _ = select.select([ended], [], [], 10)
        os.close(ended)
    assert readable == [ended]


@pytest.mark.usefixtures("broker")
async def test_a_signal_from_the_terminal_does_not_reach_it() -> None:
    assert os.getpgid(child_of(os.getpid())) != os.getpgid(0)


async def test_it_listens_on_loopback_only(broker: EmbeddedBroker) -> None:
    for port in (broker.port, broker.port_v5):
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(("127.0.0.2", port))


async def test_a_port_in_use_is_named(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(BrokerMissing, match=f"port {port} cannot be had for the embedded broker"):
            async with embedded_broker(port=port, state_dir=tmp_path):
                pass


def child_of(owner: int) -> int:
    """Return the process id of the owner's broker, from the kernel's table of children."""
    children = Path(f"/proc/{owner}/task/{owner}/children").read_text().split()
    (broker,) = [pid for pid in children if "iotcore" in Path(f"/proc/{pid}/cmdline").read_text()]
    return int(broker)
