"""Workers that a nursery forks: all that holds for one that was started holds for them, and a nursery may die at any time."""

import asyncio
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from gatewayd.adapters.worker_nursery import Nurseries
from gatewayd.adapters.worker_process import MEMORY_LIMIT_BYTES, WorkerProcess
from gatewayd.adapters.worker_seat import WorkerLimits
from gatewayd.adapters.workers import Workers
from gatewayd.core.engine import EngineSpec
from gatewayd.core.errors import EngineMissing, WorkerDied
from tests import tiny_models
from tests.engine_environments import LITERT, require_engine
from tests.saboteur import Order, answer, order, saboteur, saboteur_variant

_PATIENCE_S = 20.0
_STDERR = "/memfd:gatewayd-worker-stderr (deleted)"
_ENVIRONMENT = {
    "PATH",
    "HOME",
    "LANG",
    "LC_ALL",
    "TMPDIR",
    "LD_LIBRARY_PATH",
    "OMP_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "",
}
_CHANNEL, _MEMORY, _EVENT = "socket:", "/memfd:gatewayd-worker (deleted)", "anon_inode:[eventfd]"

_PARENT = """
import asyncio
from gatewayd.adapters.worker_nursery import Nurseries
from gatewayd.adapters.worker_process import WorkerProcess
from gatewayd.core.engine import EngineSpec

async def main():
    nurseries = Nurseries(start_timeout_s=20)
    start = dict(memory_limit_bytes=None, start_timeout_s=20, launch=nurseries.launch)
    worker = await WorkerProcess.start(EngineSpec("litert"), **start)
    print(worker.pid, *nurseries.pids(), flush=True)
    await worker.wait_died()

asyncio.run(main())
"""


@pytest.fixture(autouse=True)
def _needs_litert() -> None:
    require_engine("litert")


@asynccontextmanager
async def _nurseries(*, fork_timeout_s: float = _PATIENCE_S) -> AsyncIterator[Nurseries]:
    nurseries = Nurseries(start_timeout_s=_PATIENCE_S, fork_timeout_s=fork_timeout_s)
    yield nurseries
    await nurseries.close()


async def _start(nurseries: Nurseries, spec: EngineSpec = LITERT) -> WorkerProcess:
    return await WorkerProcess.start(
        spec, memory_limit_bytes=MEMORY_LIMIT_BYTES, start_timeout_s=_PATIENCE_S, launch=nurseries.launch
    )


def _parent(pid: int) -> int:
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])


def _children() -> set[int]:
    return {int(each) for each in Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()}


def _ended(pid: int) -> bool:
    """Wait for the end of any process."""
    try:
        descriptor = os.pidfd_open(pid)
    except ProcessLookupError:
        return True
    with os.fdopen(descriptor):
        return bool(select.select([descriptor], [], [], _PATIENCE_S)[0])


def _script(folder: Path, *, in_nursery: str) -> EngineSpec:
    """Stand in for an interpreter: a real one, but for nurseries."""
    path = folder / "python"
    path.write_text(
        f'#!/bin/sh\necho "$2" >> {folder}/calls\n[ "$2" = --nursery ] && {in_nursery}\nexec {sys.executable} "$@"\n'
    )
    path.chmod(0o755)
    return EngineSpec("litert", str(path))


async def test_two_workers_come_from_one_nursery_and_are_our_children(tmp_path: Path) -> None:
    (tmp_path / "model").write_bytes(tiny_models.two_input_model())
    async with _nurseries() as nurseries:
        first, second = await asyncio.gather(_start(nurseries), _start(nurseries))
        assert first.engine_version == second.engine_version != ""
        assert _parent(first.pid) == _parent(second.pid) == os.getpid()
        assert _children() == {first.pid, second.pid, *nurseries.pids()}
        assert len(nurseries.pids()) == 1
        for worker in (first, second):
            await worker.load(tmp_path / "model", timeout_s=_PATIENCE_S)
            assert (await worker.invoke([bytes(8), bytes(8)], timeout_s=_PATIENCE_S)).outputs == (bytes(8),)
            await worker.close()
    assert not _children()


def _held_by(pid: int) -> list[str]:
    """What its descriptors are, in order."""
    return [str(each.readlink()) for each in sorted(Path(f"/proc/{pid}/fd").iterdir(), key=lambda each: int(each.name))]


def _told(pid: int, what: str) -> str:
    return Path(f"/proc/{pid}/{what}").read_text()


async def test_a_forked_worker_has_nothing_but_its_own() -> None:
    async with _nurseries() as nurseries:
        worker = await _start(nurseries)
        held, limits, environment = _held_by(worker.pid), _told(worker.pid, "limits"), _told(worker.pid, "environ")
        session = os.getsid(worker.pid)
        await worker.close()
    assert held[:3] == ["/dev/null", _STDERR, _STDERR]
    assert sorted(each.split("[")[0] if each.startswith("socket") else each for each in held[3:]) == [
        _MEMORY, _EVENT, _EVENT, _CHANNEL,
    ]  # fmt: skip
    assert f"Max address space         {MEMORY_LIMIT_BYTES} " in limits
    assert "Max core file size        0 " in limits
    assert {each.partition("=")[0] for each in environment.split("\0")} <= _ENVIRONMENT
    assert session == worker.pid


async def test_a_death_tells_its_signal_and_is_reaped() -> None:
    async with _nurseries() as nurseries:
        worker = await _start(nurseries)
        os.kill(worker.pid, signal.SIGSEGV)
        assert "died of SIGSEGV" in await worker.wait_died()
        assert worker.pid not in _children()


