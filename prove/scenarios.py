"""What a cut alone does not show: bad models, bad offers, a gateway that goes for good, flash that changes by itself.

Each scenario is a function from the starting point to what was wrong in it (nothing, when all is well).
"""

import zlib
from collections.abc import Callable
from dataclasses import replace

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from gatewayd.core.compression import deflated
from gatewayd.core.device import PushPhase
from gatewayd.core.names import PushId
from gatewayd.wire import agent_terms as terms
from gatewayd.wire import mqttdevice as wire
from prove.cuts import Cut, Kind
from prove.device import Device
from prove.gateway import KEYS
from prove.keys import KEY
from prove.models import NEW, OLD, Artifact, artifact_of
from prove.outcome import Base
from prove.world import World, run

Scenario = Callable[[Base], list[str]]

_WRONG = b"????"
_TRICKLE_S, _A_DAY_S = 9.0, 86_400.0
_ACTIVATE_MESSAGES = 5
"""Messages from the end of a push back to a point where the model is on trial."""


def fails_its_self_test(base: Base) -> list[str]:
    """A model that answers wrongly is never let on trial."""
    world = World(_with(base, _remade(base, tested=_WRONG)))
    outcome = world.run(NEW)
    return outcome.faults + _unless(outcome.version == OLD and "trial" not in world.phases, "it was let on trial")


def fails_its_trial(base: Base) -> list[str]:
    """A model that the gateway finds wrong is rolled back."""
    outcome = World(_with(base, _remade(base, expected=_WRONG))).run(NEW)
    return outcome.faults + _unless(outcome.version == OLD, "it was kept")


def resets_the_board_in_its_self_test(base: Base) -> list[str]:
    """A model that resets the board ends after a few tries."""
    world = World(base)
    world.device.resets_in_test = NEW
    return _given_up(world)


def resets_the_board_in_its_trial(base: Base) -> list[str]:
    """The same when it happens later."""
    world = World(base)
    world.device.resets_in_run = NEW
    return _given_up(world)


def is_older(base: Base) -> list[str]:
    """A signed offer of an old version, heard again, is refused."""
    world = World(base)
    world.run(NEW)
    world.device.hand_in(_offer(base.artifacts[OLD].signed), 10**6)
    return _unless(world.phases[-1] == "rejected", "an older version was not rejected")


def is_signed_by_a_stranger(base: Base) -> list[str]:
    """Only trusted keys sign what is installed."""
    stranger = Ed25519PrivateKey.from_private_bytes(bytes(32))
    outcome = World(_with(base, _remade(base, key=stranger))).run(NEW)
    return outcome.faults + _unless(outcome.version == OLD, "a stranger's model was installed")


def has_a_flipped_bit(base: Base) -> list[str]:
    """Of the signed manifest: each byte in turn, its lowest bit."""
    signed, wrong = base.artifacts[NEW].signed, []
    for index in range(len(signed)):
        world = World(base)
        world.start()
        flipped = signed[:index] + bytes([signed[index] ^ 1]) + signed[index + 1 :]
        world.device.hand_in(_offer(flipped), 10**6)
        if world.phases[-1:] != ["rejected"]:
            wrong.append(f"byte {index} of the manifest flipped: {world.phases[-1:]}")
    return wrong


def is_left_on_trial(base: Base) -> list[str]:
    """A gateway that goes for good in the trial leaves the old model."""
    counts = run(base, ()).counts
    wrong = []
    for back in range(1, _ACTIVATE_MESSAGES + 1):
        world = World(base, [Cut(Kind.GATEWAY, counts.messages - back)])
        world.is_gateway_mortal = True
        outcome = world.run(NEW)
        wrong += [fault for fault in outcome.faults if not fault.startswith(("the device runs", "the gateway's push"))]
    return wrong


def rots(base: Base) -> list[str]:
    """A model whose flash changed by itself is not shown as runnable."""
    world = World(base)
    world.device.cells.content[world.device.flash.layout.slot_address(_slot_of(base)) + 1000] ^= 1
    world.device.power_on(0)
    return _unless(not world.device.models(), "a model that changed in flash is shown as runnable")


def has_flipped_bytes_on_the_way(base: Base) -> list[str]:
    """Of a stream, a bit in each chunk in turn: it is dropped before a byte of it is decoded."""
    if base.geometry.deflate_bits is None:
        return []
    wrong = []
    for message in range(run(base, ()).counts.messages):
        world = World(base, [Cut(Kind.CORRUPT, message)])
        outcome = world.run(NEW)
        wrong += outcome.faults
        is_old = outcome.version == OLD
        wrong += _unless(not (is_old and world.device.unpackings), f"message {message} flipped: it was decoded")
    return wrong


