"""Malformed CoAP datagrams by number, for the LwM2M server: well framed nonsense from `insane_lwm2m`, and framing that is none.

The same number and seed give the same datagram. Source of what is malformed: RFC 7252, sections 3 and 4; RFC 7959, section 2.
"""

import random
from collections.abc import Callable, Sequence

from bench.insane_lwm2m import case

CON, NON, ACK, RST = range(4)
POST, PUT, DELETE = 0x02, 0x03, 0x04
URI_PATH, CONTENT_FORMAT, URI_QUERY, BLOCK1, SIZE1, OBSERVE = 11, 12, 15, 27, 60, 6
_MOST = 60_000  # a UDP datagram over loopback holds 65,507 bytes
_DIRECT, _ONE_BYTE, _TWO_BYTES = 12, 13, 14

Option = tuple[int, bytes]


def coap(kind: int, code: int, mid: int, token: bytes, options: Sequence[Option] = (), payload: bytes = b"") -> bytes:
    """Frame a message as RFC 7252 wants it."""
    content = bytes((0x40 | kind << 4 | len(token), code)) + (mid & 0xFFFF).to_bytes(2, "big") + token
    before = 0
    for number, value in sorted(options, key=lambda each: each[0]):
        delta, length = _extended(number - before), _extended(len(value))
        content += bytes((delta[0] << 4 | length[0],)) + delta[1] + length[1] + value
        before = number
    return content + (b"\xff" + payload if payload else b"")


def datagram(number: int, seed: int) -> tuple[str, bytes]:
    """Return the family and the bytes of the malformed datagram of that number."""
    chance = random.Random(f"{seed}:{number}")
    family = _FAMILIES[number % len(_FAMILIES)]
    return family.__name__.removeprefix("_"), family(number, seed, chance)[:_MOST]


def _extended(value: int) -> tuple[int, bytes]:
    if value <= _DIRECT:
        return value, b""
    if value < 269:
        return _ONE_BYTE, bytes((value - 13,))
    return _TWO_BYTES, (value - 269).to_bytes(2, "big")


def _mid(chance: random.Random) -> int:
    return chance.randrange(1 << 16)


def _message(number: int, seed: int, chance: random.Random) -> bytes:
    """A registration, an update of a registration that is not there, or a Send, whose content is malformed."""
    found = case(number, seed)
    query = [(URI_QUERY, each.encode(errors="replace")[:600]) for each in found.query]
    path = [b"rd"] if found.kind in {"register", "links"} else [b"rd", b"nobody"] if found.kind == "update" else [b"dp"]
    kind = 40 if found.kind != "payload" else int(found.format)
    options = [*((URI_PATH, each) for each in path), *query, (CONTENT_FORMAT, kind.to_bytes(2, "big"))]
    if found.kind == "links":
        options.append((URI_QUERY, b"ep=links-%d" % (number % 50)))
    return coap(
        chance.choice((CON, NON)), POST, _mid(chance), chance.randbytes(chance.randint(0, 8)), options, found.payload
    )


def _head(_: int, __: int, chance: random.Random) -> bytes:
    """Another version, a token longer than may be, a code that is none, a head that ends too soon."""
    whole = bytearray(coap(CON, POST, _mid(chance), b"tok", [(URI_PATH, b"rd")], b"</3/0>"))
    match chance.randrange(4):
        case 0:
            whole[0] = chance.randrange(256)
        case 1:
            whole[1] = chance.randrange(256)
        case 2:
            return bytes(whole[: chance.randrange(8)])
        case _:
            whole[0] = 0x40 | chance.randrange(9, 16)
    return bytes(whole)


def _options(_: int, __: int, chance: random.Random) -> bytes:
    """Reserved deltas and lengths, lengths past the end, critical options that nobody knows, more options than anybody needs."""
    head = coap(CON, POST, _mid(chance), b"t")
    tails = (
        b"\xf0", b"\x0f", b"\xff", b"\xd0", b"\xe0\x00", b"\xbe\xff\xff" + b"x" * 20, b"\xb5rd", b"\xb2rd\xee\xff\xff\xff\xff",
        b"\xb2rd" + b"\x01x" * 2000, b"\xb2rd" + b"\x4d\xff" + b"q" * 268, b"\xb2rd" + b"\xd1\x08x" + b"\xff",
        b"\xb2rd\xe2\xff\x00ab",
    )  # fmt: skip
    return head + chance.choice(tails) + chance.randbytes(chance.choice((0, 0, 5)))


def _blocks(number: int, _: int, chance: random.Random) -> bytes:
    """Blocks without a beginning, of reserved sizes, longer or shorter than they say, of a total that nobody could hold."""
    block = (
        chance.choice((0x07, 0x08 | 6, 0xFFFFFF, 0xFFFFF0, 0x18, 0x10 | 6, 0x0E, 0x0F, 0x08))
        .to_bytes(3, "big")
        .lstrip(b"\0")
    )
    options: list[Option] = [(URI_PATH, b"rd"), (URI_QUERY, b"ep=blocks-%d" % (number % 20)), (BLOCK1, block)]
    if chance.randrange(2):
        options.append((SIZE1, chance.choice((b"\xff\xff\xff\xff", b"\x01", b"\x40\x01"))))
    payload = b"</3/0>," * chance.choice((1, 9, 146, 300))
    return coap(CON, POST, _mid(chance), chance.randbytes(4), options, payload)


def _answers(_: int, __: int, chance: random.Random) -> bytes:
    """Answers to what was never asked: wrong tokens, acknowledgements and resets of foreign messages, notifications."""
    code = chance.choice((0x45, 0x44, 0x84, 0xA0, 0x5F, 0xE1))
    kind = chance.choice((CON, NON, ACK))
    match chance.randrange(3):
        case 0:
            return coap(chance.choice((ACK, RST)), 0, _mid(chance), b"")
        case 1:
            return coap(
                kind, code, _mid(chance), chance.randbytes(8), [(OBSERVE, chance.randbytes(3))], chance.randbytes(30)
            )
        case _:
            return coap(kind, code, _mid(chance), chance.randbytes(chance.randint(1, 8)), (), chance.randbytes(30))


def _spoofed(number: int, __: int, chance: random.Random) -> bytes:
    """Updates and departures for registrations that are guessed."""
    options = [
        (URI_PATH, b"rd"),
        (URI_PATH, b"%x" % chance.getrandbits(chance.choice((8, 32, 64)))),
        (URI_QUERY, b"lt=1"),
    ]
    return coap(CON, chance.choice((POST, DELETE, PUT)), _mid(chance), number.to_bytes(4, "big"), options)


def _replayed(number: int, seed: int, _: random.Random) -> bytes:
    """One of ten registrations, always with the same message id and token."""
    which = number // len(_FAMILIES) % 10
    options = [
        (URI_PATH, b"rd"),
        (CONTENT_FORMAT, b"\x28"),
        (URI_QUERY, b"ep=replayed-%d" % which),
        (URI_QUERY, b"lwm2m=1.1"),
    ]
    return coap(CON, POST, seed + which, b"again", options, b"</3/0>")


def _noise(_: int, __: int, chance: random.Random) -> bytes:
    return chance.randbytes(chance.choice((0, 1, 3, 4, 20, 200, 1200, 9000)))


_FAMILIES: tuple[Callable[[int, int, random.Random], bytes], ...] = (
    _message, _message, _message, _head, _options, _blocks, _answers, _spoofed, _replayed, _noise,
)  # fmt: skip
