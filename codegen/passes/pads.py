"""Zero padding in front of a window operator becomes the operator's own padding."""

from dataclasses import replace
from typing import Any

from codegen.graph import Graph, Node
from codegen.passes.cleanup import drop_dead
from codegen.passes.edit import Edit

# Functions whose results are never negative.
_NOT_NEGATIVE = ("Relu", "Sigmoid", "HardSigmoid", "Abs", "Exp", "Sqrt")


def fold_pads(graph: Graph) -> Graph:
    """Pad(0) -> Conv, AveragePool that counts its padding, or MaxPool over values that cannot be
    negative."""
    edit = Edit(graph)
    for node in graph.nodes:
        pad = edit.producer(node.inputs[0]) if node.inputs else None
        if pad is None or pad.op != "PadDims" or not _spatial_zeros(pad):
            continue
        attrs = _padded(edit, node, pad)
        if attrs:
            edit.replace(node, replace(node, inputs=(pad.inputs[0], *node.inputs[1:]), attrs=attrs))
    return drop_dead(edit.graph())


def _spatial_zeros(pad: Node) -> bool:
    outer = (*pad.attrs["begin"][:2], *pad.attrs["end"][:2])
    return pad.attrs["mode"] == "constant" and pad.attrs["value"] == 0 and not any(outer)


def _padded(edit: Edit, node: Node, pad: Node) -> dict[str, Any] | None:
    """Attributes of `node` with the padding of `pad` as well; None where that is not the same."""
    if node.op not in ("Conv", "MaxPool", "AveragePool"):
        return None
    more = (*pad.attrs["begin"][2:], *pad.attrs["end"][2:])
    pads = tuple(a + b for a, b in zip(node.attrs["pads"], more, strict=True))
    attrs = {**node.attrs, "pads": pads}
    if node.op == "Conv":
        return attrs
    kernel = node.attrs["kernel_shape"]
    inside = all(p < k for p, k in zip(pads, (*kernel, *kernel), strict=True))
    if node.attrs["ceil_mode"] or {*node.attrs["dilations"]} != {1} or not inside:
        return None  # a window could lie wholly in the padding, or reach beyond it
    if node.op == "MaxPool":
        return attrs if _not_negative(edit.producer(pad.inputs[0])) else None
    if any(node.attrs["pads"]) and not node.attrs["count_include_pad"]:
        return None  # the zeros of the Pad count, the node's own padding does not
    return {**attrs, "count_include_pad": 1}


def _not_negative(maker: Node | None) -> bool:
    """Are zeros beside these values without effect on a maximum?"""
    if maker is None:
        return False
    if maker.op == "Clip":
        return maker.attrs["min"] >= 0
    if maker.op == "SoftmaxAxis":
        return not maker.attrs["log"]
    return maker.op in _NOT_NEGATIVE
