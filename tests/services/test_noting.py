"""A command's record is in the transaction of its effect: where the one cannot be written, the other is not there either."""

import sqlite3
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from gatewayd.core.command import Note, Receipt, command_id
from gatewayd.core.errors import NodeError
from gatewayd.core.names import STABLE, Alias, ModelRef
from tests.services.world import MODEL, World, world

COMMAND = command_id(reply_topic="reply/a", name=b"1", verb="verb", payload=b"{}")
CANARY = Alias("canary")


def receipt() -> Receipt:
    return Receipt(COMMAND, at=1.8e9, encode=lambda outcome: type(outcome).__name__.encode())


@dataclass(frozen=True)
class Deed:
    """Something a command does, what has to be there before, and the rows that tell whether it was done."""

    name: str
    act: Callable[[World, Note[object]], Awaitable[object]]
    rows: str
    before: Callable[[World], Awaitable[object]] | None = None


async def two_versions(w: World) -> None:
    await w.add(b"model two")
    await w.catalog.move_alias(MODEL, STABLE, 2, who="ann", why="")


async def retired(w: World) -> None:
    await two_versions(w)
    await w.catalog.retire(MODEL, 1, who="ann", why="")


async def pushing(w: World) -> None:
    w.device.send_fails = None
    await w.pushes.start(w.device.id, ModelRef(MODEL), who="ann")


DEEDS = [
    Deed(
        "models.add",
        lambda w, note: w.catalog.add(
            model=MODEL, files=[b"another"], labels=(), preprocessing="", note="", who="ann", note_of=note
        ),
        "versions",
    ),
    Deed(
        "models.alias",
        lambda w, note: w.catalog.move_alias(MODEL, CANARY, 1, who="ann", why="", note_of=note),
        "alias_moves",
    ),
    Deed(
        "models.back",
        lambda w, note: w.catalog.move_back(MODEL, STABLE, who="ann", why="", note_of=note),
        "alias_moves",
        two_versions,
    ),
    Deed(
        "models.retire",
        lambda w, note: w.catalog.retire(MODEL, 1, who="ann", why="", note_of=note),
        "retirements",
        two_versions,
    ),
    Deed("models.restore", lambda w, note: w.catalog.bring_back(MODEL, 1, note_of=note), "retirements", retired),
    Deed(
        "devices.approve",
        lambda w, note: w.tracking.approve(w.device.id, who="ann", note_of=note),
        "devices",
    ),
    Deed("devices.release", lambda w, note: w.pushes.release(w.device.id, note_of=note), "push_terms"),
    Deed(
        "devices.one-slot",
        lambda w, note: w.pushes.allow_one_slot(w.device.id, allowed=True, note_of=note),
        "push_terms",
    ),
    Deed(
        "push",
        lambda w, note: w.pushes.start(w.device.id, ModelRef(MODEL), who="ann", note_of=note),
        "pushes",
        lambda w: w.tracking.approve(w.device.id, who="ann"),
    ),
]
ALL = pytest.mark.parametrize("deed", DEEDS, ids=[deed.name for deed in DEEDS])


def rows(folder: Path, table: str) -> list[object]:
    with sqlite3.connect(folder / "db.sqlite") as store:
        return store.execute(f"SELECT * FROM {table} ORDER BY 1, 2").fetchall()  # noqa: S608 - the test's own names


def forbid_records(folder: Path) -> None:
    with sqlite3.connect(folder / "db.sqlite") as store:
        store.execute("CREATE TRIGGER full BEFORE INSERT ON commands BEGIN SELECT RAISE(ABORT, 'no room'); END")


@ALL
async def test_the_record_is_written_with_the_effect(tmp_path: Path, deed: Deed) -> None:
    async with world(tmp_path) as w:
        await w.add()
        w.device.birth()
        if deed.before is not None:
            await deed.before(w)
        given = receipt()
        await deed.act(w, given.write)
        assert given.record is not None
        assert await w.store.find_command(COMMAND.key) == given.record


@ALL
async def test_without_room_for_the_record_there_is_no_effect(tmp_path: Path, deed: Deed) -> None:
    async with world(tmp_path) as w:
        await w.add()
        w.device.birth()
        if deed.before is not None:
            await deed.before(w)
        forbid_records(tmp_path)
        before = rows(tmp_path, deed.rows)
        with pytest.raises(NodeError):
            await deed.act(w, receipt().write)
        assert rows(tmp_path, deed.rows) == before


async def test_a_cancelled_push_what_it_was_for_and_the_record_are_one_transaction(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        await w.add()
        await w.join()
        push = await w.pushes.start(w.device.id, ModelRef(MODEL), who="ann")
        assert len(rows(tmp_path, "desires")) == 1
        forbid_records(tmp_path)
        with pytest.raises(NodeError):
            await w.pushes.cancel(push.id, why="no", note_of=receipt().write)
        assert len(rows(tmp_path, "desires")) == 1
        assert [each.state for each in await w.store.load_live()] == [push.state]
    with sqlite3.connect(tmp_path / "db.sqlite") as store:
        store.execute("DROP TRIGGER full")
    async with world(tmp_path) as w:
        await w.pushes.cancel(push.id, why="no", note_of=receipt().write)
        assert rows(tmp_path, "desires") == []
        assert await w.store.load_live() == ()
        assert await w.store.find_command(COMMAND.key) is not None
