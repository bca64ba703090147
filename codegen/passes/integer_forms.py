"""What other operators than products compute between codes of int8: for a node between reals with
known scales, the operator of codegen/ops/integer.py (or one that only chooses among codes), what of
it is read as codes, and its constants."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from codegen.graph import Graph, Node
from codegen.ops import OPS
from codegen.ops.elementwise import UNARY
from codegen.ops.integer import CODES, LEAST
from codegen.passes.scales import BOUNDS, HIGHEST, LOWEST, Scale, Scales

_SPATIAL = (2, 3)  # dimensions of an image


@dataclass(frozen=True)
class Form:
    """A node between codes. `values` are the tensors that it reads as codes; constants follow."""

    op: str
    values: tuple[str, ...]
    attrs: Mapping[str, Any]
    constants: Mapping[str, np.ndarray] = field(default_factory=dict)


def integer_form(graph: Graph, node: Node, scales: Scales) -> Form | None:
    """The node between codes; None where there is none, a range is missing or an activation is
    fused that is not a bound of the codes."""
    make = _MAKERS.get(node.op)
    values = node.inputs[: operands_of(node.op)]
    if (
        make is None
        or any(t not in scales or t in graph.constants for t in (*values, *node.outputs))
        or (node.activation and node.activation.op not in BOUNDS)
    ):
        return None
    return make(graph, node, [scales[t] for t in values], scales[node.outputs[0]])


def _bounds(node: Node, y: Scale) -> tuple[int, int]:
    """The codes that a fused Relu or Clip leaves."""
    if not node.activation:
        return LOWEST, HIGHEST
    low, high = node.activation.args or (0.0, np.inf)
    return y.code(low), y.code(high)


def _zeros(node: Node, x: Scale, y: Scale, other: Scale | None = None) -> np.ndarray:
    return np.array([x.zero, y.zero, *_bounds(node, y), other.zero if other else 0], np.int32)


def _factors(*values: float) -> np.ndarray:
    return np.array(values, np.float32)


def _sum(sign: float) -> Callable[..., Form]:
    def make(graph: Graph, node: Node, ins: list[Scale], y: Scale) -> Form:
        a, b = ins
        factors = _factors(a.scale / y.scale, sign * b.scale / y.scale)
        return Form("QAdd", node.inputs, {}, {"zeros": _zeros(node, a, y, b), "factors": factors})

    return make


def _product(graph: Graph, node: Node, ins: list[Scale], y: Scale) -> Form:
    a, b = ins
    factors = _factors(a.scale * b.scale / y.scale)
    return Form("QMul", node.inputs, {}, {"zeros": _zeros(node, a, y, b), "factors": factors})


def _average(graph: Graph, node: Node, ins: list[Scale], y: Scale) -> Form:
    constants = {"zeros": _zeros(node, *ins, y), "factors": _factors(ins[0].scale / y.scale)}
    return Form("QAveragePool", node.inputs, node.attrs, constants)


def _reduction(graph: Graph, node: Node, ins: list[Scale], y: Scale) -> Form | None:
    """The mean or maximum of whole images is a pool with one window."""
    shape = graph.tensors[node.inputs[0]].shape
    if len(shape) != 4 or tuple(node.attrs["axes"]) != _SPATIAL:
        return None
    window = {**_pool_attrs("MaxPool"), "kernel_shape": shape[2:], "pads": (0,) * 4,
              "strides": (1, 1), "dilations": (1, 1)}  # fmt: skip
    if node.attrs["fn"] == "max" and ins[0] == y and not node.activation:
        return Form("MaxPool", node.inputs, window)
    if node.attrs["fn"] != "mean":
        return None
    constants = {"zeros": _zeros(node, *ins, y), "factors": _factors(ins[0].scale / y.scale)}
    return Form("QAveragePool", node.inputs, {**window, "count_include_pad": 0}, constants)


def _pool_attrs(op: str) -> dict[str, Any]:
    return dict(OPS[op].attrs)


def _function(graph: Graph, node: Node, ins: list[Scale], y: Scale) -> Form:
    """A table: the nearest code of the function of each code's value, in float64."""
    x = ins[0].scale * (np.arange(LEAST, LEAST + CODES, dtype=np.float64) - ins[0].zero)
    with np.errstate(all="ignore"):
        real = np.nan_to_num(OPS[node.op].reference(node.attrs, x), nan=0.0)
        codes = np.clip(np.rint(real / y.scale) + y.zero, *_bounds(node, y))
    return Form("QMap", node.inputs, {}, {"table": codes.astype(np.int8)})


def _softmax(graph: Graph, node: Node, ins: list[Scale], y: Scale) -> Form | None:
    """Not one that is an output of the network, where small shares would all be the same code."""
    if node.attrs["log"] or node.outputs[0] in graph.outputs:
        return None
    table = np.exp(-ins[0].scale * np.arange(CODES, dtype=np.float64)).astype(np.float32)
    constants = {"table": table, "zeros": _zeros(node, *ins, y), "factors": _factors(1.0 / y.scale)}
    return Form("QSoftmax", node.inputs, {"axis": node.attrs["axis"]}, constants)


def operands_of(op: str) -> int:
    """How many tensors of codes an operator of FORMS reads."""
    return _OPERANDS.get(op, 1)


_OPERANDS = {"Add2": 2, "Sub2": 2, "Mul2": 2}
_MAKERS: Mapping[str, Callable[[Graph, Node, list[Scale], Scale], Form | None]] = {
    "Add2": _sum(1.0),
    "Sub2": _sum(-1.0),
    "Mul2": _product,
    "AveragePool": _average,
    "ReduceAxes": _reduction,
    "SoftmaxAxis": _softmax,
    **{op.name: _function for op in UNARY},
}
FORMS = tuple(_MAKERS)
