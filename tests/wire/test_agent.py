from dataclasses import replace

import pytest

from gatewayd.core.device import Born, PushPhase, SlotState
from gatewayd.core.names import PushId
from gatewayd.wire import agent_terms as terms
from gatewayd.wire import mqttdevice as wire
from gatewayd.wire.agent_push import is_due
from gatewayd.wire.mqttdevice import FrameStatus, OfferMessage
from tests.agent_bench import (
    BAD,
    BROKEN,
    DEVICE,
    FIRST,
    SECOND,
    SLOT_BYTES,
    V1,
    V2,
    WHOLE_PUSH,
    Bench,
    content_of,
    installed,
    make_capabilities,
    offer_of,
    on_trial,
)
from tests.signing import offer_bytes


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
    assert bench.flash.read(0, 0, SLOT_BYTES) == b"\xff" * SLOT_BYTES


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
    bench = Bench(capabilities=make_capabilities(operators=None)).start()
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


def test_any_flipped_bit_of_the_artifact_is_refused() -> None:
    content = content_of("kws", 2, size=40)
    offer = offer_of(2, content, version=2)
    bench = installed()
    for bit in range(8 * len(content)):
        flipped = bytearray(content)
        flipped[bit // 8] ^= 1 << bit % 8
        again = replace(offer, push=PushId(100 + bit))
        bench.transfer(again, bytes(flipped))
        assert bench.reports()[-1].reason == "digest differs"
        bench.said.clear()
    assert bench.runnable() == {"kws": 1}


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


def test_a_want_that_is_on_its_way_is_not_said_twice() -> None:
    bench = Bench().start()
    for _ in range(3):
        bench.offer(FIRST)
    assert len(bench.reports()) == 1
    bench.now_ms += 2000
    bench.offer(FIRST)
    assert len(bench.reports()) == 2


def test_a_cancel_of_what_is_over_gets_no_answer() -> None:
    """A gateway that forgot the push cancels whatever is said of it: an answer would go round for ever."""
    bench = installed()
    bench.send("cancel", wire.encode_cancel(PushId(1), "no such push"))
    assert bench.said == []
    assert bench.runnable() == {"kws": 1}


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
    bench.wait(2000)
    bench.push(FIRST, V1)
    assert bench.runnable() == {"kws": 1}


def test_trial_ends_by_time() -> None:
    bench = on_trial()
    bench.wait(29_999)
    assert bench.slots()[1][0] == "trial"
    bench.wait(1)
    assert [(r.phase, r.reason) for r in bench.reports()] == [(PushPhase.FAILED, "trial not confirmed")]
    assert bench.slots() == [("active", "kws", 1), ("empty", "", 0)]


def test_a_trials_end_nobody_heard_is_said_when_connected() -> None:
    bench = on_trial()
    bench.boot()
    assert bench.said == []
    bench.wait(30_000)
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
    ("kind", "payload"), [("activate", wire.encode_activate(PushId(2))), ("offer", offer_bytes(SECOND))]
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
    bench.agent.handle(terms.Booted(bench.flash.journals()), 0)
    assert bench.agent.handle(terms.Connected(), 0) == ()
    ignored = bench.agent.handle(terms.MessageReceived("ping", wire.encode_ping(1)), 0)
    assert ignored == (terms.Ignored("still starting"),)


def test_time_wraps_at_32_bits() -> None:
    assert is_due(5, 2**32 - 5)
    assert not is_due(2**32 - 5, 5)


def test_an_older_version_is_taken_only_where_it_may_replace_the_one_that_runs() -> None:
    new, old = content_of("kws", 3), content_of("kws", 2)
    bench = Bench().start()
    bench.push(offer_of(1, new, version=3), new)
    bench.offer(offer_of(2, old, version=2))
    bench.offer(replace(offer_of(3, old, version=2), replaces=4))
    assert [report.reason for report in bench.reports()[-2:]] == ["version 2: 3 is installed"] * 2
    bench.push(replace(offer_of(4, old, version=2), replaces=3), old)
    assert bench.runnable() == {"kws": 2}
