"""Quantised operators of onnxruntime's own domain, which its quantiser writes in the format
QOperator: rewritten into what they mean, Dequantize -> operator -> Quantize, from which
passes/integers.py makes integer arithmetic."""

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np

from codegen.graph import Tensor
from codegen.ops.base import Attrs, Case, Inferred, OpDef, Unsupported

DOMAIN = "com.microsoft"
_POOL = {
    "auto_pad": "NOTSET", "ceil_mode": 0, "count_include_pad": 0, "kernel_shape": (), "pads": (),
    "strides": (),
}  # fmt: skip
_LAST = {"channels_last": 0}


def _infer(least: int, attrs: Attrs, ins: Sequence[Tensor | None]) -> Inferred:
    """Only that the operands are there; an expansion finds shapes."""
    if len(ins) < least or ins[0] is None:
        raise Unsupported(f"it has {len(ins)} inputs, and needs {least}")
    if attrs.get("channels_last"):
        raise Unsupported("channels_last = 1")
    return [(ins[0].shape, ins[0].dtype)]


def _zero(b: Any, node: Any, name: str) -> str:
    """A zero point, which may be left out; then it is 0 of the first tensor's type."""
    dtype = next(b.tensors[t].dtype.numpy for t in node.inputs if t and b.tensors[t].shape)
    return name or b.constant(f"{node.name}/zero", np.zeros((), dtype))


def _real(b: Any, node: Any, at: int, axis: int = 1) -> str:
    """The operand whose value, scale and zero point begin at input `at`, as a real one."""
    x, scale, zero = (*node.inputs, "", "")[at : at + 3]
    names = [x, scale, _zero(b, node, zero)]
    return b.add("Dequantize", names, {"axis": axis}, f"{node.name}/in{at}")[0]


def _codes(b: Any, node: Any, y: str, at: int) -> None:
    """The result in codes of the scale and zero point from input `at` on."""
    scale, zero = (*node.inputs, "")[at : at + 2]
    names = [y, scale, _zero(b, node, zero)]
    b.add("Quantize", names, {"axis": 1}, node.name, node.outputs)


def _expand_unary(op: str, kept: tuple[str, ...], b: Any, node: Any) -> None:
    attrs = {k: v for k in kept if (v := node.attrs[k]) not in ((), None)}
    y = b.add(op, [_real(b, node, 0)], attrs, f"{node.name}/{op}")[0]
    _codes(b, node, y, 3)


def _expand_binary(op: str, b: Any, node: Any) -> None:
    names = [_real(b, node, 0), _real(b, node, 3)]
    _codes(b, node, b.add(op, names, {}, f"{node.name}/{op}")[0], 6)


def _expand_softmax(b: Any, node: Any) -> None:
    """Since opset 13 along one axis, before of all from there on."""
    y = b.add("Softmax", [_real(b, node, 0)], {"axis": node.attrs["axis"]}, f"{node.name}/softmax",
              opset=node.attrs["opset"])[0]  # fmt: skip
    _codes(b, node, y, 3)


def _expand_concat(b: Any, node: Any) -> None:
    parts = [_real(b, node, i) for i in range(2, len(node.inputs), 3)]
    y = b.add("Concat", parts, {"axis": node.attrs["axis"]}, f"{node.name}/concat")[0]
    _codes(b, node, y, 0)


def _expand_gemm(b: Any, node: Any) -> None:
    attrs = {k: node.attrs[k] for k in ("alpha", "transA", "transB")}
    names = [_real(b, node, 0), _real(b, node, 3, 0 if attrs["transB"] else 1)]
    if len(node.inputs) > 6 and node.inputs[6]:
        names.append(_bias(b, node, attrs["alpha"]))
    if len(node.inputs) < 8 or not node.inputs[7]:  # the result is real
        b.add("Gemm", names, attrs, node.name, node.outputs)
        return
    _codes(b, node, b.add("Gemm", names, attrs, f"{node.name}/gemm")[0], 7)


def _bias(b: Any, node: Any, alpha: float) -> str:
    """Sums of products, by their scale."""
    scales = [b.constants.get(node.inputs[i]) for i in (1, 4)]
    if any(s is None for s in scales):
        raise Unsupported("a bias beside scales that are computed at run time")
    scale = (np.float32(alpha) * scales[0] * scales[1]).astype(np.float32).reshape(-1)
    scale = scale if len(scale) > 1 else scale.reshape(())
    names = [b.constant(f"{node.name}/scale", scale),
             b.constant(f"{node.name}/zero", np.zeros(scale.shape, np.int32))]  # fmt: skip
    return b.add("Dequantize", [node.inputs[6], *names], {"axis": -1}, f"{node.name}/bias")[0]


