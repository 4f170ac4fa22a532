from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gatewayd.core.device import Born, PushPhase, SlotState
from gatewayd.core.names import PushId
from gatewayd.wire import agent_terms as terms
from gatewayd.wire import mqttdevice as wire
from gatewayd.wire.agent_journal import decode_journal, journal_bytes, newest_journal
from gatewayd.wire.agent_push import is_due
from gatewayd.wire.mqttdevice import FrameStatus, OfferMessage
from tests.agent_bench import BAD, BROKEN, DEVICE, SLOT_BYTES, Bench, capabilities, content_of, offer_of

V1, V2 = content_of("kws", 1), content_of("kws", 2)
FIRST, SECOND = offer_of(1, V1), offer_of(2, V2, version=2)
WHOLE_PUSH = ["want", "written", "verified", "tested", "trial", "accepted"]


def installed() -> Bench:
    bench = Bench().start()
    bench.push(FIRST, V1)
    bench.said.clear()
    return bench


def test_whole_push_onto_an_empty_device() -> None:
    bench = Bench().start()
    bench.push(FIRST, V1)
    assert bench.phases() == WHOLE_PUSH
    assert bench.slots() == [("active", "kws", 1), ("empty", "", 0)]
    assert bench.run(0, 1).content == b"kws1\x01"


def test_birth_says_what_it_holds() -> None:
    bench = installed()
    bench.take(terms.Connected())
    birth = bench.last("status")
    assert (birth.qos, birth.retain) == (1, True)
    born = wire.decode_up("status", birth.payload, DEVICE)
    assert isinstance(born, Born)
    assert born.report.battery == 0.9
    assert [slot.state for slot in born.report.slots] == [SlotState.ACTIVE, SlotState.EMPTY]


def test_update_keeps_the_old_model_until_it_is_accepted() -> None:
    bench = installed()
    bench.transfer(SECOND, V2)
    assert bench.slots() == [("active", "kws", 1), ("staging", "kws", 2)]
    assert bench.run(0, 1).status is FrameStatus.OK
    assert bench.run(1, 2).status is FrameStatus.REFUSED
    bench.send("activate", wire.encode_activate(PushId(2)))
    assert bench.slots() == [("active", "kws", 1), ("trial", "kws", 2)]
    assert bench.run(1, 2).content == b"kws2\x01"
    bench.send("accept", wire.encode_accept(PushId(2)))
    assert bench.slots() == [("empty", "", 0), ("active", "kws", 2)]
    assert bench.flash[0] == b"\xff" * SLOT_BYTES


@pytest.mark.parametrize(
    ("offer", "reason"),
    [
        (offer_of(2, content_of("kws", 2, size=SLOT_BYTES + 1), version=2), "size 257 > 256 bytes of a slot"),
        (offer_of(2, V2, version=2, arena=1001), "arena 1001 > 1000 bytes"),
        (offer_of(2, V2, version=2, abi=4), "abi 4: this runtime reads 3"),
        (offer_of(2, V2, version=2, operator="POW"), "operators not supported: POW"),
        (offer_of(2, V2, version=1), "version 1: 1 is installed"),
        (offer_of(2, content_of("vww", 1), model="vww"), "no free slot"),
    ],
)
def test_refusals(offer: OfferMessage, reason: str) -> None:
    bench = installed()
    bench.offer(offer)
    report = bench.reports()[-1]
    assert (report.push, report.phase, report.reason) == (2, PushPhase.REJECTED, reason)
    assert bench.runnable() == {"kws": 1}
    bench.said.clear()
    bench.offer(offer)
    assert bench.reports() == [report]


def test_an_older_version_is_refused() -> None:
    bench = Bench().start()
    bench.push(SECOND, V2)
    bench.offer(offer_of(3, V1, version=1))
    assert bench.reports()[-1].reason == "version 1: 2 is installed"


def test_one_slot_device_refuses() -> None:
    bench = Bench(slot_count=1).start()
    bench.offer(FIRST)
    assert bench.reports()[-1].reason.startswith("one slot")


def test_unstated_operators_are_assumed() -> None:
    bench = Bench(capabilities=capabilities(operators=None)).start()
    bench.offer(offer_of(1, V1, operator="POW"))
    assert bench.phases() == ["want"]


def test_three_slots_hold_two_models() -> None:
    bench = Bench(slot_count=3).start()
    vww, third = content_of("vww", 1), content_of("ic", 1)
    bench.push(FIRST, V1)
    bench.push(offer_of(2, vww, model="vww"), vww)
    bench.offer(offer_of(3, third, model="ic"))
    assert bench.reports()[-1].reason == "no free slot"
    bench.push(offer_of(4, V2, version=2), V2)
    assert bench.runnable() == {"kws": 2, "vww": 1}


def test_identical_model_is_accepted_at_once() -> None:
    bench = installed()
    bench.offer(replace(FIRST, push=PushId(9)))
    assert bench.phases() == ["accepted"]
    assert not any(isinstance(command, terms.EraseSlot) for command in bench.commands[-3:])


