"""Node + layout -> Layer: the sizes that kernels, packers and the cost formula see."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from codegen.graph import Activation, Graph, Node
from codegen.kernels import Layer
from codegen.layout import memory_attrs, memory_shape
from codegen.ops import OPS

_INNER = ("act", "act1", "act2")  # activations between the stages of a chain


@dataclass(frozen=True)
class Epilogue:
    """The fused activation as a template sees it: C function `cg_<fn>_f32(v, args...)`; fn ""
    for none."""

    fn: str = ""
    args: tuple[float, ...] = ()


def epilogue(activation: Activation | None) -> Epilogue:
    if activation is None:
        return Epilogue()
    if activation.slope:
        return Epilogue("prelu")
    op = OPS[activation.op]
    return Epilogue(
        op.dims(dict(zip(op.attrs, activation.args, strict=True)), [()], [()])["fn"],
        activation.args,
    )


def layer_of(graph: Graph, node: Node, layout: str, come: str = "") -> Layer:
    """The layer that `node` is when its tensors of rank >= 3 are stored in `layout`. An operator
    that moves data may find its inputs in another one, `come`."""
    op = OPS[node.op]
    tensors = [graph.tensors[t] for t in node.inputs if t]
    outs = [graph.tensors[t] for t in node.outputs if t]
    if op.spatial:
        dims = op.dims(node.attrs, [t.shape for t in tensors], [t.shape for t in outs])
    else:
        come = (come if op.perm_attrs else "") or layout
        attrs = memory_attrs(op, node.attrs, layout, len(tensors[0].shape), come)
        dims = op.dims(attrs, _in_memory(tensors, come), _in_memory(outs, layout))
    return Layer(
        op.family,
        {**_inner(dims), **_epilogue_dims(graph, node)},
        tensors[min(len(tensors) - 1, _typed(op.name))].dtype.value,
    )


def _inner(dims: Mapping[str, Any]) -> dict[str, Any]:
    """Activations between stages as templates see them; a chain may be part of another."""
    return {
        k: _inner(v) if isinstance(v, Mapping) else epilogue(v) if k in _INNER else v
        for k, v in dims.items()
    }


def _typed(op_name: str) -> int:
    """Which input gives the layer its element type: the condition of Where does not."""
    return 1 if op_name.startswith("Where") else 0


def _in_memory(tensors: Sequence[Any], layout: str) -> list[tuple[int, ...]]:
    return [memory_shape(t.shape, layout) for t in tensors]


def _epilogue_dims(graph: Graph, node: Node) -> dict[str, Any]:
    op = OPS[node.op]
    if not op.fuses:
        return {}
    dims: dict[str, Any] = {"act": epilogue(node.activation)}
    if "residual" in op.fuses:
        dims |= {
            "bias": int(len(node.inputs) > 2 and bool(node.inputs[2])),
            "residual": int(bool(node.residual)),
            "constant_weights": int(all(t in graph.constants for t in node.inputs[1:] if t)),
        }
    return dims
