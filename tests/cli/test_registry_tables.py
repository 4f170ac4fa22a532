"""Results of the registry's verbs as text."""

import json

import pytest

from gatewayd.api.verb import Caller, Role
from gatewayd.cli.tables import text_of
from tests.fakes_api import World

ANN = Caller("ann", Role.ADMIN)


async def text(world: World, verb: str, **arguments: object) -> str:
    return text_of(await world.api().call(verb, json.dumps(arguments).encode(), ANN))


async def test_a_version_with_all_that_is_known_of_it() -> None:
    world = World()
    await text(world, "models.retire", model="kws@1", why="wrong labels")
    shown = await text(world, "models.show", model="kws@1")
    assert "1 (retired)" in shown
    assert "preprocessing: mfcc@1" in shown
    assert "retired: 2023-11-14T22:13:22+00:00 by ann: wrong labels" in shown
    assert "tflite-int8  node   litert  runs     loads and runs" in shown


async def test_history_and_meaning() -> None:
    world = World()
    assert "2023-11-14T22:13:20+00:00  kws:stable  1   ann  first version" in await text(
        world, "models.history", model="kws"
    )
    assert await text(world, "models.history", model="kws", alias="canary") == "never moved"
    assert (await text(world, "models.when", model="kws", at="2030-01-01")).startswith(
        "kws:stable at 2030-01-01T00:00:00+00:00 meant kws@1 (by ann"
    )
    assert "did not exist" in await text(world, "models.when", model="kws", at="1999-01-01")


@pytest.mark.parametrize(
    ("dry_run", "line"), [(True, "1 artifacts would be removed, 100 B"), (False, "1 artifacts removed, 100 B")]
)
async def test_collection(dry_run: bool, line: str) -> None:  # noqa: FBT001 - a parametrised case
    shown = await text(World(), "models.collect", dry_run=dry_run)
    assert shown.splitlines() == [line, "cccccccccccc kept: device cam-7 holds it", "2 artifacts stay, 300 B"]


async def test_build() -> None:
    shown = await text(World(), "models.build", model="kws", **{"for": "int8"})
    assert shown.startswith("int8 there already: there already\nMODEL")
