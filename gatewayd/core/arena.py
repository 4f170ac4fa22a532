"""Predicts the smallest tensor arena in which TensorFlow Lite Micro loads and runs a graph, without running anything.

It goes through what the interpreter does in order: what stays grows from the arena's end downwards, what is temporary from its
start upwards, and the most that both take together at any moment is what is needed. That moment is mostly the run itself, but
for small models the preparation of it, which what the interpreter reports afterwards does not count.

Source: the order and the sizes are those of tflite-micro 0.dev20261023182759, observed allocation by allocation; the rules
behind them: micro_allocator.cc, micro_allocation_info.cc, micro_interpreter.cc in github.com/tensorflow/tflite-micro.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from enum import Enum

from gatewayd.core.arena_kernels import KERNELS, Kernel, Operands
from gatewayd.core.arena_plan import Need, planned_bytes
from gatewayd.core.graph import Graph, GraphNode, GraphTensor
from gatewayd.core.record import record

ALIGNMENT_BYTES = 16  # Source: MicroArenaBufferAlignment(), tensorflow/lite/micro/micro_arena_constants.h
MAX_PLANNED = 600
"""Protects time: placing n buffers takes n² steps, here and on a device. Networks for microcontrollers have up to about 100."""
MAX_STEPS = 20_000
"""Protects time from subgraphs that call each other over and over."""
MAX_OPERANDS = 50_000
"""Protects time: each is looked at, and vectors of them may be shared, so that a small file can claim many."""
_MAX_DEPTH = 8  # subgraphs within subgraphs

_REQUESTS_PER_NODE = 12  # Source: kMaxScratchBuffersPerOp, micro_allocator.cc


class KernelSet(Enum):
    """Which implementation of the operators a runtime was built with."""

    REFERENCE = "reference"
    CMSIS_NN = "cmsis-nn"


@record
class Runtime:
    """How a build of TensorFlow Lite Micro lays its arena out. Sizes in bytes, of a structure each unless said otherwise.

    `allocators` is what the interpreter's own parts take first; `request` describes a scratch buffer while the graph is
    prepared, `handle` when it runs; `lifetime` is one buffer's entry while memory is planned, `planning` another one.
    """

    name: str
    kernels: KernelSet
    allocators: tuple[int, ...]
    subgraph: int
    eval_tensor: int
    node: int
    tensor: int
    quantization: int
    lifetime: int
    request: int
    handle: int
    planning: int
    options_allocator: int
    resources: int
    resource: int
    pointer: int


HOST = Runtime(
    "tflite-micro 0.dev20261023182759, 64-bit, reference kernels, allocations recorded", KernelSet.REFERENCE,
    allocators=(104, 72, 272), subgraph=24, eval_tensor=24, node=64, tensor=64, quantization=24, lifetime=32, request=16,
    handle=8, planning=40, options_allocator=16, resources=16, resource=40, pointer=8,
)  # fmt: skip
"""The wheel that admission measures with: every size was observed."""

CORTEX_M = Runtime(
    "tflite-micro 0.dev20261023182759, 32-bit, reference kernels", KernelSet.REFERENCE,
    allocators=(40, 44, 40), subgraph=12, eval_tensor=12, node=32, tensor=40, quantization=12, lifetime=24, request=12,
    handle=4, planning=40, options_allocator=8, resources=8, resource=20, pointer=4,
)  # fmt: skip
"""A microcontroller: the same structures with pointers and sizes of 4 bytes. Derived from their fields, not observed."""

CORTEX_M_CMSIS_NN = Runtime(
    "tflite-micro 0.dev20261023182759, 32-bit, CMSIS-NN kernels", KernelSet.CMSIS_NN,
    allocators=(40, 44, 40), subgraph=12, eval_tensor=12, node=32, tensor=40, quantization=12, lifetime=24, request=12,
    handle=4, planning=40, options_allocator=8, resources=8, resource=20, pointer=4,
)  # fmt: skip
"""The same with Arm's kernels, which trade scratch memory for speed."""


@record
class Prediction:
    """What was predicted for one runtime. `arena_bytes` None: it cannot be, and `reason` says why."""

    arena_bytes: int | None
    reason: str = ""


def predict(graph: Graph, runtime: Runtime) -> Prediction:
    """Predict the smallest arena, a multiple of 16 bytes, that loads and invokes `graph` on `runtime`."""
    reason = _unpredictable(graph)
    if reason:
        return Prediction(None, reason)
    arena = _Arena()
    walk = _Walk(graph, runtime, arena)
    walk.build()
    walk.prepare()
    walk.plan()
    walk.open_ends()
    return Prediction(_aligned(arena.peak, ALIGNMENT_BYTES))


