import asyncio

from hypothesis import given
from hypothesis import strategies as st

from gatewayd.adapters.oscore_contexts import Held, OscoreContexts, open_contexts
from gatewayd.core.errors import NotStored
from gatewayd.wire.oscore.numbers import SENDER_STEP, Verdict
from tests.oscore_stores import FakeKeys, FakeNumbers, key_of

KEYS = tuple(key_of(f"dev-{number}", number) for number in (1, 2, 3))


def held_by(contexts: OscoreContexts, number: int) -> Held:
    held = contexts.of_kid(KEYS[number].kid)
    assert held is not None
    return held


@given(st.lists(st.tuples(st.integers(0, 2), st.sampled_from(["use", "take"])), max_size=120))
def test_whatever_is_written_at_once_the_disk_is_ahead_of_what_was_used(steps: list[tuple[int, str]]) -> None:
    asyncio.run(all_at_once(steps))


async def all_at_once(steps: list[tuple[int, str]]) -> None:
    numbers = FakeNumbers()
    contexts = await open_contexts(FakeKeys.of(*KEYS), numbers)
    used: dict[int, list[int]] = {0: [], 1: [], 2: []}
    taken: dict[int, list[int]] = {0: [], 1: [], 2: []}

    async def step(which: int, what: str, number: int) -> None:
        if what == "use":
            used[which].append(await contexts.next_number(held_by(contexts, which)))
        else:
            await contexts.take(held_by(contexts, which), number)
            taken[which].append(number)
        after = await open_contexts(FakeKeys.of(*KEYS), FakeNumbers(dict(numbers.rows)))
        again = held_by(after, which).numbers
        assert again.stored.sender > max(used[which], default=-1)
        assert all(again.judge(each) is not Verdict.NEW for each in taken[which])

    async with asyncio.TaskGroup() as tasks:
        for number, (which, what) in enumerate(steps):
            tasks.create_task(step(which, what, number), name="step")
    assert all(len(set(each)) == len(each) for each in used.values())


async def test_a_fleet_that_wakes_up_is_written_together() -> None:
    numbers = FakeNumbers()
    keys = [key_of(f"dev-{number}", number) for number in range(1, 101)]
    store = FakeKeys.of(*keys)
    contexts = await open_contexts(store, numbers)
    async with asyncio.TaskGroup() as tasks:
        for key in keys:
            held = contexts.of_kid(key.kid)
            assert held is not None
            tasks.create_task(contexts.take(held, 0), name="take")
    assert numbers.writes <= 3
    assert len(numbers.rows) == 100
    assert store.changes <= 3


async def test_the_context_is_marked_as_used_before_anything_is_protected_with_it() -> None:
    keys, numbers = FakeKeys.of(KEYS[0]), FakeNumbers()
    contexts = await open_contexts(keys, numbers)
    assert not keys.oscore()[0].is_used
    assert await contexts.next_number(held_by(contexts, 0)) == 0
    assert keys.oscore()[0].is_used
    assert (await open_contexts(keys, FakeNumbers())).of_kid(KEYS[0].kid) is None, "another database: closed"
    assert (await open_contexts(keys, numbers)).of_kid(KEYS[0].kid) is not None


async def test_a_write_that_fails_is_made_again_with_the_next_one() -> None:
    numbers = FakeNumbers(failure=NotStored("full"))
    contexts = await open_contexts(FakeKeys.of(*KEYS), numbers)
    for which in (0, 1):
        try:
            await contexts.next_number(held_by(contexts, which))
        except NotStored:
            continue
    numbers.failure = None
    assert await contexts.next_number(held_by(contexts, 1)) == 0
    assert {each.sender for each in numbers.rows.values()} == {SENDER_STEP}


async def test_other_credentials_of_the_same_device_begin_anew() -> None:
    keys = FakeKeys.of(KEYS[0])
    contexts = await open_contexts(keys, FakeNumbers())
    first = held_by(contexts, 0)
    assert await contexts.next_number(first) == 0
    keys.known = keys.known.with_oscore(key_of("dev-1", 9), may_replace=True)
    assert contexts.of_kid(KEYS[0].kid) is None
    second = contexts.of_identity("oscore/dev-1")
    assert second is not None
    assert second is not first
    assert await contexts.next_number(second) == 0
