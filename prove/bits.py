"""`make prove-bits`: one bit flipped, anywhere in a manifest, its signature, an artifact or its stream, is refused at both ends.

Every bit of the signed manifest, of a small artifact and of its stream goes through the real code of gateway and device; every
bit of a 54 KB artifact through the digest that both compare. An older version is refused at both ends, too.
"""

import argparse
import asyncio
import hashlib
import sys
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace

from bench.common import Report
from gatewayd.core.compression import Decoder, inflated
from gatewayd.core.errors import BadRequest, NodeError, NotFound
from gatewayd.core.model import Place, Signature, Structure, Variant, Verdict, Version
from gatewayd.core.module import Manifest
from gatewayd.core.names import Digest, PushId
from gatewayd.core.tensor import DType, TensorSpec
from gatewayd.services.keeping import Keeper
from gatewayd.services.modules import Modules
from gatewayd.wire import agent_terms as terms
from gatewayd.wire import mqttdevice as wire
from gatewayd.wire.manifest import read_manifest, sign_manifest
from prove.device import MODEL, Device, Geometry, digest_of
from prove.gateway import KEYS
from prove.keys import KEY
from prove.models import MODEL_BYTES, NEW, OLD, Artifact, artifact_of, content_of

SMALL_BYTES = 600
PLAIN = Geometry(page_bytes=256, chunk_bytes=256, slot_bytes=2048)
PACKED = replace(PLAIN, deflate_bits=10)


class Disk:
    """Artifacts in memory, whose bytes change when they are told to; a digest names what was put there."""

    def __init__(self) -> None:
        self.held: dict[Digest, bytes] = {}

    async def put(self, content: bytes) -> Digest:
        """See `Artifacts`."""
        self.held[digest_of(content)] = content
        return digest_of(content)

    async def remove(self, digest: Digest) -> None:
        """See `Artifacts`."""
        self.held.pop(digest, None)

    async def has(self, digest: Digest) -> bool:
        """See `Artifacts`."""
        return digest in self.held

    async def digests(self) -> Mapping[Digest, int]:
        """See `Artifacts`."""
        return {digest: len(content) for digest, content in self.held.items()}

    async def read(self, digest: Digest, offset: int, length: int) -> bytes:
        """See `Artifacts`."""
        if digest not in self.held:
            raise NotFound(f"no artifact {digest}")
        return self.held[digest][offset : offset + length]


class Signer:
    """Signs with everybody's key."""

    def sign(self, manifest: Manifest) -> bytes:
        """See `Signer`."""
        return sign_manifest(manifest, KEY)

    def read(self, signed: bytes) -> Manifest:
        """See `Signer`."""
        return read_manifest(signed, KEYS)


