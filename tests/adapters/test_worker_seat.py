"""What one request can do to others: nothing. The worker is real, its engine obeys the input (tests/saboteur.py)."""

import asyncio
import re
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest
import pytest_asyncio

from gatewayd.adapters.worker_seat import WorkerLimits
from gatewayd.adapters.workers import Workers
from gatewayd.core.errors import DeadlineExceeded, GatewayError, ModelRefused, Overloaded, WorkerDied
from gatewayd.core.events import VariantQuarantined, WorkerEnded
from gatewayd.core.model import NodeRun, Variant
from tests.engine_environments import require_engine
from tests.saboteur import Order, answer, order, saboteur, saboteur_variant

_PATIENCE_S = 20.0
_LIMITS = replace(WorkerLimits(), memory_limit_bytes=1024**3, stuck_s=0.1, queue_limit=8)


@dataclass
class World:
    """Workers of the saboteur, two variants, and what was announced."""

    workers: Workers
    bad: Variant
    good: Variant
    events: list[VariantQuarantined | WorkerEnded] = field(default_factory=list)

    async def ask(
        self,
        what: Order,
        argument: float = 0.0,
        *,
        variant: Variant | None = None,
        timeout_s: float = _PATIENCE_S,
        stream: str = "",
        is_reset: bool = False,
    ) -> float:
        done = await self.workers.run(
            variant or self.bad, order(what, argument), timeout_s=timeout_s, stream=stream, is_reset=is_reset
        )
        return answer(done.outputs)

    async def error(self, what: Order, argument: float = 0.0, *, timeout_s: float = _PATIENCE_S) -> GatewayError:
        with pytest.raises(GatewayError) as caught:
            await self.ask(what, argument, timeout_s=timeout_s)
        return caught.value


@pytest_asyncio.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    require_engine("litert")  # for its numpy
    events: list[VariantQuarantined | WorkerEnded] = []
    async with Workers(
        lambda digest: tmp_path / digest,
        (saboteur(tmp_path),),
        clock=time.monotonic,
        limits=_LIMITS,
        announce=events.append,
    ) as workers:
        yield World(workers, saboteur_variant(tmp_path, "bad"), saboteur_variant(tmp_path, "good"), events)


@pytest.mark.parametrize(
    ("what", "reason"),
    [
        (Order.CRASH, "SIGSEGV"),
        (Order.ABORT, "SIGABRT"),
        (Order.EXIT, "exited with code 7"),
        (Order.EAT, "exited with"),
    ],
)
async def test_a_death_costs_that_request_only(world: World, what: Order, reason: str) -> None:
    await world.ask(Order.COUNT)
    asked = [world.ask(Order.COUNT), world.ask(what), *(world.ask(Order.COUNT) for _ in range(5))]
    first, dead, *others = await asyncio.gather(*asked, return_exceptions=True)
    assert first == 2
    assert isinstance(dead, WorkerDied)
    assert reason in str(dead)
    assert others == [1, 2, 3, 4, 5]  # by its successor, in the order asked
    assert [(event.variant, event.engine) for event in world.events if isinstance(event, WorkerEnded)] == [
        ("bad", "litert")
    ]


async def test_a_variant_that_always_kills_is_quarantined_and_told_while_others_are_served(world: World) -> None:
    for _ in range(2):
        assert isinstance(await world.error(Order.CRASH), WorkerDied)
        assert await world.ask(Order.COUNT, variant=world.good) > 0
    assert "is quarantined" in str(await world.error(Order.COUNT))
    assert [type(event) for event in world.events] == [WorkerEnded, WorkerEnded, VariantQuarantined]
    assert list(world.workers.quarantined()) == [world.bad.digest]
    assert await world.ask(Order.COUNT, variant=world.good) == 3
    world.workers.release(world.bad.digest)
    assert await world.ask(Order.COUNT) == 1


async def test_a_hang_past_its_deadline_costs_that_request_only(world: World) -> None:
    await world.ask(Order.COUNT)
    stuck, other = await asyncio.gather(
        world.ask(Order.SLEEP, 60, timeout_s=0.2), world.ask(Order.COUNT), return_exceptions=True
    )
    assert isinstance(stuck, DeadlineExceeded)
    assert other == 1  # by a successor
    assert "did not invoke within" in world.events[0].reason


async def test_what_expired_while_it_waited_is_not_computed(world: World) -> None:
    await world.ask(Order.COUNT)
    busy, late, last = await asyncio.gather(
        world.ask(Order.SLEEP, 0.3),
        world.ask(Order.COUNT, timeout_s=0.1),
        world.ask(Order.COUNT),
        return_exceptions=True,
    )
    assert isinstance(late, DeadlineExceeded)
    assert (busy, last) == (2, 3)


