"""Pooling. Global pools are reductions; LpPool is not here."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from codegen.graph import Tensor
from codegen.ops.base import Attrs, Case, Inferred, OpDef, Shape, Unsupported
from codegen.ops.conv import as_2d, image, patches, window_attrs, window_extent
from codegen.types import DType

_WINDOW = {
    "auto_pad": "NOTSET",
    "ceil_mode": 0,
    "dilations": None,
    "kernel_shape": None,
    "pads": None,
    "strides": None,
}


def _normalise(attrs: dict[str, Any], ins: Sequence[Tensor | None], opset: int) -> dict[str, Any]:
    if len(ins[0].shape) not in (3, 4):
        raise Unsupported(
            f"pooling over {len(ins[0].shape) - 2} spatial dimensions; 1 and 2 are supported"
        )
    if attrs.get("kernel_shape") is None:
        raise Unsupported("kernel_shape is missing")
    return window_attrs(attrs, ins[0].shape[2:], tuple(attrs["kernel_shape"]))


def _infer(attrs: Attrs, ins: Sequence[Tensor | None]) -> Inferred:
    shape, nd, pads = ins[0].shape, len(attrs["kernel_shape"]), attrs["pads"]
    out = tuple(
        window_extent(
            shape[2 + i],
            attrs["kernel_shape"][i],
            attrs["strides"][i],
            attrs["dilations"][i],
            pads[i],
            pads[nd + i],
            bool(attrs["ceil_mode"]),
        )
        for i in range(nd)
    )
    if min(out) < 1:
        raise Unsupported(
            f"the window {attrs['kernel_shape']} is larger than the padded input {shape}"
        )
    return [((*shape[:2], *out), ins[0].dtype)]


def _dims(attrs: Attrs, ins: Sequence[Shape], outs: Sequence[Shape]) -> dict[str, Any]:
    n, c, h, w = image(ins[0])
    _, _, oh, ow = image(outs[0])
    return dict(
        n=n,
        c=c,
        h=h,
        w=w,
        oh=oh,
        ow=ow,
        **as_2d(attrs),
        include_pad=int(attrs.get("count_include_pad", 0)),
    )


def _windows(attrs: Attrs, x: np.ndarray, fill: float) -> tuple[np.ndarray, dict[str, Any], Shape]:
    shape = _infer(attrs, [Tensor("x", x.shape, DType.F32)])[0][0]
    d = _dims(attrs, [x.shape], [shape])
    return patches(x.reshape(d["n"], d["c"], d["h"], d["w"]), d, fill), d, shape


def _reference_max(attrs: Attrs, x: np.ndarray) -> np.ndarray:
    low = -np.inf if np.issubdtype(x.dtype, np.floating) else np.iinfo(x.dtype).min
    p, _, shape = _windows(attrs, x, low)
    return p.max(axis=(2, 3)).reshape(shape)


def sums(attrs: Attrs, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The sum over each window, and how many positions its average counts: those inside the image,
    with `include_pad` also those of the declared pads (never what ceil_mode adds beyond them)."""
    p, d, shape = _windows(attrs, x, 0)
    ones = np.ones((1, 1, d["h"], d["w"]), x.dtype)
    if d["include_pad"]:
        ones = np.pad(
            ones, ((0, 0), (0, 0), (d["pt"], d["pb"]), (d["pl"], d["pr"])), constant_values=1
        )
        count = patches(ones, {**d, "h": ones.shape[2], "w": ones.shape[3], "pt": 0, "pl": 0}, 0)
    else:
        count = patches(ones, d, 0)
    total = p.sum(axis=(2, 3))
    return total.reshape(shape), np.broadcast_to(count.sum(axis=(2, 3)), total.shape).reshape(shape)


def _reference_average(attrs: Attrs, x: np.ndarray) -> np.ndarray:
    total, count = sums(attrs, x)
    return total / count


def average(name: str, reference: Any, family: str, cases: tuple[Case, ...]) -> OpDef:
    """A mean over windows; inputs behind the first are constants."""
    return OpDef(
        name,
        lambda attrs, ins: _infer(attrs, ins[:1]),
        reference,
        family,
        _dims,
        attrs={**_WINDOW, "count_include_pad": 0},
        normalise=_normalise,
        spatial=True,
        cases=cases,
    )


def _expand_global(op: str):
    def expand(b, node) -> None:
        rank = len(b.tensors[node.inputs[0]].shape)
        b.add(
            op, node.inputs, {"axes": tuple(range(2, rank)), "keepdims": 1}, node.name, node.outputs
        )

    return expand


def _infer_global(attrs: Attrs, ins: Sequence[Tensor | None]) -> Inferred:
    shape = ins[0].shape
    return [((*shape[:2], *(1,) * (len(shape) - 2)), ins[0].dtype)]


_CASES = (
    Case(((1, 5, 9, 8),), {"kernel_shape": (3, 3), "strides": (2, 2)}),
    Case(((2, 4, 7, 7),), {"kernel_shape": (3, 2), "strides": (1, 2), "pads": (1, 0, 1, 1)}),
    Case(((1, 8, 10, 10),), {"kernel_shape": (3, 3), "strides": (2, 2), "ceil_mode": 1}),
    Case(((1, 3, 12),), {"kernel_shape": (4,), "strides": (3,), "auto_pad": "SAME_UPPER"}),
    Case(((1, 17, 6, 6),), {"kernel_shape": (2, 2), "dilations": (2, 2)}),
    Case(((2, 64, 7, 9),), {"kernel_shape": (3, 3), "strides": (2, 2), "pads": (1, 1, 1, 1)}),
    Case(((1, 64, 8, 8),), {"kernel_shape": (2, 2), "strides": (2, 3)}),
)
AVERAGE_CASES = tuple(
    Case(c.inputs, {**c.attrs, "count_include_pad": i % 2}) for i, c in enumerate(_CASES)
)

OPS = (
    OpDef(
        "MaxPool",
        _infer,
        _reference_max,
        "max_pool2d",
        _dims,
        attrs=_WINDOW,
        ignored=("storage_order",),
        normalise=_normalise,
        spatial=True,
        cases=_CASES,
    ),
    average("AveragePool", _reference_average, "average_pool2d", AVERAGE_CASES),
    OpDef(
        "GlobalAveragePool",
        _infer_global,
        expand=_expand_global("ReduceMean"),
        cases=(Case(((1, 5, 4, 3),)), Case(((2, 18, 7, 7),))),
    ),
    OpDef(
        "GlobalMaxPool",
        _infer_global,
        expand=_expand_global("ReduceMax"),
        cases=(Case(((1, 5, 4, 3),)),),
    ),
)
