"""The agent's test vectors, as files that another implementation can run: `python -m tests.agent_vectors` writes them.

Each file is a board and a list of steps: an event with its time, the commands it leads to in order, and now and then a power cut
in the middle of the flash operations of these commands; at the end stands what is in flash. docs/device-agent.md says how to
run them.
"""

import json
from collections.abc import Callable, Sequence
from dataclasses import fields, is_dataclass, replace
from enum import Enum
from pathlib import Path

from gatewayd.core.compression import deflated
from gatewayd.core.device import Capabilities
from gatewayd.core.module import Deflate, Held
from gatewayd.core.names import ModelName, PushId
from gatewayd.sim.flash import PowerCut, Tear
from gatewayd.wire import agent_terms as terms
from gatewayd.wire import mqttdevice as wire
from gatewayd.wire.mqttdevice import OfferMessage
from prove.device import digest_of
from tests.agent_bench import BAD, CHUNK, FIRST, SECOND, V1, V2, Bench, content_of, make_capabilities, offer_of
from tests.signing import PUBLIC

FOLDER = Path(__file__).parent / "vectors" / "agent"
Json = dict[str, object]
SPEAKER = content_of("speaker", 1)


class Recorder(Bench):
    """A bench that writes down what happens."""

    def __init__(self, *, capabilities: Capabilities | None = None, slot_count: int = 2) -> None:
        super().__init__(capabilities=capabilities, slot_count=slot_count, takes_one_slot=slot_count == 1)
        self.steps: list[Json] = []

    def carry_out(self, event: terms.Event, commands: Sequence[terms.Command]) -> list[terms.Event]:
        step: Json = {"now_ms": self.now_ms, "event": plain(event), "commands": [plain(each) for each in commands]}
        self.steps.append(step)
        before = self.flash.power.done
        try:
            return super().carry_out(event, commands)
        except PowerCut:
            step["power_cut"] = {"operation": self.flash.power.done - before - 1, "done": self.flash.power.tear.value}
            raise

    def vector(self, about: str) -> Json:
        """Return the whole file's content."""
        board = {
            "slots": self.slot_count, "slot_bytes": self.capabilities.slot_bytes, "takes_one_slot": self.board.takes_one_slot,
            "drops_models": self.capabilities.drops_models, "returns_bytes": self.capabilities.returns_bytes,
            "deflate_bits": self.capabilities.deflate_bits, "page_bytes": self.page_bytes,
            "chunk_bytes": self.capabilities.chunk_bytes, "arena_bytes": self.capabilities.arena_bytes,
            "runtime_abi": self.capabilities.runtime_abi, "operators": sorted(self.capabilities.operators or ()),
            "public_keys": [PUBLIC.hex()],
        }  # fmt: skip
        first, second = self.flash.journals()
        slots = [self.flash.read(slot, 0, self.capabilities.slot_bytes) for slot in range(self.slot_count)]
        flash = {"journals": [_trimmed(first), _trimmed(second)], "slots": [_trimmed(content) for content in slots]}
        return {"about": about, "board": board, "steps": self.steps, "flash": flash}


def plain(value: object) -> object:
    """Return a value as JSON: a class becomes its name and fields, bytes become hex; at boot the journals are in flash."""
    if isinstance(value, terms.Booted):
        return {"type": "Booted"}
    if isinstance(value, Enum):
        return value.name
    if isinstance(value, bytes):
        return value.hex()
    if is_dataclass(value) and not isinstance(value, type):
        return {"type": type(value).__name__} | {each.name: plain(getattr(value, each.name)) for each in fields(value)}
    return value


def installs() -> Recorder:
    """A first model, on an empty device."""
    bench = Recorder()
    bench.start()
    bench.push(FIRST, V1)
    return bench


def updates() -> Recorder:
    """A second version takes over; the first one's slot is erased."""
    bench = installs()
    bench.push(SECOND, V2)
    bench.run(1, 2)
    return bench


def loses_power_while_it_writes() -> Recorder:
    """A page of the model is torn: it goes on at that page."""
    bench = installs()
    bench.offer(SECOND)
    bench.chunk(2, V2)
    bench.cut_after(0, Tear.HALF)
    bench.chunk(2, V2)
    bench.start()
    bench.push(SECOND, V2)
    return bench


def loses_power_while_it_accepts(operations: int) -> Recorder:
    """The journal is torn in the accept."""
    bench = installs()
    bench.transfer(SECOND, V2)
    bench.send("activate", wire.encode_activate(PushId(2)))
    bench.cut_after(operations, Tear.ALMOST)
    bench.send("accept", wire.encode_accept(PushId(2)))
    bench.start()
    bench.send("accept", wire.encode_accept(PushId(2)))
    return bench


