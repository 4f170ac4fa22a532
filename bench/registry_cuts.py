"""Power cuts over admission, alias moves, retirement and garbage collection: after each the registry has to be whole.

A scenario runs on the real store and the real artifacts while strace records its file operations. For every prefix of them,
what a power cut there may leave is put on a disk and opened again: with all unsynced writes dropped, all kept, names kept without
their content, and torn at random. Whole means: everything acknowledged is there, nothing that was never begun is, every version
in use has its artifacts with the right bytes, and the registry goes on working.

Usage: python -m bench.registry_cuts [--stride N]
"""

import argparse
import asyncio
import hashlib
import json
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from random import Random

from bench.disk import Disk, Operation, operations, record
from gatewayd.core.errors import ModelRefused
from gatewayd.core.names import STABLE, Alias, ModelRef
from gatewayd.services.collecting import Collector, CollectorPorts
from tests.services.world import MODEL, World, world

ROOT = Path(__file__).parents[1]
KINDS = ("dropped", "kept", "names", "torn", "torn")
CANARY = Alias("canary")
SAMPLES = bytes(4 * 4 * 3)


@dataclass
class Scenario:
    """Does what operators do, and writes to `acks` what it is about to do and what was acknowledged."""

    w: World
    acks: Path

    def note(self, what: str, **facts: object) -> None:
        """Write one line: the recording shows when it was written."""
        with self.acks.open("a") as file:
            file.write(json.dumps({"what": what, **facts}) + "\n")

    async def add(self, content: bytes, samples: bytes = b"") -> None:
        """Admit a version."""
        number = 1 + len(self.w.catalog.versions())
        self.note("adding", version=number)
        version = await self.w.catalog.add(
            model=MODEL, files=[content], labels=(), preprocessing="", note="", who="op", samples=samples
        )
        self.note("added", version=version.number)

    async def move(self, alias: Alias, number: int | None) -> None:
        """Move or remove an alias."""
        self.note("moving", alias=alias, version=number)
        await self.w.catalog.move_alias(MODEL, alias, number, who="op", why="")
        self.note("moved", alias=alias, version=number)

    async def retire(self, number: int) -> None:
        """Retire a version."""
        self.note("retiring", version=number)
        await self.w.catalog.retire(MODEL, number, who="op", why="")
        self.note("retired", version=number)

    async def collect(self) -> None:
        """Remove what nothing needs."""
        self.note("collecting")
        await collector(self.w).collect()
        self.note("collected")


def collector(w: World) -> Collector:
    """Return a collector that keeps nothing for old times' sake."""
    ports = CollectorPorts(w.artifacts, w.store, w.store, w.events.append, lambda: 2e9)
    return Collector(ports, catalog=w.catalog, tracking=w.tracking, pushes=w.pushes, keep_retired_s=0, every_s=1e6)


async def act(folder: Path, acks: Path) -> None:
    """Run the scenario: two lives of the gateway, so that the database is closed and opened too."""
    async with world(folder) as w:
        s = Scenario(w, acks)
        await s.add(b"model one" * 100)
        await s.add(b"model two" * 200, SAMPLES)
        await s.move(STABLE, 2)
        await s.move(STABLE, 1)
        await s.move(CANARY, 2)
        await s.move(CANARY, None)
        await s.add(b"model one" * 100)
        await s.retire(2)
        with suppress(ModelRefused):
            await w.catalog.add(model=MODEL, files=[b"bad"], labels=(), preprocessing="", note="", who="op")
        await w.artifacts.put(b"left by a crash")
        await s.collect()
        await s.add(b"model four" * 300)
    async with world(folder) as w:
        s = Scenario(w, acks)
        await s.add(b"model five" * 50)
        await s.move(STABLE, 5)
        await s.retire(4)
        await s.collect()


@dataclass
class Promised:
    """What was acknowledged so far, and what was begun besides."""

    versions: set[int] = field(default_factory=set)
    begun_versions: set[int] = field(default_factory=set)
    places: dict[str, set[int | None]] = field(default_factory=dict)
    retired: set[int] = field(default_factory=set)
    begun_retired: set[int] = field(default_factory=set)

    def take(self, line: str) -> None:
        """Read one line of the notes."""
        note = json.loads(line)
        match note["what"]:
            case "adding":
                self.begun_versions.add(note["version"])
                if note["version"] == 1:
                    self.places["stable"] = {None, 1}
            case "added":
                self.versions.add(note["version"])
                if note["version"] == 1:
                    self.places["stable"] = {1}
            case "moving":
                self.places.setdefault(note["alias"], {None}).add(note["version"])
            case "moved":
                self.places[note["alias"]] = {note["version"]}
            case "retiring":
                self.begun_retired.add(note["version"])
            case "retired":
                self.retired.add(note["version"])


