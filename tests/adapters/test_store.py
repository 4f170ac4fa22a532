"""The store on real files, closed and opened again between writing and reading, and killed in mid-write."""

import asyncio
import sqlite3
import sys
from dataclasses import replace
from pathlib import Path
from signal import SIGKILL

import pytest

from gatewayd.adapters.store import Store, open_store
from gatewayd.adapters.store_rows import KEPT_ENDED_PUSHES
from gatewayd.adapters.store_schema import migrations
from gatewayd.core.device import KnownDevice
from gatewayd.core.errors import Conflict, NodeError, UnknownModel
from gatewayd.core.model import Operator, Place, SelfTest, Signature, Structure, Variant, Verdict, Version
from gatewayd.core.names import STABLE, Alias, DeviceId, Digest, ModelName, PushId
from gatewayd.core.registry import AliasMove, Registry
from gatewayd.core.retry import Desire, Terms
from gatewayd.core.tensor import DType, Quantization, TensorSpec
from gatewayd.core.update import Push, PushState
from gatewayd.services.ports import DesireStore, DeviceStore, PushStore, RegistryStore

KWS = ModelName("kws")
CANARY = Alias("canary")
STORED = TensorSpec("mic", DType.INT8, (1, 490), Quantization(0.5847029089927673, 83))
REAL = TensorSpec("mic", DType.FP32, (1, 490))
VARIANTS = (
    Variant(
        name="tflite-int8",
        digest=Digest("ab" * 32),
        size_bytes=53936,
        structure=Structure((Operator("CONV_2D", 3, 5),), (STORED,), (STORED,), 2656768, 24376),
        verdicts=(Verdict(Place.NODE, "litert 2.3", runs=True, reason="measured", latency_s=0.000044),),
        arena_bytes=24304,
        self_test=SelfTest(1, bytes(range(12)), 2),
    ),
    Variant(
        name="tflite-float32",
        digest=Digest("cd" * 32),
        size_bytes=200_000,
        structure=Structure((), (REAL,), (REAL,), 0, 0),
        verdicts=(),
    ),
)


def version(number: int) -> Version:
    signature = Signature((REAL,), (REAL,), labels=("yes", "no", "ß"), preprocessing="kws-mfcc@1")
    return Version(KWS, number, signature, VARIANTS, created_at=1000.25 + number, note="it's new")


def move(number: int | None, alias: Alias = STABLE) -> AliasMove:
    return AliasMove(KWS, alias, number, 2000.5, "anna", "accuracy +1 %")


def push(number: int, state: PushState = PushState.TRANSFERRING) -> Push:
    return Push(
        PushId(number), DeviceId("mic-1"), KWS, 1, "tflite-int8", Digest("ab" * 32), 53936, state,
        deadline_s=12.5, offset=1024, reason="waiting", present=True, resumed=2,
    )  # fmt: skip


def as_loaded(pushed: Push) -> Push:
    return replace(pushed, deadline_s=0.0, present=False)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "gatewayd.sqlite"


async def test_versions_survive(path: Path) -> None:
    async with open_store(path) as store:
        await store.add_version(version(2), moves=[])
        await store.add_version(version(1), moves=[move(1), move(2, CANARY)])
    async with open_store(path) as store:
        assert await store.load_versions() == (version(1), version(2))
        assert await store.load_aliases() == {(KWS, STABLE): 1, (KWS, CANARY): 2}
        assert await store.alias_history(KWS) == (move(1), move(2, CANARY))


async def test_what_is_loaded_makes_a_registry(path: Path) -> None:
    async with open_store(path) as store:
        await store.add_version(version(1), moves=[move(1)])
        registry = Registry.of(await store.load_versions(), await store.load_aliases())
    assert registry.versions() == (version(1),)


async def test_a_number_is_given_once(path: Path) -> None:
    async with open_store(path) as store:
        await store.add_version(version(1), moves=[])
        with pytest.raises(Conflict, match="kws@1 cannot be added"):
            await store.add_version(replace(version(1), note="another"), moves=[move(1)])
        assert await store.load_versions() == (version(1),)
        assert await store.alias_history(KWS) == ()


