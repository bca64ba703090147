"""Zero padding in front of a window operator becomes the operator's own padding."""

from dataclasses import replace

import numpy as np

from codegen.graph import Graph, Node
from codegen.passes.cleanup import drop_dead
from codegen.passes.edit import Edit

# Functions whose results are never negative: a maximum over them may read zeros where it would skip the border.
_NOT_NEGATIVE = {"Relu", "Sigmoid", "HardSigmoid", "Softmax", "Abs", "Exp"}


def fold_pads(graph: Graph) -> Graph:
    """Pad(0) -> Conv, AveragePool that counts its padding, or MaxPool over values that cannot be negative."""
    edit = Edit(graph)
    for node in graph.nodes:
        if node.op not in ("Conv", "MaxPool", "AveragePool"):
            continue
        pad = edit.producer(node.inputs[0])
        if pad is None or pad.op != "Pad" or not _spatial_zero(pad) or not _may_fold(edit, node, pad):
            continue
        begin, end = pad.attrs["begin"][2:], pad.attrs["end"][2:]
        nd = len(begin)
        pads = [a + b for a, b in zip(node.attrs["pads"], (*begin, *end), strict=True)]
        attrs = {**node.attrs, "pads": tuple(pads)}
        if any(p >= k for p, k in zip(pads, (*node.attrs["kernel_shape"],) * 2, strict=True)) and node.op != "Conv":
            continue  # a window may then lie wholly in the padding
        assert len(pads) == 2 * nd
        edit.replace(node, replace(node, inputs=(pad.inputs[0], *node.inputs[1:]), attrs=attrs))
    return drop_dead(edit.graph())


def _spatial_zero(pad: Node) -> bool:
    return (pad.attrs["mode"] == "constant" and np.all(np.asarray(pad.attrs["value"]) == 0)
            and not any((*pad.attrs["begin"][:2], *pad.attrs["end"][:2]))
            and min((*pad.attrs["begin"], *pad.attrs["end"])) >= 0)


def _may_fold(edit: Edit, node: Node, pad: Node) -> bool:
    if node.op == "Conv":
        return True
    if node.op == "AveragePool":
        return bool(node.attrs["count_include_pad"] or not any(node.attrs["pads"])) and not node.attrs["ceil_mode"] and (
            bool(node.attrs["count_include_pad"]))
    maker = edit.producer(pad.inputs[0])
    return maker is not None and not any(node.attrs["pads"]) and not node.attrs["ceil_mode"] and (
        maker.op in _NOT_NEGATIVE or (maker.op == "Clip" and maker.attrs["min"] >= 0))
