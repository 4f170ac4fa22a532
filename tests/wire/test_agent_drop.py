"""Models that leave a device: told to go, or giving way to another; cut anywhere, all are there or all but that one."""

from dataclasses import replace
from itertools import count

import pytest

from gatewayd.core.device import SlotState
from gatewayd.core.module import Held
from gatewayd.core.names import Digest, ModelName, PushId
from gatewayd.sim.flash import Tear
from gatewayd.wire import mqttdevice as wire
from gatewayd.wire.mqttdevice import DropFrame, DropMessage, OfferMessage
from tests.agent_bench import DEVICE, SECOND, V1, V2, Bench, content_of, make_capabilities, offer_of

SPEAKER = content_of("speaker", 1)
SPEAKER_OFFER = offer_of(5, SPEAKER, model="speaker")
INSTEAD = replace(offer_of(6, SPEAKER, model="speaker"), instead_of=Held(ModelName("kws"), 1))
CAN_DROP = replace(make_capabilities(), drops_models=True)


def bench_with(*, slot_count: int = 3, models: int = 2) -> Bench:
    """A device that holds kws, and then speaker."""
    bench = Bench(slot_count=slot_count, capabilities=CAN_DROP).start()
    bench.push(offer_of(1, V1), V1)
    if models > 1:
        bench.push(SPEAKER_OFFER, SPEAKER)
    bench.said.clear()
    return bench


def digest_of(bench: Bench, model: str) -> Digest:
    return next(slot.digest for slot in bench.agent.state.slots if slot.model == model)


def drop(bench: Bench, model: str = "kws", version: int = 1, *, digest: str = "", last: bool = False) -> str:
    """Tell it; return why it refused ("": it dropped the model)."""
    named = Digest(digest) if digest else digest_of(bench, model)
    bench.send("drop", wire.encode_drop(DropMessage(9, ModelName(model), version, named, last)))
    answer = wire.decode_up("drop", bench.last("drop").payload, DEVICE)
    assert isinstance(answer, DropFrame)
    assert answer.request == 9
    return answer.reason


def place(bench: Bench, model: str) -> int:
    return next(index for index, slot in enumerate(bench.agent.state.slots) if slot.model == model)


def test_a_drop_is_in_the_journal_before_it_is_said_and_erased_after() -> None:
    bench = bench_with()
    where = place(bench, "kws")
    assert drop(bench) == ""
    kinds = [each.kind for each in bench.said]
    assert kinds == ["status", "drop"]
    order = [type(each).__name__ for each in bench.commands[-5:]]
    assert order == ["WriteJournal", "WriteJournal", "Publish", "Publish", "EraseSlot"]
    assert bench.runnable() == {"speaker": 1}
    assert set(bench.flash.read(where, 0, 256)) == {0xFF}


def test_a_repetition_changes_nothing() -> None:
    bench = bench_with()
    gone = digest_of(bench, "kws")
    drop(bench)
    before = bytes(bench.cells.content)
    assert drop(bench, digest=gone) == ""
    assert bytes(bench.cells.content) == before


def test_the_only_model_stays_unless_the_last_is_meant() -> None:
    bench = bench_with(models=1, slot_count=2)
    assert drop(bench) == "it is the only model that runs"
    assert bench.runnable() == {"kws": 1}
    assert drop(bench, last=True) == ""
    assert bench.runnable() == {}
    bench.push(replace(SECOND, push=PushId(8)), V2)
    assert bench.runnable() == {"kws": 2}


def test_another_version_or_other_bytes_stay() -> None:
    bench = bench_with()
    assert drop(bench, version=2).startswith("holds kws version 1")
    assert drop(bench, digest="0" * 64).startswith("holds kws version 1")
    assert bench.runnable() == {"kws": 1, "speaker": 1}


@pytest.mark.parametrize("then", ["", "activate"])
def test_what_a_push_needs_stays(then: str) -> None:
    bench = bench_with(slot_count=4)
    bench.transfer(SECOND, V2)
    if then:
        bench.send(then, wire.encode_activate(PushId(2)))
    assert drop(bench, version=2, digest=SECOND.digest) == "kws is being pushed: cancel that"
    old = next(each.digest for each in bench.agent.state.slots if each.version == 1 and each.model == "kws")
    assert drop(bench, digest=old) == "the push of kws needs it until its end"
    assert drop(bench, "speaker") == ""
    bench.send("cancel", wire.encode_cancel(PushId(2), "enough"))
    assert bench.runnable() == {"kws": 1}


def test_a_device_that_did_not_announce_it_ignores_a_drop() -> None:
    bench = Bench().start()
    bench.push(offer_of(1, V1), V1)
    bench.said.clear()
    bench.send("drop", wire.encode_drop(DropMessage(9, ModelName("kws"), 1, digest_of(bench, "kws"))))
    assert bench.said == []
    assert bench.runnable() == {"kws": 1}


