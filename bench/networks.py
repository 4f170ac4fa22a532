"""Networks made up from a seed: single operators, and chains with branches, in float and int8. Deterministic."""

from math import prod
from random import Random

from bench.layers import (
    binary_layer,
    compare_layer,
    conv_2d,
    depthwise_conv_2d,
    fully_connected,
    fully_connected_per_channel,
    pool_layer,
    prelu,
    transpose_conv,
    unary_layer,
)
from bench.layers_shape import (
    add_n,
    batch_matmul,
    batch_matmul_live,
    broadcast_to,
    concatenation,
    cumsum,
    expand_dims,
    gather,
    gather_nd,
    pack_unpack,
    pad_layer,
    reduce_layer,
    reshape,
    resize_layer,
    slice_,
    space_to_batch,
    space_to_depth,
    split,
    split_v,
    squeeze,
    strided_slice,
    transpose,
)
from bench.layers_state import arg_layer, cast, dequantize, fill, if_, lstm, requantize, reverse, stream, svdf, while_
from bench.network import End, Layer, Network, is_heads

_ANY = {
    "RELU": unary_layer("RELU"),
    "RELU6": unary_layer("RELU6"),
    "LEAKY_RELU": unary_layer("LEAKY_RELU", "LeakyReluOptions", alpha=0.1),
    "LOGISTIC": unary_layer("LOGISTIC", scale=(1 / 256, -128)),
    "TANH": unary_layer("TANH", scale=(1 / 128, 0)),
    "SOFTMAX": unary_layer("SOFTMAX", "SoftmaxOptions", scale=(1 / 256, -128), beta=1.0),
    "LOG_SOFTMAX": unary_layer("LOG_SOFTMAX", "LogSoftmaxOptions", scale=(16 / 256, 127)),
    "HARD_SWISH": unary_layer("HARD_SWISH", "HardSwishOptions"),
    "ELU": unary_layer("ELU"),
    "ABS": unary_layer("ABS", "AbsOptions"),
    "L2_NORMALIZATION": unary_layer("L2_NORMALIZATION", "L2NormOptions", scale=(1 / 128, 0)),
    "ADD": binary_layer("ADD", "AddOptions"),
    "SUB": binary_layer("SUB", "SubOptions"),
    "MUL": binary_layer("MUL", "MulOptions"),
    "MAXIMUM": binary_layer("MAXIMUM", "MaximumMinimumOptions"),
    "MINIMUM": binary_layer("MINIMUM", "MaximumMinimumOptions"),
    "SQUARED_DIFFERENCE": binary_layer("SQUARED_DIFFERENCE", "SquaredDifferenceOptions"),
    "PRELU": prelu,
    "RESHAPE": reshape,
    "TRANSPOSE": transpose,
    "PAD": pad_layer("PAD", "PadOptions"),
    "PADV2": pad_layer("PADV2", "PadV2Options"),
    "SLICE": slice_,
    "STRIDED_SLICE": strided_slice,
    "CONCATENATION": concatenation,
    "SPLIT": split,
    "SPLIT_V": split_v,
    "PACK": pack_unpack,
    "GATHER": gather,
    "GATHER_ND": gather_nd,
    "BROADCAST_TO": broadcast_to,
    "MEAN": reduce_layer("MEAN"),
    "SUM": reduce_layer("SUM"),
    "REDUCE_MAX": reduce_layer("REDUCE_MAX"),
    "CUMSUM": cumsum,
    "ADD_N": add_n,
    "QUANTIZE": requantize,
    "DEQUANTIZE": dequantize,
    "CAST": cast,
    "FILL": fill,
    "REVERSE_V2": reverse,
    "ARG_MAX": arg_layer("ARG_MAX", "ArgMaxOptions"),
    "ARG_MIN": arg_layer("ARG_MIN", "ArgMinOptions"),
    "MIRROR_PAD": pad_layer("MIRROR_PAD", "MirrorPadOptions"),
    "SQUEEZE": squeeze,
    "EXPAND_DIMS": expand_dims,
    "FULLY_CONNECTED": fully_connected,
    "FULLY_CONNECTED per channel": fully_connected_per_channel,
    "BATCH_MATMUL": batch_matmul,
    "BATCH_MATMUL live": batch_matmul_live,
    "SVDF": svdf,
    "UNIDIRECTIONAL_SEQUENCE_LSTM": lstm,
    "STREAM": stream,
    "WHILE": while_,
    "IF": if_,
    **{name: compare_layer(name) for name in ("EQUAL", "NOT_EQUAL", "GREATER", "GREATER_EQUAL", "LESS", "LESS_EQUAL")},
}
_FLOAT_ONLY = {
    "RSQRT": unary_layer("RSQRT"),
    "EXP": unary_layer("EXP", "ExpOptions"),
    "L2_POOL_2D": pool_layer("L2_POOL_2D"),
    "CEIL": unary_layer("CEIL"),
    "COS": unary_layer("COS", "CosOptions"),
    "FLOOR": unary_layer("FLOOR"),
    "LOG": unary_layer("LOG"),
    "NEG": unary_layer("NEG", "NegOptions"),
    "ROUND": unary_layer("ROUND"),
    "SIN": unary_layer("SIN"),
    "SQRT": unary_layer("SQRT"),
    "SQUARE": unary_layer("SQUARE", "SquareOptions"),
    "ZEROS_LIKE": unary_layer("ZEROS_LIKE", "ZerosLikeOptions"),
    "DIV": binary_layer("DIV", "DivOptions"),
    "FLOOR_DIV": binary_layer("FLOOR_DIV", "FloorDivOptions"),
    "FLOOR_MOD": binary_layer("FLOOR_MOD", "FloorModOptions"),
}
_IMAGE = {
    "CONV_2D": conv_2d,
    "DEPTHWISE_CONV_2D": depthwise_conv_2d,
    "TRANSPOSE_CONV": transpose_conv,
    "AVERAGE_POOL_2D": pool_layer("AVERAGE_POOL_2D"),
    "MAX_POOL_2D": pool_layer("MAX_POOL_2D"),
    "SPACE_TO_BATCH_ND": space_to_batch,
    "SPACE_TO_DEPTH": space_to_depth,
    "RESIZE_BILINEAR": resize_layer("RESIZE_BILINEAR", "ResizeBilinearOptions"),
    "RESIZE_NEAREST_NEIGHBOR": resize_layer("RESIZE_NEAREST_NEIGHBOR", "ResizeNearestNeighborOptions"),
}
LAYERS: dict[str, Layer] = {**_ANY, **_FLOAT_ONLY, **_IMAGE}
"""Every layer by the name of its main operator."""
FLOAT_ONLY = frozenset(_FLOAT_ONLY)
"""Those that TensorFlow Lite Micro computes in float only."""

