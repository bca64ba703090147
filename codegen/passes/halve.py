"""float32 becomes float16 where a kernel can compute that, with a Cast wherever the two meet. The
network's inputs and outputs keep the types that its file gives them."""

from collections.abc import Callable, Mapping
from dataclasses import replace

import numpy as np

from codegen.graph import Graph, Node
from codegen.ops import OPS
from codegen.passes.cleanup import drop_dead
from codegen.passes.edit import Edit
from codegen.passes.widen import bypass
from codegen.types import DType

HALF, SINGLE = DType.F16, DType.F32
_LARGEST = float(np.finfo(np.float16).max)

# What an operator does in half precision: computes, or follows its inputs' type because it only
# moves data.
COMPUTES, FOLLOWS = "computes", "follows"
Able = Callable[[Graph, Node], str]


def all_half(graph: Graph) -> Graph:
    """The graph with every float32 tensor as float16, to ask what could compute it."""
    tensors = {
        k: replace(t, dtype=HALF) if t.dtype == SINGLE else t for k, t in graph.tensors.items()
    }
    return replace(graph, tensors=tensors)


def halve(graph: Graph, able: Able, ports: Mapping[str, DType]) -> Graph:
    """`able(graph with all in float16, node)` is COMPUTES, FOLLOWS, or "" for what stays float32;
    `ports` has the types of those inputs and outputs that are float16 for the caller."""
    edit = Edit(graph)
    chosen = _choose(graph, able)
    halves = {t for n in chosen for t in n.outputs if _is(graph, t, SINGLE)}
    casts = _Casts(edit, halves)
    nodes: list[Node] = []
    for node in graph.nodes:
        wanted = HALF if node in chosen else SINGLE
        before, node = casts.reading(node, wanted)
        nodes += [*before, node]
    edit.nodes = nodes
    for name in halves:
        edit.tensors[name] = replace(edit.tensors[name], dtype=HALF)
    _outputs(edit, halves)
    for name in ports:
        _port(edit, name)
    _drop_casts(edit)
    return drop_dead(edit.graph())


def _is(graph: Graph, name: str, dtype: DType) -> bool:
    return bool(name) and graph.tensors[name].dtype == dtype


def _choose(graph: Graph, able: Able) -> list[Node]:
    """The nodes that become float16, in execution order."""
    asked = all_half(graph)
    chosen: list[Node] = []
    made: set[str] = set()
    for node in graph.nodes:
        floats = [t for t in (*node.reads, *node.outputs) if _is(graph, t, SINGLE)]
        if node.op == "Cast" or not floats or not all(_fits(graph, t) for t in floats):
            continue
        how = able(asked, node)
        follows = how == FOLLOWS and made & set(node.inputs)
        if follows or how == COMPUTES:
            chosen.append(node)
            made |= set(node.outputs)
    return chosen


def _fits(graph: Graph, name: str) -> bool:
    """Is no finite value of a constant beyond float16?"""
    value = graph.constants.get(name)
    if value is None or not value.size:
        return True
    finite = np.abs(value[np.isfinite(value)])
    return not finite.size or float(finite.max()) <= _LARGEST


class _Casts:
    """Names under which a tensor can be read in the other type."""

    def __init__(self, edit: Edit, halves: set[str]):
        self.edit, self.halves = edit, halves
        self.at: dict[tuple[str, DType], str] = {}

    def reading(self, node: Node, wanted: DType) -> tuple[list[Node], Node]:
        """The casts that a node needs first, and the node that reads their results."""
        casts: list[Node] = []

        def of(name: str) -> str:
            have = HALF if name in self.halves else SINGLE
            if not _is(self.edit.source, name, SINGLE) or have == wanted:
                return name
            return self._other(name, wanted, casts)

        activation = node.activation
        if activation and activation.slope:
            activation = replace(activation, slope=of(activation.slope))
        inputs = tuple(of(t) if t else "" for t in node.inputs)
        residual = of(node.residual) if node.residual else ""
        return casts, replace(node, inputs=inputs, residual=residual, activation=activation)

    def _other(self, name: str, wanted: DType, casts: list[Node]) -> str:
        if (name, wanted) in self.at:
            return self.at[name, wanted]
        other = self.edit.tensor(f"{name}_{wanted.value}", self.edit.tensors[name].shape, wanted)
        self.at[name, wanted] = other
        if name in self.edit.constants:
            self.edit.constants[other] = self.edit.constants[name].astype(wanted.numpy)
        else:
            casts.append(cast(name, other, wanted))
        return other


def cast(source: str, target: str, to: DType) -> Node:
    """A Cast node named after its result."""
    return Node(f"{target}/cast", "Cast", (source,), (target,), {**OPS["Cast"].attrs,
                                                                 "to": to.value})  # fmt: skip


def _outputs(edit: Edit, halves: set[str]) -> None:
    """An output that is now float16 is made under another name and cast."""
    for name in edit.source.outputs:
        if name not in halves:
            continue
        inner = edit.tensor(f"{name}_f16", edit.tensors[name].shape, HALF)
        edit.nodes = [_renamed(n, name, inner) for n in edit.nodes]
        edit.tensors[name] = replace(edit.tensors[name], dtype=SINGLE)
        edit.nodes.append(cast(inner, name, SINGLE))


def _renamed(node: Node, old: str, new: str) -> Node:
    def to(names: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(new if t == old else t for t in names)

    residual = new if node.residual == old else node.residual
    return replace(node, inputs=to(node.inputs), outputs=to(node.outputs), residual=residual)


def _port(edit: Edit, name: str) -> None:
    """An input or output of the network that is float16 for the caller."""
    wide = edit.tensor(f"{name}_f32", edit.tensors[name].shape, SINGLE)
    is_input = edit.producer(name) is None
    edit.nodes = [_renamed(n, name, wide) for n in edit.nodes]
    edit.tensors[name] = replace(edit.tensors[name], dtype=HALF)
    if is_input:
        edit.nodes.insert(0, cast(name, wide, SINGLE))
    else:
        edit.nodes.append(cast(wide, name, HALF))


def _drop_casts(edit: Edit) -> None:
    """float16 -> float32 -> float16 is nothing."""
    for name in [n.name for n in edit.nodes if n.op == "Cast"]:
        node = next(n for n in edit.nodes if n.name == name)
        before = edit.producer(node.inputs[0])
        if edit.tensors[node.outputs[0]].dtype != HALF or before is None or before.op != "Cast":
            continue
        if edit.tensors[before.inputs[0]].dtype == HALF:
            straight = replace(node, inputs=before.inputs)
            edit.replace(node, straight)
            bypass(edit, straight)
