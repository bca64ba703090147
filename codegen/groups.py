"""Groups of nodes that one kernel may compute: a depthwise convolution with the convolution before
it, the 1x1 convolution after it, or both; and two such chains. A plan that names a group turns it
into one node."""

import difflib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np

from codegen.errors import CodegenError
from codegen.graph import Activation, Graph, Node
from codegen.ops import OPS
from codegen.ops.conv import is_pointwise
from codegen.passes.edit import Edit
from codegen.types import DType


@dataclass(frozen=True)
class Group:
    """Names of the nodes in execution order; the first is that of the node they become."""

    names: tuple[str, ...]

    @property
    def name(self) -> str:
        return self.names[0]


def find_groups(graph: Graph) -> list[Group]:
    """Every chain that may become one node; they overlap, a plan takes some of them."""
    return [Group(tuple(n.name for n in chain)) for chain in _groups(graph)]


def regroup(graph: Graph, groups: Mapping[str, tuple[str, ...]], where: str = "plan") -> Graph:
    """The graph in which every group (by the name of its first node) is one node, which it may be
    already; CodegenError for nodes that cannot be one kernel."""
    done = {n.name for n in graph.nodes if n.op in ("ConvChain", "ConvChainPair")}
    groups = {name: names for name, names in groups.items() if name not in done}
    if not groups:
        return graph
    chains = {tuple(n.name for n in c): c for c in _groups(graph)}
    edit = Edit(graph)
    taken: set[str] = set()
    for name, names in groups.items():
        if names not in chains or name != names[0] or taken & set(names):
            near = difflib.get_close_matches(name, [c[0] for c in chains], 1)
            known = next((" + ".join(c) for c in chains if near and c[0] == near[0]), "none here")
            raise CodegenError(
                f"{where}: node {name!r}",
                f"group {' + '.join(names)} cannot be one kernel",
                "[Conv,] depthwise Conv[, 1x1 Conv] without other readers between, or two such, "
                f"e.g. {known}",
                "remove the key `group` and name a kernel for each node",
            )
        taken |= set(names)
        _replace(edit, chains[names])
    return edit.graph()


def _groups(graph: Graph) -> Iterator[list[Node]]:
    chains = list(_chains(graph))
    yield from chains
    yield from _pairs(graph, chains)


def _pairs(graph: Graph, chains: list[list[Node]]) -> Iterator[list[Node]]:
    """Two chains where memory is to be gained: what lies between is larger than the image and the
    result. The first one projects, and the second one begins without a window."""
    users = graph.consumers()
    for first in chains:
        between = graph.tensors[first[-1].outputs[0]]
        after = users.get(between.name, ())
        if between.name in graph.outputs or len(after) != 1:
            continue
        if _is_depthwise(graph, first[-1]) or not _inner(first[-1]):
            continue
        for second in (c for c in chains if c[0] is after[0]):
            plain = is_pointwise(second[0].attrs) or _is_depthwise(graph, second[0])
            ends = (first[0].inputs[0], second[-1].outputs[0])
            if plain and all(graph.tensors[t].bytes < between.bytes for t in ends):
                yield [*first, *second]


def _chains(graph: Graph) -> Iterator[list[Node]]:
    users, makers = graph.consumers(), graph.producers()

    def alone(tensor: str) -> bool:
        return len(users.get(tensor, ())) == 1 and tensor not in graph.outputs

    for node in graph.nodes:
        if not _stage(graph, node) or not _is_depthwise(graph, node):
            continue
        before = makers.get(node.inputs[0])
        first = (
            before is not None and alone(node.inputs[0]) and _stage(graph, before)
            and before.attrs["group"] == 1 and _inner(before)
        )  # fmt: skip
        after = users.get(node.outputs[0], [None])[0]
        last = (
            alone(node.outputs[0]) and after.residual != node.outputs[0] and _inner(node)
            and _stage(graph, after) and is_pointwise(after.attrs)
        )  # fmt: skip
        if first and last:
            yield [before, node, after]
        if first:
            yield [before, node]
        if last:
            yield [node, after]


def _stage(graph: Graph, node: Node) -> bool:
    """A two-dimensional convolution in float32, with constant weights and without dilation."""
    return (
        node.op == "Conv"
        and graph.tensors[node.inputs[0]].dtype == DType.F32
        and len(graph.tensors[node.inputs[0]].shape) == 4
        and all(t in graph.constants for t in node.inputs[1:] if t)
        and set(node.attrs["dilations"]) == {1}
    )


def _is_depthwise(graph: Graph, node: Node) -> bool:
    channels = graph.tensors[node.inputs[0]].shape[1]
    return node.attrs["group"] == channels == graph.tensors[node.outputs[0]].shape[1] > 1


def _inner(node: Node) -> bool:
    """May another stage follow? Then nothing may be added, and slopes have no place."""
    return not node.residual and not (node.activation and node.activation.slope)


def _replace(edit: Edit, chain: list[Node]) -> None:
    depthwise = [i for i, n in enumerate(chain) if n.attrs["group"] > 1]
    last, inputs = chain[-1], [chain[0].inputs[0]]
    if len(depthwise) == 1:
        op = "ConvChain"
        at, constants = _chain(edit, chain)
        inputs += constants
    else:
        op, cut = "ConvChainPair", depthwise[0] + 2  # the first chain ends with a projection
        at = {"last_act": _plain(chain[cut - 1].activation)}
        for which, part in (("first", chain[:cut]), ("second", chain[cut:])):
            attrs, constants = _chain(edit, part)
            at |= {f"{which}_{k}": v for k, v in attrs.items()}
            inputs += constants
    node = Node(chain[0].name, op, tuple(inputs), last.outputs, at, last.residual, last.activation)
    edit.replace(last, node)
    for old in chain[:-1]:
        edit.remove(old)


def _chain(edit: Edit, chain: list[Node]) -> tuple[dict, list[str]]:
    """Attributes of a chain, and the names of its constants, "" for those of no stage."""
    depthwise = next(n for n in chain if n.attrs["group"] > 1)
    expand = chain[0] if chain[0] is not depthwise else None
    project = chain[-1] if chain[-1] is not depthwise else None
    at = {**OPS["ConvChain"].attrs, "project": int(project is not None)}
    at |= {k: depthwise.attrs[k] for k in ("kernel_shape", "strides", "pads")}
    if expand:
        at |= {f"expand_{k.removesuffix('_shape')}": expand.attrs[k]
               for k in ("kernel_shape", "strides", "pads")}  # fmt: skip
        at["expand_act"] = _plain(expand.activation)
    if project:
        at["act"] = _plain(depthwise.activation)
    constants = _weights(edit, expand) if expand else ["", ""]
    return at, constants + _weights(edit, depthwise) + (_weights(edit, project) if project else [])


def _plain(activation: Activation | None) -> tuple:
    return (activation.op, *activation.args) if activation else ()


def _weights(edit: Edit, node: Node) -> list[str]:
    """Weights and bias; a bias of zeros where there is none."""
    if len(node.inputs) > 2 and node.inputs[2]:
        return list(node.inputs[1:3])
    size = edit.tensors[node.outputs[0]].shape[1]
    return [node.inputs[1], edit.constant(f"{node.name}/bias", np.zeros(size, np.float32))]