def restarts_again_and_again_on_trial() -> Recorder:
    """The fourth start of a trial goes back to the old model."""
    bench = installs()
    bench.transfer(SECOND, V2)
    bench.send("activate", wire.encode_activate(PushId(2)))
    for _ in range(terms.MAX_ATTEMPTS + 1):
        bench.start()
    return bench


def is_not_accepted() -> Recorder:
    """The trial's time is over."""
    bench = installs()
    bench.transfer(SECOND, V2)
    bench.send("activate", wire.encode_activate(PushId(2)))
    bench.wait(terms.TRIAL_MS)
    return bench


def gets_wrong_bytes() -> Recorder:
    """The digest differs."""
    bench = installs()
    bench.transfer(SECOND, V2[:-1] + b"?")
    return bench


def fails_its_self_test() -> Recorder:
    """The output differs."""
    bench, content = installs(), content_of("kws", 2, kind=BAD)
    bench.transfer(offer_of(2, content, version=2), content)
    return bench


def refuses() -> Recorder:
    """Offers that cannot be taken, one by one; then one that is not signed."""
    bench = installs()
    bench.offer(offer_of(2, V2, version=2, arena=1001))
    bench.offer(offer_of(3, V2, version=2, operator="POW"))
    bench.offer(offer_of(4, content_of("vww", 1), model="vww"))
    bench.offer(offer_of(5, V2, version=1))
    bench.send("offer", wire.encode_offer(PushId(6), bytes(100)))
    return bench


def holds_no_model_that_is_whole() -> Recorder:
    """The one model rots: the device starts, says so and takes a push."""
    bench = installs()
    bench.rot(bench.flash.layout.slot_address(0) + 50)
    bench.steps.append({"rot": {"slot": 0, "offset": 50, "xor": 1}})
    bench.start()
    bench.push(replace(FIRST, push=PushId(5)), V1)
    return bench


def loses_a_journal_copy() -> Recorder:
    """After an accept a copy of the journal rots: the other one says the same, and the copy is mended."""
    bench = updates()
    bench.rot(bench.flash.layout.journal_address(0) + 100)
    bench.steps.append({"rot": {"journal": 0, "offset": 100, "xor": 1}})
    bench.start()
    return bench


def is_superseded_and_cancelled() -> Recorder:
    """A newer push replaces an unfinished one, and is cancelled."""
    bench = installs()
    bench.offer(SECOND)
    bench.chunk(2, V2)
    third = content_of("kws", 3)
    bench.offer(offer_of(3, third, version=3))
    bench.chunk(3, third)
    bench.send("cancel", wire.encode_cancel(PushId(3), "not today"))
    return bench


LONG = (b"good" + b"".join(digest_of(bytes([number])).encode() for number in range(4)))[:200]
"""A model that takes four chunks when it is compressed."""


def deflated_offer(
    push: int, content: bytes, *, version: int = 1, stream: bytes | None = None, encoding: Deflate | None = None
) -> OfferMessage:
    """Offer a version that travels compressed, by default as it should."""
    sent = deflated(content, 9) if stream is None else stream
    encoding = encoding or Deflate(9, len(sent), digest_of(sent))
    return replace(offer_of(push, content, version=version), encoding=encoding)


def decodes() -> Recorder:
    """What is sent is a DEFLATE stream: it is received in the slot's last pages, hashed, decoded into the first, hashed again."""
    bench = Recorder(capabilities=make_capabilities(slot_bytes=512, deflate_bits=9))
    bench.start()
    bench.push(deflated_offer(1, LONG), deflated(LONG, 9))
    return bench


def loses_power_while_it_decodes() -> Recorder:
    """A page of the decoded artifact is torn: the first pages are erased, and it is decoded anew; nothing is sent again."""
    bench = Recorder(capabilities=make_capabilities(slot_bytes=512, deflate_bits=9))
    bench.start()
    stream = deflated(LONG, 9)
    bench.offer(deflated_offer(1, LONG))
    while bench.reports()[-1].offset + CHUNK < len(stream):
        bench.chunk(1, stream)
    bench.cut_after(5, Tear.HALF)
    bench.chunk(1, stream)
    bench.start()
    bench.push(deflated_offer(1, LONG), stream)
    return bench


def refuses_streams() -> Recorder:
    """Streams that are not what the manifest says: a flipped bit, a bomb, one that ends early, one with bytes after its end."""
    bench = Recorder(capabilities=make_capabilities(slot_bytes=512, deflate_bits=9))
    bench.start()
    stream = deflated(LONG, 9)
    bench.transfer(deflated_offer(1, LONG), bytes([stream[0] ^ 1]) + stream[1:])
    for push, bad in enumerate((deflated(bytes(100_000), 9), deflated(LONG[:-9], 9), stream + b"\0"), start=2):
        bench.transfer(deflated_offer(push, LONG, stream=bad), bad)
    bench.offer(deflated_offer(6, LONG, encoding=Deflate(9, 400, digest_of(stream))))
    bench.offer(deflated_offer(7, LONG, encoding=Deflate(10, len(stream), digest_of(stream))))
    return bench


