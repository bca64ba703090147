"""Operators that move or rename data: views (no code at all), transposes, concatenation,
constants."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from codegen.graph import Tensor
from codegen.ops.base import (
    REQUIRED,
    Attrs,
    Case,
    Inferred,
    OpDef,
    Shape,
    Unsupported,
    around,
    axis_of,
    merge_dims,
    same_as_first,
    strides_of,
)
from codegen.types import DType


def _reshape_normalise(
    attrs: dict[str, Any], ins: Sequence[Tensor | None], opset: int
) -> dict[str, Any]:
    x, wanted = ins[0], [int(v) for v in attrs["shape"]]
    if not attrs["allowzero"]:
        wanted = [x.shape[i] if v == 0 and i < len(x.shape) else v for i, v in enumerate(wanted)]
    if wanted.count(-1) == 1:
        rest = -int(np.prod(wanted, dtype=np.int64))
        if rest == 0 or x.size % rest:
            raise Unsupported(f"cannot reshape {x.shape} to {tuple(wanted)}")
        wanted[wanted.index(-1)] = x.size // rest
    if int(np.prod(wanted, dtype=np.int64)) != x.size:
        raise Unsupported(f"cannot reshape {x.shape} to {tuple(wanted)}")
    return {"shape": tuple(wanted), "allowzero": 1}


def _as_reshape(shape_of):
    """An operator that only renames dimensions -> Reshape to `shape_of(attrs, tensor)`."""

    def expand(b, node) -> None:
        shape = shape_of(node.attrs, b.tensors[node.inputs[0]])
        b.add("Reshape", node.inputs[:1], {"shape": tuple(shape)}, node.name, node.outputs)

    return expand


def _renames(name: str, shape_of, cases: tuple[Case, ...], **kw: Any) -> OpDef:
    def infer(at: Attrs, ins: Sequence[Tensor | None]) -> Inferred:
        return [(tuple(shape_of(at, ins[0])), ins[0].dtype)]

    return OpDef(name, infer, expand=_as_reshape(shape_of), cases=cases, **kw)


def _flatten(at: Attrs, x: Tensor) -> Shape:
    axis, rank = at["axis"], len(x.shape)
    if not -rank <= axis <= rank:
        raise Unsupported(f"axis {axis} is outside a tensor of rank {rank}")
    axis += rank if axis < 0 else 0
    return int(np.prod(x.shape[:axis], dtype=np.int64)), int(
        np.prod(x.shape[axis:], dtype=np.int64)
    )


def _squeeze(at: Attrs, x: Tensor) -> Shape:
    axes = at["axes"]
    drop = (
        {i for i, e in enumerate(x.shape) if e == 1}
        if axes is None
        else {axis_of(int(a), len(x.shape)) for a in axes}
    )
    if any(x.shape[i] != 1 for i in drop):
        raise Unsupported(f"cannot squeeze axes {sorted(drop)} of {x.shape}")
    return tuple(e for i, e in enumerate(x.shape) if i not in drop)


def _unsqueeze(at: Attrs, x: Tensor) -> Shape:
    rank = len(x.shape) + len(at["axes"])
    new = {axis_of(int(a), rank) for a in at["axes"]}
    rest = iter(x.shape)
    return tuple(1 if i in new else next(rest) for i in range(rank))


def _perm_normalise(
    attrs: dict[str, Any], ins: Sequence[Tensor | None], opset: int
) -> dict[str, Any]:
    rank = len(ins[0].shape)
    perm = tuple(attrs["perm"]) if attrs["perm"] is not None else tuple(range(rank))[::-1]
    if sorted(perm) != list(range(rank)):
        raise Unsupported(f"perm {perm} does not permute {rank} dimensions")
    return {"perm": perm}


def transpose_dims(attrs: Attrs, ins: Sequence[Shape], outs: Sequence[Shape]) -> dict[str, Any]:
    """y[i...] (dense) = x at `xs` strides; dimensions that stay together are merged."""
    xs = [strides_of(ins[0])[p] for p in attrs["perm"]]
    extents, (source, target) = merge_dims(outs[0], xs, strides_of(outs[0]))
    dims = dict(extents=extents, xs=source, ys=target, base=0)
    return {**dims, **_matrices(extents, source, target)}


def shuffle_dims(attrs: Attrs, ins: Sequence[Shape], outs: Sequence[Shape]) -> dict[str, Any]:
    """The transposition of [groups][n / groups] along an axis of n."""
    d, groups = around(ins[0], attrs["axis"]), attrs["groups"]
    x = (d["outer"], groups, d["n"] // groups, d["inner"])
    return transpose_dims({"perm": (0, 2, 1, 3)}, [x], [tuple(x[i] for i in (0, 2, 1, 3))])


def _shuffle_reference(at: Attrs, x: np.ndarray) -> np.ndarray:
    split = (*x.shape[: at["axis"]], at["groups"], -1, *x.shape[at["axis"] + 1 :])
    return x.reshape(split).swapaxes(at["axis"], at["axis"] + 1).reshape(x.shape)


def _matrices(extents: Sequence[int], xs: Sequence[int], ys: Sequence[int]) -> dict[str, Any]:
    """A transposition as one of matrices, x[q][p] -> y[p][q] with x_row and y_row elements between
    rows, once per element of `batch`: (extent, stride of x, stride of y).

    `form`: tall (q >= p), wide, or rows where neighbours stay neighbours; join or split where q or
    p is at most 4, for such rows lie in one vector each.
    """
    if xs[-1] == 1 or len(xs) == 1:
        return dict(form="rows", p=1, q=extents[-1], x_row=1, y_row=extents[-1], batch=[])
    k = list(xs).index(1)
    p, q, x_row, y_row = extents[k], extents[-1], xs[-1], ys[k]
    form = "tall" if q >= p else "wide"
    if q <= 4 and y_row == q:
        form = "join"
    elif p <= 4 and x_row == p:
        form = "split"
    outer = [i for i in range(len(extents) - 1) if i != k]
    batch = [(extents[i], xs[i], ys[i]) for i in outer]
    return dict(form=form, p=p, q=q, x_row=x_row, y_row=y_row, batch=batch)


def _concat_normalise(
    attrs: dict[str, Any], ins: Sequence[Tensor | None], opset: int
) -> dict[str, Any]:
    return {"axis": axis_of(attrs["axis"], len(ins[0].shape))}


def _concat_infer(at: Attrs, ins: Sequence[Tensor | None]) -> Inferred:
    axis, shape = at["axis"], list(ins[0].shape)
    for t in ins[1:]:
        if (*t.shape[:axis], *t.shape[axis + 1 :]) != (*shape[:axis], *shape[axis + 1 :]):
            raise Unsupported(f"cannot join {ins[0].shape} and {t.shape} along axis {axis}")
    shape[axis] = sum(t.shape[axis] for t in ins)
    return [(tuple(shape), ins[0].dtype)]


def copy_dims(rows: int, cols: int, x_pitch: int, y_pitch: int) -> dict[str, Any]:
    """A block of `rows` x `cols` elements between two pitches, in elements."""
    return dict(rows=rows, cols=cols, xp=x_pitch, yp=y_pitch)


def _concat_dims(at: Attrs, ins: Sequence[Shape], outs: Sequence[Shape]) -> dict[str, Any]:
    return around(outs[0], at["axis"])


def _identity_expand(b, node) -> None:
    b.alias(node.inputs[0], node.outputs[0])


def _dropout_normalise(
    attrs: dict[str, Any], ins: Sequence[Tensor | None], opset: int
) -> dict[str, Any]:
    if np.any(attrs["training_mode"]) and np.any(attrs["ratio"] or 0.5):
        raise Unsupported(
            "Dropout with training_mode set", "export the model for inference (model.eval())"
        )
    return {}


def _constant(at: Attrs, ins: Sequence[Tensor | None]) -> np.ndarray:
    for key, dtype in (
        ("value_float", np.float32),
        ("value_floats", np.float32),
        ("value_int", np.int64),
        ("value_ints", np.int64),
    ):
        if at[key] is not None:
            return np.asarray(at[key], dtype)
    if at["value"] is None:
        raise Unsupported("Constant without a dense numeric value")
    return at["value"]


def _constant_of_shape(at: Attrs, ins: Sequence[Tensor | None]) -> np.ndarray:
    value = np.zeros(1, np.float32) if at["value"] is None else at["value"]
    return np.full([int(v) for v in at["shape"]], value.reshape(-1)[0], value.dtype)


def _shape(at: Attrs, ins: Sequence[Tensor | None]) -> np.ndarray:
    return np.asarray(ins[0].shape[slice(at["start"], at["end"])], np.int64)


def _folded(name: str, fold, attrs: Attrs, **kw: Any) -> OpDef:
    def infer(at: Attrs, ins: Sequence[Tensor | None]) -> Inferred:
        value = fold(at, ins)
        return [(value.shape, DType.of(value.dtype))]

    return OpDef(name, infer, fold=fold, attrs=attrs, **kw)


def _size_dims(at: Attrs, ins: Sequence[Shape], outs: Sequence[Shape]) -> dict[str, Any]:
    return dict(size=int(np.prod(ins[0], dtype=np.int64)))


OPS = (
    OpDef(
        "Reshape",
        lambda at, ins: [(at["shape"], ins[0].dtype)],
        lambda at, x: x.reshape(at["shape"]),
        attrs={"shape": REQUIRED, "allowzero": 0},
        const_inputs={1: "shape"},
        normalise=_reshape_normalise,
        view=True,
        cases=(Case(((2, 3, 4),), {"shape": (4, -1)}), Case(((2, 3, 4),), {"shape": (0, 12)})),
    ),
    _renames(
        "Flatten",
        _flatten,
        (Case(((2, 3, 4),)), Case(((2, 3, 4),), {"axis": -1})),
        attrs={"axis": 1},
    ),
    _renames(
        "Squeeze",
        _squeeze,
        (Case(((1, 3, 1, 4),)), Case(((1, 3, 1, 4),), {"axes": (-2,)})),
        attrs={"axes": None},
        const_inputs={1: "axes"},
    ),
    _renames(
        "Unsqueeze",
        _unsqueeze,
        (Case(((3, 4),), {"axes": (0, -1)}),),
        attrs={"axes": REQUIRED},
        const_inputs={1: "axes"},
    ),
    OpDef("Identity", same_as_first, expand=_identity_expand, cases=(Case(((2, 3),)),)),
    OpDef(
        "Dropout",
        same_as_first,
        expand=_identity_expand,
        attrs={"ratio": None, "training_mode": 0},
        ignored=("seed", "is_test"),
        const_inputs={1: "ratio", 2: "training_mode"},
        normalise=_dropout_normalise,
        cases=(Case(((2, 3),)),),
    ),
    OpDef("Copy", same_as_first, lambda at, x: x, "copy", _size_dims, cases=(Case(((2, 3),)),)),
    OpDef(
        "Transpose",
        lambda at, ins: [(tuple(ins[0].shape[p] for p in at["perm"]), ins[0].dtype)],
        lambda at, x: x.transpose(at["perm"]),
        "transpose",
        transpose_dims,
        perm_attrs=("perm",),
        attrs={"perm": None},
        normalise=_perm_normalise,
        cases=(
            Case(((2, 3, 4),)),
            Case(((1, 3, 5, 4),), {"perm": (0, 2, 3, 1)}),
            Case(((2, 3, 4, 5),), {"perm": (3, 1, 0, 2)}),
        ),
    ),
    OpDef(  # what passes/shuffle.py recognises
        "ShuffleChannels",
        same_as_first,
        _shuffle_reference,
        "transpose",
        shuffle_dims,
        attrs={"groups": REQUIRED, "axis": 1},
        axis_attrs=("axis",),
        cases=tuple(
            Case(((2, g * c, 3, 5),), {"groups": g})
            for g, c in ((2, 3), (3, 8), (4, 5), (8, 9), (5, 2), (8, 3))
        ),
    ),
    OpDef(
        "Concat",
        _concat_infer,
        lambda at, *xs: np.concatenate(xs, at["axis"]),
        "concat",
        _concat_dims,
        attrs={"axis": REQUIRED},
        normalise=_concat_normalise,
        axis_attrs=("axis",),
        cases=(
            Case(((1, 3, 4, 4), (1, 5, 4, 4)), {"axis": 1}),
            Case(((2, 3), (2, 1), (2, 4)), {"axis": -1}),
            Case(((2, 3), (1, 3)), {"axis": 0}),
        ),
    ),
    _folded(
        "Constant",
        _constant,
        {
            "value": None,
            "value_float": None,
            "value_floats": None,
            "value_int": None,
            "value_ints": None,
        },
    ),
    _folded(
        "ConstantOfShape",
        _constant_of_shape,
        {"shape": REQUIRED, "value": None},
        const_inputs={0: "shape"},
    ),
    _folded("Shape", _shape, {"start": 0, "end": None}),
    _folded("Size", lambda at, ins: np.asarray(ins[0].size, np.int64), {}),
)
