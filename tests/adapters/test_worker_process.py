"""What is the process's business rather than an engine's; the rest is in the contract suite."""

import asyncio
import os
import select
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from gatewayd.adapters.worker_process import MEMORY_LIMIT_BYTES, WorkerProcess
from gatewayd.core.engine import EngineSpec
from gatewayd.core.errors import DeadlineExceeded, EngineMissing, ModelRefused, WorkerDied
from gatewayd.worker.limits import MAX_FILE_BYTES
from tests import tiny_models
from tests.engine_environments import LITERT, require_engine

_PATIENCE_S = 20.0

_PARENT = """
import asyncio, os, signal
from gatewayd.adapters.worker_process import WorkerProcess
from gatewayd.core.engine import EngineSpec

async def main():
    worker = await WorkerProcess.start(EngineSpec("litert"), memory_limit_bytes=None, start_timeout_s=20)
    os.kill(worker.pid, signal.SIGSTOP)
    print(worker.pid, flush=True)
    await worker.wait_died()

asyncio.run(main())
"""


async def _start(spec: EngineSpec = LITERT) -> WorkerProcess:
    return await WorkerProcess.start(spec, memory_limit_bytes=MEMORY_LIMIT_BYTES, start_timeout_s=_PATIENCE_S)


def _descriptors() -> set[str]:
    """Targets, not numbers: listing opens one itself."""
    return {str(each.readlink()) for each in Path("/proc/self/fd").iterdir() if each.is_symlink()}


def _script(path: Path, content: str) -> EngineSpec:
    path.write_text("#!/bin/sh\n" + content)
    path.chmod(0o755)
    return EngineSpec("litert", str(path))


def _program(path: Path, statement: str) -> EngineSpec:
    """Stand in for an interpreter: argv[3] is the descriptor of the channel."""
    path.write_text(
        f"#!{sys.executable}\nimport os, signal, sys\nchannel = int(sys.argv[3])\n{statement}\nsignal.pause()\n"
    )
    path.chmod(0o755)
    return EngineSpec("litert", str(path))


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        (EngineSpec("warp-drive"), "there are litert, onnxruntime, openvino, tflite-runtime, tflm"),
        (EngineSpec("litert", "/nowhere/python"), "cannot start /nowhere/python: No such file"),
    ],
)
async def test_an_engine_that_is_not_there_is_told(spec: EngineSpec, message: str) -> None:
    with pytest.raises(EngineMissing, match=message):
        await _start(spec)


async def test_a_death_at_start_tells_signal_and_last_words(tmp_path: Path) -> None:
    with pytest.raises(WorkerDied, match=r"died of SIGSEGV; last words:\nbad wheel"):
        await _start(_script(tmp_path / "python", "echo bad wheel >&2; kill -SEGV $$"))


async def test_an_exit_at_start_tells_the_code(tmp_path: Path) -> None:
    with pytest.raises(WorkerDied, match="exited with code 3"):
        await _start(_script(tmp_path / "python", "exit 3"))


async def test_a_start_that_takes_too_long_is_killed(tmp_path: Path) -> None:
    spec = _script(tmp_path / "python", "exec sleep 60")
    with pytest.raises(DeadlineExceeded, match=r"did not start within 0.1 s"):
        await WorkerProcess.start(spec, memory_limit_bytes=None, start_timeout_s=0.1)


async def test_who_speaks_another_language_is_killed(tmp_path: Path) -> None:
    spec = _program(tmp_path / "python", "os.write(channel, b'HTTP/1.1 200 OK')")
    with pytest.raises(WorkerDied, match="broke its channel"):
        await _start(spec)


async def test_who_closes_the_channel_and_lives_on_is_killed(tmp_path: Path) -> None:
    spec = _program(tmp_path / "python", "os.close(channel)")
    with pytest.raises(WorkerDied, match="closed its channel, lived on and was killed"):
        await _start(spec)


async def test_it_denies_itself_memory_core_dumps_and_big_files() -> None:
    require_engine("litert")
    worker = await _start()
    limits = _limits_of(worker.pid)
    await worker.close()
    assert limits["Max address space"] == str(MEMORY_LIMIT_BYTES)
    assert limits["Max core file size"] == "0"
    assert limits["Max file size"] == str(MAX_FILE_BYTES)


def _limits_of(pid: int) -> dict[str, str]:
    lines = Path(f"/proc/{pid}/limits").read_text().splitlines()[1:]
    return {line[:26].strip(): line[26:47].strip() for line in lines}


async def test_closing_twice_is_closing() -> None:
    require_engine("litert")
    worker = await _start()
    await worker.close()
    await worker.close()
    assert worker.died