def flips(content: bytes, *, every: int = 1) -> Iterator[tuple[int, bytes]]:
    """Yield (bit, content with that bit flipped), each `every`-th."""
    for bit in range(0, 8 * len(content), every):
        changed = bytearray(content)
        changed[bit // 8] ^= 1 << bit % 8
        yield bit, bytes(changed)


def manifest_faults(artifact: Artifact, *, every: int = 1) -> Iterator[str]:
    """Flip the signed manifest: the gateway does not read it, the device rejects it and changes nothing."""
    for bit, flipped in flips(artifact.signed, every=every):
        try:
            read_manifest(flipped, KEYS)
        except BadRequest:
            yield ""
        else:
            yield f"bit {bit} of the manifest: the gateway reads it"
        said: list[terms.Publish] = []
        device = _connected(PLAIN, said)
        before = bytes(device.cells.content)
        device.hand_in(terms.MessageReceived("offer", wire.encode_offer(PushId(1), flipped)), 0)
        is_well = b"rejected" in said[-1].payload and bytes(device.cells.content) == before
        yield "" if is_well else f"bit {bit} of the manifest: the device took it"


def device_faults(geometry: Geometry, artifact: Artifact, *, every: int = 1) -> Iterator[str]:
    """Flip what is sent: the device never calls it verified, holds no model, and decodes no stream."""
    for bit, flipped in flips(artifact.stream, every=every):
        said: list[terms.Publish] = []
        device = _connected(geometry, said)
        device.hand_in(terms.MessageReceived("offer", wire.encode_offer(PushId(1), artifact.signed)), 0)
        for at in range(0, len(flipped), geometry.chunk_bytes):
            chunk = wire.encode_chunk(PushId(1), at, flipped[at : at + geometry.chunk_bytes])
            device.hand_in(terms.MessageReceived("chunk", chunk), 0)
        is_dropped = b"differs" in said[-1].payload and not device.unpackings
        is_well = is_dropped and not device.models() and all(b"verified" not in each.payload for each in said)
        yield (
            ""
            if is_well
            else f"bit {bit} of the {'stream' if geometry.deflate_bits else 'artifact'}: the device took it"
        )


def gateway_faults(content: bytes, *, every: int = 1) -> list[str]:
    """Flip what is on the gateway's disk: a damaged artifact is not offered, a damaged stream is made anew."""
    return asyncio.run(_gateway_faults(content, every))


async def _gateway_faults(content: bytes, every: int) -> list[str]:
    disk, found = Disk(), []
    offers = _Offers(disk, _variant(await disk.put(content), len(content)))
    stream = await offers.stream(PACKED.deflate_bits)
    for bit, flipped in flips(disk.held[stream], every=every):
        disk.held[stream] = flipped
        again = disk.held[await offers.stream(PACKED.deflate_bits)]
        is_whole = inflated(again, PACKED.deflate_bits or 15, len(content)) == content
        found.append("" if is_whole else f"bit {bit} of the stream on the disk: it was offered")
    for bit, flipped in flips(content, every=every):
        disk.held[offers.variant.digest] = flipped
        try:
            await offers.stream(None)
        except NodeError:
            found.append("")
        else:
            found.append(f"bit {bit} of the artifact on the disk: it was offered")
    return found


class _Offers:
    """What the gateway makes before it offers: the real service on a disk that changes."""

    def __init__(self, disk: Disk, variant: Variant) -> None:
        self.variant = variant
        self._keeper = Keeper(disk)
        self._modules = Modules(disk, Signer(), self._keeper)
        self._version = Version(MODEL, NEW, Signature((), ()), (variant,), 0.0)

    async def stream(self, bits: int | None) -> Digest:
        """Return the digest of what would be sent. Raises: NodeError."""
        decoder = None if bits is None else Decoder(bits, PACKED.slot_bytes, PACKED.page_bytes)
        with self._keeper.holding() as hold:
            module = await self._modules.make(self._version, self.variant, hold, decoder=decoder)
        return module.stream


def digest_faults(first: int, last: int) -> int:
    """Return how many flips of bytes `first`..`last` of the big artifact leave its digest as it is."""
    content = content_of(NEW, MODEL_BYTES)
    right, same = hashlib.sha256(content).digest(), 0
    for index in range(first, last):
        before, rest = hashlib.sha256(content[:index]), content[index + 1 :]
        for bit in range(8):
            found = before.copy()
            found.update(bytes([content[index] ^ (1 << bit)]))
            found.update(rest)
            same += found.digest() == right
    return same


def sequence_faults() -> Iterator[str]:
    """An older version: the device rejects it; that the gateway does is `tests/services/test_pushes.py`."""
    said: list[terms.Publish] = []
    device = _connected(PLAIN, said)
    for version in (NEW, OLD):
        artifact = artifact_of(version, content_of(version, SMALL_BYTES))
        device.hand_in(terms.MessageReceived("offer", wire.encode_offer(PushId(version), artifact.signed)), 0)
        for at in range(0, SMALL_BYTES, PLAIN.chunk_bytes):
            chunk = wire.encode_chunk(PushId(version), at, artifact.stream[at : at + PLAIN.chunk_bytes])
            device.hand_in(terms.MessageReceived("chunk", chunk), 0)
        device.hand_in(terms.MessageReceived("activate", wire.encode_activate(PushId(version))), 0)
        device.hand_in(terms.MessageReceived("accept", wire.encode_accept(PushId(version))), 0)
    yield "" if b"rejected" in said[-1].payload else "an older version was not rejected"


def small_faults(*, every: int = 1) -> Iterator[str]:
    """All but the big artifact."""
    content = content_of(NEW, SMALL_BYTES, is_dense=False)
    plain, packed = artifact_of(NEW, content), artifact_of(NEW, content, deflate_bits=PACKED.deflate_bits)
    for artifact in (plain, packed):
        yield from manifest_faults(artifact, every=every)
    yield from device_faults(PLAIN, plain, every=every)
    yield from device_faults(PACKED, packed, every=every)
    yield from gateway_faults(content, every=every)
    yield from sequence_faults()


def main(argv: Sequence[str] | None = None) -> int:
    """Flip every bit; exit 1 when one is taken."""
    argparse.ArgumentParser(description=__doc__).parse_args(argv)
    found = list(small_faults())
    wrong = [fault for fault in found if fault]
    for fault in wrong[:10]:
        print(f"FAULT {fault}")
    step = 256
    starts = range(0, MODEL_BYTES, step)
    with ProcessPoolExecutor() as pool:
        ends = (min(start + step, MODEL_BYTES) for start in starts)
        same = sum(pool.map(digest_faults, starts, ends))
    report = Report("bits")
    report.add("flips_through_gateway_and_device", len(found))
    report.add("taken", len(wrong), ("==", 0))
    report.add("flips_of_a_54_kb_artifact", 8 * MODEL_BYTES)
    report.add("with_the_same_digest", same, ("==", 0))
    return 0 if report.finish() else 1


def _connected(geometry: Geometry, said: list[terms.Publish]) -> Device:
    device = Device(geometry, KEYS, said.append)
    device.power_on(0)
    device.hand_in(terms.Connected(), 0)
    return device


def _variant(digest: Digest, size_bytes: int) -> Variant:
    spec = TensorSpec("x", DType.INT8, (1, 4))
    structure = Structure((), (spec,), (spec,), macs=1, weights_bytes=1)
    verdict = Verdict(Place.DEVICE, "tflm", runs=True, reason="")
    return Variant("tflite-int8", digest, size_bytes, structure, (verdict,), 1024)


if __name__ == "__main__":
    sys.exit(main())
