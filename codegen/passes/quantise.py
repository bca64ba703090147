"""float32 becomes int8 where integer kernels compute it, between a Quantize and a Dequantize.

A tensor has one scale and zero point, from the range of its values (asymmetric); weights have a
scale per output channel and no zero point (symmetric), sums the product of both as their scale.
What only moves data stays in int8, and all that it moves has one scale; what else can be between
codes is in integer_forms.py. What is read as codes by nothing that follows is not rounded to any:
its kernel writes real values, if it can. B. Jacob et al.,
Quantization and Training of Neural Networks for Efficient Integer-Arithmetic-Only Inference, 2018
(arXiv:1712.05877).
"""

from collections.abc import Callable, Mapping
from dataclasses import replace

import numpy as np

from codegen.calibration.corrections import NONE, Corrections
from codegen.calibration.weights import bias_correction, quantise_per_channel
from codegen.errors import CodegenError
from codegen.graph import Graph, Node
from codegen.ops import OPS
from codegen.ops.quantised import BITS
from codegen.passes.borders import Borders
from codegen.passes.integer_forms import integer_form
from codegen.passes.scales import (
    BOUNDS,
    HIGHEST,
    LOWEST,
    MOVES,
    Scale,
    Scales,
    Span,
    moved_values,
    scales_of,
)
from codegen.types import DType

Able = Callable[[Graph, Node], bool]

_LARGEST_BIAS = float(1 << 30)  # of 32 bits, which leaves as much to the products
_INT32 = np.iinfo(np.int32).max
_FARTHEST = HIGHEST - LOWEST  # of a code from its zero point
_REALS = Scale(1.0, 0)  # of what is not rounded to codes
PRODUCTS = {"Conv": "QConv", "Dense": "QDense"}


def quantise(graph: Graph, spans: Mapping[str, Span], able: Able,
             bits: Mapping[str, int] | None = None,
             corrections: Corrections = NONE) -> Graph:  # fmt: skip
    """The optimised graph with int8 wherever `able(graph, node in int8)` says that a kernel
    computes it and `spans` has what it reads and writes. Inputs and outputs of the network stay
    what they are.

    `bits`: the nodes that are computed in int8, by name, with the width of their weights; nodes
    that cannot be are not. None: all products that can be, with weights of 8 bits, and what moves
    nothing but codes.

    `corrections`: which weights are not rounded to the nearest code, and the mean of each channel
    of what products read; where there is one, the product's bias makes up for what its rounded
    weights change in the mean (calibration/weights.py: bias_correction)."""
    run = _Quantising(graph, spans, able, bits, corrections)
    for node in graph.nodes:
        run.node(node)
    return run.network()


