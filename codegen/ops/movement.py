"""Operators that move data in other ways than slices: Pad, Gather, DepthToSpace, SpaceToDepth."""

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
    strides_of,
)
from codegen.ops.slices import add_box
from codegen.types import DType

# ---- Pad ----------------------------------------------------------------------------------------

_MODES = ("constant", "reflect", "edge", "wrap")


def _pad_normalise(
    attrs: dict[str, Any], ins: Sequence[Tensor | None], opset: int
) -> dict[str, Any]:
    """`begin` and `end` per dimension, of which negative ones cut."""
    rank, pads, mode = len(ins[0].shape), tuple(int(p) for p in attrs["pads"]), attrs["mode"]
    wanted = attrs["axes"]
    axes = range(rank) if wanted is None else [axis_of(int(a), rank) for a in wanted]
    if len(pads) != 2 * len(axes):
        raise Unsupported(f"{len(pads)} pads for {len(axes)} dimensions")
    if mode not in _MODES:
        raise Unsupported(f"padding mode {mode!r}; {', '.join(_MODES)} are supported")
    begin, end = [0] * rank, [0] * rank
    for i, axis in enumerate(axes):
        begin[axis], end[axis] = pads[i], pads[len(axes) + i]
    value = float(np.ravel(attrs["value"])[0]) if attrs["value"] not in (None, ()) else 0.0
    return {"begin": tuple(begin), "end": tuple(end), "value": value}


def _pad_infer(at: Attrs, ins: Sequence[Tensor | None]) -> Inferred:
    shape = tuple(b + n + e for b, n, e in zip(at["begin"], ins[0].shape, at["end"], strict=True))
    if min(shape, default=0) < 0:
        raise Unsupported(f"negative pads {at['begin']}, {at['end']} for a tensor {ins[0].shape}")
    return [(shape, ins[0].dtype)]


def _pad_expand(b, node) -> None:
    """What is cut is sliced off first; the rest is PadDims."""
    at, x = node.attrs, node.inputs[0]
    shape = b.tensors[x].shape
    cut = [max(-p, 0) for p in at["begin"]]
    left = [e - c - max(-p, 0) for e, c, p in zip(shape, cut, at["end"], strict=True)]
    begin, end = (tuple(max(p, 0) for p in at[k]) for k in ("begin", "end"))
    if not any(begin) and not any(end):
        add_box(b, x, cut, (1,) * len(shape), left, node.name, node.outputs)
        return
    x = add_box(b, x, cut, (1,) * len(shape), left, f"{node.name}/cut")
    how = {"begin": begin, "end": end, "mode": at["mode"], "value": at["value"]}
    b.add("PadDims", [x], how, node.name, node.outputs)


def _pad_reference(at: Attrs, x: np.ndarray) -> np.ndarray:
    value = {"constant_values": at["value"]} if at["mode"] == "constant" else {}
    return np.pad(x, list(zip(at["begin"], at["end"], strict=True)), at["mode"], **value)


def pad_dims(at: Attrs, ins: Sequence[Shape], outs: Sequence[Shape]) -> dict[str, Any]:
    """x of extents `xs` lies at `begin` in y of extents `ys`, its first element at `base`.

    Neighbouring dimensions without padding are merged.
    """
    xs, ys, begin = [], [], []
    for e, first, last in zip(ins[0], at["begin"], at["end"], strict=True):
        if xs and first == last == 0 and xs[-1] == ys[-1]:
            xs[-1] *= e
            ys[-1] *= e
        else:
            xs, ys, begin = [*xs, e], [*ys, e + first + last], [*begin, first]
    strides = strides_of(tuple(ys))
    return dict(
        xs=xs,
        ys=ys,
        begin=begin,
        x_strides=strides_of(tuple(xs)),
        strides=strides,
        base=sum(b * s for b, s in zip(begin, strides, strict=True)),
        size=int(np.prod(ys, dtype=np.int64)),
        mode=at["mode"],
        value=at["value"],
    )


# ---- Gather -------------------------------------------------------------------------------------


def _gather_normalise(
    attrs: dict[str, Any], ins: Sequence[Tensor | None], opset: int
) -> dict[str, Any]:
    if not ins[0].shape:
        raise Unsupported("Gather from a scalar")
    return {"axis": axis_of(attrs["axis"], len(ins[0].shape))}


def _gather_infer(at: Attrs, ins: Sequence[Tensor | None]) -> Inferred:
    x, axis = ins[0], at["axis"]
    return [((*x.shape[:axis], *ins[1].shape, *x.shape[axis + 1 :]), x.dtype)]


