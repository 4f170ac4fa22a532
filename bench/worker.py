"""What isolation costs: one inference in a worker process, beside a ping-pong of the same bytes and a call in this process.

The model takes the bytes and gives one number: nothing to compute. `overhead` is a call through the worker less a ping-pong:
another process that is woken, copies the same bytes out of shared memory and answers. `over_in_process` is the same call
less the same inference without any other process. All take turns, on one core: waking a process on another one costs 8 µs
or 80 as the scheduler likes (more on a virtual machine), which is no property of the program. `free_` figures are without
that restraint; so are the `eager_` figures, with daemon and worker waiting awake for each other, which is how the daemon runs
them. `over_empty` is a call through the worker less a ping-pong without a payload; `isolation` is that less the inference
itself, which costs as much in the caller's process (LiteRT copies its input there too): what being apart adds to waking somebody.

`forked_` and `program_` are about processes: workers that a nursery forks, and workers that are programs of their own.
`models_2_mb` is the memory of two models' workers (nursery included) that is not of files; `next_model_mb` what the second model
adds; `ready_ms` the second model's preload; `back_ms` from a worker's death to the next answer.
"""

import asyncio
import hashlib
import mmap
import os
import select
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from dataclasses import replace
from multiprocessing import get_context
from pathlib import Path
from signal import SIGKILL
from statistics import median, quantiles

import numpy as np
from ai_edge_litert.interpreter import Interpreter  # type: ignore[import-untyped]  # it ships no types

from bench.common import Report
from gatewayd.adapters.eager_loop import EagerLoop
from gatewayd.adapters.worker_seat import WorkerLimits
from gatewayd.adapters.workers import Workers
from gatewayd.core.engine import EngineSpec
from gatewayd.core.errors import WorkerDied
from gatewayd.core.model import Place, Variant, Verdict
from gatewayd.core.names import Digest
from gatewayd.core.tensor import Tensor
from gatewayd.wire.tflite import read_model
from tests import tiny_models

SIZES = {"1_kb": 1024, "10_kb": 10 * 1024, "1_mb": 1024 * 1024}
ROUNDS = int(os.environ.get("ROUNDS", "9"))
CALLS = int(os.environ.get("CALLS", "150"))
GOALS = {
    "overhead_10_kb_p50_us": ("<=", 25.0),
    "overhead_1_mb_p50_us": ("<=", 100.0),
    "eager_overhead_10_kb_p50_us": ("<=", 25.0),
    "eager_overhead_1_mb_p50_us": ("<=", 100.0),
    "eager_over_empty_10_kb_p50_us": ("<=", 25.0),
    "eager_over_empty_1_mb_p50_us": ("<=", 100.0),
    "eager_isolation_1_mb_p50_us": ("<=", 100.0),
}
Call = Callable[[], Awaitable[object]]


class PingPong:
    """Another process that takes bytes out of shared memory and answers: no inference, no format, no supervision."""

    def __init__(self) -> None:
        self._memory = mmap.mmap(-1, max(SIZES.values()))
        self._to, self._back = os.eventfd(0), os.eventfd(0, os.EFD_NONBLOCK)
        self._loop = asyncio.get_running_loop()
        self._answer = self._loop.create_future()
        self._child = get_context("fork").Process(target=self._echo, daemon=True)
        self._child.start()
        self._loop.add_reader(self._back, self._on_answer)

    async def call(self, content: bytes) -> None:
        self._memory[: len(content)] = content
        self._answer = self._loop.create_future()
        os.write(self._to, (1 + len(content)).to_bytes(8, sys.byteorder))
        await self._answer

    def close(self) -> None:
        self._child.kill()
        self._child.join()

    def _on_answer(self) -> None:
        os.read(self._back, 8)
        self._answer.set_result(None)

    def _echo(self) -> None:
        source = np.frombuffer(self._memory, np.uint8)
        taken = np.zeros_like(source)
        poll = select.poll()
        poll.register(self._to, select.POLLIN)
        while True:
            poll.poll()
            length = int.from_bytes(os.read(self._to, 8), sys.byteorder) - 1
            taken[:length] = source[:length]
            os.write(self._back, (1).to_bytes(8, sys.byteorder))


