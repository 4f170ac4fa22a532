"""Layers that move values about, and those that reduce or multiply along dimensions."""

from math import prod

import numpy as np

from bench.network import End, Layer, Network, is_heads


def reshape(net: Network, x: End) -> End:
    """To a row."""
    shape = (1, prod(x.shape))
    return net.node("RESHAPE", (x, net.constant(shape, "INT32")), (net.tensor(shape),), "ReshapeOptions")


def squeeze(net: Network, x: End) -> End:
    """The first dimension away."""
    return net.node("SQUEEZE", (x,), (net.tensor(x.shape[1:]),), "SqueezeOptions", squeezeDims=[0])


def expand_dims(net: Network, x: End) -> End:
    """One more in front."""
    return net.node(
        "EXPAND_DIMS", (x, net.constant(0, "INT32", shape=())), (net.tensor((1, *x.shape)),), "ExpandDimsOptions"
    )


def transpose(net: Network, x: End) -> End:
    """The last two swapped."""
    order = [*range(len(x.shape) - 2), len(x.shape) - 1, len(x.shape) - 2]
    shape = [x.shape[axis] for axis in order]
    return net.node("TRANSPOSE", (x, net.constant(order, "INT32")), (net.tensor(shape),), "TransposeOptions")


def pad_layer(name: str, options: str) -> Layer:
    """Return a layer that adds a border of one."""

    def pad(net: Network, x: End) -> End:
        before = [[0, 0]] + [[1, 1]] * (len(x.shape) - 1)
        shape = (x.shape[0], *(size + 2 for size in x.shape[1:]))
        operands = [x, net.constant(before, "INT32")]
        if name == "PADV2":
            operands.append(net.constant(np.zeros(1), x.kind))
        return net.node(name, operands, (net.tensor(shape),), options)

    return pad


