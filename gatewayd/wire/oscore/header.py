"""The value of the OSCORE option: partial IV, kid context and kid, as RFC 8613 section 6.1 packs them. Bytes → values → bytes."""

from gatewayd.core.errors import BadRequest
from gatewayd.core.record import record

MAX_PARTIAL_IV_BYTES = 5
MAX_ID_BYTES = 7
"""What fits into a nonce of 13 bytes beside the partial IV. Source: RFC 8613, section 3.3."""
MAX_ID_CONTEXT_BYTES = 32  # protects what is looked up and logged; the field itself could hold 255
_LENGTH, _HAS_KID, _HAS_CONTEXT, _RESERVED = 0x07, 0x08, 0x10, 0xE0


@record
class Header:
    """`partial_iv` b"": none; `kid` and `kid_context` None: absent (an empty one is present, and has no bytes)."""

    partial_iv: bytes = b""
    kid: bytes | None = None
    kid_context: bytes | None = None

    @property
    def number(self) -> int:
        """The sequence number that the partial IV stands for."""
        return int.from_bytes(self.partial_iv, "big")


def encode_header(header: Header) -> bytes:
    """Return the option's value; b"" where there is nothing in it."""
    flags = len(header.partial_iv)
    context = b""
    if header.kid_context is not None:
        flags |= _HAS_CONTEXT
        context = bytes([len(header.kid_context)]) + header.kid_context
    if header.kid is not None:
        flags |= _HAS_KID
    packed = header.partial_iv + context + (header.kid or b"")
    return bytes([flags]) + packed if flags else b""


def decode_header(value: bytes) -> Header:
    """Read the option's value. Raises: BadRequest when it is none that RFC 8613 allows."""
    if not value:
        return Header()
    flags, rest = value[0], value[1:]
    length = flags & _LENGTH
    if flags & _RESERVED or flags == 0 or length > MAX_PARTIAL_IV_BYTES or len(rest) < length:
        raise BadRequest("OSCORE option: its flags do not fit")
    partial_iv, rest = rest[:length], rest[length:]
    kid_context = None
    if flags & _HAS_CONTEXT:
        if not rest or rest[0] > MAX_ID_CONTEXT_BYTES or len(rest) <= rest[0]:
            raise BadRequest("OSCORE option: its kid context does not fit")
        kid_context, rest = rest[1 : 1 + rest[0]], rest[1 + rest[0] :]
    if not flags & _HAS_KID:
        if rest:
            raise BadRequest("OSCORE option: bytes are left over")
        return Header(partial_iv, None, kid_context)
    if len(rest) > MAX_ID_BYTES:
        raise BadRequest(f"OSCORE option: a kid has at most {MAX_ID_BYTES} bytes")
    return Header(partial_iv, rest, kid_context)


def partial_iv(number: int) -> bytes:
    """Return a sequence number in as few bytes as it needs, one at least."""
    return number.to_bytes(max(1, (number.bit_length() + 7) // 8), "big")