async def test_version_and_moves_are_one_transaction(path: Path) -> None:
    async with open_store(path) as store:
        with pytest.raises(UnknownModel, match="alias 'stable' cannot point at kws@9"):
            await store.add_version(version(1), moves=[move(1, CANARY), move(9)])
        assert await store.load_versions() == ()
        assert await store.load_aliases() == {}
        await store.add_version(version(1), moves=[])


async def test_variants_of_one_name_are_refused_whole(path: Path) -> None:
    async with open_store(path) as store:
        with pytest.raises(Conflict, match="name each variant once"):
            await store.add_version(replace(version(1), variants=VARIANTS[:1] * 2), moves=[])
        assert await store.load_versions() == ()


async def test_alias_moves_and_goes(path: Path) -> None:
    async with open_store(path) as store:
        await store.add_version(version(1), moves=[move(1)])
        await store.add_version(version(2), moves=[])
        await store.move_alias(move(2))
        assert await store.load_aliases() == {(KWS, STABLE): 2}
        await store.move_alias(move(None))
        assert await store.load_aliases() == {}
        assert await store.alias_history(KWS) == (move(1), move(2), move(None))
        assert await store.alias_history(ModelName("vww")) == ()


async def test_alias_of_a_missing_version_is_refused(path: Path) -> None:
    async with open_store(path) as store:
        with pytest.raises(UnknownModel, match="there is no such version"):
            await store.move_alias(move(1))
        assert await store.alias_history(KWS) == ()


async def test_devices_survive(path: Path) -> None:
    first = KnownDevice(DeviceId("mic-1"), approved=False, first_seen_at=10.5)
    second = KnownDevice(DeviceId("cam-7"), approved=True, first_seen_at=11.0)
    async with open_store(path) as store:
        for device in (second, first, replace(first, approved=True)):
            await store.save_device(device)
    async with open_store(path) as store:
        assert await store.load_devices() == (replace(first, approved=True), second)


async def test_live_pushes_survive_without_deadline_and_presence(path: Path) -> None:
    async with open_store(path) as store:
        await store.save_push(push(1))
        await store.save_push(push(2, PushState.TRIAL))
        await store.save_push(push(3, PushState.REJECTED))
        await store.save_push(replace(push(1), offset=2048))
    async with open_store(path) as store:
        live = (as_loaded(replace(push(1), offset=2048)), as_loaded(push(2, PushState.TRIAL)))
        assert await store.load_live() == live
        assert await store.recent(2) == (as_loaded(push(3, PushState.REJECTED)), live[1])
        assert await store.recent(-1) == ()


@pytest.mark.parametrize("state", PushState)
async def test_every_state_survives(path: Path, state: PushState) -> None:
    async with open_store(path) as store:
        await store.save_push(push(1, state))
        assert await store.recent(5) == (as_loaded(push(1, state)),)
        assert len(await store.load_live()) == (0 if state.is_end else 1)


async def test_push_ids_are_never_used_again(path: Path) -> None:
    async with open_store(path) as store:
        assert [await store.next_push_id() for _ in range(3)] == [1, 2, 3]
    async with open_store(path) as store:
        assert await store.next_push_id() == 4
        await store.save_push(push(10))
        assert await store.next_push_id() == 11
    with sqlite3.connect(path) as connection:
        connection.execute("DELETE FROM pushes")
    connection.close()
    async with open_store(path) as store:
        assert await store.next_push_id() == 12


async def test_push_ids_fit_31_bits(path: Path) -> None:
    async with open_store(path) as store:
        await store.save_push(push(2**31 - 2))
        assert await store.next_push_id() == 2**31 - 1
        with pytest.raises(NodeError, match="no push id is left"):
            await store.next_push_id()


async def test_old_ended_pushes_are_forgotten(path: Path) -> None:
    async with open_store(path) as store:
        await store.save_push(push(1))
    rows = [(number, *range(10), 1) for number in range(2, KEPT_ENDED_PUSHES + 20)]
    with sqlite3.connect(path) as connection:
        first = 'id, device, model, version, variant, digest, size_bytes, state, "offset", reason, resumed, ended'
        connection.executemany(f"INSERT INTO pushes ({first}) VALUES ({', '.join('?' * 12)})", rows)  # noqa: S608 - constants
        connection.execute("UPDATE pushes SET state = 'failed' WHERE id > 1")
    connection.close()
    async with open_store(path) as store:
        await store.save_push(push(9000, PushState.ACCEPTED))
        kept = await store.recent(10_000)
        assert len(kept) == KEPT_ENDED_PUSHES + 1
        assert (kept[0].id, kept[-2].id, kept[-1].id) == (9000, 21, 1)


