import pytest

from gatewayd.core.building import NPU_CONFIGS, Recipe, build_key, recipe
from gatewayd.core.errors import BadRequest
from gatewayd.core.model import Operator, Signature, Structure, Variant, Version
from gatewayd.core.names import Digest, ModelName
from gatewayd.core.tensor import DType, TensorSpec


def variant(name: str, dtype: DType, operator: str = "CONV_2D") -> Variant:
    spec = TensorSpec("x", dtype, (1, 4))
    return Variant(name, Digest(name[0] * 64), 10, Structure((Operator(operator, 1, 1),), (spec,), (spec,), 1, 1), ())


def version(*variants: Variant) -> Version:
    return Version(ModelName("kws"), 1, Signature((), ()), variants, 0.0)


FLOAT = variant("float", DType.FP32)
INT8 = variant("int8", DType.INT8)


def test_int8_is_made_from_floats() -> None:
    assert recipe(version(INT8, FLOAT), "int8") == Recipe("tflite-int8", "int8", FLOAT)


@pytest.mark.parametrize("target", NPU_CONFIGS)
def test_an_npu_takes_integers_and_its_own_configuration(target: str) -> None:
    assert recipe(version(FLOAT, INT8), target) == Recipe(target, "ethos-u", INT8, (("accelerator-config", target),))


def test_an_onnx_file_is_no_source() -> None:
    onnx = variant("onnx-float32", DType.FP32)
    assert recipe(version(onnx, FLOAT), "int8").source == FLOAT
    with pytest.raises(BadRequest, match="no variant to build int8 from"):
        recipe(version(onnx), "int8")


def test_what_is_compiled_already_is_no_source() -> None:
    with pytest.raises(BadRequest, match="it takes an integer one: build kws@1 for int8 first"):
        recipe(version(FLOAT, variant("npu", DType.INT8, "ethos-u")), "ethos-u55-64")


def test_nothing_to_build_from() -> None:
    with pytest.raises(BadRequest, match="it takes a float32 one"):
        recipe(version(INT8), "int8")
    with pytest.raises(BadRequest, match="targets are int8, ethos-u55-32"):
        recipe(version(INT8), "ethos-u55-7")


def test_the_key_changes_with_everything_that_decides() -> None:
    base = Recipe("x", "ethos-u", INT8, (("a", "1"), ("b", "2")))
    keys = [
        build_key(base, plugin_version="1", samples=None),
        build_key(base, plugin_version="2", samples=None),
        build_key(base, plugin_version="1", samples=Digest("e" * 64)),
        build_key(Recipe("x", "int8", INT8, base.options), plugin_version="1", samples=None),
        build_key(Recipe("x", "ethos-u", FLOAT, base.options), plugin_version="1", samples=None),
        build_key(Recipe("x", "ethos-u", INT8, (("a", "1"),)), plugin_version="1", samples=None),
    ]
    assert len(set(keys)) == len(keys)
    swapped = Recipe("y", "ethos-u", INT8, (("b", "2"), ("a", "1")))
    assert build_key(swapped, plugin_version="1", samples=None) == keys[0]
