"""Signed manifests and self-tests, from docs/inference-module.md alone: nothing of gatewayd is imported."""

import hashlib
import math
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import cbor2
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

_CODES = ("f", "b", "B", "h", "i", "q", "B")  # FP32 INT8 UINT8 INT16 INT32 INT64 BOOL
_HEADER = bytes.fromhex("d2844da201270448")
_MAX_BYTES = 1024


class Refused(Exception):
    """Why something was not taken."""


@dataclass(frozen=True)
class Tensor:
    """One input or output of a model."""

    code: str
    elements: int
    scale: float
    zero: int
    is_bool: bool

    @property
    def is_float(self) -> bool:
        return self.code == "f"

    @property
    def size(self) -> int:
        return self.elements * struct.calcsize(f"<{self.code}")

    def values(self, content: bytes) -> tuple[Any, ...]:
        return struct.unpack(f"<{len(content) // struct.calcsize(f'<{self.code}')}{self.code}", content)


@dataclass(frozen=True)
class Manifest:
    """What the device knows before the first byte of the artifact."""

    model: str
    version: int
    digest: bytes
    size: int
    encoding: int
    abi: int
    operators: frozenset[str]
    arena: int
    inputs: tuple[Tensor, ...]
    outputs: tuple[Tensor, ...]
    test: tuple[int, bytes, int] | None
    replaces: int
    instead: tuple[str, int] | None = None

    def is_same_content(self, other: "Manifest") -> bool:
        mine, others = ((each.model, each.version, each.digest, each.size, each.encoding) for each in (self, other))
        return mine == others


def trusted(lines: str) -> dict[bytes, bytes]:
    """Return public keys by their ids; `lines` is what `gatewayd keys export` prints."""
    keys = [bytes.fromhex(line.partition("#")[0].strip()) for line in lines.splitlines()]
    return {hashlib.sha256(key).digest()[:8]: key for key in keys}


def read_signed(signed: bytes, keys: Mapping[bytes, bytes]) -> Manifest:
    """Check the signature and read the manifest, in the page's order."""
    if len(signed) > _MAX_BYTES:
        raise Refused("signed manifest of more than 1024 bytes")
    kid, rest = signed[8:16], signed[16:]
    if signed[:8] != _HEADER or rest[:1] != b"\xa0" or rest[-66:-64] != b"\x58\x40":
        raise Refused("not a signed manifest")
    wrapped, signature = rest[1:-66], rest[-64:]
    if kid not in keys:
        raise Refused(f"key {kid.hex()} is not trusted")
    what = b"\x84\x6aSignature1" + signed[2:16] + b"\x40" + wrapped
    try:
        Ed25519PublicKey.from_public_bytes(keys[kid]).verify(signature, what)
    except InvalidSignature:
        raise Refused("signature does not hold") from None
    try:
        content = cbor2.loads(wrapped)
        members = cbor2.loads(content)
        if cbor2.dumps(content) != wrapped or cbor2.dumps(members, canonical=True) != content:
            raise Refused("manifest is not in its deterministic form")
        return _manifest(members)
    except (cbor2.CBORDecodeError, KeyError, IndexError, TypeError, ValueError) as error:
        raise Refused(f"manifest: {type(error).__name__}") from error


def _manifest(members: dict[int, Any]) -> Manifest:
    if members[1] != 1:
        raise Refused("manifest of another format")
    test = members.get(13)
    return Manifest(
        model=members[2],
        version=members[3],
        digest=members[5],
        size=members[6],
        encoding=members[7][0],
        abi=members[8],
        operators=frozenset(members[9]),
        arena=members[10],
        inputs=tuple(map(_tensor, members[11])),
        outputs=tuple(map(_tensor, members[12])),
        test=None if test is None else (test[0], test[1], test[2]),
        replaces=members.get(14, 0),
        instead=None if 15 not in members else (members[15][0], members[15][1]),
    )


def _tensor(row: list[Any]) -> Tensor:
    scale, zero = row[3:5] or (1.0, 0)
    return Tensor(_CODES[row[1]], math.prod(row[2]), scale, zero, row[1] == 6)


def made_inputs(manifest: Manifest, seed: int) -> list[bytes]:
    """Return the self-test's inputs; the page has the generator."""
    return [made(tensor, seed + number) for number, tensor in enumerate(manifest.inputs)]


def made(tensor: Tensor, seed: int) -> bytes:
    """Return one input."""
    is_stream = tensor.code in "bBh" and not tensor.is_bool
    state, stream = seed, bytearray()
    for _ in range(tensor.size if is_stream else tensor.elements):
        state ^= state << 13 & 0xFFFFFFFF
        state ^= state >> 17
        state ^= state << 5 & 0xFFFFFFFF
        stream.append(state & 0xFF)
    if is_stream:
        return bytes(stream)
    signed = struct.unpack(f"{len(stream)}b", stream)
    values = [each / 128 if tensor.is_float else each & 1 for each in signed]
    return struct.pack(f"<{len(values)}{tensor.code}", *values)


def is_expected(manifest: Manifest, output: bytes, expected: bytes, tolerance: int) -> bool:
    """Say whether the first output begins with what was expected."""
    tensor = manifest.outputs[0]
    if len(output) < len(expected):
        return False
    pairs = zip(tensor.values(output[: len(expected)]), tensor.values(expected), strict=True)
    return all(_is_near(tensor, *pair, tolerance) for pair in pairs)


def _is_near(tensor: Tensor, got: float, wanted: float, tolerance: int) -> bool:
    if tensor.is_float:
        return abs(got - wanted) <= tolerance * 0.001 * max(1.0, abs(wanted))
    return abs(got - wanted) <= tolerance
