"""Does pre-flight tell the truth? Many models on devices whose arena is around the limit, judged by TensorFlow Lite Micro.

Two ways to know the arena are held apart: the oracle (admission measured it on TFLM) and the planner (nothing was run, as where
TFLM has no wheel). A pair is a model and a device; its truth is whether TFLM loads and invokes the model in the device's arena.

    python -m bench.preflight [--chains 60] [--seed 1]
"""

import argparse
import asyncio
import hashlib
import importlib.util
import os
import shutil
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import chain as joined
from pathlib import Path

from bench import networks
from bench.common import ROOT, Report
from gatewayd.adapters.model_trial import ModelTrials
from gatewayd.adapters.worker_process import EngineSpec, WorkerProcess
from gatewayd.core.device import Capabilities, EnergySource
from gatewayd.core.errors import GatewayError, ModelRefused, WorkerDied
from gatewayd.core.fit import TFLITE_SCHEMA, fit
from gatewayd.core.model import Signature, Variant, Version
from gatewayd.core.names import Digest, ModelName
from gatewayd.wire.tflite import read_model

_TFLM = EngineSpec("tflm")
_NO_TFLM = EngineSpec("tflm", "/nowhere/python")
_LARGEST_ARENA = 16 * 1024 * 1024
# Around the limit: far below, just below, exactly, just above, far above.
_SHARES = (0.5, 0.97)
_STEPS = (-16, 0, 16, 256)
_ARENA_OF_REFUSED = 1024 * 1024
_TIMEOUT_S = 60.0


@dataclass
class Tally:
    """What one way to know the arena said, against the truth."""

    pairs: int = 0
    running: int = 0
    accepted_then_failed: list[str] = field(default_factory=list)
    refused_wrongly: list[str] = field(default_factory=list)

    def add(self, name: str, *, accepted: bool, runs: bool) -> None:
        """Take one pair."""
        self.pairs += 1
        self.running += runs
        if accepted and not runs:
            self.accepted_then_failed.append(name)
        if runs and not accepted:
            self.refused_wrongly.append(name)


@dataclass
class Findings:
    """Everything counted. `errors` are planner minus bisected arena, in bytes, with the arena."""

    oracle: Tally = field(default_factory=Tally)
    planner: Tally = field(default_factory=Tally)
    errors: list[tuple[str, int, int]] = field(default_factory=list)
    models: int = 0
    refused_models: int = 0
    unpredicted: int = 0
    unread: int = 0


def models(chains: int, seed: int) -> Iterator[tuple[str, bytes]]:
    """Yield every model: the benchmark folder's, a wake word package's, the project's own, then made-up ones."""
    for file in sorted(joined(*(folder.rglob("*.tflite") for folder in _folders()))):
        yield file.stem, file.read_bytes()
    for layer in networks.LAYERS:
        for kind in networks.KINDS:
            yield f"{layer} {kind}", networks.single(layer, kind, seed)
    for number in range(seed, seed + chains):
        for kind in networks.KINDS:
            yield f"chain {number} {kind}", networks.chain(kind, number)


def _folders() -> list[Path]:
    found = [ROOT / "models"]
    named = os.environ.get("GATEWAYD_BENCH_MODELS")
    package = importlib.util.find_spec("pymicro_wakeword")
    if named:
        found.append(Path(named))
    if package is not None:
        found += [Path(folder) / "models" for folder in package.submodule_search_locations or ()]
    missing = [] if named else ["GATEWAYD_BENCH_MODELS is not set"]
    missing += [] if package is not None else ["pymicro-wakeword is not installed"]
    print("\n".join(f"left out: {each}" for each in missing), file=sys.stderr)
    return found


class Truth:
    """Real TFLM in a worker that is started anew when a model kills it."""

    def __init__(self) -> None:
        self._worker: WorkerProcess | None = None

    async def smallest(self, path: Path, *, max_bytes: int = _LARGEST_ARENA) -> int | None:
        """Return the smallest arena of at most `max_bytes` that works, None when none does."""
        if self._worker is None or self._worker.died:
            self._worker = await WorkerProcess.start(_TFLM, memory_limit_bytes=None, start_timeout_s=_TIMEOUT_S)
        try:
            return await self._worker.measure_arena(path, max_bytes=max_bytes, timeout_s=_TIMEOUT_S)
        except (ModelRefused, WorkerDied):
            return None

    async def close(self) -> None:
        """End the worker."""
        if self._worker is not None:
            await self._worker.close()


def device(arena_bytes: int) -> Capabilities:
    """Return a board that has room for everything but the arena."""
    return Capabilities(
        board="bench", cpu="x86-64", clock_mhz=1000, ram_bytes=2**30, flash_bytes=2**30, runtime="tflm", runtime_version="bench",
        runtime_abi=TFLITE_SCHEMA, arena_bytes=arena_bytes, slot_bytes=2**30, chunk_bytes=1024,
        energy_source=EnergySource.MAINS, operators=None, sensors=(),
    )  # fmt: skip