async def check(folder: Path, promised: Promised) -> None:
    """Open what the cut left. Raises: AssertionError naming what is not whole, or whatever opening raises."""
    async with world(folder) as w:
        numbers = {version.number for version in w.catalog.versions()}
        assert promised.versions <= numbers <= promised.begun_versions, f"versions {numbers}, {promised}"
        for alias, places in promised.places.items():
            assert w.catalog.aliases(MODEL).get(Alias(alias)) in places, f"{alias}, {promised}"
        history = await w.catalog.alias_history(MODEL)
        for alias, number in w.catalog.aliases(MODEL).items():
            assert [move.version for move in history if move.alias == alias][-1] == number, f"history of {alias}"
        retired = {v.number for v in w.catalog.versions() if w.catalog.retirement(v) is not None}
        assert promised.retired <= retired <= promised.begun_retired, f"retired {retired}, {promised}"
        await _check_bytes(w, retired)
        await collector(w).collect()
        await _check_bytes(w, retired)
        fresh = await w.add(b"after the cut")
        await w.catalog.move_alias(MODEL, STABLE, fresh.number, who="op", why="")
        assert w.catalog.resolve(ModelRef(MODEL)).number == fresh.number


async def _check_bytes(w: World, retired: set[int]) -> None:
    for version in w.catalog.versions():
        for digest in version.digests() if version.number not in retired else ():
            content = await w.artifacts.read(digest, 0, 2**20)
            assert hashlib.sha256(content).hexdigest() == digest, f"{version}'s artifact is damaged"


@dataclass
class Cuts:
    """All that a power cut may leave, each state once."""

    done: list[Operation]
    data: str
    acks: str
    stride: int
    seen: set[str] = field(default_factory=set)

    def states(self) -> Iterator[tuple[int, str, dict[str, bytes | None], Promised]]:
        """Yield (operations done, kind of cut, files, what was promised)."""
        disk, promised, random = Disk(), Promised(), Random(7)
        for index, operation in enumerate([Operation("begin", ""), *self.done]):
            if operation.path == self.acks:
                if operation.name == "write":
                    promised.take(operation.content.decode())
                continue
            if operation.name != "begin":
                disk.do(operation)
            if index % self.stride:
                continue
            for kind in KINDS:
                files = disk.after_cut(kind, random)
                if self._is_new(files, promised):
                    yield index, kind, files, promised

    def _is_new(self, files: dict[str, bytes | None], promised: Promised) -> bool:
        state = hashlib.sha256(repr((sorted(files.items(), key=lambda item: item[0]), promised)).encode()).hexdigest()
        is_new = state not in self.seen
        self.seen.add(state)
        return is_new


def prove(stride: int, scratch: Path) -> tuple[int, Counter[str], list[str]]:
    """Return how many operations were recorded, how many states of each kind were opened, and what was not whole."""
    data, acks = scratch / "data", scratch / "acks"
    data.mkdir()
    record([sys.executable, "-m", "bench.registry_cuts", "--scenario", str(data), str(acks)], scratch / "log", cwd=ROOT)
    done = operations(scratch / "log", scratch)
    opened: Counter[str] = Counter()
    broken: list[str] = []
    for number, (index, kind, files, promised) in enumerate(Cuts(done, str(data), str(acks), stride).states()):
        folder = scratch / f"cut-{number}"
        _materialise(files, data, folder)
        opened[kind] += 1
        try:
            asyncio.run(check(folder, promised))
        except Exception as error:  # noqa: BLE001 - whatever it is, it goes into the report with its place
            broken.append(
                f"after {index} of {len(done)} ({kind}, {done[index - 1].name}): {type(error).__name__}: {error}"[:600]
            )
        _remove(folder)
    return len(done), opened, broken


def _materialise(files: dict[str, bytes | None], data: Path, folder: Path) -> None:
    folder.mkdir()
    for path, content in files.items():
        if not path.startswith(f"{data}/"):
            continue
        target = folder / path.removeprefix(f"{data}/")
        if content is None:
            target.mkdir(parents=True, exist_ok=True)
        else:
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(content)


def _remove(folder: Path) -> None:
    for path in sorted(folder.rglob("*"), reverse=True):
        path.rmdir() if path.is_dir() else path.unlink()
    folder.rmdir()


def main() -> None:
    """Prove, and report."""
    parser = argparse.ArgumentParser(prog="python -m bench.registry_cuts")
    parser.add_argument("--stride", type=int, default=1, help="cut after every N-th operation only")
    parser.add_argument("--scenario", nargs=2, type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.scenario:
        asyncio.run(act(*options.scenario))
        return
    memory = Path("/dev/shm")  # noqa: S108 - the disk is a model; the real one need not suffer
    with tempfile.TemporaryDirectory(prefix="gatewayd-cuts-", dir=memory if memory.is_dir() else None) as name:
        recorded, opened, broken = prove(options.stride, Path(name))
    print("\n".join(broken))
    from bench.common import Report  # noqa: PLC0415 - a test imports this module for its proof, not for reports

    report = Report("registry_cuts")
    report.add("operations_recorded", recorded)
    report.add("cuts_opened", opened.total())
    for kind in sorted(opened):
        report.add(f"cuts_opened_{kind}", opened[kind])
    report.add("cuts_not_whole", len(broken), ("<=", 0))
    report.finish()


if __name__ == "__main__":
    main()
