"""A radio link as a UDP relay: delay, rate and seeded loss between devices and their gateway; NAT and sleep as well.

Devices talk to the relay, the relay talks to the gateway from one socket per device, as a NAT does; every device has its own
two lanes. A datagram waits for its turn, then for its bytes at the link's rate, then for half a round trip. What is lost was
on air, so it counts there. The generator is drawn once per datagram and per device and direction: the same traffic loses the
same. A simulated board has one in its process; `bench/relay.py` is one in a process of its own.
"""

import asyncio
import random
import socket
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field

from gatewayd.sim.conditions import Conditions
from gatewayd.sim.radio import LinkFigures

Address = tuple[str, int]

MOST_FLOWS = 2_000
"""Devices at one time. Protects the process's descriptors; one more is not heard."""
_MOST_DATAGRAM = 65_535
_LARGEST_BLOCK, _HEAD_BYTES = 1024, 28
MOST_WAITING = 512
"""Datagrams on their way in one direction of one flow. Protects memory; one more is lost, as on a radio that is flooded."""


@dataclass(frozen=True, slots=True)
class Link:
    """What a link does to a datagram. `rate_bytes_per_s` 0: no limit. `head_bytes`: what IP, UDP and the radio put before it."""

    name: str
    rtt_s: float
    rate_bytes_per_s: float
    block_bytes: int
    head_bytes: int

    def air_s(self, payload_bytes: int) -> float:
        """Return how long a datagram of this size takes the channel."""
        return (payload_bytes + self.head_bytes) / self.rate_bytes_per_s if self.rate_bytes_per_s else 0.0

    def exchange_s(self, request_bytes: int, answer_bytes: int) -> float:
        """Return what one request and its answer take when nothing is lost."""
        return self.rtt_s + self.air_s(request_bytes) + self.air_s(answer_bytes)


def plain_link(name: str, figures: LinkFigures) -> Link:
    """Return a link with those figures: nothing but IPv4 and UDP before a datagram, blocks as large as they come."""
    return Link(name, figures.rtt_s, figures.goodput_bytes_per_s, _LARGEST_BLOCK, _HEAD_BYTES)


@dataclass(slots=True)
class Tally:
    """What was on air, all devices together; bytes include the heads."""

    datagrams: int = 0
    lost: int = 0
    bytes_down: int = 0
    bytes_up: int = 0


@dataclass(slots=True)
class Lane:
    """One direction of one device's link."""

    link: Link
    loss: float
    seed: str
    conditions: Conditions = field(default_factory=Conditions)
    free_s: float = 0.0
    waiting: int = 0
    _dice: random.Random = field(init=False)

    def __post_init__(self) -> None:
        self._dice = random.Random(self.seed)  # noqa: S311 - a simulation has to repeat itself

    def arrival_s(self, now_s: float, payload_bytes: int) -> float | None:
        """Return when a datagram arrives; None: it does not."""
        self.free_s = max(now_s, self.free_s) + self.link.air_s(payload_bytes) / self.conditions.link
        is_lost = self._dice.random() < self.loss or self.conditions.is_out
        return None if is_lost or self.waiting >= MOST_WAITING else self.free_s + self.link.rtt_s / 2


class _Outside:
    """A device's own socket towards the gateway; read in one go, so that a virtual clock never runs ahead of what is there."""

    def __init__(self, upstream: Address, deliver: Callable[[bytes], None]) -> None:
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._socket.setblocking(False)  # noqa: FBT003 - its only argument
        self._socket.bind(("127.0.0.1", 0))
        self._socket.connect(upstream)
        self._deliver = deliver
        asyncio.get_running_loop().add_reader(self._socket.fileno(), self._readable)

    def send(self, data: bytes) -> None:
        """Send to the gateway; what its socket cannot take is lost."""
        with suppress(OSError):
            self._socket.send(data)

    def close(self) -> None:
        """Close the socket."""
        if self._socket.fileno() >= 0:
            asyncio.get_running_loop().remove_reader(self._socket.fileno())
            self._socket.close()

    def _readable(self) -> None:
        with suppress(OSError):  # nothing more, or nobody listens at the gateway's port
            while self._socket.fileno() >= 0:
                self._deliver(self._socket.recv(_MOST_DATAGRAM))