async def admitted(content: bytes, folder: Path, engine: EngineSpec) -> Version:
    """Admit a model with one engine for devices, as the catalog does."""
    digest = Digest(hashlib.sha256(content).hexdigest())
    (folder / digest).write_bytes(content)
    structure = read_model(content)
    trials = ModelTrials(lambda name: folder / name, [], device_engine=engine)
    trial = await trials.try_model(digest, structure)
    variant = Variant("tflite", digest, len(content), structure, trial.verdicts, trial.arena_bytes, trial.self_test)
    return Version(ModelName("bench"), 1, Signature(structure.inputs, structure.outputs), (variant,), 0.0)


async def judge(name: str, content: bytes, folder: Path, truth: Truth, found: Findings) -> None:
    """Hold one model against every device."""
    found.models += 1
    try:
        by_oracle = await admitted(content, folder, _TFLM)
        by_planner = await admitted(content, folder, _NO_TFLM)
    except ModelRefused as error:
        found.unread += 1
        print(f"{name}: not read: {error}", file=sys.stderr)
        return
    (variant,) = by_planner.variants
    smallest = await truth.smallest(folder / variant.digest)
    found.refused_models += smallest is None
    forecast = variant.structure.forecast
    predicted = forecast.host_bytes if forecast else None
    found.unpredicted += predicted is None
    if smallest is not None and predicted is not None:
        found.errors.append((name, predicted - smallest, smallest))
    for arena_bytes in _arenas(smallest):
        runs = smallest is not None and await truth.smallest(folder / variant.digest, max_bytes=arena_bytes) is not None
        board = device(arena_bytes)
        pair = f"{name} in {arena_bytes}"
        found.oracle.add(pair, accepted=fit(by_oracle, board).variant is not None, runs=runs)
        found.planner.add(pair, accepted=fit(by_planner, board).variant is not None, runs=runs)


def _arenas(smallest: int | None) -> Sequence[int]:
    if smallest is None:
        return (_ARENA_OF_REFUSED,)
    around = [int(smallest * share) // 16 * 16 for share in _SHARES] + [smallest + step for step in _STEPS]
    return sorted({each for each in around if each > 0})


def report(found: Findings) -> Report:
    """Return the figures and the goals."""
    made = Report("preflight")
    made.add("models", found.models)
    made.add("models_tflm_refuses", found.refused_models)
    made.add("models_without_prediction", found.unpredicted)
    made.add("pairs", found.planner.pairs, (">=", 500))
    for name, tally in (("oracle", found.oracle), ("planner", found.planner)):
        made.add(f"{name}_accepted_then_failed", len(tally.accepted_then_failed), ("<=", 0))
        made.add(
            f"{name}_false_refusals_percent", 100 * len(tally.refused_wrongly) / max(1, tally.running), ("<=", 2.0)
        )
    differences = sorted(error for _, error, _ in found.errors)
    close = [0 <= error <= max(0.03 * arena, 256) for _, error, arena in found.errors]
    made.add("planner_below_bisected", sum(error < 0 for error in differences), ("<=", 0))
    made.add("planner_close_percent", 100 * sum(close) / max(1, len(close)), (">=", 95.0))
    made.add("planner_exact_percent", 100 * differences.count(0) / max(1, len(differences)))
    made.add("planner_error_max_bytes", max(differences, default=0))
    made.add("planner_error_mean_bytes", sum(differences) / max(1, len(differences)))
    return made


async def run(chains: int, seed: int) -> Findings:
    """Judge every model."""
    found, truth = Findings(), Truth()
    folder = Path(tempfile.mkdtemp(prefix="preflight-"))
    try:
        for name, content in models(chains, seed):
            await judge(name, content, folder, truth, found)
    finally:
        await truth.close()
        shutil.rmtree(folder)
    return found


def main(argv: Sequence[str] | None = None) -> int:
    """Run, print the table, write build/bench/preflight.json."""
    parser = argparse.ArgumentParser(prog="bench.preflight")
    parser.add_argument("--chains", type=int, default=60, help="made-up networks per element type")
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args(argv)
    print(f"seed {options.seed}")
    try:
        found = asyncio.run(run(options.chains, options.seed))
    except GatewayError as error:
        print(f"cannot run: {error}", file=sys.stderr)
        return 1
    for name, tally in (("oracle", found.oracle), ("planner", found.planner)):
        for what, pairs in (
            ("accepted, then failed", tally.accepted_then_failed),
            ("refused wrongly", tally.refused_wrongly),
        ):
            for pair in pairs[:20]:
                print(f"{name}: {what}: {pair}")
    report(found).finish()
    return 0


if __name__ == "__main__":
    sys.exit(main())
