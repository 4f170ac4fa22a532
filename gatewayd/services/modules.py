"""Making inference modules: the signed manifest of a variant, and the bytes that a device is sent.

Nothing is offered on trust: the artifact is read back and hashed, what was encoded is decoded again, the signature verified.
"""

import asyncio
import hashlib
from collections import OrderedDict
from dataclasses import replace

from gatewayd.core.compression import Decoder, deflated, inflated
from gatewayd.core.errors import BadRequest, NodeError, NotFound, TooLarge
from gatewayd.core.fit import TFLITE_SCHEMA
from gatewayd.core.model import Variant, Version
from gatewayd.core.module import Deflate, Encoding, Held, Manifest, Raw
from gatewayd.core.names import Digest
from gatewayd.core.record import record
from gatewayd.services.keeping import Hold, Keeper
from gatewayd.services.ports import Artifacts, Signer
from gatewayd.services.pushable import Wanted

# Encoded artifacts remembered; one more is encoded again when it is wanted.
MAX_REMEMBERED = 64
# Encoding pays when it saves a twentieth: below that the device's work of decoding is worth more than the air.
_WORTH_IT = 0.95


@record
class Module:
    """What goes to a device: the manifest as signed, and where the bytes for its chunks are."""

    manifest: Manifest
    signed: bytes
    stream: Digest


class Modules:
    """Makes modules; remembers what was encoded."""

    def __init__(self, artifacts: Artifacts, signer: Signer, keeper: Keeper) -> None:
        self._artifacts = artifacts
        self._signer = signer
        self._keeper = keeper
        self._encoded: OrderedDict[tuple[Digest, int], Deflate] = OrderedDict()

    async def make_for(self, plan: Wanted, hold: Hold) -> Module:
        """Make the module of a push. Raises: as `make`."""
        return await self.make(
            plan.version,
            plan.variant,
            hold,
            decoder=plan.decoder,
            replaces=plan.replaces,
            instead_of=plan.instead_of,
        )

    async def make(
        self,
        version: Version,
        variant: Variant,
        hold: Hold,
        *,
        decoder: Decoder | None,
        replaces: int = 0,
        instead_of: Held | None = None,
    ) -> Module:
        """Make the module of a variant for a device that decodes DEFLATE so (None: not at all).

        What it is made of stays on the disk as long as `hold` lasts.

        Raises: NodeError when the artifact or its encoded form is damaged, TooLarge when its manifest is.
        """
        await self._keep(variant.digest, hold)
        content = await self._artifact(variant)
        encoding: Encoding = Raw()
        if decoder is not None:
            encoding = await self._encoding(variant, content, decoder, hold)
        stream = encoding.digest if isinstance(encoding, Deflate) else variant.digest
        wanted = replace(manifest_of(version, variant, encoding), replaces=replaces, instead_of=instead_of)
        signed = self._signed(wanted)
        return Module(self._signer.read(signed), signed, stream)

    async def _artifact(self, variant: Variant) -> bytes:
        content = await self._artifacts.read(variant.digest, 0, variant.size_bytes + 1)
        if await asyncio.to_thread(_digest_of, content) != variant.digest:
            raise NodeError(
                f"artifact {variant.digest} is damaged on the disk: add the model again, and check the disk"
            )
        return content

    async def _keep(self, digest: Digest, hold: Hold) -> None:
        async with self._keeper.turn:  # what is being removed is gone before it is read
            self._keeper.hold(digest, hold)

    async def _encoding(self, variant: Variant, content: bytes, decoder: Decoder, hold: Hold) -> Encoding:
        key = (variant.digest, decoder.window_bits)
        known = self._encoded.get(key)
        if known is not None:
            await self._keep(known.digest, hold)
        if known is None or not await self._decodes(known, content):
            # storing it again mends a damaged file
            known = await self._deflate(content, decoder.window_bits, hold)
            if not await self._decodes(known, content):
                raise NodeError(f"the encoded form of artifact {variant.digest} cannot be read back: check the disk")
        self._encoded[key] = known
        if not worthwhile(known.size_bytes, len(content)) or not decoder.has_room(known.size_bytes, len(content)):
            return Raw()
        if len(self._encoded) > MAX_REMEMBERED:
            self._encoded.popitem(last=False)
        return known

    async def _deflate(self, content: bytes, window_bits: int, hold: Hold) -> Deflate:
        encoded = await asyncio.to_thread(deflated, content, window_bits)
        return Deflate(window_bits, len(encoded), await self._keeper.put(encoded, hold))

    async def _decodes(self, encoding: Deflate, content: bytes) -> bool:
        """Return whether what is on the disk decodes to the artifact; it may have been collected."""
        try:
            stream = await self._artifacts.read(encoding.digest, 0, encoding.size_bytes + 1)
            return content == await asyncio.to_thread(inflated, stream, encoding.window_bits, len(content))
        except (BadRequest, NotFound):
            return False

    def _signed(self, manifest: Manifest) -> bytes:
        """Sign; a long expected output is cut, since a self-test on its beginning is better than none."""
        test, spec = manifest.self_test, manifest.outputs[0] if manifest.outputs else None
        length = len(test.expected) if test is not None else 0
        while True:
            try:
                return self._signer.sign(manifest)
            except TooLarge:
                item_bytes = spec.dtype.item_bytes if spec is not None else 1
                length = length // 2 // item_bytes * item_bytes
                if test is None or length == 0:
                    raise
                manifest = replace(manifest, self_test=replace(test, expected=test.expected[:length]))


def worthwhile(encoded_bytes: int, whole_bytes: int) -> bool:
    """Return whether a stream of so many bytes travels instead of the artifact."""
    return encoded_bytes <= _WORTH_IT * whole_bytes


def manifest_of(version: Version, variant: Variant, encoding: Encoding) -> Manifest:
    """Return what a device must know of the variant before a byte of it comes."""
    return Manifest(
        model=version.model,
        version=version.number,
        target=variant.name,
        digest=variant.digest,
        size_bytes=variant.size_bytes,
        encoding=encoding,
        runtime_abi=TFLITE_SCHEMA,
        operators=tuple(sorted({operator.name for operator in variant.structure.operators})),
        arena_bytes=variant.arena_bytes or 0,
        inputs=variant.structure.inputs,
        outputs=variant.structure.outputs,
        self_test=variant.self_test,
    )


def _digest_of(content: bytes) -> Digest:
    return Digest(hashlib.sha256(content).hexdigest())
