"""Reductions over any axes, and the position of the largest or smallest element along one axis.

The kernels keep the reduced dimensions as ones (`ReduceAxes`, `ArgAxis`); a Reshape drops them.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np

from codegen.graph import Tensor
from codegen.ops.base import (
    Attrs,
    Case,
    Inferred,
    OpDef,
    Shape,
    Unsupported,
    around,
    axis_of,
    strides_of,
)
from codegen.types import DType

_REDUCERS = {"sum": np.sum, "mean": np.sum, "max": np.max, "min": np.min, "prod": np.prod}


def _axes_normalise(
    attrs: dict[str, Any], ins: Sequence[Tensor | None], opset: int
) -> dict[str, Any]:
    rank, axes = len(ins[0].shape), attrs["axes"]
    if not axes:
        return {"axes": () if attrs["noop_with_empty_axes"] else tuple(range(rank))}
    return {"axes": tuple(sorted({axis_of(int(a), rank) for a in axes}))}


def _kept(at: Attrs, ins: Sequence[Tensor | None]) -> Inferred:
    shape = (1 if i in at["axes"] else e for i, e in enumerate(ins[0].shape))
    return [(tuple(shape), ins[0].dtype)]


def _infer(at: Attrs, ins: Sequence[Tensor | None]) -> Inferred:
    if at["keepdims"]:
        return _kept(at, ins)
    shape = tuple(e for i, e in enumerate(ins[0].shape) if i not in at["axes"])
    return [(shape, ins[0].dtype)]


def _lowest(dtype: np.dtype, fn: str) -> Any:
    """What max or min of nothing is."""
    if dtype.kind == "b":
        return fn == "min"
    info = None if dtype.kind == "f" else np.iinfo(dtype)
    if fn == "max":
        return info.min if info else -np.inf
    return info.max if info else np.inf


def _reference(at: Attrs, x: np.ndarray) -> np.ndarray:
    fn, axes = at["fn"], at["axes"]
    empty = {"initial": _lowest(x.dtype, fn)} if fn in ("max", "min") and not x.size else {}
    y = _REDUCERS[fn](x, axis=axes, keepdims=True, **empty)
    if fn != "mean":
        return y
    count = int(np.prod([x.shape[a] for a in axes], dtype=np.int64))
    return y / count if x.dtype.kind == "f" else np.trunc(y / count).astype(x.dtype)


def reduce_dims(at: Attrs, ins: Sequence[Shape], outs: Sequence[Shape]) -> dict[str, Any]:
    """Fewest alternating loops: `extents`, x strides `xs` and, per loop, whether it is `reduced`.

    A mean is a sum times `scale`. `form` names the two patterns that have kernels of their own and
    their sizes: `outer` times, "inner" takes `count` neighbours, "outer" `count` rows of `inner`.
    """
    extents: list[int] = []
    reduced: list[int] = []
    for i, e in enumerate(ins[0]):
        flag = int(i in at["axes"])
        if e == 1:
            continue
        if extents and reduced[-1] == flag:
            extents[-1] *= e
        else:
            extents.append(e)
            reduced.append(flag)
    extents, reduced = extents or [1], reduced or [0]
    mean = at["fn"] == "mean"
    count = int(np.prod([ins[0][a] for a in at["axes"]], dtype=np.int64))
    return dict(
        extents=extents,
        xs=strides_of(tuple(extents)),
        reduced=reduced,
        fn="sum" if mean else at["fn"],
        scale=1 / count if mean and count else 1.0,
        **_form(extents, reduced),
    )


def _form(extents: list[int], reduced: list[int]) -> dict[str, Any]:
    """A leading loop that is not reduced may be absent."""
    full = extents if not reduced[0] else [1, *extents]
    pattern = reduced if not reduced[0] else [0, *reduced]
    if pattern == [0, 1]:
        return dict(form="inner", outer=full[0], count=full[1], inner=1)
    if pattern == [0, 1, 0]:
        return dict(form="outer", outer=full[0], count=full[1], inner=full[2])
    return dict(form="general")


def _reduced(b, node, x: str, fn: str, name: str, outs: Sequence[str] | None) -> str:
    """Reduce `x` as the node says; nothing to do over no axes."""
    axes = node.attrs["axes"]
    if node.attrs["keepdims"] or not axes:
        return b.add("ReduceAxes", [x], {"fn": fn, "axes": axes}, name, outs)[0]
    shape = _infer(node.attrs, [b.tensors[x]])[0][0]
    y = b.add("ReduceAxes", [x], {"fn": fn, "axes": axes}, name)[0]
    return b.add("Reshape", [y], {"shape": shape}, f"{name}/dropped", outs)[0]


def _plain(fn: str):
    def expand(b, node) -> None:
        if not node.attrs["axes"]:
            b.add("Identity", node.inputs, {}, node.name, node.outputs)
        else:
            _reduced(b, node, node.inputs[0], fn, node.name, node.outputs)

    return expand


def _composite(before: str = "", after: str = ""):
    """A sum with an elementwise function before or after it."""

    def expand(b, node) -> None:
        x = node.inputs[0]
        if before == "Mul":
            x = b.add("Mul", [x, x], {}, f"{node.name}/square")[0]
        elif before:
            x = b.add(before, [x], {}, f"{node.name}/{before.lower()}")[0]
        if after:
            y = _reduced(b, node, x, "sum", f"{node.name}/sum", None)
            b.add(after, [y], {}, node.name, node.outputs)
        else:
            _reduced(b, node, x, "sum", node.name, node.outputs)

    return expand


def _log_sum_exp(b, node) -> None:
    """max + log(sum(exp(x - max))), which cannot overflow."""
    x = node.inputs[0]
    top = b.add("ReduceAxes", [x], {"fn": "max", "axes": node.attrs["axes"]}, f"{node.name}/max")[0]
    d = b.add("Sub", [x, top], {}, f"{node.name}/shifted")[0]
    e = b.add("Exp", [d], {}, f"{node.name}/exp")[0]
    total = _reduced(b, node, e, "sum", f"{node.name}/sum", None)
    log = b.add("Log", [total], {}, f"{node.name}/log")[0]
    top = b.add("Reshape", [top], {"shape": b.tensors[log].shape}, f"{node.name}/top")[0]
    b.add("Add", [log, top], {}, node.name, node.outputs)


_CASES = (
    Case(((2, 5, 4, 3),), {"axes": (2, 3)}),
    Case(((1, 18, 7, 7),), {"axes": (-1, -2)}),
    Case(((2, 5, 4, 3),), {"axes": (1,), "keepdims": 0}),
    Case(((3, 4, 5),), {"keepdims": 0}),
    Case(((2, 3, 4, 5),), {"axes": (0, 2)}),
    Case(((3, 1, 4),), {"axes": (1,)}),
)
_TILES = (
    *((n, 1) for n in (1, 15, 16, 17, 49)),
    *((7, n) for n in (3, 4, 5, 16, 33)),
    *((400, 20), (50, 164), (3, 800)),  # blocks of rows
)
_AXES = {"axes": None, "keepdims": 1, "noop_with_empty_axes": 0}


def _reduction(name: str, expand) -> OpDef:
    return OpDef(
        name,
        _infer,
        expand=expand,
        attrs=_AXES,
        const_inputs={1: "axes"},
        normalise=_axes_normalise,
        cases=_CASES,
    )


# ---- ArgMax, ArgMin -----------------------------------------------------------------------------


def _arg_normalise(
    attrs: dict[str, Any], ins: Sequence[Tensor | None], opset: int
) -> dict[str, Any]:
    return {"axes": (axis_of(attrs["axis"], len(ins[0].shape)),)}


def _arg_infer(at: Attrs, ins: Sequence[Tensor | None]) -> Inferred:
    return [(_infer(at, ins)[0][0], DType.I64)]


def _arg_expand(fn: str):
    def expand(b, node) -> None:
        how = {"axis": node.attrs["axes"][0], "fn": fn, "last": node.attrs["select_last_index"]}
        if node.attrs["keepdims"]:
            b.add("ArgAxis", node.inputs, how, node.name, node.outputs)
            return
        shape = _arg_infer(node.attrs, [b.tensors[node.inputs[0]]])[0][0]
        y = b.add("ArgAxis", node.inputs, how, node.name)[0]
        b.add("Reshape", [y], {"shape": shape}, f"{node.name}/dropped", node.outputs)

    return expand


def _arg_axis_infer(at: Attrs, ins: Sequence[Tensor | None]) -> Inferred:
    shape = list(ins[0].shape)
    if not shape[at["axis"]]:
        raise Unsupported(f"the position of an element among none ({ins[0].shape})")
    shape[at["axis"]] = 1
    return [(tuple(shape), DType.I64)]


def _arg_reference(at: Attrs, x: np.ndarray) -> np.ndarray:
    find, axis = (np.argmax if at["fn"] == "max" else np.argmin), at["axis"]
    if not at["last"]:
        return find(x, axis=axis, keepdims=True)
    return x.shape[axis] - 1 - find(np.flip(x, axis), axis=axis, keepdims=True)


def _arg_dims(at: Attrs, ins: Sequence[Shape], outs: Sequence[Shape]) -> dict[str, Any]:
    return dict(around(ins[0], at["axis"]), fn=at["fn"], last=at["last"])


_ARG_CASES = (
    Case(((2, 5, 3, 4),), {"axis": 1}),
    Case(((3, 17),), {"axis": -1, "keepdims": 0}),
    Case(
        (np.array([[1, 3, 3, 2], [4, 4, 0, 0]], np.float32),), {"axis": 1, "select_last_index": 1}
    ),
)


def _arg(name: str, fn: str) -> OpDef:
    return OpDef(
        name,
        _arg_infer,
        expand=_arg_expand(fn),
        normalise=_arg_normalise,
        attrs={"axis": 0, "keepdims": 1, "select_last_index": 0},
        cases=_ARG_CASES,
    )


OPS = (
    OpDef(
        "ReduceAxes",
        _kept,
        _reference,
        "reduce",
        reduce_dims,
        attrs={"fn": "sum", "axes": ()},
        axis_attrs=("axes",),
        cases=(
            *(
                Case(((2, 5, 4, 3),), {"fn": fn, "axes": axes})
                for fn in _REDUCERS
                for axes in ((2, 3), (1,), (0, 2), (0, 1, 2, 3))
            ),
            *(
                Case(((outer, n, inner),), {"fn": fn, "axes": (1,)})
                for fn, outer in (("mean", 2), ("max", 1))
                for n, inner in _TILES
            ),
        ),
    ),
    *(_reduction(f"Reduce{fn.capitalize()}", _plain(fn)) for fn in _REDUCERS),
    _reduction("ReduceL1", _composite("Abs")),
    _reduction("ReduceL2", _composite("Mul", "Sqrt")),
    _reduction("ReduceSumSquare", _composite("Mul")),
    _reduction("ReduceLogSum", _composite("", "Log")),
    _reduction("ReduceLogSumExp", _log_sum_exp),
    OpDef(
        "ArgAxis",
        _arg_axis_infer,
        _arg_reference,
        "argmax",
        _arg_dims,
        attrs={"axis": 0, "fn": "max", "last": 0},
        axis_attrs=("axis",),
        cases=tuple(
            Case(((2, 5, 3, 4),), {"axis": a, "fn": fn, "last": last})
            for a, fn, last in ((1, "max", 0), (3, "min", 0), (0, "max", 1))
        ),
    ),
    _arg("ArgMax", "max"),
    _arg("ArgMin", "min"),
)
