"""What an operator is: its attributes, shape rule, numpy reference and problem size. Knows
nothing of C."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from codegen.graph import Tensor
from codegen.types import DType

REQUIRED = object()
Attrs = Mapping[str, Any]
Shape = tuple[int, ...]
Inferred = Sequence[tuple[Shape, DType]]


class Unsupported(Exception):
    """An operator used in a way that no kernel covers; collected so that all are listed at once."""

    def __init__(self, reason: str, todo: str = "rewrite the node or replace it before export"):
        super().__init__(reason)
        self.reason, self.todo = reason, todo


@dataclass(frozen=True)
class Case:
    """One shape to test: input shapes (or arrays), attributes, and which inputs are constants."""

    inputs: tuple[Any, ...]
    attrs: Attrs = field(default_factory=dict)
    constants: tuple[int, ...] = ()


@dataclass(frozen=True)
class OpDef:
    """One ONNX operator in the form in which the rest of the project sees it.

    Either `family` names the folder of templates whose kernels compute it, or `expand` rewrites
    it into other operators while the graph is built; a `view` needs no kernel at all. Attributes
    are plain ints, floats, strings and tuples, in one form for all opsets: `normalise` (attrs,
    input tensors, opset) makes it so. `axis_attrs` hold axis numbers and `dim_attrs` one entry
    per dimension: both are permuted with the layout. A permutation in `perm_attrs` leads from the
    input's layout to the output's, which may differ. `spatial` operators (convolution, pooling,
    resize) take `dims` from shapes in ONNX order and have kernels per layout; all others take
    `dims` from shapes in memory order, so that one kernel serves both layouts.
    """

    name: str
    infer: Callable[[Attrs, Sequence[Tensor | None]], Inferred]
    reference: Callable[..., Any] | None = None
    family: str = ""
    dims: Callable[[Attrs, Sequence[Shape], Sequence[Shape]], dict[str, Any]] | None = None
    attrs: Attrs = field(default_factory=dict)
    ignored: tuple[str, ...] = ()
    const_inputs: Mapping[int, str] = field(default_factory=dict)
    normalise: Callable[[dict[str, Any], Sequence[Tensor | None], int], dict[str, Any]] | None = (
        None
    )
    expand: Callable[[Any, Any], None] | None = None
    fold: Callable[[Attrs, Sequence[Tensor | None]], np.ndarray] | None = None
    axis_attrs: tuple[str, ...] = ()
    perm_attrs: tuple[str, ...] = ()
    dim_attrs: tuple[str, ...] = ()
    spatial: bool = False
    view: bool = False
    fuses: tuple[str, ...] = ()  # of "activation", "residual"
    macs: Callable[[Mapping[str, Any]], int] | None = None
    cases: tuple[Case, ...] = ()
    # False: constants stay quantised, for a kernel may take them so.
    folds: bool = True
    # The reference applies `residual` and `finish` (the activation) itself, before it rounds.
    whole: bool = False
    domain: str = ""  # of the operator set that it belongs to; "" is ONNX's own


def same_as_first(attrs: Attrs, ins: Sequence[Tensor | None]) -> Inferred:
    """Shape rule of operators whose result looks like their first input."""
    return [(ins[0].shape, ins[0].dtype)]


def broadcast(attrs: Attrs, ins: Sequence[Tensor | None]) -> Inferred:
    """Shape rule of elementwise operators with numpy broadcasting."""
    try:
        shape = np.broadcast_shapes(*(t.shape for t in ins))
    except ValueError:
        shapes = ", ".join(str(t.shape) for t in ins)
        raise Unsupported(f"the shapes {shapes} do not broadcast") from None
    return [(tuple(shape), ins[0].dtype)]


def axis_of(axis: int, rank: int) -> int:
    """A non-negative axis; Unsupported when it is out of range."""
    if not -rank <= axis < max(rank, 1):
        raise Unsupported(f"axis {axis} is outside a tensor of rank {rank}")
    return axis % rank if rank else 0


def sparse_dims(attrs: Attrs) -> dict[str, int]:
    """Of a product: is it marked as one with few blocks of weights that are not zeros
    (passes/sparse.py), and how many are not?"""
    return {"sparse": int("nonzero" in attrs), "nonzero": attrs.get("nonzero", 0)}


def around(shape: Shape, axis: int) -> dict[str, int]:
    """A tensor seen along one axis: `outer` x `n` x `inner` elements."""
    return {
        "outer": int(np.prod(shape[:axis], dtype=np.int64)),
        "n": shape[axis],
        "inner": int(np.prod(shape[axis + 1 :], dtype=np.int64)),
    }


def strides_of(shape: Shape) -> list[int]:
    """Elements between neighbours along each dimension of a dense tensor."""
    strides, step = [], 1
    for extent in reversed(shape):
        strides.append(step)
        step *= extent
    return strides[::-1]


def merge_dims(dims: Sequence[int], *strides: Sequence[int]) -> tuple[list[int], list[list[int]]]:
    """Fewest loops over the same elements: drop extents of 1, join dimensions that are
    contiguous in every operand.

    Returns the extents and, per operand, the strides in elements; at least one loop remains.
    """
    out: list[int] = []
    outs: list[list[int]] = [[] for _ in strides]
    for i, extent in enumerate(dims):
        if extent == 1:
            continue
        if out and all(o[-1] == s[i] * extent for o, s in zip(outs, strides, strict=True)):
            out[-1] *= extent
            for o, s in zip(outs, strides, strict=True):
                o[-1] = s[i]
            continue
        out.append(extent)
        for o, s in zip(outs, strides, strict=True):
            o.append(s[i])
    if not out:
        return [1], [[0] for _ in strides]
    return out, outs
