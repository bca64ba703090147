"""A channel shuffle, which exporters write as Reshape, Transpose, Reshape -> one node, which any
layout can compute: the tensor of five dimensions in the middle has ONNX order only."""

from dataclasses import replace

from codegen.graph import Graph, Node
from codegen.passes.cleanup import drop_dead
from codegen.passes.edit import Edit


def recognise_shuffles(graph: Graph) -> Graph:
    """Channels as [groups][c / groups], transposed -> ShuffleChannels."""
    edit = Edit(graph)
    for node in graph.nodes:
        source = _shuffled(edit, node) if node.op == "Reshape" else None
        if source:
            x, groups = source
            how = {"groups": groups, "axis": 1}
            edit.replace(node, replace(node, op="ShuffleChannels", inputs=(x,), attrs=how))
    return drop_dead(edit.graph())


def _shuffled(edit: Edit, node: Node) -> tuple[str, int] | None:
    """(x, groups) where the node is the last Reshape of a shuffle of x."""
    swap = edit.producer(node.inputs[0])
    split = edit.producer(swap.inputs[0]) if swap and swap.op == "Transpose" else None
    if split is None or split.op != "Reshape":
        return None
    before = edit.tensors[split.inputs[0]].shape
    middle = edit.tensors[split.outputs[0]].shape
    perm = (0, 2, 1, *range(3, len(middle)))
    if len(before) < 3 or len(middle) < 4 or tuple(swap.attrs["perm"]) != perm:
        return None
    if edit.tensors[node.outputs[0]].shape != before or middle[0] != before[0]:
        return None
    return (split.inputs[0], middle[1]) if middle[1] * middle[2] == before[1] else None
