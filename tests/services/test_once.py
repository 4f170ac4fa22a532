import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest

from gatewayd.adapters.store import Store, open_store
from gatewayd.adapters.store_commands import Keep
from gatewayd.core.command import CommandId, Effect, Obeyed, Receipt, Work, command_id
from gatewayd.core.device import KnownDevice
from gatewayd.core.errors import BadRequest, Conflict, GatewayError, GivenUp, NotStored, OutcomeUnknown, Overloaded
from gatewayd.core.names import DeviceId
from gatewayd.services.once import MAX_TRIES, Once

ALL_EFFECTS = pytest.mark.parametrize("effect", [Effect.ROWS, Effect.MEMORY, Effect.OUTSIDE])


def named(name: str, payload: bytes = b"{}", verb: str = "verb") -> CommandId:
    return command_id(reply_topic="reply/a", name=name.encode(), verb=verb, payload=payload)


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[Store]:
    async with open_store(tmp_path / "store.sqlite") as opened:
        yield opened


class Deed:
    """Counts how often it was done; answers the count, or raises."""

    def __init__(self, *, error: GatewayError | None = None) -> None:
        self.done = 0
        self.error = error

    def work(self, instead: Callable[[Receipt], Awaitable[bytes]] | None = None) -> Work:
        return Work(
            instead or self.do, lambda result: repr(result).encode(), lambda error: f"no: {error.code}".encode()
        )

    async def do(self, _: Receipt) -> bytes:
        self.done += 1
        if self.error is not None:
            raise self.error
        return b"done %d" % self.done


def once(store: Store) -> Once:
    return Once(store, wall_clock=lambda: 1.8e9)


@ALL_EFFECTS
async def test_a_repeated_command_is_answered_from_its_record(store: Store, effect: Effect) -> None:
    deed, memory = Deed(), once(store)
    assert await memory.obey(named("1"), effect, deed.work()) == Obeyed(b"done 1")
    assert await memory.obey(named("1"), effect, deed.work()) == Obeyed(b"done 1", is_repeated=True)
    assert (await memory.obey(named("2"), effect, deed.work())).answer == b"done 2"


@pytest.mark.parametrize("effect", [Effect.ROWS, Effect.OUTSIDE])
async def test_the_record_outlives_a_restart(store: Store, effect: Effect) -> None:
    deed = Deed()
    await once(store).obey(named("1"), effect, deed.work())
    assert await once(store).obey(named("1"), effect, deed.work()) == Obeyed(b"done 1", is_repeated=True)


async def test_what_a_restart_forgets_is_not_written(store: Store) -> None:
    await once(store).obey(named("1"), Effect.MEMORY, Deed().work())
    assert await store.find_command(named("1").key) is None


@ALL_EFFECTS
async def test_the_same_name_for_another_command_is_a_conflict(store: Store, effect: Effect) -> None:
    deed, memory = Deed(), once(store)
    await memory.obey(named("1"), effect, deed.work())
    for other in (named("1", b'{"a": 1}'), named("1", verb="other")):
        with pytest.raises(Conflict, match="another command"):
            await memory.obey(other, effect, deed.work())
    assert deed.done == 1


@ALL_EFFECTS
async def test_a_refusal_that_depends_on_how_things_are_is_remembered(store: Store, effect: Effect) -> None:
    deed, memory = Deed(error=Conflict("somebody was faster")), once(store)
    assert await memory.obey(named("1"), effect, deed.work()) == Obeyed(b"no: conflict", is_refused=True)
    deed.error = None
    assert await memory.obey(named("1"), effect, deed.work()) == Obeyed(b"no: conflict", is_repeated=True)


@ALL_EFFECTS
@pytest.mark.parametrize("error", [Overloaded("later"), NotStored("disk full"), BadRequest("what?")])
async def test_what_may_pass_or_is_malformed_is_not_and_may_be_sent_again(
    store: Store, effect: Effect, error: GatewayError
) -> None:
    deed, memory = Deed(error=error), once(store)
    with pytest.raises(type(error)):
        await memory.obey(named("1"), effect, deed.work())
    deed.error = None
    assert (await memory.obey(named("1"), effect, deed.work())).answer == b"done 2"


