"""Operators that read a strided box of their input: Slice, Split, Expand, Tile.

One kernel serves all: y[i][j]... = x[start + i * step]..., where a step may be negative (a flip) or
0 (a broadcast).
"""

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
    axis_of,
    merge_dims,
    strides_of,
)

# ---- SliceDims: the canonical form --------------------------------------------------------------


def _box_infer(at: Attrs, ins: Sequence[Tensor | None]) -> Inferred:
    return [(tuple(at["extents"]), ins[0].dtype)]


def _box_reference(at: Attrs, x: np.ndarray) -> np.ndarray:
    grid = [
        first + np.arange(extent) * step
        for first, step, extent in zip(at["starts"], at["steps"], at["extents"], strict=True)
    ]
    return x[np.ix_(*grid)] if grid else x


def box_dims(at: Attrs, ins: Sequence[Shape], outs: Sequence[Shape]) -> dict[str, Any]:
    """y (dense) = x[base + sum(i * xs)]: fewest loops of `extents`, strides `xs` in elements.

    `contiguous`: the innermost loop copies neighbours.
    """
    strides = strides_of(ins[0])
    xs = [s * step for s, step in zip(strides, at["steps"], strict=True)]
    base = sum(s * first for s, first in zip(strides, at["starts"], strict=True))
    extents, (source, target) = merge_dims(outs[0], xs, strides_of(outs[0]))
    return dict(extents=extents, xs=source, ys=target, base=base, contiguous=int(source[-1] == 1))


def add_box(
    b,
    x: str,
    starts: Sequence[int],
    steps: Sequence[int],
    extents: Sequence[int],
    name: str,
    outputs: Sequence[str] | None = None,
) -> str:
    """Append a SliceDims, or nothing where it would copy the whole tensor."""
    shape = b.tensors[x].shape
    if (
        tuple(extents) == shape
        and not any(starts)
        and all(s == 1 for s, e in zip(steps, extents, strict=True) if e > 1)
    ):
        if not outputs:
            return x
        return b.add("Identity", [x], {}, name, outputs)[0]
    how = {"starts": tuple(starts), "steps": tuple(steps), "extents": tuple(extents)}
    return b.add("SliceDims", [x], how, name, outputs)[0]


# ---- Slice --------------------------------------------------------------------------------------


def _slice_normalise(
    attrs: dict[str, Any], ins: Sequence[Tensor | None], opset: int
) -> dict[str, Any]:
    """Per dimension: first index, step, number of elements. ONNX clamps as Python does."""
    shape, wanted = ins[0].shape, attrs["axes"]
    axes = range(len(attrs["starts"])) if wanted is None else wanted
    steps = attrs["steps"] or (1,) * len(attrs["starts"])
    box = [(0, 1, e) for e in shape]
    for axis, start, end, step in zip(axes, attrs["starts"], attrs["ends"], steps, strict=True):
        if step == 0:
            raise Unsupported("a slice with step 0")
        axis = axis_of(int(axis), len(shape))
        indices = range(*slice(int(start), int(end), int(step)).indices(shape[axis]))
        box[axis] = (indices.start if len(indices) else 0, int(step), len(indices))
    return {"box": tuple(box)}


def _slice_infer(at: Attrs, ins: Sequence[Tensor | None]) -> Inferred:
    return [(tuple(extent for _, _, extent in at["box"]), ins[0].dtype)]


def _slice_expand(b, node) -> None:
    box = node.attrs["box"]
    starts, steps, extents = zip(*box, strict=True) if box else ((),) * 3
    add_box(b, node.inputs[0], starts, steps, extents, node.name, node.outputs)


# ---- Split --------------------------------------------------------------------------------------


