"""Give a network without weights seeded random ones that keep its activations at a sane scale.

A constant weight would hide a wrong layout or padding; unscaled random ones overflow or saturate
the softmax. So mean and variance of every tensor are estimated on the way through the graph, and
each layer with weights is scaled to bring the variance back to one (the idea of He et al., 2015,
with the estimate in place of the fixed gain). The weights of one output sum to zero: else the
positive means behind ReLU would drown the input with growing depth.

Only uniform draws and exactly rounded operations make the values: equal (name, seed) give equal
bytes.
"""

import math
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import numpy as np
import onnx
from onnx import numpy_helper

# Spread of the logits before the softmax: classes differ, none takes all. A softmax turns an
# absolute error of its logits into a relative one, and float32 rounding grows with depth in a
# random network (onnxruntime's own distance from float64 is 7e-5 of the largest logit in
# light_resnet50); a wide spread would test that and nothing else.
LOGIT_VARIANCE = 0.25
BIAS_DEVIATION = 0.1
# Removing the mean of a depthwise filter would leave too little of it.
SMALL_FAN_IN = 25
# Part of the variance that is left behind a pooling window: neighbours are alike, channels differ.
AVERAGED = 0.5
# Channels differ in variance, so that the mean of their squares is above the square of the mean.
UNEVEN = 1.15


@dataclass(frozen=True)
class Moments:
    """Estimated mean and variance over the elements of a tensor."""

    mean: float
    variance: float

    @property
    def power(self) -> float:
        return self.variance + self.mean**2


NORMAL = Moments(0.0, 1.0)


def _relu_moments(x: Moments) -> Moments:
    """Of max(x, 0) for normal x, with the density d and the distribution p of the normal law at
    mean/deviation."""
    deviation = x.variance**0.5
    at = x.mean / deviation
    d, p = math.exp(-at * at / 2) / math.sqrt(2 * math.pi), (1 + math.erf(at / math.sqrt(2))) / 2
    mean = x.mean * p + deviation * d
    return Moments(mean, x.power * p + x.mean * deviation * d - mean**2)


def _max_pool_moments(x: Moments) -> Moments:
    """Of the larger neighbours: the mean moves up by about one deviation."""
    return Moments(x.mean + x.variance**0.5, x.variance)


def _average_moments(x: Moments) -> Moments:
    return Moments(x.mean, AVERAGED * x.variance)


def _hard_sigmoid_moments(x: Moments) -> Moments:
    return Moments(0.5 + x.mean / 6, x.variance / 36)


def _hard_swish_moments(x: Moments) -> Moments:
    """Of x * (x/6 + 1/2) for normal x with mean zero; few values lie outside -3..3."""
    v = UNEVEN * x.variance
    return Moments(v / 6, v / 4 + v**2 / 18)


UNARY: dict[str, Callable[[Moments], Moments]] = {
    "Relu": _relu_moments,
    "Clip": _relu_moments,
    "HardSigmoid": _hard_sigmoid_moments,
    "MaxPool": _max_pool_moments,
    "AveragePool": _average_moments,
    "GlobalAveragePool": _average_moments,
}


@dataclass
class _Seeding:
    """State of one walk: `shapes` of the parameters to fill, `moments` of each tensor, `values`
    made so far. `origin` leads from a reshaped parameter to the parameter itself, `gate_of` from a
    HardSigmoid to its input."""

    seed: int
    shapes: Mapping[str, tuple[int, ...]]
    logits: str
    moments: dict[str, Moments] = field(default_factory=dict)
    values: dict[str, np.ndarray] = field(default_factory=dict)
    origin: dict[str, str] = field(default_factory=dict)
    gate_of: dict[str, str] = field(default_factory=dict)

    def uniform(self, name: str, low: float, high: float) -> None:
        """Fill a parameter with numbers of [low, high)."""
        if name not in self.values:
            self.values[name] = self._draw(name) * np.float32(high - low) + np.float32(low)

    def around_zero(self, name: str, deviation: float) -> None:
        """Uniform with mean zero and this standard deviation."""
        bound = deviation * 3.0**0.5
        self.uniform(name, -bound, bound)

    def centred(self, name: str, axis: int, deviation: float) -> None:
        """Uniform weights, less the mean over the inputs of each output (all axes but `axis`)."""
        if name in self.values:
            return
        value = self._draw(name)
        others = tuple(i for i in range(value.ndim) if i != axis)
        # The draws are multiples of 2**-24, so that their float64 sum is exact in any order.
        value -= value.mean(axis=others, keepdims=True, dtype=np.float64).astype(np.float32)
        value *= np.float32(2 * deviation * 3.0**0.5)
        self.values[name] = value

    def _draw(self, name: str) -> np.ndarray:
        """Numbers of [0, 1) that depend on seed and name only, not on the order of drawing."""
        stream = np.random.Generator(np.random.PCG64([self.seed, zlib.crc32(name.encode())]))
        return stream.random(self.shapes[name], dtype=np.float32)

    def parameter(self, name: str) -> str:
        """The parameter behind a tensor, "" if it is computed from the input."""
        name = self.origin.get(name, name)
        return name if name in self.shapes else ""


def reseed(model: onnx.ModelProto, seed: int) -> onnx.ModelProto:
    """A copy of `model` in which every float parameter (initialiser or ConstantOfShape) is a seeded
    random initialiser. Nodes and names stay; inputs that nothing reads are dropped."""
    graph = model.graph
    state = _Seeding(seed, _parameter_shapes(graph), _logits(graph))
    state.moments = {value.name: NORMAL for value in graph.input}
    for node in graph.node:
        if node.op_type != "ConstantOfShape":
            state.moments[node.output[0]] = RULES.get(node.op_type, _unary)(state, node)
    return _rebuild(model, state.values)


