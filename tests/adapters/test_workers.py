import asyncio
import hashlib
import os
import signal
import struct
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

import pytest

from gatewayd.adapters.worker_seat import WorkerLimits
from gatewayd.adapters.workers import Workers
from gatewayd.core.engine import EngineSpec
from gatewayd.core.errors import BadRequest, DeadlineExceeded, EngineMissing, ModelRefused, Overloaded, WorkerDied
from gatewayd.core.model import NodeRun, Place, Variant, Verdict
from gatewayd.core.names import Digest
from gatewayd.core.tensor import DType, Tensor
from gatewayd.wire.tflite import read_model
from tests import tiny_models
from tests.engine_environments import LITERT, require_engine

_PATIENCE_S = 20.0
_ADD = (Tensor("a", DType.FP32, (1, 2), struct.pack("<2f", 1, 2)), Tensor("b", DType.FP32, (1, 2), bytes(8)))
_SQUARED = (Tensor("in", DType.FP32, (1, 4), bytes(16)),)
_WIDE = (Tensor("in", DType.FP32, (1, 256), bytes(1024)),)


@pytest.fixture(autouse=True)
def _needs_litert() -> None:
    require_engine("litert")


class Store:
    """Variants of the tiny models, stored by digest."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def path(self, digest: Digest) -> Path:
        return self.folder / digest

    def add(self, make: Callable[[], bytes], *, content: bytes | None = None) -> Variant:
        stored = make() if content is None else content
        digest = Digest(hashlib.sha256(stored).hexdigest())
        self.path(digest).write_bytes(stored)
        verdicts = (Verdict(Place.NODE, "litert", runs=True, reason="", latency_s=0.001),)
        return Variant("tflite-float32", digest, len(stored), read_model(make()), verdicts)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path)


def _workers(store: Store, *engines: EngineSpec, **limits: float) -> Workers:
    return Workers(
        store.path, engines or (LITERT,), clock=time.monotonic, limits=replace(WorkerLimits(), **limits)  # type: ignore[arg-type] # whole numbers where they belong
    )  # fmt: skip


def _children() -> list[str]:
    return Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()


def _is_running(pid: int) -> bool:
    return Path(f"/proc/{pid}").exists()


def _pid(workers: Workers, variant: Variant) -> int:
    return workers.pids()[variant.digest]


async def _killed_in_mid_call(workers: Workers, variant: Variant) -> NodeRun | WorkerDied:
    """Run on a worker that is stopped, then killed."""
    await workers.preload(variant, timeout_s=_PATIENCE_S)
    pid = _pid(workers, variant)
    os.kill(pid, signal.SIGSTOP)
    async with asyncio.TaskGroup() as tasks:
        answer = tasks.create_task(_caught(workers, variant), name="caller")
        await _until_running(workers, variant)
        os.kill(pid, signal.SIGKILL)
    return answer.result()


async def _caught(workers: Workers, variant: Variant) -> NodeRun | WorkerDied:
    try:
        return await workers.run(variant, _ADD, timeout_s=_PATIENCE_S)
    except WorkerDied as error:
        return error


async def _until_running(workers: Workers, variant: Variant) -> None:
    """Let the event loop turn until the request has left the queue for the process."""
    for _ in range(10):
        await asyncio.sleep(0)
    assert workers.pids().get(variant.digest)


async def test_an_inference_runs(store: Store) -> None:
    variant = store.add(tiny_models.two_input_model)
    async with _workers(store) as workers:
        done = await workers.run(variant, _ADD, timeout_s=_PATIENCE_S)
    assert done.outputs == (Tensor("sum", DType.FP32, (1, 2), struct.pack("<2f", 1, 2)),)
    assert done.compute_s > 0
    assert done.queue_s > done.compute_s  # the first one waits for the start of its worker


async def test_first_requests_at_once_share_one_start(store: Store) -> None:
    variant = store.add(tiny_models.two_input_model)
    async with _workers(store) as workers:
        await asyncio.gather(*(workers.run(variant, _ADD, timeout_s=_PATIENCE_S) for _ in range(20)))
        assert set(_children()) == {str(pid) for pid in (_pid(workers, variant), *workers.nurseries())}


async def test_preloading_starts_it(store: Store) -> None:
    variant = store.add(tiny_models.two_input_model)
    async with _workers(store) as workers:
        await workers.preload(variant, timeout_s=_PATIENCE_S)
        assert workers.loaded() == (variant.digest,)
        pid = _pid(workers, variant)
        await workers.run(variant, _ADD, timeout_s=_PATIENCE_S)
        assert _pid(workers, variant) == pid


async def test_leaving_ends_every_process(store: Store) -> None:
    variants = [store.add(tiny_models.two_input_model), store.add(tiny_models.float_model)]
    async with _workers(store) as workers:
        for variant in variants:
            await workers.preload(variant, timeout_s=_PATIENCE_S)
        pids = list(workers.pids().values())
    assert len(pids) == 2
    assert not [pid for pid in pids if _is_running(pid)]


async def test_leaving_answers_who_still_waits(store: Store) -> None:
    variant = store.add(tiny_models.two_input_model)
    async with asyncio.TaskGroup() as tasks, _workers(store) as workers:
        await workers.preload(variant, timeout_s=_PATIENCE_S)
        os.kill(_pid(workers, variant), signal.SIGSTOP)
        waiting = tasks.create_task(_caught(workers, variant), name="caller")
        await _until_running(workers, variant)
    assert "stopping" in str(waiting.result())


async def test_a_death_fails_its_request_and_the_next_gets_a_new_worker(store: Store) -> None:
    variant = store.add(tiny_models.two_input_model)
    async with _workers(store) as workers:
        died = await _killed_in_mid_call(workers, variant)
        assert isinstance(died, WorkerDied)
        assert "SIGKILL" in str(died)
        assert await workers.run(variant, _ADD, timeout_s=_PATIENCE_S)
        assert not workers.quarantined()


async def test_a_worker_that_died_idle_is_replaced_unnoticed(store: Store) -> None:
    variant = store.add(tiny_models.two_input_model)
    async with _workers(store) as workers:
        for _ in range(3):
            await workers.preload(variant, timeout_s=_PATIENCE_S)
            os.kill(_pid(workers, variant), signal.SIGKILL)
            async with asyncio.timeout(_PATIENCE_S):
                while workers.pids():  # noqa: ASYNC110 # a death is seen by the event loop, which has no event for it
                    await asyncio.sleep(0)
        assert await workers.run(variant, _ADD, timeout_s=_PATIENCE_S)


async def test_two_deaths_in_a_row_are_quarantine_until_released(store: Store) -> None:
    variant = store.add(tiny_models.two_input_model)
    async with _workers(store) as workers:
        await _killed_in_mid_call(workers, variant)
        second = await _killed_in_mid_call(workers, variant)
        assert "is quarantined: it killed its worker 2 times in a row" in str(second)
        with pytest.raises(WorkerDied, match=r"quarantined.*SIGKILL"):
            await workers.run(variant, _ADD, timeout_s=_PATIENCE_S)
        assert list(workers.quarantined()) == [variant.digest]
        workers.release(variant.digest)
        assert await workers.run(variant, _ADD, timeout_s=_PATIENCE_S)


async def test_a_success_between_two_deaths_forgives_the_first(store: Store) -> None:
    variant = store.add(tiny_models.two_input_model)
    async with _workers(store) as workers:
        await _killed_in_mid_call(workers, variant)
        await workers.run(variant, _ADD, timeout_s=_PATIENCE_S)
        await _killed_in_mid_call(workers, variant)
        assert not workers.quarantined()


async def test_a_hang_is_a_death(store: Store) -> None:
    variant = store.add(tiny_models.two_input_model)
    async with _workers(store, hang_s=1.0) as workers:
        await workers.preload(variant, timeout_s=_PATIENCE_S)
        os.kill(_pid(workers, variant), signal.SIGSTOP)
        with pytest.raises(WorkerDied, match="did not invoke within 1 s and was killed"):
            await workers.run(variant, _ADD, timeout_s=_PATIENCE_S)


async def test_a_caller_whose_time_runs_out_leaves_the_worker_alive(store: Store) -> None:
    variant = store.add(tiny_models.two_input_model)
    async with _workers(store) as workers:
        await workers.preload(variant, timeout_s=_PATIENCE_S)
        pid = _pid(workers, variant)
        os.kill(pid, signal.SIGSTOP)
        calls = [workers.run(variant, _ADD, timeout_s=0.1) for _ in range(2)]
        answers = await asyncio.gather(*calls, return_exceptions=True)
        assert [type(answer) for answer in answers] == [DeadlineExceeded] * 2
        assert "computing when the 0.1 s" in str(answers[0])
        assert "waiting for a worker" in str(answers[1])
        os.kill(pid, signal.SIGCONT)
        await workers.run(variant, _ADD, timeout_s=_PATIENCE_S)
        assert _pid(workers, variant) == pid


async def test_a_full_queue_is_told_at_once(store: Store) -> None:
    variant = store.add(tiny_models.two_input_model)
    async with _workers(store, queue_limit=1) as workers:
        await workers.run(variant, _ADD, timeout_s=_PATIENCE_S)
        mean_s = workers.expected_wait_s(variant)
        assert mean_s == 0
        pid = _pid(workers, variant)
        os.kill(pid, signal.SIGSTOP)
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(workers.run(variant, _ADD, timeout_s=_PATIENCE_S), name="computing")
            await _until_running(workers, variant)
            one_before_s = workers.expected_wait_s(variant)
            tasks.create_task(workers.run(variant, _ADD, timeout_s=_PATIENCE_S), name="waiting")
            await _until_running(workers, variant)
            assert workers.expected_wait_s(variant) == pytest.approx(2 * one_before_s)
            assert one_before_s > 0
            with pytest.raises(Overloaded, match="1 requests wait"):
                await workers.run(variant, _ADD, timeout_s=_PATIENCE_S)
            os.kill(pid, signal.SIGCONT)


async def test_the_least_recently_used_idle_worker_makes_room(store: Store) -> None:
    first, second, third = (
        store.add(make) for make in (tiny_models.two_input_model, tiny_models.float_model, tiny_models.node_only_model)
    )
    async with _workers(store, max_loaded=2) as workers:
        await workers.preload(first, timeout_s=_PATIENCE_S)
        await workers.preload(second, timeout_s=_PATIENCE_S)
        await workers.run(first, _ADD, timeout_s=_PATIENCE_S)
        assert await workers.run(third, _SQUARED, timeout_s=_PATIENCE_S)
        assert workers.loaded() == (first.digest, third.digest)
        assert await workers.run(second, _WIDE, timeout_s=_PATIENCE_S)
        assert workers.loaded() == (third.digest, second.digest)


async def test_a_busy_worker_is_not_taken_away(store: Store) -> None:
    busy, other = store.add(tiny_models.two_input_model), store.add(tiny_models.float_model)
    async with _workers(store, max_loaded=1) as workers:
        await workers.preload(busy, timeout_s=_PATIENCE_S)
        pid = _pid(workers, busy)
        os.kill(pid, signal.SIGSTOP)
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(workers.run(busy, _ADD, timeout_s=_PATIENCE_S), name="computing")
            await _until_running(workers, busy)
            with pytest.raises(Overloaded, match="all 1 inference workers are busy"):
                await workers.run(other, _WIDE, timeout_s=_PATIENCE_S)
            os.kill(pid, signal.SIGCONT)


async def test_an_error_of_the_body_goes_on_as_it_is(store: Store) -> None:
    variant = store.add(tiny_models.two_input_model)
    with pytest.raises(DeadlineExceeded):  # and not a group with one in it
        async with _workers(store) as workers:
            await workers.preload(variant, timeout_s=0)


async def test_no_engine_is_told(store: Store) -> None:
    variant = store.add(tiny_models.two_input_model)
    async with Workers(store.path, (), clock=time.monotonic) as workers:
        with pytest.raises(EngineMissing, match="no inference engine is configured"):
            await workers.run(variant, _ADD, timeout_s=_PATIENCE_S)


async def test_an_engine_that_cannot_start_fails_everybody_and_keeps_no_seat(store: Store) -> None:
    variant = store.add(tiny_models.two_input_model)
    async with _workers(store, EngineSpec("litert", "/nowhere/python")) as workers:
        calls = [workers.run(variant, _ADD, timeout_s=_PATIENCE_S) for _ in range(3)]
        answers = await asyncio.gather(*calls, return_exceptions=True)
        assert [type(answer) for answer in answers] == [EngineMissing] * 3
        await asyncio.sleep(0)
        assert workers.loaded() == ()


async def test_the_engine_of_the_best_verdict_is_used(store: Store) -> None:
    variant = store.add(tiny_models.two_input_model)
    async with _workers(store, EngineSpec("tflite-runtime", "/nowhere/python"), LITERT) as workers:
        assert await workers.run(variant, _ADD, timeout_s=_PATIENCE_S)
        untried = replace(variant, digest=Digest("0" * 64), verdicts=())
        with pytest.raises(EngineMissing, match="tflite-runtime"):
            await workers.run(untried, _ADD, timeout_s=_PATIENCE_S)


async def test_an_artifact_that_is_not_what_was_admitted_is_refused(store: Store) -> None:
    variant = store.add(tiny_models.two_input_model, content=tiny_models.node_only_model())
    async with _workers(store) as workers:
        with pytest.raises(ModelRefused, match=r"the engine sees inputs FP32\[1, 4\], the file says"):
            await workers.run(variant, _ADD, timeout_s=_PATIENCE_S)


async def test_a_wrong_input_fails_alone(store: Store) -> None:
    variant = store.add(tiny_models.two_input_model)
    async with _workers(store) as workers:
        await workers.preload(variant, timeout_s=_PATIENCE_S)
        pids: Mapping[Digest, int] = workers.pids()
        with pytest.raises(BadRequest, match="takes 2 inputs, got 1"):
            await workers.run(variant, _ADD[:1], timeout_s=_PATIENCE_S)
        assert await workers.run(variant, _ADD, timeout_s=_PATIENCE_S)
        assert workers.pids() == pids


async def test_a_model_with_a_state_keeps_one_per_stream(store: Store) -> None:
    variant = store.add(tiny_models.stateful_model)
    one = (Tensor("in", DType.FP32, (1,), struct.pack("<f", 1)),)
    async with _workers(store) as workers:

        async def total(stream: str, *, is_reset: bool = False) -> float:
            done = await workers.run(variant, one, timeout_s=_PATIENCE_S, stream=stream, is_reset=is_reset)
            value: float = struct.unpack("<f", done.outputs[0].content)[0]
            return value

        assert [await total(stream) for stream in ("a", "a", "b", "a", "")] == [1, 2, 1, 3, 1]
        assert [await total("a", is_reset=True), await total("a"), await total("b")] == [1, 2, 2]
