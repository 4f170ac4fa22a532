"""Accelerators as TFLite delegates, with a small real delegate compiled here: loaded, refused, crashing, coming and going."""

import hashlib
import shutil
import subprocess
import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import pytest

from gatewayd.adapters.accelerator_watch import AcceleratorWatch, probe
from gatewayd.adapters.worker_process import WorkerProcess
from gatewayd.adapters.worker_seat import WorkerLimits
from gatewayd.adapters.workers import Workers
from gatewayd.core.engine import EngineSpec
from gatewayd.core.errors import EngineMissing
from gatewayd.core.events import AcceleratorChanged
from gatewayd.core.model import Place, Variant, Verdict
from gatewayd.core.names import Digest
from gatewayd.core.tensor import DType, Tensor
from gatewayd.wire.tflite import read_model
from tests import tiny_models
from tests.engine_environments import require_engine

_PATIENCE_S = 20.0
_TREE = Path(__file__).parents[1] / "trees" / "pi-coral"
_WIDE = (Tensor("in", DType.FP32, (1, 256), bytes(1024)),)


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    compiler = shutil.which("gcc") or shutil.which("cc")
    if compiler is None:
        pytest.skip("no C compiler is installed (Debian: apt install gcc)")
    built = tmp_path_factory.mktemp("delegate") / "libtiny_delegate.so"
    source = Path(__file__).with_name("delegate.c")
    subprocess.run([compiler, "-shared", "-fPIC", "-O1", "-Wall", "-Werror", "-o", built, source], check=True)
    return built


def _spec(name: str, library: Path, **options: str) -> EngineSpec:
    return replace(
        require_engine(name), label="tpu", delegate=str(library), delegate_options=options, accelerator="edgetpu"
    )


@pytest.mark.parametrize("name", ["litert", "tflite-runtime"])
async def test_a_delegate_is_loaded_and_asked(name: str, library: Path, tmp_path: Path) -> None:
    log = tmp_path / "log"
    (tmp_path / "model").write_bytes(tiny_models.float_model())
    worker = await WorkerProcess.start(
        _spec(name, library, log=str(log)), memory_limit_bytes=None, start_timeout_s=_PATIENCE_S
    )
    loaded = await worker.load(tmp_path / "model", timeout_s=_PATIENCE_S)
    done = await worker.invoke([bytes(1024)], timeout_s=_PATIENCE_S)
    await worker.close()
    assert log.read_text() == "prepared\n"
    assert len(done.outputs[0]) == loaded.outputs[0].byte_count


async def test_a_delegate_without_its_device_is_an_engine_that_is_missing(library: Path) -> None:
    with pytest.raises(EngineMissing, match=r"libtiny_delegate\.so cannot be used"):
        await WorkerProcess.start(
            _spec("litert", library, fail="1"), memory_limit_bytes=None, start_timeout_s=_PATIENCE_S
        )


async def test_no_library_and_no_delegate_are_told() -> None:
    for path in ("/nowhere/libedgetpu.so.1", "libc.so.6"):
        with pytest.raises(EngineMissing, match=f"delegate {path} cannot be used"):
            await WorkerProcess.start(_spec("litert", Path(path)), memory_limit_bytes=None, start_timeout_s=_PATIENCE_S)


async def test_a_driver_that_crashes_does_so_in_the_probe(library: Path, tmp_path: Path) -> None:
    assert await probe(_spec("litert", library, log=str(tmp_path / "log"))) == ""
    assert "SIGABRT" in await probe(_spec("litert", library, crash="1"))


def _variant(folder: Path) -> Variant:
    content = tiny_models.float_model()
    digest = Digest(hashlib.sha256(content).hexdigest())
    (folder / digest).write_bytes(content)
    verdicts = (
        Verdict(Place.NODE, "tpu", runs=True, reason="", latency_s=0.0001),
        Verdict(Place.NODE, "litert", runs=True, reason="", latency_s=0.001),
    )
    return Variant("tflite-float32", digest, len(content), read_model(content), verdicts)


async def test_loss_demotes_to_the_cpu_and_return_restores(library: Path, tmp_path: Path) -> None:
    variant, root = _variant(tmp_path), tmp_path / "root"
    tpu = _spec("litert", library, log=str(tmp_path / "log"))
    events: list[AcceleratorChanged] = []
    limits = replace(WorkerLimits(), memory_limit_bytes=None)
    async with Workers(
        lambda digest: tmp_path / digest, (tpu, EngineSpec("litert")), clock=time.monotonic, limits=limits
    ) as workers:

        async def engine_used() -> str:
            return (await workers.run(variant, _WIDE, timeout_s=_PATIENCE_S)).engine

        watch = AcceleratorWatch((tpu,), root=root, scan_every_s=1, set_gone=workers.set_gone, announce=events.append)
        assert await engine_used() == "litert"  # before anybody looked
        await watch.scan()
        assert await engine_used() == "litert"
        shutil.copytree(_TREE, root)
        await watch.scan()
        while await engine_used() != "tpu":  # it moves when it is loaded there
            pass
        shutil.rmtree(root)
        await watch.scan()
        assert await engine_used() == "litert"
    assert [(event.kind, event.present, event.engines) for event in events] == [
        ("edgetpu", True, ("tpu",)),
        ("edgetpu", False, ("tpu",)),
    ]


async def test_what_fails_its_probe_is_not_used(library: Path) -> None:
    gone: list[Mapping[str, str]] = []
    events: list[AcceleratorChanged] = []
    broken = _spec("litert", library, fail="1")
    watch = AcceleratorWatch((broken,), root=_TREE, scan_every_s=1, set_gone=gone.append, announce=events.append)
    await watch.scan()
    assert "cannot be used" in gone[-1]["tpu"]
    assert watch.found[0].is_usable


async def test_an_engine_that_is_gone_and_has_no_other_is_told(library: Path, tmp_path: Path) -> None:
    variant = replace(_variant(tmp_path), verdicts=(Verdict(Place.NODE, "tpu", runs=True, reason="", latency_s=0.1),))
    tpu = _spec("litert", library, log=str(tmp_path / "log"))
    async with Workers(lambda digest: tmp_path / digest, (tpu,), clock=time.monotonic) as workers:
        workers.set_gone({"tpu": "no edgetpu is there"})
        with pytest.raises(EngineMissing, match="tpu: no edgetpu is there"):
            await workers.run(variant, _WIDE, timeout_s=_PATIENCE_S)


async def test_an_accelerator_that_fails_a_request_is_left_at_once_and_the_request_served(
    library: Path, tmp_path: Path
) -> None:
    variant = _variant(tmp_path)
    broken = _spec("litert", library, crash="1")
    limits = replace(WorkerLimits(), memory_limit_bytes=None)
    async with Workers(
        lambda digest: tmp_path / digest, (broken, EngineSpec("litert")), clock=time.monotonic, limits=limits
    ) as workers:
        assert (await workers.run(variant, _WIDE, timeout_s=_PATIENCE_S)).engine == "litert"
        assert not workers.quarantined()
