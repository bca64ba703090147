"""Resize and Upsample. The pixel tables are constant inputs of the two canonical forms:

`ResizeNearest` (x, rows, columns) copies one pixel; `ResizeTaps` (x, rows, row weights, columns,
column weights) adds up a few. Both are for N x C x H x W or N x C x W; other scaled dimensions are
transposed into that place.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from codegen.graph import Tensor
from codegen.ops.base import REQUIRED, Attrs, Case, Inferred, OpDef, Shape, Unsupported, axis_of
from codegen.ops.conv import image
from codegen.ops.resize_table import Filter, nearest_table, weight_table

# ---- the canonical forms ------------------------------------------------------------------------


def _infer_image(x: Tensor, rows: Tensor, columns: Tensor) -> Inferred:
    out = (rows.shape[0], columns.shape[0])
    return [((*x.shape[:2], *out[4 - len(x.shape) :]), x.dtype)]


def image_dims(at: Attrs, ins: Sequence[Shape], outs: Sequence[Shape]) -> dict[str, Any]:
    """n c h w oh ow, and th, tw taps per axis."""
    n, c, h, w = image(ins[0])
    _, _, oh, ow = image(outs[0])
    taps = dict(th=ins[1][1], tw=ins[3][1]) if len(ins) == 5 else dict(th=1, tw=1)
    return dict(n=n, c=c, h=h, w=w, oh=oh, ow=ow, **taps)


def _nearest_reference(
    at: Attrs, x: np.ndarray, rows: np.ndarray, columns: np.ndarray
) -> np.ndarray:
    y = x.reshape(image(x.shape))[:, :, rows][..., columns]
    return y.reshape(y.shape if x.ndim == 4 else (*y.shape[:2], -1))


def _taps_reference(
    at: Attrs,
    x: np.ndarray,
    rows: np.ndarray,
    row_weights: np.ndarray,
    columns: np.ndarray,
    column_weights: np.ndarray,
) -> np.ndarray:
    y = np.einsum("nchtw,ht->nchw", x.reshape(image(x.shape))[:, :, rows], row_weights)
    y = np.einsum("nchwt,wt->nchw", y[..., columns], column_weights)
    return y.reshape(y.shape if x.ndim == 4 else (*y.shape[:2], -1))


def _taps_macs(d: Mapping[str, Any]) -> int:
    return d["n"] * d["c"] * d["oh"] * d["ow"] * d["th"] * d["tw"]


# ---- from ONNX ----------------------------------------------------------------------------------


def _normalise(attrs: dict[str, Any], ins: Sequence[Tensor | None], opset: int) -> dict[str, Any]:
    """`out` extents and `scale` per dimension, and the Filter."""
    at = dict(attrs)
    if opset < 11:  # inputs are (x, scales); positions are x / scale
        at |= {
            "roi": None,
            "scales": at["roi"] or at["scales"],
            "sizes": None,
            "nearest_mode": "simple",
            "coordinate_transformation_mode": "asymmetric",
        }
    if at["coordinate_transformation_mode"] == "tf_crop_and_resize":
        raise Unsupported(
            "coordinate_transformation_mode tf_crop_and_resize",
            "crop with Slice before a plain Resize",
        )
    if at["mode"] not in ("nearest", "linear", "cubic"):
        raise Unsupported(f"resize mode {at['mode']!r}")
    out, scale = _extents(at, ins[0].shape)
    how = Filter(
        at["mode"],
        at["coordinate_transformation_mode"],
        at["nearest_mode"],
        at["cubic_coeff_a"],
        bool(at["exclude_outside"]),
        bool(at["antialias"]),
    )
    return {"out": out, "scale": scale, "filter": how}


def _extents(at: Attrs, shape: Shape) -> tuple[tuple[int, ...], tuple[float, ...]]:
    rank, given = len(shape), at["sizes"] or at["scales"]
    wanted = at["axes"]
    axes = [axis_of(int(a), rank) for a in wanted] if wanted is not None else list(range(rank))
    if not given or len(given) != len(axes):
        raise Unsupported(f"{len(given or ())} scales or sizes for {len(axes)} dimensions")
    out, scale = list(shape), [1.0] * rank
    if not at["sizes"]:
        for a, s in zip(axes, given, strict=True):
            # in single precision, as onnxruntime: in double, float32(0.6) * 5 would be above 3
            out[a], scale[a] = int(np.float32(s) * np.float32(shape[a])), float(s)
        return tuple(out), tuple(scale)
    ratios = [int(s) / shape[a] for a, s in zip(axes, given, strict=True)]
    pick = {"not_larger": min, "not_smaller": max}.get(at["keep_aspect_ratio_policy"])
    for a, s, ratio in zip(axes, given, ratios, strict=True):
        scale[a] = pick(ratios) if pick else ratio
        out[a] = int(scale[a] * shape[a] + 0.5) if pick else int(s)
    return tuple(out), tuple(scale)


def _infer(at: Attrs, ins: Sequence[Tensor | None]) -> Inferred:
    if min(at["out"], default=1) < 1:
        raise Unsupported(f"a result of shape {at['out']}")
    return [(at["out"], ins[0].dtype)]


def _expand(b, node) -> None:
    """Two dimensions at a time; the filters are separable, so that the order does not matter."""
    x, at = node.inputs[0], node.attrs
    shape = b.tensors[x].shape
    active = [
        i
        for i, (e, o, s) in enumerate(zip(shape, at["out"], at["scale"], strict=True))
        if e != o or abs(s - 1) > 1e-6
    ]
    if not active:
        b.add("Identity", [x], {}, node.name, node.outputs)
        return
    if len(shape) in (3, 4) and min(active) >= 2:
        _image(b, node, x, tuple(range(2, len(shape))), node.name, node.outputs)
        return
    while active:
        pair, active = active[-2:], active[:-2]
        x = _elsewhere(b, node, x, tuple(pair), node.outputs if not active else None)


def _elsewhere(b, node, x: str, axes: tuple[int, ...], outputs: Sequence[str] | None) -> str:
    """Resize dimensions that are not the last ones of an image."""
    shape, name = b.tensors[x].shape, f"{node.name}/{axes[0]}"
    perm = (*(i for i in range(len(shape)) if i not in axes), *axes)
    moved = tuple(shape[p] for p in perm)
    rest = moved[: -len(axes)]
    flat = (1, int(np.prod(rest, dtype=np.int64)), *moved[-len(axes) :])
    if perm != tuple(range(len(shape))):
        x = b.add("Transpose", [x], {"perm": perm}, f"{name}/last")[0]
    x = b.add("Reshape", [x], {"shape": flat}, f"{name}/image")[0]
    x = _image(b, node, x, axes, name, None)
    after = (*rest, *b.tensors[x].shape[2:])
    if perm == tuple(range(len(shape))):
        return b.add("Reshape", [x], {"shape": after}, f"{name}/shape", outputs)[0]
    x = b.add("Reshape", [x], {"shape": after}, f"{name}/shape")[0]
    back = tuple(perm.index(i) for i in range(len(shape)))
    return b.add("Transpose", [x], {"perm": back}, f"{name}/back", outputs)[0]


def _image(b, node, x: str, axes: tuple[int, ...], name: str, outputs: Sequence[str] | None) -> str:
    """One canonical node for the last dimensions of `x`, which are `axes` of the original."""
    how: Filter = node.attrs["filter"]
    sizes = b.tensors[x].shape[2:]
    ends = [
        (e, node.attrs["out"][a], node.attrs["scale"][a]) for e, a in zip(sizes, axes, strict=True)
    ]
    tables = tables_of(how, ends)
    names = [b.constant(f"{name}/table{i}", t) for i, t in enumerate(tables)]
    op = "ResizeNearest" if how.mode == "nearest" else "ResizeTaps"
    return b.add(op, [x, *names], {}, name, outputs)[0]


def tables_of(how: Filter, ends: Sequence[tuple[int, int, float]]) -> list[np.ndarray]:
    """Tables for (extent, out, scale) of height and width, or of width alone."""
    nearest = how.mode == "nearest"
    tables: list[np.ndarray] = []
    if len(ends) == 1:
        tables += (
            [np.zeros(1, np.int32)]
            if nearest
            else [np.zeros((1, 1), np.int32), np.ones((1, 1), np.float32)]
        )
    for extent, out, scale in ends:
        if nearest:
            tables.append(nearest_table(how, extent, out, scale))
        elif extent == out and scale == 1.0:
            tables += [np.arange(out, dtype=np.int32)[:, None], np.ones((out, 1), np.float32)]
        else:
            tables += weight_table(how, extent, out, scale)
    return tables


_COORDINATES = (
    "half_pixel",
    "asymmetric",
    "align_corners",
    "pytorch_half_pixel",
    "half_pixel_symmetric",
    "tf_half_pixel_for_nn",
)
_DEFAULTS = {
    "roi": None,
    "scales": None,
    "sizes": None,
    "axes": None,
    "mode": "nearest",
    "antialias": 0,
    "coordinate_transformation_mode": "half_pixel",
    "cubic_coeff_a": -0.75,
    "exclude_outside": 0,
    "keep_aspect_ratio_policy": "stretch",
    "nearest_mode": "round_prefer_floor",
}
_UP, _DOWN = (1.0, 1.0, 2.0, 3.0), (1.0, 1.0, 0.6, 0.5)


def _cases(mode: str, **kw: Any) -> tuple[Case, ...]:
    return tuple(
        Case(((1, 3, 6, 8),), {"mode": mode, "coordinate_transformation_mode": c, **size, **kw})
        for c in _COORDINATES[:5]
        for size in (
            {"scales": _UP},
            {"scales": _DOWN},
            {"sizes": (1, 3, 7, 5)},
            {"sizes": (1, 3, 1, 16)},
        )
    )


def _canonical_cases(mode: str) -> tuple[Case, ...]:
    def case(shape: Shape, out: Shape) -> Case:
        how = Filter(mode, "half_pixel")
        ends = [(e, o, o / e) for e, o in zip(shape[2:], out, strict=True)]
        tables = tables_of(how, ends)
        return Case((shape, *tables), {}, tuple(range(1, 1 + len(tables))))

    return (case((1, 5, 4, 3), (8, 6)), case((2, 17, 5, 7), (3, 9)), case((1, 4, 6), (13,)))


OPS = (
    OpDef(
        "ResizeNearest",
        lambda at, ins: _infer_image(*ins),
        _nearest_reference,
        "resize_nearest",
        image_dims,
        spatial=True,
        cases=_canonical_cases("nearest"),
    ),
    OpDef(
        "ResizeTaps",
        lambda at, ins: _infer_image(ins[0], ins[1], ins[3]),
        _taps_reference,
        "resize",
        image_dims,
        spatial=True,
        macs=_taps_macs,
        cases=_canonical_cases("linear"),
    ),
    OpDef(
        "Resize",
        _infer,
        expand=_expand,
        attrs=_DEFAULTS,
        ignored=("extrapolation_value",),
        const_inputs={1: "roi", 2: "scales", 3: "sizes"},
        normalise=_normalise,
        cases=(
            *_cases("nearest"),
            *_cases("linear"),
            *_cases("cubic"),
            *(
                Case(((1, 2, 7, 6),), {"sizes": (1, 2, 9, 4), "nearest_mode": m})
                for m in ("floor", "ceil", "round_prefer_ceil")
            ),
            Case(((1, 3, 8),), {"scales": (1.0, 1.0, 2.5), "mode": "linear"}),
            Case(((1, 3, 4, 2),), {"scales": (1.0, 2.0, 2.0, 1.0), "mode": "linear"}),
        ),
    ),
    OpDef(
        "Upsample",
        _infer,
        expand=_expand,
        attrs={**_DEFAULTS, "scales": REQUIRED},
        const_inputs={1: "scales"},
        normalise=lambda at, ins, opset: _normalise(at, ins, min(opset, 10)),
        cases=(
            Case(((1, 2, 3, 4),), {"scales": (1.0, 1.0, 2.0, 3.0)}),
            Case(((1, 2, 3, 4),), {"scales": (1.0, 1.0, 2.0, 2.0), "mode": "linear"}),
        ),
    ),
)