def _parts(at: Attrs, x: Tensor, count: int) -> tuple[int, ...]:
    """Extents along the axis: given, or `count` equal ones of which the last may be smaller."""
    extent = x.shape[axis_of(at["axis"], len(x.shape))]
    if at["split"] is not None:
        parts = tuple(int(v) for v in at["split"])
    else:
        each = -(-extent // count)
        parts = (*(each,) * (count - 1), extent - each * (count - 1))
    if sum(parts) != extent or min(parts) < 0:
        raise Unsupported(f"cannot split an extent of {extent} into {parts}")
    return parts


def _split_infer(at: Attrs, ins: Sequence[Tensor | None]) -> Inferred:
    axis = axis_of(at["axis"], len(ins[0].shape))
    shape = ins[0].shape
    return [
        ((*shape[:axis], part, *shape[axis + 1 :]), ins[0].dtype)
        for part in _parts(at, ins[0], at["num_outputs"] or 1)
    ]


def _split_expand(b, node) -> None:
    x = b.tensors[node.inputs[0]]
    axis, first = axis_of(node.attrs["axis"], len(x.shape)), 0
    parts = _parts(node.attrs, x, node.attrs["num_outputs"] or len(node.outputs))
    for i, (part, out) in enumerate(zip(parts, node.outputs, strict=False)):
        if out:
            starts, extents = [0] * len(x.shape), list(x.shape)
            starts[axis], extents[axis] = first, part
            add_box(b, x.name, starts, [1] * len(starts), extents, f"{node.name}/{i}", [out])
        first += part


# ---- Expand, Tile -------------------------------------------------------------------------------


def _expand_infer(at: Attrs, ins: Sequence[Tensor | None]) -> Inferred:
    shape = tuple(int(e) for e in at["shape"])
    try:
        return [(tuple(np.broadcast_shapes(ins[0].shape, shape)), ins[0].dtype)]
    except ValueError:
        raise Unsupported(f"cannot expand {ins[0].shape} to {shape}") from None


def _expand_expand(b, node) -> None:
    shape = b.tensors[node.inputs[0]].shape
    extents = _expand_infer(node.attrs, [b.tensors[node.inputs[0]]])[0][0]
    rank = len(extents)
    full = (*(1,) * (rank - len(shape)), *shape)
    x = node.inputs[0]
    if full != shape:
        x = b.add("Reshape", [x], {"shape": full}, f"{node.name}/rank")[0]
    steps = [int(a == e) for a, e in zip(full, extents, strict=True)]
    add_box(b, x, (0,) * rank, steps, extents, node.name, node.outputs)


def _tile_infer(at: Attrs, ins: Sequence[Tensor | None]) -> Inferred:
    if len(at["repeats"]) != len(ins[0].shape):
        raise Unsupported(f"{len(at['repeats'])} repeats for a tensor of shape {ins[0].shape}")
    return [
        (tuple(e * int(r) for e, r in zip(ins[0].shape, at["repeats"], strict=True)), ins[0].dtype)
    ]


def _tile_expand(b, node) -> None:
    """Where more than one element repeats, the repetition becomes a dimension before it."""
    shape, x = b.tensors[node.inputs[0]].shape, node.inputs[0]
    out = _tile_infer(node.attrs, [b.tensors[x]])[0][0]
    split, extents = [], []
    for extent, times in zip(shape, (int(r) for r in node.attrs["repeats"]), strict=True):
        new = extent > 1 and times != 1
        split += [1, extent] if new else [extent]
        extents += [times, extent] if new else [extent * times]
    if len(split) > len(shape):
        x = b.add("Reshape", [x], {"shape": tuple(split)}, f"{node.name}/split")[0]
    steps = [int(a == e) for a, e in zip(split, extents, strict=True)]
    y = add_box(
        b,
        x,
        (0,) * len(split),
        steps,
        extents,
        node.name,
        node.outputs if len(split) == len(shape) else None,
    )
    if len(split) > len(shape):
        b.add("Reshape", [y], {"shape": out}, f"{node.name}/joined", node.outputs)


OPS = (
    OpDef(
        "SliceDims",
        _box_infer,
        _box_reference,
        "slice",
        box_dims,
        attrs={"starts": REQUIRED, "steps": REQUIRED, "extents": REQUIRED},
        dim_attrs=("starts", "steps", "extents"),
        cases=(
            Case(
                ((1, 6, 5, 4),),
                {"starts": (0, 2, 1, 0), "steps": (1, 1, 2, 1), "extents": (1, 3, 2, 4)},
            ),
            Case(((3, 7),), {"starts": (0, 6), "steps": (1, -2), "extents": (3, 4)}),
            Case(
                ((2, 1, 1, 3),),
                {"starts": (0,) * 4, "steps": (1, 0, 0, 1), "extents": (2, 4, 5, 3)},
            ),
            Case(
                ((2, 3, 4, 5),),
                {"starts": (1, 0, 3, 4), "steps": (-1, 1, -1, -1), "extents": (2, 3, 4, 5)},
            ),
        ),
    ),
    OpDef(
        "Slice",
        _slice_infer,
        expand=_slice_expand,
        normalise=_slice_normalise,
        attrs={"starts": REQUIRED, "ends": REQUIRED, "axes": None, "steps": None},
        const_inputs={1: "starts", 2: "ends", 3: "axes", 4: "steps"},
        cases=(
            Case(((1, 6, 5, 4),), {"starts": (1, 0), "ends": (4, -1), "axes": (1, 2)}),
            Case(((20, 10, 5),), {"starts": (0, 0), "ends": (3, 1000)}),
            Case(
                ((20, 10),),
                {"starts": (-1, 1), "ends": (-1000, 9), "axes": (0, -1), "steps": (-3, 2)},
            ),
            Case(((2, 3),), {"starts": (0,), "ends": (2,)}),
        ),
    ),
    OpDef(
        "Split",
        _split_infer,
        expand=_split_expand,
        const_inputs={1: "split"},
        attrs={"axis": 0, "split": None, "num_outputs": None},
        cases=(
            Case(((2, 6, 3, 3),), {"axis": 1, "split": (1, 3, 2)}),
            Case(((7, 2),), {"num_outputs": 3}),
            Case(((4, 6),), {"axis": -1}),
        ),
    ),
    OpDef(
        "Expand",
        _expand_infer,
        expand=_expand_expand,
        attrs={"shape": REQUIRED},
        const_inputs={1: "shape"},
        cases=(
            Case(((3, 1),), {"shape": (2, 1, 6)}),
            Case(((1, 5, 1, 1),), {"shape": (1, 5, 4, 3)}),
            Case(((3, 4),), {"shape": (1,)}),
            Case(((),), {"shape": (2, 3)}),
        ),
    ),
    OpDef(
        "Tile",
        _tile_infer,
        expand=_tile_expand,
        attrs={"repeats": REQUIRED},
        const_inputs={1: "repeats"},
        cases=(
            Case(((2, 3, 4),), {"repeats": (2, 1, 3)}),
            Case(((1, 5),), {"repeats": (4, 1)}),
            Case(((2, 3),), {"repeats": (1, 1)}),
        ),
    ),
)
