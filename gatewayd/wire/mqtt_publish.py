"""PUBLISH and PUBACK packets as bytes: the two that every request passes by. Pure.

paho has them too, but makes a table of all 27 properties of MQTT for each packet, which costs more than the inference in it.
Source: MQTT 5.0 §3.3, §3.4 and §2.2.2.2; MQTT 3.1.1 §3.3.
"""

from gatewayd.wire.mqtt import Message

_PUBLISH = 0x30
_EXPIRY, _CONTENT_TYPE, _RESPONSE_TOPIC, _CORRELATION = 0x02, 0x03, 0x08, 0x09
_SUBSCRIPTION, _USER = 0x0B, 0x26
# Properties of a PUBLISH that are nothing to us, by how many bytes they take: payload format, topic alias.
_FIXED = {0x01: 1, 0x23: 2}


class MalformedPacket(ValueError):
    """The bytes are no such packet."""


def encode_publish(message: Message, mid: int, *, is_v5: bool) -> bytes:
    """Return the packet. `mid` is its identifier, used with QoS 1."""
    topic, qos = message.topic.encode(), message.qos
    parts = [len(topic).to_bytes(2), topic]
    if qos:
        parts.append(mid.to_bytes(2))
    if is_v5:
        properties = _properties(message)
        parts += (_varint(len(properties)), properties)
    parts.append(message.payload)
    body = b"".join(parts)
    return bytes((_PUBLISH | qos << 1 | message.retain,)) + _varint(len(body)) + body


def decode_publish(flags: int, body: bytes | bytearray, *, is_v5: bool) -> tuple[Message | None, int]:
    """Return the message of a PUBLISH (None: its texts are not UTF-8), and its packet identifier (0 with QoS 0).

    `flags` is the packet's first byte, `body` what stands behind its length. Raises: MalformedPacket.
    """
    qos = flags >> 1 & 3
    start = 2 + int.from_bytes(body[:2])
    if start + (2 if qos else 0) > len(body):
        raise MalformedPacket("a PUBLISH ends within its topic")
    topic, mid = bytes(body[2:start]), 0
    if qos:
        mid = int.from_bytes(body[start : start + 2])
        start += 2
    found: dict[int, bytes] = {}
    if is_v5:
        length, start = _read_varint(body, start)
        if start + length > len(body):
            raise MalformedPacket("a PUBLISH ends within its properties")
        found = _read_properties(body, start, start + length)
        start += length
    try:
        return _message(topic, bytes(body[start:]), flags, found), mid
    except UnicodeDecodeError:
        return None, mid


def decode_puback(body: bytes | bytearray) -> tuple[int, int]:
    """Return the packet identifier and the reason code (0 where there is none). Raises: MalformedPacket."""
    if len(body) < 2:  # noqa: PLR2004 - the identifier
        raise MalformedPacket("a PUBACK without an identifier")
    return int.from_bytes(body[:2]), body[2] if len(body) > 2 else 0  # noqa: PLR2004 - as above


def _message(topic: bytes, payload: bytes, flags: int, found: dict[int, bytes]) -> Message:
    retain, is_redelivered = bool(flags & 1), bool(flags & 8)
    if not found:
        return Message(topic.decode(), payload, flags >> 1 & 3, retain, is_redelivered=is_redelivered)
    content_type, response_topic = found.get(_CONTENT_TYPE), found.get(_RESPONSE_TOPIC)
    expiry = found.get(_EXPIRY)
    return Message(
        topic.decode(),
        payload,
        flags >> 1 & 3,
        retain,
        None if content_type is None else content_type.decode(),
        None if response_topic is None else response_topic.decode(),
        found.get(_CORRELATION),
        None if expiry is None else int.from_bytes(expiry),
        is_redelivered,
    )


def _properties(message: Message) -> bytes:
    parts = []
    if message.expiry_s is not None:
        parts.append(b"\x02" + message.expiry_s.to_bytes(4))
    for kind, text in ((b"\x03", message.content_type), (b"\x08", message.response_topic)):
        if text is not None:
            content = text.encode()
            parts.append(kind + len(content).to_bytes(2) + content)
    if message.correlation is not None:
        parts.append(b"\x09" + len(message.correlation).to_bytes(2) + message.correlation)
    return b"".join(parts)


def _read_properties(body: bytes | bytearray, at: int, end: int) -> dict[int, bytes]:
    """Return the contents of the properties by their kind; of one that stands twice the last."""
    found = {}
    while at < end:
        kind = body[at]
        start, length = _extent(body, kind, at + 1)
        at = start + length
        if at > end:
            raise MalformedPacket("a property is longer than all of them")
        found[kind] = bytes(body[start:at])
    return found


def _extent(body: bytes | bytearray, kind: int, at: int) -> tuple[int, int]:
    """Return where the content of a property starts, and its length."""
    if kind in {_CONTENT_TYPE, _RESPONSE_TOPIC, _CORRELATION}:
        return at + 2, int.from_bytes(body[at : at + 2])
    if kind == _EXPIRY:
        return at, 4
    if kind == _USER:
        first = 2 + int.from_bytes(body[at : at + 2])
        return at, first + 2 + int.from_bytes(body[at + first : at + first + 2])
    if kind == _SUBSCRIPTION:
        return at, _read_varint(body, at)[1] - at
    if kind in _FIXED:
        return at, _FIXED[kind]
    raise MalformedPacket(f"a PUBLISH has no property {kind:#x}")


def _varint(number: int) -> bytes:
    """Source: MQTT 5.0 §1.5.5."""
    if number < 0x80:  # noqa: PLR2004 - seven bits to a byte
        return bytes((number,))
    found = bytearray()
    while True:
        number, low = number >> 7, number & 0x7F
        found.append(low | (0x80 if number else 0))
        if not number:
            return bytes(found)


def _read_varint(body: bytes | bytearray, at: int) -> tuple[int, int]:
    """Return the number and where the next byte stands."""
    number = 0
    for shift in (0, 7, 14, 21):
        if at >= len(body):
            break
        number |= (body[at] & 0x7F) << shift
        at += 1
        if body[at - 1] < 0x80:  # noqa: PLR2004 - the last byte
            return number, at
    raise MalformedPacket("a length that does not end")
