"""Pushes to full devices: another model gives way once the new one is accepted, and not before."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from gatewayd.core.device import PushPhase, PushReport, Slot, SlotState
from gatewayd.core.errors import Conflict
from gatewayd.core.module import Held
from gatewayd.core.names import Digest, ModelName, ModelRef
from gatewayd.core.push import PushState
from gatewayd.core.request import NODE
from gatewayd.core.retry import PLACEMENT
from gatewayd.services.renting import Renting
from tests.services.world import CAPABILITIES, DEVICE, MODEL, World, running, world

MODEL_BYTES = bytes(range(256)) * 10
OTHER = ModelName("other")
FULL = (Slot(0, SlotState.ACTIVE, OTHER, 3, Digest("1" * 64)), Slot(1, SlotState.EMPTY))


@asynccontextmanager
async def full(folder: Path) -> AsyncIterator[World]:
    async with world(folder) as w:
        await w.add(MODEL_BYTES)
        w.device.capabilities, w.device.slots = replace(CAPABILITIES, drops_models=True), FULL
        await w.join()
        yield w


def held(w: World) -> set[ModelName]:
    return {slot.model for slot in w.device.slots if slot.model is not None}


async def test_a_full_device_says_what_would_help(tmp_path: Path) -> None:
    async with full(tmp_path) as w:
        with pytest.raises(Conflict, match="--instead-of"):
            await w.pushes.start(DEVICE, ModelRef(MODEL), who="ann")
        w.device.capabilities = CAPABILITIES
        w.device.birth()
        with pytest.raises(Conflict, match="lets no model give way"):
            await w.pushes.start(DEVICE, ModelRef(MODEL), who="ann", instead_of=OTHER)


async def test_a_model_leaves_for_another_one_and_is_wanted_no_more(tmp_path: Path) -> None:
    async with full(tmp_path) as w, running(w.pushes):
        await w.desires.want(DEVICE, OTHER, 3, who="bob", downgrade=False)
        push = await w.pushes.start(DEVICE, ModelRef(MODEL), who="ann", instead_of=OTHER)
        assert push.instead_of == Held(OTHER, 3)
        row = await w.ended(push)
        assert (row.state, row.instead_of, held(w)) == (PushState.ACCEPTED, Held(OTHER, 3), {MODEL})
        assert [wish.model for wish in w.pushes.desired(DEVICE)] == [MODEL]
        assert [wish.model for wish in await w.store.load_desires()] == [MODEL]


async def test_a_push_that_is_refused_leaves_everything_as_it_was(tmp_path: Path) -> None:
    async with full(tmp_path) as w, running(w.pushes):
        await w.desires.want(DEVICE, OTHER, 3, who="bob", downgrade=False)
        w.device.rejects = "instead of other@3: version 4 is there"
        push = await w.pushes.start(DEVICE, ModelRef(MODEL), who="ann", instead_of=OTHER)
        row = await w.ended(push)
        assert (row.state, row.reason) == (PushState.REJECTED, "instead of other@3: version 4 is there")
        assert held(w) == {OTHER}
        assert {wish.model for wish in w.pushes.desired(DEVICE)} == {OTHER, MODEL}


async def test_a_wish_remembers_what_gives_way_until_that_is_wanted_anew(tmp_path: Path) -> None:
    async with full(tmp_path) as w, running(w.pushes):
        w.device.silent_at = PushPhase.WANT
        push = await w.pushes.start(DEVICE, ModelRef(MODEL), who=PLACEMENT, instead_of=OTHER)
        w.device.emit(PushReport(DEVICE, push.id, PushPhase.FAILED, reason="digest differs"))
        assert (await w.ended(push)).state is PushState.FAILED
        (wish,) = await w.store.load_desires()
        assert (wish.instead_of, w.desires.gives_way_to(wish)) == (OTHER, OTHER)
        await w.desires.want(DEVICE, OTHER, 3, who="ann", downgrade=False)
        assert w.desires.gives_way_to(wish) is None


async def _asked(w: World, renting: Renting, *, times: int) -> set[str]:
    states = set()
    for _ in range(times):
        w.served.clear()
        result = await w.inference.infer(w.request(source=True))
        rent = renting.served(w.served[0])
        if result.ran_on == NODE and rent is not None:
            states.add(rent.state)
        await w.store.recent(1)  # gives the loops a turn
    return states


async def test_placement_has_a_model_give_way_when_that_pays(tmp_path: Path) -> None:
    async with full(tmp_path) as w, running(w.pushes), asyncio.TaskGroup() as tasks:
        renting = Renting(pushes=w.pushes, estimates=w.estimates, clock=w.clock)
        loop = tasks.create_task(renting.run(), name="renting")
        states = await _asked(w, renting, times=900)
        assert "a push pays: it is asked for; other gives way once it is accepted" in states
        assert held(w) == {MODEL}
        loop.cancel()


@pytest.mark.parametrize("who", ["ann", "order"])
async def test_what_is_pinned_or_ordered_stays(tmp_path: Path, who: str) -> None:
    async with full(tmp_path) as w, running(w.pushes), asyncio.TaskGroup() as tasks:
        ordered = frozenset({OTHER}) if who == "order" else frozenset()
        if who == "ann":
            await w.desires.want(DEVICE, OTHER, 3, who=who, downgrade=False)
        renting = Renting(pushes=w.pushes, estimates=w.estimates, clock=w.clock, ordered=lambda _: ordered)
        loop = tasks.create_task(renting.run(), name="renting")
        states = await _asked(w, renting, times=500)
        why = "every model there is kept" + (" or ordered, and none is sure to save less" if ordered else " (other): ")
        assert any(each.startswith(f"a push would pay, but {why}") for each in states)
        assert (held(w), await w.pushes.recent(5)) == ({OTHER}, [])
        loop.cancel()
