"""Evaluate a Graph with the numpy references: what every kernel is compared with. Slow, float64."""

from collections.abc import Mapping
from functools import partial

import numpy as np

from codegen.graph import Activation, Graph, Node
from codegen.ops import OPS
from codegen.types import DType

Values = dict[str, np.ndarray]


def interpret(graph: Graph, inputs: Mapping[str, np.ndarray]) -> Values:
    """Output name -> value, in the element type of the graph.

    Floating point is carried in float64 throughout, so that a pass which reorders sums changes
    nothing visible; integers keep their own type and wrap as C does.
    """
    values = evaluate(graph, inputs)
    return {t: values[t].astype(graph.tensors[t].dtype.numpy) for t in graph.outputs}


def evaluate(graph: Graph, inputs: Mapping[str, np.ndarray]) -> Values:
    """Every tensor of the graph by name, floating point in float64."""
    values = {name: wide(value) for name, value in graph.constants.items()}
    for name in graph.inputs:
        tensor = graph.tensors[name]
        value = np.asarray(inputs[name])
        if value.shape != tensor.shape:
            raise ValueError(f"{name}: shape {value.shape}; {tensor.shape} is needed")
        values[name] = wide(value.astype(tensor.dtype.numpy, copy=False))
    with np.errstate(all="ignore"):
        for node in graph.nodes:
            evaluate_node(graph, node, values)
    return values


def evaluate_node(graph: Graph, node: Node, values: Values) -> None:
    """Add the node's results to `values`, which has what it reads, as `evaluate` has it."""
    op, inputs = OPS[node.op], [values[t] if t else None for t in node.inputs]
    finish = None
    if node.activation:
        slope = values[node.activation.slope] if node.activation.slope else None
        finish = partial(activate, node.activation, slope=slope)
    residual = values[node.residual] if node.residual else None
    if op.whole:
        result = op.reference(node.attrs, *inputs, residual=residual, finish=finish)
    else:
        result = op.reference(node.attrs, *inputs)
    results = list(result) if isinstance(result, tuple) else [result]
    if residual is not None and not op.whole:
        results[0] = results[0] + residual
    if finish and not op.whole:
        results[0] = finish(results[0])
    for name, value in zip(node.outputs, results, strict=False):
        if not name:
            continue
        tensor = graph.tensors[name]
        if np.shape(value) != tensor.shape:
            raise AssertionError(f"{node.name} ({node.op}): the reference gives {np.shape(value)}, "
                                 f"the shape rule {tensor.shape}")
        values[name] = _stored(value, tensor.dtype)


def activate(activation: Activation, y: np.ndarray, slope: np.ndarray | None) -> np.ndarray:
    """A fused activation on float64 values; `slope` holds PRelu's slopes, one or per channel."""
    if slope is not None:
        if slope.size > 1 and y.ndim > 1:
            slope = slope.reshape(-1, *(1,) * (y.ndim - 2))
        return np.where(y < 0, y * slope, y)
    op = OPS[activation.op]
    return op.reference(dict(zip(op.attrs, activation.args, strict=True)), y)


def wide(value: np.ndarray) -> np.ndarray:
    """Floating point as float64, anything else as it is."""
    return value.astype(np.float64) if value.dtype.kind == "f" else value


def _stored(value: np.ndarray, dtype: DType) -> np.ndarray:
    """Integers in their own type; a float16 or float32 result stays wide."""
    return np.asarray(value).astype(np.float64 if dtype.numpy.kind == "f" else dtype.numpy)
