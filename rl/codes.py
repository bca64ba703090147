"""What of a network may be computed in int8: nodes with the widths of their weights, tensors as
codes, and the casts between these and floats.

In a space of plans a tensor `t` may exist as it is in the network and, under the name `t|i8`, as
codes of int8 (passes/quantise.py makes the network that a plan stands for).
"""

from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass, field, replace

import numpy as np

from codegen.board import Board
from codegen.calibration.record import Calibration
from codegen.graph import Graph, Node, Tensor
from codegen.kernels import candidates
from codegen.layer import layer_of
from codegen.layout import LAYOUTS
from codegen.ops import OPS
from codegen.ops.quantised import BITS
from codegen.passes.dequantise import Twin
from codegen.passes.quantise import bits_of, quantise
from codegen.passes.scales import MOVES
from codegen.precision import int8_rows
from codegen.signature import Signature, signature_of
from codegen.types import WIDTHS, DType

_MARK = "|i8"
_SCALE, _ZERO = "scale", "zero"


def coded(name: str) -> str:
    """The name of a tensor's codes."""
    return name + _MARK


def other_form(name: str) -> str:
    """Of codes the float tensor, of a tensor its codes."""
    return name.removesuffix(_MARK) if name.endswith(_MARK) else name + _MARK


def cast_name(target: str) -> str:
    """The node that makes one form of the other, as passes/quantise.py names it."""
    if target.endswith(_MARK):
        return f"{target.removesuffix(_MARK)}/quantize"
    return f"{target}/dequantize"


@dataclass(frozen=True)
class Variant:
    """A node of the float network in int8: the node as it is in `graph`, the rows that are worth a
    look (those that no wider weights could have), and what the outputs lose by it."""

    bits: int
    graph: Graph
    node: Node
    rows: frozenset[str]
    loss: float


@dataclass(frozen=True)
class Codes:
    """`variants` by node, `tensors` are the codes by name, `casts` a network of all casts: one
    node per tensor and direction, by the name of what it makes. `fixed` nodes are nothing in
    float32, whatever they are in `graph`; of `ports`, inputs and outputs, the caller has codes."""

    graph: Graph
    board: Board
    variants: Mapping[str, tuple[Variant, ...]]
    tensors: Mapping[str, Tensor]
    casts: Graph
    made: Callable[[Mapping[str, int]], Graph] = field(compare=False)
    fixed: frozenset[str] = frozenset()
    ports: frozenset[str] = frozenset()

    def graph_for(self, bits: Mapping[str, int]) -> Graph:
        """The network with these nodes in int8."""
        return self.made(bits) if bits or self.ports else self.graph

    def loss(self, bits: Mapping[str, int]) -> float:
        """What the outputs are expected to lose with these nodes in int8."""
        known = {(n, v.bits): v.loss for n, found in self.variants.items() for v in found}
        return sum(known.get(pair, 0.0) for pair in bits.items())

    @property
    def graphs(self) -> Iterator[Graph]:
        """Networks that together have all layers of int8 and all casts."""
        yield self.casts
        known = {id(v.graph): v.graph for found in self.variants.values() for v in found}
        yield from known.values()

    def rows(self) -> dict[Signature, set[str]]:
        """The rows of each layer of int8 that are worth a look."""
        out: dict[Signature, set[str]] = {}
        for found in self.variants.values():
            for v in found:
                out.setdefault(signature_of(v.graph, v.node), set()).update(v.rows)
        return out


def networks(graph: Graph, codes: Codes | None) -> list[Graph]:
    """The float network, without what is nothing in float32, and those with all that may be in
    int8."""
    if codes is None:
        return [graph]
    kept = tuple(n for n in graph.nodes if n.name not in codes.fixed)
    return [replace(graph, nodes=kept), *codes.graphs]


def codes_of(graph: Graph, board: Board, calibration: Calibration) -> Codes:
    """What a board can compute of a network in int8, with the losses of its layers where the
    calibration has them (infinite where it has only others')."""
    spans, able = calibration.spans, int8_rows(board)

    def made(bits: Mapping[str, int]) -> Graph:
        return quantise(graph, spans, able, bits, calibration.corrections)

    variants: dict[str, list[Variant]] = {}
    floats = {n.name: n for n in graph.nodes if graph.tensors[n.outputs[0]].dtype == DType.F32}
    for bits in WIDTHS:
        whole = made({n.name: bits for n in graph.nodes})
        known = bits_of(whole)
        for node in whole.nodes:
            if node.name in floats and known.get(node.name) == bits:
                found = variants.setdefault(node.name, [])
                rows = _rows(whole, node, board).difference(*(v.rows for v in found))
                if rows:
                    loss = _loss(calibration, floats[node.name], bits)
                    found.append(Variant(bits, whole, node, frozenset(rows), loss))
    tensors = _coded(graph, spans)
    kept = {name: tuple(found) for name, found in variants.items()}
    return Codes(graph, board, kept, tensors, _casts(graph, tensors), made)


def codes_as_they_came(twin: Twin, board: Board) -> Codes:
    """What of a network that came quantised a board can compute in integers: all that the file has
    so. What the outputs lose by it is the file's affair."""
    whole = twin.quantised()
    variants = {
        n.name: (Variant(BITS, whole, n, frozenset(_rows(whole, n, board)), 0.0),)
        for n in whole.nodes if n.name in twin.forms and not OPS[n.op].view
    }  # fmt: skip
    graph = twin.graph
    tensors = _coded(graph, twin.scales)
    casts = _casts(graph, tensors, inverse=False)
    return Codes(graph, board, variants, tensors, casts, twin.quantised, twin.fixed,
                 frozenset(twin.ports))  # fmt: skip


def _coded(graph: Graph, names: Collection[str]) -> dict[str, Tensor]:
    """The codes of those of the tensors that have any."""
    return {
        coded(t.name): replace(t, name=coded(t.name), dtype=DType.I8)
        for t in graph.tensors.values()
        if t.name in names and t.dtype == DType.F32 and t.name not in graph.constants
    }


def _loss(calibration: Calibration, node: Node, bits: int) -> float:
    """What only moves data loses nothing of its own; without any losses nothing is known."""
    if node.op in MOVES or not calibration.sensitivity:
        return 0.0
    return calibration.sensitivity.get(node.name, {}).get(bits, float("inf"))


def _rows(graph: Graph, node: Node, board: Board) -> set[str]:
    return {r.name for x in LAYOUTS for r in candidates(layer_of(graph, node, x), board)}


def _casts(graph: Graph, tensors: Mapping[str, Tensor], inverse: bool = True) -> Graph:
    constants = {_SCALE: np.ones(1, np.float32), _ZERO: np.zeros(1, np.int8)}
    known = {name: Tensor(name, (1,), DType.of(value.dtype)) for name, value in constants.items()}
    nodes = []
    for name in tensors:
        source = other_form(name)
        known |= {name: tensors[name], source: graph.tensors[source]}
        for x, y, op, attrs in ((source, name, "Quantize", {"axis": 0, "inverse": int(inverse)}),
                                (name, source, "Dequantize", {"axis": 0})):  # fmt: skip
            nodes.append(Node(cast_name(y), op, (x, _SCALE, _ZERO), (y,), attrs))
    return Graph(f"{graph.name} casts", (), (), tuple(nodes), known, constants)


