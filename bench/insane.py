"""Model files that are broken, or well-formed and insane, from a seed: what admission has to survive. Deterministic."""

from functools import cache
from random import Random
from typing import Any

import flatbuffers  # type: ignore[import-untyped]  # it ships no types
from ai_edge_litert import schema_py_generated as schema  # type: ignore[import-untyped]  # as above

from bench import networks

_SEEDS = 24
_LEAST_BYTES = 64  # what is shorter is refused at once, whatever is done to it
_EXTREMES = (0, 1, 2, 0x7F, 0xFF, 0x7FFF, 0xFFFF, 0x7FFF_FFFF, 0x8000_0000, 0xFFFF_FFFF, 0xFFFF_FFF0)
_NUMBERS = (-(2**31), -2, -1, 0, 1, 2, 3, 7, 8, 255, 4096, 65_536, 2**20, 2**24, 2**31 - 1)
_SCALES = (0.0, -1.0, 1e-45, 3e38, float("inf"), float("nan"), 1.0)


@cache
def seeds() -> tuple[bytes, ...]:
    """Return small good files to start from: single layers and chains, float and int8, with control flow."""
    chains = [networks.chain(kind, number, layers=4) for number in range(3) for kind in networks.KINDS]
    layers = sorted(networks.LAYERS)
    rng = Random(7)  # not for secrets
    singles = [networks.single(rng.choice(layers), rng.choice(networks.KINDS), number) for number in range(_SEEDS)]
    always = [networks.single(name, "FLOAT32", 1) for name in ("WHILE", "IF", "STREAM", "SVDF", "CONV_2D")]
    return tuple(each for each in (*chains, *singles, *always) if len(each) < 40_000)


def model(number: int, seed: int) -> bytes:
    """Return the file of that number: two of three have bytes changed, one is packed anew with insane values."""
    rng = Random(f"{seed}/{number}")  # not for secrets
    content = rng.choice(seeds())
    if number % 3 == 2:
        return _insane(content, rng)
    for _ in range(rng.choice((1, 1, 2, 4, 8))):
        if len(content) > _LEAST_BYTES:
            content = rng.choice(_CHANGES)(content, rng)
    return content


def _flip(content: bytes, rng: Random) -> bytes:
    at = _place(content, rng)
    return content[:at] + bytes([content[at] ^ (1 << rng.randrange(8))]) + content[at + 1 :]


def _extreme(content: bytes, rng: Random) -> bytes:
    at = _place(content, rng) // 4 * 4
    return content[:at] + rng.choice(_EXTREMES).to_bytes(4, "little") + content[at + 4 :]


def _nudge(content: bytes, rng: Random) -> bytes:
    at = _place(content, rng) // 4 * 4
    value = int.from_bytes(content[at : at + 4], "little") + rng.choice((-4, -1, 1, 4, 8))
    return content[:at] + (value % 2**32).to_bytes(4, "little") + content[at + 4 :]


def _truncate(content: bytes, rng: Random) -> bytes:
    return content[: rng.randrange(8, len(content))]


def _cut(content: bytes, rng: Random) -> bytes:
    at = _place(content, rng)
    return content[:at] + content[at + rng.choice((1, 2, 4, 8, 64)) :]


def _repeat(content: bytes, rng: Random) -> bytes:
    at, size = _place(content, rng), rng.choice((4, 16, 64))
    return content[:at] + content[at : at + size] * 2 + content[at + size :]


def _splice(content: bytes, rng: Random) -> bytes:
    other = rng.choice(seeds())
    at = rng.randrange(8, min(len(content), len(other)))
    return content[:at] + other[at:]


def _blank(content: bytes, rng: Random) -> bytes:
    at, size = _place(content, rng), rng.choice((4, 16, 256))
    return content[:at] + bytes(min(size, len(content) - at)) + content[at + size :]


_CHANGES = (_flip, _flip, _extreme, _extreme, _nudge, _nudge, _truncate, _cut, _repeat, _splice, _blank)


def _place(content: bytes, rng: Random) -> int:
    """Mostly near the end, where the writer puts tables; what is far from them is weights."""
    if rng.random() < 0.7:
        return rng.randrange(max(0, len(content) - 1_500), len(content) - 4)
    return rng.randrange(len(content) - 4)


