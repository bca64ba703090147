"""Matrix products. Gemm in canonical form is y[m][n] = x[m][k] w[k][n] + b[n]; all else is
rewritten around it."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from codegen.graph import Tensor
from codegen.ops.base import (
    Attrs,
    Case,
    Inferred,
    OpDef,
    Shape,
    Unsupported,
    sparse_dims,
    strides_of,
)


def _infer_gemm(attrs: Attrs, ins: Sequence[Tensor | None]) -> Inferred:
    if len(ins[0].shape) != 2 or len(ins[1].shape) != 2:
        raise Unsupported(
            f"Gemm of shapes {ins[0].shape} and {ins[1].shape}; two matrices are needed"
        )
    m, k = ins[0].shape[::-1] if attrs.get("transA") else ins[0].shape
    k2, n = ins[1].shape[::-1] if attrs.get("transB") else ins[1].shape
    if k != k2:
        raise Unsupported(f"inner dimensions differ: {ins[0].shape} and {ins[1].shape}")
    return [((m, n), ins[0].dtype)]


def _expand_gemm(b, node) -> None:
    """Gemm with transposes, factors or an awkward bias -> Transpose, Mul, Dense, Add."""
    at, (x, w), c = node.attrs, node.inputs[:2], (*node.inputs, "")[2]
    if at["transA"]:
        x = b.add("Transpose", [x], {"perm": (1, 0)}, f"{node.name}/transA")[0]
    if at["transB"]:
        w = b.add("Transpose", [w], {"perm": (1, 0)}, f"{node.name}/transB")[0]
    if at["alpha"] != 1.0:
        factor = b.constant(f"{node.name}/alpha", np.asarray(at["alpha"], b.tensors[w].dtype.numpy))
        w = b.add("Mul", [w, factor], {}, f"{node.name}/scale")[0]
    if c and at["beta"] != 1.0:
        factor = b.constant(f"{node.name}/beta", np.asarray(at["beta"], b.tensors[c].dtype.numpy))
        c = b.add("Mul", [c, factor], {}, f"{node.name}/scale_bias")[0]
    _dense(b, node.name, x, w, c, node.outputs)


def _dense(b, name: str, x: str, w: str, c: str, outputs: Sequence[str]) -> None:
    n = b.tensors[w].shape[1]
    if (
        c in b.constants
        and b.constants[c].size in (1, n)
        and b.constants[c].shape[-1:] in ((), (1,), (n,))
    ):
        bias = b.constant(f"{name}/bias", np.broadcast_to(b.constants[c].reshape(-1), (n,)))
        b.add("Dense", [x, w, bias], {}, name, outputs)
    elif c:
        y = b.add("Dense", [x, w], {}, f"{name}/product")[0]
        b.add("Add", [y, c], {}, name, outputs)
    else:
        b.add("Dense", [x, w], {}, name, outputs)


def dense_dims(attrs: Attrs, ins: Sequence[Shape], outs: Sequence[Shape]) -> dict[str, Any]:
    """y[m][n] = x[m][k] w[k][n]."""
    return dict(m=ins[0][0], k=ins[0][1], n=ins[1][1], **sparse_dims(attrs))


def _reference_dense(
    attrs: Attrs, x: np.ndarray, w: np.ndarray, b: np.ndarray | None = None
) -> np.ndarray:
    return x @ w if b is None else x @ w + b


def _infer_matmul(attrs: Attrs, ins: Sequence[Tensor | None]) -> Inferred:
    a, c = ins[0].shape, ins[1].shape
    if not a or not c:
        raise Unsupported("MatMul of a scalar")
    left, right = (a if len(a) > 1 else (1, *a)), (c if len(c) > 1 else (*c, 1))
    if left[-1] != right[-2]:
        raise Unsupported(f"inner dimensions differ: {a} and {c}")
    batch = tuple(np.broadcast_shapes(left[:-2], right[:-2]))
    return [((*batch, *left[-2:-1][: len(a) > 1], *right[-1:][: len(c) > 1]), ins[0].dtype)]


def _expand_matmul(b, node) -> None:
    """MatMul -> Dense where the right side is one matrix, else BatchMatMul on operands of equal
    rank."""
    a, c = (b.tensors[t].shape for t in node.inputs)
    out = _infer_matmul({}, [b.tensors[t] for t in node.inputs])[0][0]
    x, w = node.inputs
    if len(c) == 1:
        w = b.add("Reshape", [w], {"shape": (c[0], 1)}, f"{node.name}/right")[0]
    c2 = b.tensors[w].shape
    if len(c2) == 2:
        x = b.add(
            "Reshape",
            [x],
            {"shape": (int(np.prod(a[:-1], dtype=np.int64)), a[-1])},
            f"{node.name}/left",
        )[0]
        y = b.add("Dense", [x, w], {}, node.name)[0]
    else:
        left = a if len(a) > 1 else (1, *a)
        rank = max(len(left), len(c2))
        pad = lambda s: (*(1,) * (rank - len(s)), *s)  # noqa: E731
        x = b.add("Reshape", [x], {"shape": pad(left)}, f"{node.name}/left")[0]
        w = b.add("Reshape", [w], {"shape": pad(c2)}, f"{node.name}/right_rank")[0]
        y = b.add("BatchMatMul", [x, w], {}, node.name)[0]
    b.add("Reshape", [y], {"shape": out}, f"{node.name}/out", node.outputs)


def _batch_dims(attrs: Attrs, ins: Sequence[Shape], outs: Sequence[Shape]) -> dict[str, Any]:
    batch = list(outs[0][:-2])

    def batch_strides(shape: Shape) -> list[int]:
        return [0 if e == 1 else s for e, s in zip(shape[:-2], strides_of(shape)[:-2], strict=True)]

    m, n = ins[0][-2], ins[1][-1]
    return dict(
        batch=batch,
        most_rows=min(m, 4),  # of a tile
        most_columns=min(n // 4 * 4, 16),
        xs=batch_strides(ins[0]),
        ws=batch_strides(ins[1]),
        m=m,
        k=ins[0][-1],
        n=n,
    )


def _batch_macs(d: Mapping[str, Any]) -> int:
    return int(np.prod(d["batch"], dtype=np.int64)) * d["m"] * d["k"] * d["n"]


OPS = (
    OpDef(
        "Gemm",
        _infer_gemm,
        attrs={"alpha": 1.0, "beta": 1.0, "transA": 0, "transB": 0},
        expand=_expand_gemm,
        cases=(
            Case(((1, 20), (20, 7), (7,)), {}, (1, 2)),
            Case(((3, 12), (9, 12), (9,)), {"transB": 1, "alpha": 0.5, "beta": 2.0}, (1, 2)),
            Case(((12, 3), (12, 9), (3, 9)), {"transA": 1}),
        ),
    ),
    OpDef(
        "MatMul",
        _infer_matmul,
        expand=_expand_matmul,
        cases=(
            Case(((5, 6), (6, 3)), {}, (1,)),
            Case(((2, 5, 6), (6, 3)), {}, (1,)),
            Case(((2, 3, 4, 5), (3, 5, 2))),
            Case(((4,), (4,))),
            Case(((2, 1, 3, 4), (1, 5, 4, 2))),
        ),
    ),
    OpDef(
        "Dense",
        _infer_gemm,
        _reference_dense,
        "dense",
        dense_dims,
        fuses=("activation", "residual"),
        macs=lambda d: d["m"] * d["k"] * d["n"],
        cases=(
            Case(((1, 9), (9, 17), (17,)), {}, (1, 2)),
            Case(((4, 33), (33, 16)), {}, (1,)),
            Case(((3, 8), (8, 5))),
        ),
    ),
    OpDef(
        "BatchMatMul",
        lambda at, ins: _infer_matmul(at, ins),
        lambda at, x, w: x @ w,
        "batch_matmul",
        _batch_dims,
        macs=_batch_macs,
        cases=(Case(((2, 3, 4), (2, 4, 5))), Case(((2, 1, 3, 4), (1, 5, 4, 2)))),
    ),
)
