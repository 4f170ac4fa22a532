"""Workers whose daemon waits awake for them."""

import asyncio
import hashlib
import os
import signal
import struct
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from gatewayd.adapters.eager_loop import EagerLoop
from gatewayd.adapters.worker_seat import WorkerLimits
from gatewayd.adapters.workers import Workers
from gatewayd.core.model import NodeRun, Place, Variant, Verdict
from gatewayd.core.names import Digest
from gatewayd.core.tensor import DType, Tensor
from gatewayd.wire.tflite import read_model
from tests import tiny_models
from tests.engine_environments import LITERT, require_engine

_PATIENCE_S = 20.0
Work = Callable[[Workers, Variant], Awaitable[None]]


@pytest.fixture(autouse=True)
def _needs_litert() -> None:
    require_engine("litert")


def _inputs(number: float) -> tuple[Tensor, Tensor]:
    return (
        Tensor("a", DType.FP32, (1, 2), struct.pack("<2f", number, 2)),
        Tensor("b", DType.FP32, (1, 2), bytes(8)),
    )


async def _asked(workers: Workers, variant: Variant, number: float) -> float:
    run: NodeRun = await workers.run(variant, _inputs(number), timeout_s=_PATIENCE_S)
    first, _ = run.outputs[0].values()
    return float(first)


@asynccontextmanager
async def _serving(folder: Path) -> AsyncIterator[tuple[Workers, Variant]]:
    content = tiny_models.two_input_model()
    digest = Digest(hashlib.sha256(content).hexdigest())
    (folder / digest).write_bytes(content)
    verdicts = (Verdict(Place.NODE, "litert", runs=True, reason="", latency_s=0.001),)
    variant = Variant("tflite-float32", digest, len(content), read_model(content), verdicts)
    limits = WorkerLimits(is_eager=True)
    async with Workers(lambda each: folder / each, (LITERT,), clock=time.monotonic, limits=limits) as workers:
        await workers.preload(variant, timeout_s=_PATIENCE_S)
        yield workers, variant


def _run(folder: Path, work: Work) -> None:
    async def whole() -> None:
        async with _serving(folder) as (workers, variant):
            await work(workers, variant)

    with asyncio.Runner(loop_factory=EagerLoop) as runner:
        runner.run(whole())


def test_announced_requests_are_answered(tmp_path: Path) -> None:
    async def work(workers: Workers, variant: Variant) -> None:
        for number in range(200):
            workers.rouse()
            assert await _asked(workers, variant, number) == number

    _run(tmp_path, work)


def test_large_inputs_arrive_whole(tmp_path: Path) -> None:
    width = 128 * 1024  # two inputs of 512 KB: they come in pieces to a worker that is awake, else as a whole
    content = tiny_models.two_input_model(width)
    digest = Digest(hashlib.sha256(content).hexdigest())

    async def work(workers: Workers, _: Variant) -> None:
        (tmp_path / digest).write_bytes(content)
        verdicts = (Verdict(Place.NODE, "litert", runs=True, reason="", latency_s=0.001),)
        variant = Variant("wide", digest, len(content), read_model(content), verdicts)
        for number in range(40):
            workers.rouse()
            pattern = b"".join(struct.pack("<f", number + each) for each in range(64)) * (width // 64)
            inputs = tuple(Tensor(name, DType.FP32, (1, width), pattern) for name in "ab")
            run = await workers.run(variant, inputs, timeout_s=_PATIENCE_S)
            twice = b"".join(struct.pack("<f", 2.0 * (number + each)) for each in range(64)) * (width // 64)
            assert run.outputs[0].content == twice

    _run(tmp_path, work)


def test_requests_that_nobody_announced_are_answered(tmp_path: Path) -> None:
    async def work(workers: Workers, variant: Variant) -> None:
        for number in range(50):
            assert await _asked(workers, variant, number) == number

    _run(tmp_path, work)


def test_many_at_once_keep_their_order(tmp_path: Path) -> None:
    async def work(workers: Workers, variant: Variant) -> None:
        for _ in range(5):
            workers.rouse()
            answers = await asyncio.gather(*(_asked(workers, variant, number) for number in range(40)))
            assert answers == [float(number) for number in range(40)]

    _run(tmp_path, work)


def test_announcements_that_nothing_follows_cost_nothing_later(tmp_path: Path) -> None:
    async def work(workers: Workers, variant: Variant) -> None:
        for _ in range(1000):
            workers.rouse()
        pid = workers.pids()[variant.digest]
        await _until_asleep(pid)
        assert await _asked(workers, variant, 3) == 3

    _run(tmp_path, work)


def test_announcing_to_a_worker_that_died_does_no_harm(tmp_path: Path) -> None:
    async def work(workers: Workers, variant: Variant) -> None:
        os.kill(workers.pids()[variant.digest], signal.SIGKILL)
        async with asyncio.timeout(_PATIENCE_S):
            while variant.digest in workers.pids():
                workers.rouse()
                await asyncio.sleep(0)
        workers.rouse()
        assert await _asked(workers, variant, 4) == 4

    _run(tmp_path, work)


def test_nobody_is_there_to_be_announced_to() -> None:
    async def work() -> None:
        async with Workers(Path, (LITERT,), clock=time.monotonic, limits=WorkerLimits(is_eager=True)) as workers:
            workers.rouse()
            assert workers.loaded() == ()

    with asyncio.Runner(loop_factory=EagerLoop) as runner:
        runner.run(work())


def _state(pid: int) -> str:
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]


async def _until_asleep(pid: int) -> None:
    """Wait until the process waits in the kernel, as one that waits awake does not for long."""
    asleep = 0
    async with asyncio.timeout(_PATIENCE_S):
        while asleep < 50:
            asleep = asleep + 1 if _state(pid) == "S" else 0
            await asyncio.sleep(0)
