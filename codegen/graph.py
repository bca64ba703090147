"""The network as plain frozen data: what is computed, not how.

Shapes are in ONNX order (N, C, spatial...) whatever layout a kernel later chooses; batch is part
of the shape.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

import numpy as np

from codegen.types import DType

EMPTY: Mapping[str, Any] = MappingProxyType({})


@dataclass(frozen=True)
class Tensor:
    """Name, shape (elements, ONNX order) and element type of one value."""

    name: str
    shape: tuple[int, ...]
    dtype: DType

    @property
    def size(self) -> int:
        """Number of elements."""
        return int(np.prod(self.shape, dtype=np.int64))

    @property
    def bytes(self) -> int:
        return self.size * self.dtype.size


@dataclass(frozen=True)
class Activation:
    """A unary function applied in the store of the kernel before it: `op` is an OpDef of the
    unary family, `args` its scalar parameters in order; `slope` names the per-channel constant
    of PRelu."""

    op: str
    args: tuple[float, ...] = ()
    slope: str = ""


@dataclass(frozen=True)
class Node:
    """One operator. `inputs` may hold "" for an absent optional input. The result is
    activation(op(inputs) + residual); `residual` names a tensor of the output's shape or is ""."""

    name: str
    op: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    attrs: Mapping[str, Any] = field(default_factory=lambda: EMPTY)
    residual: str = ""
    activation: Activation | None = None

    @property
    def reads(self) -> tuple[str, ...]:
        """Every tensor this node needs, constants included, without absent ones."""
        slope = self.activation.slope if self.activation else ""
        return tuple(t for t in (*self.inputs, self.residual, slope) if t)


@dataclass(frozen=True)
class Graph:
    """A network in execution order. `tensors` has every value by name, constants included."""

    name: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    nodes: tuple[Node, ...]
    tensors: Mapping[str, Tensor]
    constants: Mapping[str, np.ndarray]

    @property
    def weights_bytes(self) -> int:
        """Bytes of the constants that nodes read."""
        used = {t for n in self.nodes for t in n.reads} & self.constants.keys()
        return sum(self.constants[t].nbytes for t in used)

    def consumers(self) -> dict[str, list[Node]]:
        """Tensor name -> the nodes that read it."""
        users: dict[str, list[Node]] = {}
        for node in self.nodes:
            for name in dict.fromkeys(node.reads):
                users.setdefault(name, []).append(node)
        return users

    def producers(self) -> dict[str, Node]:
        """Tensor name -> the node that writes it."""
        return {out: node for node in self.nodes for out in node.outputs if out}
