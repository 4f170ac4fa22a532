"""The registry with 1,000 versions: resolving, starting the daemon, storing the same bytes twice, two operators at once."""

import asyncio
import hashlib
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from random import Random

from bench.common import Report, Server, free_port
from gatewayd.adapters.artifacts import Artifacts, open_artifacts
from gatewayd.adapters.store import Store, open_store
from gatewayd.core.errors import Conflict, EngineMissing
from gatewayd.core.model import Place, Signature, Structure, Trial, Variant, Verdict, Version
from gatewayd.core.names import STABLE, Digest, ModelName, ModelRef, parse_model_ref
from gatewayd.core.registry import AliasMove
from gatewayd.services.catalog import Catalog, CatalogPorts
from gatewayd.wire.tflite import read_model

VERSIONS, MODELS = 1000, 100
RESOLVES, ROUNDS, STARTS, RACES = 100_000, 5, 7, 50
SPEAKER = Path(__file__).parents[1] / "models" / "speaker" / "v1"


class Nowhere:
    """A trial that finds that everything runs: the engines are not what is measured."""

    async def try_model(self, digest: Digest, structure: Structure) -> Trial:
        """Answer at once."""
        assert digest
        assert structure
        return Trial((Verdict(Place.NODE, "none", runs=True, reason=""),), None, None)

    async def describe(self, digest: Digest) -> Structure:
        """Not asked: what is admitted is read."""
        raise EngineMissing(digest)


def catalog_of(store: Store, artifacts: Artifacts) -> Catalog:
    """Return a catalog on real rows and files."""
    return Catalog(CatalogPorts(store, artifacts, read_model, Nowhere(), lambda _: None, time.time))


async def fill(folder: Path) -> None:
    """Store `VERSIONS` versions of `MODELS` models, each with two variants of its own and what admission says of them."""
    files = [path.read_bytes() for path in sorted(SPEAKER.glob("*.tflite"))]
    structures = [read_model(content) for content in files]
    async with open_store(folder / "gatewayd.sqlite") as store, open_artifacts(folder / "artifacts") as artifacts:
        for number in range(VERSIONS):
            model, release = ModelName(f"model-{number % MODELS:03}"), 1 + number // MODELS
            version = await _version(artifacts, model, release, files, structures, number)
            moves = [AliasMove(model, STABLE, 1, 1.7e9, "bench", "first version")] if release == 1 else []
            await store.add_version(version, moves=moves)


async def _version(
    artifacts: Artifacts,
    model: ModelName,
    release: int,
    files: Sequence[bytes],
    reads: Sequence[Structure],
    number: int,
) -> Version:
    variants = []
    for index, content in enumerate(files):
        digest = await artifacts.put(content + number.to_bytes(4, "little"))  # bytes behind a flatbuffer are not read
        verdicts = tuple(
            Verdict(place, "engine 2.3.0", runs=True, reason="median of 10 runs", latency_s=1e-4) for place in Place
        )
        variants.append(Variant(f"variant-{index}", digest, len(content) + 4, reads[index], verdicts, 4096))
    real = replace(reads[0].inputs[0], quantization=None)
    labels = tuple(f"speaker-{each}" for each in range(1, 10))
    return Version(model, release, Signature((real,), reads[0].outputs, labels), tuple(variants), 1.7e9 + number)


async def resolving(folder: Path, report: Report) -> None:
    """Resolve names of all three kinds, as requests do."""
    async with open_store(folder / "gatewayd.sqlite") as store, open_artifacts(folder / "artifacts") as artifacts:
        catalog = catalog_of(store, artifacts)
        start_s = time.perf_counter()
        await catalog.load()
        report.add("load_ms", (time.perf_counter() - start_s) * 1000)
        assert len(catalog.versions()) == VERSIONS
        texts = [
            text.format(n) for n in range(MODELS) for text in ("model-{:03}", "model-{:03}:stable", "model-{:03}@7")
        ]
        refs = [parse_model_ref(text) for text in texts]
        p99s = [_p99_us(catalog.resolve, refs, seed) for seed in range(ROUNDS)]
        parsed = [_p99_us(lambda text: catalog.resolve(parse_model_ref(text)), texts, seed) for seed in range(ROUNDS)]
    report.add("resolve_p99_us", statistics.median(p99s), ("<=", 20))
    report.add("parse_and_resolve_p99_us", statistics.median(parsed), ("<=", 20))


