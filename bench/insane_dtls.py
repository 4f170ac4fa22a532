"""Malformed DTLS datagrams by number: real flights of a handshake, and data of an association, damaged in ten ways.

    datagram(recorded, number, seed) -> (family, content)

`recorded` are the datagrams that a client really sent, so that what is damaged is what a server would have taken.
"""

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from mbedtls import exceptions, tls

CIPHERS = ("TLS-PSK-WITH-AES-128-CCM-8",)
HANDSHAKE, DATA = 22, 23
_HEAD = 13


class Client:
    """A DTLS client without a socket: feed it what comes, take what goes out."""

    def __init__(self, identity: str, key: bytes) -> None:
        configuration = tls.DTLSConfiguration(
            ciphers=CIPHERS, pre_shared_key=(identity, key), validate_certificates=False
        )
        self._buffer: Any = tls.ClientContext(configuration).wrap_buffers(None)

    @property
    def is_over(self) -> bool:
        """Whether the handshake is."""
        return bool(self._buffer._handshake_state is tls.HandshakeStep.HANDSHAKE_OVER)  # noqa: SLF001 - no public name

    def step(self, *heard: bytes) -> list[bytes]:
        """Take datagrams, go on with the handshake, return what goes out."""
        for each in heard:
            self._buffer.receive_from_network(each)
        out: list[bytes] = []
        while not self.is_over:
            try:
                self._buffer.do_handshake()
            except tls.WantWriteError:
                out += self._outgoing()
            except tls.WantReadError:
                break
        return out + self._outgoing()

    def seal(self, content: bytes) -> bytes:
        """Return data under the association."""
        self._buffer.write(content)
        (sealed,) = self._outgoing()
        return sealed

    def farewell(self) -> bytes:
        """End the association; return what says so."""
        self._buffer.shutdown()
        (told,) = self._outgoing()
        return told

    def is_told(self, datagram: bytes) -> bool:
        """Tell whether a datagram ends the association."""
        self._buffer.receive_from_network(datagram)
        try:
            self._buffer.read(4096)
        except (tls.WantReadError, tls.WantWriteError):
            return False
        except exceptions.TLSError:
            return True
        return False

    def open(self, datagram: bytes) -> list[bytes]:
        """Return what was said in a datagram under the association."""
        self._buffer.receive_from_network(datagram)
        try:
            return [bytes(self._buffer.read(4096))]
        except (tls.WantReadError, tls.WantWriteError):
            return []

    def _outgoing(self) -> list[bytes]:
        content = bytes(self._buffer.peek_outgoing(16_384))
        self._buffer.consume_outgoing(len(content))
        return [content] if content else []


@dataclass(frozen=True)
class Recorded:
    """What a client sent: its flights, and data under the association."""

    flights: tuple[bytes, ...]
    data: tuple[bytes, ...]


def record(receive: Callable[[bytes], Sequence[bytes]], identity: str, key: bytes) -> tuple[Client, Recorded]:
    """Make a handshake with a server (`receive` gives its answers); return the client and what it sent."""
    client, flights = Client(identity, key), []
    pending = client.step()
    while pending:
        flights += pending
        heard = [answer for each in pending for answer in receive(each)]
        pending = client.step(*heard)
    if not client.is_over:
        raise RuntimeError("the handshake did not come to its end")
    return client, Recorded(tuple(flights), tuple(client.seal(bytes([number]) * 40) for number in range(4)))


def _flipped(content: bytes, rng: random.Random) -> bytes:
    damaged = bytearray(content)
    for _ in range(rng.randint(1, 8)):
        damaged[rng.randrange(len(damaged))] ^= 1 << rng.randrange(8)
    return bytes(damaged)


def _cut(content: bytes, rng: random.Random) -> bytes:
    return content[: rng.randrange(len(content))]


def _grown(content: bytes, rng: random.Random) -> bytes:
    return content + rng.randbytes(rng.randint(1, 1400))


def _as_it_was(content: bytes, rng: random.Random) -> bytes:  # noqa: ARG001 - a way of damaging
    return content


def _twice(content: bytes, rng: random.Random) -> bytes:  # noqa: ARG001 - as above
    return content + content


def _numbered_otherwise(content: bytes, rng: random.Random) -> bytes:
    return content[:3] + rng.randbytes(8) + content[11:]


def _of_another_kind(content: bytes, rng: random.Random) -> bytes:
    return bytes([rng.choice((20, 21, 22, 23, 24, 25, rng.randrange(256)))]) + content[1:]


def _promising(content: bytes, rng: random.Random) -> bytes:
    return content[:11] + rng.choice((b"\xff\xff", b"\x00\x00", rng.randbytes(2))) + content[13:]


def _spliced(content: bytes, rng: random.Random) -> bytes:
    return content[: rng.randrange(len(content))] + content[rng.randrange(len(content)) :]


def _noise(content: bytes, rng: random.Random) -> bytes:
    return rng.randbytes(len(content))


FAMILIES: dict[str, Callable[[bytes, random.Random], bytes]] = {
    "replayed": _as_it_was,
    "bits flipped": _flipped,
    "cut": _cut,
    "grown": _grown,
    "twice": _twice,
    "numbered otherwise": _numbered_otherwise,
    "of another kind": _of_another_kind,
    "wrong length": _promising,
    "spliced": _spliced,
    "noise": _noise,
}


def datagram(recorded: Recorded, number: int, seed: int) -> tuple[str, bytes]:
    """Return the family and the content of one; the same number and seed give the same."""
    rng = random.Random(f"{seed}/{number}")
    family = list(FAMILIES)[number % len(FAMILIES)]
    return family, FAMILIES[family](rng.choice((*recorded.flights, *recorded.data)), rng)
