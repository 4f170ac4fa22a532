"""A command's record is in the transaction of its effect: where the one cannot be written, the other is not there either."""

import asyncio
import sqlite3
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from gatewayd.api.table import VERBS
from gatewayd.core.building import INT8
from gatewayd.core.command import Effect, Note, Obeyed, Receipt, Work, command_id
from gatewayd.core.credentials import CredentialKind
from gatewayd.core.device import PushPhase
from gatewayd.core.errors import NodeError
from gatewayd.core.names import STABLE, Alias, ModelName, ModelRef, PushId
from gatewayd.core.request import SensorRef
from gatewayd.core.standing import StandingOrder
from gatewayd.services.building import Builder
from gatewayd.services.joining import Joining, Removed
from gatewayd.services.once import Once
from gatewayd.services.standing import OrderPorts, StandingOrders
from tests.services.joining_world import stage
from tests.services.workshop import SAMPLES, FakeCompilers, builder_of, read
from tests.services.world import DEVICE, MODEL, World

COMMAND = command_id(reply_topic="reply/a", name=b"1", verb="verb", payload=b"{}")
CANARY, FLOATS = Alias("canary"), ModelName("floats")
LEAVING = "devices desires pushes"
ORDER = StandingOrder(
    "watch",
    ModelRef(MODEL),
    SensorRef(DEVICE, "mic"),
    period_s=10,
    deadline_s=5,
    until=None,
    who="ann",
    started_at=1.7e9,
)


def receipt() -> Receipt:
    return Receipt(COMMAND, at=1.8e9, encode=lambda outcome: type(outcome).__name__.encode())


@dataclass
class Yard:
    """Everything that writes for a command, over one world."""

    told: list[str]
    w: World
    joining: Joining
    builder: Builder
    orders: StandingOrders


@asynccontextmanager
async def yard(folder: Path, *, again: bool = False) -> AsyncIterator[Yard]:
    """Open it with a model, and a device that came; `again`: with what is there."""
    async with stage(folder, read=read) as s:
        ports = OrderPorts(
            s.w.store, s.w.inference, s.w.catalog, s.w.tracking, s.w.events.append, s.w.clock, s.w.clock, lambda: "r"
        )
        if not again:
            await s.w.add()
            s.w.device.birth()
        yield Yard(s.told, s.w, s.joining, builder_of(s.w, FakeCompilers()), StandingOrders(ports))


@dataclass(frozen=True)
class Deed:
    """Something a command does, what has to be there before, and the tables that tell whether it was done."""

    name: str
    act: Callable[[Yard, Note[object]], Awaitable[object]]
    tables: str
    before: Callable[[Yard], Awaitable[object]] | None = None


async def two_versions(y: Yard) -> None:
    await y.w.add(b"model two")
    await y.w.catalog.move_alias(MODEL, STABLE, 2, who="ann", why="")


async def retired(y: Yard) -> None:
    await two_versions(y)
    await y.w.catalog.retire(MODEL, 1, who="ann", why="")


async def built_in_part(y: Yard) -> None:
    await y.w.catalog.add(
        model=FLOATS, files=[b"float model"], labels=(), preprocessing="", note="", who="ann", samples=SAMPLES
    )
    await y.builder.build(ModelRef(FLOATS), INT8, who="ann")


async def joined(y: Yard) -> None:
    await y.w.tracking.approve(DEVICE, who="ann")


async def pushing(y: Yard) -> None:
    await joined(y)
    y.w.device.silent_at = PushPhase.WRITTEN
    await y.joining.issue(DEVICE, kinds=tuple(CredentialKind), who="ann")
    await y.w.pushes.start(DEVICE, ModelRef(MODEL), who="ann")


async def ordered(y: Yard) -> None:
    await joined(y)
    await y.orders.start(ORDER)


