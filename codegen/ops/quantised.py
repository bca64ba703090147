"""Integer arithmetic on quantised tensors: real = scale * (q - zero).

`Quantize` and `Dequantize` are the borders: q = round(real / scale) + zero, as ONNX has it, or with
the attribute `inverse` round(real * (1 / scale)) + zero, for which a quarter of the instructions is
enough: a quotient that is rounded correctly takes several corrections. `QConv` and `QDense`
multiply int8 by int8 into int32 and go back to int8 in one rounding:

    y = clamp(round(real / y_scale) + y_zero, low, high),  real = act(acc * scale + residual)
    acc = sum (x - x_zero) * w + bias

acc is exact. Weights lie in [-(2^(bits-1) - 1), 2^(bits-1) - 1]; `bits` is an attribute of the
product, 8 where it is missing, and kernels for fewer bits rely on it. What follows acc is float32,
rounded to nearest, ties to even (ONNX QLinearConv). Without activation and residual `scale` is that
of a product over y's, and real / y_scale is one multiplication.

With the attribute `reals` y is `real` itself, in float32; y_scale is 1.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from codegen.graph import Tensor
from codegen.ops import conv, dense
from codegen.ops.base import (
    Attrs,
    Case,
    Inferred,
    OpDef,
    Shape,
    Unsupported,
    around,
    axis_of,
)
from codegen.types import DType

CODES = (DType.I8, DType.U8)
Finish = Callable[[np.ndarray], np.ndarray]
BITS = 8  # of a weight
TYPES = {"bits": BITS, "reals": 0}  # attributes of a product
# Entries of the constant `zeros` of QConv and QDense.
X_ZERO, Y_ZERO, LOW, HIGH, RESIDUAL_ZERO = range(5)
# And of `factors`: what a real result is multiplied by, and the residual's scale.
Y_FACTOR, RESIDUAL_SCALE = range(2)


def _scales(attrs: Attrs, x: Shape, scale: Tensor, zero: Tensor) -> None:
    if scale.shape != zero.shape and scale.size * zero.size != 1:
        raise Unsupported(f"scale {scale.shape} and zero point {zero.shape} have other shapes")
    if scale.size == 1:
        return
    axis = axis_of(attrs["axis"], len(x))
    if scale.shape != (x[axis],):
        raise Unsupported(
            f"a scale of shape {scale.shape} for dimension {axis} of {x}; blocks of a dimension "
            "are not supported"
        )


def _normalise(attrs: dict[str, Any], ins: Sequence[Tensor | None], opset: int) -> dict[str, Any]:
    """One axis for scalars, so that equal layers look alike."""
    per_axis = ins[1].size > 1
    return {"axis": axis_of(attrs["axis"], len(ins[0].shape)) if per_axis else 0}


def _normalise_quantize(
    attrs: dict[str, Any], ins: Sequence[Tensor | None], opset: int
) -> dict[str, Any]:
    return {**_normalise(attrs, ins, opset), "inverse": attrs["inverse"]}


def _infer_quantize(attrs: Attrs, ins: Sequence[Tensor | None]) -> Inferred:
    x, scale, zero = ins
    _scales(attrs, x.shape, scale, zero)
    if x.dtype != DType.F32 or zero.dtype not in CODES:
        raise Unsupported(
            f"quantisation of {x.dtype.value} to {zero.dtype.value}; f32 to i8 or u8 is supported"
        )
    return [(x.shape, zero.dtype)]


def _infer_dequantize(attrs: Attrs, ins: Sequence[Tensor | None]) -> Inferred:
    x, scale, zero = ins
    _scales(attrs, x.shape, scale, zero)
    if x.dtype not in (*CODES, DType.I32) or scale.dtype != DType.F32:
        raise Unsupported(
            f"{x.dtype.value} times a scale of {scale.dtype.value}; i8, u8 or i32 times f32 is "
            "supported"
        )
    return [(x.shape, DType.F32)]


def _along(v: np.ndarray, axis: int, rank: int) -> np.ndarray:
    return v.reshape(-1, *(1,) * (rank - 1 - axis)) if v.size > 1 else v.reshape(())


def _quantize(attrs: Attrs, x: np.ndarray, scale: np.ndarray, zero: np.ndarray) -> np.ndarray:
    """In float32, as the kernel: a tie of the quotient must be the same tie."""
    scale, offset = (_along(v, attrs["axis"], x.ndim) for v in (scale, zero))
    codes, x, scale = np.iinfo(zero.dtype), x.astype(np.float32), scale.astype(np.float32)
    with np.errstate(all="ignore"):
        real = x * (np.float32(1.0) / scale) if attrs["inverse"] else x / scale
        y = np.rint(real) + offset.astype(np.float32)
    y = np.where(np.isnan(y), offset, y)
    return np.clip(y, codes.min, codes.max).astype(zero.dtype)


def _dequantize(attrs: Attrs, x: np.ndarray, scale: np.ndarray, zero: np.ndarray) -> np.ndarray:
    scale, offset = (_along(v, attrs["axis"], x.ndim) for v in (scale, zero))
    return (x.astype(np.int64) - offset) * scale.astype(np.float64)


def _border_dims(attrs: Attrs, ins: Sequence[Shape], outs: Sequence[Shape]) -> dict[str, Any]:
    """What is outside and inside of the dimension with scales; images, and `c` of what comes last,
    of tensors that have a layout."""
    per_axis = int(np.prod(ins[1], dtype=np.int64)) > 1
    size = int(np.prod(ins[0], dtype=np.int64))
    sizes = around(ins[0], attrs["axis"]) if per_axis else {"outer": 1, "n": 1, "inner": size}
    images, c = (ins[0][0], ins[0][-1]) if len(ins[0]) > 2 else (1, 1)
    return {**sizes, "images": images, "c": c}


def _quantize_dims(attrs: Attrs, ins: Sequence[Shape], outs: Sequence[Shape]) -> dict[str, Any]:
    return {**_border_dims(attrs, ins, outs), "inverse": attrs["inverse"]}


def requantise(
    acc: np.ndarray, scale: np.ndarray, zeros: np.ndarray, factors: np.ndarray,
    residual: np.ndarray | None = None, finish: Finish | None = None, reals: bool = False,
) -> np.ndarray:  # fmt: skip
    """acc, channels in dimension 1 -> int8 or `reals`, as at the top; `finish`: the activation."""
    factors = factors.astype(np.float32)
    real = acc.astype(np.float32) * _along(scale.astype(np.float32), 1, acc.ndim)
    if residual is not None:
        centred = (residual.astype(np.int32) - zeros[RESIDUAL_ZERO]).astype(np.float32)
        real = real + centred * factors[RESIDUAL_SCALE]
    if finish:
        real = finish(real.astype(np.float64)).astype(np.float32)
    if reals:
        return real
    if finish or residual is not None:
        real = real * factors[Y_FACTOR]
    y = np.rint(real) + np.float32(zeros[Y_ZERO])
    return np.clip(y, zeros[LOW], zeros[HIGH]).astype(np.int8)


def _reference_conv(
    attrs: Attrs, x: np.ndarray, w: np.ndarray, b: np.ndarray, scale: np.ndarray,
    zeros: np.ndarray, factors: np.ndarray, **rest: Any,
) -> np.ndarray:  # fmt: skip
    # sums of less than 2^53 are exact in float64
    wide = x.astype(np.float64) - zeros[X_ZERO]
    acc = conv.reference_conv(attrs, wide, w.astype(np.float64), b.astype(np.float64))
    return requantise(acc, scale, zeros, factors, reals=bool(attrs.get("reals")), **rest)


def _reference_dense(
    attrs: Attrs, x: np.ndarray, w: np.ndarray, b: np.ndarray, scale: np.ndarray,
    zeros: np.ndarray, factors: np.ndarray, **rest: Any,
) -> np.ndarray:  # fmt: skip
    acc = (x.astype(np.float64) - zeros[X_ZERO]) @ w.astype(np.float64) + b
    return requantise(acc, scale, zeros, factors, reals=bool(attrs.get("reals")), **rest)


def _normalise_conv(
    attrs: dict[str, Any], ins: Sequence[Tensor | None], opset: int
) -> dict[str, Any]:
    return conv.OPS[0].normalise(attrs, ins[:3], opset)


def _infer_conv(attrs: Attrs, ins: Sequence[Tensor | None]) -> Inferred:
    return [(conv.infer_conv(attrs, ins)[0][0], written(attrs))]


def _infer_dense(attrs: Attrs, ins: Sequence[Tensor | None]) -> Inferred:
    (m, k), (k2, n) = ins[0].shape, ins[1].shape
    if k != k2:
        raise Unsupported(f"inner dimensions differ: {ins[0].shape} and {ins[1].shape}")
    return [((m, n), written(attrs))]


def written(attrs: Attrs) -> DType:
    """The type of what a product or mean of codes writes."""
    return DType.F32 if attrs.get("reals") else DType.I8


def _zero_point(b: Any, name: str, zero: str, dtype: np.dtype | type = np.uint8) -> str:
    return zero or b.constant(f"{name}/zero", np.zeros((), dtype))


def _expand_quantize(b: Any, node: Any) -> None:
    x, scale, zero = (*node.inputs, "")[:3]
    wanted = node.attrs["output_dtype"]
    dtype = DType.from_onnx(wanted).numpy if wanted in (2, 3) else np.uint8
    zero = _zero_point(b, node.name, zero, dtype)
    b.add("Quantize", [x, scale, zero], {"axis": node.attrs["axis"]}, node.name, node.outputs)


def _expand_dequantize(b: Any, node: Any) -> None:
    x, scale, zero = (*node.inputs, "")[:3]
    zero = _zero_point(b, node.name, zero, b.tensors[x].dtype.numpy)
    b.add("Dequantize", [x, scale, zero], {"axis": node.attrs["axis"]}, node.name, node.outputs)


def _infer_linear(attrs: Attrs, ins: Sequence[Tensor | None]) -> Inferred:
    """Only how many outputs there are, and that the attributes hold: an expansion finds shapes."""
    if attrs.get("block_size"):
        raise Unsupported("blocks of a dimension with scales of their own")
    return [(ins[0].shape, ins[0].dtype)]


def _real(b: Any, node: Any, operand: int, what: str, axis: int = 1) -> str:
    """A quantised operand (value, scale, zero at `operand`) as a real one."""
    names = list(node.inputs[operand : operand + 3])
    return b.add("Dequantize", names, {"axis": axis}, f"{node.name}/{what}")[0]


def _expand_qlinear_conv(b: Any, node: Any) -> None:
    """QLinearConv -> what it means, from which passes make QConv."""
    x, w = _real(b, node, 0, "x"), _real(b, node, 3, "w", 0)
    y_scale, y_zero, *bias = node.inputs[6:]
    names = [x, w]
    if bias and bias[0]:
        product = _product(b, node, b.tensors[bias[0]].size)
        zero = b.constant(f"{node.name}/b/zero", np.zeros(b.tensors[product].shape, np.int32))
        names += b.add("Dequantize", [bias[0], product, zero], {"axis": 0}, f"{node.name}/b")
    y = b.add("Conv", names, node.attrs, f"{node.name}/conv")[0]
    b.add("Quantize", [y, y_scale, y_zero], {"axis": 1}, node.name, node.outputs)


def _product(b: Any, node: Any, channels: int) -> str:
    """The scale of a sum of products, one per channel."""
    scales = [b.constants.get(node.inputs[i]) for i in (1, 4)]
    if any(s is None for s in scales):
        raise Unsupported("a bias beside scales that are computed at run time")
    value = (scales[0].astype(np.float32) * scales[1].astype(np.float32)).reshape(-1)
    value = np.broadcast_to(value, (channels,)) if channels > 1 else value[:1].reshape(())
    return b.constant(f"{node.name}/scale", np.ascontiguousarray(value))


def _expand_qlinear_matmul(b: Any, node: Any) -> None:
    rank = len(b.tensors[node.inputs[3]].shape)
    a, c = _real(b, node, 0, "a", 0), _real(b, node, 3, "b", max(rank - 1, 0))
    y = b.add("MatMul", [a, c], {}, f"{node.name}/matmul")[0]
    b.add("Quantize", [y, *node.inputs[6:8]], {"axis": 1}, node.name, node.outputs)


def _codes(rng: np.random.Generator, *shape: int, bits: int = BITS) -> np.ndarray:
    most = 2 ** (bits - 1) - 1
    return rng.integers(-most, most + 1, shape).astype(np.int8)


def qconv_case(
    x: Shape, out: int, kernel: Shape, zero: int = 3, low: int = -128, **attrs: Any
) -> Case:
    """A QConv with constants that use the range of int8, and outputs that mostly stay in it."""
    rng = np.random.default_rng(out + sum(x))
    cg = x[1] // attrs.get("group", 1)
    depth = cg * int(np.prod(kernel))
    w = _codes(rng, out, cg, *kernel, bits=attrs.get("bits", BITS))
    constants = _constants(rng, out, depth, zero, low)
    return Case((x, w, *constants), attrs, (1, 2, 3, 4, 5))


def qdense_case(
    m: int, k: int, n: int, zero: int = -5, low: int = -128, **attrs: int
) -> Case:
    """A QDense of such constants."""
    rng = np.random.default_rng(m + k + n)
    constants = _constants(rng, n, k, zero, low)
    w = _codes(rng, k, n, bits=attrs.get("bits", BITS))
    return Case(((m, k), w, *constants), attrs, (1, 2, 3, 4, 5))


def _constants(
    rng: np.random.Generator, n: int, depth: int, zero: int, low: int
) -> tuple[np.ndarray, ...]:
    bias = rng.integers(-20_000, 20_000, n).astype(np.int32)
    scale = (rng.uniform(0.5, 1.5, n) / (120.0 * np.sqrt(depth))).astype(np.float32)
    zeros = np.array([zero, -7, low, 127, 11], np.int32)
    return bias, scale, zeros, np.array([0.75, 0.5], np.float32)


def _with_types(dims: Callable[..., dict[str, Any]]) -> Callable[..., dict[str, Any]]:
    """The sizes of a product, the bits of its weights, and whether it writes real values."""

    def of(attrs: Attrs, ins: Sequence[Shape], outs: Sequence[Shape]) -> dict[str, Any]:
        return {**dims(attrs, ins, outs), **{k: attrs.get(k, v) for k, v in TYPES.items()}}

    return of


def _dense_macs(d: Mapping[str, Any]) -> int:
    return d["m"] * d["k"] * d["n"]


def _scalar(value: float, dtype: np.dtype | type = np.float32) -> np.ndarray:
    return np.array(value, dtype)


def _qlinear_case(weights: np.dtype | type, zero: int) -> Case:
    rng = np.random.default_rng(zero)
    x = rng.integers(0, 256, (1, 4, 7, 6)).astype(np.uint8)
    # small, for onnxruntime saturates sums of two products in 16 bits on some machines
    w = (_codes(rng, 6, 2, 3, 3).astype(int) // 2 + zero).astype(weights)
    operands = (x, _scalar(0.02), _scalar(120, np.uint8), w, _scalar(0.01), _scalar(zero, weights),
                _scalar(0.1), _scalar(99, np.uint8))  # fmt: skip
    return Case((*operands, np.arange(-300, 300, 100, dtype=np.int32)),
                {"group": 2, "pads": (1, 1, 1, 1)}, tuple(range(1, 9)))  # fmt: skip


_AXIS = {"axis": 1, "block_size": 0}
_RNG = np.random.default_rng(0)

OPS = (
    OpDef(
        "Quantize", _infer_quantize, _quantize, "quantize", _quantize_dims,
        attrs={"axis": 1, "inverse": 0}, normalise=_normalise_quantize, axis_attrs=("axis",),
        cases=tuple(
            Case((shape, np.full(n, 0.05, np.float32) * np.linspace(1, 3, n or 1, dtype=np.float32),
                  np.full(n, 7, code)), {"axis": axis, "inverse": inverse}, (1, 2))
            for inverse in (0, 1)
            for shape, n, axis, code in (
                ((1, 3, 5, 7), (), 1, np.int8), ((3, 40), (), 1, np.uint8),
                ((2, 19, 3, 3), 19, 1, np.int8), ((5, 6, 7), 7, 2, np.uint8),
                ((2, 4, 3, 11), (), 1, np.uint8), ((2, 2, 40), (), 1, np.int8),
            )
        ),
    ),
    OpDef(
        "Dequantize", _infer_dequantize, _dequantize, "dequantize", _border_dims,
        attrs={"axis": 1}, normalise=_normalise, axis_attrs=("axis",), folds=False,
        cases=tuple(
            Case((shape, np.full(n, 0.05, np.float32) * np.linspace(1, 3, n or 1, dtype=np.float32),
                  np.full(n, zero, code)), {"axis": axis}, (1, 2))
            for shape, n, axis, code, zero in (
                ((1, 3, 5, 7), (), 1, np.int8, -9), ((3, 40), (), 1, np.int8, 5),
                ((2, 19, 3, 3), 19, 1, np.int8, 7), ((5, 6, 7), 7, 2, np.int8, 7),
            )
        ),
    ),
    OpDef(
        "QConv", _infer_conv, _reference_conv, "qconv2d", _with_types(conv.OPS[0].dims),
        attrs={**conv.OPS[0].attrs, **TYPES}, normalise=_normalise_conv, spatial=True,
        fuses=("activation", "residual"), whole=True, macs=conv.OPS[0].macs,
        cases=(
            qconv_case((1, 3, 9, 7), 5, (3, 3), pads=(1, 1, 1, 1)),
            qconv_case((2, 4, 8, 9), 6, (3, 2), group=2, strides=(2, 1), pads=(0, 1, 1, 0)),
            qconv_case((1, 4, 11, 11), 8, (3, 3), group=4, dilations=(2, 2), pads=(2, 2, 2, 2)),
            qconv_case((1, 6, 13), 4, (5,), pads=(2, 2), strides=(2,), low=-7),
            qconv_case((1, 8, 5, 7), 19, (1, 1), reals=1),
            qconv_case((1, 6, 5, 7), 21, (3, 3), pads=(1, 1, 1, 1), reals=1),
        ),
    ),
    OpDef(
        "QDense", _infer_dense, _reference_dense, "qdense", _with_types(dense.dense_dims),
        attrs=TYPES, fuses=("activation", "residual"), whole=True, macs=_dense_macs,
        cases=(qdense_case(1, 7, 5), qdense_case(3, 20, 9), qdense_case(2, 33, 18, low=-7),
               qdense_case(5, 24, 19, reals=1)),
    ),
    OpDef(
        "QuantizeLinear", _infer_linear, expand=_expand_quantize,
        attrs={**_AXIS, "output_dtype": 0}, ignored=("saturate", "precision"),
        cases=(
            Case(((2, 3, 4), _scalar(0.02), _scalar(9, np.uint8))),
            Case(((2, 3, 4), np.array([0.02, 0.1, 0.03], np.float32), np.zeros(3, np.int8)),
                 {"axis": 1}),
        ),
    ),
    OpDef(
        "DequantizeLinear", _infer_linear, expand=_expand_dequantize,
        attrs={**_AXIS, "output_dtype": 0},
        cases=(
            Case((_codes(_RNG, 2, 3, 4), _scalar(0.02), _scalar(9, np.int8))),
            Case((_codes(_RNG, 2, 3, 4).astype(np.int32), _scalar(0.02), _scalar(0, np.int32))),
            Case((_codes(_RNG, 2, 3), np.array([0.02, 0.1, 0.03], np.float32),
                  np.array([1, 2, 3], np.int8)), {"axis": -1}),
        ),
    ),
    OpDef(
        "QLinearConv", _infer_linear, expand=_expand_qlinear_conv, attrs=conv.OPS[0].attrs,
        cases=(_qlinear_case(np.int8, 0), _qlinear_case(np.uint8, 128)),
    ),
    OpDef(
        "QLinearMatMul", _infer_linear, expand=_expand_qlinear_matmul,
        cases=(
            Case((_codes(_RNG, 3, 20), _scalar(0.02), _scalar(-4, np.int8), _codes(_RNG, 20, 7),
                  _scalar(0.01), _scalar(0, np.int8), _scalar(0.1), _scalar(3, np.int8))),
        ),
    ),
)  # fmt: skip
