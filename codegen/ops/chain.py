"""Chains of convolutions that one kernel computes: [Conv ->] depthwise Conv [-> 1x1 Conv].

No ONNX operator: codegen/groups.py makes such a node of two or three, where a plan says so. The
tensors between the stages exist in bands of a few rows only.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from codegen.graph import Activation, Tensor
from codegen.ops import conv, elementwise
from codegen.ops.base import Attrs, Case, Inferred, OpDef, Shape

_UNARY = {op.name: op for op in elementwise.UNARY}
# Of the stages: what `kernel_shape`, `strides` and `pads` are to a Conv, and the activation between
# as (operator, arguments...), () for none (the last stage's is the node's own).
# No `expand_kernel`: the depthwise stage is the first.
ATTRS = {
    "expand_kernel": (), "expand_strides": (), "expand_pads": (), "expand_act": (),
    "kernel_shape": (), "strides": (), "pads": (), "act": (), "project": 0,
}  # fmt: skip

_NONE = ((1, 1), (1, 1), (0, 0, 0, 0))  # a 1x1 convolution


def _window(kernel: Shape, strides: Shape, pads: Shape, group: int = 1) -> dict[str, Any]:
    """Attributes of one stage as those of a Conv."""
    dilations = (1,) * len(kernel)
    return {"kernel_shape": kernel, "strides": strides, "pads": pads, "dilations": dilations,
            "group": group}  # fmt: skip


def _stages(attrs: Attrs, inputs: Sequence[Any]) -> list[tuple[dict[str, Any], Any, Any, tuple]]:
    """(Conv attributes, weights, bias, activation) of each stage; inputs are x, then weights and
    bias of expansion, depthwise stage and projection, None where absent."""
    _, w1, b1, w2, b2, w3, b3 = (*inputs, *(None,) * (7 - len(inputs)))
    out = []
    if attrs["expand_kernel"]:
        at = (attrs["expand_kernel"], attrs["expand_strides"], attrs["expand_pads"])
        out.append((_window(*at), w1, b1, attrs["expand_act"]))
    at = (attrs["kernel_shape"], attrs["strides"], attrs["pads"])
    out.append((_window(*at, w2.shape[0]), w2, b2, attrs["act"]))
    if attrs["project"]:
        out.append((_window(*_NONE), w3, b3, ()))
    return out


def infer(attrs: Attrs, ins: Sequence[Tensor | None]) -> Inferred:
    """Shape and type of the result."""
    x = ins[0]
    for window, w, _, _ in _stages(attrs, ins):
        shape, dtype = conv.infer_conv(window, [x, w])[0]
        x = Tensor("", shape, dtype)
    return [(x.shape, x.dtype)]


def reference(attrs: Attrs, x: np.ndarray, *constants: np.ndarray | None) -> np.ndarray:
    """Stage by stage, in the type of x."""
    for window, w, b, act in _stages(attrs, (x, *constants)):
        x = conv.reference_conv(window, x, w, b)
        x = activate(act, x)
    return x


def activate(act: tuple, x: np.ndarray) -> np.ndarray:
    """An activation between stages, applied; () is none."""
    if not act:
        return x
    op = _UNARY[act[0]]
    return op.reference(dict(zip(op.attrs, act[1:], strict=True)), x)


def dims(attrs: Attrs, ins: Sequence[Shape], outs: Sequence[Shape]) -> dict[str, Any]:
    """Sizes: image h x w x c, expanded to eh x ew x e, then oh x ow x m; the window of the
    expansion is ekh..., that of the depthwise stage kh... `expand`: 0 none, 1 pointwise, 2 with a
    window."""
    n, c, h, w = ins[0]
    _, m, oh, ow = outs[0]
    at = _window(*_NONE)
    e, expand = c, 0
    if attrs["expand_kernel"]:
        at = _window(attrs["expand_kernel"], attrs["expand_strides"], attrs["expand_pads"])
        e, expand = ins[1][0], 1 if conv.is_pointwise(at) else 2
    first = conv.as_2d(at)
    eh = conv.window_extent(h, first["kh"], first["sh"], 1, first["pt"], first["pb"])
    ew = conv.window_extent(w, first["kw"], first["sw"], 1, first["pl"], first["pr"])
    return dict(
        n=n, c=c, h=h, w=w, e=e, eh=eh, ew=ew, m=m, oh=oh, ow=ow, expand=expand,
        **{f"e{k}": v for k, v in first.items()}, project=attrs["project"],
        act1=activation(attrs["expand_act"]), act2=activation(attrs["act"]),
        **conv.as_2d(_window(attrs["kernel_shape"], attrs["strides"], attrs["pads"])),
    )  # fmt: skip


def shape_after(attrs: Attrs, x: Shape, constants: Sequence[Shape]) -> Shape:
    """The result's shape, of shapes of the image and of the constants that are there."""
    n, m = x[0], constants[-2][0]
    d = dims(attrs, [x, *constants], [(n, m, 0, 0)])
    oh = conv.window_extent(d["eh"], d["kh"], d["sh"], 1, d["pt"], d["pb"])
    return n, m, oh, conv.window_extent(d["ew"], d["kw"], d["sw"], 1, d["pl"], d["pr"])


