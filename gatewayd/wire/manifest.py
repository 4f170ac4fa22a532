"""The signed manifest of an inference module: deterministic CBOR in a COSE_Sign1, Ed25519; both ends.

The envelope has one layout, so that it is compared, not parsed; its payload is parsed only when the signature holds; and what was
parsed must give the same bytes again. Source: RFC 8949 §4.2.1 (deterministic encoding), RFC 9052 §4.2 and §4.4 (COSE_Sign1),
RFC 8032 (Ed25519); docs/inference-module.md.
"""

import hashlib
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

import cbor2

from gatewayd.core.errors import BadRequest, TooLarge
from gatewayd.core.module import Manifest
from gatewayd.wire.manifest_fields import manifest_members, read_members

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

MAX_SIGNED_BYTES = 1024
"""Bounds the buffer that a device keeps for a signed manifest."""
KEY_ID_BYTES = 8
PUBLIC_KEY_BYTES = 32
SIGNATURE_BYTES = 64

# Tag 18, an array of four; the protected header {1: -8 (EdDSA), 4: kid} in 13 bytes; the empty unprotected header.
_HEAD, _PROTECTED, _UNPROTECTED = b"\xd2\x84\x4d", b"\xa2\x01\x27\x04\x48", b"\xa0"
_PAYLOAD_AT = len(_HEAD) + len(_PROTECTED) + KEY_ID_BYTES + len(_UNPROTECTED)
_SIGNATURE_HEAD = b"\x58\x40"


def key_id(public_key: bytes) -> bytes:
    """Return the name of a raw public key: the first 8 bytes of its SHA-256."""
    return hashlib.sha256(public_key).digest()[:KEY_ID_BYTES]


def key_ring(public_keys: Iterable[bytes]) -> Mapping[bytes, bytes]:
    """Return the keys by their names.

    Raises: BadRequest when one is not 32 bytes long.
    """
    ring = {key_id(each): each for each in public_keys}
    if any(len(each) != PUBLIC_KEY_BYTES for each in ring.values()):
        raise BadRequest(f"an Ed25519 public key has {PUBLIC_KEY_BYTES} bytes")
    return ring


def encode_manifest(manifest: Manifest) -> bytes:
    """Return the manifest in its one deterministic encoding."""
    return cbor2.dumps(manifest_members(manifest), canonical=True)


def sign_manifest(manifest: Manifest, key: "Ed25519PrivateKey") -> bytes:
    """Return the COSE_Sign1.

    Raises: TooLarge when it is over 1,024 bytes: the self-test's expected output and the operators are what grows;
    BadRequest when no device could read it.
    """
    payload = encode_manifest(manifest)
    protected = _PROTECTED + key_id(key.public_key().public_bytes_raw())
    signature = key.sign(_to_be_signed(protected, payload))
    signed = _HEAD + protected + _UNPROTECTED + cbor2.dumps(payload) + _SIGNATURE_HEAD + signature
    if len(signed) > MAX_SIGNED_BYTES:
        raise TooLarge(
            f"manifest of {manifest.model}@{manifest.version}: {len(signed)} bytes, at most {MAX_SIGNED_BYTES}"
        )
    decode_manifest(payload)
    return signed


def read_manifest(signed: bytes, keys: Mapping[bytes, bytes]) -> Manifest:
    """Check the signature with the one of `keys` (raw public keys by their names) that it names, then read the manifest.

    Raises: BadRequest when it is too long, of another layout, by a key that is not there, changed, or says what cannot be.
    """
    from cryptography.exceptions import InvalidSignature  # noqa: PLC0415 - 9 MB that a node without pushes does without
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey  # noqa: PLC0415 - as above

    if len(signed) > MAX_SIGNED_BYTES:
        raise BadRequest(f"signed manifest: {len(signed)} bytes, at most {MAX_SIGNED_BYTES} are read")
    protected, payload, signature = _split(signed)
    public_key = keys.get(protected[len(_PROTECTED) :])
    if public_key is None:
        raise BadRequest(
            f"signed manifest: signed by key {protected[len(_PROTECTED) :].hex()}, which is not trusted here"
        )
    try:
        Ed25519PublicKey.from_public_bytes(public_key).verify(signature, _to_be_signed(protected, payload))
    except (InvalidSignature, ValueError) as error:  # ValueError: the trusted key itself is none
        raise BadRequest("signed manifest: the signature does not hold") from error
    return decode_manifest(payload)


def decode_manifest(payload: bytes) -> Manifest:
    """Read the manifest alone. Raises: BadRequest naming the member, or when its encoding is not the deterministic one."""
    if len(payload) > MAX_SIGNED_BYTES:
        raise BadRequest(f"manifest: {len(payload)} bytes, at most {MAX_SIGNED_BYTES} are read")
    manifest = read_members(_parsed(payload))
    if encode_manifest(manifest) != payload:
        raise BadRequest("manifest: is not in the deterministic encoding")
    return manifest


def _split(signed: bytes) -> tuple[bytes, bytes, bytes]:
    """Return (protected header, payload, signature)."""
    protected = signed[len(_HEAD) : _PAYLOAD_AT - len(_UNPROTECTED)]
    payload = signed[_PAYLOAD_AT + _head_bytes(signed) : -len(_SIGNATURE_HEAD) - SIGNATURE_BYTES]
    signature = signed[-SIGNATURE_BYTES:]
    again = _HEAD + protected + _UNPROTECTED + cbor2.dumps(payload) + _SIGNATURE_HEAD + signature
    if not protected.startswith(_PROTECTED) or again != signed:
        raise BadRequest("signed manifest: no COSE_Sign1 as docs/inference-module.md lays it out")
    return protected, payload, signature


def _head_bytes(signed: bytes) -> int:
    """Return how long the head of the payload's byte string is: lengths under 24, under 256, and others."""
    first = signed[_PAYLOAD_AT : _PAYLOAD_AT + 1]
    return {b"\x58": 2, b"\x59": 3}.get(first, 1)


def _to_be_signed(protected: bytes, payload: bytes) -> bytes:
    return cbor2.dumps(["Signature1", protected, b"", payload], canonical=True)


def _parsed(payload: bytes) -> object:
    try:
        parsed: object = cbor2.loads(payload)
    except (cbor2.CBORDecodeError, ValueError, OverflowError, ArithmeticError, RecursionError) as error:
        raise BadRequest(f"manifest: no CBOR: {error}"[:200]) from None
    return parsed