async def test_what_cannot_be_served_in_time_is_refused_at_once(world: World) -> None:
    for _ in range(2):
        await world.ask(Order.SLEEP, 0.05)
    async with asyncio.TaskGroup() as tasks:
        waiting = [tasks.create_task(world.ask(Order.SLEEP, 0.05), name="waiting") for _ in range(4)]
        await asyncio.sleep(0)
        with pytest.raises(Overloaded, match=r"the queue of variant bad is .* s long, the request has 0.01 s"):
            await world.ask(Order.COUNT, timeout_s=0.01)
    assert all(each.result() > 0 for each in waiting)


async def test_the_queue_is_bounded(world: World) -> None:
    await world.ask(Order.COUNT)
    asked = [world.ask(Order.SLEEP, 0.01) for _ in range(20)]
    answers = await asyncio.gather(*asked, return_exceptions=True)
    assert sum(isinstance(each, Overloaded) for each in answers) == 20 - 1 - _LIMITS.queue_limit


@pytest.mark.parametrize(
    ("what", "reason"),
    [
        (Order.CLAIM_MANY, "1000 answers to 1 inferences"),
        (Order.WRONG_NUMBER, "answer 3 .* where 2 was due"),
        (Order.NOT_A_TIME, "nan s"),
        (Order.NO_REASON, "and no reason"),
    ],
)
async def test_a_worker_that_lies_is_killed(world: World, what: Order, reason: str) -> None:
    await world.ask(Order.COUNT)
    error = await world.error(what)
    assert isinstance(error, WorkerDied)
    assert re.search(f"broke its channel.*{reason}", str(error)), error
    assert await world.ask(Order.COUNT) == 1


async def test_the_shared_memory_cannot_be_cut_off(world: World) -> None:
    assert await world.ask(Order.CUT_MEMORY) == 1
    assert await world.ask(Order.COUNT) == 2


async def test_a_refusal_is_told_in_the_engines_words_and_does_no_harm(world: World) -> None:
    refused, after = await asyncio.gather(world.ask(Order.REFUSE), world.ask(Order.COUNT), return_exceptions=True)
    assert isinstance(refused, ModelRefused)
    assert "I would rather not" in str(refused)
    assert after == 2
    assert not world.events


async def test_each_stream_has_a_state_of_its_own(world: World) -> None:
    assert [await world.ask(Order.COUNT, stream=name) for name in ("a", "b", "a", "a", "b", "")] == [1, 1, 2, 3, 2, 1]
    assert [await world.ask(Order.COUNT, stream=name, is_reset=name == "a") for name in ("a", "b")] == [1, 3]


async def test_the_stream_unused_for_longest_makes_room(world: World) -> None:
    names = [f"stream {number}" for number in range(_LIMITS.max_streams + 1)]
    assert [await world.ask(Order.COUNT, stream=name) for name in names] == [1] * len(names)
    assert await world.ask(Order.COUNT, stream=names[-1]) == 2
    assert await world.ask(Order.COUNT, stream=names[0]) == 1


async def test_what_is_retired_goes_when_its_last_request_is_answered(world: World) -> None:
    await world.ask(Order.COUNT)
    async with asyncio.TaskGroup() as tasks:
        last = tasks.create_task(world.ask(Order.SLEEP, 0.1), name="last")
        await asyncio.sleep(0)
        world.workers.retire(world.bad.digest)
        assert world.workers.loaded() == (world.bad.digest,)
    assert last.result() == 2
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert world.workers.loaded() == ()
    assert await world.ask(Order.COUNT) == 1  # and comes back when somebody asks


async def test_what_is_retired_while_idle_goes_at_once(world: World) -> None:
    await world.ask(Order.COUNT)
    world.workers.retire(world.bad.digest)
    assert world.workers.loaded() == ()


async def test_seats_tell_what_is_loaded(world: World) -> None:
    await world.ask(Order.COUNT)
    (seat,) = world.workers.seats()
    assert (seat.variant, seat.engine, seat.waiting) == ("bad", "litert", 0)
    assert seat.pid is not None


async def test_a_stuck_model_does_not_hold_up_another(world: World) -> None:
    await asyncio.gather(world.ask(Order.COUNT), world.ask(Order.COUNT, variant=world.good))
    async with asyncio.TaskGroup() as tasks:
        stuck = tasks.create_task(world.ask(Order.SLEEP, 0.5), name="stuck")
        done: list[NodeRun | float] = [await world.ask(Order.COUNT, variant=world.good) for _ in range(50)]
        assert not stuck.done()
    assert done == list(range(2, 52))