async def test_closing_is_finished_even_when_it_is_cancelled() -> None:
    require_engine("litert")
    worker = await _start()
    async with asyncio.TaskGroup() as tasks:
        closing = tasks.create_task(worker.close(), name="closing")
        await asyncio.sleep(0)
        closing.cancel()
    assert closing.cancelled()
    assert worker.died


async def test_nothing_stays_open() -> None:
    require_engine("litert")
    await (await _start()).close()
    before = _descriptors()
    for _ in range(3):
        await (await _start()).close()
    assert _descriptors() == before


async def test_a_caller_that_leaves_does_not_disturb_the_next(tmp_path: Path) -> None:
    require_engine("litert")
    (tmp_path / "model").write_bytes(tiny_models.two_input_model())
    worker = await _start()
    await worker.load(tmp_path / "model", timeout_s=_PATIENCE_S)
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0):
            await worker.invoke([bytes(8), bytes(8)], timeout_s=_PATIENCE_S)
    assert (await worker.invoke([bytes(8), bytes(8)], timeout_s=_PATIENCE_S)).outputs == (bytes(8),)
    await worker.close()


async def test_large_tensors_pass(tmp_path: Path) -> None:
    require_engine("litert")
    count = 2**20
    (tmp_path / "model").write_bytes(tiny_models.hungry_model(count))
    worker = await _start()
    await worker.load(tmp_path / "model", timeout_s=_PATIENCE_S)
    content = b"\x00\x00\x80\x3f" * count
    calls = [worker.invoke([content], timeout_s=_PATIENCE_S) for _ in range(3)]
    assert all(answer.outputs == (content,) for answer in await asyncio.gather(*calls))
    await worker.close()


async def test_what_the_shared_memory_cannot_hold_is_refused(tmp_path: Path) -> None:
    require_engine("litert")
    (tmp_path / "model").write_bytes(tiny_models.hungry_model(2**25))
    worker = await WorkerProcess.start(LITERT, memory_limit_bytes=None, start_timeout_s=_PATIENCE_S)
    with pytest.raises(ModelRefused, match="a worker's shared memory holds"):
        await worker.load(tmp_path / "model", timeout_s=_PATIENCE_S)
    await worker.close()


async def test_the_daemons_environment_stays_with_the_daemon(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GATEWAYD_TOKEN", "secret")
    monkeypatch.setenv("PYTHONPATH", "/daemon")
    with pytest.raises(WorkerDied) as caught:
        await _start(_script(tmp_path / "python", "env >&2; exit 1"))
    assert "OMP_NUM_THREADS=1" in str(caught.value)
    assert "secret" not in str(caught.value)
    assert "PYTHONPATH" not in str(caught.value)


def test_no_orphan_is_left_by_a_daemon_that_was_killed() -> None:
    require_engine("litert")
    root = str(Path(__file__).parents[2])
    with subprocess.Popen([sys.executable, "-c", _PARENT], stdout=subprocess.PIPE, text=True, cwd=root) as parent:
        assert parent.stdout is not None
        worker = os.pidfd_open(int(parent.stdout.readline()))
        parent.send_signal(signal.SIGKILL)
        poll = select.poll()
        poll.register(worker, select.POLLIN)
        assert poll.poll(_PATIENCE_S * 1000), "the stopped worker outlived its parent"
        os.close(worker)


async def test_the_smallest_arena_is_just_enough(tmp_path: Path) -> None:
    spec = require_engine("tflm")
    (tmp_path / "model").write_bytes(tiny_models.int8_model())
    worker = await _start(spec)
    arena_bytes = await worker.measure_arena(tmp_path / "model", max_bytes=2**24, timeout_s=_PATIENCE_S)
    assert arena_bytes % 16 == 0
    assert await worker.load(tmp_path / "model", arena_bytes=arena_bytes, timeout_s=_PATIENCE_S)
    await worker.invoke([bytes(64)], timeout_s=_PATIENCE_S)
    with pytest.raises(ModelRefused, match=f"not even with an arena of {arena_bytes - 16} bytes"):
        await worker.measure_arena(tmp_path / "model", max_bytes=arena_bytes - 16, timeout_s=_PATIENCE_S)
    await worker.close()


async def test_no_arena_is_enough_for_an_operator_that_is_missing(tmp_path: Path) -> None:
    spec = require_engine("tflm")
    (tmp_path / "model").write_bytes(tiny_models.node_only_model())
    worker = await _start(spec)
    with pytest.raises(ModelRefused, match="Didn't find op for builtin opcode 'POW'"):
        await worker.measure_arena(tmp_path / "model", max_bytes=2**24, timeout_s=_PATIENCE_S)
    await worker.close()
