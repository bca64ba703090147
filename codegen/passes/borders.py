"""A network of which some nodes compute reals and others codes, in the making: a Quantize stands
where a node of codes meets reals, a Dequantize where one of reals meets codes."""

from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from codegen.errors import CodegenError
from codegen.graph import EMPTY, Graph, Node, Tensor
from codegen.passes.cleanup import drop_dead
from codegen.passes.edit import Edit
from codegen.passes.scales import Scale
from codegen.types import DType


class Borders:
    """The nodes so far of what `graph`, in float32, becomes, and under which names its tensors are
    there as codes and as reals. `scales` are of the codes of its tensors; `inverse`: codes are
    made by multiplication (ops/quantised.py). `ports`: inputs and outputs of `graph` that are codes
    in the network, and their names there."""

    def __init__(
        self, graph: Graph, scales: Mapping[str, Scale], inverse: bool = True,
        ports: Mapping[str, str] = EMPTY,
    ):  # fmt: skip
        self.graph, self.scales, self.inverse, self.ports = graph, scales, inverse, ports
        self.edit = Edit(graph)
        self.nodes: list[Node] = []
        self.codes = {t: ports[t] for t in graph.inputs if t in ports}
        self.reals = {*graph.inputs, *graph.constants} - set(self.codes)
        for name, port in ports.items():
            self.edit.tensors[port] = Tensor(port, graph.tensors[name].shape, DType.I8)

    def real_node(self, node: Node) -> None:
        """A node as it is, and what it needs first."""
        self.nodes += [*(n for t in node.reads for n in self.real(t)), node]
        self.reals |= set(node.outputs)

    def real(self, name: str) -> list[Node]:
        """The nodes that make a tensor real, if it is not."""
        if name in self.reals:
            return []
        self.reals.add(name)
        scale, zero = self.border(name)
        cast = self.cast(f"{name}/dequantize")
        return [Node(cast, "Dequantize", (self.codes[name], scale, zero), (name,), {"axis": 0})]

    def code(self, name: str) -> str:
        """The tensor as codes."""
        if name not in self.codes:
            target = self.coded(name)
            attrs = {"axis": 0, "inverse": int(self.inverse)}
            cast = self.cast(f"{name}/quantize")
            self.nodes.append(Node(cast, "Quantize", (name, *self.border(name)),
                                   (target,), attrs))  # fmt: skip
        return self.codes[name]

    def cast(self, name: str) -> str:
        """The name of a cast, which plans know by it."""
        if any(n.name == name for n in self.graph.nodes):
            raise CodegenError(
                f"node {name!r}", "it is called as a cast between types would be", "another name",
                "rename the node in the ONNX file",
            )  # fmt: skip
        return name

    def coded(self, name: str) -> str:
        """A tensor for the codes of a tensor."""
        if name not in self.ports:
            shape = self.graph.tensors[name].shape
            self.codes[name] = self.edit.tensor(f"{name}_i8", shape, DType.I8)
        return self.codes.setdefault(name, self.ports.get(name, ""))

    def border(self, name: str) -> tuple[str, str]:
        """Scale and zero point as constants."""
        at = self.scales[name]
        return (
            self.edit.constant(f"{name}_scale", np.array(at.scale, np.float32)),
            self.edit.constant(f"{name}_zero", np.array(at.zero, np.int8)),
        )

    def network(self) -> Graph:
        """The whole. Outputs are reals, but for ports."""
        for name in self.graph.outputs:
            if name in self.ports:
                self.code(name)
            else:
                self.nodes += self.real(name)
        self.edit.nodes = self.nodes
        both = self.graph.inputs, self.graph.outputs
        inputs, outputs = (tuple(self.ports.get(t, t) for t in names) for names in both)
        self.edit.source = replace(self.graph, inputs=inputs, outputs=outputs)
        return drop_dead(self.edit.graph())
