"""Read an ONNX model statically: inputs, outputs, operators with versions, weights. Pure, bounded, never runs anything.

Costs are not computed: shapes between operators are not in the file. Dimensions without a fixed size are a reason to refuse.

Source: onnx/onnx.proto (https://github.com/onnx/onnx): ModelProto, GraphProto, NodeProto, TensorProto, ValueInfoProto, TypeProto.
"""

from collections import Counter

from gatewayd.core.errors import ModelRefused
from gatewayd.core.model import Operator, Structure
from gatewayd.core.tensor import DType, TensorSpec
from gatewayd.wire.protobuf import Message

MAX_MODEL_BYTES = 256 * 1024 * 1024
"""Protects memory: the file is read whole."""
MAX_NODES = 65_536
"""Protects time."""
MAX_CONSTANTS = 65_536
"""Protects time."""
MAX_ENDS = 64
"""Protects callers: inputs, and outputs, of one model."""
MAX_END_BYTES = 64 * 1024 * 1024
"""Protects memory: the content of one input or output is held whole."""
MAX_RANK = 8
"""Protects time."""
MAX_NAME_BYTES = 1_024
"""Protects messages and logs."""

_DTYPES = {1: DType.FP32, 2: DType.UINT8, 3: DType.INT8, 5: DType.INT16, 6: DType.INT32, 7: DType.INT64, 9: DType.BOOL}
_EXTERNAL = 1
_SIGNED_64 = 1 << 63


def read_onnx(content: bytes) -> Structure:
    """Read the model's structure; `macs` is 0, since nothing in the file tells them.

    Raises: ModelRefused naming the first thing wrong and where.
    """
    if len(content) > MAX_MODEL_BYTES:
        raise ModelRefused(f"too large: {len(content)} bytes, the limit is {MAX_MODEL_BYTES}")
    model = Message(content, 0, len(content), "the model")
    graph = model.message(7, "the graph")
    if graph is None or not model.number(1):
        raise ModelRefused("not an ONNX model: it has no graph or no version of the format")
    constants = graph.messages(5, "constant", limit=MAX_CONSTANTS)
    names = {each.text(8, limit_bytes=MAX_NAME_BYTES) for each in constants}
    # Before version 4 of the format, constants stood among the inputs as well.
    inputs = tuple(spec for spec in _ends(graph, 11, "input", skipped=names))
    outputs = _ends(graph, 12, "output", skipped=set())
    return Structure(_operators(model, graph), inputs, outputs, macs=0, weights_bytes=_weights_bytes(constants))


def _operators(model: Message, graph: Message) -> tuple[Operator, ...]:
    versions = {
        each.text(1, limit_bytes=MAX_NAME_BYTES): each.number(2, 1)
        for each in model.messages(8, "operator set", limit=64)
    }
    found: Counter[tuple[str, int]] = Counter()
    for node in graph.messages(1, "node", limit=MAX_NODES):
        name, domain = node.text(4, limit_bytes=MAX_NAME_BYTES), node.text(7, limit_bytes=MAX_NAME_BYTES)
        if not name:
            raise ModelRefused(f"{node.where} does not say what operator it is")
        domain = "" if domain == "ai.onnx" else domain
        version = versions.get(domain, versions.get("ai.onnx", 1) if not domain else 1)
        found[f"{domain}.{name}" if domain else name, min(version, 2**31 - 1)] += 1
    return tuple(Operator(name, version, count) for (name, version), count in sorted(found.items()))


def _ends(graph: Message, number: int, what: str, *, skipped: set[str]) -> tuple[TensorSpec, ...]:
    found = [
        (each, each.text(1, limit_bytes=MAX_NAME_BYTES))
        for each in graph.messages(number, what, limit=MAX_ENDS + MAX_CONSTANTS)
    ]
    kept = [(each, name) for each, name in found if name not in skipped]
    if not 1 <= len(kept) <= MAX_ENDS:
        raise ModelRefused(f"the model has {len(kept)} {what}s; 1 to {MAX_ENDS} can be served")
    return tuple(_spec(each, name) for each, name in kept)


def _spec(end: Message, name: str) -> TensorSpec:
    where = f"{end.where} ({name!r})"
    kind = end.message(2, "type")
    tensor = kind.message(1, "tensor type") if kind is not None else None
    if tensor is None:
        raise ModelRefused(f"{where} is no tensor")
    dtype = _DTYPES.get(tensor.number(1))
    if dtype is None:
        given = ", ".join(each.value for each in _DTYPES.values())
        raise ModelRefused(f"{where} has the element type {tensor.number(1)}; only {given} can be handed over")
    shape = tensor.message(2, "shape")
    dimensions = shape.messages(1, "dimension", limit=MAX_RANK) if shape is not None else []
    spec = TensorSpec(name or end.where.replace(" ", "_"), dtype, tuple(_size(each, where) for each in dimensions))
    if spec.byte_count > MAX_END_BYTES:
        raise ModelRefused(f"{where} is {spec.byte_count} bytes, the limit is {MAX_END_BYTES}")
    return spec


def _size(dimension: Message, where: str) -> int:
    size = dimension.number(1)
    if not 1 <= size < _SIGNED_64:
        symbol = dimension.text(2, limit_bytes=MAX_NAME_BYTES)
        what = f"the size {symbol!r}" if symbol else "an unknown size"
        raise ModelRefused(f"{where}: {dimension.where} has {what}: export the model with a fixed shape")
    return size


def _weights_bytes(constants: list[Message]) -> int:
    total = 0
    for constant in constants:
        if constant.number(14) == _EXTERNAL:
            raise ModelRefused(f"{constant.where}'s values are in another file: export the model into a single file")
        total += sum(
            each.end - each.start for each in constant.fields() if each.is_bytes and each.number in {4, 5, 7, 9, 10, 11}
        )
    return total
