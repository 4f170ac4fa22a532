"""The agent when the power goes: what is in flash afterwards is always a device that works."""

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gatewayd.core.device import PushPhase
from gatewayd.core.names import PushId
from gatewayd.sim.flash import Tear
from gatewayd.wire import agent_terms as terms
from gatewayd.wire import mqttdevice as wire
from gatewayd.wire.agent_journal import (
    PROGRESS_BYTES,
    Journal,
    JournalCopy,
    encode_state,
    journal_bytes,
    newest_copy,
    read_copy,
    state_bytes,
)
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
    bench.rot(bench.flash.layout.slot_address(0) + 5)
    bench.start()
    assert bench.slots() == [("empty", "", 0)] * 2
    bench.push(replace(FIRST, push=PushId(5)), V1)
    assert bench.runnable() == {"kws": 1}


@pytest.mark.parametrize("tear", Tear)
@pytest.mark.parametrize(
    ("operations", "left"), [(0, {"kws": 1}), (9, {"kws": 2}), (10, {"kws": 2}), (11, {"kws": 2}), (18, {"kws": 2})]
)
def test_power_cut_while_accepting(operations: int, left: dict[str, int], tear: Tear) -> None:
    """The first copy's record is the point of no return: torn, the trial goes on; whole, the new model stays."""
    bench = on_trial()
    bench.cut_after(operations, tear)
    bench.send("accept", wire.encode_accept(PushId(2)))
    bench.start()
    assert bench.runnable() == left
    bench.send("accept", wire.encode_accept(PushId(2)))
    assert bench.runnable() == {"kws": 2}


def copy_of(content: bytes, *, slot_count: int = 2) -> JournalCopy:
    return read_copy(content, slot_count=slot_count, slot_bytes=SLOT_BYTES, copy_bytes=len(content))


@given(st.binary(max_size=300), st.integers(1, 3))
def test_any_journal_bytes_are_a_journal_or_none(content: bytes, count: int) -> None:
    assert copy_of(content, slot_count=count) == JournalCopy(None, -1)


@given(st.integers(0, 15), st.integers(1, 255))
def test_a_changed_byte_of_a_progress_record_leaves_the_state_before(index: int, change: int) -> None:
    bench = Bench().start()
    bench.offer(FIRST)
    bench.chunk(1, V1)
    whole = copy_of(bench.flash.journals()[0])
    assert whole.journal is not None
    damaged = bytearray(bench.flash.journals()[0])
    damaged[whole.end - PROGRESS_BYTES + index] ^= change
    assert copy_of(bytes(damaged)) == JournalCopy(replace(whole.journal, sequence=1, offset=0), -1)


@given(st.integers(0, state_bytes(2) - 1 - 8), st.integers(1, 255), st.integers(0, 1))
@settings(max_examples=50, deadline=None)
def test_after_an_accept_either_copy_may_rot(index: int, change: int, copy: int) -> None:
    """The old model's slot is erased by then: a copy that remembered it would leave nothing to run."""
    bench = on_trial()
    bench.send("accept", wire.encode_accept(PushId(2)))
    end = copy_of(bench.flash.journals()[copy]).end
    bench.rot(bench.flash.layout.journal_address(copy) + end - state_bytes(2) + index, change)
    bench.start()
    assert bench.runnable() == {"kws": 2}
    _journal_agrees(bench)


def test_any_changed_byte_voids_a_state_record() -> None:
    state = installed().agent.state
    record = encode_state(Journal(7, PushId(1), 0, 0, tuple(state.slots), tuple(state.floors)))
    for index in range(20 + 2 * (104 + 8) + 4):
        damaged = bytearray(record)
        damaged[index] ^= 0x10
        assert copy_of(bytes(damaged)) == JournalCopy(None, -1)


def test_the_journal_is_as_the_document_says() -> None:
    assert [state_bytes(count) for count in (1, 2, 3, 8)] == [144, 256, 368, 928]
    assert [journal_bytes(2, page) for page in (256, 1024, 2048, 4096)] == [1024, 1024, 2048, 4096]
    assert journal_bytes(8, 1024) == 4096


