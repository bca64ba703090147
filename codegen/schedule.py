"""Plan -> Program: kernel calls on values in definite layouts, with conversions where neighbours
disagree.

Values that are only another name for (part of) another value are views and cost nothing; the
rest get memory later.
"""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from codegen.board import Board
from codegen.constants import Constants
from codegen.derive import DERIVED
from codegen.graph import Graph, Node, Tensor
from codegen.groups import regroup
from codegen.kernels import Kernel, Layer, candidates, family_rows, load_kernels, refusal
from codegen.layer import layer_of
from codegen.layout import (
    memory_shape,
    moves_nothing,
    permutation,
    reshape_keeps,
    same_memory,
    transposition,
)
from codegen.ops import OPS
from codegen.ops.base import around
from codegen.ops.shape import copy_dims, transpose_dims
from codegen.plan import Choice, Plan
from codegen.steps import Program, Step, Value, View, Weight
from codegen.weights import PACKERS


def lower(graph: Graph, plan: Plan, board: Board) -> Program:
    """Turn every node into kernel calls and views, as the plan says."""
    graph = regroup(graph, plan.groups)
    low = _Lowering(graph, plan, board)
    for node in graph.nodes:
        low.node(node)
    low.outputs()
    return low.program()


def lower_node(graph: Graph, choice: Choice, come: str, board: Board) -> Program:
    """The kernel calls of a graph's only node where its inputs lie in layout `come` already: what
    the node adds to a network, without conversions, inputs and outputs of the whole. What a row
    reads in another layout than its own is the first input alone."""
    low = _Lowering(graph, Plan("", "", {n.name: choice for n in graph.nodes}), board)
    node, reads = graph.nodes[0], load_kernels()[choice.kernel].reads
    for name in graph.inputs:
        low.define(name, choice.layout if reads and name != node.inputs[0] else come)
    low.node(node)
    return low.program()


def lower_conversion(tensor: Tensor, come: str, go: str, board: Board) -> Program:
    """The step that brings a tensor into layout `go`; none where nothing moves."""
    graph = Graph("", (), (), (), {tensor.name: tensor}, {})
    low = _Lowering(graph, Plan("", "", {}), board)
    low.define(tensor.name, come)
    low.value(tensor.name, go)
    return low.program()


