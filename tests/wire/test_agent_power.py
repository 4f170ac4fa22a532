"""The agent when the power goes: what is in flash afterwards is always a device that works."""

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gatewayd.core.device import PushPhase
from gatewayd.core.names import PushId
from gatewayd.wire import agent_terms as terms
from gatewayd.wire import mqttdevice as wire
from gatewayd.wire.agent_journal import decode_journal, journal_bytes, newest_journal
from tests.agent_bench import (
    BAD,
    BROKEN,
    FIRST,
    SECOND,
    SLOT_BYTES,
    V1,
    V2,
    Bench,
    content_of,
    installed,
    offer_of,
    on_trial,
)


@pytest.mark.parametrize("chunks", [1, 2, 3])
def test_power_cut_resumes_at_the_first_byte_that_is_not_in_flash(chunks: int) -> None:
    bench = installed()
    bench.offer(SECOND)
    for _ in range(chunks):
        bench.chunk(2, V2)
    bench.said.clear()
    bench.start()
    assert bench.reports() == []
    bench.offer(SECOND)
    assert [(report.phase, report.offset) for report in bench.reports()] == [(PushPhase.WANT, chunks * 32)]
    bench.push(SECOND, V2)
    assert bench.runnable() == {"kws": 2}


def test_big_pages_resend_at_most_a_page() -> None:
    bench = Bench(page_bytes=64).start()
    bench.offer(FIRST)
    for _ in range(3):
        bench.chunk(1, V1)
    bench.start()
    bench.offer(FIRST)
    assert bench.reports()[-1].offset == 64


def test_power_cut_after_the_last_byte_needs_no_byte_again() -> None:
    bench = Bench().start()
    bench.transfer(FIRST, V1)
    bench.said.clear()
    bench.start()
    bench.offer(FIRST)
    assert bench.phases() == ["written", "verified", "tested"]


def test_every_model_invalid_still_works() -> None:
    bench = installed()
    bench.flash[0][5] ^= 1
    bench.start()
    assert bench.slots() == [("empty", "", 0)] * 2
    bench.push(replace(FIRST, push=PushId(5)), V1)
    assert bench.runnable() == {"kws": 1}


@pytest.mark.parametrize(("cut_after", "left"), [(0, {"kws": 1}), (1, {"kws": 2}), (2, {"kws": 2})])
def test_power_cut_while_accepting(cut_after: int, left: dict[str, int]) -> None:
    """The journal's write is the point of no return: torn, the old model is back; whole, the new one stays."""
    bench = on_trial()
    bench.cut_after = cut_after
    bench.send("accept", wire.encode_accept(PushId(2)))
    bench.start()
    assert bench.runnable() == left


@given(st.binary(max_size=300), st.integers(1, 3))
def test_any_journal_bytes_are_a_journal_or_none(content: bytes, count: int) -> None:
    assert decode_journal(content, slot_count=count, slot_bytes=SLOT_BYTES) is None


@given(st.integers(0, journal_bytes(2) - 1), st.integers(1, 255))
def test_any_changed_byte_voids_a_journal_copy(index: int, change: int) -> None:
    bench = installed()
    newest = max(bench.journals, key=lambda each: each[4:8][::-1])
    damaged = bytearray(newest)
    damaged[index] ^= change
    assert decode_journal(bytes(damaged), slot_count=2, slot_bytes=SLOT_BYTES) is None