def first_elements_model(size_bytes: int) -> bytes:
    """STRIDED_SLICE: takes `size_bytes` of FP32, gives the first element: all transport, no computing."""
    count = size_bytes // 4
    number = [np.array([each], np.int32).tobytes() for each in (0, 1, 1)]
    return tiny_models.build(
        [
            tiny_models.TinyTensor("in", "FLOAT32", (count,)),
            *(tiny_models.TinyTensor(name, "INT32", (1,), n) for name, n in zip("bes", number, strict=True)),
            tiny_models.TinyTensor("out", "FLOAT32", (1,)),
        ],
        [tiny_models.TinyNode("STRIDED_SLICE", (0, 1, 2, 3), (4,), "StridedSliceOptions")],
        inputs=[0],
        outputs=[4],
    )


def stored(content: bytes, folder: Path) -> Variant:
    digest = Digest(hashlib.sha256(content).hexdigest())
    (folder / digest).write_bytes(content)
    verdict = Verdict(Place.NODE, "litert", runs=True, reason="", latency_s=0.0001)
    return Variant("tflite-float32", digest, len(content), read_model(content), (verdict,))


def in_process(path: Path, content: bytes) -> Call:
    interpreter = Interpreter(model_path=str(path), num_threads=1)
    interpreter.allocate_tensors()
    inputs, outputs = interpreter.get_input_details()[0], interpreter.get_output_details()[0]
    given = np.frombuffer(bytearray(content), np.float32)  # LiteRT copies what is read-only once more

    async def call() -> None:
        interpreter.set_tensor(inputs["index"], given)
        interpreter.invoke()
        interpreter.get_tensor(outputs["index"]).tobytes()

    return call


async def measure(call: Call) -> list[float]:
    samples = []
    for _ in range(CALLS):
        started = time.perf_counter()
        await call()
        samples.append((time.perf_counter() - started) * 1e6)
    return samples


async def one_size(workers: Workers, folder: Path, name: str, size_bytes: int, ping: PingPong) -> dict[str, float]:
    variant = stored(first_elements_model(size_bytes), folder)
    spec = variant.structure.inputs[0]
    content = os.urandom(size_bytes)  # zeroes could come from one page that is always cached
    tensors = (Tensor(spec.name, spec.dtype, spec.shape, content),)
    calls: dict[str, Call] = {
        "empty_ping_pong": lambda: ping.call(b""),
        "ping_pong": lambda: ping.call(content),
        "in_process": in_process(folder / variant.digest, content),
        "worker": lambda: announced(workers, variant, tensors),
    }
    runs: dict[str, list[float]] = {}
    for _ in range(ROUNDS + 1):
        for what, call in calls.items():
            samples = await measure(call)
            runs.setdefault(f"{what}_{name}_p50_us", []).append(median(samples))
            runs.setdefault(f"{what}_{name}_p99_us", []).append(quantiles(samples, n=100)[-1])
    figures = {what: median(values[1:]) for what, values in runs.items()}  # the first round warms up
    for over, what in (("overhead", "ping_pong"), ("over_empty", "empty_ping_pong"), ("over_in_process", "in_process")):
        pairs = zip(runs[f"worker_{name}_p50_us"][1:], runs[f"{what}_{name}_p50_us"][1:], strict=True)
        figures[f"{over}_{name}_p50_us"] = median(ours - theirs for ours, theirs in pairs)
    apart = (runs[f"{what}_{name}_p50_us"][1:] for what in ("worker", "in_process", "empty_ping_pong"))
    figures[f"isolation_{name}_p50_us"] = median(ours - own - empty for ours, own, empty in zip(*apart, strict=True))
    return figures


async def announced(workers: Workers, variant: Variant, tensors: Sequence[Tensor]) -> object:
    """Run as an edge does: it tells when a request begins to be read."""
    workers.rouse()
    return await workers.run(variant, tensors, timeout_s=10)


