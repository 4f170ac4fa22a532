from dataclasses import replace

import pytest

from gatewayd.core.errors import BadRequest
from gatewayd.core.model import Signature, Structure, Variant, Version
from gatewayd.core.names import Digest, ModelName, ModelRef, RequestId
from gatewayd.core.request import InferenceRequest
from gatewayd.core.tensor import DType, Quantization, Tensor, TensorSpec
from gatewayd.services.speech import Speeches, speech_of

KWS = ModelName("kws")
REAL = (TensorSpec("left", DType.FP32, (2,)), TensorSpec("right", DType.FP32, (2,)))
STORED = tuple(TensorSpec(each.name, DType.INT8, each.shape, Quantization(0.5, 3)) for each in REAL)
OUT = (TensorSpec("sum", DType.FP32, (1,)),)


def version(inputs: tuple[TensorSpec, ...] = REAL) -> Version:
    structure = Structure((), STORED, (TensorSpec("out", DType.INT8, (1,), Quantization(1.0, 0)),), 1, 1)
    variant = Variant("int8", Digest("a" * 64), 1, structure, ())
    return Version(KWS, 1, Signature(inputs, OUT), (variant,), 0.0)


def asked(*inputs: Tensor) -> InferenceRequest:
    return InferenceRequest(RequestId("r"), ModelRef(KWS), deadline_s=1.0, inputs=inputs)


def tensor(name: str, content: bytes, dtype: DType = DType.INT8) -> Tensor:
    return Tensor(name, dtype, (2,), content)


def test_what_is_remembered_is_what_would_have_been_found() -> None:
    speeches, kws = Speeches(), version()
    orders = [("left", "right"), ("right", "left"), ("left", "right")]
    for number, names in enumerate(orders):
        request = asked(*(tensor(name, bytes([number, ord(name[0])])) for name in names))
        found = speeches.of(request, kws)
        assert found == speech_of(request, kws)
        assert [each.name for each in found.inputs] == ["left", "right"]


def test_other_types_are_another_speech() -> None:
    speeches, kws = Speeches(), version()
    stored = speeches.of(asked(tensor("left", b"ab"), tensor("right", b"cd")), kws)
    real = speeches.of(asked(tensor("left", b"8bytes  ", DType.FP32), tensor("right", b"8bytes  ", DType.FP32)), kws)
    assert (stored.input_specs, real.input_specs) == (STORED, REAL)


def test_a_mistake_is_told_each_time() -> None:
    speeches, kws = Speeches(), version()
    for _ in range(2):
        with pytest.raises(BadRequest, match="inputs: kws@1 takes"):
            speeches.of(asked(tensor("up", b"ab")), kws)


def test_another_version_of_that_number_is_looked_at_anew() -> None:
    speeches, request = Speeches(), asked(tensor("left", b"ab"), tensor("right", b"cd"))
    speeches.of(request, version())
    changed = version(tuple(replace(each, shape=(3,)) for each in REAL))
    with pytest.raises(BadRequest, match=r"takes shape \[3\]"):
        speeches.of(request, changed)


def test_outputs_are_checked_each_time() -> None:
    speeches, kws = Speeches(), version()
    request = asked(tensor("left", b"ab"), tensor("right", b"cd"))
    speeches.of(request, kws)
    with pytest.raises(BadRequest, match="has no output 'up'"):
        speeches.of(replace(request, outputs=("up",)), kws)
