"""Malformed LwM2M messages by number: the same number and seed give the same message, so that one can be run again alone.

Ten families: noise, damaged, cut, spliced and repeated messages, heads that promise more than comes, nesting, floods, broken
link lists, broken registrations. What a case is for: `kind` "payload" (an answer or notification about `path`, or what a
device sends), "links" (Discover), "register" and "update" (a query and links).
"""

import json
import random
from collections.abc import Callable
from dataclasses import dataclass

import cbor2

from gatewayd.wire.lwm2m.formats import Format, encode
from gatewayd.wire.lwm2m.limits import MAX_STRUCTURED_BYTES
from gatewayd.wire.lwm2m.objects import STANDARD
from gatewayd.wire.lwm2m.paths import ROOT, Path
from gatewayd.wire.lwm2m.values import ObjectLink, Record


@dataclass(frozen=True, slots=True)
class Case:
    """One malformed message."""

    number: int
    family: str
    kind: str
    payload: bytes
    format: Format = Format.LINKS
    path: Path = ROOT
    query: tuple[str, ...] = ()


TREES = (Format.TLV, Format.SENML_JSON, Format.SENML_CBOR, Format.JSON, Format.LWM2M_CBOR)
READABLE = (*TREES, Format.TEXT, Format.OPAQUE, Format.CBOR)
PATHS = (
    ROOT,
    Path(3),
    Path(3, 0),
    Path(3, 0, 0),
    Path(3, 0, 6),
    Path(9, 1),
    Path(26241, 0),
    Path(26242, 0),
    Path(26242, 0, 6),
)
_DEVICE = (
    Record(Path(3, 0, 0), "Open Mobile Alliance"),
    Record(Path(3, 0, 6, 0), 1),
    Record(Path(3, 0, 6, 1), 5),
    Record(Path(3, 0, 9), 100),
    Record(Path(3, 0, 13), 1367491215),
    Record(Path(3, 0, 22, 0), ObjectLink(10, 3)),
)
_MODEL = (
    Record(Path(26242, 0, 0), 3),
    Record(Path(26242, 0, 3), bytes(32)),
    Record(Path(26242, 0, 6), bytes(range(200))),
    Record(Path(26242, 0, 8), 12.5),
)
_LINKS = (
    b'</>;rt="oma.lwm2m";ct="60 110 112 11542",</1/0>,</3/0>;ver=1.1,</9/0>,</9/1>,</26241/0>,</26242/0>,</26242/1>'
)
_QUERY = ("ep=urn:dev:os:0023C7-000001", "lt=60", "lwm2m=1.1", "b=U", "Q")
_QUERIES = (
    "ep",
    "ep=",
    "ep=a",
    "lt=",
    "lt=-1",
    "lt=99999999999",
    "lwm2m=9.9",
    "b=UQS",
    "b=\x00",
    "Q",
    "sms=1",
    "=",
    "",
    "x=y",
    "ep=\ud7ff",
)
_MOST = 512  # of the small families; the floods are as long as a message may be


def case(number: int, seed: int) -> Case:
    """Return the malformed message of that number."""
    chance = random.Random(f"{seed}/{number}")
    family = _FAMILIES[number % len(_FAMILIES)]
    return family(number, chance)


def _valid(chance: random.Random) -> tuple[Format, Path, bytes]:
    path, records = chance.choice(
        ((Path(3, 0), _DEVICE), (Path(3), _DEVICE), (Path(26242, 0), _MODEL), (Path(26242), _MODEL))
    )
    chosen = chance.choice(TREES)
    return chosen, path, encode(chosen, path, records, STANDARD)


def _payload(number: int, family: str, found: tuple[Format, Path, bytes]) -> Case:
    chosen, path, content = found
    return Case(number, family, "payload", content, chosen, path)


def _noise(number: int, chance: random.Random) -> Case:
    content = chance.randbytes(chance.randint(0, _MOST))
    return Case(number, "noise", "payload", content, chance.choice(READABLE), chance.choice(PATHS))


