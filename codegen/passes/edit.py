"""A graph opened for editing within one pass."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from codegen.graph import Activation, Graph, Node, Tensor
from codegen.types import DType


class Edit:
    """Nodes, tensors and constants of a graph while a pass changes them; `graph()` closes it."""

    def __init__(self, graph: Graph):
        self.source = graph
        self.nodes: list[Node] = list(graph.nodes)
        self.tensors = dict(graph.tensors)
        self.constants = dict(graph.constants)
        self._renamed: dict[str, str] = {}

    def producer(self, tensor: str) -> Node | None:
        return next((n for n in self.nodes if tensor in n.outputs), None)

    def users(self, tensor: str) -> list[Node]:
        return [n for n in self.nodes if tensor in n.reads]

    def only_user(self, tensor: str) -> bool:
        """Is the tensor read by one node, and by nobody outside?"""
        return len(self.users(tensor)) == 1 and tensor not in self.source.outputs

    def constant(self, hint: str, value: np.ndarray) -> str:
        """Add a float32 (or as given) constant under a new name."""
        value = np.ascontiguousarray(value.astype(np.float32) if value.dtype.kind == "f" else value)
        name = self.tensor(hint, value.shape, DType.of(value.dtype))
        self.constants[name] = value
        return name

    def tensor(self, hint: str, shape: Sequence[int], dtype: DType) -> str:
        """Add a tensor under a new name."""
        name, i = hint, 1
        while name in self.tensors:
            i += 1
            name = f"{hint}_{i}"
        self.tensors[name] = Tensor(name, tuple(shape), dtype)
        return name

    def replace(self, old: Node, *new: Node) -> None:
        """Put `new` nodes where `old` stood."""
        i = next(i for i, n in enumerate(self.nodes) if n is old)
        self.nodes[i : i + 1] = new

    def remove(self, node: Node) -> None:
        self.nodes = [n for n in self.nodes if n is not node]

    def redirect(self, old: str, new: str) -> bool:
        """Let everyone who read `old` read `new`; False where `old` is an output of the network
        and must stay."""
        if old in self.source.outputs:
            return False
        self.nodes = [_reading(n, old, new) for n in self.nodes]
        return True

    def graph(self) -> Graph:
        used = (
            {t for n in self.nodes for t in (*n.reads, *n.outputs)}
            | set(self.source.inputs)
            | set(self.source.outputs)
        )
        return replace(
            self.source,
            nodes=tuple(self.nodes),
            tensors={k: v for k, v in self.tensors.items() if k in used},
            constants={k: v for k, v in self.constants.items() if k in used},
        )


def _reading(node: Node, old: str, new: str) -> Node:
    if old not in node.reads:
        return node
    act = node.activation
    if act and act.slope == old:
        act = Activation(act.op, act.args, new)
    return replace(
        node,
        inputs=tuple(new if t == old else t for t in node.inputs),
        residual=new if node.residual == old else node.residual,
        activation=act,
    )


def scalar_of(constants: dict[str, np.ndarray], name: str) -> float | None:
    """The value of a constant with one element, else None."""
    value = constants.get(name)
    return float(value.reshape(-1)[0]) if value is not None and value.size == 1 else None


def per_channel(
    constants: dict[str, np.ndarray], name: str, shape: Sequence[int]
) -> np.ndarray | None:
    """A constant as one float64 per channel (dimension 1) of a tensor of `shape`; None where it
    varies otherwise."""
    value = constants.get(name)
    if value is None or len(shape) < 2 or value.ndim > len(shape):
        return None
    full = (1,) * (len(shape) - value.ndim) + value.shape
    if any(e != 1 for i, e in enumerate(full) if i != 1) or full[1] not in (1, shape[1]):
        return None
    return np.broadcast_to(value.reshape(-1).astype(np.float64), (shape[1],))