def test_same_bytes_under_a_newer_version_only_change_the_number() -> None:
    bench = installed()
    bench.offer(offer_of(9, V1, version=4))
    assert bench.phases() == ["accepted"]
    assert bench.slots()[0] == ("active", "kws", 4)
    bench.boot()
    assert bench.runnable() == {"kws": 4}


@pytest.mark.parametrize(
    ("kind", "reason"), [(BAD, "self-test: output differs"), (BROKEN, "self-test: arena too small")]
)
def test_self_test_failures_leave_the_old_model(kind: bytes, reason: str) -> None:
    bench, content = installed(), content_of("kws", 2, kind=kind)
    bench.transfer(offer_of(2, content, version=2), content)
    assert bench.phases() == ["want", "written", "verified", "failed"]
    assert bench.reports()[-1].reason == reason
    assert bench.runnable() == {"kws": 1}


def test_without_expected_output_running_is_enough() -> None:
    bench, content = Bench().start(), content_of("kws", 1, kind=BAD)
    bench.transfer(replace(offer_of(1, content), self_test=None), content)
    assert bench.phases()[-1] == "tested"


def test_corrupt_bytes_fail_the_digest() -> None:
    bench = installed()
    bench.transfer(SECOND, V2[:-1] + b"?")
    assert bench.phases() == ["want", "written", "failed"]
    assert bench.reports()[-1].reason == "digest differs"
    assert bench.slots() == [("active", "kws", 1), ("empty", "", 0)]


def test_chunks_that_were_not_wanted_are_ignored() -> None:
    bench = Bench().start()
    bench.offer(FIRST)
    for push, offset, content in ((2, 0, V1[:32]), (1, 32, V1[32:64]), (1, 0, V1[:31]), (1, 0, V1[:33])):
        bench.send("chunk", wire.encode_chunk(PushId(push), offset, content))
    assert bench.agent.state.offset == 0
    bench.chunk(1, V1)
    bench.send("chunk", wire.encode_chunk(PushId(1), 0, V1[:32]))
    assert bench.agent.state.offset == 32


def test_want_is_repeated_and_then_the_battery_is_spared() -> None:
    bench = Bench().start()
    bench.offer(FIRST)
    bench.wait(1999)
    assert len(bench.reports()) == 1
    for _ in range(40):
        bench.wait(2000)
    assert len(bench.reports()) == 1 + terms.WANT_REPEATS
    assert bench.agent.due_ms() is None
    bench.offer(FIRST)
    assert len(bench.reports()) == 2 + terms.WANT_REPEATS


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


def test_same_content_under_a_new_push_goes_on() -> None:
    bench = Bench().start()
    bench.offer(FIRST)
    bench.chunk(1, V1)
    bench.offer(replace(FIRST, push=PushId(8)))
    assert (bench.reports()[-1].push, bench.reports()[-1].offset) == (8, 32)
    bench.push(replace(FIRST, push=PushId(8)), V1)
    assert bench.runnable() == {"kws": 1}


@pytest.mark.parametrize("steps", range(4))
def test_a_new_push_supersedes_an_unfinished_one(steps: int) -> None:
    bench, third = installed(), content_of("kws", 3)
    bench.offer(SECOND)
    if steps > 0:
        bench.chunk(2, V2)
    if steps > 1:
        bench.transfer(SECOND, V2)
    if steps > 2:
        bench.send("activate", wire.encode_activate(PushId(2)))
    bench.said.clear()
    bench.offer(offer_of(3, third, version=3))
    assert [(r.push, r.phase.value) for r in bench.reports()] == [(2, "failed"), (3, "want")]
    assert bench.reports()[0].reason == "superseded by push 3"
    bench.push(offer_of(3, third, version=3), third)
    assert bench.runnable() == {"kws": 3}


def test_a_refused_offer_does_not_disturb_the_push_under_way() -> None:
    bench = Bench().start()
    bench.offer(FIRST)
    bench.offer(offer_of(2, V2, version=2, arena=5000))
    assert bench.phases() == ["want", "rejected"]
    bench.offer(FIRST)
    bench.push(FIRST, V1)
    assert bench.runnable() == {"kws": 1}


def on_trial() -> Bench:
    bench = installed()
    bench.transfer(SECOND, V2)
    bench.send("activate", wire.encode_activate(PushId(2)))
    bench.said.clear()
    return bench


def test_trial_ends_by_time() -> None:
    bench = on_trial()
    bench.wait(29_999)
    assert bench.slots()[1][0] == "trial"
    bench.wait(1)
    assert [(r.phase, r.reason) for r in bench.reports()] == [(PushPhase.FAILED, "trial not confirmed")]
    assert bench.slots() == [("active", "kws", 1), ("empty", "", 0)]