KINDS = ("INT8", "FLOAT32")
_COMMON = ("CONV_2D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED", "AVERAGE_POOL_2D", "ADD", "RELU", "RESHAPE", "SOFTMAX")
_LARGEST_ELEMENTS = 60_000  # keeps one try on TFLM in the millisecond range


def single(layer: str, kind: str, seed: int) -> bytes:
    """Return a network of one layer."""
    net = Network(kind, Random(seed))  # not for secrets
    shape = (1, *(net.rng.randrange(2, 13) for _ in range(3)))
    return net.finish(LAYERS[layer](net, net.input(shape)))


def chain(kind: str, seed: int, *, layers: int = 0) -> bytes:
    """Return a network of `layers` layers (0: 2 to 14) with branches that meet again."""
    net = Network(kind, Random(seed))  # not for secrets
    x = net.input((1, net.rng.randrange(4, 33), net.rng.randrange(4, 33), net.rng.randrange(1, 9)))
    kept: list[End] = []
    for _ in range(layers or net.rng.randrange(2, 15)):
        x = _next(net, x, kept)
        if net.rng.random() < 0.3:
            kept.append(x)
    return net.finish(x)


def _next(net: Network, x: End, kept: list[End]) -> End:
    same = [each for each in kept if each.shape == x.shape and each != x]
    if same and is_heads(net):
        return net.node("ADD", (x, net.rng.choice(same)), (net.tensor(x.shape),), "AddOptions")
    names = [name for name in LAYERS if suits(name, net.kind, x)]
    common = [name for name in _COMMON if name in names]
    layer = LAYERS[net.rng.choice(common if net.rng.random() < 0.5 else names)]
    return layer(net, x)


def suits(layer: str, kind: str, x: End) -> bool:
    """Tell whether the layer can follow `x` in a network of `kind`."""
    growing = {
        "PAD",
        "PADV2",
        "CONCATENATION",
        "RESIZE_BILINEAR",
        "RESIZE_NEAREST_NEIGHBOR",
        "TRANSPOSE_CONV",
        "MIRROR_PAD",
    }
    if layer in growing and prod(x.shape) * 4 > _LARGEST_ELEMENTS:
        return False
    if layer in {"EXPAND_DIMS", "SQUEEZE"} or (layer in {"TRANSPOSE", "BATCH_MATMUL live"} and len(x.shape) < 3):
        return False
    if layer.endswith("SOFTMAX") and x.shape[-1] > 1024:
        return False
    if layer.startswith("FULLY_CONNECTED") and prod(x.shape) > 8192:
        return False
    if layer == "MIRROR_PAD" and min(x.shape[1:]) < 2:
        return False
    is_image = len(x.shape) == 4
    return (kind == "FLOAT32" or layer not in _FLOAT_ONLY) and (is_image or layer not in {*_IMAGE, "L2_POOL_2D"})
