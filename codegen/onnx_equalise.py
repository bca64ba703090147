"""Cross-layer equalisation of an ONNX file: the same network with other weights.

A channel that one product writes and the next one reads may be made s times smaller by the one and
s times larger by the other, if what stands between them commutes with that. So the channels of a
tensor get ranges alike, and with them the weights that make and read them (Nagel et al. 2019,
arXiv:1906.04721, section 4.1).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper

from codegen.calibration.weights import DEAD, equalise
from codegen.errors import CodegenError
from codegen.onnx_file import model_inputs, reads_of
from codegen.onnx_import import read_simplified

# f(s x) = s f(x) for s > 0, channel by channel.
_COMMUTES = ("Relu", "LeakyRelu", "PRelu", "MaxPool", "AveragePool", "GlobalAveragePool",
             "GlobalMaxPool", "Identity", "Flatten")  # fmt: skip
_PRODUCTS = ("Conv", "Gemm")
_SWEEPS = 64  # over all pairs; the scales of a chain approach what they should be step by step
_ENOUGH = 1e-4  # change of a scale


@dataclass(frozen=True)
class Pair:
    """Two products and their channels: how far the ranges of what the first writes are apart, the
    largest in relation to the smallest, by its weights."""

    first: str
    second: str
    before: float
    after: float


@dataclass(frozen=True)
class Equalised:
    """The network, its pairs, and why other products are not the first of one."""

    model: ModelProto
    pairs: tuple[Pair, ...]
    left: Mapping[str, str]


def equalised(path: Path, shapes: Mapping[str, Sequence[int]] | None = None) -> Equalised:
    """The network of a file, simplified and with `shapes`, equalised. CodegenError where no two
    products of it could be."""
    model = read_simplified(path, shapes or {})
    _store_constants(model)
    run = _Equalising(model)
    pairs = [(first, second) for first in run.products if (second := run.second(first))]
    if not pairs:
        name, why = next(iter(run.left.items()), ("", "it has no convolution or Gemm"))
        raise CodegenError(
            str(path), f"nothing to equalise ({f'{name}: ' if name else ''}{why})",
            "a convolution or Gemm that alone reads what another one writes, with no more between "
            f"them than {', '.join(_COMMUTES)}",
            "calibrate without --equalise",
        )  # fmt: skip
    before = [run.spread(a) for a, _ in pairs]
    for _ in range(_SWEEPS):
        if max([run.scale(a, b) for a, b in pairs]) < _ENOUGH:
            break
    run.write()
    made = [Pair(_name(a), _name(b), at, run.spread(a))
            for (a, b), at in zip(pairs, before, strict=True)]  # fmt: skip
    return Equalised(model, tuple(made), run.left)


def _store_constants(model: ModelProto) -> None:
    """Constant nodes with a tensor become initialisers."""
    kept = []
    for node in model.graph.node:
        value = next((a.t for a in node.attribute if a.name == "value"), None)
        if node.op_type != "Constant" or value is None:
            kept.append(node)
            continue
        model.graph.initializer.append(value)
        model.graph.initializer[-1].name = node.output[0]
    del model.graph.node[:]
    model.graph.node.extend(kept)


class _Equalising:
    """Weights and biases of the products of a model, in float64: [M, C / groups, ...]."""

    def __init__(self, model: ModelProto):
        self.model = model
        self.stored = {t.name: t for t in model.graph.initializer}
        self.readers: dict[str, list[NodeProto | None]] = {}
        for node in model.graph.node:
            for name in filter(None, reads_of(node)):
                self.readers.setdefault(name, []).append(node)
        for port in (*model.graph.output, *model_inputs(model)):
            self.readers.setdefault(port.name, []).append(None)  # somebody outside
        self.left: dict[str, str] = {}
        self.products = [n for n in model.graph.node if n.op_type in _PRODUCTS]
        self.weights: dict[str, np.ndarray] = {}

    def second(self, first: NodeProto) -> NodeProto | None:
        """The product that reads the channels of `first`, if it may be scaled with it."""
        why = self.fixed(first)
        name = first.output[0]
        while not why:
            readers = self.readers.get(name, [])
            if None in readers:
                why = f"{name!r} is an output"
                break
            if len(readers) != 1:
                why = f"{name!r} is read {len(readers)} times"
                break
            node = readers[0]
            if node.op_type in _PRODUCTS and node.input[0] == name:
                why = self.fixed(node) or self.unequal(first, node)
                if not why:
                    return node
            elif node.op_type not in _COMMUTES or node.input[0] != name:
                why = f"{node.op_type} follows"
            elif node.op_type == "Flatten" and _attr(node, "axis", 1) != 1:
                why = f"Flatten with axis {_attr(node, 'axis', 1)} follows"
            elif len([o for o in node.output if o]) > 1:
                why = f"{node.op_type} with a second result follows"
            name = node.output[0]
        self.left[_name(first)] = why
        return None

    def fixed(self, node: NodeProto) -> str:
        """Why a product's weights cannot be changed; "" where they can."""
        for name in filter(None, node.input[1:]):
            if name not in self.stored or len(self.readers[name]) != 1:
                return f"{name!r} is not constant, or shared"
            if self.stored[name].data_type != TensorProto.FLOAT:
                return f"{name!r} is not float32"
        if node.op_type == "Gemm" and (_attr(node, "alpha", 1.0), _attr(node, "beta", 1.0),
                                       _attr(node, "transA", 0)) != (1.0, 1.0, 0):  # fmt: skip
            return "Gemm with alpha, beta or transA"
        return ""

    def unequal(self, first: NodeProto, second: NodeProto) -> str:
        """Where the second does not read just the channels of the first. A Flatten makes several
        inputs of one channel."""
        m = len(self.rows(first))
        reads = self.rows(second).shape[1] * _attr(second, "group", 1)
        if reads % m or (reads != m and second.op_type != "Gemm"):
            return f"{m} channels are read as {reads}"
        return ""

    def rows(self, node: NodeProto) -> np.ndarray:
        """Weights, output channels first."""
        w = self.value(node.input[1])
        return w.T if _turned(node) else w

    def put(self, node: NodeProto, rows: np.ndarray) -> None:
        self.weights[node.input[1]] = rows.T if _turned(node) else rows

    def value(self, name: str) -> np.ndarray:
        """A constant, as it is by now."""
        if name not in self.weights:
            self.weights[name] = numpy_helper.to_array(self.stored[name]).astype(np.float64)
        return self.weights[name]

    def scale(self, first: NodeProto, second: NodeProto) -> float:
        """Equalise a pair; by how much its scales are off 1, at most."""
        w1, w2 = self.rows(first), self.rows(second)
        seen = w2.reshape(len(w2), len(w1), -1) if second.op_type == "Gemm" else w2
        w1, scaled, s = equalise(w1, seen, _attr(second, "group", 1))
        self.put(first, w1)
        self.put(second, scaled.reshape(w2.shape))
        if len(first.input) > 2 and first.input[2]:
            self.weights[first.input[2]] = self.value(first.input[2]) / s
        return float(np.abs(np.log(s)).max())

    def spread(self, node: NodeProto) -> float:
        """The largest range of a channel's weights in relation to the smallest that counts."""
        ranges = np.abs(self.rows(node).reshape(len(self.rows(node)), -1)).max(1)
        ranges = ranges[ranges > DEAD * ranges.max()]
        return float(ranges.max() / ranges.min()) if len(ranges) else 1.0

    def write(self) -> None:
        """Into the model."""
        for name, value in self.weights.items():
            made = numpy_helper.from_array(np.ascontiguousarray(value.astype(np.float32)), name)
            self.stored[name].CopyFrom(made)


def _name(node: NodeProto) -> str:
    """For people."""
    return node.name or node.output[0]


def _turned(node: NodeProto) -> bool:
    """Are weights [K, M]?"""
    return node.op_type == "Gemm" and not _attr(node, "transB", 0)


def _attr(node: NodeProto, name: str, default: float) -> float:
    return next((helper.get_attribute_value(a) for a in node.attribute if a.name == name), default)
