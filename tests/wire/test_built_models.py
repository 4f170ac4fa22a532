import pytest

from gatewayd.core.building import ETHOS_U, INT8
from gatewayd.core.errors import ModelRefused
from gatewayd.wire.built_models import check_built
from tests.tiny_models import TinyNode, TinyTensor, build, float_model, int8_model


def half_quantised() -> bytes:
    tensors = [TinyTensor("a", "INT8", (1, 2)), TinyTensor("b", "FLOAT32", (1, 2)), TinyTensor("c", "FLOAT32", (1, 2))]
    return build(tensors, [TinyNode("DEQUANTIZE", (0,), (1,)), TinyNode("RELU", (1,), (2,))], inputs=[0], outputs=[2])


def test_what_is_quantised_throughout_is_taken() -> None:
    assert check_built(INT8, int8_model()) == "all 1 operators compute with whole numbers"


def test_what_still_computes_with_floats_is_refused_by_name() -> None:
    with pytest.raises(ModelRefused, match=r"1 of 1 operators still compute with floats: FULLY_CONNECTED \(1\)"):
        check_built(INT8, float_model())
    with pytest.raises(ModelRefused, match="2 of 2 operators still compute with floats"):
        check_built(INT8, half_quantised())


def test_nothing_for_the_npu_is_refused() -> None:
    for content in (int8_model(), float_model()):
        with pytest.raises(ModelRefused, match="none of 1 operators was put on the NPU"):
            check_built(ETHOS_U, content)


@pytest.mark.parametrize("plugin", [INT8, ETHOS_U])
@pytest.mark.parametrize("cut", range(0, 400, 7))
def test_a_truncated_result_is_refused_and_never_more(plugin: str, cut: int) -> None:
    content = int8_model()
    try:
        check_built(plugin, content[:cut])
    except ModelRefused:
        return
    assert cut >= len(content) - 16
