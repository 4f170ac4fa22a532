import asyncio
from pathlib import Path

import pytest

from gatewayd.core.errors import (
    BadRequest,
    Conflict,
    DeadlineExceeded,
    EngineMissing,
    ModelRefused,
    Overloaded,
    UnknownModel,
    WorkerDied,
)
from gatewayd.core.model import Place, Verdict
from gatewayd.core.names import STABLE, Alias, parse_model_ref
from gatewayd.core.tensor import DType
from tests.services.world import MODEL, world


async def test_the_first_version_is_stable_and_later_ones_wait_for_a_move(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        await w.add(b"one")
        await w.add(b"two")
        assert w.catalog.resolve(parse_model_ref("kws")).number == 1
        await w.catalog.move_alias(MODEL, Alias("stable"), 2, who="ann", why="better")
        assert w.catalog.resolve(parse_model_ref("kws")).number == 2
        moves = await w.catalog.alias_history(MODEL)
        assert [(move.version, move.who, move.why) for move in moves] == [
            (1, "test", "first version"),
            (2, "ann", "better"),
        ]


async def test_everything_is_there_after_a_restart(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        await w.add(b"one", labels=("a", "b", "c"))
        await w.add(b"two")
        await w.catalog.move_alias(MODEL, Alias("canary"), 2, who="ann", why="")
        before = w.catalog.versions()
    async with world(tmp_path) as w:
        assert w.catalog.versions() == before
        assert w.catalog.aliases(MODEL) == {Alias("stable"): 1, Alias("canary"): 2}
        assert await w.artifacts.read(before[0].variants[0].digest, 0, 10) == b"one"


async def test_the_signature_is_real_valued_whatever_the_variant_stores(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        signature = (await w.add(labels=("a", "b", "c"))).signature
        assert [(spec.dtype, spec.shape, spec.quantization) for spec in signature.inputs] == [
            (DType.FP32, (1, 4), None)
        ]
        assert signature.labels == ("a", "b", "c")


@pytest.mark.parametrize(
    ("files", "labels", "error", "message"),
    [
        ((), (), BadRequest, "files: give 1 to 8 model files, not 0"),
        ((b"x",) * 9, (), BadRequest, "files: give 1 to 8 model files, not 9"),
        ((b"one", b"bad"), (), ModelRefused, "files[1]: no TFL3 identifier"),
        (
            (b"one", b"two"),
            (),
            BadRequest,
            "files[1]: files[0] is a tflite-int8 variant already; give one file per kind",
        ),
        ((b"one", b"wide"), (), BadRequest, "files[1]: its inputs are [[1, 5]], those of files[0] are [[1, 4]]"),
        ((b"one",), ("a", "b"), BadRequest, "labels: 2 names for an output of 3 elements"),
    ],
)
async def test_a_bad_version_is_refused_whole(
    tmp_path: Path, files: tuple[bytes, ...], labels: tuple[str, ...], error: type[Exception], message: str
) -> None:
    async with world(tmp_path) as w:
        w.trial.verdicts = (Verdict(Place.NODE, "litert", runs=True, reason=""),)
        with pytest.raises(error) as caught:
            await w.catalog.add(model=MODEL, files=files, labels=labels, preprocessing="", note="", who="test")
        assert str(caught.value) == message
        assert w.catalog.versions() == ()
        assert list(await w.store.load_versions()) == []


async def test_what_nothing_can_run_is_refused_with_each_reason(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        w.trial.verdicts = (
            Verdict(Place.NODE, "litert", runs=False, reason="SIGSEGV"),
            Verdict(Place.DEVICE, "tflm", runs=False, reason="no CUSTOM"),
        )
        with pytest.raises(ModelRefused, match=r"node \(litert\): SIGSEGV; device \(tflm\): no CUSTOM"):
            await w.add()


async def test_two_uploads_at_once_get_two_numbers(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        versions = await asyncio.gather(w.add(b"one"), w.add(b"two"), w.add(b"three"))
        assert sorted(version.number for version in versions) == [1, 2, 3]


async def test_an_alias_cannot_point_to_nothing(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        await w.add()
        with pytest.raises(UnknownModel):
            await w.catalog.move_alias(MODEL, Alias("stable"), 9, who="ann", why="")
        assert w.catalog.aliases(MODEL) == {Alias("stable"): 1}


async def test_the_new_is_loaded_before_the_alias_moves_and_the_old_goes_afterwards(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        one, two = [(await w.add(content)).variants[0].digest[:8] for content in (b"one", b"two")]
        assert w.runtime.loaded == [f"+{one}"]
        await w.catalog.move_alias(MODEL, STABLE, 2, who="ann", why="")
        assert w.runtime.loaded == [f"+{one}", f"+{two}", f"-{one}"]


async def test_what_another_alias_points_at_stays_loaded(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        await w.add(b"one")
        await w.add(b"two")
        await w.catalog.move_alias(MODEL, Alias("old"), 1, who="ann", why="")
        await w.catalog.move_alias(MODEL, STABLE, 2, who="ann", why="")
        assert not [entry for entry in w.runtime.loaded if entry.startswith("-")]


@pytest.mark.parametrize("failure", [WorkerDied("SIGSEGV"), ModelRefused("no such op")])
async def test_an_alias_stays_when_its_version_does_not_load_any_more(tmp_path: Path, failure: Exception) -> None:
    async with world(tmp_path) as w:
        await w.add(b"one")
        await w.add(b"two")
        w.runtime.failure = failure
        with pytest.raises(Conflict, match=r"stable stays where it is: kws@2 does not load on the node"):
            await w.catalog.move_alias(MODEL, STABLE, 2, who="ann", why="")
        assert w.catalog.aliases(MODEL) == {STABLE: 1}


@pytest.mark.parametrize("failure", [Overloaded("busy"), EngineMissing("gone"), DeadlineExceeded("slow")])
async def test_a_busy_node_does_not_hold_an_alias_back(tmp_path: Path, failure: Exception) -> None:
    async with world(tmp_path) as w:
        w.runtime.failure = failure
        await w.add(b"one")
        await w.add(b"two")
        await w.catalog.move_alias(MODEL, STABLE, 2, who="ann", why="")
        assert w.catalog.aliases(MODEL) == {STABLE: 2}


async def test_at_start_what_is_stable_is_loaded(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        (variant,) = (await w.add(b"one")).variants
    async with world(tmp_path) as w:
        await w.catalog.preload_stable(8)
        assert w.runtime.loaded == [f"+{variant.digest[:8]}"]


async def test_an_onnx_file_is_read_by_an_engine(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        (variant,) = (await w.add(b"\x08\x08 onnx")).variants
        assert variant.name == "onnx-int8"