def _unpredictable(graph: Graph) -> str:
    if graph.has_offline_plan:
        return "the file holds a memory plan of its own"
    unknown = sorted({node.operator for each in graph.subgraphs for node in each.nodes} - KERNELS.keys())
    if unknown:
        return f"nobody measured what {', '.join(unknown)} takes from the arena"
    planned = sum(_is_planned(tensor) for each in graph.subgraphs for tensor in each.tensors)
    if planned > MAX_PLANNED:
        return f"{planned} tensors have to be placed; plans are made for at most {MAX_PLANNED}"
    operands = sum(len(node.inputs) + len(node.outputs) for each in graph.subgraphs for node in each.nodes)
    if operands > MAX_OPERANDS:
        return f"its operators name {operands} tensors; plans are made for at most {MAX_OPERANDS}"
    return _unsized(graph) or _uncallable(graph)


def _unsized(graph: Graph) -> str:
    for subgraph in graph.subgraphs:
        for tensor in subgraph.tensors:
            if any(size < 0 for size in tensor.shape):
                return f"the size of tensor {tensor.name!r} is not known before a run"
    return ""


def _uncallable(graph: Graph) -> str:
    """Follow the calls as a run would: a cycle, or a tree of calls that grows beyond all bounds, ends at a limit."""
    steps = 0
    todo = [(0, 0)]
    while todo:
        number, depth = todo.pop()
        if number >= len(graph.subgraphs) or depth > _MAX_DEPTH or steps > MAX_STEPS:
            return "its subgraphs call each other too deeply, or one that is not there"
        nodes = graph.subgraphs[number].nodes
        steps += len(nodes)
        todo += [(called, depth + 1) for node in nodes for called in node.calls]
    return ""


def _is_planned(tensor: GraphTensor) -> bool:
    return not tensor.is_constant and not tensor.is_variable and tensor.byte_count > 0


