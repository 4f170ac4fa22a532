"""The second device without a connection, and what a gateway says to it."""

import hashlib
import itertools
import json
import struct
import textwrap
from typing import Any

import cbor2
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from tests.second_device.agent import Agent
from tests.second_device.flash import Flash, Sensor
from tests.second_device.module import trusted

SECRET = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
ARTIFACT = bytes(range(40))
Answer = dict[str, Any]


class Bench:
    """An agent without a connection, on a clock of its own; the model gives back what it is given."""

    def __init__(self, flash: Flash | None = None) -> None:
        self.said: list[tuple[str, bytes]] = []
        self.now = 0.0
        sensor = Sensor("mic", [4], 0.5, "raw@1", lambda number: struct.pack("<4h", number, 2, -3, 400))
        self.agent = Agent(
            flash or Flash(),
            keys=trusted(SECRET.public_key().public_bytes_raw().hex()),
            runner=lambda _model, inputs: inputs,
            sensor=sensor,
            say=lambda leaf, payload: self.said.append((leaf, payload)),
            chunk=16,
            clock=itertools.count(0, 250e-6).__next__,
        )
        self.agent.connected(self.now)

    def hear(self, leaf: str, payload: bytes) -> list[tuple[str, bytes]]:
        """Return what it says to one message, but for its status."""
        self.said.clear()
        self.agent.heard(leaf, payload, self.now)
        return [each for each in self.said if each[0] != "status"]

    def reports(self) -> list[Answer]:
        return [json.loads(payload) for leaf, payload in self.said if leaf == "push"]

    def pass_time(self, seconds: float) -> list[Answer]:
        """Return what it says about pushes in that time, with `at`, the second it was said."""
        begin, reports = self.now, list[Answer]()
        while self.now < begin + seconds:
            self.said.clear()
            self.now += 0.25
            self.agent.tick(self.now)
            reports += [each | {"at": self.now - begin} for each in self.reports()]
        return reports

    def to_trial(self) -> None:
        for leaf, payload in push_of(7):
            if leaf != "accept":
                self.hear(leaf, payload)


def signed(members: dict[int, object]) -> bytes:
    kid = hashlib.sha256(SECRET.public_key().public_bytes_raw()).digest()[:8]
    protected = cbor2.dumps({1: -8, 4: kid})
    content = cbor2.dumps(members, canonical=True)
    signature = SECRET.sign(cbor2.dumps(["Signature1", protected, b"", content]))
    return cbor2.dumps(cbor2.CBORTag(18, [protected, {}, content, signature]))


def push_of(
    push: int,
    *,
    version: int = 1,
    artifact: bytes = ARTIFACT,
    model: str = "echo",
    instead: list[str | int] | None = None,
) -> list[tuple[str, bytes]]:
    """What the gateway says in a push of these 40 bytes."""
    digest, tensor = hashlib.sha256(artifact).digest(), ["x", 1, [4], 0.5, -1]
    members: dict[int, object] = {
        1: 1,
        2: model,
        3: version,
        4: "tflite-int8",
        5: digest,
        6: 40,
        7: [0],
        8: 3,
        9: [],
        10: 2048,
    }
    members |= {11: [tensor], 12: [tensor], 13: [1, bytes.fromhex("2101c54f"), 0]}
    offer = signed(members | ({} if instead is None else {15: instead}))
    chunks = [struct.pack("<II", push, at) + artifact[at : at + 16] for at in (0, 16, 32)]
    order = json.dumps({"push": push}, separators=(",", ":")).encode()
    head = struct.pack("<I", push)
    return [("offer", head + offer), *(("chunk", each) for each in chunks), ("activate", order), ("accept", order)]


def written(way: str, leaf: str, payload: bytes) -> str:
    is_text = leaf in {"push", "activate", "accept", "drop"}
    shown = json.dumps(json.loads(payload), separators=(",", ":")) if is_text else payload.hex()
    return "\n".join(textwrap.wrap(f"{way}/{leaf}".ljust(14) + shown, 118, subsequent_indent=" " * 14)) + "\n"


def conversation(bench: Bench, messages: list[tuple[str, bytes]]) -> str:
    text = ""
    for leaf, payload in messages:
        text += written("down", leaf, payload)
        text += "".join(written("up", *each) for each in bench.hear(leaf, payload))
    return text


def unsure() -> list[tuple[str, bytes]]:
    head = [struct.pack("<IBBBBI", 0x1122334A + number, 0, 3, 0, 0, 1) for number in range(2)]
    return [("run", each + struct.pack("<i", least)) for each, least in zip(head, (100, 128), strict=True)]


def requests() -> list[tuple[str, bytes]]:
    return [
        ("run", struct.pack("<IBBBBI", 0x11223344, 0, 0, 0, 0, 1) + bytes([1, 2, 3, 0xFF])),
        ("run", struct.pack("<IBBBBI", 0x11223345, 0, 1, 0, 0, 1)),
        ("run", struct.pack("<IBBBBI", 0x11223346, 0, 1, 0, 0, 2)),
        ("sample", struct.pack("<IBBH", 0x11223347, 0, 0, 0)),
        ("sample", struct.pack("<IBBH", 0x11223348, 3, 0, 0)),
        ("ping", struct.pack("<I", 0x11223349)),
    ]