models = st.sampled_from(["kws", "vww", "ic"])
kinds = st.sampled_from([b"good", b"good", b"good", BAD, BROKEN])
actions = st.one_of(
    st.tuples(st.just("offer"), models, st.integers(1, 4), kinds),
    st.tuples(st.just("push"), models, st.integers(1, 4), kinds),
    st.tuples(st.just("chunk")),
    st.tuples(st.sampled_from(["chunk", "activate", "accept", "cancel", "repeat", "connect", "disconnect", "reboot"])),
    st.tuples(st.just("wait"), st.sampled_from([1, 2_000, 30_000])),
    st.tuples(st.just("cut"), st.integers(0, 12)),
    st.tuples(st.just("garbage"), st.sampled_from(["offer", "chunk", "accept", "run", "x"]), st.binary(max_size=20)),
    st.tuples(st.just("stray"), st.sampled_from(range(4))),
)
STRAYS = (
    terms.SlotHashed(0, FIRST.digest),
    terms.SlotHashed(1, FIRST.digest),
    terms.BatteryChanged(10),
    terms.Ticked(),
)


class Player:
    """A gateway that does anything in any order; it knows what was accepted."""

    def __init__(self, slot_count: int) -> None:
        self.bench = Bench(slot_count=slot_count).start()
        self.offered, self.content, self.pushes = FIRST, V1, 1

    def play(self, action: tuple[object, ...]) -> None:
        match action:
            case ("offer" | "push", str(model), int(version), bytes(kind)):
                self._offer(model, version, kind, whole=action[0] == "push")
            case ("chunk",):
                wants = [report for report in self.bench.reports() if report.phase is PushPhase.WANT]
                if wants:
                    self.bench.chunk(self.offered.push, self.content, wants[-1])
            case ("repeat",):
                self.bench.offer(self.offered)
            case ("wait", int(ms)):
                self.bench.wait(ms)
            case ("cut", int(operations)):
                self.bench.cut_after = operations
            case ("garbage", str(kind_of), bytes(payload)):
                self.bench.send(kind_of, payload)
            case ("stray", int(which)):
                self.bench.take(STRAYS[which])
            case (str(name),):
                self._simple(name)

    def _offer(self, model: str, version: int, kind: bytes, *, whole: bool) -> None:
        self.pushes += 1
        self.content = content_of(model, version, kind=kind)
        self.offered = offer_of(self.pushes, self.content, model=model, version=version)
        if not whole:
            self.bench.offer(self.offered)
            return
        self.bench.offer(self.offered)
        for _ in range(4):
            self.play(("chunk",))
        self._simple("activate")
        self._simple("accept")

    def _simple(self, name: str) -> None:
        if name in {"activate", "accept", "cancel"}:
            self.bench.send(name, b'{"push":%d}' % self.offered.push)
        elif name == "connect":
            self.bench.take(terms.Connected())
        elif name == "disconnect":
            self.bench.take(terms.Disconnected())
        else:
            self.bench.boot()


@settings(max_examples=300, deadline=None)
@given(st.sampled_from([2, 3]), st.lists(actions, max_size=30))
def test_a_device_that_had_a_model_always_has_it_or_a_newer_one(
    slot_count: int, played: list[tuple[object, ...]]
) -> None:
    player = Player(slot_count)
    had: dict[str, int] = {}
    for action in played:
        player.play(action)
        now = player.bench.runnable()
        assert all(now.get(model, 0) >= version for model, version in had.items()), (action, had, now)
        assert len(now) < slot_count
        had = now
        _journal_agrees(player.bench)
    player.bench.boot()
    assert player.bench.runnable() == had
    _still_takes_a_push(player.bench)


def _journal_agrees(bench: Bench) -> None:
    """What the agent believes would survive the power going now."""
    found = newest_journal((bench.journals[0], bench.journals[1]), slot_count=bench.slot_count, slot_bytes=SLOT_BYTES)
    believed = tuple(bench.agent.state.slots)
    assert believed == (found.slots if found else (terms.EMPTY_SLOT,) * bench.slot_count)


def _still_takes_a_push(bench: Bench) -> None:
    """Whatever happened before, a good newer version of a model it has (or any, when it has none) gets through."""
    model, version = next(iter(bench.runnable().items()), ("kws", 0))
    content = content_of(model, version + 1)
    bench.take(terms.Connected())
    bench.push(offer_of(1000, content, model=model, version=version + 1), content)
    assert bench.runnable()[model] == version + 1
