"""Memory layouts: `nchw` is ONNX order, `nhwc` has the channels last; for tensors of rank < 3
both are the same."""

from collections.abc import Mapping, Sequence
from typing import Any

from codegen.ops.base import OpDef, Shape

LAYOUTS = ("nchw", "nhwc")


def permutation(layout: str, rank: int) -> tuple[int, ...]:
    """perm such that memory dimension j is ONNX dimension perm[j]."""
    if layout == "nchw" or rank < 3:
        return tuple(range(rank))
    return (0, *range(2, rank), 1)


def memory_shape(shape: Shape, layout: str) -> Shape:
    """Extents in memory order."""
    return tuple(shape[p] for p in permutation(layout, len(shape)))


def same_memory(shape: Shape, a: str, b: str) -> bool:
    """True where both layouts store the same bytes: only dimensions of extent 1 change places."""
    real_a = [p for p in permutation(a, len(shape)) if shape[p] != 1]
    real_b = [p for p in permutation(b, len(shape)) if shape[p] != 1]
    return real_a == real_b


def memory_attrs(
    op: OpDef, attrs: Mapping[str, Any], layout: str, rank: int, come: str = ""
) -> dict[str, Any]:
    """Attributes of an operator rewritten for tensors whose dimensions are in memory order, of
    inputs in layout `come`, if that is another one."""
    perm = permutation(layout, rank)
    out = dict(attrs)
    for key in op.axis_attrs:
        value = out[key]
        if isinstance(value, int):
            out[key] = perm.index(value)
        elif value is not None:
            out[key] = tuple(sorted(perm.index(a) for a in value))
    for key in op.dim_attrs:
        out[key] = tuple(out[key][p] for p in perm)
    for key in op.perm_attrs:
        out[key] = transposition((1,) * rank, out[key], come or layout, layout)[2]
    return out


def transposition(
    shape: Shape, perm: Sequence[int], source: str, target: str
) -> tuple[Shape, Shape, tuple[int, ...]]:
    """ONNX Transpose(perm) of `shape` between two layouts, as a plain transposition of memory.

    Returns (memory shape in, memory shape out, perm in memory order).
    """
    rank = len(shape)
    pin, pout = permutation(source, rank), permutation(target, rank)
    memory_perm = tuple(pin.index(perm[pout[j]]) for j in range(rank))
    before = tuple(shape[p] for p in pin)
    return before, tuple(before[p] for p in memory_perm), memory_perm


def moves_nothing(before: Shape, memory_perm: Sequence[int]) -> bool:
    """True where a transposition leaves the bytes in place."""
    real = [p for p in memory_perm if before[p] != 1]
    return real == sorted(real)


def reshape_keeps(layout: str, before: Shape, after: Shape) -> bool:
    """True where a reshape may be taken in `layout` without going through ONNX order: nothing
    moves there anyway, or batch and channels stay and only spatial dimensions are regrouped."""
    if same_memory(before, layout, "nchw"):
        return same_memory(after, layout, "nchw")
    return len(before) > 2 and len(after) > 2 and before[:2] == after[:2]