def test_a_trial_goes_on_after_a_restart_but_not_for_ever() -> None:
    """A model that resets its device looks like a power cut, until it does so again and again."""
    bench = on_trial()
    for _ in range(terms.MAX_ATTEMPTS):
        bench.start()
        assert bench.phases()[-1] == "trial"
    bench.start()
    assert bench.phases()[-1] == "failed"
    assert bench.reports()[-1].reason == "trial: the device restarted 4 times"
    assert bench.runnable() == {"kws": 1}


def test_a_self_test_that_resets_the_device_is_given_up() -> None:
    bench = installed()
    bench.transfer(SECOND, V2)
    bench.start()
    for _ in range(terms.MAX_ATTEMPTS - 1):
        bench.dies_in_test = True
        bench.offer(SECOND)
        bench.start()
    bench.dies_in_test = False
    bench.offer(SECOND)
    assert bench.reports()[-1].reason == "self-test: the device restarted in 3 attempts"
    assert bench.runnable() == {"kws": 1}


def test_a_rotten_model_on_trial_is_gone() -> None:
    bench = on_trial()
    bench.rot(bench.flash.layout.slot_address(1) + 50)
    bench.start()
    assert bench.reports()[-1].reason == "trial: the model in flash changed"
    assert bench.runnable() == {"kws": 1}


def test_an_older_version_is_refused_even_when_the_newer_model_is_gone() -> None:
    bench = Bench().start()
    bench.push(SECOND, V2)
    bench.rot(bench.flash.layout.slot_address(0) + 50)
    bench.start()
    bench.offer(offer_of(3, V1, version=1))
    assert bench.reports()[-1].reason == "version 1: 2 is installed"
    bench.push(replace(SECOND, push=PushId(4)), V2)
    assert bench.runnable() == {"kws": 2}


def test_versions_of_models_that_are_there_are_never_forgotten() -> None:
    bench = Bench(slot_count=2).start()
    for number, model in enumerate(["kws", "vww", "ic", "ad"], start=1):
        content = content_of(model, 5)
        bench.push(offer_of(number, content, model=model, version=5), content)
        bench.offer(offer_of(100 + number, content_of(model, 4), model=model, version=4))
        assert bench.reports()[-1].reason.startswith(("version 4: 5", "no free slot"))
        bench.rot(bench.flash.layout.slot_address(bench.agent.state.staging) + 50)
        bench.start()


models = st.sampled_from(["kws", "vww", "ic"])
kinds = st.sampled_from([b"good", b"good", b"good", BAD, BROKEN])
actions = st.one_of(
    st.tuples(st.just("offer"), models, st.integers(1, 4), kinds),
    st.tuples(st.just("push"), models, st.integers(1, 4), kinds),
    st.tuples(st.just("chunk")),
    st.tuples(st.sampled_from(["chunk", "activate", "accept", "cancel", "repeat", "connect", "disconnect", "reboot"])),
    st.tuples(st.just("wait"), st.sampled_from([1, 2_000, 30_000])),
    st.tuples(st.just("cut"), st.integers(0, 40), st.sampled_from(Tear)),
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
            case ("cut", int(operations), Tear() as tear):
                self.bench.cut_after(operations, tear)
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
    first, second = (copy_of(content, slot_count=bench.slot_count) for content in bench.flash.journals())
    believed = tuple(bench.agent.state.slots)
    found = (first, second)[newest_copy((first, second))].journal
    assert believed == (found.slots if found else (terms.EMPTY_SLOT,) * bench.slot_count)
    assert first.journal == second.journal


def _still_takes_a_push(bench: Bench) -> None:
    """Whatever happened before, a good newer version of a model it has (or any, when it has none) gets through."""
    model, version = next(iter(bench.runnable().items()), ("kws", 0))
    content = content_of(model, version + 1)
    bench.take(terms.Connected())
    bench.push(offer_of(1000, content, model=model, version=version + 1), content)
    assert bench.runnable()[model] == version + 1
