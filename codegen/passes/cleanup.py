"""Dead nodes, equal nodes, and data movement that moves nothing."""

from dataclasses import replace

import numpy as np

from codegen.graph import Graph
from codegen.passes.edit import Edit


def drop_dead(graph: Graph) -> Graph:
    """Remove nodes whose results nobody reads, and constants nobody reads."""
    edit = Edit(graph)
    needed = set(graph.outputs)
    kept = []
    for node in reversed(edit.nodes):
        if needed & set(node.outputs):
            kept.append(node)
            needed |= set(node.reads)
    edit.nodes = kept[::-1]
    return edit.graph()


def merge_equal(graph: Graph) -> Graph:
    """Common subexpressions: the second of two equal nodes becomes the first. Equal constants
    count as one."""
    edit = Edit(graph)
    first_constant: dict[tuple, str] = {}
    same: dict[str, str] = {}
    for name, value in graph.constants.items():
        same[name] = first_constant.setdefault(
            (value.shape, value.dtype.str, value.tobytes()), name
        )
    seen: dict[tuple, tuple[str, ...]] = {}
    for node in graph.nodes:
        node = next(n for n in edit.nodes if n.name == node.name)
        key = (
            node.op,
            tuple(same.get(t, t) for t in node.inputs),
            _frozen(node.attrs),
            node.residual,
            node.activation,
        )
        if key not in seen:
            seen[key] = node.outputs
        elif not set(node.outputs) & set(graph.outputs):
            for old, new in zip(node.outputs, seen[key], strict=True):
                edit.redirect(old, new)
            edit.nodes = [n for n in edit.nodes if n.name != node.name]
    return edit.graph()


def _frozen(attrs) -> tuple:
    return tuple(
        sorted((k, v.tobytes() if isinstance(v, np.ndarray) else repr(v)) for k, v in attrs.items())
    )


def drop_moves(graph: Graph) -> Graph:
    """Reshape of Reshape, Transpose of Transpose, and either of them where it changes nothing."""
    edit = Edit(graph)
    for name in [n.name for n in graph.nodes if n.op in ("Reshape", "Transpose")]:
        node = next(n for n in edit.nodes if n.name == name)
        before = edit.producer(node.inputs[0])
        if before is not None and before.op == node.op:
            attrs = dict(node.attrs)
            if node.op == "Transpose":
                attrs["perm"] = tuple(before.attrs["perm"][p] for p in node.attrs["perm"])
            joined = replace(node, inputs=before.inputs, attrs=attrs)
            edit.replace(node, joined)
            node = joined
        same = (
            edit.tensors[node.inputs[0]].shape == edit.tensors[node.outputs[0]].shape
            if node.op == "Reshape"
            else list(node.attrs["perm"]) == sorted(node.attrs["perm"])
        )
        if same and edit.redirect(node.outputs[0], node.inputs[0]):
            edit.nodes = [n for n in edit.nodes if n.name != name]
    return drop_dead(edit.graph())