def _damaged(number: int, chance: random.Random) -> Case:
    chosen, path, content = _valid(chance)
    changed = bytearray(content)
    for _ in range(chance.randint(1, 8)):
        changed[chance.randrange(len(changed))] = chance.choice((0, 1, 0x7F, 0x80, 0xFF, chance.randrange(256)))
    return _payload(number, "damaged", (chosen, path, bytes(changed)))


def _cut(number: int, chance: random.Random) -> Case:
    chosen, path, content = _valid(chance)
    start = chance.choice((0, 0, chance.randrange(len(content))))
    return _payload(number, "cut", (chosen, path, content[start : chance.randrange(len(content))]))


def _spliced(number: int, chance: random.Random) -> Case:
    """Two messages, perhaps of two formats, under one's name."""
    chosen, path, content = _valid(chance)
    other = _valid(chance)[2]
    at = chance.randrange(len(content))
    return _payload(
        number, "spliced", (chosen, path, content[:at] + other[chance.randrange(len(other)) :] + content[at:])
    )


def _promises(number: int, chance: random.Random) -> Case:
    """Heads that say that gigabytes follow."""
    heads: tuple[tuple[Format, bytes], ...] = (
        (
            Format.CBOR,
            bytes((chance.choice((0x5B, 0x7B, 0x9B, 0xBB)),)) + chance.choice((b"\xff" * 8, b"\0\0\0\1\0\0\0\0")),
        ),
        (Format.SENML_CBOR, b"\x9a\x7f\xff\xff\xff" + b"\xa1\x00\x60" * 5),
        (Format.SENML_CBOR, b"\x81\xa2\x00\x7b" + b"\x7f" * 8 + b"/3/0/0"),
        (Format.LWM2M_CBOR, b"\xba\x7f\xff\xff\xff\x03"),
        (Format.LWM2M_CBOR, b"\xa1\x9b\xff\xff\xff\xff\xff\xff\xff\xff\x03"),
        (Format.TLV, b"\xd8\x00\xff\xff\xff"),
        (Format.TLV, b"\x98\x06\xff\xff\xf0" + b"\x41\x00\x01" * 4),
        (Format.CBOR, b"\xc4\x82\x1b" + b"\x7f" * 8 + b"\x01"),
        (Format.CBOR, b"\xc2\x5a\x7f\xff\xff\xff"),
    )
    chosen, content = chance.choice(heads)
    return Case(
        number, "promises", "payload", content + chance.randbytes(chance.randint(0, 40)), chosen, chance.choice(PATHS)
    )


def _nested(number: int, chance: random.Random) -> Case:
    depth = chance.choice((13, 100, 5000, 60_000))
    heads: tuple[tuple[Format, bytes], ...] = (
        (Format.SENML_JSON, b"["), (Format.JSON, b'{"e":'), (Format.SENML_CBOR, b"\x81"), (Format.SENML_CBOR, b"\x9f"),
        (Format.LWM2M_CBOR, b"\xa1\x03"), (Format.LWM2M_CBOR, b"\xbf\x00"), (Format.CBOR, b"\xc1"), (Format.TLV, b"\x08\x00\x7f"),
    )  # fmt: skip
    chosen, head = chance.choice(heads)
    content = (head * depth)[: MAX_STRUCTURED_BYTES - 8]
    return Case(number, "nested", "payload", content, chosen, chance.choice(PATHS))