def _case(*shapes: tuple[int, ...], attrs: Mapping[str, Any] | None = None, **more: Any) -> Case:
    """Codes of these shapes, each with its scale and zero point, and those of the result."""
    rng, inputs = np.random.default_rng(len(shapes)), []
    for i, shape in enumerate(shapes):
        codes = rng.integers(0, 256, shape).astype(np.uint8)
        inputs += [codes, np.array(0.02 + 0.01 * i, np.float32), np.array(120 + i, np.uint8)]
    result = [np.array(more.get("scale", 0.05), np.float32), np.array(100, np.uint8)]
    known = tuple(i for i in range(len(inputs) + 2) if i % 3 or i >= len(inputs))
    if more.get("first"):
        return Case((*result, *inputs), attrs or {}, (0, 1, *(i + 2 for i in known[:-2])))
    return Case((*inputs, *result), attrs or {}, known)


def _gemm_case(bias: bool, coded: bool, **attrs: Any) -> Case:
    rng = np.random.default_rng(3)
    a, w = (rng.integers(0, 256, s).astype(np.uint8) for s in ((3, 20), (7, 20)))
    inputs = [a, np.array(0.02, np.float32), np.array(120, np.uint8),
              (w.astype(np.int16) - 128).astype(np.int8), np.array(0.01, np.float32),
              np.array(0, np.int8), np.arange(-300, 400, 100, dtype=np.int32) if bias else None,
              *([np.array(0.1, np.float32), np.array(99, np.uint8)] if coded else [])]  # fmt: skip
    known = tuple(i for i in range(1, len(inputs)) if inputs[i] is not None)
    return Case(tuple(inputs), {"transB": 1, **attrs}, known)


OPS = (
    *(
        OpDef(f"QLinear{op}", partial(_infer, 7), expand=partial(_expand_binary, op), domain=DOMAIN,
              cases=(_case((1, 4, 5, 6), (1, 4, 5, 6)), _case((2, 4, 3), (4, 1))))
        for op in ("Add", "Mul")
    ),
    OpDef(
        "QLinearSigmoid", partial(_infer, 4), expand=partial(_expand_unary, "Sigmoid", ()),
        domain=DOMAIN, cases=(_case((2, 4, 5), scale=1 / 256),),
    ),
    OpDef(
        "QLinearLeakyRelu", partial(_infer, 4), attrs={"alpha": 0.01}, domain=DOMAIN,
        expand=partial(_expand_unary, "LeakyRelu", ("alpha",)),
        cases=(_case((2, 4, 5), attrs={"alpha": 0.2}),),
    ),
    OpDef(
        "QLinearAveragePool", partial(_infer, 4), attrs={**_POOL, **_LAST}, domain=DOMAIN,
        expand=partial(_expand_unary, "AveragePool", tuple(_POOL)),
        cases=(_case((1, 4, 8, 6), attrs={"kernel_shape": (2, 2), "strides": (2, 2)}),),
    ),
    OpDef(
        "QLinearGlobalAveragePool", partial(_infer, 4), attrs=_LAST, domain=DOMAIN,
        expand=partial(_expand_unary, "GlobalAveragePool", ()), cases=(_case((1, 4, 8, 6)),),
    ),
    OpDef(
        "QLinearSoftmax", partial(_infer, 4), attrs={"axis": -1, "opset": 13}, domain=DOMAIN,
        expand=_expand_softmax, cases=(_case((3, 9), attrs={"opset": 13}, scale=1 / 256),),
    ),
    OpDef(
        "QLinearConcat", partial(_infer, 5), attrs={"axis": 1}, expand=_expand_concat,
        domain=DOMAIN,
        cases=(_case((1, 4, 5), (1, 3, 5), attrs={"axis": 1}, first=True),),
    ),
    OpDef(
        "QGemm", partial(_infer, 6), attrs={"alpha": 1.0, "transA": 0, "transB": 0},
        expand=_expand_gemm, domain=DOMAIN,
        cases=(_gemm_case(True, True), _gemm_case(False, True, alpha=0.5),
               _gemm_case(True, False)),
    ),
)  # fmt: skip
