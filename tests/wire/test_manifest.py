import re
from dataclasses import replace
from pathlib import Path
from typing import cast

import cbor2
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given
from hypothesis import strategies as st

from gatewayd.core.errors import BadRequest, TooLarge
from gatewayd.core.model import SelfTest
from gatewayd.core.module import Deflate, Delta, Held, Manifest, Raw
from gatewayd.core.names import Digest, ModelName
from gatewayd.core.tensor import DType, Quantization, TensorSpec
from gatewayd.wire.manifest import (
    MAX_SIGNED_BYTES,
    decode_manifest,
    encode_manifest,
    key_id,
    key_ring,
    read_manifest,
    sign_manifest,
)
from tests.signing import KEY, KEYS, PUBLIC

PAGE = Path(__file__).parents[2] / "docs" / "inference-module.md"
DIGESTS = [Digest(letter * 64) for letter in "abc"]
MANIFEST = Manifest(
    model=ModelName("speaker"),
    version=2,
    target="tflite-int8",
    digest=Digest("11" * 32),
    size_bytes=5360,
    encoding=Deflate(12, 4100, Digest("22" * 32)),
    runtime_abi=3,
    operators=("CONV_2D", "SOFTMAX"),
    arena_bytes=6144,
    inputs=(TensorSpec("lpc", DType.INT8, (1, 29, 1, 12), Quantization(0.03125, -1)),),
    outputs=(TensorSpec("scores", DType.INT8, (1, 9), Quantization(0.00390625, -128)),),
    self_test=SelfTest(1, bytes([0x80, 0x7F, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80]), 2),
)
SIGNED = sign_manifest(MANIFEST, KEY)

whole = st.integers(1, 2**31 - 1)
digests = st.sampled_from(DIGESTS)
texts = st.text(max_size=20).filter(str.isprintable)
scales = st.floats(2.0**-100, 2.0**100, width=32)
tensors = st.builds(
    TensorSpec,
    texts,
    st.sampled_from(list(DType)),
    st.lists(st.integers(1, 1000), max_size=6).map(tuple),
    st.none() | st.builds(Quantization, scales, st.integers(-65_535, 65_535)),
)
manifests = st.builds(
    Manifest,
    model=st.from_regex(r"[a-z0-9][a-z0-9_-]{0,62}", fullmatch=True).map(ModelName),
    version=whole,
    target=texts,
    digest=digests,
    size_bytes=whole,
    encoding=st.just(Raw())
    | st.builds(Deflate, st.integers(9, 15), whole, digests)
    | st.builds(Delta, digests, whole, digests),
    runtime_abi=st.integers(0, 2**31 - 1),
    operators=st.frozensets(texts, max_size=5).map(sorted).map(tuple),
    arena_bytes=st.integers(0, 2**31 - 1),
    inputs=st.lists(tensors, max_size=2).map(tuple),
    outputs=st.lists(tensors, max_size=2).map(tuple),
    self_test=st.none()
    | st.builds(SelfTest, st.integers(1, 2**32 - 1), st.binary(min_size=1, max_size=64), st.integers(0, 65_535)),
    replaces=st.integers(0, 2**31 - 1),
    instead_of=st.none() | st.builds(Held, st.just(ModelName("another-model-of-all")), whole),
)


@given(manifests)
def test_round_trip(manifest: Manifest) -> None:
    assert decode_manifest(encode_manifest(manifest)) == manifest
    assert read_manifest(sign_manifest(manifest, KEY), KEYS) == manifest


