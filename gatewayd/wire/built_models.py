"""Judges what a compiler plugin made by reading it: a tool's exit code says little (Vela ends with 0 when it did nothing).

Source: tensorflow/lite/schema/schema.fbs, schema version 3.
"""

from collections import Counter
from collections.abc import Iterator

from gatewayd.core.building import ETHOS_U, INT8, NPU_OPERATOR
from gatewayd.core.errors import ModelRefused
from gatewayd.wire.flatbuffer import I8, I32, U32, Table, root_table
from gatewayd.wire.tflite import (
    MAX_NAME_BYTES,
    MAX_OPERANDS,
    MAX_OPERATOR_CODES,
    MAX_OPERATORS,
    MAX_SUBGRAPHS,
    MAX_TENSORS,
)
from gatewayd.wire.tflite_ops import OPERATOR_NAMES, TYPE_NAMES

_FLOATS = frozenset({"FLOAT16", "FLOAT32", "FLOAT64", "BFLOAT16"})
_LISTED = 5


def check_built(plugin: str, content: bytes) -> str:
    """Return one line on what a plugin's result is made of.

    Raises: ModelRefused when the plugin did not do what it is for: an operator left on floats, nothing for the NPU.
    """
    model = root_table(content, "the built model")
    names = [_name(code) for code in model.tables(1, what="operator code", limit=MAX_OPERATOR_CODES)]
    used = Counter(_used(model, names))
    total = sum(used.values())
    floats = Counter({name: count for (name, is_float), count in used.items() if is_float})
    on_npu = sum(count for (name, _), count in used.items() if name == NPU_OPERATOR)
    if plugin == INT8 and floats:
        left = ", ".join(f"{name} ({count})" for name, count in floats.most_common(_LISTED))
        raise ModelRefused(f"{sum(floats.values())} of {total} operators still compute with floats: {left}")
    if plugin == ETHOS_U and not on_npu:
        raise ModelRefused(
            f"none of {total} operators was put on the NPU: is it an integer model of supported operators?"
        )
    if plugin == ETHOS_U:
        return f"{on_npu} NPU operators, {total - on_npu} on the CPU"
    return f"all {total} operators compute with whole numbers"


def _name(code: Table) -> str:
    custom = code.string(1, what="custom code", limit_bytes=MAX_NAME_BYTES)
    if custom:
        return custom
    builtin = max(code.scalar(0, I8, 0, what="deprecated builtin code"), code.scalar(3, I32, 0, what="builtin code"))
    return OPERATOR_NAMES[builtin] if 0 <= builtin < len(OPERATOR_NAMES) else str(builtin)


def _used(model: Table, names: list[str]) -> Iterator[tuple[str, bool]]:
    """Yield each operator's name and whether a tensor of floats is among what it takes or gives."""
    for graph in model.tables(2, what="subgraph", limit=MAX_SUBGRAPHS):
        is_float = [_is_float(tensor) for tensor in graph.tables(0, what="tensor", limit=MAX_TENSORS)]
        for operator in graph.tables(3, what="operator", limit=MAX_OPERATORS):
            code = operator.scalar(0, U32, 0, what="operator code")
            ends = [
                index
                for slot in (1, 2)
                for index in operator.integers(slot, I32, what="operands", limit=MAX_OPERANDS)
                if index >= 0
            ]
            if code >= len(names) or any(index >= len(is_float) for index in ends):
                raise ModelRefused(f"{operator.where} names what the built model has not")
            yield names[code], any(is_float[index] for index in ends)


def _is_float(tensor: Table) -> bool:
    number = tensor.scalar(1, I8, 0, what="type")
    return 0 <= number < len(TYPE_NAMES) and TYPE_NAMES[number] in _FLOATS