def slice_(net: Network, x: End) -> End:
    """The first half of the last dimension."""
    shape = (*x.shape[:-1], max(1, x.shape[-1] // 2))
    begin, size = net.constant([0] * len(shape), "INT32"), net.constant(shape, "INT32")
    return net.node("SLICE", (x, begin, size), (net.tensor(shape),), "SliceOptions")


def strided_slice(net: Network, x: End) -> End:
    """The first half of the last dimension."""
    shape = (*x.shape[:-1], max(1, x.shape[-1] // 2))
    bounds = [net.constant(each, "INT32") for each in ([0] * len(shape), shape, [1] * len(shape))]
    return net.node("STRIDED_SLICE", (x, *bounds), (net.tensor(shape),), "StridedSliceOptions")


def concatenation(net: Network, x: End) -> End:
    """Itself, twice to four times."""
    times = net.rng.randrange(2, 5)
    made = net.tensor((*x.shape[:-1], x.shape[-1] * times))
    return net.node("CONCATENATION", (x,) * times, (made,), "ConcatenationOptions", axis=len(x.shape) - 1)


def split(net: Network, x: End) -> End:
    """In two along the last dimension, when it is even."""
    if x.shape[-1] % 2:
        return x
    halves = [net.tensor((*x.shape[:-1], x.shape[-1] // 2)) for _ in range(2)]
    axis = net.constant(len(x.shape) - 1, "INT32", shape=())
    net.node("SPLIT", (axis, x), halves, "SplitOptions", numSplits=2)
    return net.node("ADD", halves, (net.tensor(halves[0].shape),), "AddOptions")


def split_v(net: Network, x: End) -> End:
    """One element and the rest."""
    if x.shape[-1] < 2:
        return x
    parts = [net.tensor((*x.shape[:-1], size)) for size in (1, x.shape[-1] - 1)]
    sizes, axis = net.constant([1, x.shape[-1] - 1], "INT32"), net.constant(len(x.shape) - 1, "INT32", shape=())
    net.node("SPLIT_V", (x, sizes, axis), parts, "SplitVOptions", numSplits=2)
    return parts[1]


def pack_unpack(net: Network, x: End) -> End:
    """Together and apart."""
    stacked = net.node("PACK", (x, x), (net.tensor((2, *x.shape)),), "PackOptions", valuesCount=2, axis=0)
    parts = [net.tensor(x.shape) for _ in range(2)]
    return net.node("UNPACK", (stacked,), parts, "UnpackOptions", num=2, axis=0)


def gather(net: Network, x: End) -> End:
    """The first element of the last dimension."""
    made = net.tensor((*x.shape[:-1], 1))
    return net.node("GATHER", (x, net.constant([0], "INT32")), (made,), "GatherOptions", axis=len(x.shape) - 1)


def gather_nd(net: Network, x: End) -> End:
    """One row."""
    made = net.tensor((1, *x.shape[1:]))
    return net.node("GATHER_ND", (x, net.constant([[0]], "INT32")), (made,), "GatherNdOptions")


def space_to_batch(net: Network, x: End) -> End:
    """There and back, when the sides are even."""
    if x.shape[1] % 2 or x.shape[2] % 2:
        return x
    block, none = net.constant([2, 2], "INT32"), net.constant([[0, 0], [0, 0]], "INT32")
    middle = net.tensor((4, x.shape[1] // 2, x.shape[2] // 2, x.shape[3]))
    net.node("SPACE_TO_BATCH_ND", (x, block, none), (middle,), "SpaceToBatchNDOptions")
    return net.node("BATCH_TO_SPACE_ND", (middle, block, none), (net.tensor(x.shape),), "BatchToSpaceNDOptions")


def space_to_depth(net: Network, x: End) -> End:
    """There and back, when the sides are even."""
    if x.shape[1] % 2 or x.shape[2] % 2:
        return x
    middle = net.tensor((1, x.shape[1] // 2, x.shape[2] // 2, x.shape[3] * 4))
    net.node("SPACE_TO_DEPTH", (x,), (middle,), "SpaceToDepthOptions", blockSize=2)
    return net.node("DEPTH_TO_SPACE", (middle,), (net.tensor(x.shape),), "DepthToSpaceOptions", blockSize=2)


def broadcast_to(net: Network, x: End) -> End:
    """Twice as many batches."""
    shape = (2, *x.shape[1:])
    made = net.node("BROADCAST_TO", (x, net.constant(shape, "INT32")), (net.tensor(shape),), "BroadcastToOptions")
    return slice_first(net, made)


def slice_first(net: Network, x: End) -> End:
    """The first batch."""
    shape = (1, *x.shape[1:])
    begin, size = net.constant([0] * len(shape), "INT32"), net.constant(shape, "INT32")
    return net.node("SLICE", (x, begin, size), (net.tensor(shape),), "SliceOptions")


def reduce_layer(name: str) -> Layer:
    """Return a layer that reduces the sides of an image, or the last dimension."""

    def reduce(net: Network, x: End) -> End:
        axes = [1, 2] if len(x.shape) == 4 else [len(x.shape) - 1]
        shape = tuple(1 if axis in axes else size for axis, size in enumerate(x.shape))
        made = net.tensor(shape)
        return net.node(name, (x, net.constant(axes, "INT32")), (made,), "ReducerOptions", version=2, keepDims=True)

    return reduce


def cumsum(net: Network, x: End) -> End:
    """Along the last dimension."""
    axis = net.constant(len(x.shape) - 1, "INT32", shape=())
    return net.node("CUMSUM", (x, axis), (net.tensor(x.shape),), "CumsumOptions")


def resize_layer(name: str, options: str) -> Layer:
    """Return a layer that doubles the sides."""

    def resize(net: Network, x: End) -> End:
        size = (x.shape[1] * 2, x.shape[2] * 2)
        made = net.tensor((1, *size, x.shape[3]))
        return net.node(name, (x, net.constant(size, "INT32")), (made,), options, version=2)

    return resize


def add_n(net: Network, x: End) -> End:
    """Of three."""
    return net.node("ADD_N", (x, x, x), (net.tensor(x.shape),), "AddNOptions")


def batch_matmul(net: Network, x: End) -> End:
    """By a constant matrix."""
    columns = net.rng.randrange(1, 17)
    right = net.weights((1,) * (len(x.shape) - 2) + (x.shape[-1], columns))
    made = net.tensor((*x.shape[:-1], columns))
    return net.node("BATCH_MATMUL", (x, right), (made,), "BatchMatMulOptions", version=2)


def batch_matmul_live(net: Network, x: End) -> End:
    """By its own transpose, from either side."""
    from_left = is_heads(net)
    side = x.shape[-1 if from_left else -2]
    made = net.tensor((*x.shape[:-2], side, side))
    return net.node(
        "BATCH_MATMUL", (x, x), (made,), "BatchMatMulOptions", version=2, adjX=from_left, adjY=not from_left
    )
