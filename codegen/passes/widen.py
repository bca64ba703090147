"""float16 becomes float32: what a graph computes in half precision, it computes in single."""

from dataclasses import replace

import numpy as np

from codegen.graph import Graph, Node
from codegen.passes.edit import Edit
from codegen.types import DType


def has_half(graph: Graph) -> bool:
    """Is anything float16?"""
    return any(t.dtype == DType.F16 for t in graph.tensors.values())


def widen(graph: Graph) -> Graph:
    """Every float16 tensor as float32, those of the caller too; casts between the two are gone."""
    tensors = {
        k: replace(t, dtype=DType.F32) if t.dtype == DType.F16 else t
        for k, t in graph.tensors.items()
    }
    constants = {
        k: v.astype(np.float32) if v.dtype == np.float16 else v for k, v in graph.constants.items()
    }
    nodes = tuple(map(_wide, graph.nodes))
    edit = Edit(replace(graph, tensors=tensors, constants=constants, nodes=nodes))
    for node in [n for n in edit.nodes if n.op == "Cast" and _is_idle(edit, n)]:
        now = next(n for n in edit.nodes if n.name == node.name)
        bypass(edit, now)
    return edit.graph()


def _wide(node: Node) -> Node:
    to_half = node.op == "Cast" and node.attrs["to"] == DType.F16.value
    return replace(node, attrs={**node.attrs, "to": DType.F32.value}) if to_half else node


def _is_idle(edit: Edit, node: Node) -> bool:
    source, target = edit.tensors[node.inputs[0]], edit.tensors[node.outputs[0]]
    return source.dtype == target.dtype


def bypass(edit: Edit, node: Node) -> None:
    """Remove a node that changes nothing. Where its result is an output of the network, who makes
    its input makes that, or else it becomes a copy."""
    source, target = node.inputs[0], node.outputs[0]
    maker = edit.producer(source)
    if edit.redirect(target, source):
        edit.remove(node)
    elif maker is not None and source not in edit.source.outputs:
        edit.remove(node)
        edit.redirect(source, target)
        outputs = tuple(target if t == source else t for t in maker.outputs)
        now = next(n for n in edit.nodes if n.name == maker.name)
        edit.replace(now, replace(now, outputs=outputs))
    else:
        edit.replace(node, replace(node, op="Copy", attrs={}))
