"""Read a TensorFlow Lite model statically: operators, tensors, quantisation, cost. Pure, bounded, never runs anything.

The first gate of admission: what passes here is well-formed, not harmless; a trial in a child process follows. Limits below
bound the work a hostile file can cause (vectors may be shared, so a small file can claim a lot).

Source: tensorflow/lite/schema/schema.fbs, schema version 3.
"""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from math import isfinite, prod

from gatewayd.core.arena_forecast import forecast
from gatewayd.core.errors import ModelRefused
from gatewayd.core.graph import Graph, GraphNode, GraphTensor, Subgraph
from gatewayd.core.model import Operator, Structure
from gatewayd.core.record import record
from gatewayd.core.tensor import DType, Quantization, TensorSpec
from gatewayd.wire.flatbuffer import F32, I8, I32, I64, U8, U32, U64, Table, root_table
from gatewayd.wire.tflite_extras import (
    accelerator_of,
    calls_of,
    description_of,
    labels_of,
    metadata_of,
    resource_of,
    transposes_of,
)
from gatewayd.wire.tflite_ops import CUSTOM, DTYPES, ITEM_BITS, OPERATOR_NAMES, TYPE_NAMES, count_macs

MAX_MODEL_BYTES = 64 * 1024 * 1024
"""Protects memory: the file is read whole; models for microcontrollers are below 2 MB, for nodes mostly below 30."""
MAX_SUBGRAPHS = 64
"""Protects time; control flow makes a handful."""
MAX_TENSORS = 16_384
"""Protects time, over all subgraphs; large vision models have about 1,000."""
MAX_OPERATORS = 8_192
"""Protects time, over all subgraphs."""
MAX_OPERATOR_CODES = 1_024
"""Protects time; there are about 200 builtin operators."""
MAX_BUFFERS = 65_536
"""Protects time; one per tensor and a few for metadata."""
MAX_OPERANDS = 1_024
"""Protects time, per operator; only joins of many tensors come near."""
MAX_RANK = 8
"""Protects time and kernels; no kernel takes more dimensions."""
MAX_ENDS = 64
"""Protects callers: inputs, and outputs, of one model."""
MAX_END_BYTES = 64 * 1024 * 1024
"""Protects memory: the content of one input or output is held whole."""
MAX_NAME_BYTES = 1_024
"""Protects messages and logs, which carry tensor and operator names."""
MAX_MACS = 10**15
"""Protects predictions from absurd shapes; a node computes about 10**10 a second."""

_IDENTIFIER = b"TFL3"
_SCHEMA_VERSION = 3
_ZERO_POINTS = {DType.INT8: (-128, 127), DType.UINT8: (0, 255), DType.INT16: (-32768, 32767)}
_ZERO_POINT_32 = (-(2**31), 2**31 - 1)


@record
class _Tensor:
    table: Table
    shape: tuple[int, ...]
    type_name: str
    buffer: int


@record
class _Graph:
    table: Table
    tensors: tuple[_Tensor, ...]
    operators: tuple[Table, ...]


@record
class _File:
    """What reading found, in the two forms that are wanted of it."""

    structure: Structure
    graph: Graph


def read_model(content: bytes) -> Structure:
    """Read the model's structure. Operators, MACs and weights count over all subgraphs, inputs and outputs are the first's.

    A shape is the one the model is loaded with; a batch size that may be changed (`shape_signature`) does not matter.

    Raises: ModelRefused naming the first thing wrong and where.
    """
    return _read(content).structure


def read_graph(content: bytes) -> Graph:
    """Read everything: each tensor, each operator with its cost, and what the file says of itself.

    Raises: ModelRefused, as `read_model` does.
    """
    return _read(content).graph