def _aligned(size: int, alignment: int) -> int:
    return -(-size // alignment) * alignment


@dataclass(slots=True)
class _Arena:
    """Bytes used from the start (`head`, and `temp` beyond it) and from the end (`tail`), and the most they were together."""

    head: int = 0
    temp: int = 0
    tail: int = 0
    peak: int = 0

    def keep(self, size: int, alignment: int) -> None:
        self.tail = _aligned(self.tail + size, alignment)
        self._note()

    def borrow(self, size: int, alignment: int) -> None:
        self.temp = _aligned(self.temp, alignment) + size
        self._note()

    def set_head(self, size: int) -> None:
        self.head = self.temp = size
        self._note()

    def _note(self) -> None:
        self.peak = max(self.peak, max(self.head, self.temp) + self.tail)


@dataclass(slots=True)
class _Walk:
    """The phases of loading, in order."""

    graph: Graph
    runtime: Runtime
    arena: _Arena
    scratch: dict[tuple[int, int], tuple[int, ...]] = field(default_factory=dict)
    allocated_resources: set[str] = field(default_factory=set)

    def build(self) -> None:
        """Make the interpreter, its tables, each operator's options and each operator's own data."""
        arena, runtime = self.arena, self.runtime
        for size in runtime.allocators:
            arena.keep(size, 8)
        resources = {node.resource for _, node, _ in self._nodes() if node.operator == "VAR_HANDLE"}
        if resources:
            arena.keep(runtime.resources, ALIGNMENT_BYTES)
            arena.keep(runtime.resource * len(resources), ALIGNMENT_BYTES)
        arena.keep(runtime.options_allocator, 8)
        arena.set_head(_REQUESTS_PER_NODE * runtime.request)
        arena.keep(runtime.subgraph * len(self.graph.subgraphs), 8)
        for subgraph in self.graph.subgraphs:
            arena.keep(runtime.eval_tensor * len(subgraph.tensors), 8)
        for subgraph in self.graph.subgraphs:
            arena.keep(runtime.node * len(subgraph.nodes), 8)
        for _, _, (kernel, _) in self._nodes():
            if kernel.options[0]:
                arena.keep(*kernel.options)
        for _, _, (kernel, _) in self._nodes():
            if kernel.data:
                arena.keep(kernel.data, ALIGNMENT_BYTES)

    def prepare(self) -> None:
        """Let each operator look at its tensors, take what it keeps and ask for scratch memory."""
        arena = self.arena
        for key, node, (kernel, operands) in self._nodes():
            for tensor in _looked_at(kernel, operands):
                self._describe(tensor, borrowed=True)
            kept, scratch = kernel.takes(operands)
            for size in (*kept, *self._resource(node.operator, key, operands)):
                arena.keep(size, ALIGNMENT_BYTES)
            self.scratch[key] = tuple(scratch)
            requests = sum(len(each) for each in self.scratch.values())
            arena.set_head((requests + _REQUESTS_PER_NODE) * self.runtime.request)

    def plan(self) -> None:
        """Place every activation and scratch buffer; planning needs memory of its own, on top of all that stays."""
        arena, runtime = self.arena, self.runtime
        requests = sum(len(each) for each in self.scratch.values())
        tensors = [tensor for subgraph in self.graph.subgraphs for tensor in subgraph.tensors]
        if requests:
            arena.keep(runtime.handle * requests, runtime.pointer)
        arena.borrow(runtime.pointer * len(self.graph.subgraphs), runtime.pointer)
        arena.borrow(runtime.lifetime * (len(tensors) + requests), runtime.pointer)
        for tensor in tensors:
            if tensor.is_variable:
                arena.keep(tensor.byte_count, ALIGNMENT_BYTES)
        needs = self._needs()
        # What is left is rounded to the alignment at both of its ends.
        arena.peak = max(
            arena.peak,
            _aligned(arena.temp, ALIGNMENT_BYTES)
            + runtime.planning * len(needs)
            + _aligned(arena.tail, ALIGNMENT_BYTES),
        )
        arena.set_head(planned_bytes(needs))

    def open_ends(self) -> None:
        """Describe inputs and outputs for the program around the interpreter."""
        main = self.graph.main
        for ends in (main.inputs, main.outputs):
            self.arena.keep(self.runtime.pointer * len(ends), ALIGNMENT_BYTES)
            for index in ends:
                self._describe(main.tensors[index], borrowed=False)

    def _nodes(self) -> Iterator[tuple[tuple[int, int], GraphNode, tuple[Kernel, Operands]]]:
        is_optimized = self.runtime.kernels is KernelSet.CMSIS_NN
        for number, subgraph in enumerate(self.graph.subgraphs):
            for index, node in enumerate(subgraph.nodes):
                operands = Operands.of(node, subgraph, is_optimized=is_optimized)
                yield (number, index), node, (KERNELS[node.operator], operands)

    def _describe(self, tensor: GraphTensor, *, borrowed: bool) -> None:
        take = self.arena.borrow if borrowed else self.arena.keep
        take(self.runtime.tensor, self.runtime.pointer)
        if tensor.scales:
            take(self.runtime.quantization, self.runtime.pointer)
            take(4 + 4 * tensor.scales, 4)

    def _resource(self, operator: str, key: tuple[int, int], operands: Operands) -> tuple[int, ...]:
        """A resource variable's memory is taken by the first operator that assigns to it."""
        if operator != "ASSIGN_VARIABLE":
            return ()
        number, index = key
        handle = operands.node.inputs[0] if operands.node.inputs else -1
        makers = (node for node in self.graph.subgraphs[number].nodes[:index] if handle in node.outputs)
        name = next((node.resource for node in makers), f"{number}/{handle}")
        value = operands.given(1)
        if name in self.allocated_resources or value is None:
            return ()
        self.allocated_resources.add(name)
        return (value.byte_count,)

    def _needs(self) -> list[Need]:
        """Return each buffer with its lifetime, in the interpreter's order: all tensors, then all scratch buffers."""
        lifetimes = _Lifetimes(self.graph)
        lifetimes.run(0)
        needs = [
            Need(_aligned(tensor.byte_count, ALIGNMENT_BYTES), *lifetimes.tensors.get((number, index), (-1, -1)))
            for number, subgraph in enumerate(self.graph.subgraphs)
            for index, tensor in enumerate(subgraph.tensors)
            if _is_planned(tensor)
        ]
        for key, sizes in self.scratch.items():
            span = lifetimes.nodes.get(key, (-1, -1))
            needs += [Need(_aligned(size, ALIGNMENT_BYTES), *span) for size in sizes]
        return needs


@dataclass(slots=True)
class _Lifetimes:
    """When each tensor and node is in use, first and last, on a clock that ticks with each operator and each call."""

    graph: Graph
    now: int = 0
    tensors: dict[tuple[int, int], tuple[int, int]] = field(default_factory=dict)
    nodes: dict[tuple[int, int], tuple[int, int]] = field(default_factory=dict)

    def run(self, number: int) -> None:
        """Go through a subgraph and those it calls; a subgraph called twice lives from its latest call."""
        subgraph = self.graph.subgraphs[number]
        self._created(number, (*subgraph.inputs, *subgraph.outputs))
        for index, node in enumerate(subgraph.nodes):
            self.now += 1
            self._created(number, node.outputs)
            started = self.now
            for called in node.calls:
                self.now += 1
                self.run(called)
            self._used(number, (*node.inputs, *node.outputs))
            self.nodes[number, index] = (started, self.now)
        self._used(number, subgraph.outputs)

    def _created(self, number: int, indices: tuple[int, ...]) -> None:
        for index in indices:
            self.tensors[number, index] = (self.now, self.now)

    def _used(self, number: int, indices: tuple[int, ...]) -> None:
        for index in indices:
            if index >= 0:
                first, _ = self.tensors.get((number, index), (-1, -1))
                self.tensors[number, index] = (first, self.now)


def _looked_at(kernel: Kernel, operands: Operands) -> Iterator[GraphTensor]:
    """Yield the tensors that Prepare asks for, as often as it does."""
    for letter in kernel.temps:
        found: tuple[GraphTensor | None, ...]
        if letter == "*":
            found = operands.inputs
        elif letter == "o":
            found = (operands.result,)
        else:
            found = (operands.given(int(letter)),)
        yield from (tensor for tensor in found if tensor is not None)