async def test_a_killed_nursery_takes_no_worker_along_and_is_made_anew(tmp_path: Path) -> None:
    (tmp_path / "model").write_bytes(tiny_models.two_input_model())
    async with _nurseries() as nurseries:
        worker = await _start(nurseries)
        (nursery,) = nurseries.pids()
        os.kill(nursery, signal.SIGKILL)
        assert _ended(nursery)
        await worker.load(tmp_path / "model", timeout_s=_PATIENCE_S)
        await worker.invoke([bytes(8), bytes(8)], timeout_s=_PATIENCE_S)
        other = await _start(nurseries)
        (successor,) = nurseries.pids()
        assert successor != nursery
        await worker.close()
        await other.close()
    assert not _children()


async def test_a_nursery_that_is_stopped_costs_time_but_no_worker() -> None:
    async with _nurseries(fork_timeout_s=0.1) as nurseries:
        await (await _start(nurseries)).close()
        (nursery,) = nurseries.pids()
        os.kill(nursery, signal.SIGSTOP)
        worker = await _start(nurseries)  # a program
        assert not nurseries.pids()
        await worker.close()
    assert not _children()


async def test_who_gives_up_while_it_forks_leaves_nothing_behind() -> None:
    async with _nurseries() as nurseries:
        await (await _start(nurseries)).close()
        (nursery,) = nurseries.pids()
        os.kill(nursery, signal.SIGSTOP)
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.05):
                await _start(nurseries)
        os.kill(nursery, signal.SIGCONT)
        await (await _start(nurseries)).close()
        for abandoned in _children() - set(nurseries.pids()):
            await asyncio.to_thread(_ended, abandoned)
        await (await _start(nurseries)).close()  # whoever ended before it is reaped before it is
        assert _children() == set(nurseries.pids())


@pytest.mark.parametrize("in_nursery", ["exit 3", "kill -ABRT $$"])
async def test_where_there_can_be_no_nursery_workers_are_programs(tmp_path: Path, in_nursery: str) -> None:
    spec = _script(tmp_path, in_nursery=in_nursery)
    async with _nurseries() as nurseries:
        for _ in range(2):
            await (await _start(nurseries, spec)).close()
        assert not nurseries.pids()
    assert (tmp_path / "calls").read_text().split() == ["--nursery", "--channel", "--channel"]


async def test_a_nursery_that_names_somebody_else_is_not_believed(tmp_path: Path) -> None:
    liar = tmp_path / "liar.py"
    liar.write_text(
        "import json, socket, struct, sys\n"
        "control = socket.socket(fileno=int(sys.argv[1]))\n"
        "def say(**header):\n"
        "    text = json.dumps(header).encode()\n"
        "    control.send(struct.pack('<4sI', b'GWW2', len(text)) + text)\n"
        "say(id=0, engine='litert')\n"
        "control.recv(65536)\n"
        "say(id=1, pid=1)\n"
        "control.recv(65536)\n"
    )
    spec = _script(tmp_path, in_nursery=f'exec {sys.executable} {liar} "$3"')
    async with _nurseries() as nurseries:
        await (await _start(nurseries, spec)).close()
        assert not nurseries.pids()
    assert (tmp_path / "calls").read_text().split() == ["--nursery", "--channel"]


async def test_an_interpreter_that_is_not_there_is_told() -> None:
    async with _nurseries() as nurseries:
        with pytest.raises(EngineMissing, match="cannot start /nowhere/python: No such file"):
            await _start(nurseries, EngineSpec("litert", "/nowhere/python"))


async def test_other_engines_have_none() -> None:
    async with _nurseries() as nurseries:
        with pytest.raises(EngineMissing, match="there are litert"):
            await _start(nurseries, EngineSpec("warp-drive"))
        assert not nurseries.pids()


def test_all_end_with_the_daemon() -> None:
    with subprocess.Popen([sys.executable, "-c", _PARENT], stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout
        worker, nursery = map(int, parent.stdout.readline().split())
        os.kill(worker, signal.SIGSTOP)  # no closed socket is seen by it
        parent.kill()
        assert _ended(worker)
        assert _ended(nursery)


def _workers(folder: Path, *, is_forked: bool) -> Workers:
    limits = replace(WorkerLimits(), is_forked=is_forked)
    return Workers(lambda digest: folder / digest, (saboteur(folder),), clock=time.monotonic, limits=limits)


@pytest.mark.parametrize("is_forked", [True, False])
async def test_models_that_misbehave_are_treated_alike(tmp_path: Path, *, is_forked: bool) -> None:
    good, bad = (saboteur_variant(tmp_path, name) for name in ("good", "bad"))
    async with _workers(tmp_path, is_forked=is_forked) as workers:
        await workers.preload(good, timeout_s=_PATIENCE_S)
        assert len(workers.nurseries()) == is_forked
        for what, words in (
            (Order.CRASH, "SIGSEGV"),
            (Order.ABORT, "SIGABRT"),
            (Order.EXIT, "code 7"),
            (Order.CLAIM_MANY, "1000 answers"),
        ):
            with pytest.raises(WorkerDied, match=words):
                await workers.run(bad, order(what), timeout_s=_PATIENCE_S)
            workers.release(bad.digest)
        assert answer((await workers.run(bad, order(Order.CUT_MEMORY), timeout_s=_PATIENCE_S)).outputs) == 1
        assert answer((await workers.run(good, order(Order.COUNT), timeout_s=_PATIENCE_S)).outputs) == 1


async def test_the_nursery_goes_with_the_last_model(tmp_path: Path) -> None:
    good = saboteur_variant(tmp_path, "good")
    async with _workers(tmp_path, is_forked=True) as workers:
        for _ in range(2):
            await workers.preload(good, timeout_s=_PATIENCE_S)
            (nursery,) = workers.nurseries()
            assert workers.unload(good.digest)
            assert await asyncio.to_thread(_ended, nursery)