def activation(act: tuple) -> Activation | None:
    """An attribute as an activation."""
    return Activation(act[0], tuple(act[1:])) if act else None


def macs(d: Mapping[str, Any]) -> int:
    """Multiply-adds of all stages."""
    first = d["eh"] * d["ew"] * d["e"] * d["c"] * d["ekh"] * d["ekw"] if d["expand"] else 0
    last = d["oh"] * d["ow"] * d["e"] * d["m"] if d["project"] else 0
    return d["n"] * (first + d["oh"] * d["ow"] * d["e"] * d["kh"] * d["kw"] + last)


def case(c: int, e: int, m: int, h: int, w: int, k: int, s: int, **first: Any) -> Case:
    """A chain to test: c channels of an image h x w, expanded to e, unless c is 0. Pads as for
    "same" output; `first` overrides attributes of the expansion, m = 0: no projection."""
    expand = {"expand_kernel": (1, 1), "expand_strides": (1, 1), "expand_pads": (0,) * 4,
              "expand_act": ("Clip", 0.0, 6.0), **first} if c else {}  # fmt: skip
    at = {**ATTRS, **expand, "kernel_shape": (k, k), "strides": (s, s), "pads": (k // 2,) * 4,
          "act": (("Relu",) if s == 1 else ("HardSwish",)) if m else (),
          "project": int(m > 0)}  # fmt: skip
    shapes: list[Any] = [(1, c or e, h, w)]
    shapes += [(e, c, *expand["expand_kernel"]), (e,)] if c else [None, None]
    shapes += [(e, 1, k, k), (e,)] + ([(m, e, 1, 1), (m,)] if m else [])
    return Case(tuple(shapes), at, tuple(range(1, len(shapes))))


_CASES = (
    case(8, 16, 12, 9, 10, 3, 1),
    case(5, 24, 9, 11, 8, 3, 2),
    case(12, 8, 0, 7, 7, 5, 1),
    case(0, 16, 10, 13, 17, 3, 1),
    case(0, 8, 33, 8, 21, 3, 2),
    case(3, 8, 16, 19, 18, 3, 1, expand_kernel=(3, 3), expand_strides=(2, 2),
          expand_pads=(1, 1, 1, 1)),
    case(1, 24, 9, 11, 15, 3, 2, expand_kernel=(5, 5), expand_pads=(0, 3, 4, 1)),
)  # fmt: skip

OPS = (
    OpDef(
        "ConvChain", infer, reference, "conv_chain", dims, attrs=ATTRS, spatial=True,
        fuses=("activation", "residual"), macs=macs, cases=_CASES,
    ),
)  # fmt: skip