class _Lowering:
    """Bookkeeping of one lowering; `program()` freezes it."""

    def __init__(self, graph: Graph, plan: Plan, board: Board):
        self.graph, self.plan, self.board = graph, plan, board
        self.users = graph.consumers()
        self.steps: list[Step] = []
        self.values: dict[str, Value] = {}
        self.views: dict[str, View] = {}
        self.weights: dict[str, Weight] = {}
        self.conversions: list[dict[str, str]] = []
        self.at: dict[tuple[str, str], str] = {}  # (tensor, layout) -> value key
        self.final: list[str] = []
        for name in graph.inputs:
            self.define(name, "nchw")

    def define(self, name: str, layout: str) -> str:
        tensor = self.graph.tensors[name]
        self.values[name] = Value(name, tensor, layout)
        self.at[name, layout] = name
        return name

    def have(self, name: str) -> Value:
        """The value that the producer of a tensor left."""
        return self.values[name]

    def value(self, name: str, layout: str) -> str:
        """Key of a tensor in `layout`, converted if need be."""
        if (name, layout) in self.at:
            return self.at[name, layout]
        source = self.have(name)
        shape = source.tensor.shape
        if len(shape) < 3:
            return source.key
        key = f"{name}@{layout}"
        self.values[key] = Value(key, source.tensor, layout)
        self.at[name, layout] = key
        if same_memory(shape, source.layout, layout):
            self.views[key] = View(source.key)
            return key
        before, after, perm = transposition(shape, tuple(range(len(shape))), source.layout, layout)
        dims = transpose_dims({"perm": perm}, [before], [after])
        layer = Layer("transpose", dims, source.tensor.dtype.value)
        self.move(f"{name} to {layout}", "Convert", self.cheapest(layer), layer, source.key, key)
        self.conversions.append(
            {
                "tensor": name,
                "from": f"{source.layout}_{source.tensor.dtype.value}",
                "to": f"{layout}_{source.tensor.dtype.value}",
            }
        )
        return key

    def node(self, node: Node) -> None:
        if node.op == "Reshape":
            self.reshape(node)
        elif node.op == "Transpose":
            self.transpose(node)
        elif node.op == "Concat":
            self.concat(node)
        else:
            self.compute(node)

    def reshape(self, node: Node) -> None:
        source, target = self.graph.tensors[node.inputs[0]], self.graph.tensors[node.outputs[0]]
        if source.name in self.graph.constants:
            self.compute(replace(node, op="Copy"))
            return
        layout = self.have(source.name).layout
        if not reshape_keeps(layout, source.shape, target.shape):
            layout = "nchw"
        key = self.value(source.name, layout)
        self.views[self.define(target.name, layout)] = View(key)

    def transpose(self, node: Node) -> None:
        source = self.have(node.inputs[0])
        choice = self.plan.nodes[node.name]
        for layout in (choice.layout, "nhwc", "nchw"):
            before, after, perm = transposition(
                source.tensor.shape, node.attrs["perm"], source.layout, layout
            )
            if moves_nothing(before, perm):
                self.views[self.define(node.outputs[0], layout)] = View(source.key)
                return
        layer = layer_of(self.graph, node, choice.layout, source.layout)
        row = load_kernels()[choice.kernel]
        if refusal(row, layer, tuple(self.board.isa)):  # chosen for another layout of the input
            row = self.cheapest(layer)
        out = self.define(node.outputs[0], choice.layout)
        self.move(node.name, node.op, row, layer, source.key, out)

    def move(self, name: str, op: str, row: Kernel, layer: Layer, source: str, key: str) -> None:
        """A transposition of one value into another."""
        derived = DERIVED[row.derive](layer.dims, row.params) if row.derive else {}
        self.steps.append(Step(name, op, row, {**layer.dims, **derived}, (source,), (key,)))

    def cheapest(self, layer: Layer) -> Kernel:
        """The row with the highest rate of those that can compute the layer."""
        return max(candidates(layer, self.board), key=lambda r: r.rate(self.board.core))

    def concat(self, node: Node) -> None:
        """Producers write straight into the result where they can; the other parts are copied."""
        choice = self.plan.nodes[node.name]
        out = self.define(node.outputs[0], choice.layout)
        shape = memory_shape(self.values[out].tensor.shape, choice.layout)
        axis = permutation(choice.layout, len(shape)).index(node.attrs["axis"])
        whole = around(shape, axis)
        row_out = whole["n"] * whole["inner"]
        offset = 0
        for i, name in enumerate(node.inputs):
            part = self.graph.tensors[name].shape[node.attrs["axis"]] * whole["inner"]
            key = (
                self.constant(node, name, choice.layout)
                if name in self.graph.constants
                else self.value(name, choice.layout)
            )
            pitch = 0 if whole["outer"] == 1 else row_out
            pixels = choice.layout == "nhwc" and node.attrs["axis"] == 1 and len(shape) > 2
            if self.may_view(key, name, pitch, pixels):
                self.views[key] = View(out, offset, pitch)
            else:
                dims = {**copy_dims(whole["outer"], part, part, row_out), **whole}
                self.steps.append(
                    Step(
                        f"{node.name}[{i}]",
                        node.op,
                        load_kernels()[choice.kernel],
                        dims,
                        (key,),
                        (out,),
                        offset=offset,
                    )
                )
            offset += part

    def may_view(self, key: str, name: str, pitch: int, pixels: bool) -> bool:
        """May the memory of this value lie inside a concatenation? Kernels that know a pitch mean
        that of pixels: channels are joined, and lie last."""
        if (
            key.startswith("&")
            or key in self.views
            or key in self.graph.inputs
            or name in self.graph.outputs
        ):
            return False
        if not pitch:
            return True
        if not pixels:
            return False
        maker = next((s for s in self.steps if key in s.outputs), None)
        reads = sum(user.reads.count(name) for user in self.users.get(name, ()))
        alone = reads == 1 and not any(v.of == key for v in self.views.values())
        return (
            maker is not None
            and maker.kernel.pitch
            and alone
            and not any(key in s.reads for s in self.steps)
        )

    def compute(self, node: Node) -> None:
        op = OPS[node.op]
        choice = self.plan.nodes.get(node.name)
        row = load_kernels()[choice.kernel] if choice else family_rows(op.family)[0]
        layout = choice.layout if choice else "nchw"
        layer = layer_of(self.graph, node, layout)
        derived = DERIVED[row.derive](layer.dims, row.params) if row.derive else {}
        args = self.arguments(node, row, layout, layer.dims)
        residual = self.operand(node, node.residual, layout) if node.residual else ""
        outs = tuple(self.define(t, layout) for t in node.outputs if t)
        self.steps.append(
            Step(
                node.name,
                node.op,
                row,
                {**layer.dims, **derived},
                args,
                outs,
                residual,
                row.scratch.size * derived.get("scratch_floats", 0),
            )
        )

    def arguments(
        self, node: Node, row: Kernel, layout: str, dims: Mapping[str, Any]
    ) -> tuple[str, ...]:
        slope = node.activation.slope if node.activation else ""
        if not row.pack:
            # only the data of a spatial operator follows the layout; its weights stay as they are
            rest = "nchw" if OPS[node.op].spatial else layout
            args = [
                self.operand(node, t, row.come(layout) if i == 0 else rest)
                for i, t in enumerate(node.inputs)
                if t
            ]
            return tuple(args + ([self.constant(node, slope, "nchw")] if slope else []))
        constants = self.graph.constants
        packed = PACKERS[row.pack](
            Constants(
                tuple(constants.get(t) for t in node.inputs[1:]),
                constants.get(slope),
                dims,
                row.params,
            )
        )
        return (
            self.operand(node, node.inputs[0], row.come(layout)),
            *(self.weight(node, f"{node.name}_{suffix}", array) for suffix, array in packed),
        )

    def operand(self, node: Node, name: str, layout: str) -> str:
        return (
            self.constant(node, name, layout)
            if name in self.graph.constants
            else self.value(name, layout)
        )

    def constant(self, node: Node, name: str, layout: str) -> str:
        """A constant operand: weights of spatial operators stay in ONNX order, others follow the
        layout."""
        array = self.graph.constants[name]
        if not OPS[node.op].spatial:
            array = array.transpose(permutation(layout, array.ndim))
        return self.weight(
            node, name if layout == "nchw" or array.ndim < 3 else f"{name}_{layout}", array
        )

    def weight(self, node: Node, symbol: str, array: np.ndarray) -> str:
        base, i = symbol, 1
        while symbol in self.weights and not _same(self.weights[symbol].array, array):
            i += 1
            symbol = f"{base}_{i}"
        self.weights.setdefault(symbol, Weight(symbol, np.ascontiguousarray(array), node.name))
        return f"&{symbol}"

    def outputs(self) -> None:
        """Every output must own its buffer, in ONNX order."""
        taken: set[str] = set()
        for name in self.graph.outputs:
            key = self.value(name, "nchw")
            root, offset, pitch = self.program().root(key)
            whole = offset == 0 and not pitch and self.values[root].bytes == self.values[key].bytes
            if root in self.graph.inputs or root in taken or not whole:
                copy = f"{name}@out"
                self.values[copy] = Value(copy, self.values[key].tensor, "nchw")
                row = family_rows("copy")[0]
                self.steps.append(
                    Step(
                        f"{name} to output",
                        "Copy",
                        row,
                        {"size": self.values[key].tensor.size},
                        (key,),
                        (copy,),
                    )
                )
                key = root = copy
            taken.add(root)
            self.final.append(key)

    def program(self) -> Program:
        return Program(
            tuple(self.steps),
            self.values,
            self.views,
            tuple(self.graph.inputs),
            tuple(self.final),
            tuple(self.weights.values()),
            tuple(self.conversions),
        )


def _same(a: np.ndarray, b: np.ndarray) -> bool:
    return a.dtype == b.dtype and a.shape == b.shape and a.tobytes() == b.tobytes()
