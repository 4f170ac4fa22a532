"""Thousands of corrupted and insane model files through the real admission: does the daemon's side survive every one?

    python -m bench.fuzz_models [--count 10000] [--seed N]

Each file goes through the catalog as an upload does: static reading, storing, a trial in child processes on every engine here.
What counts: no error but the catalog's own, a verdict in time, no process, descriptor or memory left behind. A failure prints
the number of the file; `--only NUMBER` with the same seed runs it again, `--save FOLDER` keeps it.
"""

import argparse
import asyncio
import os
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from bench import insane
from bench.common import Report
from gatewayd.adapters.artifacts import open_artifacts
from gatewayd.adapters.model_trial import ModelTrials, TrialLimits
from gatewayd.adapters.store import open_store
from gatewayd.adapters.worker_process import EngineSpec
from gatewayd.core.errors import GatewayError
from gatewayd.core.names import ModelName
from gatewayd.services.catalog import Catalog, CatalogPorts
from gatewayd.wire.tflite import read_model

VERDICT_S = 5.0
_LIMITS = TrialLimits(engine_s=2.0)  # two engines and the reading stay below VERDICT_S
_PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")
_WARM_UP = 50  # files until memory that is taken once has been taken
_BEAT_S = 0.02


@dataclass
class Fuzzed:
    """What came of the files. `stall_s` is the longest time in which the event loop did not turn."""

    outcomes: Counter[str] = field(default_factory=Counter)
    slowest_s: float = 0.0
    slow: int = 0
    stall_s: float = 0.0
    grown_bytes: int = 0
    left_descriptors: int = 0
    left_processes: int = 0


async def fuzz(
    numbers: Sequence[int],
    seed: int,
    folder: Path,
    *,
    engines: Sequence[EngineSpec] = (EngineSpec("litert"),),
    device_engine: EngineSpec | None = EngineSpec("tflm"),  # noqa: B008 # a frozen value
) -> Fuzzed:
    """Admit each file in turn, in one catalog, trying it on each engine."""
    found = Fuzzed()
    async with (
        open_store(folder / "db.sqlite") as store,
        open_artifacts(folder / "artifacts", max_bytes=64 * 2**20) as artifacts,
        asyncio.TaskGroup() as tasks,
    ):
        trials = ModelTrials(artifacts.path, engines, device_engine=device_engine, limits=_LIMITS)
        catalog = Catalog(CatalogPorts(store, artifacts, read_model, trials, lambda _: None, time.time))
        beat = tasks.create_task(_beat(found), name="beat")
        memory_bytes = descriptors = 0
        for position, number in enumerate(numbers):
            if position == min(_WARM_UP, len(numbers) // 2):
                memory_bytes, descriptors = _memory_bytes(), _descriptors()
            await _one(catalog, number, seed, found)
            if position % 1000 == 999:
                print(f"{position + 1}: {dict(found.outcomes)}", file=sys.stderr, flush=True)
        found.grown_bytes = _memory_bytes() - memory_bytes
        found.left_descriptors = _descriptors() - descriptors
        found.left_processes = _children()
        beat.cancel()
    return found


async def _one(catalog: Catalog, number: int, seed: int, found: Fuzzed) -> None:
    content = insane.model(number, seed)
    started = time.monotonic()
    try:
        await catalog.add(
            model=ModelName(f"m{number % 50}"), files=(content,), labels=(), preprocessing="", note="", who="fuzz"
        )
        outcome = "admitted"
    except GatewayError as error:
        outcome = "refused after trial" if "nothing can run it" in str(error) else f"refused: {type(error).__name__}"
    except BaseException:
        print(f"file {number} of seed {seed} broke the admission", file=sys.stderr)
        raise
    elapsed_s = time.monotonic() - started
    found.outcomes[outcome] += 1
    found.slowest_s = max(found.slowest_s, elapsed_s)
    if elapsed_s > VERDICT_S:
        found.slow += 1
        print(f"{number}: took {elapsed_s:.1f} s ({outcome})", file=sys.stderr)


async def _beat(found: Fuzzed) -> None:
    while True:
        before = time.monotonic()
        await asyncio.sleep(_BEAT_S)
        found.stall_s = max(found.stall_s, time.monotonic() - before - _BEAT_S)


def _memory_bytes() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * _PAGE_BYTES


def _descriptors() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


def _children() -> int:
    listed = Path("/proc/self/task").glob("*/children")
    return sum(len(each.read_text().split()) for each in listed)


def main(argv: Sequence[str] | None = None) -> int:
    """Run, print the table, write build/bench/fuzz-models.json. A file that breaks something ends it with its traceback."""
    parser = argparse.ArgumentParser(prog="bench.fuzz_models")
    parser.add_argument("--count", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=int(time.time()))
    parser.add_argument("--only", type=int, default=None, help="the number of one file")
    parser.add_argument("--save", type=Path, default=None, help="a folder for that file")
    options = parser.parse_args(argv)
    print(f"seed {options.seed}", flush=True)
    numbers = range(options.count) if options.only is None else [options.only]
    if options.save is not None and options.only is not None:
        (options.save / f"{options.only}.tflite").write_bytes(insane.model(options.only, options.seed))
    with tempfile.TemporaryDirectory(prefix="fuzz-models-") as folder:
        found = asyncio.run(fuzz(numbers, options.seed, Path(folder)))
    print("\n".join(f"{name}: {count}" for name, count in found.outcomes.most_common()))
    made = Report("fuzz-models")
    made.add("seed", options.seed)
    made.add("files", len(numbers), (">=", 10_000))
    made.add("admitted", found.outcomes["admitted"])
    made.add("tried_in_child_processes", found.outcomes["admitted"] + found.outcomes["refused after trial"])
    made.add("slowest_verdict_s", found.slowest_s, ("<=", VERDICT_S))
    made.add("loop_stall_s", found.stall_s)
    made.add("memory_growth_mib", found.grown_bytes / 2**20, ("<=", 64))
    made.add("descriptors_left", found.left_descriptors, ("<=", 0))
    made.add("processes_left", found.left_processes, ("<=", 0))
    made.finish()
    return 0


if __name__ == "__main__":
    sys.exit(main())
