"""A key for tests, and offers signed with it."""

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from gatewayd.core.module import Manifest
from gatewayd.wire.manifest import key_ring, read_manifest, sign_manifest
from gatewayd.wire.mqttdevice import OfferMessage, encode_offer

KEY = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
PUBLIC = KEY.public_key().public_bytes_raw()
KEYS = key_ring([PUBLIC])


def manifest_of(offer: OfferMessage) -> Manifest:
    """The manifest a device would read as `offer`."""
    return Manifest(
        model=offer.model,
        version=offer.version,
        target="test",
        digest=offer.digest,
        size_bytes=offer.size_bytes,
        encoding=offer.encoding,
        runtime_abi=offer.runtime_abi,
        operators=tuple(sorted(set(offer.operators))),
        arena_bytes=offer.arena_bytes,
        inputs=(),
        outputs=(),
        self_test=offer.self_test,
        replaces=offer.replaces,
        instead_of=offer.instead_of,
    )


def offer_bytes(offer: OfferMessage) -> bytes:
    """`down/offer` as the gateway sends it."""
    return encode_offer(offer.push, sign_manifest(manifest_of(offer), KEY))


class FakeSigner:
    """Signs with the key above."""

    def sign(self, manifest: Manifest) -> bytes:
        return sign_manifest(manifest, KEY)

    def read(self, signed: bytes) -> Manifest:
        return read_manifest(signed, KEYS)
