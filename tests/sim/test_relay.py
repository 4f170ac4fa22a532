"""The radio as a UDP relay: what arrives when, what is lost, sleep, and a NAT that forgets."""

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from gatewayd.sim.conditions import Conditions
from gatewayd.sim.relay import MOST_WAITING, Lane, Link, Relay

PATIENCE_S = 5.0
SLOW = Link("slow", rtt_s=0.2, rate_bytes_per_s=1000, block_bytes=64, head_bytes=10)
FAST = Link("fast", 0.0, 0.0, 1024, 28)


class Peer(asyncio.DatagramProtocol):
    """A socket that keeps what it heard."""

    def __init__(self) -> None:
        self.heard: asyncio.Queue[tuple[bytes, tuple[str, int]]] = asyncio.Queue()
        self.transport: asyncio.DatagramTransport | None = None

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        self.heard.put_nowait((data, addr))

    def send(self, data: bytes, to: tuple[str, int]) -> None:
        assert self.transport is not None
        self.transport.sendto(data, to)

    @property
    def address(self) -> tuple[str, int]:
        assert self.transport is not None
        host, port = self.transport.get_extra_info("sockname")[:2]
        return host, port


@asynccontextmanager
async def between(link: Link, **options: float | None) -> AsyncIterator[tuple[Relay, Peer, Peer, tuple[str, int]]]:
    """A relay, a gateway, a device, and where the device sends to."""
    loop = asyncio.get_running_loop()
    gateway, device = Peer(), Peer()
    for peer in (gateway, device):
        peer.transport, _ = await loop.create_datagram_endpoint(lambda peer=peer: peer, local_addr=("127.0.0.1", 0))  # type: ignore[misc] # a default binds it
    loss, sleep_after_s = options.get("loss") or 0.0, options.get("sleep_after_s")
    relay = Relay(link, loss=loss, seed=1, upstream=gateway.address, sleep_after_s=sleep_after_s)
    try:
        async with asyncio.timeout(PATIENCE_S):
            yield relay, gateway, device, ("127.0.0.1", await relay.open())
    finally:
        relay.close()
        for peer in (gateway, device):
            assert peer.transport is not None
            peer.transport.close()


def test_a_lane_carries_one_datagram_at_a_time() -> None:
    lane = Lane(SLOW, 0.0, "1")
    assert lane.arrival_s(0.0, 90) == pytest.approx(0.1 + 0.1)
    assert lane.arrival_s(0.0, 90) == pytest.approx(0.2 + 0.1)
    assert lane.arrival_s(9.0, 90) == pytest.approx(9.1 + 0.1)
    assert SLOW.exchange_s(90, 40) == pytest.approx(0.2 + 0.1 + 0.05)


def test_the_same_traffic_loses_the_same() -> None:
    def lost(seed: str) -> list[bool]:
        lane = Lane(SLOW, 0.3, seed)
        return [lane.arrival_s(0.0, 10) is None for _ in range(200)]

    assert lost("1") == lost("1") != lost("2")
    assert 30 <= sum(lost("1")) <= 90


def test_a_lane_in_an_outage_loses_all_and_a_disturbed_one_is_slow() -> None:
    conditions = Conditions(link=0.5)
    lane = Lane(SLOW, 0.0, "1", conditions)
    assert lane.arrival_s(0.0, 90) == pytest.approx(0.2 + 0.1)
    conditions.is_out = True
    assert lane.arrival_s(9.0, 90) is None


def test_a_lane_that_is_flooded_loses() -> None:
    lane = Lane(SLOW, 0.0, "1")
    lane.waiting = MOST_WAITING
    assert lane.arrival_s(0.0, 1) is None


async def test_both_ways_and_what_was_on_air() -> None:
    async with between(FAST) as (relay, gateway, device, there):
        device.send(b"up", there)
        data, outside = await gateway.heard.get()
        gateway.send(b"down", outside)
        assert data == b"up"
        assert (await device.heard.get())[0] == b"down"
        assert (relay.tally.bytes_up, relay.tally.bytes_down, relay.tally.datagrams) == (30, 32, 2)


async def test_a_nat_that_forgets_gives_a_new_address() -> None:
    async with between(FAST) as (relay, gateway, device, there):
        device.send(b"1", there)
        _, first = await gateway.heard.get()
        relay.rebind()
        gateway.send(b"lost", first)
        device.send(b"2", there)
        _, second = await gateway.heard.get()
        gateway.send(b"found", second)
        assert first != second
        assert (await device.heard.get())[0] == b"found"


async def test_a_sleeping_device_hears_only_after_it_spoke() -> None:
    async with between(FAST, sleep_after_s=-1.0) as (relay, gateway, device, there):
        device.send(b"1", there)
        _, outside = await gateway.heard.get()
        gateway.send(b"unheard", outside)
        device.send(b"2", there)
        await gateway.heard.get()
        assert device.heard.empty()
        assert relay.tally.lost == 1
    async with between(FAST, sleep_after_s=60.0) as (_, gateway, device, there):
        device.send(b"1", there)
        gateway.send(b"heard", (await gateway.heard.get())[1])
        assert (await device.heard.get())[0] == b"heard"


async def test_a_gateway_that_is_not_there_is_silence() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.bind(("127.0.0.1", 0))
        nobody = probe.getsockname()
    relay = Relay(FAST, loss=0.0, seed=1, upstream=nobody)
    async with between(FAST) as (_, gateway, device, _there):
        port = await relay.open()
        for _ in range(3):
            device.send(b"anybody?", ("127.0.0.1", port))
        device.send(b"x", gateway.address)
        await gateway.heard.get()
        relay.close()
    assert relay.tally.lost == 0