DEEDS = [
    Deed(
        "models.add",
        lambda y, note: y.w.catalog.add(
            model=MODEL, files=[b"another"], labels=(), preprocessing="", note="", who="ann", note_of=note
        ),
        "versions",
    ),
    Deed(
        "models.alias",
        lambda y, note: y.w.catalog.move_alias(MODEL, CANARY, 1, who="ann", why="", note_of=note),
        "alias_moves",
    ),
    Deed(
        "models.unalias",
        lambda y, note: y.w.catalog.move_alias(MODEL, CANARY, None, who="ann", why="", note_of=note),
        "alias_moves",
        lambda y: y.w.catalog.move_alias(MODEL, CANARY, 1, who="ann", why=""),
    ),
    Deed(
        "models.back",
        lambda y, note: y.w.catalog.move_back(MODEL, STABLE, who="ann", why="", note_of=note),
        "alias_moves",
        two_versions,
    ),
    Deed(
        "models.retire",
        lambda y, note: y.w.catalog.retire(MODEL, 1, who="ann", why="", note_of=note),
        "retirements",
        two_versions,
    ),
    Deed("models.restore", lambda y, note: y.w.catalog.bring_back(MODEL, 1, note_of=note), "retirements", retired),
    Deed(
        "models.build",
        lambda y, note: y.builder.build(ModelRef(FLOATS), "ethos-u55-128", who="ann", note_of=note),
        "variants",
        built_in_part,
    ),
    Deed(
        "devices.approve",
        lambda y, note: y.w.tracking.approve(DEVICE, who="ann", note_of=note),
        "devices",
    ),
    Deed("devices.release", lambda y, note: y.w.pushes.release(DEVICE, note_of=note), "push_terms"),
    Deed(
        "devices.one-slot",
        lambda y, note: y.w.pushes.allow_one_slot(DEVICE, allowed=True, note_of=note),
        "push_terms",
    ),
    Deed("devices.revoke", lambda y, note: y.joining.revoke(DEVICE, who="ann", note_of=note), LEAVING, pushing),
    Deed(
        "devices.forget",
        lambda y, note: y.joining.forget(DEVICE, force=True, keep_credentials=False, who="ann", note_of=note),
        LEAVING,
        pushing,
    ),
    Deed(
        "push",
        lambda y, note: y.w.pushes.start(DEVICE, ModelRef(MODEL), who="ann", note_of=note),
        "pushes",
        lambda y: y.w.tracking.approve(DEVICE, who="ann"),
    ),
    Deed("pushes.cancel", lambda y, note: y.w.pushes.cancel(PushId(1), why="no", note_of=note), LEAVING, pushing),
    Deed("stream.start", lambda y, note: y.orders.start(ORDER, note_of=note), "standing_orders", joined),
    Deed("stream.stop", lambda y, note: y.orders.stop(ORDER.id, why="", note_of=note), "standing_orders", ordered),
]
SAME_AS = {"models.fetch": "models.add"}
"""Verbs that write by the same call."""
ALL = pytest.mark.parametrize("deed", DEEDS, ids=[deed.name for deed in DEEDS])


def test_every_verb_that_changes_rows_is_here() -> None:
    changing = {name for name, verb in VERBS.items() if verb.effect is Effect.ROWS}
    assert {deed.name for deed in DEEDS} | SAME_AS.keys() == changing
    assert set(SAME_AS.values()) <= changing


def rows(folder: Path, tables: str) -> list[object]:
    with sqlite3.connect(folder / "db.sqlite") as store:
        return [store.execute(f"SELECT * FROM {each} ORDER BY 1, 2").fetchall() for each in tables.split()]  # noqa: S608 - the test's own names


def forbid_records(folder: Path) -> None:
    """From now on a transaction with a command's record in it is cut before its commit."""
    with sqlite3.connect(folder / "db.sqlite") as store:
        store.execute("CREATE TRIGGER full BEFORE INSERT ON commands BEGIN SELECT RAISE(ABORT, 'no room'); END")


def allow_records(folder: Path) -> None:
    with sqlite3.connect(folder / "db.sqlite") as store:
        store.execute("DROP TRIGGER full")


@ALL
async def test_the_record_is_written_with_the_effect(tmp_path: Path, deed: Deed) -> None:
    async with yard(tmp_path) as y:
        if deed.before is not None:
            await deed.before(y)
        before = rows(tmp_path, deed.tables)
        given = receipt()
        await deed.act(y, given.write)
        assert given.record is not None
        assert await y.w.store.find_command(COMMAND.key) == given.record
        assert rows(tmp_path, deed.tables) != before or deed.name == "devices.release"  # the usual terms have no row