class _Quantising(Borders):
    """What becomes integers, and how."""

    def __init__(self, graph: Graph, spans: Mapping[str, Span], able: Able,
                 bits: Mapping[str, int] | None, corrections: Corrections):  # fmt: skip
        super().__init__(graph, scales_of(graph, spans))
        self.able, self.bits, self.corrections = able, bits, corrections
        self.readers: dict[str, list[Node]] = {}
        for node in graph.nodes:
            for t in node.reads:
                self.readers.setdefault(t, []).append(node)

    def node(self, node: Node) -> None:
        if not (self.product(node) or self.move(node) or self.form(node)):
            self.real_node(node)

    def chosen(self, node: Node) -> bool:
        """May it be in int8?"""
        return self.bits is None or node.name in self.bits

    def product(self, node: Node) -> bool:
        """A convolution or matrix product in integers, if that can be."""
        if not (self.chosen(node) and is_product(self.graph, node, self.scales)):
            return False
        x, w = node.inputs[:2]
        attrs = {**node.attrs, "bits": (self.bits or {}).get(node.name, BITS)}
        attrs.pop("nonzero", None)  # of the floats
        asked = replace(node, op=PRODUCTS[node.op], attrs=attrs)
        reals = self.writes_reals(asked)
        y = _REALS if reals else self.scales[node.outputs[0]]
        constants, activation = self.constants(node, y, not reals)
        if reals:
            asked = replace(asked, attrs={**attrs, "reals": 1})
        asked = replace(asked, activation=activation)
        fits = sums_fit(constants["i8"], constants["bias"], int(node.op == "Dense"))
        if not fits or not self.able(self.graph, asked):
            return False
        names = [self.edit.constant(f"{w}_{k}", v) for k, v in constants.items()]
        inputs = (self.code(x), *names)
        residual = self.code(node.residual) if node.residual else ""
        outputs = self.written(asked)
        self.nodes.append(replace(asked, inputs=inputs, residual=residual, outputs=outputs))
        return True

    def written(self, node: Node) -> tuple[str]:
        """The tensor that a node makes: codes or real values."""
        name = node.outputs[0]
        if not node.attrs.get("reals"):
            return (self.coded(name),)
        self.reals.add(name)
        return (name,)

    def writes_reals(self, node: Node) -> bool:
        """Is a node's result read as real values only, and can a kernel write them?"""
        asked = replace(node, attrs={**node.attrs, "reals": 1})
        return self.read_as_reals(node.outputs[0]) and self.able(self.graph, asked)

    def read_as_reals(self, name: str) -> bool:
        """Is a tensor an output of the network, or read, by nothing that could read codes?"""
        readers = self.readers.get(name, [])
        return (bool(readers) or name in self.graph.outputs) and all(
            self.read_as_reals(n.outputs[0]) if OPS[n.op].view else not self.may_read_codes(n)
            for n in readers
        )

    def may_read_codes(self, node: Node) -> bool:
        return (
            is_product(self.graph, node, self.scales)
            or node.op in MOVES
            or integer_form(self.graph, node, self.scales) is not None
        )

    def constants(self, node: Node, y: Scale, coded: bool) -> tuple[dict[str, np.ndarray], object]:
        """Weights, biases, scales, zero points and factors of a product whose result has scale y,
        and the activation that remains: bounds become those of the codes, if it is `coded`."""
        x = self.scales[node.inputs[0]]
        width = (self.bits or {}).get(node.name, BITS)
        weights, real = operands(self.graph, node)
        codes, by = weight_codes(weights, real, x, width)
        codes = self.corrections.rounded(node.name, width, codes)
        if (mean := self.corrections.means.get(node.inputs[0])) is not None:
            channels = self.graph.tensors[node.inputs[0]].shape[1]
            if len(mean) != channels:
                raise CodegenError(
                    "calibration", f"{len(mean)} means for tensor {node.inputs[0]!r}",
                    f"one for each of its {channels} channels", "calibrate again",
                )  # fmt: skip
            rounded = codes * by.astype(np.float64).reshape(-1, *(1,) * (codes.ndim - 1))
            change = bias_correction(weights, rounded, mean, node.attrs.get("group", 1))
            real = change if real is None else np.broadcast_to(real, change.shape) + change
        activation, bounds = node.activation, None
        if coded and activation and activation.op in BOUNDS:
            bounds, activation = activation.args or (0.0, np.inf), None
        made = product_constants(
            codes.T if node.op == "Dense" else codes,
            by,
            real,
            x,
            y,
            bounds,
            self.scales[node.residual] if node.residual else None,
            bool(activation),
        )
        return made, activation

    def move(self, node: Node) -> bool:
        """Data that is moved as codes: where that was asked for, or nothing else is there."""
        values = moved_values(node)
        if (
            node.op not in MOVES
            or node.activation
            or not self.reads_codes(node, values)
            or any(t not in self.scales for t in (*values, *node.outputs))
            or not self.able(self.graph, node)
        ):
            return False
        inputs = (*(self.code(t) for t in values), *node.inputs[len(values) :])
        outputs = tuple(self.coded(t) for t in node.outputs)
        self.nodes.append(replace(node, inputs=inputs, outputs=outputs))
        return True

    def reads_codes(self, node: Node, values: tuple[str, ...]) -> bool:
        """Was it asked for in int8, or, where nothing was and for views, is nothing else there?"""
        asked = self.bits is not None and not OPS[node.op].view
        return self.chosen(node) if asked else all(t in self.codes for t in values)

    def form(self, node: Node) -> bool:
        """Sums, means and functions of codes."""
        form = integer_form(self.graph, node, self.scales)
        if form is None or not self.reads_codes(node, form.values):
            return False
        asked = replace(node, op=form.op, inputs=form.values, attrs=form.attrs, activation=None)
        if "reals" in OPS[form.op].attrs and not node.activation and self.writes_reals(asked):
            form = integer_form(self.graph, node, {**self.scales, node.outputs[0]: _REALS})
            asked = replace(asked, attrs={**form.attrs, "reals": 1})
        if not self.able(self.graph, asked):
            return False
        names = [self.edit.constant(f"{node.name}_{k}", v) for k, v in form.constants.items()]
        inputs = (*(self.code(t) for t in form.values), *names)
        self.nodes.append(replace(asked, inputs=inputs, outputs=self.written(asked)))
        return True