def _insane(content: bytes, rng: Random) -> bytes:
    made = schema.ModelT.InitFromObj(schema.Model.GetRootAsModel(content, 0))
    for _ in range(rng.choice((1, 1, 2, 3))):
        rng.choice(_INSANITIES)(made, rng.choice(made.subgraphs), rng)
    builder = flatbuffers.Builder(4096)
    try:
        builder.Finish(made.Pack(builder), b"TFL3")
    except (TypeError, ValueError, AttributeError, flatbuffers.builder.OffsetArithmeticError):
        return content[: rng.randrange(8, len(content))]  # what cannot be written at all is no file
    return bytes(builder.Output())


def _shape(_: Any, graph: Any, rng: Random) -> None:  # noqa: ANN401 # generated, untyped
    tensor = rng.choice(graph.tensors)
    tensor.shape = [rng.choice(_NUMBERS) for _ in range(rng.choice((0, 1, 2, 4, 5, 9)))]


def _type(_: Any, graph: Any, rng: Random) -> None:  # noqa: ANN401 # generated, untyped
    rng.choice(graph.tensors).type = rng.randrange(0, 24)


def _operands(_: Any, graph: Any, rng: Random) -> None:  # noqa: ANN401 # generated, untyped
    if graph.operators:
        operator = rng.choice(graph.operators)
        count = rng.choice((0, 1, 2, 3, 5, 40))
        numbers = [rng.randrange(-2, len(graph.tensors) + 1) for _ in range(count)]
        setattr(operator, rng.choice(("inputs", "outputs")), numbers)


def _swap(_: Any, graph: Any, rng: Random) -> None:  # noqa: ANN401 # generated, untyped
    rng.shuffle(graph.operators)


def _options(made: Any, graph: Any, rng: Random) -> None:  # noqa: ANN401 # generated, untyped
    if graph.operators:
        options = rng.choice(graph.operators).builtinOptions
        names = [name for name, value in vars(options).items() if isinstance(value, int)] if options else []
        if names:
            setattr(options, rng.choice(names), rng.choice(_NUMBERS))
        else:
            rng.choice(made.operatorCodes).version = rng.choice((0, 2, 99))


def _no_options(_: Any, graph: Any, rng: Random) -> None:  # noqa: ANN401 # generated, untyped
    if graph.operators:
        operator = rng.choice(graph.operators)
        operator.builtinOptions, operator.builtinOptionsType = None, 0


def _operator(made: Any, _: Any, rng: Random) -> None:  # noqa: ANN401 # generated, untyped
    code = rng.choice(made.operatorCodes)
    code.builtinCode = rng.randrange(0, 208)
    code.deprecatedBuiltinCode = min(code.builtinCode, 127)


def _quantization(_: Any, graph: Any, rng: Random) -> None:  # noqa: ANN401 # generated, untyped
    tensor = rng.choice(graph.tensors)
    tensor.quantization = schema.QuantizationParametersT()
    count = rng.choice((1, 1, 3, 1000))
    tensor.quantization.scale = [rng.choice(_SCALES)] * count
    tensor.quantization.zeroPoint = [rng.choice((0, -129, 2**40))] * rng.choice((1, count))
    tensor.quantization.quantizedDimension = rng.choice((0, 1, -1, 9))


def _buffer(made: Any, graph: Any, rng: Random) -> None:  # noqa: ANN401 # generated, untyped
    rng.choice(graph.tensors).buffer = rng.randrange(0, len(made.buffers) + 1)


def _variable(_: Any, graph: Any, rng: Random) -> None:  # noqa: ANN401 # generated, untyped
    rng.choice(graph.tensors).isVariable = True


def _ends(_: Any, graph: Any, rng: Random) -> None:  # noqa: ANN401 # generated, untyped
    numbers = [rng.randrange(-1, len(graph.tensors)) for _ in range(rng.choice((0, 1, 2, 70)))]
    setattr(graph, rng.choice(("inputs", "outputs")), numbers)


def _more_operators(_: Any, graph: Any, rng: Random) -> None:  # noqa: ANN401 # generated, untyped
    graph.operators = graph.operators * rng.choice((2, 10, 200))


_INSANITIES = (
    _shape, _shape, _type, _operands, _operands, _swap, _options, _options, _no_options, _operator, _quantization, _buffer,
    _variable, _ends, _more_operators,
)  # fmt: skip