def _read(content: bytes) -> _File:
    model = _checked_root(content)
    codes = [_operator_name(code) for code in model.tables(1, what="operator code", limit=MAX_OPERATOR_CODES)]
    graphs = _graphs(model)
    inputs, outputs = _ends(graphs[0], slot=1, what="input"), _ends(graphs[0], slot=2, what="output")
    nodes = [_nodes(graph, codes) for graph in graphs]
    macs = _checked_macs(nodes)
    constants = _constants(model, graphs)
    subgraphs = tuple(_subgraph(graph, found, constants) for graph, found in zip(graphs, nodes, strict=True))
    metadata = metadata_of(model)
    graph = Graph(
        subgraphs,
        accelerator=accelerator_of(name for name, _ in codes),
        description=description_of(model),
        metadata=metadata,
        labels=labels_of(content),
        has_offline_plan=any(each.name == "OfflineMemoryAllocation" for each in metadata),
    )
    found = Counter((node.operator, node.version) for each in nodes for node in each)
    structure = Structure(
        operators=tuple(Operator(name, version, count) for (name, version), count in sorted(found.items())),
        inputs=inputs,
        outputs=outputs,
        macs=macs,
        weights_bytes=sum(constants.values()),
        forecast=forecast(graph),
        accelerator=graph.accelerator,
    )
    return _File(structure, graph)


def _checked_root(content: bytes) -> Table:
    if len(content) > MAX_MODEL_BYTES:
        raise ModelRefused(f"too large: {len(content)} bytes, the limit is {MAX_MODEL_BYTES}")
    if content[4:8] != _IDENTIFIER:
        raise ModelRefused("not a TensorFlow Lite model: no TFL3 identifier")
    model = root_table(content, "the model")
    version = model.scalar(0, U32, 0, what="schema version")
    if version != _SCHEMA_VERSION:
        raise ModelRefused(f"schema version {version} is not supported: convert the model to version {_SCHEMA_VERSION}")
    return model


def _operator_name(code: Table) -> tuple[str, int]:
    # Files from before builtin_code existed have only the 8-bit field; newer ones put 127 there for codes above it.
    # Source: tensorflow/lite/schema/schema_utils.cc, GetBuiltinCode.
    builtin = max(code.scalar(0, I8, 0, what="deprecated builtin code"), code.scalar(3, I32, 0, what="builtin code"))
    version = code.scalar(2, I32, 1, what="version")
    if not 0 <= builtin < len(OPERATOR_NAMES):
        newest = f"{len(OPERATOR_NAMES) - 1}, {OPERATOR_NAMES[-1]}"
        raise ModelRefused(f"{code.where}: builtin operator {builtin} is not known (the newest known is {newest})")
    if version < 1:
        raise ModelRefused(f"{code.where} ({OPERATOR_NAMES[builtin]}) has the version {version}: versions count from 1")
    return (_custom_name(code) if builtin == CUSTOM else OPERATOR_NAMES[builtin]), version


def _custom_name(code: Table) -> str:
    name = code.string(1, what="custom code", limit_bytes=MAX_NAME_BYTES)
    if not name:
        raise ModelRefused(f"{code.where} is a custom operator without a custom code")
    if name in OPERATOR_NAMES:
        raise ModelRefused(f"{code.where} is a custom operator that bears a builtin one's name, {name}")
    return name


def _graphs(model: Table) -> tuple[_Graph, ...]:
    tensors_left, operators_left = MAX_TENSORS, MAX_OPERATORS
    graphs: list[_Graph] = []
    for table in model.tables(2, what="subgraph", limit=MAX_SUBGRAPHS):
        of = f"{table.where} " if graphs else ""
        tensors = tuple(_tensor(each) for each in table.tables(0, what=f"{of}tensor", limit=tensors_left))
        operators = tuple(table.tables(3, what=f"{of}operator", limit=operators_left))
        tensors_left, operators_left = tensors_left - len(tensors), operators_left - len(operators)
        graphs.append(_Graph(table, tensors, operators))
    if not graphs:
        raise ModelRefused("the model has no subgraph")
    return tuple(graphs)


def _tensor(table: Table) -> _Tensor:
    number = table.scalar(1, I8, 0, what="type")
    if not 0 <= number < len(TYPE_NAMES):
        raise ModelRefused(f"{table.where} has the element type {number}, which is not known")
    if table.scalar(10, U32, 0, what="external buffer"):
        raise ModelRefused(f"{table.where}'s values are in another file: convert the model into a single file")
    shape = table.integers(0, I32, what="shape", limit=MAX_RANK)
    return _Tensor(table, shape, TYPE_NAMES[number], table.scalar(2, U32, 0, what="buffer"))


def _nodes(graph: _Graph, codes: Sequence[tuple[str, int]]) -> tuple[GraphNode, ...]:
    return tuple(_node(graph, operator, codes) for operator in graph.operators)