def _flood(number: int, chance: random.Random) -> Case:
    """As many small things as a message holds, and somewhat more."""
    most_bytes = MAX_STRUCTURED_BYTES + chance.choice((-2000, 0, 1, 5000))
    repeated: tuple[tuple[Format, bytes, bytes, bytes], ...] = (
        (Format.TLV, b"", b"\xc0\x09", b""), (Format.TLV, b"", b"\xc1\x09\x01", b""),
        (Format.SENML_JSON, b"[", b'{"n":"9","v":1},', b"{}]"),
        (Format.SENML_JSON, b"", b"0", b""), (Format.SENML_CBOR, b"\x9f", b"\xa2\x00\x61\x39\x02\x01", b"\xff"),
        (Format.SENML_CBOR, b"\x9f", b"\xa0", b"\xff"), (Format.LWM2M_CBOR, b"\xbf", b"\x03\xa0", b"\xff"),
        (Format.JSON, b'{"e":[', b'{"n":"9","sv":""},', b"{}]}"), (Format.JSON, b'{"bn":"', b"/3/0", b'","e":[]}'),
        (Format.CBOR, b"\x5f", b"\x40", b"\xff"), (Format.TEXT, b"", b"9", b""), (Format.TEXT, b"-1.", b"0", b"e9"),
    )  # fmt: skip
    chosen, head, inner, tail = chance.choice(repeated)
    content = head + inner * ((most_bytes - len(head) - len(tail)) // len(inner)) + tail
    return Case(number, "flood", "payload", content, chosen, chance.choice(PATHS))


def _strange(number: int, chance: random.Random) -> Case:
    """Well formed, and nonsense: names, numbers and types where others belong."""
    names: tuple[object, ...] = (
        "/3/0/9",
        "9",
        "",
        "/",
        "//",
        "/65535/0/0",
        "/3/0/0/0/0",
        "x",
        "/3/0/-1",
        "/٣/0/0",
        5,
        None,
        [],
        "0" * 70,
    )
    values: tuple[object, ...] = (
        0,
        -1,
        2**63,
        2**64,
        -(2**63),
        0.5,
        1e308,
        float("nan"),
        "x",
        b"\0",
        True,
        None,
        [],
        {},
        "3:0",
        "9" * 30,
    )
    labels = ("v", "vs", "vb", "vd", "vlo", "s", "t", "bn", "bt", "bv", "bver", "n", "x_", "sv", "ov")
    pack = [
        {chance.choice(labels): chance.choice((*names, *values)) for _ in range(chance.randint(0, 5))}
        for _ in range(chance.randint(0, 6))
    ]
    chosen = chance.choice((Format.SENML_JSON, Format.SENML_CBOR, Format.JSON, Format.LWM2M_CBOR))
    whole: object = {"e": pack, "bn": chance.choice(names)} if chosen is Format.JSON else pack
    if chosen is Format.LWM2M_CBOR:
        whole = {chance.choice((3, 0, -1, 70_000, "3", (3, 0))): {chance.choice((0, 9, "x")): chance.choice(values)}}
    is_text = chosen in {Format.SENML_JSON, Format.JSON}
    content = json.dumps(whole, default=str).encode() if is_text else cbor2.dumps(whole)
    return Case(number, "strange", "payload", content, chosen, chance.choice(PATHS))


def _links(number: int, chance: random.Random) -> Case:
    bombs = (
        b"</1>," * 600, b"<" * 9000, b'</1>;a="' + b"\\" * 9000, b"</1>" + b";a=1" * 50, b"</1>" + b" " * 9000, b";" * 9000,
        b"<" + b"/1" * 5000 + b">", b"</3/0>,\xff", b'</>;ct="' + b"110 " * 3000 + b'"', _LINKS[: chance.randrange(len(_LINKS))],
    )  # fmt: skip
    damaged = bytearray(_LINKS)
    for _ in range(chance.randint(1, 6)):
        damaged[chance.randrange(len(damaged))] = chance.choice(b'<>;,="\\ \x00\xff/')
    return Case(number, "links", "links", chance.choice((*bombs, bytes(damaged), bytes(damaged))))


def _registration(number: int, chance: random.Random) -> Case:
    query = [*_QUERY]
    for _ in range(chance.randint(1, 4)):
        query[chance.randrange(len(query))] = chance.choice(
            (*_QUERIES, "ep=" + "x" * chance.choice((1, 128, 250, 9000)))
        )
    if not chance.randrange(4):
        query *= chance.choice((2, 50))
    kind = chance.choice(("register", "update"))
    return Case(
        number, "registration", kind, chance.choice((_LINKS, b"", _links(number, chance).payload)), query=tuple(query)
    )


_FAMILIES: tuple[Callable[[int, random.Random], Case], ...] = (
    _noise, _damaged, _cut, _spliced, _promises, _nested, _flood, _strange, _links, _registration,
)  # fmt: skip
