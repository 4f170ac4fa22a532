"""The tables against the schema that LiteRT ships, the MAC rules against hand-counted cases."""

import pytest
from ai_edge_litert import schema_py_generated as schema  # type: ignore[import-untyped]  # generated, without types

from gatewayd.core.errors import ModelRefused
from gatewayd.wire.tflite_ops import DTYPES, ITEM_BITS, OPERATOR_NAMES, TYPE_NAMES, count_macs


@pytest.mark.parametrize(
    ("operator", "inputs", "outputs", "macs"),
    [
        ("TRANSPOSE_CONV", [(4,), (8, 3, 3, 2), (1, 5, 5, 2)], [(1, 10, 10, 8)], 5 * 5 * 2 * 72),
        ("BATCH_MATMUL", [(2, 3, 4), (2, 4, 5)], [(2, 3, 5)], 2 * 3 * 4 * 5),
        ("BATCH_MATMUL", [(2, 4, 3), (2, 4, 5)], [(2, 3, 5)], 2 * 3 * 4 * 5),
        ("ADD", [(1, 8), None], [(1, 8)], 0),
    ],
)
def test_macs(operator: str, inputs: list[tuple[int, ...] | None], outputs: list[tuple[int, ...]], macs: int) -> None:
    assert count_macs(operator, inputs, outputs) == macs


def test_names_are_the_schema_s() -> None:
    assert {name: code for code, name in enumerate(OPERATOR_NAMES)} == constants(schema.BuiltinOperator)
    assert {name: code for code, name in enumerate(TYPE_NAMES)} == constants(schema.TensorType)


def constants(enum: type) -> dict[str, int]:
    return {name: value for name, value in vars(enum).items() if not name.startswith("_")}


def test_element_sizes_agree() -> None:
    assert {name: ITEM_BITS[name] for name in DTYPES} == {name: 8 * dtype.item_bytes for name, dtype in DTYPES.items()}
    assert set(TYPE_NAMES) - set(ITEM_BITS) == {"STRING", "RESOURCE", "VARIANT"}


@pytest.mark.parametrize(
    ("operator", "inputs", "outputs"),
    [
        ("CONV_2D", [(1, 4, 4, 1)], [(1, 4, 4, 1)]),
        ("CONV_2D", [(1, 4, 4, 1), (1, 3, 3)], [(1, 4, 4, 1)]),
        ("CONV_2D", [(1, 4, 4, 1), (1, 3, 3, 1)], []),
        ("CONV_2D", [(-1, 4, 4, 1), (1, 3, 3, 1)], [(1, 4, 4, 1)]),
        ("TRANSPOSE_CONV", [(4,), (8, 3, 3, 2), None], [(1, 10, 10, 8)]),
        ("BATCH_MATMUL", [(4,), (4, 5)], [(5,)]),
    ],
)
def test_impossible_operands(
    operator: str, inputs: list[tuple[int, ...] | None], outputs: list[tuple[int, ...]]
) -> None:
    with pytest.raises(ModelRefused):
        count_macs(operator, inputs, outputs)