async def test_calls_at_once_are_served_one_after_another(path: Path) -> None:
    async with open_store(path) as store:
        ids = await asyncio.gather(*(store.next_push_id() for _ in range(50)))
    assert sorted(ids) == list(range(1, 51))


async def test_survives_power_cuts_by_its_settings(path: Path) -> None:
    async with open_store(path) as store:
        await store.next_push_id()
        assert path.with_name(path.name + "-wal").exists()
        assert await pragma(store, "synchronous") == 2  # FULL
        assert await pragma(store, "foreign_keys") == 1


async def pragma(store: Store, name: str) -> int:
    value: int = await store._transact(lambda db: db.execute(f"PRAGMA {name}").fetchone()[0])  # noqa: SLF001 - settings live on its connection
    return value


def test_migrations_are_numbered_from_one() -> None:
    directory = Path(sys.modules["gatewayd.adapters.store_schema"].__file__ or "").parent / "migrations"
    numbers = sorted(int(each.name[:4]) for each in directory.glob("*.sql"))
    assert numbers == list(range(1, len(migrations()) + 1))


async def test_schema_version_is_the_last_migration(path: Path) -> None:
    async with open_store(path) as store:
        assert await pragma(store, "user_version") == len(migrations())


async def test_newer_database_is_refused_untouched(path: Path) -> None:
    await use(path)
    change(path, "PRAGMA user_version = 99")
    with pytest.raises(NodeError, match=r"gatewayd.sqlite is from a newer gatewayd \(schema 99, this one knows \d+\)"):
        await use(path)
    change(path, f"PRAGMA user_version = {len(migrations())}")
    await use(path)


async def test_no_database_is_one_clear_error(path: Path) -> None:
    overwrite(path, b"not SQLite" * 1000, start=0)
    with pytest.raises(NodeError, match=r"gatewayd.sqlite is damaged \(file is not a database\): restore a backup"):
        await use(path)


async def test_damaged_pages_are_found_at_the_start(path: Path) -> None:
    async with open_store(path) as store:
        for number in range(1, 20):
            await store.add_version(version(number), moves=[])
    overwrite(path, b"\xff" * 100_000, start=2 * 4096)
    with pytest.raises(NodeError, match=r"gatewayd.sqlite is damaged \(.+\): restore a backup, or move it away"):
        await use(path)


async def test_damaged_row_is_one_clear_error(path: Path) -> None:
    async with open_store(path) as store:
        await store.add_version(version(1), moves=[])
    change(path, "UPDATE versions SET signature = '{}'")
    async with open_store(path) as store:
        with pytest.raises(NodeError, match=r"gatewayd.sqlite holds a row that cannot be read"):
            await store.load_versions()
        assert await store.load_devices() == ()


async def test_missing_directory_is_one_clear_error(tmp_path: Path) -> None:
    with pytest.raises(
        NodeError, match="unable to open database file: check that its directory exists and is writable"
    ):
        await use(tmp_path / "missing" / "gatewayd.sqlite")


async def test_locked_database_is_one_clear_error(path: Path) -> None:
    async with open_store(path, busy_timeout_s=0.01) as store:
        other = sqlite3.connect(path, isolation_level=None)
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(NodeError, match=r"gatewayd.sqlite: database is locked: another program holds it"):
            await store.next_push_id()
        other.close()
        assert await store.next_push_id() == 1


async def test_contradiction_is_one_clear_error(path: Path) -> None:
    async with open_store(path) as store:
        with pytest.raises(NodeError, match=r"gatewayd.sqlite: CHECK constraint failed: .+: the row contradicts"):
            await store.save_push(push(2**31))
        assert await store.recent(1) == ()


async def test_failed_migration_leaves_the_old_schema(path: Path) -> None:
    connection = sqlite3.connect(path, isolation_level=None)
    connection.execute("CREATE TABLE devices (other TEXT)")
    connection.close()
    with pytest.raises(NodeError, match=r"gatewayd.sqlite .*table devices already exists"):
        await use(path)
    connection = sqlite3.connect(path)
    assert connection.execute("SELECT name FROM sqlite_schema").fetchall() == [("devices",)]
    connection.close()


