"""What surrounds versions in the store: retirements, holdings, builds; and databases from before these existed."""

import sqlite3
from dataclasses import replace
from pathlib import Path

import pytest

from gatewayd.adapters.store import Store, open_store
from gatewayd.adapters.store_registry_rows import KEPT_BUILDS
from gatewayd.adapters.store_schema import migrations
from gatewayd.core.building import Build
from gatewayd.core.errors import NodeError
from gatewayd.core.model import About, Signature, Structure, Variant, Vector, Version
from gatewayd.core.names import STABLE, DeviceId, Digest, ModelName
from gatewayd.core.registry import AliasMove, Registry, Retirement
from gatewayd.core.tensor import DType, TensorSpec
from gatewayd.services.ports import BuildStore, HoldingStore

KWS = ModelName("kws")
SPEC = TensorSpec("x", DType.FP32, (1, 4))
VARIANT = Variant(
    "tflite-float32", Digest("ab" * 32), 10, Structure((), (SPEC,), (SPEC,), 0, 0), (),
    vectors=(Vector(0, b"\x01\x02", 2), Vector(1, b"", 1)),
)  # fmt: skip
VERSION = Version(
    KWS, 1, Signature((SPEC,), (SPEC,)), (VARIANT,), 1000.0, "note",
    About("MIT", "# Card\nß", (("team", "audio"), ("x", "")), "folder:a.yaml"), Digest("ef" * 32),
)  # fmt: skip


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "gatewayd.sqlite"


async def test_what_is_told_of_a_version_survives(path: Path) -> None:
    plain = replace(VERSION, number=2, about=About(), samples=None, variants=(replace(VARIANT, vectors=()),))
    async with open_store(path) as store:
        await store.add_version(VERSION, moves=[])
        await store.add_version(plain, moves=[])
    async with open_store(path) as store:
        assert set(await store.load_versions()) == {VERSION, plain}


async def test_retirements_come_and_go(path: Path) -> None:
    retirement = Retirement(KWS, 1, 2000.5, "ann", "wrong labels")
    async with open_store(path) as store:
        await store.add_version(VERSION, moves=[])
        await store.retire(retirement)
        with pytest.raises(NodeError):
            await store.retire(retirement)
    async with open_store(path) as store:
        assert await store.load_retirements() == (retirement,)
        await store.bring_back(KWS, 1)
        assert await store.load_retirements() == ()


async def test_holdings_are_replaced(path: Path) -> None:
    one, two = Digest("1" * 64), Digest("2" * 64)
    async with open_store(path) as store:
        await store.save_holdings(DeviceId("a"), frozenset({one, two}))
        await store.save_holdings(DeviceId("b"), frozenset({one}))
        await store.save_holdings(DeviceId("a"), frozenset({two}))
        assert await store.load_holdings() == {"a": {two}, "b": {one}}
        await store.save_holdings(DeviceId("b"), frozenset())
        assert await store.load_holdings() == {"a": {two}}


async def test_builds_are_found_by_their_key_and_the_oldest_forgotten(path: Path) -> None:
    def build(number: int) -> Build:
        return Build(Digest(f"{number:064x}"), Digest("a" * 64), f"report {number}")

    async with open_store(path) as store:
        for number in range(KEPT_BUILDS + 2):
            await store.save_build(build(number), built_at=1.0)
        assert await store.find_build(build(0).key) is None
        assert await store.find_build(build(2).key) == build(2)
        await store.save_build(replace(build(2), report="again"), built_at=2.0)
        found = await store.find_build(build(2).key)
        assert found is not None
        assert found.report == "again"


async def test_a_database_from_before_is_brought_up_to_date_with_all_it_holds(path: Path) -> None:
    signature = '{"inputs":[],"outputs":[],"labels":["a"],"preprocessing":"p@1"}'
    structure = '{"operators":[],"inputs":[],"outputs":[],"macs":0,"weights_bytes":0}'
    with sqlite3.connect(path) as old:
        old.executescript(migrations()[0])
        old.execute("INSERT INTO versions VALUES ('kws', 1, 1000.0, 'old', ?)", (signature,))
        row = ("kws", 1, 0, "tflite-int8", "ab" * 32, 5, structure, "[]", 4096, None)
        old.execute("INSERT INTO variants VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)", row)
        old.execute("INSERT INTO aliases VALUES ('kws', 'stable', 1)")
        old.execute(
            "INSERT INTO alias_moves (model, alias, version, moved_at, who, why) VALUES ('kws', 'stable', 1, 1, 'a', '')"
        )
        old.execute("PRAGMA user_version = 1")
    old.close()
    async with open_store(path) as store:
        versions, aliases = await store.load_versions(), await store.load_aliases()
        registry = Registry.of(versions, aliases, await store.load_retirements())
        (version,) = registry.versions()
        assert (version.note, version.about, version.samples) == ("old", About(), None)
        assert (version.variants[0].name, version.variants[0].vectors) == ("tflite-int8", ())
        assert await store.alias_history(KWS) == (AliasMove(KWS, STABLE, 1, 1.0, "a", ""),)
        await store.retire(Retirement(KWS, 1, 5.0, "ann", ""))


def satisfies_the_ports(store: Store) -> tuple[HoldingStore, BuildStore]:
    """Say it where the type checker reads it."""
    return store, store
