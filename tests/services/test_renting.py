import asyncio
from dataclasses import replace
from math import inf
from pathlib import Path

from gatewayd.core.device import Slot, SlotState
from gatewayd.core.names import Digest, ModelName, ModelRef
from gatewayd.core.push import PushState
from gatewayd.core.request import NODE, Repeats
from gatewayd.services.renting import Renting
from gatewayd.services.siblings import Siblings
from tests.services.world import World, running, world

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
        renting = Renting(pushes=w.pushes, estimates=w.estimates, clock=w.clock)
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
        renting = Renting(pushes=w.pushes, estimates=w.estimates, clock=w.clock)
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
        renting = Renting(pushes=w.pushes, estimates=w.estimates, clock=w.clock)
        async with running(w.pushes), asyncio.TaskGroup() as tasks:
            loop = tasks.create_task(renting.run(), name="renting")
            assert await _serve(w, renting, times=300) == 300
            loop.cancel()
        assert len(await w.pushes.recent(100)) == 1


async def test_a_push_that_failed_makes_the_next_one_dearer(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        version = await w.add(MODEL_BYTES)
        await w.join()
        w.device.rejects = "busy"
        renting = Renting(pushes=w.pushes, estimates=w.estimates, clock=w.clock)
        async with running(w.pushes), asyncio.TaskGroup() as tasks:
            loop = tasks.create_task(renting.run(), name="renting")
            await _serve(w, renting, times=300)
            loop.cancel()
        assert renting.balance(w.device.id, version).failures >= 1


async def test_the_rate_of_a_standing_order_is_known(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        version = await w.add(MODEL_BYTES)
        await w.join()
        renting = Renting(pushes=w.pushes, estimates=w.estimates, clock=w.clock)
        async with running(w.pushes), asyncio.TaskGroup() as tasks:
            loop = tasks.create_task(renting.run(), name="renting")
            request = replace(w.request(source=True), repeats=Repeats(2.0, inf))
            await w.inference.infer(request)
            rent = renting.served(w.served[0])
            assert rent is not None
            assert rent.state == "a push pays: it is asked for"
            assert renting.balance(w.device.id, version).ordered_until_s == inf
            assert await _serve(w, renting, times=500) < 500
            loop.cancel()


async def test_an_order_that_has_stopped_is_noticed(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        version = await w.add(MODEL_BYTES)
        await w.join()
        renting = Renting(pushes=w.pushes, estimates=w.estimates, clock=w.clock)
        await w.inference.infer(replace(w.request(source=True), repeats=Repeats(0.001, 500.0)))
        await w.inference.infer(w.request(source=True))
        renting.served(w.served[0])
        renting.served(w.served[1])
        assert renting.balance(w.device.id, version).ordered_until_s is not None
        w.clock.now_s += 400.0
        renting.served(w.served[1])
        assert renting.balance(w.device.id, version).ordered_until_s is not None
        w.clock.now_s += 3600.0
        renting.served(w.served[1])
        assert renting.balance(w.device.id, version).ordered_until_s is None


async def test_a_device_that_is_full_is_told_of(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        await w.add(MODEL_BYTES)
        other = Slot(0, SlotState.ACTIVE, ModelName("other"), 1, Digest("0" * 64))
        w.device.slots = (other, Slot(1, SlotState.EMPTY))
        await w.join()
        renting = Renting(pushes=w.pushes, estimates=w.estimates, clock=w.clock)
        states = []
        for _ in range(300):
            w.served.clear()
            await w.inference.infer(w.request(source=True))
            rent = renting.served(w.served[0])
            assert rent is not None
            states.append(rent.state)
        assert states[0] == "the rent paid is below the price of a push"
        assert any(
            state.startswith("a push would pay, but the device lets no model give way, and one") for state in states
        )
        assert not await w.pushes.recent(10)


async def test_a_request_placed_before_the_model_came_does_not_ask_for_it_again(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        version = await w.add(MODEL_BYTES)
        await w.join()
        renting = Renting(pushes=w.pushes, estimates=w.estimates, clock=w.clock)
        async with running(w.pushes), asyncio.TaskGroup() as tasks:
            loop = tasks.create_task(renting.run(), name="renting")
            await w.inference.infer(w.request(source=True))
            slow = w.served[0]
            await _serve(w, renting, times=500)
            (push,) = await w.pushes.recent(10)
            await w.ended(push)
            w.served.clear()
            await w.inference.infer(w.request(source=True))
            renting.served(w.served[0])  # on the device: the push was seen to have worked
            before = renting.balance(w.device.id, version).requests
            result = replace(slow.result, measured=slow.result.measured.in_all(5.0))
            assert renting.served(replace(slow, result=result)) is None
            assert renting.balance(w.device.id, version).requests == before
            loop.cancel()


async def test_a_device_that_is_being_pushed_to_keeps_that_push(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        first = ModelName("first")
        await w.catalog.add(model=first, files=[b"another"], labels=(), preprocessing="", note="", who="test")
        await w.add(MODEL_BYTES)
        await w.join()
        renting = Renting(pushes=w.pushes, estimates=w.estimates, clock=w.clock)
        push = await w.pushes.start(w.device.id, ModelRef(first), who="somebody")
        states = []
        for _ in range(300):
            w.served.clear()
            await w.inference.infer(w.request(source=True))
            rent = renting.served(w.served[0])
            assert rent is not None
            states.append(rent.state)
        assert "a push would pay, but the device is being pushed to: another push would end that one" in states
        assert "a push pays: it is asked for" not in states
        assert [each.id for each in w.pushes.live()] == [push.id]


async def test_a_flapping_device_is_not_pushed_to(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        await w.add(MODEL_BYTES)
        await w.join()
        renting = Renting(pushes=w.pushes, estimates=w.estimates, clock=w.clock)
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
            "the rent paid is below the price of a push",
            "a push would pay, but the device came and went 5 times within 120 s: held off for 60 s",
        }


async def test_one_request_soon_after_the_start_is_no_rate(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        await w.add(MODEL_BYTES)
        await w.join()
        renting = Renting(pushes=w.pushes, estimates=w.estimates, clock=w.clock)
        w.clock.now_s += 1.0
        await w.inference.infer(w.request(source=True))
        rent = renting.served(w.served[0])
        assert rent is not None
        assert rent.state == "the rent paid is below the price of a push"


async def test_what_an_operator_dropped_is_not_brought_back_unasked(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        await w.add(MODEL_BYTES)
        await w.join()
        renting = Renting(pushes=w.pushes, estimates=w.estimates, clock=w.clock, is_unwanted=lambda *_: True)
        async with running(w.pushes), asyncio.TaskGroup() as tasks:
            loop = tasks.create_task(renting.run(), name="renting")
            assert await _serve(w, renting, times=500) == 500
            assert not await w.pushes.recent(10)
            loop.cancel()


async def test_a_device_that_came_a_moment_ago_was_not_silent_all_day(tmp_path: Path) -> None:
    """Silence counts from when the device was there, and not while that is too short to tell anything."""
    async with world(tmp_path) as w:
        version = await w.add(MODEL_BYTES)
        siblings = Siblings(w.tracking.find, w.clock)
        w.tracking.watch(siblings.changed)
        renting = Renting(pushes=w.pushes, estimates=w.estimates, clock=w.clock, siblings=siblings)
        w.clock.now_s += 40_000.0
        await w.join()
        w.clock.now_s += 10.0
        await w.inference.infer(w.request(source=True))
        renting.served(w.served[-1])
        assert renting.balance(w.device.id, version).rate.count == 0.0
        other = Renting(pushes=w.pushes, estimates=w.estimates, clock=w.clock, siblings=siblings)
        w.clock.now_s += 5000.0
        await w.inference.infer(w.request(source=True))
        other.served(w.served[-1])
        assert other.balance(w.device.id, version).rate.gaps_s == 5000.0


async def test_what_is_missed_is_judged_by_the_link_as_it_showed_itself(tmp_path: Path) -> None:
    """Before a device's first answer its link is a guess; who decides at that answer should not guess any more."""
    async with world(tmp_path) as w:
        version = await w.add(MODEL_BYTES)
        await w.join()
        await w.inference.infer(w.request(source=True))
        quick, slow = (Renting(pushes=w.pushes, estimates=w.estimates, clock=w.clock) for _ in range(2))
        quick.served(w.served[0])
        for _ in range(30):
            w.estimates.saw_transfer(w.device.id, byte_count=1000, elapsed_s=100.0)
        slow.served(w.served[0])
        saved = [each.balance(w.device.id, version).saved_missed for each in (quick, slow)]
        assert saved[1] > 10 * saved[0] > 0
