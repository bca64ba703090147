"""Operators that are a few others: no kernels of their own."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from codegen.graph import Tensor
from codegen.ops.base import Attrs, Case, Inferred, OpDef, Unsupported, broadcast, same_as_first
from codegen.types import DType


def _scalar(b, name: str, value: Any, tensor: str) -> str:
    return b.constant(name, np.asarray(value, b.tensors[tensor].dtype.numpy))


def _gelu_expand(b, node) -> None:
    """x/2 (1 + erf(x / sqrt 2)), or x/2 (1 + tanh(sqrt(2/pi) (x + 0.044715 x^3)))."""
    x, n = node.inputs[0], node.name
    if node.attrs["approximate"] == "tanh":
        square = b.add("Mul", [x, x], {}, f"{n}/square")[0]
        square = b.add("Mul", [square, _scalar(b, f"{n}/a", 0.044715, x)], {}, f"{n}/term")[0]
        square = b.add("Add", [square, _scalar(b, f"{n}/one", 1, x)], {}, f"{n}/series")[0]
        inner = b.add("Mul", [x, square], {}, f"{n}/cubic")[0]
        factor, function = math.sqrt(2 / math.pi), "Tanh"
    else:
        inner, factor, function = x, math.sqrt(0.5), "Erf"
    inner = b.add("Mul", [inner, _scalar(b, f"{n}/factor", factor, x)], {}, f"{n}/scaled")[0]
    e = b.add(function, [inner], {}, f"{n}/{function.lower()}")[0]
    e = b.add("Add", [e, _scalar(b, f"{n}/plus", 1, x)], {}, f"{n}/shifted")[0]
    half = b.add("Mul", [x, _scalar(b, f"{n}/half", 0.5, x)], {}, f"{n}/halved")[0]
    b.add("Mul", [half, e], {}, n, node.outputs)


def _swish_expand(b, node) -> None:
    x, alpha = node.inputs[0], node.attrs["alpha"]
    if alpha == 1.0:
        b.add("Silu", [x], {}, node.name, node.outputs)
        return
    inner = b.add(
        "Mul", [x, _scalar(b, f"{node.name}/alpha", alpha, x)], {}, f"{node.name}/scaled"
    )[0]
    gate = b.add("Sigmoid", [inner], {}, f"{node.name}/gate")[0]
    b.add("Mul", [x, gate], {}, node.name, node.outputs)


def _mean_expand(b, node) -> None:
    total = b.add("Sum", node.inputs, {}, f"{node.name}/sum")[0]
    share = _scalar(b, f"{node.name}/share", 1 / len(node.inputs), total)
    b.add("Mul", [total, share], {}, node.name, node.outputs)


def _not_expand(b, node) -> None:
    b.add(
        "Xor",
        [node.inputs[0], b.constant(f"{node.name}/true", np.asarray(True))],
        {},
        node.name,
        node.outputs,
    )


def _cast_like_infer(at: Attrs, ins: Sequence[Tensor | None]) -> Inferred:
    return [(ins[0].shape, ins[1].dtype)]


def _cast_like_expand(b, node) -> None:
    b.add(
        "Cast",
        node.inputs[:1],
        {"to": b.tensors[node.inputs[1]].dtype.value},
        node.name,
        node.outputs,
    )


def _trilu_infer(at: Attrs, ins: Sequence[Tensor | None]) -> Inferred:
    if len(ins[0].shape) < 2:
        raise Unsupported(f"Trilu of a tensor of rank {len(ins[0].shape)}")
    return same_as_first(at, ins)


def _trilu_expand(b, node) -> None:
    """Where, with the triangle as a constant."""
    x, k = node.inputs[0], int(np.ravel(node.attrs["k"])[0])
    rows, columns = b.tensors[x].shape[-2:]
    keep = np.triu if node.attrs["upper"] else np.tril
    mask = b.constant(f"{node.name}/triangle", keep(np.ones((rows, columns), np.bool_), k))
    b.add("Where", [mask, x, _scalar(b, f"{node.name}/zero", 0, x)], {}, node.name, node.outputs)


_HALVES = np.array([[-3, -0.5], [0, 2.25]], np.float32)

OPS = (
    OpDef(
        "Gelu",
        same_as_first,
        expand=_gelu_expand,
        attrs={"approximate": "none"},
        cases=(Case(((2, 7),)), Case(((2, 7),), {"approximate": "tanh"})),
    ),
    OpDef(
        "Swish",
        same_as_first,
        expand=_swish_expand,
        attrs={"alpha": 1.0},
        cases=(Case(((2, 7),)), Case(((2, 7),), {"alpha": 0.5})),
    ),
    OpDef(
        "Mean",
        broadcast,
        expand=_mean_expand,
        cases=(Case(((2, 3),)), Case(((2, 3), (2, 3), (2, 3)))),
    ),
    OpDef(
        "Not",
        lambda at, ins: [(ins[0].shape, DType.BOOL)],
        expand=_not_expand,
        cases=(Case(((2, 5),)),),
    ),
    OpDef(
        "CastLike",
        _cast_like_infer,
        expand=_cast_like_expand,
        ignored=("saturate", "round_mode"),
        cases=(
            Case(
                (_HALVES, np.zeros(1, np.int32)),
            ),
        ),
    ),
    OpDef(
        "Trilu",
        _trilu_infer,
        expand=_trilu_expand,
        attrs={"k": 0, "upper": 1},
        const_inputs={1: "k"},
        cases=(Case(((4, 5),)), Case(((2, 3, 3),), {"k": -1, "upper": 0})),
    ),
)
