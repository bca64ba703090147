"""Operators between codes of int8 other than products: sums, products of elements, means, functions
of one value, softmax. real = scale * (q - zero); results are in float32, in the order written, and
become codes in one rounding, as in ops/quantised.py.

    QAdd          real / y_scale = (a - a_zero) * fa + (b - b_zero) * fb
    QMul          real / y_scale = (a - a_zero) * (b - b_zero) * fa
    QAveragePool  real / y_scale = sum (x - x_zero) * (fa / count)
    QMap          y = table[x + 128]: a function of each value, rounded when the table was made
    QSoftmax      real / y_scale = e[x] * (fa / sum e[x]), e = table[max x - x]

Constants: `zeros` as QConv has them, the second operand's as the residual's, `factors` (fa, fb), a
`table` with an entry per code.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from codegen.graph import Tensor
from codegen.ops import elementwise, pool
from codegen.ops.base import (
    Attrs,
    Case,
    Inferred,
    OpDef,
    Shape,
    around,
    broadcast,
    same_as_first,
)
from codegen.ops.quantised import HIGH, LOW, RESIDUAL_ZERO, X_ZERO, Y_ZERO, written

CODES = 256  # of int8
LEAST = -128  # the first


def _centred(x: np.ndarray, zero: np.ndarray) -> np.ndarray:
    return (x.astype(np.int32) - zero).astype(np.float32)


def _coded(real: np.ndarray, zeros: np.ndarray) -> np.ndarray:
    y = np.rint(real) + np.float32(zeros[Y_ZERO])
    return np.clip(y, zeros[LOW], zeros[HIGH]).astype(np.int8)


def _add(at: Attrs, a: np.ndarray, b: np.ndarray, zeros: np.ndarray, factors: np.ndarray) -> Any:
    fa, fb = factors.astype(np.float32)
    real = _centred(a, zeros[X_ZERO]) * fa + _centred(b, zeros[RESIDUAL_ZERO]) * fb
    return _coded(real, zeros)


def _mul(at: Attrs, a: np.ndarray, b: np.ndarray, zeros: np.ndarray, factors: np.ndarray) -> Any:
    product = _centred(a, zeros[X_ZERO]) * _centred(b, zeros[RESIDUAL_ZERO])
    return _coded(product * factors.astype(np.float32)[0], zeros)


def _average(at: Attrs, x: np.ndarray, zeros: np.ndarray, factors: np.ndarray) -> np.ndarray:
    total, count = pool.sums(at, x.astype(np.int32) - zeros[X_ZERO])
    by = factors.astype(np.float32)[0] / count.astype(np.float32)
    real = total.astype(np.float32) * by
    return real if at.get("reals") else _coded(real, zeros)


def _map(at: Attrs, x: np.ndarray, table: np.ndarray) -> np.ndarray:
    return table[x.astype(np.int32) - LEAST]


def _softmax(
    at: Attrs, x: np.ndarray, table: np.ndarray, zeros: np.ndarray, factors: np.ndarray
) -> np.ndarray:
    """The sum is taken in float32 in the order of memory, as the kernel does."""
    wide = x.astype(np.int32)
    e = table.astype(np.float32)[wide.max(axis=at["axis"], keepdims=True) - wide]
    total = np.add.accumulate(e, axis=at["axis"], dtype=np.float32).take([-1], axis=at["axis"])
    return _coded(e * (factors.astype(np.float32)[0] / total), zeros)


def _operands(at: Attrs, ins: Sequence[Tensor | None]) -> Inferred:
    return broadcast(at, ins[:2])


def _pair_dims(name: str):
    dims = elementwise.binary_dims(name)

    def of(at: Attrs, ins: Sequence[Shape], outs: Sequence[Shape]) -> dict[str, Any]:
        return dims(at, ins[:2], outs)

    return of


def _size(at: Attrs, ins: Sequence[Shape], outs: Sequence[Shape]) -> dict[str, Any]:
    return {"size": int(np.prod(ins[0], dtype=np.int64))}


def _axis(at: Attrs, ins: Sequence[Shape], outs: Sequence[Shape]) -> dict[str, Any]:
    return around(ins[0], at["axis"])


def _zeros(x: int, other: int, low: int = LEAST) -> np.ndarray:
    return np.array([x, -7, low, 127, other], np.int32)


def _factors(*values: float) -> np.ndarray:
    return np.array(values, np.float32)


_PAIRS = (((2, 3, 5), (2, 3, 5)), ((1, 7, 4, 3), (1, 7, 1, 1)), ((1, 40, 3, 3), (1, 40, 3, 3)),
          ((2, 1, 3), (1, 4, 3)), ((1, 21, 5, 5), (1, 1, 5, 5)), ((1, 23), (6, 23)))  # fmt: skip
_TABLE = np.random.default_rng(1).integers(-128, 128, CODES).astype(np.int8)


def _pair_cases(*factors: float) -> tuple[Case, ...]:
    return tuple(
        Case((*shapes, _zeros(3, -11, -128 + 40 * (i % 2)), _factors(*factors)), {}, (2, 3))
        for i, shapes in enumerate(_PAIRS)
    )


def _pool_cases() -> tuple[Case, ...]:
    """Those of the average, and the mean of whole images."""
    whole = tuple(
        Case(((2, c, *size),), {"kernel_shape": size}) for c, size in ((24, (7, 7)), (9, (3, 300)))
    )
    coded = [
        replace(c, inputs=(*c.inputs, _zeros(-5, 0), _factors(1.7)), constants=(1, 2))
        for c in (*pool.AVERAGE_CASES, *whole)
    ]
    reals = [replace(c, attrs={**c.attrs, "reals": 1}) for c in coded if c.attrs.get("pads")]
    mean = replace(coded[-2], attrs={**coded[-2].attrs, "reals": 1})
    return (*coded, *reals, mean)


def _quantised_average() -> OpDef:
    """The mean over windows of codes, with the attribute `reals` of products."""
    plain = pool.average("QAveragePool", _average, "qaverage_pool2d", _pool_cases())

    def infer(at: Attrs, ins: Sequence[Tensor | None]) -> Inferred:
        return [(plain.infer(at, ins)[0][0], written(at))]

    def dims(at: Attrs, ins: Sequence[Shape], outs: Sequence[Shape]) -> dict[str, Any]:
        return {**plain.dims(at, ins, outs), "reals": at.get("reals", 0)}

    return replace(plain, infer=infer, dims=dims, attrs={**plain.attrs, "reals": 0})


_EXP = np.exp(-0.05 * np.arange(CODES)).astype(np.float32)

OPS = (
    OpDef("QAdd", _operands, _add, "qbinary", _pair_dims("add"), cases=_pair_cases(0.6, 0.9)),
    OpDef("QMul", _operands, _mul, "qbinary", _pair_dims("mul"), cases=_pair_cases(0.02)),
    _quantised_average(),
    OpDef(
        "QMap", same_as_first, _map, "qmap", _size,
        cases=tuple(Case((x, _TABLE), {}, (1,)) for x in ((2, 3, 5), (1, 7, 4, 3), (1, 97))),
    ),
    OpDef(
        "QSoftmax", same_as_first, _softmax, "qsoftmax", _axis,
        attrs={"axis": 1}, axis_attrs=("axis",),
        cases=tuple(
            Case((shape, _EXP, _zeros(0, 0), _factors(200.0)), {"axis": axis}, (1, 2, 3))
            for shape, axis in (((1, 10), 1), ((3, 33), 1), ((2, 5, 3, 4), 1), ((2, 3, 7), 2))
        ),
    ),
)  # fmt: skip