def _gather_expand(b, node) -> None:
    """Constant, evenly spaced indices are a slice; others a GatherAxis by a vector of indices."""
    x, indices = node.inputs
    axis, out = node.attrs["axis"], _gather_infer(node.attrs, [b.tensors[t] for t in node.inputs])
    even = _progression(b.constants.get(indices), b.tensors[x].shape[axis])
    if even is not None:
        rank = len(b.tensors[x].shape)
        starts, steps, extents = [0] * rank, [1] * rank, list(b.tensors[x].shape)
        starts[axis], steps[axis], extents[axis] = even
        y = add_box(b, x, starts, steps, extents, f"{node.name}/slice")
    else:
        count = b.tensors[indices].size
        if b.tensors[indices].dtype != DType.I64:  # the kernels know one type of index
            indices = b.add("Cast", [indices], {"to": "i64"}, f"{node.name}/i64")[0]
        indices = b.add("Reshape", [indices], {"shape": (count,)}, f"{node.name}/indices")[0]
        y = b.add("GatherAxis", [x, indices], {"axis": axis}, f"{node.name}/gather")[0]
    b.add("Reshape", [y], {"shape": out[0][0]}, node.name, node.outputs)


def _progression(indices: np.ndarray | None, extent: int) -> tuple[int, int, int] | None:
    """(first, step, count) of constant indices, None where they are not evenly spaced."""
    if indices is None or not indices.size:
        return None
    if indices.min() < -extent or indices.max() >= extent:
        raise Unsupported(f"index {indices.max()} of Gather is outside {extent} elements")
    flat = np.where(indices < 0, indices + extent, indices).reshape(-1).astype(np.int64)
    steps = np.diff(flat)
    if steps.size and (steps != steps[0]).any():
        return None
    return int(flat[0]), int(steps[0]) if steps.size else 1, flat.size


def _take_infer(at: Attrs, ins: Sequence[Tensor | None]) -> Inferred:
    if ins[1].dtype != DType.I64:
        raise Unsupported(f"indices of type {ins[1].dtype.value}")
    shape = list(ins[0].shape)
    shape[at["axis"]] = ins[1].size
    return [(tuple(shape), ins[0].dtype)]


def _take_reference(at: Attrs, x: np.ndarray, indices: np.ndarray) -> np.ndarray:
    """Indices beyond the ends, which ONNX leaves open, are clamped as the kernels do."""
    n, flat = x.shape[at["axis"]], indices.reshape(-1).astype(np.int64)
    return np.take(x, np.clip(np.where(flat < 0, flat + n, flat), 0, n - 1), at["axis"])


def take_dims(at: Attrs, ins: Sequence[Shape], outs: Sequence[Shape]) -> dict[str, Any]:
    """y[outer][count][inner] = x[outer][index][inner], index in [-n, n)."""
    return dict(around(ins[0], at["axis"]), count=outs[0][at["axis"]])


# ---- DepthToSpace, SpaceToDepth -----------------------------------------------------------------


def _image(ins: Sequence[Tensor | None], op: str) -> Shape:
    if len(ins[0].shape) != 4:
        raise Unsupported(f"{op} of a tensor of rank {len(ins[0].shape)}")
    return ins[0].shape


