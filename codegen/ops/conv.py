"""Convolutions. Shapes in ONNX order; a 1-d convolution is a 2-d one of height 1."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from codegen.graph import Tensor
from codegen.ops.base import Attrs, Case, Inferred, OpDef, Shape, Unsupported, sparse_dims
from codegen.types import DType


def window_attrs(attrs: dict[str, Any], spatial: Shape, kernel: Shape) -> dict[str, Any]:
    """Fill strides, dilations and explicit pads (begin..., end...) from auto_pad; ONNX Conv and
    pooling rules."""
    nd = len(spatial)
    strides = tuple(attrs.get("strides") or (1,) * nd)
    dilations = tuple(attrs.get("dilations") or (1,) * nd)
    pads = tuple(attrs.get("pads") or (0,) * (2 * nd))
    auto = attrs.get("auto_pad") or "NOTSET"
    if not len(strides) == len(dilations) == len(kernel) == nd or len(pads) != 2 * nd:
        raise Unsupported(f"window attributes do not match {nd} spatial dimensions")
    if auto in ("SAME_UPPER", "SAME_LOWER"):
        begin, end = [], []
        for extent, k, s, d in zip(spatial, kernel, strides, dilations, strict=True):
            total = max((-(-extent // s) - 1) * s + (k - 1) * d + 1 - extent, 0)
            small, large = total // 2, total - total // 2
            begin.append(small if auto == "SAME_UPPER" else large)
            end.append(large if auto == "SAME_UPPER" else small)
        pads = (*begin, *end)
    elif auto == "VALID":
        pads = (0,) * (2 * nd)
    elif auto != "NOTSET":
        raise Unsupported(f"auto_pad {auto!r} is not an ONNX value")
    if min(pads) < 0:
        raise Unsupported(f"negative pads {pads}")
    return {
        **attrs,
        "strides": strides,
        "dilations": dilations,
        "pads": pads,
        "kernel_shape": kernel,
        "auto_pad": "NOTSET",
    }


def window_extent(
    extent: int, k: int, s: int, d: int, begin: int, end: int, ceil: bool = False
) -> int:
    """Output positions of a sliding window; with `ceil`, a last window must still start inside
    input or begin pad."""
    span = extent + begin + end - (k - 1) * d - 1
    out = (-(-span // s) if ceil else span // s) + 1
    if ceil and (out - 1) * s >= extent + begin:
        out -= 1
    return out


def as_2d(attrs: Attrs) -> dict[str, int]:
    """kh kw sh sw dh dw pt pl pb pr of 1-d or 2-d window attributes."""

    def two(values, fill):
        return tuple(values) if len(values) == 2 else (fill, *values)

    nd = len(attrs["kernel_shape"])
    kh, kw = two(attrs["kernel_shape"], 1)
    sh, sw = two(attrs["strides"], 1)
    dh, dw = two(attrs["dilations"], 1)
    pt, pl = two(attrs["pads"][:nd], 0)
    pb, pr = two(attrs["pads"][nd:], 0)
    return dict(kh=kh, kw=kw, sh=sh, sw=sw, dh=dh, dw=dw, pt=pt, pl=pl, pb=pb, pr=pr)


def image(shape: Shape) -> Shape:
    """(n, c, h, w) of a tensor with one or two spatial dimensions."""
    return shape if len(shape) == 4 else (shape[0], shape[1], 1, shape[2])


def _spatial_rank(op: str, shape: Shape) -> None:
    if len(shape) not in (3, 4):
        raise Unsupported(f"{op} with {len(shape) - 2} spatial dimensions; 1 and 2 are supported")


def _normalise_conv(
    attrs: dict[str, Any], ins: Sequence[Tensor | None], opset: int
) -> dict[str, Any]:
    _spatial_rank("Conv", ins[0].shape)
    return window_attrs(attrs, ins[0].shape[2:], tuple(ins[1].shape[2:]))


def infer_conv(attrs: Attrs, ins: Sequence[Tensor | None]) -> Inferred:
    x, w = ins[0], ins[1]
    if x.shape[1] != w.shape[1] * attrs["group"] or w.shape[0] % attrs["group"]:
        raise Unsupported(
            f"weights {w.shape} do not match {x.shape[1]} channels in {attrs['group']} groups"
        )
    nd = len(w.shape) - 2
    pads = attrs["pads"]
    out = tuple(
        window_extent(
            x.shape[2 + i],
            w.shape[2 + i],
            attrs["strides"][i],
            attrs["dilations"][i],
            pads[i],
            pads[nd + i],
        )
        for i in range(nd)
    )
    if min(out) < 1:
        raise Unsupported(
            f"the window {attrs['kernel_shape']} is larger than the padded input {x.shape}"
        )
    return [((x.shape[0], w.shape[0], *out), x.dtype)]


def _conv_dims(attrs: Attrs, ins: Sequence[Shape], outs: Sequence[Shape]) -> dict[str, Any]:
    n, c, h, w = image(ins[0])
    _, m, oh, ow = image(outs[0])
    return dict(
        n=n,
        c=c,
        h=h,
        w=w,
        m=m,
        oh=oh,
        ow=ow,
        groups=attrs["group"],
        **as_2d(attrs),
        depthwise=int(attrs["group"] == c == m),
        pointwise=is_pointwise(attrs),
        **sparse_dims(attrs),
    )


def is_pointwise(attrs: Attrs) -> int:
    """1 for a 1x1 convolution that reads each pixel once: a matrix product on the tensor as it
    lies."""
    plain = {*attrs["kernel_shape"], *attrs["strides"]} == {1} and not any(attrs["pads"])
    return int(plain and attrs["group"] == 1)


def _conv_macs(d: Mapping[str, Any]) -> int:
    return d["n"] * d["m"] * d["oh"] * d["ow"] * (d["c"] // d["groups"]) * d["kh"] * d["kw"]


def patches(x: np.ndarray, d: Mapping[str, int], fill: float) -> np.ndarray:
    """Every window of an NCHW image: (n, c, kh, kw, oh, ow), padding read as `fill`."""
    bottom = max((d["oh"] - 1) * d["sh"] + (d["kh"] - 1) * d["dh"] + 1 - d["h"] - d["pt"], 0)
    right = max((d["ow"] - 1) * d["sw"] + (d["kw"] - 1) * d["dw"] + 1 - d["w"] - d["pl"], 0)
    x = np.pad(x, ((0, 0), (0, 0), (d["pt"], bottom), (d["pl"], right)), constant_values=fill)
    rows = (np.arange(d["kh"]) * d["dh"])[:, None] + np.arange(d["oh"]) * d["sh"]
    cols = (np.arange(d["kw"]) * d["dw"])[:, None] + np.arange(d["ow"]) * d["sw"]
    return x[:, :, rows[:, None, :, None], cols[None, :, None, :]]


def reference_conv(
    attrs: Attrs, x: np.ndarray, w: np.ndarray, b: np.ndarray | None = None
) -> np.ndarray:
    shape = _infer_shape(attrs, x, w)
    d = _conv_dims(attrs, [x.shape, w.shape], [shape])
    g, cg, mg = d["groups"], d["c"] // d["groups"], d["m"] // d["groups"]
    p = patches(x.reshape(d["n"], d["c"], d["h"], d["w"]), d, 0).reshape(
        d["n"], g, cg * d["kh"] * d["kw"], -1
    )
    y = np.einsum("gmk,ngkp->ngmp", w.reshape(g, mg, -1), p, optimize=True).reshape(shape)
    return y if b is None else y + b.reshape(1, -1, *(1,) * (len(shape) - 2))


def _infer_shape(attrs: Attrs, x: np.ndarray, w: np.ndarray) -> Shape:
    return infer_conv(attrs, [Tensor("x", x.shape, DType.F32), Tensor("w", w.shape, DType.F32)])[
        0
    ][0]


def _normalise_transpose(
    attrs: dict[str, Any], ins: Sequence[Tensor | None], opset: int
) -> dict[str, Any]:
    _spatial_rank("ConvTranspose", ins[0].shape)
    nd = len(ins[0].shape) - 2
    kernel = tuple(ins[1].shape[2:])
    extra = tuple(attrs.get("output_padding") or (0,) * nd)
    auto = attrs.get("auto_pad") or "NOTSET"
    wanted = attrs.get("output_shape")
    base = window_attrs({**attrs, "auto_pad": "NOTSET"}, ins[0].shape[2:], kernel)
    if wanted or auto in ("SAME_UPPER", "SAME_LOWER"):
        wanted = wanted or tuple(
            e * s for e, s in zip(ins[0].shape[2:], base["strides"], strict=True)
        )
        begin, end = [], []
        for i in range(nd):
            total = (
                base["strides"][i] * (ins[0].shape[2 + i] - 1)
                + extra[i]
                + (kernel[i] - 1) * base["dilations"][i]
                + 1
                - wanted[i]
            )
            small, large = total // 2, total - total // 2
            # SAME_UPPER puts the odd element at the end, every other mode at the beginning (ONNX
            # ConvTranspose)
            begin.append(small if auto == "SAME_UPPER" else large)
            end.append(large if auto == "SAME_UPPER" else small)
        base["pads"] = (*begin, *end)
    elif auto == "VALID":
        base["pads"] = (0,) * (2 * nd)
    base.pop("output_shape", None)
    return {**base, "output_padding": extra}


def _infer_transpose(attrs: Attrs, ins: Sequence[Tensor | None]) -> Inferred:
    x, w = ins[0], ins[1]
    if x.shape[1] != w.shape[0]:
        raise Unsupported(f"weights {w.shape} do not match {x.shape[1]} channels")
    nd = len(w.shape) - 2
    pads = attrs["pads"]
    out = tuple(
        attrs["strides"][i] * (x.shape[2 + i] - 1)
        + attrs["output_padding"][i]
        + (w.shape[2 + i] - 1) * attrs["dilations"][i]
        + 1
        - pads[i]
        - pads[nd + i]
        for i in range(nd)
    )
    return [((x.shape[0], w.shape[1] * attrs["group"], *out), x.dtype)]


def _reference_transpose(
    attrs: Attrs, x: np.ndarray, w: np.ndarray, b: np.ndarray | None = None
) -> np.ndarray:
    shape = _infer_transpose(
        attrs, [Tensor("x", x.shape, DType.F32), Tensor("w", w.shape, DType.F32)]
    )[0][0]
    d = _conv_dims(attrs, [x.shape, w.shape], [shape])
    g, mg = d["groups"], d["m"] // d["groups"]
    full = np.zeros(
        (
            d["n"],
            d["m"],
            d["oh"] + d["pt"] + d["pb"] + d["sh"] * d["kh"] * d["dh"],
            d["ow"] + d["pl"] + d["pr"] + d["sw"] * d["kw"] * d["dw"],
        ),
        np.result_type(x, w),
    )
    xg = x.reshape(d["n"], g, d["c"] // g, d["h"], d["w"])
    wg = w.reshape(g, d["c"] // g, mg, d["kh"], d["kw"])
    for i in range(d["kh"]):
        for j in range(d["kw"]):
            part = np.einsum("ngchw,gcm->ngmhw", xg, wg[..., i, j]).reshape(
                d["n"], d["m"], d["h"], d["w"]
            )
            top, left = i * d["dh"], j * d["dw"]
            full[
                :,
                :,
                top : top + d["h"] * d["sh"] : d["sh"],
                left : left + d["w"] * d["sw"] : d["sw"],
            ] += part
    y = full[:, :, d["pt"] : d["pt"] + d["oh"], d["pl"] : d["pl"] + d["ow"]].reshape(shape)
    return y if b is None else y + b.reshape(1, -1, *(1,) * (len(shape) - 2))


def _transpose_macs(d: Mapping[str, Any]) -> int:
    return d["n"] * d["c"] * d["h"] * d["w"] * (d["m"] // d["groups"]) * d["kh"] * d["kw"]


_WINDOW = {
    "auto_pad": "NOTSET",
    "dilations": None,
    "group": 1,
    "kernel_shape": None,
    "pads": None,
    "strides": None,
}

OPS = (
    OpDef(
        "Conv",
        infer_conv,
        reference_conv,
        "conv2d",
        _conv_dims,
        attrs=_WINDOW,
        normalise=_normalise_conv,
        spatial=True,
        fuses=("activation", "residual"),
        macs=_conv_macs,
        cases=(
            Case(((1, 3, 9, 7), (5, 3, 3, 3), (5,)), {"pads": (1, 1, 1, 1)}, (1, 2)),
            Case(
                ((2, 4, 8, 9), (6, 2, 3, 2), (6,)),
                {"group": 2, "strides": (2, 1), "pads": (0, 1, 1, 0)},
                (1, 2),
            ),
            Case(
                ((1, 4, 11, 11), (8, 1, 3, 3)),
                {"group": 4, "dilations": (2, 2), "pads": (2, 2, 2, 2)},
                (1,),
            ),
            Case(((1, 6, 13), (4, 6, 5), (4,)), {"pads": (2, 2), "strides": (2,)}, (1, 2)),
            Case(((1, 3, 6, 6), (4, 3, 3, 3), (4,)), {"auto_pad": "SAME_LOWER", "strides": (2, 2)}),
        ),
    ),
    OpDef(
        "ConvTranspose",
        _infer_transpose,
        _reference_transpose,
        "conv_transpose2d",
        _conv_dims,
        attrs={**_WINDOW, "output_padding": None, "output_shape": None},
        normalise=_normalise_transpose,
        spatial=True,
        fuses=("activation", "residual"),
        macs=_transpose_macs,
        cases=(
            Case(
                ((1, 3, 4, 5), (3, 2, 3, 3), (2,)),
                {"strides": (2, 2), "pads": (1, 1, 1, 1), "output_padding": (1, 1)},
                (1, 2),
            ),
            Case(((1, 4, 3, 3), (4, 1, 2, 2)), {"group": 2, "strides": (2, 2)}, (1,)),
            Case(((2, 2, 6), (2, 3, 3), (3,)), {"strides": (3,), "auto_pad": "SAME_UPPER"}, (1, 2)),
        ),
    ),
)