@ALL
async def test_without_room_for_the_record_there_is_no_effect(tmp_path: Path, deed: Deed) -> None:
    async with yard(tmp_path) as y:
        if deed.before is not None:
            await deed.before(y)
        forbid_records(tmp_path)
        before = rows(tmp_path, deed.tables)
        with pytest.raises(NodeError):
            await deed.act(y, receipt().write)
        assert rows(tmp_path, deed.tables) == before


# How a device is taken out, and what its answer says of its credentials and of the push that ended.
OUT = pytest.mark.parametrize(
    "deed", [deed for deed in DEEDS if deed.name in {"devices.revoke", "devices.forget"}], ids=lambda deed: deed.name
)


async def taken_out(y: Yard, deed: Deed, *, dies: bool = False) -> Obeyed:
    """Give the command as the broker would deliver it again and again; `dies`: the process ends behind the commit."""

    async def run(given: Receipt) -> bytes:
        answer = repr(await deed.act(y, given.write)).encode()
        if dies:
            raise asyncio.CancelledError
        return answer

    work = Work(run, encode=lambda outcome: repr(outcome).encode(), refusal=lambda error: error.code.encode())
    return await Once(y.w.store, wall_clock=lambda: 1.8e9).obey(COMMAND, Effect.ROWS, work, is_redelivered=True)


@OUT
async def test_a_device_whose_leaving_is_cut_before_the_commit_leaves_when_the_command_comes_again(
    tmp_path: Path, deed: Deed
) -> None:
    async with yard(tmp_path) as y:
        await pushing(y)
        before = rows(tmp_path, LEAVING)
        forbid_records(tmp_path)
        with pytest.raises(NodeError):
            await deed.act(y, receipt().write)
        assert rows(tmp_path, LEAVING) == before
        assert not y.joining.credentials().knows(DEVICE)
    allow_records(tmp_path)
    async with yard(tmp_path, again=True) as y:
        answer = (await taken_out(y, deed)).answer
        is_forgotten = deed.name == "devices.forget"
        removed = Removed(DEVICE, had_credentials=True, pushes=1, broker="", is_forgotten=is_forgotten)
        assert answer == repr(removed).encode()
        assert y.told  # the broker, which may not have heard before the cut
        assert rows(tmp_path, "desires") == [[]]
        assert await y.w.store.load_live() == ()
        assert y.joining.credentials().leaving == ()
        assert (await taken_out(y, deed)) == Obeyed(answer, is_repeated=True)


@OUT
async def test_a_device_whose_leaving_is_cut_behind_the_commit_is_not_taken_out_twice(
    tmp_path: Path, deed: Deed
) -> None:
    async with yard(tmp_path) as y:
        await pushing(y)
        with pytest.raises(asyncio.CancelledError):
            await taken_out(y, deed, dies=True)
    async with yard(tmp_path, again=True) as y:
        y.w.device.birth()
        await y.w.tracking.approve(DEVICE, who="bob")  # it came back meanwhile
        obeyed = await taken_out(y, deed)
        assert (obeyed.is_repeated, b"had_credentials=True, pushes=1" in obeyed.answer) == (True, True)
        assert y.w.tracking.device(DEVICE).approved


async def test_credentials_of_a_device_that_never_came_are_revoked_once(tmp_path: Path) -> None:
    revoke = next(deed for deed in DEEDS if deed.name == "devices.revoke")
    async with yard(tmp_path, again=True) as y:
        await y.joining.issue(DEVICE, kinds=tuple(CredentialKind), who="ann")
        forbid_records(tmp_path)
        with pytest.raises(NodeError):
            await revoke.act(y, receipt().write)
    allow_records(tmp_path)
    async with yard(tmp_path, again=True) as y:
        obeyed = await taken_out(y, revoke)
        assert (obeyed.is_refused, b"had_credentials=True" in obeyed.answer) == (False, True)