async def test_effect_and_record_are_one_transaction(store: Store) -> None:
    device = KnownDevice(DeviceId("cam-7"), approved=True, first_seen_at=1.0)

    async def approve_and_die(receipt: Receipt) -> bytes:
        await store.noting(receipt.write("approved")).save_device(device)
        raise asyncio.CancelledError  # the process ends here: nothing after the transaction happens

    with pytest.raises(asyncio.CancelledError):
        await once(store).obey(named("1"), Effect.ROWS, Deed().work(approve_and_die))
    again = Deed()
    obeyed = await once(store).obey(named("1"), Effect.ROWS, again.work(), is_redelivered=True)
    assert (obeyed, again.done) == (Obeyed(b"'approved'", is_repeated=True), 0)
    assert list(await store.load_devices()) == [device]


async def test_a_write_that_fails_leaves_no_record(store: Store) -> None:
    async def refused(receipt: Receipt) -> bytes:
        receipt.write("approved")
        raise NotStored("disk full")

    with pytest.raises(NotStored):
        await once(store).obey(named("1"), Effect.ROWS, Deed().work(refused))
    assert await store.find_command(named("1").key) is None


async def test_a_refusal_after_the_effect_does_not_replace_its_answer(store: Store) -> None:
    async def done_then_refused(receipt: Receipt) -> bytes:
        await store.save_command(receipt.write("done"))
        raise Conflict("too late")

    memory = once(store)
    assert (await memory.obey(named("1"), Effect.ROWS, Deed().work(done_then_refused))).answer == b"'done'"


async def test_what_was_begun_outside_and_never_ended_is_not_tried_again(store: Store) -> None:
    async def die(_: Receipt) -> bytes:
        raise asyncio.CancelledError

    with pytest.raises(asyncio.CancelledError):
        await once(store).obey(named("1"), Effect.OUTSIDE, Deed().work(die))
    deed = Deed()
    for _ in range(2):
        with pytest.raises(OutcomeUnknown, match="new id"):
            await once(store).obey(named("1"), Effect.OUTSIDE, deed.work())
    assert deed.done == 0


async def test_what_ended_the_daemon_again_and_again_is_given_up(store: Store) -> None:
    async def die(_: Receipt) -> bytes:
        raise asyncio.CancelledError

    for _ in range(MAX_TRIES):
        with pytest.raises(asyncio.CancelledError):
            await once(store).obey(named("1"), Effect.ROWS, Deed().work(die), is_redelivered=True)
    with pytest.raises(GivenUp):
        await once(store).obey(named("1"), Effect.ROWS, Deed().work(), is_redelivered=True)


async def test_a_long_answer_is_remembered_without_its_words(store: Store) -> None:
    async def long(_: Receipt) -> bytes:
        return b"x" * 100_000

    memory = once(store)
    assert len((await memory.obey(named("1"), Effect.ROWS, Deed().work(long))).answer) == 100_000
    assert await memory.obey(named("1"), Effect.ROWS, Deed().work()) == Obeyed(b"", is_repeated=True)


async def test_memory_and_rows_are_bounded(tmp_path: Path) -> None:
    async with open_store(tmp_path / "few.sqlite", keep=Keep(count=1000)) as store:
        memory, deed = once(store), Deed()
        for number in range(1100):
            await memory.obey(named(f"{number}"), Effect.ROWS, deed.work())
        fresh = once(store)
        assert (await fresh.obey(named("1099"), Effect.ROWS, deed.work())).is_repeated
        assert not (await fresh.obey(named("50"), Effect.ROWS, deed.work())).is_repeated


async def test_a_clock_that_jumps_does_not_make_the_newest_old(tmp_path: Path) -> None:
    now = 0.0  # 1970
    async with open_store(tmp_path / "clock.sqlite") as store:
        memory = Once(store, wall_clock=lambda: now)
        await memory.obey(named("early"), Effect.ROWS, Deed().work())
        now = 4e9
        for number in range(20):
            await memory.obey(named(f"{number}"), Effect.ROWS, Deed().work())
        assert (await once(store).obey(named("early"), Effect.ROWS, Deed().work())).is_repeated
