"""What the proofs push: versions of a model, as bytes, as what is sent of them, and signed."""

import random
from dataclasses import dataclass
from functools import cache

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from gatewayd.core.compression import deflated
from gatewayd.core.model import SelfTest
from gatewayd.core.module import Deflate, Encoding, Held, Manifest, Raw
from gatewayd.core.names import ModelName
from gatewayd.wire.manifest import sign_manifest
from prove.device import MODEL, answer_of, digest_of
from prove.keys import KEY

MODEL_BYTES = 53_936
"""The keyword-spotting model of MLPerf Tiny."""
OLD, NEW, NEXT = 1, 2, 3
_LETTERS = 90
_OTHER = ModelName("wake")


@dataclass(frozen=True, slots=True)
class Artifact:
    """A version's bytes, what of them is sent, its signed manifest, what the trial expects it to answer, and its model's name."""

    version: int
    content: bytes
    stream: bytes
    signed: bytes
    expected: bytes
    model: ModelName = MODEL


def artifact_of(
    version: int,
    content: bytes,
    *,
    tested: bytes | None = None,
    expected: bytes | None = None,
    key: Ed25519PrivateKey = KEY,
    deflate_bits: int | None = None,
    stream: bytes | None = None,
    model: ModelName = MODEL,
    instead_of: Held | None = None,
) -> Artifact:
    """Sign a version; `tested` and `expected` are what self-test and trial wait for (None: what the content answers).

    `deflate_bits`: it travels compressed, as `stream` (None: as it should). `instead_of`: a model that gives way to it.
    """
    answer = answer_of(content)
    encoding: Encoding = Raw()
    if deflate_bits is not None:
        stream = deflated(content, deflate_bits) if stream is None else stream
        encoding = Deflate(deflate_bits, len(stream), digest_of(stream))
    manifest = Manifest(
        model=model, version=version, target="tflite-int8", digest=digest_of(content), size_bytes=len(content),
        encoding=encoding, runtime_abi=3, operators=(), arena_bytes=1024, inputs=(), outputs=(),
        self_test=SelfTest(1, answer if tested is None else tested, 0), instead_of=instead_of,
    )  # fmt: skip
    signed, sent = sign_manifest(manifest, key), content if stream is None else stream
    return Artifact(version, content, sent, signed, answer if expected is None else expected, model)


@cache
def content_of(version: int, model_bytes: int, *, is_dense: bool = True) -> bytes:
    """Bytes that differ from version to version everywhere, none of them like erased flash; or some that shrink by a fifth."""
    if not is_dense:
        generator = random.Random(f"version {version}")  # noqa: S311 - the same every time
        return bytes(generator.choices(range(_LETTERS), k=model_bytes))
    return bytes((index * 7 + version * 31 + index // 251) % 255 for index in range(model_bytes))


def in_turn(contents: dict[int, bytes], bits: int | None) -> dict[int, Artifact]:
    """Return versions of two models for one place: what is there gives way to each, which is of the other model."""
    taken = {NEW: (_OTHER, Held(MODEL, OLD)), NEXT: (MODEL, Held(_OTHER, NEW))}
    return {
        version: artifact_of(version, contents[version], deflate_bits=bits, model=model, instead_of=gone)
        for version, (model, gone) in taken.items()
    }