def satisfies_the_ports(store: Store) -> tuple[RegistryStore, DeviceStore, PushStore, DesireStore]:
    """Say it where the type checker reads it."""
    return store, store, store, store


async def use(path: Path) -> None:
    async with open_store(path) as store:
        await store.load_versions()


def overwrite(path: Path, content: bytes, *, start: int) -> None:
    with path.open("r+b" if path.exists() else "w+b") as file:
        file.seek(start)
        file.write(content)


def change(path: Path, statement: str) -> None:
    with sqlite3.connect(path) as connection:
        connection.execute(statement)
    connection.close()


CHILD = """
import asyncio, importlib.util, sys
from pathlib import Path
spec = importlib.util.spec_from_file_location("test_store", sys.argv[1])
tests = importlib.util.module_from_spec(spec)
spec.loader.exec_module(tests)

async def main():
    async with tests.open_store(Path(sys.argv[2])) as store:
        number = len(await store.load_versions())
        while True:
            number += 1
            await store.add_version(tests.version(number), moves=[tests.move(number)])
            print(number, flush=True)

asyncio.run(main())
"""


async def test_sigkill_leaves_whole_versions(path: Path) -> None:
    for run in range(1, 4):
        acknowledged = await add_until_killed(path, count=7 * run)
        async with open_store(path) as store:
            versions = await store.load_versions()
            aliases = await store.load_aliases()
        assert list(versions) == [version(number) for number in range(1, len(versions) + 1)]
        assert len(versions) >= acknowledged
        assert aliases == {(KWS, STABLE): len(versions)}


async def add_until_killed(path: Path, *, count: int) -> int:
    """Let a child add versions, kill it in the middle of one, and return the last number it had acknowledged."""
    child = await asyncio.create_subprocess_exec(
        sys.executable, "-c", CHILD, __file__, str(path), stdout=asyncio.subprocess.PIPE
    )
    assert child.stdout
    try:
        lines = [await child.stdout.readline() for _ in range(count)]
    finally:
        child.kill()
    lines += (await child.stdout.read()).splitlines()
    assert await child.wait() == -SIGKILL
    return int(lines[-1])


DESIRE = Desire(DeviceId("mic-1"), KWS, 2, "ann", 1.7e9, downgrade=True, failures=3, settled="given up")


async def test_what_is_wanted_and_on_which_terms_survives(path: Path) -> None:
    quarantined = Terms(DeviceId("mic-1"), one_slot=True, failures=5, quarantine="5 pushes in a row failed")
    async with open_store(path) as store:
        await store.save_desire(replace(DESIRE, version=1))
        await store.save_desire(DESIRE)
        await store.save_desire(replace(DESIRE, device=DeviceId("mic-2"), wished_at=1.6e9))
        await store.save_terms(quarantined)
        await store.save_terms(Terms(DeviceId("mic-2"), failures=1))
    async with open_store(path) as store:
        assert list(await store.load_desires()) == [replace(DESIRE, device=DeviceId("mic-2"), wished_at=1.6e9), DESIRE]
        assert list(await store.load_terms()) == [quarantined, Terms(DeviceId("mic-2"), failures=1)]
        await store.drop_desire(DeviceId("mic-2"), KWS)
        await store.save_terms(Terms(DeviceId("mic-2")))
        assert list(await store.load_desires()) == [DESIRE]
        assert list(await store.load_terms()) == [quarantined]


async def test_pushes_of_one_device_and_many_at_once(path: Path) -> None:
    first, second = push(1), replace(push(2), device=DeviceId("mic-2"), signed=b"\xd2", who="ann", replaces=3)
    ended = replace(second, id=PushId(3), state=PushState.FAILED, started_at=1.5, ended_at=2.5)
    async with open_store(path) as store:
        await store.save_pushes([first, second, ended])
        assert list(await store.load_live()) == [as_loaded(first), as_loaded(second)]
        found = await store.recent(10, DeviceId("mic-2"))
        assert list(found) == [as_loaded(replace(ended, signed=b"")), as_loaded(second)]
        assert list(await store.recent(1, DeviceId("mic-1"))) == [as_loaded(first)]
