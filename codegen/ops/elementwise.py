"""Elementwise operators: unary functions, and binary ones with numpy broadcasting.

A unary OpDef's `args` are the attributes that its C function `cg_<op>_f32(x, args...)` takes, in
order; the same function serves when the operator is fused into the store of another kernel.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from scipy import special

from codegen.graph import Tensor
from codegen.ops.base import (
    Attrs,
    Case,
    Inferred,
    OpDef,
    Shape,
    Unsupported,
    broadcast,
    merge_dims,
    same_as_first,
    strides_of,
)
from codegen.types import DType

_UNARY_CASES = (Case(((2, 3, 5),)), Case(((1, 7, 4, 3),)))


def unary(c_name: str, name: str, reference, attrs: Attrs | None = None, **kw: Any) -> OpDef:
    """An elementwise function of one tensor; `attrs` are its scalar parameters with their
    defaults, in order."""
    order = tuple(attrs or ())

    def dims(at: Attrs, ins: Sequence[Shape], outs: Sequence[Shape]) -> dict[str, Any]:
        return dict(
            size=int(np.prod(ins[0], dtype=np.int64)), fn=c_name, args=[float(at[a]) for a in order]
        )

    kw.setdefault("cases", _UNARY_CASES)
    return OpDef(name, same_as_first, reference, "unary", dims, attrs=attrs or {}, **kw)


def args_of(op: OpDef, attrs: Attrs) -> tuple[float, ...]:
    """The scalar parameters of a unary operator in the order of its C function."""
    return tuple(float(attrs[a]) for a in op.attrs)


def _clip_bounds(attrs: dict[str, Any], ins: Sequence[Tensor | None], opset: int) -> dict[str, Any]:
    limit = float(np.finfo(np.float32).max)
    out = {
        k: float(np.ravel(v)[0]) if v is not None else d
        for k, v, d in (("min", attrs.get("min"), -limit), ("max", attrs.get("max"), limit))
    }
    return {k: float(np.clip(v, -limit, limit)) for k, v in out.items()}


def _sigmoid(at: Attrs, x: np.ndarray) -> np.ndarray:
    return special.expit(x)


UNARY = (
    unary("relu", "Relu", lambda at, x: np.maximum(x, 0)),
    unary(
        "clip",
        "Clip",
        lambda at, x: np.clip(x, at["min"], at["max"]),
        {"min": None, "max": None},
        const_inputs={1: "min", 2: "max"},
        normalise=_clip_bounds,
        cases=(Case(((2, 3, 5),), {"min": -0.5, "max": 0.75}), Case(((1, 7, 4, 3),), {"min": 0.0})),
    ),
    unary("sigmoid", "Sigmoid", _sigmoid),
    unary("silu", "Silu", lambda at, x: x * special.expit(x)),
    unary(
        "hardsigmoid",
        "HardSigmoid",
        lambda at, x: np.clip(at["alpha"] * x + at["beta"], 0, 1),
        {"alpha": 0.2, "beta": 0.5},
    ),
    unary("hardswish", "HardSwish", lambda at, x: x * np.clip(x / 6 + 0.5, 0, 1)),
    unary(
        "leaky_relu",
        "LeakyRelu",
        lambda at, x: np.where(x < 0, at["alpha"] * x, x),
        {"alpha": 0.01},
    ),
    unary(
        "elu", "Elu", lambda at, x: np.where(x < 0, at["alpha"] * np.expm1(x), x), {"alpha": 1.0}
    ),
    unary(
        "celu",
        "Celu",
        lambda at, x: np.maximum(x, 0) + np.minimum(0, at["alpha"] * np.expm1(x / at["alpha"])),
        {"alpha": 1.0},
    ),
    unary(
        "selu",
        "Selu",
        lambda at, x: at["gamma"] * np.where(x <= 0, at["alpha"] * np.expm1(x), x),
        {"alpha": 1.67326319217681884765625, "gamma": 1.05070102214813232421875},
    ),
    unary("softplus", "Softplus", lambda at, x: np.logaddexp(x, 0)),
    unary("softsign", "Softsign", lambda at, x: x / (1 + np.abs(x))),
    unary(
        "thresholded_relu",
        "ThresholdedRelu",
        lambda at, x: np.where(x > at["alpha"], x, 0),
        {"alpha": 1.0},
    ),
    unary("mish", "Mish", lambda at, x: x * np.tanh(np.logaddexp(x, 0))),
    unary("tanh", "Tanh", lambda at, x: np.tanh(x)),
    unary("exp", "Exp", lambda at, x: np.exp(x)),
    unary("log", "Log", lambda at, x: np.log(x)),
    unary("sqrt", "Sqrt", lambda at, x: np.sqrt(x)),
    unary("reciprocal", "Reciprocal", lambda at, x: 1 / x),
    unary("erf", "Erf", lambda at, x: special.erf(x)),
    unary("abs", "Abs", lambda at, x: np.abs(x)),
    unary("neg", "Neg", lambda at, x: -x),
    unary("floor", "Floor", lambda at, x: np.floor(x)),
    unary("ceil", "Ceil", lambda at, x: np.ceil(x)),
    unary("round", "Round", lambda at, x: np.rint(x)),
    unary("sign", "Sign", lambda at, x: np.sign(x)),
    unary("sin", "Sin", lambda at, x: np.sin(x)),
    unary("cos", "Cos", lambda at, x: np.cos(x)),
)


def _same_rank(b, node) -> tuple[str, ...]:
    """The operands, each reshaped (or, for constants, stored) with leading ones up to the
    largest rank."""
    rank = max(len(b.tensors[t].shape) for t in node.inputs)
    out = []
    for i, name in enumerate(node.inputs):
        shape = b.tensors[name].shape
        wanted = (*(1,) * (rank - len(shape)), *shape)
        out.append(
            name
            if shape == wanted
            else b.add("Reshape", [name], {"shape": wanted}, f"{node.name}/rank{i}")[0]
        )
    return tuple(out)


def binary_dims(c_name: str):
    """The sizes of two operands with broadcasting: fewest loops, and the form of the inner one."""

    def dims(at: Attrs, ins: Sequence[Shape], outs: Sequence[Shape]) -> dict[str, Any]:
        strides = [
            [0 if e == 1 else s for e, s in zip(shape, strides_of(shape), strict=True)]
            for shape in ins
        ]
        extents, (*operands, out) = merge_dims(outs[0], *strides, strides_of(outs[0]))
        size = int(np.prod(outs[0], dtype=np.int64))
        inner = [s[-1] for s in operands]
        form = {(1, 1): "same", (1, 0): "row_scalar", (0, 1): "scalar_row"}.get(
            tuple(inner), "general"
        )
        return dict(extents=extents, strides=operands, ys=out, size=size, fn=c_name, form=form)

    return dims


def _aligned(expanded: str):
    def expand(b, node) -> None:
        b.add(expanded, _same_rank(b, node), node.attrs, node.name, node.outputs)

    return expand


def _bool(at: Attrs, ins: Sequence[Tensor | None]) -> Inferred:
    return [(broadcast(at, ins)[0][0], DType.BOOL)]


_BINARY_CASES = (
    Case(((2, 3, 5), (2, 3, 5))),
    Case(((1, 7, 4, 3), (7, 1, 1)), {}, (1,)),
    Case(((2, 3), (4, 1, 3))),
    Case(((1, 6, 5, 5), ())),
)
_CANONICAL_CASES = (
    Case(((2, 3, 5), (2, 3, 5))),
    Case(((1, 7, 4, 3), (1, 7, 1, 1)), {}, (1,)),
    Case(((1, 6, 5, 5), (1, 1, 1, 1))),
    Case(((1, 1, 1), (2, 3, 9)), {}, (0,)),
    Case(((2, 1, 3), (1, 4, 3))),
    Case(((1, 9), (5, 9))),
)


def _expand_pow(b, node) -> None:
    """The exponent may have another type than the base; a floating base gives it its own."""
    base, exponent = _same_rank(b, node)
    dtype = b.tensors[base].dtype
    if dtype.numpy.kind == "f" and b.tensors[exponent].dtype != dtype:
        exponent = b.add("Cast", [exponent], {"to": dtype.value}, f"{node.name}/exponent")[0]
    b.add("Pow2", [base, exponent], {}, node.name, node.outputs)


def binary(c_name: str, name: str, reference, infer=broadcast, **kw: Any) -> tuple[OpDef, OpDef]:
    """The ONNX operator, which broadcasts over unequal ranks, and its canonical form `<name>2`
    on equal ranks."""
    canonical = OpDef(
        f"{name}2",
        infer,
        reference,
        "binary",
        binary_dims(c_name),
        fuses=("activation",) if infer is broadcast and c_name != "pow" else (),
        cases=_CANONICAL_CASES,
        **kw,
    )
    expand = _expand_pow if c_name == "pow" else _aligned(canonical.name)
    return OpDef(name, infer, expand=expand, cases=_BINARY_CASES, **kw), canonical


def _expand_nary(op: str):
    """Sum, Min, Max of any number of operands -> a chain of binary operators."""

    def expand(b, node) -> None:
        left = node.inputs[0]
        if len(node.inputs) == 1:
            b.add("Identity", [left], {}, node.name, node.outputs)
            return
        for i, right in enumerate(node.inputs[1:], 1):
            last = i == len(node.inputs) - 1
            left = b.add(
                op,
                [left, right],
                {},
                node.name if last else f"{node.name}/{i}",
                node.outputs if last else None,
            )[0]

    return expand


def _nary(name: str, op: str) -> OpDef:
    return OpDef(
        name,
        broadcast,
        expand=_expand_nary(op),
        cases=(Case(((2, 3),)), Case(((2, 3), (2, 3))), Case(((2, 3, 4), (3, 1), (4,)))),
    )


def _divide(at: Attrs, a: np.ndarray, b: np.ndarray) -> np.ndarray:
    if np.issubdtype(
        a.dtype, np.integer
    ):  # ONNX integer division truncates towards zero, as C does
        return (np.sign(a) * np.sign(b) * (np.abs(a) // np.abs(b))).astype(a.dtype)
    return a / b


def _prelu(at: Attrs, x: np.ndarray, slope: np.ndarray) -> np.ndarray:
    return np.where(x < 0, x * slope, x)


BINARY = (
    *binary("add", "Add", lambda at, a, b: a + b),
    *binary("sub", "Sub", lambda at, a, b: a - b),
    *binary("mul", "Mul", lambda at, a, b: a * b),
    *binary("div", "Div", _divide),
    *binary("pow", "Pow", lambda at, a, b: np.power(a, b)),
    *binary("prelu", "PRelu", _prelu),
    *binary("max", "Maximum", lambda at, a, b: np.maximum(a, b)),
    *binary("min", "Minimum", lambda at, a, b: np.minimum(a, b)),
    *binary("equal", "Equal", lambda at, a, b: a == b, _bool),
    *binary("less", "Less", lambda at, a, b: a < b, _bool),
    *binary("less_equal", "LessOrEqual", lambda at, a, b: a <= b, _bool),
    *binary("greater", "Greater", lambda at, a, b: a > b, _bool),
    *binary("greater_equal", "GreaterOrEqual", lambda at, a, b: a >= b, _bool),
    *binary("and", "And", lambda at, a, b: a & b, _bool),
    *binary("or", "Or", lambda at, a, b: a | b, _bool),
    *binary("xor", "Xor", lambda at, a, b: a ^ b, _bool),
)
NARY = (_nary("Sum", "Add"), _nary("Max", "Maximum"), _nary("Min", "Minimum"))


def _infer_where(at: Attrs, ins: Sequence[Tensor | None]) -> Inferred:
    return [(broadcast(at, ins)[0][0], ins[1].dtype)]


WHERE = (
    OpDef(
        "Where",
        _infer_where,
        expand=_aligned("Where3"),
        cases=(Case((np.array([[True], [False]]), (2, 3), (3,)), {}),),
    ),
    OpDef(
        "Where3",
        _infer_where,
        lambda at, c, a, b: np.where(c, a, b),
        "where",
        binary_dims("where"),
        cases=(Case((np.array([[True], [False]]), (2, 3), (1, 3)), {}),),
    ),
)


def _cast_infer(at: Attrs, ins: Sequence[Tensor | None]) -> Inferred:
    return [(ins[0].shape, DType(at["to"]))]


def _cast_normalise(
    attrs: dict[str, Any], ins: Sequence[Tensor | None], opset: int
) -> dict[str, Any]:
    if isinstance(attrs["to"], str):
        return {"to": attrs["to"]}
    try:
        return {"to": DType.from_onnx(attrs["to"]).value}
    except KeyError:
        raise Unsupported(f"Cast to ONNX element type {attrs['to']}") from None


def _cast_dims(at: Attrs, ins: Sequence[Shape], outs: Sequence[Shape]) -> dict[str, Any]:
    return dict(size=int(np.prod(ins[0], dtype=np.int64)), to=at["to"])


CAST = (
    OpDef(
        "Cast",
        _cast_infer,
        lambda at, x: x.astype(DType(at["to"]).numpy),
        "cast",
        _cast_dims,
        attrs={"to": None},
        ignored=("saturate", "round_mode"),
        normalise=_cast_normalise,
        cases=(
            Case(((3, 4),), {"to": "i32"}),
            Case((np.array([[0, 3, -2]], np.int32),), {"to": "f32"}),
            Case(((3, 7),), {"to": "f16"}),
            Case(((2, 3, 5),), {"to": "f32"}),
        ),
    ),
)
OPS = (*UNARY, *BINARY, *NARY, *WHERE, *CAST)