def has_one_slot() -> Recorder:
    """A device with one slot that gives up its model for a newer version; that one is cancelled, and pushed again."""
    bench = Recorder(slot_count=1)
    bench.start()
    bench.push(FIRST, V1)
    bench.offer(SECOND)
    bench.chunk(2, V2)
    bench.send("cancel", wire.encode_cancel(PushId(2), "not today"))
    bench.push(replace(SECOND, push=PushId(3)), V2)
    return bench


def _holds_two() -> Recorder:
    bench = Recorder(capabilities=replace(make_capabilities(), drops_models=True), slot_count=3)
    bench.start()
    bench.push(FIRST, V1)
    bench.push(offer_of(5, SPEAKER, model="speaker"), SPEAKER)
    return bench


def _drop(bench: Recorder, *, version: int = 1, model: str = "kws", content: bytes = V1, last: bool = False) -> None:
    message = wire.DropMessage(9, ModelName(model), version, digest_of(content), last)
    bench.send("drop", wire.encode_drop(message))


def drops() -> Recorder:
    """Another version, the model itself, the same again, the only one that is left, and that one when the last is meant."""
    bench = _holds_two()
    _drop(bench, version=2)
    _drop(bench)
    _drop(bench)
    _drop(bench, model="speaker", content=SPEAKER)
    _drop(bench, model="speaker", content=SPEAKER, last=True)
    return bench


def loses_power_while_it_drops(operation: int) -> Recorder:
    """The journal is torn in a drop: the model is there or not; the same drop again ends it."""
    bench = _holds_two()
    bench.cut_after(operation, Tear.ALMOST)
    _drop(bench)
    bench.start()
    _drop(bench)
    return bench


def gives_way() -> Recorder:
    """A full device: the offer is refused, then taken instead of the model that is there, which leaves with the accept."""
    bench = Recorder(capabilities=replace(make_capabilities(), drops_models=True))
    bench.start()
    bench.push(FIRST, V1)
    bench.offer(offer_of(5, SPEAKER, model="speaker"))
    bench.offer(replace(offer_of(6, SPEAKER, model="speaker"), instead_of=Held(ModelName("kws"), 2)))
    instead = replace(offer_of(7, SPEAKER, model="speaker"), instead_of=Held(ModelName("kws"), 1))
    bench.offer(instead)
    bench.chunk(7, SPEAKER)
    bench.start()
    bench.transfer(instead, SPEAKER)
    bench.send("activate", wire.encode_activate(PushId(7)))
    bench.start()
    bench.send("accept", wire.encode_accept(PushId(7)))
    return bench


VECTORS: dict[str, Callable[[], Recorder]] = {
    "install": installs,
    "update": updates,
    "power-cut-in-a-page": loses_power_while_it_writes,
    "power-cut-in-the-first-journal-copy": lambda: loses_power_while_it_accepts(0),
    "power-cut-in-the-second-journal-copy": lambda: loses_power_while_it_accepts(9),
    "restarts-on-trial": restarts_again_and_again_on_trial,
    "trial-not-confirmed": is_not_accepted,
    "digest-differs": gets_wrong_bytes,
    "self-test-differs": fails_its_self_test,
    "refusals": refuses,
    "no-model-is-whole": holds_no_model_that_is_whole,
    "journal-copy-rots": loses_a_journal_copy,
    "superseded-and-cancelled": is_superseded_and_cancelled,
    "deflate": decodes,
    "deflate-power-cut": loses_power_while_it_decodes,
    "deflate-refusals": refuses_streams,
    "one-slot": has_one_slot,
    "drop": drops,
    "drop-power-cut-in-the-first-journal-copy": lambda: loses_power_while_it_drops(0),
    "drop-power-cut-in-the-second-journal-copy": lambda: loses_power_while_it_drops(12),
    "gives-way": gives_way,
}


def text_of(name: str) -> str:
    """Return a vector's file."""
    make = VECTORS[name]
    about = " ".join((make.__doc__ or f"See the agent's document: {name}.").split())
    return json.dumps(make().vector(about), indent=1) + "\n"


def _trimmed(content: bytes) -> str:
    """Erased bytes at the end are left out."""
    return content.rstrip(b"\xff").hex()


def main() -> None:
    """Write every file."""
    FOLDER.mkdir(parents=True, exist_ok=True)
    for name in VECTORS:
        (FOLDER / f"{name}.json").write_text(text_of(name))


if __name__ == "__main__":
    main()