@pytest.mark.parametrize("tear", Tear)
def test_a_cut_anywhere_in_a_drop_leaves_both_or_one(tear: Tear) -> None:
    for operations in count():
        bench = bench_with()
        bench.cut_after(operations, tear)
        gone = digest_of(bench, "kws")
        bench.send("drop", wire.encode_drop(DropMessage(9, ModelName("kws"), 1, gone)))
        was_cut = not bench.agent.state.is_connected
        assert bench.runnable() in ({"kws": 1, "speaker": 1}, {"speaker": 1})
        bench.start()
        assert drop(bench, digest=gone) == ""
        assert bench.runnable() == {"speaker": 1}
        bench.push(replace(SECOND, push=PushId(8)), V2)
        assert bench.runnable() == {"kws": 2, "speaker": 1}
        if not was_cut:
            break
    assert operations > 10


def test_a_model_gives_way_when_the_other_one_is_accepted_and_not_before() -> None:
    bench = bench_with(models=1, slot_count=2)
    bench.offer(SPEAKER_OFFER)
    assert bench.reports()[-1].reason == "no free slot"
    bench.transfer(INSTEAD, SPEAKER)
    assert bench.runnable() == {"kws": 1}
    bench.send("activate", wire.encode_activate(PushId(6)))
    assert bench.runnable() == {"kws": 1}
    bench.send("accept", wire.encode_accept(PushId(6)))
    assert bench.runnable() == {"speaker": 1}
    assert [slot.state for slot in bench.agent.state.slots].count(SlotState.EMPTY) == 1


def test_a_push_that_fails_leaves_the_model_that_would_have_gone() -> None:
    bench = bench_with(models=1, slot_count=2)
    bench.transfer(INSTEAD, SPEAKER[:-1] + b"?")
    assert bench.phases()[-1] == "failed"
    bench.offer(replace(SPEAKER_OFFER, push=PushId(7)))
    assert bench.phases()[-1] == "rejected"
    assert bench.runnable() == {"kws": 1}


@pytest.mark.parametrize(
    ("offer", "reason"),
    [
        (replace(INSTEAD, instead_of=Held(ModelName("kws"), 2)), "instead of kws@2: version 1 is there"),
        (replace(INSTEAD, instead_of=Held(ModelName("other"), 1)), "no free slot"),
    ],
)
def test_only_the_version_that_was_named_gives_way(offer: OfferMessage, reason: str) -> None:
    bench = bench_with(models=1, slot_count=2)
    bench.offer(offer)
    assert bench.reports()[-1].reason == reason


def test_a_device_that_did_not_announce_it_lets_none_give_way() -> None:
    bench = Bench().start()
    bench.push(offer_of(1, V1), V1)
    bench.offer(INSTEAD)
    assert bench.reports()[-1].reason == "this device lets no model give way"


def test_the_old_version_and_the_model_that_gives_way_both_leave() -> None:
    bench = bench_with(slot_count=3)
    offer = replace(SECOND, instead_of=Held(ModelName("speaker"), 1))
    bench.push(offer, V2)
    assert bench.runnable() == {"kws": 2}
    assert bench.agent.state.leaving == 0


@pytest.mark.parametrize("tear", Tear)
def test_a_cut_anywhere_in_the_accept_leaves_a_model_that_runs(tear: Tear) -> None:
    for operations in count():
        bench = bench_with(models=1, slot_count=2)
        bench.transfer(INSTEAD, SPEAKER)
        bench.send("activate", wire.encode_activate(PushId(6)))
        bench.cut_after(operations, tear)
        bench.send("accept", wire.encode_accept(PushId(6)))
        was_cut = not bench.agent.state.is_connected
        assert bench.runnable() in ({"kws": 1}, {"speaker": 1})
        bench.start()
        bench.send("accept", wire.encode_accept(PushId(6)))
        assert bench.runnable() == {"speaker": 1}
        if not was_cut:
            break
    assert operations > 10


def test_what_gives_way_is_remembered_over_restarts() -> None:
    bench = bench_with(models=1, slot_count=2)
    bench.offer(INSTEAD)
    bench.chunk(6, SPEAKER)
    bench.start()
    bench.transfer(INSTEAD, SPEAKER)
    bench.send("activate", wire.encode_activate(PushId(6)))
    bench.start()
    bench.send("accept", wire.encode_accept(PushId(6)))
    assert bench.runnable() == {"speaker": 1}


def test_a_later_push_of_the_same_bytes_says_anew_who_leaves() -> None:
    bench = bench_with(slot_count=4)
    drums = content_of("drums", 1)
    first = replace(offer_of(6, drums, model="drums"), instead_of=Held(ModelName("kws"), 1))
    bench.offer(first)
    bench.chunk(6, drums)
    bench.push(replace(first, push=PushId(7), instead_of=None), drums)
    assert bench.runnable() == {"kws": 1, "speaker": 1, "drums": 1}
