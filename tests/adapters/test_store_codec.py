import json
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gatewayd.adapters import store_codec as codec
from gatewayd.core.model import Operator, Place, SelfTest, Signature, Structure, Verdict
from gatewayd.core.tensor import DType, Quantization, TensorSpec

finite = st.floats(allow_nan=False, allow_infinity=False)
count = st.integers(0, 2**63 - 1)
quantizations = st.builds(Quantization, finite, st.integers(-(2**31), 2**31 - 1))
shapes = st.lists(st.integers(1, 1000), max_size=4).map(tuple)
specs = st.builds(TensorSpec, st.text(), st.sampled_from(DType), shapes, st.none() | quantizations)
many_specs = st.lists(specs, max_size=3).map(tuple)
operators = st.lists(st.builds(Operator, st.text(), count, count), max_size=3).map(tuple)
structures = st.builds(Structure, operators, many_specs, many_specs, count, count)
signatures = st.builds(Signature, many_specs, many_specs, st.lists(st.text(), max_size=3).map(tuple), st.text())
verdict = st.builds(Verdict, st.sampled_from(Place), st.text(), st.booleans(), st.text(), st.none() | finite)
verdicts = st.lists(verdict, max_size=3).map(tuple)
self_tests = st.none() | st.builds(SelfTest, count, st.binary(), count)


@given(structures)
def test_structure_survives(value: Structure) -> None:
    assert codec.decode_structure(codec.encode_structure(value)) == value


@given(signatures)
def test_signature_survives(value: Signature) -> None:
    assert codec.decode_signature(codec.encode_signature(value)) == value


@given(verdicts)
def test_verdicts_survive(value: tuple[Verdict, ...]) -> None:
    assert codec.decode_verdicts(codec.encode_verdicts(value)) == value


@given(self_tests)
def test_self_test_survives(value: SelfTest | None) -> None:
    assert codec.decode_self_test(codec.encode_self_test(value)) == value


def test_nothing_but_json_numbers_is_written() -> None:
    with pytest.raises(ValueError, match="not JSON compliant"):
        codec.encode_verdicts((Verdict(Place.NODE, "litert", runs=True, reason="", latency_s=float("nan")),))


@pytest.mark.parametrize(
    "decode", [codec.decode_structure, codec.decode_signature, codec.decode_verdicts, codec.decode_self_test]
)
@pytest.mark.parametrize("text", ["", "{", "null", "[1]", "7", json.dumps({"inputs": [{}]})])
def test_damage_is_one_of_the_named_errors(decode: Callable[[str], Any], text: str) -> None:
    with pytest.raises((KeyError, TypeError, IndexError, ValueError)):
        decode(text)