def decodes_to_something_else(base: Base) -> list[str]:
    """Streams that are signed but not what they should be: longer, shorter, cut off, followed by more, reaching back too far."""
    bits = base.geometry.deflate_bits
    if bits is None:
        return []
    content = base.artifacts[NEW].content
    far = zlib.compressobj(9, zlib.DEFLATED, -15)
    bad = {
        "a bomb": deflated(bytes(1_000_000), bits),
        "a byte more": deflated(content + b"x", bits),
        "a byte less": deflated(content[:-1], bits),
        "another content": deflated(base.artifacts[OLD].content, bits),
        "no end": deflated(content, bits)[:-3],
        "bytes after the end": deflated(content, bits) + b"\0",
        "a wider window": far.compress(content[:-100] + content[:100]) + far.flush(),
        "nonsense": b"\xff" * 500,
    }
    wrong = []
    for name, stream in bad.items():
        world = World(_with(base, artifact_of(NEW, content, deflate_bits=bits, stream=stream)))
        outcome = world.run(NEW)
        wrong += outcome.faults + _unless(outcome.version == OLD, f"{name} was installed")
        wrong += _unless("verified" not in world.phases, f"{name}: called verified")
    return wrong


def cannot_be_decoded_here(base: Base) -> list[str]:
    """A stream of a wider window than declared, and one that the slot does not hold beside the artifact, are rejected."""
    if base.geometry.deflate_bits is None:
        return []
    content, wrong = base.artifacts[NEW].content, []
    full = -(-len(content) // base.geometry.page_bytes) * base.geometry.page_bytes
    cramped = replace(base.geometry, slot_bytes=full + base.geometry.page_bytes)
    wide = artifact_of(NEW, content, deflate_bits=base.geometry.deflate_bits + 1)
    for name, geometry, artifact in (
        ("a wider window", base.geometry, wide),
        ("no room", cramped, base.artifacts[NEW]),
    ):
        said: list[terms.Publish] = []
        device = Device(geometry, KEYS, said.append)
        device.power_on(0)
        device.hand_in(terms.Connected(), 0)
        device.hand_in(_offer(artifact.signed), 0)
        wrong += _unless(b"rejected" in said[-1].payload, f"{name}: the device took the offer")
    return wrong


def loses_its_last_words(base: Base) -> list[str]:
    """The device kept the model and nobody heard it: the gateway calls that a failure, until the device is born again."""
    counts = run(base, ()).counts
    outcome = run(base, (Cut(Kind.LOSS, counts.messages - 2), Cut(Kind.LOSS, 0)))
    is_well = outcome.version == NEW and outcome.is_corrected
    return outcome.faults + _unless(is_well, "its end was not corrected")


def trickles(base: Base) -> list[str]:
    """A device that asks for a byte at a time does not hold its place for ever."""
    world = World(base)
    world.start()
    world.gateway.push(NEW)
    live = world.gateway.live
    for offset in range(len(base.artifacts[NEW].stream)):
        if live is None or world.gateway.live is None:
            return []
        world.gateway.now_s += _TRICKLE_S
        world.gateway.tick()
        world.gateway.hear("push", wire.encode_push_report(live.id, PushPhase.WANT, offset=offset, length=1))
        if world.gateway.now_s > _A_DAY_S:
            break
    return ["it held its place for a day"]


SCENARIOS: tuple[Scenario, ...] = (
    fails_its_self_test, fails_its_trial, resets_the_board_in_its_self_test, resets_the_board_in_its_trial, is_older,
    is_signed_by_a_stranger, has_a_flipped_bit, is_left_on_trial, rots, decodes_to_something_else,
    has_flipped_bytes_on_the_way, cannot_be_decoded_here, loses_its_last_words, trickles,
)  # fmt: skip


def _with(base: Base, artifact: Artifact) -> Base:
    return replace(base, artifacts=base.artifacts | {artifact.version: artifact})


def _remade(
    base: Base, *, tested: bytes | None = None, expected: bytes | None = None, key: Ed25519PrivateKey = KEY
) -> Artifact:
    content, bits = base.artifacts[NEW].content, base.geometry.deflate_bits
    return artifact_of(NEW, content, tested=tested, expected=expected, key=key, deflate_bits=bits)


def _offer(signed: bytes) -> terms.Event:
    return terms.MessageReceived("offer", wire.encode_offer(PushId(99), signed))


def _given_up(world: World) -> list[str]:
    outcome = world.run(NEW)
    is_soon = world.restarts <= terms.MAX_ATTEMPTS + 2
    return (
        outcome.faults + _unless(outcome.version == OLD, "it was kept") + _unless(is_soon, f"{world.restarts} restarts")
    )


def _slot_of(base: Base) -> int:
    world = World(base)
    world.device.power_on(0)
    return next(iter(world.device.models()))


def _unless(is_well: bool, fault: str) -> list[str]:  # noqa: FBT001 - reads as a sentence
    return [] if is_well else [fault]