def test_trial_ends_by_a_restart_and_says_so_when_connected() -> None:
    bench = on_trial()
    bench.boot()
    assert bench.said == []
    bench.take(terms.Connected())
    assert [each.kind for each in bench.said] == ["status", "push"]
    assert bench.reports()[-1].reason == "trial not confirmed"
    assert bench.runnable() == {"kws": 1}
    bench.said.clear()
    bench.take(terms.Connected())
    assert [each.kind for each in bench.said] == ["status"]


def test_trial_ends_while_disconnected() -> None:
    bench = on_trial()
    bench.take(terms.Disconnected())
    bench.wait(30_000)
    assert bench.said == []
    bench.take(terms.Connected())
    assert bench.phases() == ["failed"]


@pytest.mark.parametrize(
    ("kind", "payload"), [("activate", wire.encode_activate(PushId(2))), ("offer", wire.encode_offer(SECOND))]
)
def test_repeats_in_a_trial_are_answered(kind: str, payload: bytes) -> None:
    bench = on_trial()
    bench.send(kind, payload)
    assert bench.phases() == ["trial"]


def test_repeats_after_the_end_are_answered() -> None:
    bench = on_trial()
    for payload in (wire.encode_accept(PushId(2)),) * 2:
        bench.send("accept", payload)
    bench.offer(SECOND)
    assert bench.phases() == ["accepted"]
    assert len(bench.reports()) == 3


@pytest.mark.parametrize("kind", ["activate", "accept", "cancel"])
def test_commands_for_unknown_pushes_are_ignored(kind: str) -> None:
    bench = on_trial()
    bench.send(kind, b'{"push":77}')
    assert bench.said == []
    assert isinstance(bench.commands[-1], terms.Ignored)


@pytest.mark.parametrize("in_trial", [False, True])
def test_cancel_keeps_the_old_model(*, in_trial: bool) -> None:
    bench = on_trial() if in_trial else installed()
    bench.offer(SECOND)
    bench.send("cancel", wire.encode_cancel(PushId(2), "not today"))
    assert bench.reports()[-1].reason == "cancelled: not today"
    assert bench.slots() == [("active", "kws", 1), ("empty", "", 0)]


def test_no_erase_is_spent_twice() -> None:
    bench = installed()
    bench.commands.clear()
    for offer in (SECOND, replace(SECOND, push=PushId(3))):
        bench.offer(offer)
        bench.send("cancel", wire.encode_cancel(offer.push, ""))
    bench.offer(replace(SECOND, push=PushId(4)))
    # One before the first use of a slot whose content is not known since the start, then one after each cancel.
    assert sum(isinstance(command, terms.EraseSlot) for command in bench.commands) == 3


def test_cancel_of_what_a_restart_left() -> None:
    bench = Bench().start()
    bench.offer(FIRST)
    bench.chunk(1, V1)
    bench.start()
    bench.send("cancel", wire.encode_cancel(PushId(1), ""))
    assert bench.phases()[-1] == "failed"
    assert bench.slots() == [("empty", "", 0)] * 2


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


def test_runs_are_refused_with_the_reason() -> None:
    bench = installed()
    assert bench.run(0, 2).reason == "slot 0 holds version 1, not 2"
    assert bench.run(1, 1).reason == "slot 1 holds no model"
    assert bench.run(9, 1).reason == "slot 9 holds no model"
    bench.send("run", wire.encode_run(5, slot=0, version=1, sensor=3))
    assert b"no sensor 3" in bench.last("result").payload


def test_runs_and_samples_by_sensor() -> None:
    bench = installed()
    assert bench.run(0, 1, content=None).content == b"kws1mic"
    bench.send("sample", wire.encode_sample(6, 0))
    sample = wire.decode_up("sample", bench.last("sample").payload, DEVICE)
    assert isinstance(sample, wire.SampleFrame)
    assert sample.content == b"four"
    bench.send("sample", wire.encode_sample(6, 1))
    assert b"no sensor 1" in bench.last("sample").payload


def test_ping_and_battery() -> None:
    bench = installed()
    bench.send("ping", wire.encode_ping(77))
    assert bench.last("pong").payload == wire.encode_pong(77)
    bench.take(terms.BatteryChanged(50))
    assert b'"battery":0.5' in bench.last("status").payload


def test_nothing_is_said_while_disconnected() -> None:
    bench = installed()
    bench.take(terms.Disconnected())
    bench.send("ping", wire.encode_ping(1))
    bench.offer(SECOND)
    assert bench.said == []


def test_messages_before_the_check_of_flash_are_ignored() -> None:
    bench = installed()
    bench.agent.handle(terms.Booted((bench.journals[0], bench.journals[1])), 0)
    assert bench.agent.handle(terms.Connected(), 0) == ()
    ignored = bench.agent.handle(terms.MessageReceived("ping", wire.encode_ping(1)), 0)
    assert ignored == (terms.Ignored("still starting"),)


def test_time_wraps_at_32_bits() -> None:
    assert is_due(5, 2**32 - 5)
    assert not is_due(2**32 - 5, 5)


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