def _node(graph: _Graph, operator: Table, codes: Sequence[tuple[str, int]]) -> GraphNode:
    index = operator.scalar(0, U32, 0, what="operator code")
    if index >= len(codes):
        raise ModelRefused(f"{operator.where} uses the operator code {index}, there are {len(codes)}")
    name, version = codes[index]
    inputs = _operands(graph, operator, slot=1, what="input")
    outputs = _operands(graph, operator, slot=2, what="output")
    try:
        macs = count_macs(name, _shapes(graph, inputs), _shapes(graph, outputs))
    except ModelRefused as error:
        raise ModelRefused(f"{operator.where} ({name}): {error}") from error
    return GraphNode(
        name,
        version,
        inputs,
        outputs,
        macs,
        calls_of(name, operator),
        resource_of(name, operator),
        transposes_of(name, operator),
    )


def _checked_macs(nodes: Iterable[Sequence[GraphNode]]) -> int:
    macs = sum(node.macs for each in nodes for node in each)
    if macs > MAX_MACS:
        raise ModelRefused(f"one inference would take {macs:.1e} multiply-accumulates, the limit is {MAX_MACS:.0e}")
    return macs


def _operands(graph: _Graph, operator: Table, *, slot: int, what: str) -> tuple[int, ...]:
    indices = operator.integers(slot, I32, what=f"{what}s", limit=MAX_OPERANDS)
    for index in indices:
        if not -1 <= index < len(graph.tensors):
            raise ModelRefused(f"{operator.where}'s {what} is tensor {index}, there are {len(graph.tensors)}")
    return indices


def _shapes(graph: _Graph, indices: Sequence[int]) -> list[tuple[int, ...] | None]:
    return [graph.tensors[index].shape if index >= 0 else None for index in indices]


def _subgraph(graph: _Graph, nodes: tuple[GraphNode, ...], constants: Mapping[int, int]) -> Subgraph:
    inputs, outputs = (
        graph.table.integers(slot, I32, what="ends", limit=MAX_OPERANDS) if graph.table.has(slot) else ()
        for slot in (1, 2)
    )
    for index in (*inputs, *outputs):
        if not 0 <= index < len(graph.tensors):
            raise ModelRefused(f"{graph.table.where} ends in tensor {index}, there are {len(graph.tensors)}")
    tensors = tuple(_graph_tensor(each, is_constant=constants[each.buffer] > 0) for each in graph.tensors)
    return Subgraph(tensors, nodes, inputs, outputs)


def _graph_tensor(tensor: _Tensor, *, is_constant: bool) -> GraphTensor:
    bits = ITEM_BITS.get(tensor.type_name, 0)
    is_sized = all(size >= 0 for size in tensor.shape)
    return GraphTensor(
        name=_tensor_name(tensor),
        kind=tensor.type_name,
        shape=tensor.shape,
        byte_count=(prod(tensor.shape) * bits + 7) // 8 if is_sized else 0,
        scales=_scales(tensor.table),
        is_constant=is_constant,
        is_variable=bool(tensor.table.scalar(5, U8, 0, what="is-variable")),
    )


def _tensor_name(tensor: _Tensor) -> str:
    # A name inside the graph is for show: one that cannot be shown is none, and no reason to refuse the model.
    try:
        return tensor.table.string(3, what="name", limit_bytes=MAX_NAME_BYTES)
    except ModelRefused:
        return ""


def _scales(tensor: Table) -> int:
    """Count the scales of a tensor; a runtime takes them for none where the zero points are missing."""
    table = tensor.table(4, what="quantisation")
    if table is None:
        return 0
    scales = table.vector(2, item_bytes=F32.size, what="scale", limit=MAX_MODEL_BYTES).count
    zeros = table.vector(3, item_bytes=I64.size, what="zero point", limit=MAX_MODEL_BYTES).count
    return scales if zeros else 0


def _ends(graph: _Graph, *, slot: int, what: str) -> tuple[TensorSpec, ...]:
    indices = graph.table.integers(slot, I32, what=f"{what}s", limit=MAX_ENDS)
    if not indices:
        raise ModelRefused(f"the model has no {what}")
    for position, index in enumerate(indices):
        if not 0 <= index < len(graph.tensors):
            raise ModelRefused(f"{what} {position} is tensor {index}, there are {len(graph.tensors)}")
    return tuple(_spec(graph.tensors[index], f"{what} {position}") for position, index in enumerate(indices))


