"""Models that an operator has devices let go: journalled, ended by the device's word, wanted there no more."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from gatewayd.core.device import Born, LinkKind, Report, Slot, SlotState
from gatewayd.core.dropping import Drop, DropState
from gatewayd.core.errors import Conflict, DeviceRefused, DeviceTimeout, Forbidden, GatewayError, NotFound, Overloaded
from gatewayd.core.events import ModelDropped
from gatewayd.core.names import Digest, ModelName, ModelRef
from gatewayd.services.drop_ports import DropPorts
from gatewayd.services.dropping import Drops
from tests.services.world import CAPABILITIES, DEVICE, World, world

KWS, OTHER = ModelName("kws"), ModelName("other")
TWO = (
    Slot(0, SlotState.ACTIVE, KWS, 1, Digest("1" * 64)),
    Slot(1, SlotState.ACTIVE, OTHER, 2, Digest("2" * 64)),
    Slot(2, SlotState.EMPTY),
)


def drops_of(w: World) -> Drops:
    ports = DropPorts(w.store, lambda _: w.device, w.events.append, lambda: 1.7e9)
    return Drops(ports, tracking=w.tracking, pushes=w.pushes, desires=w.desires)


@asynccontextmanager
async def full(folder: Path) -> AsyncIterator[tuple[World, Drops]]:
    """A device that holds two models, and says that it drops them."""
    async with world(folder) as w:
        w.device.capabilities, w.device.slots = replace(CAPABILITIES, drops_models=True), TWO
        await w.join()
        yield w, drops_of(w)


def held(w: World) -> set[ModelName]:
    return {slot.model for slot in w.device.slots if slot.model is not None}


def ended(w: World) -> list[DropState]:
    return [event.drop.state for event in w.events if isinstance(event, ModelDropped)]


async def heard(w: World, drops: Drops) -> Drop:
    """Let the service store what the device says now."""
    before = len(ended(w))
    async with asyncio.TaskGroup() as tasks:
        loop = tasks.create_task(drops.run(), name="drops")
        drops.handle(Born(DEVICE, LinkKind.MQTT, Report(w.device.capabilities, w.device.slots, 0.9)))
        await w.seen(lambda: len(ended(w)) > before)
        loop.cancel()
    return (await drops.recent(1))[0]


async def settled(w: World, drops: Drops) -> Drop:
    """Let the service store what the device's report makes of a drop, news or not."""
    async with asyncio.TaskGroup() as tasks:
        loop = tasks.create_task(drops.run(), name="drops")
        drops.handle(Born(DEVICE, LinkKind.MQTT, Report(w.device.capabilities, w.device.slots, 0.9)))
        while await w.store.load_open_drops():  # each look waits for the disk
            pass
        loop.cancel()
    return (await drops.recent(1))[0]


async def test_a_model_leaves_and_is_wanted_no_more(tmp_path: Path) -> None:
    async with full(tmp_path) as (w, drops):
        await w.desires.want(DEVICE, KWS, 1, who="ann", downgrade=False)
        dropped = await drops.drop(DEVICE, KWS, who="ann", why="not needed")
        assert (dropped.state, held(w)) == (DropState.DROPPED, {OTHER})
        assert w.pushes.desired(DEVICE) == ()
        assert await w.store.load_desires() == ()
        assert await drops.recent(5, DEVICE) == (dropped,)
        assert ended(w) == [DropState.DROPPED]


async def test_the_device_has_the_last_word(tmp_path: Path) -> None:
    async with full(tmp_path) as (w, drops):
        w.device.keeps = "the push of kws needs it until its end"
        with pytest.raises(DeviceRefused, match="needs it"):
            await drops.drop(DEVICE, KWS, who="ann")
        (row,) = await drops.recent(5)
        assert (row.state, row.reason) == (DropState.REFUSED, "the push of kws needs it until its end")
        assert await w.store.load_open_drops() == ()


async def test_an_answer_that_is_lost_is_asked_for_again_and_the_report_counts(tmp_path: Path) -> None:
    async with full(tmp_path) as (w, drops):
        w.device.answers = False
        with pytest.raises(DeviceTimeout):
            await drops.drop(DEVICE, KWS, who="ann")
        assert [each for each in w.device.sent if each.startswith("drop")] == ["drop: kws@1"] * 3
        assert (await drops.recent(1))[0].state is DropState.FAILED
        assert (await heard(w, drops)).state is DropState.DROPPED
        assert ended(w) == [DropState.FAILED, DropState.DROPPED]


@pytest.mark.parametrize("is_restarted", [False, True])
@pytest.mark.parametrize("is_lost", [False, True])
async def test_a_drop_that_failed_is_corrected_by_the_devices_next_report_only(
    tmp_path: Path, *, is_lost: bool, is_restarted: bool
) -> None:
    async with full(tmp_path) as (w, drops):
        w.device.loses_drops = is_lost  # else it carries the drop out, and its answer is lost
        w.device.answers = False
        with pytest.raises(DeviceTimeout):
            await drops.drop(DEVICE, KWS, who="ann")
        (failed,) = await drops.recent(1)
        assert (failed.state, failed.ended_at) == (DropState.FAILED, None)
        again = drops_of(w) if is_restarted else drops
        if is_restarted:
            await again.load()
        row = await settled(w, again)
        assert row.state is (DropState.FAILED if is_lost else DropState.DROPPED)
        assert await w.store.load_open_drops() == ()
        w.device.slots = TWO[1:]  # it goes later, for another reason: that is not this drop
        later = drops_of(w)
        await later.load()
        later.handle(Born(DEVICE, LinkKind.MQTT, Report(w.device.capabilities, w.device.slots, 0.9)))
        assert (await later.recent(1))[0] == row