def test_every_single_bit_flip_is_refused() -> None:
    for bit in range(len(SIGNED) * 8):
        changed = bytearray(SIGNED)
        changed[bit // 8] ^= 1 << bit % 8
        with pytest.raises(BadRequest):
            read_manifest(bytes(changed), KEYS)


def test_every_cut_and_every_tail_is_refused() -> None:
    for length in range(len(SIGNED)):
        with pytest.raises(BadRequest):
            read_manifest(SIGNED[:length], KEYS)
    with pytest.raises(BadRequest, match="lays it out"):
        read_manifest(SIGNED + b"\0", KEYS)


@given(st.binary(max_size=MAX_SIGNED_BYTES + 10))
def test_any_bytes_are_refused(content: bytes) -> None:
    with pytest.raises(BadRequest):
        read_manifest(content, KEYS)


@given(st.binary(max_size=200))
def test_any_payload_is_a_manifest_or_refused(payload: bytes) -> None:
    with pytest.raises(BadRequest):
        decode_manifest(payload)


def signed_payload(payload: bytes) -> bytes:
    """Sign what no gateway would: the reader must not lean on the signer."""
    protected = cbor2.dumps({1: -8, 4: key_id(PUBLIC)}, canonical=True)
    signature = KEY.sign(cbor2.dumps(["Signature1", protected, b"", payload]))
    return cbor2.dumps(cbor2.CBORTag(18, [protected, {}, payload, signature]))


def test_an_independent_signer_makes_the_same_bytes() -> None:
    assert signed_payload(encode_manifest(MANIFEST)) == SIGNED


def members(**changes: object) -> bytes:
    """The manifest with some members changed, by `k` and their number; None leaves one out."""
    whole_map = cast("dict[int, object]", cbor2.loads(encode_manifest(MANIFEST)))
    whole_map |= {int(key[1:]): value for key, value in changes.items()}
    return cbor2.dumps({key: value for key, value in whole_map.items() if value is not None}, canonical=True)


@pytest.mark.parametrize(
    ("payload", "problem"),
    [
        (members(k1=2), "manifest.format: 2, this program reads 1"),
        (members(k1=None), "a map of the keys"),
        (members(k16=1), "a map of the keys"),
        (members(k15=1), "manifest.instead"),
        (members(k15=["speaker", 1]), "another model"),
        (members(k15=["other", 0]), "manifest.instead[1]"),
        (members(k15=["other"]), "manifest.instead"),
        (members(k15=["../etc", 1]), "model name"),
        (members(k14=0), "manifest.replaces"),
        (members(k2="../etc"), "model name"),
        (members(k3=0), "manifest.version"),
        (members(k3=2**31), "manifest.version"),
        (members(k3=True), "manifest.version"),
        (members(k4="x" * 65), "manifest.target"),
        (members(k5=bytes(31)), "manifest.digest"),
        (members(k6=0), "manifest.size"),
        (members(k7=[]), "manifest.encoding"),
        (members(k7=[3]), "manifest.encoding"),
        (members(k7=[0, 1]), "manifest.encoding"),
        (members(k7=[1, 8, 1, bytes(32)]), "manifest.encoding"),
        (members(k7=[1, 16, 1, bytes(32)]), "manifest.encoding"),
        (members(k7=[1, 9, 0, bytes(32)]), "manifest.encoding"),
        (members(k7=[2, bytes(31), 1, bytes(32)]), "manifest.encoding"),
        (members(k9=["B", "A"]), "manifest.operators: must ascend"),
        (members(k9=["A", "A"]), "manifest.operators: must ascend"),
        (members(k9=["A"] * 65), "manifest.operators"),
        (members(k11=[["x", 7, [1]]]), "manifest.inputs"),
        (members(k11=[["x", 1, [0]]]), "manifest.inputs"),
        (members(k11=[["x", 1, [1], 1.0]]), "manifest.inputs"),
        (members(k12=[["x", 1, [1], float("inf"), 0]]), "manifest.outputs.scale"),
        (members(k12=[["x", 1, [1], -1.0, 0]]), "manifest.outputs.scale"),
        (members(k12=[["x", 1, [1], 0.1, 0]]), "deterministic"),
        (members(k13=[0, b"x", 0]), "manifest.self-test.seed"),
        (members(k13=[1, b"", 0]), "manifest.self-test"),
        (b"\xbf" + encode_manifest(MANIFEST)[1:] + b"\xff", "deterministic"),
        (encode_manifest(MANIFEST) + b"\0", "manifest"),
        (cbor2.dumps(cbor2.CBORTag(5, [2**60, 1])), "manifest"),
        (b"\x9f" * 900, "no CBOR"),
    ],
)
def test_a_signed_manifest_that_says_what_cannot_be_is_refused(payload: bytes, problem: str) -> None:
    with pytest.raises(BadRequest, match=re.escape(problem)):
        read_manifest(signed_payload(payload), KEYS)


def test_keys() -> None:
    stranger = Ed25519PrivateKey.from_private_bytes(bytes(32))
    with pytest.raises(BadRequest, match="not trusted here"):
        read_manifest(sign_manifest(MANIFEST, stranger), KEYS)
    with pytest.raises(BadRequest, match="32 bytes"):
        key_ring([bytes(31)])
    assert key_ring([PUBLIC]) == {key_id(PUBLIC): PUBLIC}


def test_a_signature_under_another_keys_name_does_not_hold() -> None:
    stranger = Ed25519PrivateKey.from_private_bytes(bytes(32))
    forged = sign_manifest(MANIFEST, stranger).replace(key_id(stranger.public_key().public_bytes_raw()), key_id(PUBLIC))
    with pytest.raises(BadRequest, match="does not hold"):
        read_manifest(forged, KEYS)


def test_too_large_a_manifest_is_not_signed() -> None:
    with pytest.raises(TooLarge, match="at most 1024"):
        sign_manifest(replace(MANIFEST, self_test=SelfTest(1, bytes(900), 0)), KEY)


def test_what_no_device_could_read_is_not_signed() -> None:
    with pytest.raises(BadRequest, match=r"manifest\.version"):
        sign_manifest(replace(MANIFEST, version=0), KEY)
    with pytest.raises(BadRequest, match="no 32-bit float"):
        sign_manifest(replace(MANIFEST, inputs=(TensorSpec("x", DType.INT8, (1,), Quantization(1e300, 0)),)), KEY)


def test_a_scale_is_rounded_and_a_name_cut_to_what_travels() -> None:
    spec = TensorSpec("serving\n" * 10, DType.INT8, (1,), Quantization(0.1, 0))
    (read,) = read_manifest(sign_manifest(replace(MANIFEST, inputs=(spec,)), KEY), KEYS).inputs
    assert read.name == "serving " * 8
    assert read.quantization == Quantization(0.10000000149011612, 0)


def test_the_page_shows_these_bytes() -> None:
    text = PAGE.read_text()
    hexes = ["".join(block.split()) for block in re.findall(r"```hex\n(.*?)```", text, re.DOTALL)]
    assert hexes == [PUBLIC.hex(), encode_manifest(MANIFEST).hex(), SIGNED.hex()]


def test_the_pages_diagnostic_notation_is_the_manifest() -> None:
    (shown,) = re.findall(r"```cbor-diag\n(.*?)```", PAGE.read_text(), re.DOTALL)
    rebuilt = eval(re.sub(r"/[^/]*/", "", re.sub(r"h'([0-9a-f]*)'", r"bytes.fromhex('\1')", shown)))  # noqa: S307 - our own page
    assert cbor2.dumps(rebuilt, canonical=True) == encode_manifest(MANIFEST)