def _parameter_shapes(graph: onnx.GraphProto) -> dict[str, tuple[int, ...]]:
    constants = {c.name: c for c in graph.initializer}
    shapes = {
        c.name: tuple(c.dims)
        for c in graph.initializer
        if c.data_type == onnx.TensorProto.FLOAT and c.dims
    }
    for node in graph.node:
        if node.op_type == "ConstantOfShape":
            shapes[node.output[0]] = tuple(numpy_helper.to_array(constants[node.input[0]]).tolist())
    return shapes


def _logits(graph: onnx.GraphProto) -> str:
    """Output of the layer that makes the logits: the last one with weights."""
    return [node.output[0] for node in graph.node if node.op_type in ("Conv", "Gemm")][-1]


def _rebuild(model: onnx.ModelProto, values: Mapping[str, np.ndarray]) -> onnx.ModelProto:
    nodes = [node for node in model.graph.node if node.op_type != "ConstantOfShape"]
    used = {name for node in nodes for name in node.input}
    kept = [c for c in model.graph.initializer if c.name in used and c.name not in values]
    constants = [*kept, *(numpy_helper.from_array(value, name) for name, value in values.items())]
    names = {c.name for c in constants}
    inputs = [v for v in model.graph.input if v.name in used and v.name not in names]
    graph = onnx.helper.make_graph(nodes, model.graph.name, inputs, model.graph.output, constants)
    result = onnx.helper.make_model(
        graph, opset_imports=model.opset_import, producer_name="codegen"
    )
    result.ir_version = max(model.ir_version, 4)  # from 4 on, constants need not be graph inputs
    return result


def _linear(state: _Seeding, node: onnx.NodeProto) -> Moments:
    """Conv and Gemm: weights for an output of variance one (more for the logits), and a small
    bias."""
    goal = LOGIT_VARIANCE if node.output[0] == state.logits else 1.0
    weight, x = state.parameter(node.input[1]), state.moments[node.input[0]]
    shape = state.shapes[weight]
    # A weight (inputs, outputs) has its outputs last, all others first, but for leading ones
    # (GoogLeNet's Reshape).
    last = node.op_type == "Gemm" and not _transposed(node)
    axis = 1 if last else next(i for i, n in enumerate(shape) if n > 1)
    fan_in = int(np.prod(shape)) // shape[axis]
    if fan_in > SMALL_FAN_IN:
        state.centred(weight, axis, (goal / (fan_in * x.variance)) ** 0.5)
    else:
        state.around_zero(weight, (goal / (fan_in * x.power)) ** 0.5)
    if len(node.input) > 2:
        state.around_zero(node.input[2], BIAS_DEVIATION)
    return Moments(0.0, goal)


def _transposed(node: onnx.NodeProto) -> bool:
    return any(a.name == "transB" and a.i for a in node.attribute)


def _batch_norm(state: _Seeding, node: onnx.NodeProto) -> Moments:
    """Running statistics near those of the input, so that the output is normal."""
    name, scale, bias, mean, variance = node.input
    x = state.moments[name]
    state.uniform(scale, 0.8, 1.2)
    state.around_zero(bias, BIAS_DEVIATION)
    spread = 0.3 * x.variance**0.5
    state.uniform(mean, x.mean - spread, x.mean + spread)
    state.uniform(variance, 0.8 * x.variance, 1.2 * x.variance)
    return NORMAL


def _add(state: _Seeding, node: onnx.NodeProto) -> Moments:
    """Independent tensors add their moments; a parameter is a bias."""
    terms = []
    for x in node.input:
        if name := state.parameter(x):
            state.around_zero(name, BIAS_DEVIATION)
        else:
            terms.append(state.moments[x])
    return Moments(sum(t.mean for t in terms), sum(t.variance for t in terms))


def _mul(state: _Seeding, node: onnx.NodeProto) -> Moments:
    """Independent tensors multiply mean and power; a parameter is a scale; x times its own gate is
    HardSwish."""
    x, gate = node.input
    if state.gate_of.get(gate) == x:
        return _hard_swish_moments(state.moments[x])
    mean = power = 1.0
    for x in node.input:
        if name := state.parameter(x):
            state.uniform(name, 0.8, 1.2)
        else:
            mean, power = mean * state.moments[x].mean, power * state.moments[x].power
    return Moments(mean, power - mean**2)


def _concat(state: _Seeding, node: onnx.NodeProto) -> Moments:
    parts = [state.moments[x] for x in node.input]
    mean = sum(p.mean for p in parts) / len(parts)
    return Moments(mean, sum(p.power for p in parts) / len(parts) - mean**2)


def _unary(state: _Seeding, node: onnx.NodeProto) -> Moments:
    """Everything else reads one tensor. Of a parameter only the shape may change."""
    x = node.input[0]
    if state.parameter(x):
        state.origin[node.output[0]] = state.parameter(x)
        return NORMAL
    if node.op_type == "HardSigmoid":
        state.gate_of[node.output[0]] = x
    return UNARY.get(node.op_type, lambda moments: moments)(state.moments[x])


RULES: dict[str, Callable[[_Seeding, onnx.NodeProto], Moments]] = {
    "Add": _add,
    "BatchNormalization": _batch_norm,
    "Concat": _concat,
    "Conv": _linear,
    "Gemm": _linear,
    "Mul": _mul,
    "Sum": _add,
}
