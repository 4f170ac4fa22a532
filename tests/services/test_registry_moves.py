"""Aliases that are moved by several hands, moved back and asked about later; versions that are retired and come back."""

import asyncio
import hashlib
from dataclasses import replace
from pathlib import Path

import pytest

from gatewayd.core.errors import Conflict, UnknownModel
from gatewayd.core.events import AliasMoved, VersionRetired
from gatewayd.core.names import STABLE, Alias, Digest, ModelRef, parse_model_ref
from gatewayd.core.registry import AliasMove
from tests.services.world import DEVICE, MODEL, World, world

CANARY = Alias("canary")


async def move(w: World, number: int | None, *, who: str = "ann", expect: int | None = None) -> AliasMove:
    return await w.catalog.move_alias(MODEL, STABLE, number, who=who, why="tried", expect=expect)


async def test_of_two_operators_at_once_one_wins_and_the_other_is_told_by_whom(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        for content in (b"one", b"two", b"three"):
            await w.add(content)
        first, second = await asyncio.gather(move(w, 2, who="ann"), move(w, 3, who="bob"), return_exceptions=True)
        assert isinstance(first, AliasMove)
        assert isinstance(second, Conflict)
        assert str(second) == (
            "kws:stable points at 2 now, moved there by ann (tried): look again, then repeat with expect 2"
        )
        assert w.catalog.resolve(parse_model_ref("kws")).number == 2


@pytest.mark.parametrize(("expect", "is_right"), [(1, True), (2, False), (0, False)])
async def test_a_move_may_say_where_the_alias_has_to_be(tmp_path: Path, expect: int, is_right: bool) -> None:  # noqa: FBT001 - a parametrised case
    async with world(tmp_path) as w:
        await w.add(b"one")
        await w.add(b"two")
        if is_right:
            await move(w, 2, expect=expect)
        else:
            with pytest.raises(Conflict, match="kws:stable points at 1 now, moved there by test"):
                await move(w, 2, expect=expect)
        assert w.catalog.resolve(parse_model_ref("kws")).number == (2 if is_right else 1)


async def test_expect_0_makes_a_new_alias_only_once(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        await w.add(b"one")
        await w.catalog.move_alias(MODEL, CANARY, 1, who="ann", why="", expect=0)
        with pytest.raises(Conflict):
            await w.catalog.move_alias(MODEL, CANARY, 1, who="bob", why="", expect=0)


async def test_a_move_can_be_taken_back_and_is_recorded(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        await w.add(b"one")
        with pytest.raises(Conflict, match="has been nowhere else"):
            await w.catalog.move_back(MODEL, STABLE, who="ann", why="")
        await w.add(b"two")
        await move(w, 2)
        back = await w.catalog.move_back(MODEL, STABLE, who="bob", why="")
        assert (back.version, back.who, back.why) == (1, "bob", "back from 2")
        assert [each.version for each in await w.catalog.alias_history(MODEL)] == [1, 2, 1]


async def test_a_removed_alias_names_nothing_and_keeps_its_history(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        await w.add(b"one")
        await w.catalog.move_alias(MODEL, CANARY, 1, who="ann", why="")
        await w.catalog.move_alias(MODEL, CANARY, None, who="bob", why="done")
        assert w.events[-1] == AliasMoved(MODEL, CANARY, None)
        with pytest.raises(UnknownModel):
            w.catalog.resolve(ModelRef(MODEL, alias=CANARY))
        with pytest.raises(UnknownModel, match="to remove"):
            await w.catalog.move_alias(MODEL, CANARY, None, who="bob", why="again")
        assert [move.version for move in await w.catalog.alias_history(MODEL) if move.alias == CANARY] == [1, None]


async def test_every_move_loads_what_comes_before_and_lets_go_what_no_alias_names(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        one, two = [(await w.add(content)).variants[0].digest[:8] for content in (b"one", b"two")]
        await move(w, 2)
        await w.catalog.move_back(MODEL, STABLE, who="ann", why="")
        await move(w, None)
        assert w.runtime.loaded == [f"+{one}", f"+{two}", f"-{one}", f"+{one}", f"-{two}", f"-{one}"]


async def test_a_file_that_the_next_version_has_too_stays_loaded(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        base = await w.add(b"one")
        built = replace(base.variants[0], name="tflite-other", digest=Digest(hashlib.sha256(b"more").hexdigest()))
        extended = await w.catalog.extend(base, built, b"more", note="", who="ann")
        await move(w, extended.number)
        assert not [entry for entry in w.runtime.loaded if entry.startswith("-")]


async def test_a_move_that_the_registry_refuses_loads_nothing(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        await w.add(b"one")
        await w.add(b"two")
        await w.catalog.retire(MODEL, 2, who="ann", why="")
        before = list(w.runtime.loaded)
        with pytest.raises(Conflict):
            await move(w, 2)
        assert w.runtime.loaded == before


async def test_a_retired_version_gets_no_alias_and_no_push_but_can_be_read(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        await w.add(b"one")
        await w.add(b"two")
        await w.join()
        with pytest.raises(Conflict, match="kws@1 is what stable names"):
            await w.catalog.retire(MODEL, 1, who="ann", why="")
        await w.catalog.retire(MODEL, 2, who="ann", why="wrong labels")
        assert w.events[-1] == VersionRetired(MODEL, 2, retired=True)
        with pytest.raises(Conflict, match="retired by ann: wrong labels"):
            await move(w, 2)
        with pytest.raises(Conflict, match="retired by ann"):
            await w.pushes.start(DEVICE, parse_model_ref("kws@2"), who="ann")
        assert w.catalog.resolve(parse_model_ref("kws@2")).number == 2
        with pytest.raises(Conflict, match="retired"):
            await w.catalog.retire(MODEL, 2, who="bob", why="")


async def test_retirement_outlives_a_restart_and_ends(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        await w.add(b"one")
        await w.add(b"two")
        await w.catalog.retire(MODEL, 2, who="ann", why="")
    async with world(tmp_path) as w:
        retired = w.catalog.retirement(w.catalog.resolve(parse_model_ref("kws@2")))
        assert retired is not None
        assert retired.who == "ann"
        await w.catalog.bring_back(MODEL, 2)
        with pytest.raises(Conflict, match="not retired"):
            await w.catalog.bring_back(MODEL, 2)
        await move(w, 2)
    async with world(tmp_path) as w:
        assert w.catalog.resolve(parse_model_ref("kws")).number == 2
        assert await w.store.load_retirements() == ()


async def test_a_retired_number_is_not_given_again(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        await w.add(b"one")
        await w.add(b"two")
        await w.catalog.retire(MODEL, 2, who="ann", why="")
        assert (await w.add(b"three")).number == 3


async def test_the_same_bytes_uploaded_twice_and_at_once_are_stored_once(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        versions = await asyncio.gather(*(w.add(b"the same") for _ in range(5)))
        assert sorted(version.number for version in versions) == [1, 2, 3, 4, 5]
        assert set(await w.artifacts.digests()) == {versions[0].variants[0].digest}
