from dataclasses import replace
from pathlib import Path

import pytest

from gatewayd.core.building import ETHOS_U, INT8
from gatewayd.core.device import Born, LinkKind, Report
from gatewayd.core.errors import BadRequest, Conflict, EngineMissing, ModelRefused
from gatewayd.core.model import Place
from gatewayd.core.names import parse_model_ref
from gatewayd.services.pushable import wanted
from tests.services.workshop import workshop
from tests.services.world import CAPABILITIES, DEVICE, EMPTY


async def test_int8_makes_a_new_version_with_both_variants(tmp_path: Path) -> None:
    async with workshop(tmp_path) as s:
        await s.add()
        built = await s.build("int8")
        assert (built.is_new, built.is_cached, str(built.version)) == (True, False, "kws@2")
        assert [each.name for each in built.version.variants] == ["tflite-float32", "tflite-int8"]
        assert s.w.catalog.resolve(parse_model_ref("kws")).number == 1
        assert built.version.samples == s.w.catalog.resolve(parse_model_ref("kws@1")).samples
        assert built.version.note.startswith("kws@1 with tflite-int8: tool 1: done; all of it")


async def test_building_again_builds_nothing(tmp_path: Path) -> None:
    async with workshop(tmp_path) as s:
        await s.add()
        first = await s.build("int8")
        again = await s.build("int8")
        on_top = await s.build("int8", "kws@2")
        assert (again.version, again.is_new, again.is_cached) == (first.version, False, True)
        assert (on_top.version, on_top.is_new) == (first.version, False)
        assert s.compilers.compiled == [(INT8, "tflite-float32")]


async def test_the_cache_outlives_a_restart_and_knows_the_tools_version(tmp_path: Path) -> None:
    async with workshop(tmp_path) as s:
        await s.add()
        await s.build("int8")
        await s.w.catalog.retire(parse_model_ref("kws").name, 2, who="ann", why="")
    async with workshop(tmp_path) as s:
        assert (await s.build("int8")).is_cached
        assert s.compilers.compiled == []
        await s.w.catalog.retire(parse_model_ref("kws").name, 3, who="ann", why="")
        s.compilers.versions[INT8] = "tool 2"
        assert not (await s.build("int8")).is_cached


async def test_a_cached_result_that_was_collected_is_built_again(tmp_path: Path) -> None:
    async with workshop(tmp_path) as s:
        await s.add()
        first = await s.build("int8")
        await s.w.catalog.retire(parse_model_ref("kws").name, 2, who="ann", why="")
        await s.w.artifacts.remove(first.version.variants[1].digest)
        again = await s.build("int8")
        assert (again.is_new, again.is_cached, again.version.number) == (True, False, 3)


async def test_an_npu_target_from_a_float_model_goes_by_int8(tmp_path: Path) -> None:
    async with workshop(tmp_path) as s:
        await s.add()
        built = await s.build("ethos-u55-128")
        assert s.compilers.compiled == [(INT8, "tflite-float32"), (ETHOS_U, "tflite-int8")]
        assert [each.name for each in built.version.variants] == ["tflite-float32", "tflite-int8", "ethos-u55-128"]
        verdict = built.version.variants[2].verdict(Place.DEVICE)
        assert verdict is not None
        assert verdict.runs
        assert "the node has no such NPU" in verdict.reason


async def test_a_device_is_built_for_by_what_it_says_it_is(tmp_path: Path) -> None:
    async with workshop(tmp_path) as s:
        await s.add(b"int8 model", samples=b"")
        npu = replace(CAPABILITIES, accelerator="ethos-u55-64")
        s.w.tracking.handle(Born(DEVICE, LinkKind.MQTT, Report(npu, EMPTY)))
        built = await s.build(DEVICE)
        assert (built.device, built.variant, built.obstacles) == (DEVICE, "ethos-u55-64", ())


async def test_a_plain_device_wants_int8_and_hears_why_it_does_not_fit(tmp_path: Path) -> None:
    async with workshop(tmp_path) as s:
        await s.add()
        s.w.tracking.handle(Born(DEVICE, LinkKind.MQTT, Report(replace(CAPABILITIES, slot_bytes=5), EMPTY)))
        built = await s.build(DEVICE)
        assert built.variant == "tflite-int8"
        assert any("a slot takes 5" in each for each in built.obstacles)


async def test_what_was_compiled_for_an_npu_does_not_fit_a_plain_device(tmp_path: Path) -> None:
    async with workshop(tmp_path) as s:
        await s.add(b"int8 model", samples=b"")
        built = await s.build("ethos-u55-128")
        await s.w.join()
        only_npu = replace(built.version, variants=built.version.variants[1:])
        with pytest.raises(Conflict, match="is compiled for the NPU ethos-u55-128, the device has none"):
            wanted(s.w.tracking.device(DEVICE), only_npu, s.w.pushes.terms(DEVICE), downgrade=False)


@pytest.mark.parametrize(
    ("wanted", "message"),
    [("int7", "is neither a device nor a target; targets: int8, ethos-u55-32"), ("dev-9", "is neither a device")],
)
async def test_an_unknown_target_names_the_known_ones(tmp_path: Path, wanted: str, message: str) -> None:
    async with workshop(tmp_path) as s:
        await s.add()
        with pytest.raises(BadRequest, match=message):
            await s.build(wanted)


async def test_a_missing_tool_and_missing_samples_are_told(tmp_path: Path) -> None:
    async with workshop(tmp_path) as s:
        await s.add(samples=b"")
        with pytest.raises(ModelRefused, match="needs samples"):
            await s.build("int8")
        s.compilers.versions.clear()
        with pytest.raises(EngineMissing, match="pip install it"):
            await s.build("int8")
        assert len(s.w.catalog.versions()) == 1


async def test_a_result_that_is_not_what_it_has_to_be_is_no_success(tmp_path: Path) -> None:
    async with workshop(tmp_path) as s:
        await s.add()
        s.compilers.output = b"float model again"
        with pytest.raises(ModelRefused, match="the plugin did nothing"):
            await s.build("int8")
        s.compilers.output = None
        assert (await s.build("int8")).is_new


async def test_a_retired_version_is_not_built_from(tmp_path: Path) -> None:
    async with workshop(tmp_path) as s:
        await s.add()
        await s.add(b"float other")
        await s.w.catalog.retire(parse_model_ref("kws").name, 2, who="ann", why="")
        with pytest.raises(Conflict, match="retired"):
            await s.build("int8", "kws@2")
