"""A proxy between gatewayd and its broker that duplicates, drops, half-opens and resets, and writes down what it saw.

It understands as much MQTT as that takes: packets, packet identifiers, and the names of commands (`cmd-1`) anywhere in them.
"""

import asyncio
import random
import re
import socket
import struct
import time
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field

PUBLISH, PUBACK, SUBACK = 3, 4, 9
_DUPLICATE = 0x08
_NAME = re.compile(rb"cmd-[0-9]+")
_MAX_LENGTH_BYTES = 4


@dataclass(slots=True)
class Faults:
    """Shares of packets, and seconds between what happens to a whole connection. `is_quiet`: nothing happens now."""

    duplicated: float = 0.05
    dropped: float = 0.005
    reset_every_s: float = 4.0
    half_open_every_s: float = 25.0
    half_open_s: float = 3.0
    is_quiet: bool = False


@dataclass(slots=True)
class Seen:
    """What went through: commands whose acknowledgement left the gateway, refusals it sent, when subscriptions stood."""

    acknowledged: set[bytes] = field(default_factory=set)
    refused: set[bytes] = field(default_factory=set)
    subscribed_at: list[float] = field(default_factory=list)
    counts: Counter[str] = field(default_factory=Counter)


@dataclass(slots=True, eq=False)
class _Pair:
    """One connection of the gateway with its counterpart to the broker."""

    down: asyncio.StreamWriter
    up: asyncio.StreamWriter
    names: dict[bytes, bytes] = field(default_factory=dict)
    is_stuck: bool = False
    subacks: int = 0


class Proxy:
    """Listens on `port` (given out at the start) and speaks to the broker at `broker_port`."""

    def __init__(self, broker_port: int, *, seed: int, faults: Faults | None = None) -> None:
        self.port = 0
        self.faults = faults or Faults()
        self.seen = Seen()
        self._broker_port = broker_port
        self._random = random.Random(seed)
        self._pairs: set[_Pair] = set()

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Serve inside the block."""
        server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.port = server.sockets[0].getsockname()[1]
        async with server:
            yield
            for pair in tuple(self._pairs):
                _reset(pair)
            while self._pairs:  # noqa: ASYNC110 - their tasks end by themselves
                await asyncio.sleep(0.01)

    def subscriptions(self) -> int:
        """Return how many subscriptions stand on the connections that are open now."""
        return sum(pair.subacks for pair in self._pairs if not pair.is_stuck)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            back, forth = await asyncio.open_connection("127.0.0.1", self._broker_port)
        except OSError:
            writer.close()
            return
        pair = _Pair(writer, forth)
        self._pairs.add(pair)
        with suppress(OSError, asyncio.IncompleteReadError):
            async with asyncio.TaskGroup() as group:
                ways = [
                    group.create_task(self._carry(reader, pair, is_up=True), name="up"),
                    group.create_task(self._carry(back, pair, is_up=False), name="down"),
                ]
                trouble = group.create_task(self._trouble(pair), name="trouble")
                await asyncio.wait([*ways, trouble], return_when=asyncio.FIRST_COMPLETED)
                for each in (*ways, trouble):
                    each.cancel()
        self._pairs.discard(pair)
        _reset(pair)

    async def _carry(self, reader: asyncio.StreamReader, pair: _Pair, *, is_up: bool) -> None:
        writer = pair.up if is_up else pair.down
        with suppress(OSError, asyncio.IncompleteReadError):
            while True:
                packet = await _packet(reader)
                if pair.is_stuck:
                    continue
                for each in self._treated(packet, pair, is_up=is_up):
                    self._note(each, pair, is_up=is_up)
                    writer.write(each)
                await writer.drain()

    def _treated(self, packet: bytes, pair: _Pair, *, is_up: bool) -> list[bytes]:
        """Return what becomes of a packet: nothing, itself, or itself twice."""
        kind = packet[0] >> 4
        if kind == PUBLISH and is_up and b'"error"' in packet:
            # What was refused was not lost, even if the refusal is.
            self.seen.refused.update(_NAME.findall(packet))
        if self.faults.is_quiet or kind not in {PUBLISH, PUBACK} or not pair.subacks:
            return [packet]
        chance = self._random.random()
        if chance < self.faults.dropped:
            self.seen.counts["dropped"] += 1
            return []
        if kind == PUBLISH and chance < self.faults.dropped + self.faults.duplicated:
            self.seen.counts["duplicated"] += 1
            return [packet, bytes([packet[0] | (_DUPLICATE if packet[0] & 0x06 else 0)]) + packet[1:]]
        return [packet]

    def _note(self, packet: bytes, pair: _Pair, *, is_up: bool) -> None:
        kind = packet[0] >> 4
        if kind == PUBLISH and not is_up and packet[0] & 0x06:
            name = _NAME.search(packet)
            if name is not None:
                pair.names[_identifier(packet)] = name[0]
        elif kind == PUBACK and is_up:
            name_there = pair.names.pop(packet[2:4], None)
            if name_there is not None:
                self.seen.acknowledged.add(name_there)
        elif kind == SUBACK and not is_up:
            pair.subacks += 1
            self.seen.subscribed_at.append(time.monotonic())

    async def _trouble(self, pair: _Pair) -> None:
        """Break the connection some time."""
        reset_s = self._random.expovariate(1 / self.faults.reset_every_s)
        stuck_s = self._random.expovariate(1 / self.faults.half_open_every_s)
        await asyncio.sleep(min(reset_s, stuck_s))
        while self.faults.is_quiet:  # noqa: ASYNC110 - seconds, and there is nothing to wait on
            await asyncio.sleep(0.1)
        if stuck_s < reset_s:
            self.seen.counts["half_open"] += 1
            pair.is_stuck = True
            await asyncio.sleep(self._random.random() * 2 * self.faults.half_open_s)
        self.seen.counts["reset"] += 1


def _reset(pair: _Pair) -> None:
    """Close both ways without a word (RST instead of FIN)."""
    for writer in (pair.down, pair.up):
        sock = writer.get_extra_info("socket")
        with suppress(OSError):
            if sock is not None and sock.fileno() >= 0:
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        writer.transport.abort()


async def _packet(reader: asyncio.StreamReader) -> bytes:
    """Return the next packet. Source: MQTT 5.0 §2.1 (fixed header, remaining length)."""
    head = await reader.readexactly(2)
    length, shift = head[1] & 0x7F, 7
    while head[-1] & 0x80 and len(head) <= _MAX_LENGTH_BYTES:
        head += await reader.readexactly(1)
        length |= (head[-1] & 0x7F) << shift
        shift += 7
    return head + (await reader.readexactly(length) if length else b"")


def _identifier(packet: bytes) -> bytes:
    """Return a PUBLISH's packet identifier."""
    start = 2
    while packet[start - 1] & 0x80:
        start += 1
    topic_bytes = int.from_bytes(packet[start : start + 2])
    return packet[start + 2 + topic_bytes : start + 4 + topic_bytes]
