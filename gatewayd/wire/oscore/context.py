"""A security context: the keys that follow from a master secret, and what is protected and opened with them. No state.

Which sequence numbers were used is `numbers`' business: whoever seals twice with one number gives the key away.
Source: RFC 8613, sections 3.2 (keys), 5 (nonce, additional data), 8 (who protects what).
"""

from dataclasses import field

import cbor2

from gatewayd.core.errors import BadRequest, Forbidden
from gatewayd.core.record import record
from gatewayd.wire.oscore.header import MAX_ID_BYTES, MAX_PARTIAL_IV_BYTES, Header, encode_header, partial_iv

AES_CCM_16_64_128 = 10
"""The number of the one algorithm that every implementation has. Source: RFC 8613, section 3.2; RFC 8152, table 10."""
HMAC_256_256 = 5
"""The number of the HMAC within the key derivation. Source: RFC 8152, table 7."""
LAST_NUMBER = 2**40 - 1  # five bytes of partial IV. Source: RFC 8613, section 7.2.1
_KEY_BYTES, _NONCE_BYTES, _TAG_BYTES = 16, 13, 8
_VERSION = 1


@record
class Material:
    """What both ends were given. Their ids are seen from one end: the other end's sender is this one's recipient."""

    master_secret: bytes = field(repr=False)
    master_salt: bytes
    sender_id: bytes
    recipient_id: bytes
    id_context: bytes | None = None


@record
class Asked:
    """What ties an answer to its question: the asker's id and the question's partial IV."""

    kid: bytes
    partial_iv: bytes


@record
class Sealed:
    """A protected message: the option's value, and the payload."""

    option: bytes
    payload: bytes


class SecurityContext:
    """One end's context. Deriving it takes three HMACs' time; it holds no plaintext and no numbers."""

    __slots__ = ("_common_iv", "_recipient", "_sender", "material")

    def __init__(self, material: Material) -> None:
        """Raises: ValueError when an id is over 7 bytes, or both are the same."""
        from cryptography.hazmat.primitives.ciphers.aead import AESCCM  # noqa: PLC0415 - 9 MB for who uses OSCORE only

        ids = (material.sender_id, material.recipient_id)
        if max(map(len, ids)) > MAX_ID_BYTES or len(set(ids)) == 1:
            raise ValueError("OSCORE ids have at most 7 bytes and differ")
        self.material = material
        self._common_iv = derived(material, b"", "IV", _NONCE_BYTES)
        self._sender = AESCCM(derived(material, material.sender_id, "Key", _KEY_BYTES), _TAG_BYTES)
        self._recipient = AESCCM(derived(material, material.recipient_id, "Key", _KEY_BYTES), _TAG_BYTES)

    def seal_question(self, number: int, plaintext: bytes) -> tuple[Sealed, Asked]:
        """Protect a question of ours with a number that was never used; return it and what its answer is opened with."""
        iv = partial_iv(number)
        asked = Asked(self.material.sender_id, iv)
        header = Header(iv, self.material.sender_id, self.material.id_context)
        return self._sealed(header, asked, self._nonce(asked), plaintext), asked

    def seal_answer(self, asked: Asked, plaintext: bytes, *, number: int | None = None) -> Sealed:
        """Protect our answer to a peer's question.

        `number` None: the question's nonce serves, which is right once, for a question that is known not to be a repeated one.
        """
        if number is None:
            return self._sealed(Header(), asked, self._nonce(asked), plaintext)
        iv = partial_iv(number)
        return self._sealed(Header(iv), asked, self._nonce(Asked(self.material.sender_id, iv)), plaintext)

    def open_question(self, header: Header, payload: bytes) -> tuple[bytes, Asked]:
        """Return the plaintext of a peer's question, and what ties our answer to it.

        Whether its number came before is not looked at. Raises: BadRequest (no partial IV); Forbidden (not sealed by the peer).
        """
        if not header.partial_iv:
            raise BadRequest("OSCORE option: a question without a partial IV")
        asked = Asked(self.material.recipient_id, header.partial_iv)
        return self._opened(asked, self._nonce(asked), payload), asked

    def open_answer(self, asked: Asked, header: Header, payload: bytes) -> bytes:
        """Return the plaintext of a peer's answer to our question. Raises: Forbidden (not sealed by the peer, or for another)."""
        if header.kid not in {None, self.material.recipient_id}:
            raise Forbidden("OSCORE: the answer names another sender")
        own = Asked(self.material.recipient_id, header.partial_iv) if header.partial_iv else asked
        return self._opened(asked, self._nonce(own), payload)

    def _sealed(self, header: Header, asked: Asked, nonce: bytes, plaintext: bytes) -> Sealed:
        return Sealed(encode_header(header), self._sender.encrypt(nonce, plaintext, additional(asked)))

    def _opened(self, asked: Asked, nonce: bytes, payload: bytes) -> bytes:
        from cryptography.exceptions import InvalidTag  # noqa: PLC0415 - loaded with the context

        if len(payload) <= _TAG_BYTES:
            raise Forbidden("OSCORE: too short to be a protected message")
        try:
            return self._recipient.decrypt(nonce, payload, additional(asked))
        except InvalidTag:
            raise Forbidden("OSCORE: not protected with this context's keys") from None

    def _nonce(self, by: Asked) -> bytes:
        return nonce(self._common_iv, by.kid, by.partial_iv)


def derived(material: Material, role: bytes, kind: str, length: int) -> bytes:
    """Return a key ("Key", with its owner's id as `role`) or the common IV ("IV", with none)."""
    from cryptography.hazmat.primitives.hashes import SHA256  # noqa: PLC0415 - as in SecurityContext
    from cryptography.hazmat.primitives.kdf.hkdf import HKDF  # noqa: PLC0415 - as above

    info = cbor2.dumps([role, material.id_context, AES_CCM_16_64_128, kind, length])
    return HKDF(SHA256(), length, material.master_salt, info).derive(material.master_secret)


def nonce(common_iv: bytes, kid: bytes, iv: bytes) -> bytes:
    """Return the nonce that belongs to a sender's partial IV."""
    text = bytes([len(kid)]) + kid.rjust(MAX_ID_BYTES, b"\0") + iv.rjust(MAX_PARTIAL_IV_BYTES, b"\0")
    return bytes(one ^ other for one, other in zip(text, common_iv, strict=True))


def additional(asked: Asked) -> bytes:
    """Return the additional data of a question and of its answers; no option of class I is in use."""
    array = cbor2.dumps([_VERSION, [AES_CCM_16_64_128], asked.kid, asked.partial_iv, b""])
    return cbor2.dumps(["Encrypt0", b"", array])