async def many_at_once(workers: Workers, folder: Path) -> dict[str, float]:
    """Requests that come in bursts share wake-ups."""
    variant = stored(first_elements_model(1024), folder)
    spec = variant.structure.inputs[0]
    tensors = (Tensor(spec.name, spec.dtype, spec.shape, bytes(1024)),)
    rates = []
    for _ in range(ROUNDS):
        started = time.perf_counter()
        for _ in range(20):
            await asyncio.gather(*(workers.run(variant, tensors, timeout_s=10) for _ in range(16)))
        rates.append(320 / (time.perf_counter() - started))
    return {"burst_of_16_1_kb_per_s": median(rates)}


async def measured(*, is_eager: bool) -> dict[str, float]:
    """Make a ping-pong and workers, which inherit the cores of this process; measure, and end them."""
    ping = PingPong()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        limits = replace(WorkerLimits(), memory_limit_bytes=None, is_eager=is_eager)
        engines = [EngineSpec("litert")]
        async with Workers(lambda digest: folder / digest, engines, clock=time.monotonic, limits=limits) as workers:
            figures = await every_size(workers, folder, ping)
    ping.close()
    return figures


async def every_size(workers: Workers, folder: Path, ping: PingPong) -> dict[str, float]:
    figures: dict[str, float] = {}
    for label, size_bytes in SIZES.items():
        figures |= await one_size(workers, folder, label, size_bytes, ping)
    return figures | await many_at_once(workers, folder)


async def processes(*, is_forked: bool) -> dict[str, float]:
    """Load two models and kill one again and again."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        first, second = (stored(first_elements_model(size), folder) for size in (4096, 8192))
        limits = replace(WorkerLimits(), is_forked=is_forked)
        engines = [EngineSpec("litert")]
        async with Workers(lambda digest: folder / digest, engines, clock=time.monotonic, limits=limits) as workers:
            await answered(workers, first)
            one_mb = memory_mb(workers)
            started = time.perf_counter()
            await workers.preload(second, timeout_s=20)
            ready_ms = (time.perf_counter() - started) * 1e3
            await answered(workers, second)
            two_mb = memory_mb(workers)
            back_ms = []
            for _ in range(ROUNDS * 2):
                os.kill(workers.pids()[first.digest], SIGKILL)
                started = time.perf_counter()
                with suppress(WorkerDied):  # the one that was on its way
                    await answered(workers, first)
                await answered(workers, first)
                back_ms.append((time.perf_counter() - started) * 1e3)
                workers.release(first.digest)
    return {"models_2_mb": two_mb, "next_model_mb": two_mb - one_mb, "ready_ms": ready_ms, "back_ms": median(back_ms)}


async def answered(workers: Workers, variant: Variant) -> None:
    spec = variant.structure.inputs[0]
    await workers.run(variant, (Tensor(spec.name, spec.dtype, spec.shape, bytes(spec.byte_count)),), timeout_s=20)


def memory_mb(workers: Workers) -> float:
    """Return what the workers and their nurseries hold of memory that is not of files, each shared page counted once."""
    lines = (
        line
        for pid in (*workers.pids().values(), *workers.nurseries())
        for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    )
    return sum(int(line.split()[1]) for line in lines if line.startswith("Pss_Anon:")) / 1024


def main() -> None:
    cores = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {max(cores)})
    found = {"": asyncio.run(measured(is_eager=False))}
    os.sched_setaffinity(0, cores)
    found["free_"] = asyncio.run(measured(is_eager=False))
    with asyncio.Runner(loop_factory=EagerLoop) as runner:
        found["eager_"] = runner.run(measured(is_eager=True))
    found["forked_"] = asyncio.run(processes(is_forked=True))
    found["program_"] = asyncio.run(processes(is_forked=False))
    report = Report("worker")
    for prefix, figures in found.items():
        for name, value in figures.items():
            report.add(prefix + name, value, GOALS.get(prefix + name))
    report.finish()


if __name__ == "__main__":
    main()