def _p99_us(resolve, given, seed: int) -> float:  # type: ignore[no-untyped-def]  # noqa: ANN001 - of what is given
    order = Random(seed).choices(given, k=RESOLVES)
    times = []
    for each in order:
        start_ns = time.perf_counter_ns()
        resolve(each)
        times.append(time.perf_counter_ns() - start_ns)
    return statistics.quantiles(times, n=100)[98] / 1000


def starting(folder: Path, empty: Path, report: Report) -> None:
    """Start the daemon with and without the versions, in turns."""
    ours, theirs = [], []
    for _ in range(STARTS):
        ours.append(_start_s(folder))
        theirs.append(_start_s(empty))
    report.add("start_s", statistics.median(wall for wall, _ in ours), ("<=", 1.0))
    report.add("start_best_s", min(wall for wall, _ in ours))
    report.add("start_empty_s", statistics.median(wall for wall, _ in theirs))
    report.add("start_cpu_s", statistics.median(cpu for _, cpu in ours))
    report.add("start_empty_cpu_s", statistics.median(cpu for _, cpu in theirs))


def _start_s(data: Path) -> tuple[float, float]:
    port = free_port()
    config = data.with_suffix(".yaml")
    config.write_text(
        f"node: {{data_dir: {data}}}\nmqtt: {{port: {free_port()}}}\nhttp: {{port: {port}}}\n"
        "coap: {enabled: false}\nlwm2m: {enabled: false}\n"
    )

    command = [sys.executable, "-m", "gatewayd", "run", "--config", str(config)]
    with Server("registry-daemon", command, port=port, ready_path="/readyz") as server:
        return server.start_s, _cpu_s_of_children()


def _cpu_s_of_children() -> float:
    """Return the CPU seconds that this process's children (and not theirs) have taken: on a busy machine they tell more."""
    children = [pid for each in Path("/proc/self/task").glob("*/children") for pid in each.read_text().split()]
    ticks = [Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[11:13] for pid in children]
    return sum(int(tick) for pair in ticks for tick in pair) / os.sysconf("SC_CLK_TCK")


async def same_bytes(folder: Path, report: Report) -> None:
    """Upload the same file as two models, one after the other and at once: one artifact each time."""
    content = (SPEAKER / "speaker-int8.tflite").read_bytes()
    async with open_store(folder / "db.sqlite") as store, open_artifacts(folder / "artifacts") as artifacts:
        catalog = catalog_of(store, artifacts)
        await catalog.load()

        async def add(model: str) -> Version:
            return await catalog.add(
                model=ModelName(model), files=[content], labels=(), preprocessing="", note="", who="bench"
            )

        await asyncio.gather(*(add(f"m{number}") for number in range(8)))
        await add("m0")
        stored = await artifacts.digests()
        assert set(stored) == {hashlib.sha256(content).hexdigest()}
        report.add("artifacts_of_nine_equal_uploads", len(stored), ("<=", 1))
        losers = [await _race(catalog, number) for number in range(RACES)]
        report.add("races_with_one_winner_share", statistics.mean(losers), (">=", 1.0))


async def _race(catalog: Catalog, number: int) -> float:
    """Let two operators move one alias at once; 1.0 when one won and the other was told by whom."""
    model = ModelName("m0")

    async def move(who: str, to: int) -> AliasMove | Conflict:
        try:
            return await catalog.move_alias(model, STABLE, to, who=who, why=f"race {number}")
        except Conflict as error:
            return error

    ann, bob = await asyncio.gather(move("ann", 1), move("bob", 2))
    told = [each for each in (ann, bob) if isinstance(each, Conflict)]
    won = [each for each in (ann, bob) if isinstance(each, AliasMove)]
    points = catalog.resolve(ModelRef(model)).number
    return float(len(told) == len(won) == 1 and won[0].who in str(told[0]) and won[0].version == points)


def main() -> None:
    """Run everything in a folder that is removed afterwards."""
    report = Report("registry")
    with tempfile.TemporaryDirectory(prefix="gatewayd-bench-") as name:
        root = Path(name)
        (root / "full").mkdir()
        asyncio.run(fill(root / "full"))
        asyncio.run(resolving(root / "full", report))
        (root / "small").mkdir()
        asyncio.run(same_bytes(root / "small", report))
        starting(root / "full", root / "empty", report)
    report.finish()


if __name__ == "__main__":
    main()