def _to_space_infer(at: Attrs, ins: Sequence[Tensor | None]) -> Inferred:
    (n, c, h, w), k = _image(ins, "DepthToSpace"), at["blocksize"]
    if k < 1 or c % (k * k):
        raise Unsupported(f"{c} channels in blocks of {k} x {k}")
    return [((n, c // (k * k), h * k, w * k), ins[0].dtype)]


def _to_space_expand(b, node) -> None:
    (n, c, h, w), k = b.tensors[node.inputs[0]].shape, node.attrs["blocksize"]
    rest = c // (k * k)
    if node.attrs["mode"] == "DCR":
        shape, perm = (n, k, k, rest, h, w), (0, 3, 4, 1, 5, 2)
    else:
        shape, perm = (n, rest, k, k, h, w), (0, 1, 4, 2, 5, 3)
    _rearrange(b, node, shape, perm, (n, rest, h * k, w * k))


def _to_depth_infer(at: Attrs, ins: Sequence[Tensor | None]) -> Inferred:
    (n, c, h, w), k = _image(ins, "SpaceToDepth"), at["blocksize"]
    if k < 1 or h % k or w % k:
        raise Unsupported(f"{h} x {w} pixels in blocks of {k} x {k}")
    return [((n, c * k * k, h // k, w // k), ins[0].dtype)]


def _to_depth_expand(b, node) -> None:
    (n, c, h, w), k = b.tensors[node.inputs[0]].shape, node.attrs["blocksize"]
    perm = (0, 3, 5, 1, 2, 4) if node.attrs["mode"] == "DCR" else (0, 1, 3, 5, 2, 4)
    _rearrange(b, node, (n, c, h // k, k, w // k, k), perm, (n, c * k * k, h // k, w // k))


def _rearrange(b, node, split: Shape, perm: Sequence[int], joined: Shape) -> None:
    x = b.add("Reshape", node.inputs, {"shape": split}, f"{node.name}/split")[0]
    x = b.add("Transpose", [x], {"perm": tuple(perm)}, f"{node.name}/transpose")[0]
    b.add("Reshape", [x], {"shape": joined}, node.name, node.outputs)


_PAD_CASES = (
    Case(((1, 2, 4, 3),), {"pads": (0, 0, 1, 2, 0, 1, 0, 1), "value": 1.5}),
    Case(((2, 3, 5, 5),), {"pads": (0, 0, 2, 1, 0, 0, 1, 2), "mode": "reflect"}),
    Case(((3, 4),), {"pads": (1, 0, 2, 3), "mode": "edge"}),
    Case(((4, 5),), {"pads": (-1, 2, 1, -2)}),
    Case(((2, 3, 4),), {"pads": (2, 1), "axes": (1,)}),
    Case(((4, 5),), {"pads": (-1, 0, -1, 0)}),
    Case(((3, 4),), {"pads": (1, 2, 3, 4), "mode": "wrap"}),
)

OPS = (
    OpDef(
        "PadDims",
        _pad_infer,
        _pad_reference,
        "pad",
        pad_dims,
        attrs={"begin": REQUIRED, "end": REQUIRED, "mode": "constant", "value": 0.0},
        dim_attrs=("begin", "end"),
        cases=tuple(
            Case(((1, 3, 5, 4),), {"begin": begin, "end": end, "mode": mode, "value": 0.5})
            for mode in _MODES
            for begin, end in (
                ((0, 0, 1, 2), (0, 0, 3, 0)),
                ((0, 2, 0, 0), (1, 1, 0, 0)),
                ((0, 0, 7, 0), (0, 0, 0, 9)),
            )
        ),
    ),
    OpDef(
        "Pad",
        _pad_infer,
        expand=_pad_expand,
        normalise=_pad_normalise,
        attrs={"pads": REQUIRED, "value": None, "axes": None, "mode": "constant"},
        const_inputs={1: "pads", 2: "value", 3: "axes"},
        cases=_PAD_CASES,
    ),
    OpDef(
        "GatherAxis",
        _take_infer,
        _take_reference,
        "gather",
        take_dims,
        attrs={"axis": 0},
        axis_attrs=("axis",),
        cases=(
            Case(((2, 5, 3, 4), np.array([0, 4, 4, -2], np.int64)), {"axis": 1}),
            Case(((9, 16), np.array([8, 0, 3], np.int64)), {}, (0,)),
        ),
    ),
    OpDef(
        "Gather",
        _gather_infer,
        expand=_gather_expand,
        normalise=_gather_normalise,
        attrs={"axis": 0},
        cases=(
            Case(((2, 5, 3), np.array([[0, 4], [-1, 2]], np.int64)), {"axis": 1}),
            Case(((2, 5, 3), np.array(1, np.int64)), {"axis": -1}, (1,)),
            Case(((9, 4), np.array([8, 0, 3], np.int32)), {}, (0,)),
            Case(((2, 9), np.array([1, 3, 5], np.int64)), {"axis": 1}, (1,)),
            Case(((2, 9), np.array([4, 3, 5], np.int64)), {"axis": 1}, (1,)),
        ),
    ),
    OpDef(
        "DepthToSpace",
        _to_space_infer,
        expand=_to_space_expand,
        attrs={"blocksize": REQUIRED, "mode": "DCR"},
        cases=(
            Case(((1, 8, 2, 3),), {"blocksize": 2}),
            Case(((2, 18, 2, 2),), {"blocksize": 3, "mode": "CRD"}),
        ),
    ),
    OpDef(
        "SpaceToDepth",
        _to_depth_infer,
        expand=_to_depth_expand,
        attrs={"blocksize": REQUIRED, "mode": "DCR"},
        cases=(Case(((1, 2, 4, 6),), {"blocksize": 2}),),
    ),
)