def is_product(graph: Graph, node: Node, scales: Scales) -> bool:
    """Can it be a product of integers, if a kernel computes that?"""
    if node.op not in PRODUCTS:
        return False
    read = [t for t in (node.inputs[0], node.residual) if t]
    return (
        all(t in graph.constants for t in node.inputs[1:] if t)
        and all(t in scales for t in (*read, *node.outputs))
        and graph.tensors[node.inputs[0]].dtype == DType.F32
        and not (node.activation and node.activation.slope)
    )


def operands(graph: Graph, node: Node) -> tuple[np.ndarray, np.ndarray | None]:
    """The weights of a product, output channels first, and its bias, if it has one."""
    _, w, bias = (*node.inputs, "")[:3]
    weights = graph.constants[w]
    real = graph.constants[bias].astype(np.float64) if bias else None
    return (weights.T if node.op == "Dense" else weights), real


def weight_codes(
    w: np.ndarray, bias: np.ndarray | None, x: Scale, bits: int
) -> tuple[np.ndarray, np.ndarray]:
    """The nearest codes of so many bits, channels first, and scales. Where a channel's weights are
    so small beside its bias that sums cannot take this at their scale, they get a coarser one."""
    codes, by = quantise_per_channel(w, bits)
    if bias is None:
        return codes, by
    coarse = np.abs(bias.reshape(-1)) / (_LARGEST_BIAS * x.scale)
    wider = np.maximum(by, coarse).astype(np.float32)
    shape = (-1, *(1,) * (w.ndim - 1))
    again = np.rint(w / wider.reshape(shape).astype(np.float64)).astype(np.int8)
    return np.where((wider > by).reshape(shape), again, codes), wider


def sums_fit(codes: np.ndarray, bias: np.ndarray, channels: int) -> bool:
    """Does no input make a sum of more than 32 bits? `channels`: which dimension of the codes."""
    others = tuple(i for i in range(codes.ndim) if i != channels)
    products = _FARTHEST * np.abs(codes.astype(np.int64)).sum(axis=others)
    return bool((products + np.abs(bias.astype(np.int64)) <= _INT32).all())


def product_constants(
    codes: np.ndarray, by: np.ndarray, bias: np.ndarray | None, x: Scale, y: Scale,
    bounds: Span | None = None, residual: Scale | None = None, activation: bool = False,
) -> dict[str, np.ndarray]:  # fmt: skip
    """The constant inputs of a QConv or QDense (codegen/ops/quantised.py) by what they are, from
    codes of weights, their scales `by` per channel and a real bias; `bounds` of the real result.
    A bias beyond 32 bits is as large as can be, which `sums_fit` tells."""
    acc = by.astype(np.float64) * x.scale
    low, high = (y.code(bounds[0]), y.code(bounds[1])) if bounds else (LOWEST, HIGHEST)
    r = residual or Scale(0.0, 0)
    plain = not (activation or residual)
    b = np.zeros(len(by)) if bias is None else np.broadcast_to(bias.reshape(-1), by.shape)
    return {
        "i8": codes,
        "bias": np.clip(np.rint(b / acc), -_INT32, _INT32).astype(np.int32),
        "by": (acc / (y.scale if plain else 1.0)).astype(np.float32),
        "zeros": np.array([x.zero, y.zero, low, high, r.zero], np.int32),
        "factors": np.array([1.0 / y.scale, r.scale], np.float32),
    }


def bits_of(graph: Graph) -> dict[str, int]:
    """The nodes that compute or move codes, by name, and the width of their weights."""
    return {
        n.name: n.attrs.get("bits", BITS) for n in graph.nodes
        if n.op != "Quantize" and not OPS[n.op].view and (
            n.attrs.get("reals") or any(graph.tensors[t].dtype == DType.I8 for t in n.outputs if t)
        )
    }  # fmt: skip


def int8_of(graph: Graph, node: Node) -> Graph:
    """The graph with a node's float32 tensors in int8, to ask what could compute it."""
    names = {*node.reads, *node.outputs}
    tensors = {
        k: replace(t, dtype=DType.I8) if k in names and t.dtype == DType.F32 else t
        for k, t in graph.tensors.items()
    }
    return replace(graph, tensors=tensors)