async def test_another_drop_leaves_the_failed_one_as_it_is(tmp_path: Path) -> None:
    async with full(tmp_path) as (w, drops):
        w.device.loses_drops, w.device.answers = True, False
        with pytest.raises(DeviceTimeout):
            await drops.drop(DEVICE, KWS, who="ann")
        w.device.loses_drops, w.device.answers = False, True
        await drops.drop(DEVICE, KWS, who="bob")
        states = [(drop.who, drop.state, drop.ended_at is None) for drop in await drops.recent(5)]
        assert states == [("bob", DropState.DROPPED, False), ("ann", DropState.FAILED, False)]


async def test_what_the_node_could_not_ask_ends_too(tmp_path: Path) -> None:
    async with full(tmp_path) as (w, drops):
        w.device.send_fails = Overloaded("full")
        with pytest.raises(Overloaded):
            await drops.drop(DEVICE, KWS, who="ann")
        assert (await drops.recent(1))[0].state is DropState.FAILED
        w.device.send_fails = None
        assert (await drops.drop(DEVICE, KWS, who="ann")).state is DropState.DROPPED


async def test_its_report_may_come_although_its_answer_is_lost(tmp_path: Path) -> None:
    async with full(tmp_path) as (w, drops):
        w.device.answers = False
        w.device.slots = TWO[1:]
        async with asyncio.TaskGroup() as tasks:
            waiting = tasks.create_task(drops.drop(DEVICE, KWS, who="ann"), name="drop")
            await asyncio.sleep(0)
            w.device.birth()
        assert waiting.result().reason == "its report says so"


@pytest.mark.parametrize(("is_lost", "state"), [(True, DropState.FAILED), (False, DropState.DROPPED)])
async def test_a_restart_in_between_ends_with_what_the_device_says(
    tmp_path: Path,
    is_lost: bool,  # noqa: FBT001 - a parameter of the test
    state: DropState,
) -> None:
    async with full(tmp_path) as (w, _):
        named = (DEVICE, 0, KWS, 1, Digest("1" * 64))
        await w.store.add_drop(Drop(*named, is_last=False, who="ann", why="", asked_at=1.7e9))
        w.device.slots = TWO if is_lost else TWO[1:]
        drops = drops_of(w)
        await drops.load()
        assert (await heard(w, drops)).state is state
        assert await w.store.load_open_drops() == ()


async def test_the_only_model_leaves_only_when_the_last_is_meant(tmp_path: Path) -> None:
    async with full(tmp_path) as (w, drops):
        w.device.slots = TWO[:1] + TWO[2:]
        w.device.birth()
        with pytest.raises(Conflict, match="--last"):
            await drops.drop(DEVICE, KWS, who="ann")
        assert (await drops.drop(DEVICE, KWS, who="ann", is_last=True)).is_last
        assert held(w) == set()


async def _offline(w: World) -> None:
    w.device.leave()


async def _silent_agent(w: World) -> None:
    w.device.capabilities = CAPABILITIES
    w.device.birth()


async def _without_it(w: World) -> None:
    w.device.slots = TWO[1:]
    w.device.birth()


async def _revoked(w: World) -> None:
    await w.tracking.revoke(DEVICE, who="ann", write=w.store.depart)


@pytest.mark.parametrize(
    ("first", "error", "problem"),
    [
        (_offline, Conflict, "offline"),
        (_silent_agent, Conflict, "drops no models"),
        (_without_it, NotFound, "holds no kws"),
        (_revoked, Forbidden, "approval"),
    ],
)
async def test_what_cannot_be_is_refused_before_anything_is_noted(
    tmp_path: Path, first: object, error: type[GatewayError], problem: str
) -> None:
    async with full(tmp_path) as (w, drops):
        assert callable(first)
        await first(w)
        with pytest.raises(error, match=problem):
            await drops.drop(DEVICE, KWS, who="ann")
        assert await drops.recent(5) == ()


async def test_nothing_is_dropped_under_a_push(tmp_path: Path) -> None:
    async with full(tmp_path) as (w, drops):
        version = await w.add()
        w.device.slots = (TWO[1], Slot(1, SlotState.EMPTY), Slot(2, SlotState.EMPTY))
        w.device.birth()
        await w.pushes.start(DEVICE, ModelRef(version.model), who="ann")
        with pytest.raises(Conflict, match="push"):
            await drops.drop(DEVICE, OTHER, who="ann", is_last=True)


async def test_what_an_operator_dropped_is_unwanted_until_somebody_wishes_for_it(tmp_path: Path) -> None:
    async with full(tmp_path) as (w, drops):
        assert not drops.is_unwanted(DEVICE, OTHER, 2)
        await drops.drop(DEVICE, OTHER, who="ann")
        assert drops.is_unwanted(DEVICE, OTHER, 2)
        assert not drops.is_unwanted(DEVICE, OTHER, 3), "a newer version may come"
        assert not drops.is_unwanted(DEVICE, KWS, 1)
        again = drops_of(w)
        await again.load()
        assert again.is_unwanted(DEVICE, OTHER, 2), "after a restart, too"


async def test_a_drop_that_was_refused_leaves_the_model_wanted(tmp_path: Path) -> None:
    async with full(tmp_path) as (w, drops):
        w.device.keeps = "it is needed"
        with pytest.raises(DeviceRefused):
            await drops.drop(DEVICE, OTHER, who="ann")
        assert not drops.is_unwanted(DEVICE, OTHER, 2)
