"""Graph -> a LiteRT flatbuffer: how each operator is written."""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from codegen.graph import Activation, Graph, Node
from codegen.ops import OPS
from codegen.peers.base import PeerError
from codegen.peers.tflite_writer import TO_NHWC, UNARY, Writer

_BINARY = {"Add2": ("ADD", "AddOptionsT"), "Mul2": ("MUL", "MulOptionsT"),
           "Sub": ("SUB", "SubOptionsT"), "Div": ("DIV", "DivOptionsT")}  # fmt: skip


def write_tflite(graph: Graph) -> bytes:
    """The network with float32 tensors; PeerError for what this writer does not know."""
    return Writer(graph).model(_OPERATORS)


def _covers(d: Mapping[str, Any]) -> bool:
    """Do windows without padding end where these do? (Padding that no window reaches may go.)"""
    return all(
        (d[size] - (d[k] - 1) * d[dil] - 1) // d[s] + 1 == d[out]
        for size, k, s, dil, out in (("h", "kh", "sh", "dh", "oh"), ("w", "kw", "sw", "dw", "ow"))
    )


def _same(d: Mapping[str, Any]) -> bool:
    """TensorFlow's SAME: ceil(size / stride) positions, the odd pad at the end."""
    for size, k, s, dil, out, begin in (("h", "kh", "sh", "dh", "oh", "pt"),
                                        ("w", "kw", "sw", "dw", "ow", "pl")):  # fmt: skip
        positions = -(-d[size] // d[s])
        total = max((positions - 1) * d[s] + (d[k] - 1) * d[dil] + 1 - d[size], 0)
        if d[out] != positions or d[begin] != total // 2:
            return False
    return True


def _padding(w: Writer, node: Node, d: Mapping[str, Any], fill: float | None) -> tuple[int, int]:
    """The input tensor, padded by an operator of its own where LiteRT's SAME and VALID do not
    fit, and the number of the padding."""
    source = w.value(node.inputs[0])
    kinds = w.s.Padding
    if not (d["pt"] or d["pl"]) and _covers(d):
        return source, kinds.VALID
    if _same(d):
        return source, kinds.SAME
    if fill is None:
        raise PeerError(f"padding of {node.op} {node.name!r} is not written for LiteRT")
    pads = np.int32([[0, 0], [d["pt"], d["pb"]], [d["pl"], d["pr"]], [0, 0]])
    n, height, width, c = w.tensors[source].shape
    shape = (n, height + d["pt"] + d["pb"], width + d["pl"] + d["pr"], c)
    padded = w.tensor(f"{node.name}/padded", shape)
    sizes = w.constant(f"{node.name}/pads", pads)
    if fill == 0:
        w.emit("PAD", (source, sizes), padded, w.s.PadOptionsT())
    else:
        value = w.constant(f"{node.name}/fill", np.float32(fill).reshape(1))
        w.emit("PADV2", (source, sizes, value), padded, w.s.PadV2OptionsT())
    return padded, kinds.VALID


def _dims(w: Writer, node: Node) -> Mapping[str, Any]:
    g = w.graph
    if len(g.tensors[node.inputs[0]].shape) != 4:
        raise PeerError(f"1-d {node.op} is not written for LiteRT")
    ins = [g.tensors[t].shape for t in node.inputs if t]
    return OPS[node.op].dims(node.attrs, ins, [g.tensors[t].shape for t in node.outputs])


def _conv(w: Writer, node: Node) -> None:
    d, g = _dims(w, node), w.graph
    weights = g.constants.get(node.inputs[1])
    if weights is None:
        raise PeerError("convolution with computed weights is not written for LiteRT")
    depthwise = d["groups"] == d["c"] and d["groups"] > 1
    if d["groups"] > 1 and not depthwise:
        raise PeerError("grouped convolution is not written for LiteRT")
    source, padding = _padding(w, node, d, 0.0)
    # OHWI, and 1HWO for depthwise
    kernel = weights.transpose((1, 2, 3, 0) if depthwise else TO_NHWC)
    bias = g.constants[node.inputs[2]] if len(node.inputs) > 2 and node.inputs[2] else None
    bias = np.zeros(d["m"], np.float32) if bias is None else bias
    inputs = (source, w.constant(f"{node.name}/w", kernel), w.constant(f"{node.name}/b", bias))

    def make(output: int, act: int) -> None:
        if depthwise:
            options = w.s.DepthwiseConv2DOptionsT(
                padding, d["sw"], d["sh"], d["m"] // d["c"], act, d["dw"], d["dh"]
            )
            w.emit("DEPTHWISE_CONV_2D", inputs, output, options)
        else:
            options = w.s.Conv2DOptionsT(padding, d["sw"], d["sh"], act, d["dw"], d["dh"])
            w.emit("CONV_2D", inputs, output, options)

    w.finish(node, make)


def _dense(w: Writer, node: Node) -> None:
    weights = w.graph.constants.get(node.inputs[1])
    if weights is None or weights.ndim != 2:
        raise PeerError("a matrix product with computed weights is not written for LiteRT")
    inputs = [w.value(node.inputs[0]), w.constant(f"{node.name}/w", weights.T)]
    if len(node.inputs) > 2 and node.inputs[2]:
        inputs.append(w.constant(f"{node.name}/b", w.graph.constants[node.inputs[2]].reshape(-1)))
    w.finish(node, lambda out, act: w.emit("FULLY_CONNECTED", inputs, out,
                                           w.s.FullyConnectedOptionsT(act)))  # fmt: skip


def _pool(w: Writer, node: Node) -> None:
    d = _dims(w, node)
    if d["dh"] > 1 or d["dw"] > 1:
        raise PeerError("dilated pooling is not written for LiteRT")
    average = node.op == "AveragePool"
    fill = (0.0 if d["include_pad"] else None) if average else -3.0e38
    if average and d["include_pad"] and _same(d) and (d["pt"] or d["pl"]):
        raise PeerError("average pooling that counts its padding is not written for LiteRT")
    source, padding = _padding(w, node, d, fill)
    options = w.s.Pool2DOptionsT(padding, d["sw"], d["sh"], d["kw"], d["kh"], 0)
    w.emit("AVERAGE_POOL_2D" if average else "MAX_POOL_2D", (source,),
           w.value(node.outputs[0]), options)  # fmt: skip


def _reduce(w: Writer, node: Node) -> None:
    rank = len(w.graph.tensors[node.inputs[0]].shape)
    if node.attrs["fn"] not in ("mean", "max", "sum"):
        raise PeerError(f"reduction {node.attrs['fn']} is not written for LiteRT")
    axes = [a % rank for a in node.attrs["axes"]]
    axes = [TO_NHWC.index(a) for a in axes] if rank == 4 else axes
    code = {"mean": "MEAN", "max": "REDUCE_MAX", "sum": "SUM"}[node.attrs["fn"]]
    kept = w.constant(f"{node.name}/axes", np.int32(sorted(axes)))
    w.emit(code, (w.value(node.inputs[0]), kept), w.value(node.outputs[0]),
           w.s.ReducerOptionsT(True))  # fmt: skip


def _concat(w: Writer, node: Node) -> None:
    rank = len(w.graph.tensors[node.inputs[0]].shape)
    axis = node.attrs["axis"] % rank
    axis = TO_NHWC.index(axis) if rank == 4 else axis
    w.emit("CONCATENATION", [w.value(t) for t in node.inputs], w.value(node.outputs[0]),
           w.s.ConcatenationOptionsT(axis))  # fmt: skip


def _reshape(w: Writer, node: Node) -> None:
    """The elements in ONNX order, then the new shape, then LiteRT's order again."""
    source, name = w.in_onnx_order(node.inputs[0]), node.outputs[0]
    shape, target = w.graph.tensors[name].shape, w.value(node.outputs[0])
    if len(shape) != 4 or shape[1] == 1 or shape[2] * shape[3] == 1:
        w.reshape(source, target)
        return
    flat = w.tensor(f"{name}/nchw", shape)
    w.reshape(source, flat)
    perm = w.constant(f"{name}/perm", np.int32(TO_NHWC))
    w.emit("TRANSPOSE", (flat, perm), target, w.s.TransposeOptionsT())


def _transpose(w: Writer, node: Node) -> None:
    """The permutation as stored; a reshape where only dimensions of extent 1 move."""
    source, target = w.value(node.inputs[0]), w.value(node.outputs[0])
    perm = tuple(node.attrs["perm"])
    if len(perm) == 4:
        perm = tuple(TO_NHWC.index(perm[i]) for i in TO_NHWC)
    sizes = w.tensors[source].shape
    moved = [p for p in perm if sizes[p] > 1]
    if moved == sorted(moved):
        w.reshape(source, target)
    else:
        order = w.constant(f"{node.name}/perm", np.int32(perm))
        w.emit("TRANSPOSE", (source, order), target, w.s.TransposeOptionsT())


def _shuffle(w: Writer, node: Node) -> None:
    """Stored channels as [groups][channels of a group], transposed."""
    source, target = w.value(node.inputs[0]), w.value(node.outputs[0])
    *pixels, channels = w.tensors[source].shape
    groups = node.attrs["groups"]
    split = (int(np.prod(pixels)), groups, channels // groups)
    parts = w.tensor(f"{node.name}/split", split)
    swapped = w.tensor(f"{node.name}/swapped", (split[0], split[2], split[1]))
    order = w.constant(f"{node.name}/perm", np.int32((0, 2, 1)))
    w.reshape(source, parts)
    w.emit("TRANSPOSE", (parts, order), swapped, w.s.TransposeOptionsT())
    w.reshape(swapped, target)


def _softmax(w: Writer, node: Node) -> None:
    shape = w.graph.tensors[node.inputs[0]].shape
    last = 1 if len(shape) == 4 else len(shape) - 1
    if node.attrs["axis"] % len(shape) != last:
        raise PeerError("softmax over another than the last stored axis is not written for LiteRT")
    source, target = w.value(node.inputs[0]), w.value(node.outputs[0])
    if node.attrs.get("log"):
        w.emit("LOG_SOFTMAX", (source,), target, w.s.LogSoftmaxOptionsT())
    else:
        w.emit("SOFTMAX", (source,), target, w.s.SoftmaxOptionsT(1.0))


def _binary(w: Writer, node: Node) -> None:
    ranks = {len(w.graph.tensors[t].shape) for t in node.inputs}
    sizes = [w.graph.tensors[t].size for t in node.inputs]
    if len(ranks) > 1 and min(sizes) > 1:
        raise PeerError(f"{node.op} of tensors of different rank is not written for LiteRT")
    code, options = _BINARY[node.op]
    inputs = [w.value(t) for t in node.inputs]
    w.finish(node, lambda out, act: w.emit(code, inputs, out, getattr(w.s, options)(act)))


def _unary(w: Writer, node: Node) -> None:
    args = tuple(node.attrs.get(k) for k in OPS[node.op].attrs)
    act = Activation(node.op, args)
    w.unary(act, w.value(node.inputs[0]), w.value(node.outputs[0]))


_OPERATORS: Mapping[str, Callable[[Writer, Node], None]] = {
    "Conv": _conv, "Dense": _dense, "MaxPool": _pool, "AveragePool": _pool,
    "ReduceAxes": _reduce, "Concat": _concat, "Reshape": _reshape, "Transpose": _transpose,
    "ShuffleChannels": _shuffle,
    "SoftmaxAxis": _softmax, **dict.fromkeys(_BINARY, _binary),
    **dict.fromkeys(("Relu", "Clip", "LeakyRelu", "HardSigmoid", *UNARY), _unary),
}  # fmt: skip