@dataclass(slots=True)
class _Flow:
    """One device as the gateway sees it."""

    up: Lane
    down: Lane
    outside: _Outside


class Relay(asyncio.DatagramProtocol):
    """The link between many devices and one gateway; see the module. `tally` counts all devices together.

    `sleep_after_s`: devices hear nothing from so long after their last word or the last that they heard, until they speak again.
    """

    def __init__(
        self,
        link: Link,
        *,
        loss: float,
        seed: int,
        upstream: Address,
        sleep_after_s: float | None = None,
        conditions: Conditions | None = None,
    ) -> None:
        self._conditions = conditions or Conditions()
        self.tally = Tally()
        self._sleep_after_s = sleep_after_s
        self._awake_until_s = 0.0
        self._link, self._loss, self._seed, self._upstream = link, loss, seed, upstream
        self._flows: dict[Address, _Flow] = {}
        self._number = 0
        self._inside: asyncio.DatagramTransport | None = None

    async def open(self, port: int = 0) -> int:
        """Listen for devices on 127.0.0.1; return the port."""
        loop = asyncio.get_running_loop()
        self._inside, _ = await loop.create_datagram_endpoint(lambda: self, local_addr=("127.0.0.1", port))
        return int(self._inside.get_extra_info("sockname")[1])

    def rebind(self) -> None:
        """Forget all mappings, as a NAT that restarted: every device gets a new address towards the gateway."""
        for flow in self._flows.values():
            flow.outside.close()
        self._flows.clear()

    def close(self) -> None:
        """Close every socket."""
        self.rebind()
        if self._inside is not None:
            self._inside.close()

    def datagram_received(self, data: bytes, addr: Address) -> None:
        """Take a device's datagram."""
        flow = self._flows.get(addr) or self._opened(addr)
        self._stay_awake()
        if flow is not None:
            self.tally.bytes_up += len(data) + self._link.head_bytes
            self._carry(flow.up, data, flow.outside.send)

    def _opened(self, device: Address) -> _Flow | None:
        if len(self._flows) >= MOST_FLOWS:
            return None
        keys = [f"{self._seed}/{self._number}/{way}" for way in ("up", "down")]
        self._number += 1
        up, down = (Lane(self._link, self._loss, key, self._conditions) for key in keys)
        outside = _Outside(self._upstream, lambda data: self._from_gateway(down, data, device))
        flow = self._flows[device] = _Flow(up, down, outside)
        return flow

    def _from_gateway(self, lane: Lane, data: bytes, device: Address) -> None:
        self.tally.bytes_down += len(data) + self._link.head_bytes
        self._carry(lane, data, lambda content: self._to_device(content, device))

    def _carry(self, lane: Lane, data: bytes, deliver: Callable[[bytes], None]) -> None:
        loop = asyncio.get_running_loop()
        now_s = loop.time()
        self.tally.datagrams += 1
        arrival_s = lane.arrival_s(now_s, len(data))
        if arrival_s is None:
            self.tally.lost += 1
        elif arrival_s <= now_s:
            deliver(data)
        else:
            lane.waiting += 1
            loop.call_at(arrival_s, self._arrive, lane, deliver, data)

    @staticmethod
    def _arrive(lane: Lane, deliver: Callable[[bytes], None], data: bytes) -> None:
        lane.waiting -= 1
        deliver(data)

    def _to_device(self, data: bytes, device: Address) -> None:
        if self._is_asleep():
            self.tally.lost += 1
        elif self._inside is not None and not self._inside.is_closing():
            self._stay_awake()
            self._inside.sendto(data, device)

    def _is_asleep(self) -> bool:
        return self._sleep_after_s is not None and asyncio.get_running_loop().time() > self._awake_until_s

    def _stay_awake(self) -> None:
        if self._sleep_after_s is not None:
            self._awake_until_s = asyncio.get_running_loop().time() + self._sleep_after_s
