from dataclasses import replace
from pathlib import Path

import pytest

from gatewayd.core.device import Born, Lost, PushPhase, PushReport, Slot, SlotState
from gatewayd.core.errors import Conflict, NotFound
from gatewayd.core.events import DeviceChanged
from gatewayd.core.names import parse_model_ref
from gatewayd.core.push import PushState
from tests.services.world import EMPTY, World, running, world

MODEL_BYTES = bytes(range(256)) * 10
KWS = parse_model_ref("kws")


async def _failed(w: World, times: int) -> None:
    await w.seen(lambda: w.pushes.desired(w.device.id)[0].failures == times)


async def test_a_failed_push_is_tried_again_after_its_pause_and_then_given_up(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        await w.add(MODEL_BYTES)
        await w.join()
        w.device.output = b"\x7f\x7f\x7f"
        async with running(w.pushes):
            await w.pushes.start(w.device.id, KWS, who="ann")
            await _failed(w, 1)
            for tries, pause_s in ((2, 100), (3, 200)):
                w.clock.now_s += pause_s - 1
                await w.pushes.meet_wishes()
                assert len(await w.pushes.recent(10)) == tries - 1
                w.clock.now_s += 1
                await w.pushes.meet_wishes()
                (latest, *_) = await w.pushes.recent(10)
                assert (latest.id, latest.who) == (tries, "ann")
                await _failed(w, tries)
        (desire,) = w.pushes.desired(w.device.id)
        assert (desire.version, desire.failures) == (1, 3)
        assert desire.settled.startswith("given up after 3 tries: the trial failed")
        assert w.tracking.device(w.device.id).desired == (("kws", 1),)


async def test_poison_is_left_alone_until_an_operator_says_otherwise(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        await w.add(MODEL_BYTES)
        await w.join()
        w.device.output = b"\x7f\x7f\x7f"
        async with running(w.pushes):
            for count in range(1, 5):
                await w.pushes.start(w.device.id, KWS, who="ann")
                await w.seen(lambda: w.pushes.terms(w.device.id).failures == count)  # noqa: B023 - waited for at once
            with pytest.raises(Conflict, match=r"in quarantine: 4 pushes in a row failed.*devices\.release ends that"):
                await w.pushes.start(w.device.id, KWS, who="ann")
            told = [event.what for event in w.events if isinstance(event, DeviceChanged)]
            assert any(what.startswith("quarantined: 4 pushes in a row failed") for what in told)
            while not await w.store.load_terms() or not (await w.store.load_terms())[0].quarantine:
                pass
    async with world(tmp_path) as w:
        assert w.pushes.terms(w.device.id).quarantine.startswith("4 pushes in a row failed")
        await w.join()
        assert (await w.pushes.release(w.device.id)).quarantine == ""
        async with running(w.pushes):
            w.clock.now_s += 2
            await w.pushes.meet_wishes()
            (latest, *_) = await w.pushes.recent(10)
            assert (await w.ended(latest)).state is PushState.ACCEPTED


async def test_a_device_that_comes_back_with_something_else_gets_what_is_wanted(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        await w.add(MODEL_BYTES)
        await w.join()
        async with running(w.pushes):
            await w.ended(await w.pushes.start(w.device.id, KWS, who="ann"))
    async with world(tmp_path) as w:
        assert [(wish.model, wish.version) for wish in w.pushes.desired(w.device.id)] == [("kws", 1)]
        async with running(w.pushes):
            w.device.birth()  # its flash was replaced: it holds nothing
            w.clock.now_s += 2
            await w.pushes.meet_wishes()
            (latest, *_) = await w.pushes.recent(10)
            assert (latest.id, (await w.ended(latest)).state) == (2, PushState.ACCEPTED)


async def _met(w: World, *, pushes: int) -> None:
    w.clock.now_s += 2
    await w.pushes.meet_wishes()
    assert len(await w.pushes.recent(10)) == pushes


@pytest.mark.parametrize("late", [SlotState.ACTIVE, SlotState.TRIAL, SlotState.STAGING])
async def test_what_a_device_accepted_is_not_pushed_again_before_it_reports(tmp_path: Path, late: SlotState) -> None:
    """Over a lossy link the report comes long after the acceptance, and may have been read before it."""
    async with world(tmp_path) as w:
        await w.add(MODEL_BYTES)
        await w.join()
        heard, held = w.device.emit, list[Born]()

        def emit(event: Born | Lost | PushReport) -> None:
            if isinstance(event, Born) and _shows_active(event):
                held.append(event)
            else:
                heard(event)

        w.device.emit = emit
        async with running(w.pushes):
            push = await w.ended(await w.pushes.start(w.device.id, KWS, who="ann"), event_count=5000)
            assert push.state is PushState.ACCEPTED
            await _met(w, pushes=1)
            (active,) = held
            slots = tuple(replace(each, state=late) if each.model else each for each in active.report.slots)
            heard(replace(active, report=replace(active.report, slots=slots)))
            await _met(w, pushes=1)
            heard(active)
            await _met(w, pushes=1)
            w.device.slots = EMPTY
            w.device.birth()  # its flash was replaced: what it accepted is there no more
            await _met(w, pushes=2)


async def test_a_report_without_what_was_accepted_has_it_pushed_again(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        await w.add(MODEL_BYTES)
        await w.join()
        heard = w.device.emit
        w.device.emit = lambda event: None if _shows_active(event) else heard(event)
        async with running(w.pushes):
            await w.ended(await w.pushes.start(w.device.id, KWS, who="ann"), event_count=5000)
            w.device.slots = EMPTY
            w.device.birth()
            await _met(w, pushes=2)


def _shows_active(event: Born | Lost | PushReport) -> bool:
    return isinstance(event, Born) and event.report.slots[0].state is SlotState.ACTIVE


async def test_a_cancelled_push_is_wanted_no_more(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        await w.add(MODEL_BYTES)
        await w.join()
        w.device.silent_at = PushPhase.WANT
        push = await w.pushes.start(w.device.id, KWS, who="ann")
        ended = await w.pushes.cancel(push.id, why="wrong board")
        assert (ended.state, ended.reason, ended.ended_at) == (PushState.CANCELLED, "wrong board", 1.7e9)
        assert w.device.sent[-1] == "cancel: wrong board"
        assert w.pushes.desired(w.device.id) == ()
        assert w.tracking.device(w.device.id).desired == ()
        with pytest.raises(NotFound, match="no push 1 is running"):
            await w.pushes.cancel(push.id, why="again")


async def test_going_back_needs_the_operators_word_and_is_recorded(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        await w.add(b"one")
        second = await w.add(b"two")
        w.device.slots = (Slot(0, SlotState.ACTIVE, second.model, 2, second.variants[0].digest), EMPTY[1])
        await w.join()
        old = parse_model_ref("kws@1")
        with pytest.raises(Conflict, match=r"dev-1 runs kws@2, which is newer: --allow-downgrade"):
            await w.pushes.start(w.device.id, old, who="ann")
        push = await w.pushes.start(w.device.id, old, who="ann", downgrade=True)
        assert push.replaces == 2
        assert w.device.offered is not None
        assert w.device.offered.manifest.replaces == 2
        (row,) = await w.pushes.recent(10, w.device.id)
        assert (row.who, row.replaces) == ("ann", 2)


async def test_one_slot_is_pushed_to_only_when_the_operator_allows_it(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        await w.add(MODEL_BYTES)
        w.device.slots = EMPTY[:1]
        await w.join()
        with pytest.raises(Conflict, match=r"devices\.one-slot allows it"):
            await w.pushes.start(w.device.id, KWS, who="ann")
        assert (await w.pushes.allow_one_slot(w.device.id, allowed=True)).one_slot
        async with running(w.pushes):
            ended = await w.ended(await w.pushes.start(w.device.id, KWS, who="ann"))
        assert ended.state is PushState.ACCEPTED
