"""One MQTT 5 connection with as little of its own as Python allows: the same small cost for every server that is measured."""

import socket
from collections.abc import Iterator
from typing import Self

_CONNACK, _PUBLISH, _PUBACK, _SUBACK = 0x20, 0x30, 0x40, 0x90


class WireClient:
    """Publishes one request over and over and takes the answers at `reply_topic`. Blocking; not for two threads."""

    def __init__(self, port: int, *, name: str, reply_topic: str) -> None:
        self._socket = socket.create_connection(("127.0.0.1", port), timeout=30)
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._reply_topic = reply_topic
        self._buffer = b""
        self._packets: list[bytes] = []
        self._identifier = 0
        variable = b"\x00\x04MQTT\x05\x02\x00\x3c\x00"
        self._send(0x10, variable + _text(name))
        self._until(_CONNACK)
        self._send(0x82, b"\x00\x01\x00" + _text(reply_topic) + b"\x01")
        self._until(_SUBACK)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.close()

    def request(self, topic: str, payload: bytes, *, content_type: str, qos: int) -> tuple[bytes, bytes]:
        """Return what stands before and after the packet identifier of such a request; QoS 0 has none: it is all before."""
        correlation = b"12345678"
        properties = b"\x03" + _text(content_type) + b"\x08" + _text(self._reply_topic)
        properties += b"\x09" + len(correlation).to_bytes(2) + correlation
        rest = _varint(len(properties)) + properties + payload
        head = _text(topic)
        length = len(head) + len(rest) + (2 if qos else 0)
        before = bytes([_PUBLISH | qos << 1]) + _varint(length) + head
        return (before, rest) if qos else (before + rest, b"")

    def send(self, request: tuple[bytes, bytes], *, qos: int) -> None:
        """Publish."""
        if qos:
            self._identifier = self._identifier % 60_000 + 1
            self._socket.sendall(request[0] + self._identifier.to_bytes(2) + request[1])
        else:
            self._socket.sendall(request[0])

    def answer(self) -> bytes:
        """Wait for the next answer; return the whole packet."""
        while True:
            packet = self._next()
            if packet[0] & 0xF0 == _PUBLISH:
                self._acknowledge(packet)
                return packet

    def answers_there(self) -> Iterator[bytes]:
        """Yield what has come already, without waiting."""
        self._socket.setblocking(False)  # noqa: FBT003 - the socket's own signature
        try:
            while True:
                more = self._socket.recv(262144)
                if not more:
                    raise ConnectionError("the broker hung up")
                self._buffer += more
        except BlockingIOError:
            pass
        finally:
            self._socket.settimeout(30)
        self._split()
        packets, self._packets = self._packets, []
        for packet in packets:
            if packet[0] & 0xF0 == _PUBLISH:
                self._acknowledge(packet)
                yield packet

    def _acknowledge(self, packet: bytes) -> None:
        if packet[0] & 0x06:
            start = 2
            while packet[start - 1] & 0x80:
                start += 1
            at = start + 2 + int.from_bytes(packet[start : start + 2])
            self._socket.sendall(b"\x40\x02" + packet[at : at + 2])

    def _until(self, kind: int) -> None:
        while self._next()[0] & 0xF0 != kind:
            pass

    def _next(self) -> bytes:
        while not self._packets:
            more = self._socket.recv(262144)
            if not more:
                raise ConnectionError("the broker hung up")
            self._buffer += more
            self._split()
        return self._packets.pop(0)

    def _split(self) -> None:
        """Cut what was read into whole packets."""
        at = 0
        while (end := _end_of_packet(self._buffer, at)) is not None:
            self._packets.append(self._buffer[at:end])
            at = end
        self._buffer = self._buffer[at:]

    def _send(self, first: int, rest: bytes) -> None:
        self._socket.sendall(bytes([first]) + _varint(len(rest)) + rest)


def _end_of_packet(buffer: bytes, at: int) -> int | None:
    length, shift, start = 0, 0, at + 1
    while True:
        if start >= len(buffer):
            return None
        length |= (buffer[start] & 0x7F) << shift
        start += 1
        shift += 7
        if not buffer[start - 1] & 0x80:
            break
    return start + length if start + length <= len(buffer) else None


def _text(text: str) -> bytes:
    return len(text.encode()).to_bytes(2) + text.encode()


def _varint(number: int) -> bytes:
    found = b""
    while True:
        number, low = number >> 7, number & 0x7F
        found += bytes([low | (0x80 if number else 0)])
        if not number:
            return found
