"""Layers that compute: with weights, and element by element."""

from math import prod

import numpy as np

from bench.network import PLAIN, End, Layer, Network, Scale, is_heads, strided


def conv_2d(net: Network, x: End) -> End:
    """Same-padded, random kernel, stride and channels."""
    kernel, stride, channels = net.rng.choice((1, 3, 5)), net.rng.choice((1, 1, 2)), net.rng.randrange(1, 33)
    height, width = x.shape[1:3]
    made = net.tensor((1, strided(height, stride), strided(width, stride), channels))
    weights = net.weights((channels, kernel, kernel, x.shape[3]), channels_axis=0)
    bias = net.bias(channels, per_channel=True)
    return net.node("CONV_2D", (x, weights, bias), (made,), "Conv2DOptions", version=3, strideW=stride, strideH=stride)


def depthwise_conv_2d(net: Network, x: End) -> End:
    """Multiplier 1 or 2."""
    stride, multiplier = net.rng.choice((1, 2)), net.rng.choice((1, 1, 2))
    channels = x.shape[3] * multiplier
    made = net.tensor((1, strided(x.shape[1], stride), strided(x.shape[2], stride), channels))
    weights = net.weights((1, 3, 3, channels), channels_axis=3)
    bias = net.bias(channels, per_channel=True)
    return net.node(
        "DEPTHWISE_CONV_2D", (x, weights, bias), (made,), "DepthwiseConv2DOptions",
        version=3, strideW=stride, strideH=stride, depthMultiplier=multiplier,
    )  # fmt: skip


def transpose_conv(net: Network, x: End) -> End:
    """Stride 2."""
    channels = net.rng.randrange(1, 17)
    shape = (1, x.shape[1] * 2, x.shape[2] * 2, channels)
    weights = net.weights((channels, 3, 3, x.shape[3]), channels_axis=0)
    operands = [net.constant(shape, "INT32"), weights, x]
    version = 1
    if is_heads(net):
        operands.append(net.bias(channels, per_channel=True))
        version = 3
    return net.node(
        "TRANSPOSE_CONV", operands, (net.tensor(shape),), "TransposeConvOptions", version=version, strideW=2, strideH=2
    )


def fully_connected(net: Network, x: End) -> End:
    """Flattens; with and without bias."""
    units = net.rng.randrange(1, 65)
    count = prod(x.shape)
    made = net.tensor((1, units))
    bias = net.bias(units, per_channel=False) if net.rng.random() < 0.7 else None
    return net.node(
        "FULLY_CONNECTED", (x, net.weights((units, count)), bias), (made,), "FullyConnectedOptions", version=4
    )


def fully_connected_per_channel(net: Network, x: End) -> End:
    """One scale per unit."""
    units = net.rng.randrange(2, 65)
    weights, bias = net.weights((units, prod(x.shape)), channels_axis=0), net.bias(units, per_channel=True)
    made = net.tensor((1, units))
    return net.node("FULLY_CONNECTED", (x, weights, bias), (made,), "FullyConnectedOptions", version=12)


def pool_layer(name: str) -> Layer:
    """Return a pooling layer: windows of 2 by 2."""

    def pool(net: Network, x: End) -> End:
        made = net.tensor((1, strided(x.shape[1], 2), strided(x.shape[2], 2), x.shape[3]))
        sizes = {"strideW": 2, "strideH": 2, "filterWidth": 2, "filterHeight": 2}
        return net.node(name, (x,), (made,), "Pool2DOptions", version=2, **sizes)

    return pool


def unary_layer(name: str, options: str = "", *, scale: Scale = PLAIN, version: int = 1, **settings: object) -> Layer:
    """Return a layer of one operand."""

    def unary(net: Network, x: End) -> End:
        made = net.node(name, (x,), (net.tensor(x.shape, x.kind, scale=scale),), options, version=version, **settings)
        if scale == PLAIN or net.kind == "FLOAT32":
            return made
        return net.node(
            "QUANTIZE", (made,), (net.tensor(x.shape),), "QuantizeOptions"
        )  # what follows may want equal scales

    return unary


def binary_layer(name: str, options: str = "", *, version: int = 1) -> Layer:
    """Return a layer of two: a constant, another input, or itself twice."""

    def binary(net: Network, x: End) -> End:
        if name.startswith("FLOOR") or is_heads(net):
            other = net.constant(np.ones(x.shape[-1:]), x.kind)
        else:
            other = net.input(x.shape, x.kind) if len(net.inputs) < 4 else x
        return net.node(name, (x, other), (net.tensor(x.shape, x.kind),), options, version=version)

    return binary


def compare_layer(name: str) -> Layer:
    """Return a layer that compares, and selects by the outcome."""

    def compare(net: Network, x: End) -> End:
        made = net.node(
            name,
            (x, net.constant(np.ones(x.shape[-1:]), x.kind)),
            (net.tensor(x.shape, "BOOL"),),
            name.title().replace("_", "") + "Options",
        )
        other = net.node("LOGICAL_NOT", (made,), (net.tensor(x.shape, "BOOL"),), "LogicalNotOptions")
        both = net.node("LOGICAL_AND", (made, other), (net.tensor(x.shape, "BOOL"),), "LogicalAndOptions")
        return net.node("SELECT_V2", (both, x, x), (net.tensor(x.shape, x.kind),), "SelectV2Options")

    return compare


def prelu(net: Network, x: End) -> End:
    """One slope per channel."""
    return net.node(
        "PRELU", (x, net.constant(np.ones((1,) * (len(x.shape) - 1) + x.shape[-1:]), x.kind)), (net.tensor(x.shape),)
    )
