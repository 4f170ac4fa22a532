"""What the proofs push: versions of a model, as bytes, as what is sent of them, and signed."""

import random
from dataclasses import dataclass
from functools import cache

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from gatewayd.core.compression import deflated
from gatewayd.core.model import SelfTest
from gatewayd.core.module import Deflate, Encoding, Manifest, Raw
from gatewayd.wire.manifest import sign_manifest
from prove.device import MODEL, answer_of, digest_of
from prove.keys import KEY

MODEL_BYTES = 53_936
"""The keyword-spotting model of MLPerf Tiny."""
OLD, NEW, NEXT = 1, 2, 3
_LETTERS = 90


@dataclass(frozen=True, slots=True)
class Artifact:
    """A version's bytes, what of them is sent, its signed manifest, and what the trial expects it to answer."""

    version: int
    content: bytes
    stream: bytes
    signed: bytes
    expected: bytes


def artifact_of(
    version: int,
    content: bytes,
    *,
    tested: bytes | None = None,
    expected: bytes | None = None,
    key: Ed25519PrivateKey = KEY,
    deflate_bits: int | None = None,
    stream: bytes | None = None,
) -> Artifact:
    """Sign a version; `tested` and `expected` are what self-test and trial wait for (None: what the content answers).

    `deflate_bits`: it travels compressed, as `stream` (None: as it should).
    """
    answer = answer_of(content)
    encoding: Encoding = Raw()
    if deflate_bits is not None:
        stream = deflated(content, deflate_bits) if stream is None else stream
        encoding = Deflate(deflate_bits, len(stream), digest_of(stream))
    manifest = Manifest(
        model=MODEL, version=version, target="tflite-int8", digest=digest_of(content), size_bytes=len(content),
        encoding=encoding, runtime_abi=3, operators=(), arena_bytes=1024, inputs=(), outputs=(),
        self_test=SelfTest(1, answer if tested is None else tested, 0),
    )  # fmt: skip
    signed, sent = sign_manifest(manifest, key), content if stream is None else stream
    return Artifact(version, content, sent, signed, answer if expected is None else expected)


@cache
def content_of(version: int, model_bytes: int, *, is_dense: bool = True) -> bytes:
    """Bytes that differ from version to version everywhere, none of them like erased flash; or some that shrink by a fifth."""
    if not is_dense:
        generator = random.Random(f"version {version}")  # noqa: S311 - the same every time
        return bytes(generator.choices(range(_LETTERS), k=model_bytes))
    return bytes((index * 7 + version * 31 + index // 251) % 255 for index in range(model_bytes))
