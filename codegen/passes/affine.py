"""Scale and shift per channel (batch norm and its relatives) -> weights and bias of a neighbour."""

from dataclasses import replace

import numpy as np

from codegen.graph import Graph, Node
from codegen.passes.cleanup import drop_dead
from codegen.passes.edit import Edit, per_channel
from codegen.types import DType

_WEIGHTED = ("Conv", "ConvTranspose", "Dense")
Vectors = tuple[np.ndarray, np.ndarray]


def fold_affine(graph: Graph) -> Graph:
    """Fold y = x * scale + shift back into the weighted operator that made x, through Concat,
    into another such node, or forward into the convolution that reads it; repeat until nothing
    changes."""
    edit = Edit(graph)
    changed = True
    while changed:
        changed = False
        for node in list(edit.nodes):
            if not any(node is n for n in edit.nodes):
                continue
            vectors = _vectors(edit, node)
            if vectors and (
                _back(edit, node, vectors)
                or _join(edit, node, vectors)
                or _through_concat(edit, node, vectors)
                or _forward(edit, node, vectors)
            ):
                changed = True
    return drop_dead(edit.graph())


def _data(edit: Edit, node: Node) -> str:
    """The input that is not a constant."""
    return next((t for t in node.inputs if t not in edit.constants), "")


def _vectors(edit: Edit, node: Node) -> Vectors | None:
    """(scale, shift), one float64 each per channel, where the node is such an operation on one
    tensor."""
    x = _data(edit, node)
    if node.activation or not x or edit.tensors[x].dtype != DType.F32:
        return None
    shape = edit.tensors[x].shape
    if shape != edit.tensors[node.outputs[0]].shape or len(shape) < 2:
        return None
    if node.op == "Affine":
        s, t = (edit.constants.get(name) for name in node.inputs[1:3])
        if s is None or t is None or node.attrs["axis"] != 1:
            return None
        return s.astype(np.float64), t.astype(np.float64)
    if node.op not in ("Add2", "Sub2", "Mul2", "Div2"):
        return None
    c = next((t for t in node.inputs if t in edit.constants), "")
    v = per_channel(edit.constants, c, shape) if c else None
    if v is None:
        return None
    one, zero, first = np.ones(shape[1]), np.zeros(shape[1]), node.inputs[0] == x
    if node.op == "Add2":
        return one, v
    if node.op == "Sub2":
        return (one, -v) if first else (-one, v)
    if node.op == "Mul2":
        return v, zero
    return (1 / v, zero) if first and np.all(v != 0) else None


def _plain(edit: Edit, node: Node | None) -> bool:
    """A weighted operator with constant weights and nothing fused yet."""
    return (
        node is not None
        and node.op in _WEIGHTED
        and not node.activation
        and not node.residual
        and all(t in edit.constants for t in node.inputs[1:] if t)
    )


def _scaled(edit: Edit, node: Node, scale: np.ndarray, shift: np.ndarray) -> Node:
    """The weighted operator with its result scaled and shifted."""
    w = edit.constants[node.inputs[1]].astype(np.float64)
    b = (
        edit.constants[node.inputs[2]].astype(np.float64)
        if len(node.inputs) > 2 and node.inputs[2]
        else 0.0
    )
    if node.op == "Conv":
        w = w * scale.reshape(-1, *(1,) * (w.ndim - 1))
    elif node.op == "Dense":
        w = w * scale
    else:
        groups = node.attrs["group"]
        per_group = scale.reshape(groups, 1, -1, *(1,) * (w.ndim - 2))
        w = (w.reshape(groups, -1, *w.shape[1:]) * per_group).reshape(w.shape)
    return replace(
        node,
        inputs=(
            node.inputs[0],
            edit.constant(f"{node.name}/w", w),
            edit.constant(f"{node.name}/b", b * scale + shift),
        ),
    )


def _back(edit: Edit, node: Node, v: Vectors) -> bool:
    x = _data(edit, node)
    maker = edit.producer(x)
    if not _plain(edit, maker) or not edit.only_user(x):
        return False
    edit.replace(maker, replace(_scaled(edit, maker, *v), outputs=node.outputs))
    edit.remove(node)
    return True


def _join(edit: Edit, node: Node, v: Vectors) -> bool:
    """Two in a row -> one Affine."""
    x = _data(edit, node)
    maker = edit.producer(x)
    first = _vectors(edit, maker) if maker is not None and edit.only_user(x) else None
    if not first:
        return False
    name = node.name
    scale = edit.constant(f"{name}/scale", first[0] * v[0])
    shift = edit.constant(f"{name}/shift", first[1] * v[0] + v[1])
    edit.replace(
        node,
        replace(node, op="Affine", inputs=(_data(edit, maker), scale, shift), attrs={"axis": 1}),
    )
    edit.remove(maker)
    return True


def _through_concat(edit: Edit, node: Node, v: Vectors) -> bool:
    x = _data(edit, node)
    concat = edit.producer(x)
    if (
        concat is None
        or concat.op != "Concat"
        or concat.attrs["axis"] != 1
        or not edit.only_user(x)
    ):
        return False
    makers = [edit.producer(t) for t in concat.inputs]
    if len(set(concat.inputs)) != len(makers) or not all(
        _plain(edit, m) and edit.only_user(t) for m, t in zip(makers, concat.inputs, strict=True)
    ):
        return False
    at = 0
    for maker, t in zip(makers, concat.inputs, strict=True):
        n = edit.tensors[t].shape[1]
        edit.replace(maker, _scaled(edit, maker, v[0][at : at + n], v[1][at : at + n]))
        at += n
    edit.replace(concat, replace(concat, outputs=node.outputs))
    edit.remove(node)
    return True


def _forward(edit: Edit, node: Node, v: Vectors) -> bool:
    """Into the convolution or dense layer that reads the result. Padding reads zeros, which the
    shift would miss."""
    y = node.outputs[0]
    users = edit.users(y)
    if not edit.only_user(y) or users[0].inputs[0] != y:
        return False
    user = users[0]
    if user.op not in ("Conv", "Dense") or not all(
        t in edit.constants for t in user.inputs[1:] if t
    ):
        return False
    if user.op == "Conv" and any(user.attrs["pads"]) and np.any(v[1]):
        return False
    w = edit.constants[user.inputs[1]].astype(np.float64)
    b = (
        edit.constants[user.inputs[2]].astype(np.float64)
        if len(user.inputs) > 2 and user.inputs[2]
        else 0.0
    )
    if user.op == "Dense":
        new_w, extra = w * v[0][:, None], v[1] @ w
    else:
        groups = user.attrs["group"]
        per_output = [
            np.repeat(vec.reshape(groups, 1, -1), w.shape[0] // groups, 1).reshape(w.shape[0], -1)
            for vec in v
        ]
        tail = (1,) * (w.ndim - 2)
        new_w = w * per_output[0].reshape(*w.shape[:2], *tail)
        extra = (w * per_output[1].reshape(*w.shape[:2], *tail)).reshape(w.shape[0], -1).sum(1)
    inputs = (
        _data(edit, node),
        edit.constant(f"{user.name}/w", new_w),
        edit.constant(f"{user.name}/b", b + extra),
    )
    edit.replace(user, replace(user, inputs=inputs))
    edit.remove(node)
    return True
