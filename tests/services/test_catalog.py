import asyncio
from pathlib import Path

import pytest

from gatewayd.core.errors import BadRequest, ModelRefused, UnknownModel
from gatewayd.core.model import Place, Verdict
from gatewayd.core.names import Alias, parse_model_ref
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
