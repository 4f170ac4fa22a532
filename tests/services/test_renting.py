import asyncio
from pathlib import Path

from gatewayd.core.device import Slot, SlotState
from gatewayd.core.names import ModelName, parse_model_ref
from gatewayd.core.push import PushState
from gatewayd.core.request import NODE, SensorRef
from gatewayd.core.standing import StandingOrder
from gatewayd.services.renting import Renting
from tests.services.world import EMPTY, World, running, world

MODEL_BYTES = bytes(range(256)) * 10


async def _serve(w: World, renting: Renting, *, times: int) -> int:
    """Serve by-reference requests until one runs on the device; returns how many the node served."""
    for count in range(times):
        w.served.clear()
        result = await w.inference.infer(w.request(source=True))
        if result.ran_on != NODE:
            return count
        renting.served(w.served[0])
        await w.store.recent(1)  # gives the loops a turn
    return times


async def test_the_model_is_pushed_once_the_saving_missed_would_have_paid(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        await w.add(MODEL_BYTES)
        await w.join()
        renting = Renting(pushes=w.pushes, clock=w.clock)
        async with running(w.pushes), asyncio.TaskGroup() as tasks:
            loop = tasks.create_task(renting.run(), name="renting")
            served_by_node = await _serve(w, renting, times=500)
            (push,) = await w.pushes.recent(10)
            assert (await w.ended(push)).state is PushState.ACCEPTED
            loop.cancel()
        assert 1 < served_by_node < 500


async def test_pinned_requests_teach_nothing(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        version = await w.add(MODEL_BYTES)
        await w.join()
        renting = Renting(pushes=w.pushes, clock=w.clock)
        await w.inference.infer(w.request(source=True, pin=NODE))
        renting.served(w.served[0])
        assert renting.balance(w.device.id, version).requests == 0
        await w.inference.infer(w.request(source=True))
        renting.served(w.served[1])
        assert renting.balance(w.device.id, version).saved_missed > 0


async def test_a_device_that_refuses_is_not_asked_at_every_request(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        await w.add(MODEL_BYTES)
        await w.join()
        w.device.rejects = "busy"
        renting = Renting(pushes=w.pushes, clock=w.clock)
        async with running(w.pushes), asyncio.TaskGroup() as tasks:
            loop = tasks.create_task(renting.run(), name="renting")
            assert await _serve(w, renting, times=300) == 300
            loop.cancel()
        assert len(await w.pushes.recent(100)) == 1


async def test_a_standing_order_decides_at_its_first_answer(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        await w.add(MODEL_BYTES)
        await w.join()
        order = StandingOrder(
            "o", parse_model_ref("kws"), SensorRef(w.device.id, "mic"), 0.1, 1.0, None, who="test", started_at=1.7e9
        )
        renting = Renting(pushes=w.pushes, clock=w.clock, wall_clock=lambda: 1.7e9, orders=lambda: [order])
        await w.inference.infer(w.request(source=True))
        rent = renting.served(w.served[0])
        assert rent is not None
        assert (rent.state, rent.requests) == ("a push pays: it is asked for", 1)
        await w.inference.infer(w.request(source=True))
        again = renting.served(w.served[1])
        assert again is not None
        assert again.state == "a push pays: it is on its way"


async def test_a_flapping_device_is_not_pushed_to(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        await w.add(MODEL_BYTES)
        await w.join()
        renting = Renting(pushes=w.pushes, clock=w.clock)
        for _ in range(5):
            w.device.leave()
            w.device.birth()
        states = set()
        for _ in range(100):
            w.served.clear()
            await w.inference.infer(w.request(source=True))
            rent = renting.served(w.served[0])
            assert rent is not None
            states.add(rent.state)
        assert states == {
            "too little yet for a push",
            "a push would pay, but the device came and went 5 times within 120 s: held off for 60 s",
        }


async def test_a_full_device_keeps_what_it_has(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        version = await w.add(MODEL_BYTES)
        w.device.slots = (Slot(0, SlotState.ACTIVE, ModelName("other"), 1, version.variants[0].digest), *EMPTY[1:])
        await w.join()
        renting = Renting(pushes=w.pushes, clock=w.clock)
        rents = []
        for _ in range(200):
            w.served.clear()
            w.clock.now_s += 10
            await w.inference.infer(w.request(source=True))
            rents.append(renting.served(w.served[0]))
        said = {rent.state for rent in rents if rent is not None}
        assert "too little yet for a push" in said
        assert len(said) > 1
        assert not any("asked for" in state for state in said)
