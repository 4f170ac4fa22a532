from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import pytest

from gatewayd.core.device import PushPhase, PushReport, Slot, SlotState
from gatewayd.core.errors import (
    Conflict,
    Forbidden,
    GatewayError,
    NotStored,
    Overloaded,
    TooLarge,
    UnknownDevice,
    UnknownModel,
)
from gatewayd.core.events import PushMoved
from gatewayd.core.model import Version
from gatewayd.core.names import DeviceId, PushId, parse_model_ref
from gatewayd.core.push import Push, PushState
from tests.services.locking import locked
from tests.services.world import CAPABILITIES, EMPTY, World, running, world

MODEL_BYTES = bytes(range(256)) * 10  # three chunks of the device's 1,024 bytes
KWS = parse_model_ref("kws")


def _states(w: World) -> list[PushState]:
    states = [event.push.state for event in w.events if isinstance(event, PushMoved)]
    return [state for index, state in enumerate(states) if index == 0 or state is not states[index - 1]]


async def test_a_push_goes_through_every_state_and_the_device_holds_the_bytes(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        await w.add(MODEL_BYTES)
        await w.join()
        async with running(w.pushes):
            push = await w.pushes.start(w.device.id, KWS, who="ann")
            assert (await w.ended(push)).state is PushState.ACCEPTED
        assert bytes(w.device.received) == MODEL_BYTES
        assert w.device.sent == ["offer", "chunk", "chunk", "chunk", "activate", "accept"]
        assert _states(w) == [
            PushState.OFFERED, PushState.TRANSFERRING, PushState.WRITTEN, PushState.VERIFIED, PushState.SELF_TESTED,
            PushState.TRIAL, PushState.ACCEPTED,
        ]  # fmt: skip
        assert w.tracking.device(w.device.id).desired == (("kws", 1),)
        assert w.pushes.live() == ()


async def test_the_offer_says_what_the_device_must_know(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        version = await w.add(MODEL_BYTES)
        await w.join()
        await w.pushes.start(w.device.id, KWS, who="ann")
        offer = w.device.offered
        assert offer is not None
        told = offer.manifest
        assert (told.model, told.version, told.size_bytes, told.arena_bytes) == ("kws", 1, 2560, 4096)
        assert (told.operators, told.self_test) == (("FULLY_CONNECTED",), version.variants[0].self_test)


async def test_a_device_that_says_no_has_the_last_word(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        await w.add()
        await w.join()
        w.device.rejects = "battery too low"
        async with running(w.pushes):
            ended = await w.ended(await w.pushes.start(w.device.id, KWS, who="ann"))
        assert (ended.state, ended.reason) == (PushState.REJECTED, "battery too low")


@pytest.mark.parametrize(
    "phase", [PushPhase.WANT, PushPhase.WRITTEN, PushPhase.VERIFIED, PushPhase.TESTED, PushPhase.TRIAL]
)
async def test_silence_in_any_state_ends_the_push(tmp_path: Path, phase: PushPhase) -> None:
    async with world(tmp_path) as w:
        await w.add(MODEL_BYTES)
        await w.join()
        w.device.silent_at = phase
        async with running(w.pushes):
            push = await w.pushes.start(w.device.id, KWS, who="ann")
            while w.pushes.live():
                await w.store.recent(1)
                w.clock.now_s += 1
            ended = await w.ended(push)
        assert ended.state is PushState.FAILED
        assert ended.reason
        assert any(sent.startswith("cancel") for sent in w.device.sent)


async def test_a_new_model_that_answers_wrongly_is_rolled_back(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        await w.add(MODEL_BYTES)
        await w.join()
        w.device.output = b"\x7f\x7f\x7f"
        async with running(w.pushes):
            ended = await w.ended(await w.pushes.start(w.device.id, KWS, who="ann"))
        assert ended.state is PushState.ROLLED_BACK
        assert "self-test" in ended.reason
        assert w.device.sent[-1].startswith("cancel")


@pytest.mark.parametrize(
    ("prepare", "error", "message"),
    [
        ("unknown model", UnknownModel, "nope"),
        ("unknown device", UnknownDevice, "ghost"),
        ("not approved", Forbidden, "waits for approval"),
        ("offline", Conflict, "is offline"),
        (
            "arena",
            Conflict,
            "kws@1 does not fit on dev-1: tflite-int8: needs a 4,096-byte arena, the device gives 2,048 (2,048 short)",
        ),
        ("one slot", Conflict, "kws@1 has no room on dev-1"),
    ],
)
async def test_what_cannot_work_is_refused_before_a_byte_is_sent(
    tmp_path: Path, prepare: str, error: type[GatewayError], message: str
) -> None:
    async with world(tmp_path) as w:
        await w.add()
        ref, device = parse_model_ref("nope" if prepare == "unknown model" else "kws"), w.device.id
        if prepare == "arena":
            w.device.capabilities = replace(CAPABILITIES, arena_bytes=2048)
        if prepare == "one slot":
            w.device.slots = EMPTY[:1]
        w.device.birth()
        if prepare != "not approved":
            await w.tracking.approve(device, who="ann")
        if prepare == "offline":
            w.device.leave()
        if prepare == "unknown device":
            device = DeviceId("ghost")
        with pytest.raises(error) as caught:
            await w.pushes.start(device, ref, who="ann")
        assert message in str(caught.value)
        assert w.device.sent == []


async def test_asking_twice_joins_and_another_version_supersedes(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        await w.add(b"one")
        await w.add(b"two")
        await w.join()
        w.device.silent_at = PushPhase.WANT
        first = await w.pushes.start(w.device.id, KWS, who="ann")
        assert await w.pushes.start(w.device.id, KWS, who="bob") == replace(w.pushes.live()[0], joined=True)
        second = await w.pushes.start(w.device.id, parse_model_ref("kws@2"), who="ann")
        rows = {row.id: row for row in await w.pushes.recent(10)}
        assert (rows[first.id].state, rows[first.id].reason) == (PushState.CANCELLED, "superseded by kws@2")
        assert [push.id for push in w.pushes.live()] == [second.id]


@pytest.mark.parametrize("is_reported", [False, True])
async def test_what_a_device_has_accepted_is_not_pushed_again(tmp_path: Path, *, is_reported: bool) -> None:
    async with world(tmp_path) as w:
        version = await w.add(MODEL_BYTES)
        await w.join()
        async with running(w.pushes):
            first = await w.ended(await w.pushes.start(w.device.id, KWS, who="ann"))
            if is_reported:
                w.device.slots = _active(version)
                w.device.birth()
            w.device.sent.clear()
            again = await w.pushes.start(w.device.id, KWS, who="bob")
        assert (again.id, again.state, again.joined) == (first.id, PushState.ACCEPTED, True)
        assert (w.device.sent, len(await w.pushes.recent(10))) == ([], 1)
        assert [(wish.version, wish.who) for wish in w.pushes.desired(w.device.id)] == [(1, "bob")]


async def test_what_came_with_the_firmware_is_wished_for_and_not_pushed(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        version = await w.add()
        w.device.slots = _active(version)
        await w.join()
        push = await w.pushes.start(w.device.id, KWS, who="ann")
        assert (push.id, push.state, push.joined, push.size_bytes) == (0, PushState.ACCEPTED, True, push.offset)
        assert (w.device.sent, await w.pushes.recent(10), w.pushes.live()) == ([], [], ())
        assert [(wish.version, wish.who) for wish in w.pushes.desired(w.device.id)] == [(1, "ann")]


async def test_wishing_for_what_is_there_ends_the_push_of_another_version(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        first = await w.add(b"one")
        await w.add(b"two")
        w.device.slots = _active(first)
        await w.join()
        w.device.silent_at = PushPhase.WANT
        under_way = await w.pushes.start(w.device.id, parse_model_ref("kws@2"), who="ann")
        await w.pushes.start(w.device.id, KWS, who="bob")
        (ended,) = await w.pushes.recent(10)
        assert (ended.id, ended.state, ended.reason) == (under_way.id, PushState.CANCELLED, "superseded by kws@1")
        assert [(wish.version, wish.who) for wish in w.pushes.desired(w.device.id)] == [(1, "bob")]


def _active(version: Version) -> tuple[Slot, ...]:
    return (Slot(0, SlotState.ACTIVE, version.model, version.number, version.variants[0].digest), EMPTY[1])


async def test_a_push_goes_on_after_the_gateway_restarts(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        await w.add(MODEL_BYTES)
        await w.join()
        push = await w.pushes.start(w.device.id, KWS, who="ann")  # its loop never runs: killed right after the offer
    async with world(tmp_path) as w:
        async with running(w.pushes):
            w.device.birth()
            assert (await w.ended(push)).state is PushState.ACCEPTED
        assert bytes(w.device.received) == MODEL_BYTES


async def test_a_push_whose_device_never_comes_back_ends(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        await w.add(MODEL_BYTES)
        await w.join()
        w.device.silent_at = PushPhase.WRITTEN
        async with running(w.pushes):
            push = await w.pushes.start(w.device.id, KWS, who="ann")
            w.device.leave()
            while w.pushes.live():
                await w.store.recent(1)
                w.clock.now_s += 1
            assert (await w.ended(push)).state is PushState.FAILED


async def test_a_device_that_works_on_a_push_nobody_knows_is_told_to_stop(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        await w.add(MODEL_BYTES)
        await w.join()
        async with running(w.pushes):
            push = await w.pushes.start(w.device.id, KWS, who="ann")
            await w.pushes.cancel(push.id, why="operator")
            ended = await w.ended(push)
            assert (ended.state, ended.reason) == (PushState.CANCELLED, "operator")
            w.device.sent.clear()
            offered = w.device.offered
            assert offered is not None
            w.device.send_offer(w.device.id, offered)
            await w.seen(lambda: w.device.sent[-1] == "cancel: operator")
            w.device.offered = replace(offered, push=PushId(99))
            w.device.send_offer(w.device.id, w.device.offered)
            assert w.device.sent[-1] == "cancel: no such push"


@pytest.mark.parametrize("is_born", [False, True])
@pytest.mark.parametrize("is_restarted", [False, True])
async def test_a_device_that_kept_the_model_corrects_how_its_push_ended(
    tmp_path: Path, *, is_born: bool, is_restarted: bool
) -> None:
    """Its word came after its time was over here: by a report, or by its next birth; before or after a restart."""
    async with world(tmp_path) as w:
        version = await w.add(MODEL_BYTES)
        await w.join()
        w.device.silent_at = PushPhase.TRIAL
        async with running(w.pushes):
            push = await w.pushes.start(w.device.id, KWS, who="ann")
            w.device.leave()
            while w.pushes.live():
                await w.store.recent(1)
                w.clock.now_s += 1
            failed = await w.ended(push)
            assert failed.state is PushState.FAILED
            while (await w.store.load_desires())[0].failures == 0:  # what follows from an end is stored after it
                await w.store.recent(1)
            if not is_restarted:
                await _corrected(w, push, version, is_born=is_born)
    if is_restarted:
        async with world(tmp_path) as w, running(w.pushes):
            await _corrected(w, push, version, is_born=is_born)


async def _corrected(w: World, push: Push, version: Version, *, is_born: bool) -> None:
    held = Slot(0, SlotState.ACTIVE, version.model, version.number, version.variants[0].digest)
    w.device.slots = (held, EMPTY[1])
    assert w.pushes.desired(w.device.id)[0].failures == 1
    if is_born:
        w.device.birth()
    else:
        w.device.emit(PushReport(w.device.id, push.id, PushPhase.ACCEPTED))
    await w.seen(lambda: w.pushes.desired(w.device.id)[0].failures == 0)
    (row,) = await w.pushes.recent(10, w.device.id)
    assert (row.state, row.offset) == (PushState.ACCEPTED, row.size_bytes)
    assert row.reason.startswith("the device reports that it kept the model; without its word this was failed: ")
    announced = [event.push for event in w.events if isinstance(event, PushMoved)]
    assert announced[-1].state is PushState.ACCEPTED
    assert w.pushes.terms(w.device.id).failures == 0


async def test_another_device_cannot_correct_a_push(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        await w.add(MODEL_BYTES)
        await w.join()
        async with running(w.pushes):
            push = await w.pushes.start(w.device.id, KWS, who="ann")
            await w.pushes.cancel(push.id, why="operator")
            w.pushes.handle(PushReport(DeviceId("ghost"), push.id, PushPhase.ACCEPTED))
            w.device.birth()
            await w.store.recent(1)
        (row,) = await w.pushes.recent(10, w.device.id)
        assert row.state is PushState.CANCELLED


async def test_a_device_that_trickles_does_not_hold_its_place_for_ever(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        await w.add(MODEL_BYTES)
        await w.join()
        w.device.silent_at = PushPhase.WANT
        async with running(w.pushes):
            push = await w.pushes.start(w.device.id, KWS, who="ann")
            for offset in range(len(MODEL_BYTES)):
                w.clock.now_s += 4
                w.device.emit(PushReport(w.device.id, push.id, PushPhase.WANT, offset, 1))
                await w.store.recent(1)
                if not w.pushes.live():
                    break
            row = await w.ended(push, event_count=5000)
        assert row.state is PushState.FAILED
        assert row.reason.startswith("the transfer is too slow: ")


@pytest.mark.parametrize("failure", [Overloaded("full"), TooLarge("over the broker's limit")])
async def test_a_flood_of_reports_about_unknown_pushes_harms_nobody(tmp_path: Path, failure: GatewayError) -> None:
    async with world(tmp_path) as w:
        w.device.birth()
        stray = PushReport(w.device.id, PushId(77), PushPhase.WRITTEN)
        w.pushes.handle(stray)
        w.pushes.handle(replace(stray, device=DeviceId("nobody")))
        assert w.device.sent == []  # strangers get no answer
        await w.tracking.approve(w.device.id, who="ann")
        w.pushes.handle(stray)
        assert w.device.sent == ["cancel: no such push"]
        w.device.send_fails = failure
        w.pushes.handle(stray)


async def test_the_same_bytes_under_another_version_are_pushed(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        first = await w.add(MODEL_BYTES)
        second = await w.add(MODEL_BYTES)
        assert first.variants[0].digest == second.variants[0].digest
        w.device.slots = (Slot(0, SlotState.ACTIVE, first.model, 1, first.variants[0].digest), EMPTY[1])
        await w.join()
        async with running(w.pushes):
            ended = await w.ended(await w.pushes.start(w.device.id, parse_model_ref("kws@2"), who="ann"))
        assert ended.state is PushState.ACCEPTED


async def test_a_disk_that_takes_nothing_for_a_while_delays_pushes_and_ends_nothing(tmp_path: Path) -> None:
    async with world(tmp_path, busy_timeout_s=0.01) as w:
        await w.add(MODEL_BYTES)
        await w.join()
        async with running(w.pushes):
            w.device.silent_at = PushPhase.WRITTEN
            push = await w.pushes.start(w.device.id, KWS, who="ann")
            with locked(tmp_path):
                for _ in range(20):
                    w.clock.now_s += 1
                    with pytest.raises(NotStored):
                        await w.store.save_push(push)
                for _ in range(
                    100
                ):  # a step whose journalling fails is undone when that is known: until then it is out of sight
                    if w.pushes.live():
                        break
                    with suppress(NotStored):
                        await w.store.recent(1)
                assert [each.id for each in w.pushes.live()] == [push.id]
            while w.pushes.live():
                await w.store.recent(1)
                w.clock.now_s += 1
        assert (await w.ended(push)).state is PushState.FAILED


async def test_a_push_that_cannot_be_journalled_is_not_begun(tmp_path: Path) -> None:
    async with world(tmp_path, busy_timeout_s=0.01) as w:
        await w.add(MODEL_BYTES)
        await w.join()
        with locked(tmp_path), pytest.raises(NotStored):
            await w.pushes.start(w.device.id, KWS, who="ann")
        assert w.pushes.live() == ()
        assert w.device.sent == []