def _spec(tensor: _Tensor, end: str) -> TensorSpec:
    name = tensor.table.string(3, what="name", limit_bytes=MAX_NAME_BYTES) or end.replace(" ", "_")
    where = f"{end} ({name!r})"
    dtype = DTYPES.get(tensor.type_name)
    if dtype is None:
        raise ModelRefused(f"{where} is {tensor.type_name}; only {', '.join(DTYPES)} can be handed over")
    if any(size < 1 for size in tensor.shape):
        shape = list(tensor.shape)
        raise ModelRefused(f"{where} has the unknown or empty shape {shape}: convert the model with a fixed shape")
    spec = TensorSpec(name, dtype, tensor.shape, _quantization(tensor.table, dtype, where))
    if spec.byte_count > MAX_END_BYTES:
        raise ModelRefused(f"{where} is {spec.byte_count} bytes, the limit is {MAX_END_BYTES}")
    return spec


def _quantization(tensor: Table, dtype: DType, where: str) -> Quantization | None:
    table = tensor.table(4, what="quantisation")
    if table is None or not dtype.is_integer:
        return None
    channels = table.vector(2, item_bytes=F32.size, what="scale", limit=MAX_MODEL_BYTES).count
    if channels > 1:
        raise ModelRefused(f"{where} is quantised per channel ({channels} scales); it must be per tensor")
    scale = sum(table.floats(2, what="scale", limit=1))
    zero = sum(table.integers(3, I64, what="zero point", limit=1))
    return _checked_quantization(scale, zero, dtype, where) if scale or zero else None


def _checked_quantization(scale: float, zero: int, dtype: DType, where: str) -> Quantization:
    low, high = _ZERO_POINTS.get(dtype, _ZERO_POINT_32)
    if not (isfinite(scale) and scale > 0):
        raise ModelRefused(f"{where} has the scale {scale}; it must be a positive number")
    if not low <= zero <= high:
        raise ModelRefused(f"{where} has the zero point {zero}; {dtype.value} holds {low} to {high}")
    return Quantization(scale, zero)


def _constants(model: Table, graphs: Sequence[_Graph]) -> Mapping[int, int]:
    """Return how many bytes each buffer that a tensor uses holds."""
    buffers = model.tables(4, what="buffer", limit=MAX_BUFFERS)
    sizes: dict[int, int] = {}
    for tensor in (each for graph in graphs for each in graph.tensors):
        if tensor.buffer >= len(buffers):
            raise ModelRefused(f"{tensor.table.where} uses buffer {tensor.buffer}, there are {len(buffers)}")
        if tensor.buffer not in sizes:
            sizes[tensor.buffer] = _buffer_bytes(buffers[tensor.buffer])
        _check_holds(tensor, sizes[tensor.buffer])
    total = sum(sizes.values())
    if total > len(model.content):
        raise ModelRefused(f"corrupted: the constants claim {total} bytes, the file has {len(model.content)}")
    return sizes


def _buffer_bytes(buffer: Table) -> int:
    """Return what a buffer holds, in its own vector or (offset above 1) after the flatbuffer in the same file."""
    offset, size = buffer.scalar(1, U64, 0, what="offset"), buffer.scalar(2, U64, 0, what="size")
    if offset <= 1:
        return buffer.vector(0, item_bytes=U8.size, what="data", limit=MAX_MODEL_BYTES).count
    if offset + size > len(buffer.content):
        raise ModelRefused(f"truncated: {buffer.where}'s data lies outside the file (offset {offset}, {size} bytes)")
    return size


def _check_holds(tensor: _Tensor, buffer_bytes: int) -> None:
    # A runtime on a microcontroller reads constants in place and does not check their length.
    bits = ITEM_BITS.get(tensor.type_name)
    is_sparse = tensor.table.has(6)
    if buffer_bytes == 0 or bits is None or is_sparse or any(size < 0 for size in tensor.shape):
        return
    needed = (prod(tensor.shape) * bits + 7) // 8
    if needed > buffer_bytes:
        held = f"its buffer {tensor.buffer} holds {buffer_bytes}"
        raise ModelRefused(f"{tensor.table.where} needs {needed} bytes for the shape {list(tensor.shape)}, {held}")
