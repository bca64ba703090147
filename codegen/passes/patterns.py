"""Activations that exporters write as several nodes -> one node."""

import math
from dataclasses import replace

from codegen.graph import Graph, Node
from codegen.passes.cleanup import drop_dead
from codegen.passes.edit import Edit, scalar_of


def recognise_activations(graph: Graph) -> Graph:
    """Clip(x + 3, 0, 6) / 6 -> HardSigmoid; x * HardSigmoid(x) -> HardSwish; x * Sigmoid(x) ->
    Silu; Clip(0, max) -> Relu; and x * Clip(x + 3, 0, 6) / 6 in that order of operations."""
    edit = Edit(graph)
    changed = True
    while changed:
        changed = False
        for node in list(edit.nodes):
            if any(node is n for n in edit.nodes) and _rewrite(edit, node):
                changed = True
    return drop_dead(edit.graph())


def _rewrite(edit: Edit, node: Node) -> bool:
    new = (
        _relu(node)
        or _hardsigmoid(edit, node)
        or _product(edit, node)
        or _product_then_scale(edit, node)
    )
    if new is None:
        return False
    edit.replace(node, new)
    return True


def _unary(node: Node, op: str, source: str, **attrs: float) -> Node:
    return replace(node, op=op, inputs=(source,), attrs=attrs)


def _relu(node: Node) -> Node | None:
    if node.op == "Clip" and node.attrs["min"] == 0.0 and node.attrs["max"] > 3e38:
        return _unary(node, "Relu", node.inputs[0])
    return None


def _scaled(edit: Edit, node: Node) -> tuple[str, float] | None:
    """(x, factor) where the node is x * factor or x / (1 / factor)."""
    if node.op not in ("Mul2", "Div2"):
        return None
    factor = scalar_of(edit.constants, node.inputs[1])
    if factor:
        return node.inputs[0], factor if node.op == "Mul2" else 1.0 / factor
    factor = scalar_of(edit.constants, node.inputs[0])
    return (node.inputs[1], factor) if factor and node.op == "Mul2" else None


def _clip_of_shifted(edit: Edit, tensor: str) -> str | None:
    """x where the tensor is Clip(x + 3, 0, 6)."""
    clip = edit.producer(tensor)
    if clip is None or clip.op != "Clip" or (clip.attrs["min"], clip.attrs["max"]) != (0.0, 6.0):
        return None
    add = edit.producer(clip.inputs[0])
    if add is None or add.op != "Add2":
        return None
    for x, c in (add.inputs, add.inputs[::-1]):
        if scalar_of(edit.constants, c) == 3.0:
            return x
    return None


def _is_sixth(factor: float) -> bool:
    return math.isclose(factor, 1 / 6, rel_tol=1e-6)


def _hardsigmoid(edit: Edit, node: Node) -> Node | None:
    scaled = _scaled(edit, node)
    if not scaled or not _is_sixth(scaled[1]):
        return None
    x = _clip_of_shifted(edit, scaled[0])
    if x is None:
        return None
    return _unary(node, "HardSigmoid", x, alpha=1 / 6, beta=0.5)


def _product(edit: Edit, node: Node) -> Node | None:
    """x * sigmoid(x), x * hardsigmoid(x)."""
    if node.op != "Mul2":
        return None
    for x, gate in (node.inputs, node.inputs[::-1]):
        maker = edit.producer(gate)
        if maker is None or maker.inputs[:1] != (x,):
            continue
        if maker.op == "Sigmoid":
            return _unary(node, "Silu", x)
        if (
            maker.op == "HardSigmoid"
            and _is_sixth(maker.attrs["alpha"])
            and maker.attrs["beta"] == 0.5
        ):
            return _unary(node, "HardSwish", x)
    return None


def _product_then_scale(edit: Edit, node: Node) -> Node | None:
    """(x * Clip(x + 3, 0, 6)) / 6."""
    scaled = _scaled(edit, node)
    if not scaled or not _is_sixth(scaled[1]):
        return None
    product = edit.producer(scaled[0])
    if product is None or product.op != "Mul2":
        return None
    for x, gate in (product.inputs, product.inputs[::-1]):
        if _clip_of_shifted(edit, gate) == x:
            return _unary(node, "HardSwish", x)
    return None
