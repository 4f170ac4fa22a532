"""Layers that convert, remember, and run other subgraphs."""

from math import prod

import numpy as np

from bench.layers_shape import reshape
from bench.network import End, Layer, Network


def requantize(net: Network, x: End) -> End:
    """To another scale; or from float to int8 and back."""
    middle = net.node("QUANTIZE", (x,), (net.tensor(x.shape, "INT8", scale=(0.1, 3)),), "QuantizeOptions")
    if x.kind == "FLOAT32":
        return net.node("DEQUANTIZE", (middle,), (net.tensor(x.shape),), "DequantizeOptions", version=2)
    return net.node("QUANTIZE", (middle,), (net.tensor(x.shape),), "QuantizeOptions")


def dequantize(net: Network, x: End) -> End:
    """To float and back."""
    if x.kind == "FLOAT32":
        return requantize(net, x)
    middle = net.node("DEQUANTIZE", (x,), (net.tensor(x.shape, "FLOAT32"),), "DequantizeOptions", version=2)
    return net.node("QUANTIZE", (middle,), (net.tensor(x.shape),), "QuantizeOptions")


def cast(net: Network, x: End) -> End:
    """To INT32 and back."""
    middle = net.node("CAST", (x,), (net.tensor(x.shape, "INT32"),), "CastOptions")
    return net.node("CAST", (middle,), (net.tensor(x.shape),), "CastOptions")


def arg_layer(name: str, options: str) -> Layer:
    """Return a layer that finds the extreme of the last dimension."""

    def arg(net: Network, x: End) -> End:
        axis = net.constant(len(x.shape) - 1, "INT32", shape=())
        made = net.node(name, (x, axis), (net.tensor(x.shape[:-1], "INT32"),), options, version=2, outputType=2)
        back = net.node("CAST", (made,), (net.tensor(x.shape[:-1]),), "CastOptions")
        return net.node(
            "EXPAND_DIMS",
            (back, net.constant(-1, "INT32", shape=())),
            (net.tensor((*x.shape[:-1], 1)),),
            "ExpandDimsOptions",
        )

    return arg


def fill(net: Network, x: End) -> End:
    """A tensor of its shape, added."""
    made = net.node(
        "FILL",
        (net.constant(x.shape, "INT32"), net.constant(np.ones(()), x.kind, shape=())),
        (net.tensor(x.shape),),
        "FillOptions",
    )
    return net.node("ADD", (x, made), (net.tensor(x.shape),), "AddOptions")


def reverse(net: Network, x: End) -> End:
    """The last dimension."""
    axes = net.constant([len(x.shape) - 1], "INT32")
    return net.node("REVERSE_V2", (x, axes), (net.tensor(x.shape),), "ReverseV2Options", version=2)


def svdf(net: Network, x: End) -> End:
    """With state."""
    units, memory, rank = net.rng.randrange(2, 20), net.rng.randrange(2, 12), net.rng.choice((1, 2))
    features, count = units * rank, prod(x.shape[1:])
    if len(x.shape) != 2:
        x = reshape(net, x)
    by_time = net.constant(
        np.ones((features, memory)), "INT16" if net.kind == "INT8" else "FLOAT32", scales=[(0.01, 0)]
    )
    by_feature = net.weights((features, count))
    bias = net.bias(units, per_channel=False)
    state = net.tensor(
        (1, memory * features), "INT16" if net.kind == "INT8" else "FLOAT32", scale=(0.05, 0), variable=True
    )
    made = net.tensor((1, units))
    return net.node("SVDF", (x, by_feature, by_time, bias, state), (made,), "SVDFOptions", version=3, rank=rank)


def lstm(net: Network, x: End) -> End:
    """Over the next to last dimension as time."""
    count, units = x.shape[-1], net.rng.randrange(2, 17)
    times = prod(x.shape) // count
    x = net.node(
        "RESHAPE", (x, net.constant((1, times, count), "INT32")), (net.tensor((1, times, count)),), "ReshapeOptions"
    )
    by_input = [net.weights((units, count)) for _ in range(4)]
    by_state = [net.weights((units, units)) for _ in range(4)]
    biases = [net.bias(units, per_channel=False) for _ in range(4)]
    is_int = net.kind == "INT8"
    state = net.tensor((1, units), variable=True)
    cell = net.tensor((1, units), "INT16" if is_int else "FLOAT32", scale=(2.0**-11, 0), variable=True)
    operands = [x, *by_input, *by_state, None, None, None, *biases, None, None, state, cell, None, None, None, None]
    made = net.tensor((1, times, units))
    return net.node(
        "UNIDIRECTIONAL_SEQUENCE_LSTM",
        operands,
        (made,),
        "UnidirectionalSequenceLSTMOptions",
        version=3,
        fusedActivationFunction=4,
    )


def stream(net: Network, x: End) -> End:
    """Keep the newest values in a resource variable: how streaming models remember."""
    name = f"v{net.rng.randrange(10**6)}"
    here = net.subgraph
    once = net.begin_subgraph()
    handle = net.node(
        "VAR_HANDLE", (), (net.tensor((), "RESOURCE", scale=None),), "VarHandleOptions", sharedName=name, container=""
    )
    net.node("ASSIGN_VARIABLE", (handle, net.constant(np.zeros(x.shape), x.kind)), (), "AssignVariableOptions")
    net.go_to_subgraph(here)
    net.node("CALL_ONCE", (), (), "CallOnceOptions", initSubgraphIndex=once)
    handle = net.node(
        "VAR_HANDLE", (), (net.tensor((), "RESOURCE", scale=None),), "VarHandleOptions", sharedName=name, container=""
    )
    before = net.node("READ_VARIABLE", (handle,), (net.tensor(x.shape),), "ReadVariableOptions")
    both = net.node("ADD", (x, before), (net.tensor(x.shape),), "AddOptions")
    net.node("ASSIGN_VARIABLE", (handle, both), (), "AssignVariableOptions")
    return both


def while_(net: Network, x: End) -> End:
    """Never entered: the condition is false at once."""
    here = net.subgraph
    condition = net.begin_subgraph()
    given = net.tensor(x.shape)
    flat = net.node(
        "REDUCE_MAX",
        (given, net.constant(list(range(len(x.shape))), "INT32")),
        (net.tensor(()),),
        "ReducerOptions",
        version=2,
    )
    net.end_subgraph([given], [net.node("GREATER", (flat, flat), (net.tensor((), "BOOL"),), "GreaterOptions")])
    body = net.begin_subgraph()
    given = net.tensor(x.shape)
    net.end_subgraph([given], [net.node("RELU", (given,), (net.tensor(x.shape),))])
    net.go_to_subgraph(here)
    made = net.tensor(x.shape)
    return net.node("WHILE", (x,), (made,), "WhileOptions", condSubgraphIndex=condition, bodySubgraphIndex=body)


def if_(net: Network, x: End) -> End:
    """Two ways."""
    here = net.subgraph
    ways = []
    for name in ("RELU", "ABS" if net.kind == "FLOAT32" else "RELU6"):
        ways.append(net.begin_subgraph())
        given = net.tensor(x.shape)
        net.end_subgraph([given], [net.node(name, (given,), (net.tensor(x.shape),))])
    net.go_to_subgraph(here)
    which = net.input((1,), "BOOL")
    return net.node(
        "IF", (which, x), (net.tensor(x.shape),), "IfOptions", thenSubgraphIndex=ways[0], elseSubgraphIndex=ways[1]
    )
