"""The plan made without a search: both layouts are tried for the whole network, and each node, or
group of nodes, takes the row that was the fastest where its layer was measured before
(codegen/recorded), or else the one that is expected to be.

Where packed weights must not exceed a limit, a byte of them has a price in cycles: the lowest one
at which they fit. A careful plan leaves out rows that lose digits (codegen/exactness.py)."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from codegen.board import Board
from codegen.cost import cycles
from codegen.errors import CodegenError
from codegen.exactness import is_allowed
from codegen.graph import Graph, Node
from codegen.groups import find_groups, regroup
from codegen.kernels import candidates
from codegen.layer import layer_of
from codegen.layout import LAYOUTS, reshape_keeps, same_memory
from codegen.ops import OPS
from codegen.packed_size import packed_bytes
from codegen.plan import Choice, Plan, needs_kernel
from codegen.recorded import load_recorded
from codegen.signature import signature_of

# Cycles per byte of packed weights: none that matters, and one that leaves no choice.
_PRICES, _PRICE_STEPS = (1e-3, 1e6), 12
# Elements per cycle that a layout conversion moves; it only has to rank plans.
_CONVERSION_RATE = 0.5


@dataclass(frozen=True)
class _Option:
    """A row that computes a node in a layout: expected cycles, bytes of its packed weights, and the
    layout in which it wants its first input."""

    choice: Choice
    cycles: float
    weights: int
    reads: str


@dataclass
class _Options:
    """The options of nodes on a board, each worked out once; `careful`: as in exactness.py."""

    board: Board
    careful: int = 0
    seen: dict[tuple[str, ...], list[_Option]] = field(default_factory=dict)

    def of(self, graph: Graph, node: Node, layout: str, come: str) -> list[_Option]:
        """Those in `layout`, or, where no row computes that, in the other one. An operator that
        moves data finds its inputs in layout `come`. CodegenError where there is none."""
        key = (node.name, node.op, *node.outputs, layout, come)
        if key not in self.seen:
            self.seen[key] = _options(graph, node, self.board, layout, come, self.careful)
        return self.seen[key]


@dataclass(frozen=True)
class _Costs:
    """What to minimise: cycles, and `price` cycles for each byte of packed weights."""

    options: _Options
    price: float = 0.0

    @property
    def board(self) -> Board:
        return self.options.board

    def of(self, option: _Option) -> float:
        """The cost of an option."""
        return option.cycles + self.price * option.weights

    def best(self, graph: Graph, node: Node, layout: str, come: str = "") -> _Option:
        """The cheapest option of a node whose first input lies in layout `come`, changes of layout
        included; the first of equals, which a measurement named."""

        def cost(option: _Option) -> float:
            data = node.inputs[0] if node.inputs else ""
            moved = come and data and data not in graph.constants and option.reads != come
            return self.of(option) + (_moving(graph, data) if moved else 0.0)

        return min(self.options.of(graph, node, layout, come), key=cost)


def _moving(graph: Graph, tensor: str) -> float:
    """Cycles of bringing a tensor into the other layout."""
    of = graph.tensors[tensor]
    return 0.0 if same_memory(of.shape, *LAYOUTS) else of.size / _CONVERSION_RATE


def default_plan(
    graph: Graph, board: Board, model_sha256: str, max_weights: int | None = None,
    careful: int = 0,
) -> Plan:  # fmt: skip
    """The cheaper of two plans by the rows' nominal rates: channels last, or ONNX order,
    wherever rows allow. With `max_weights`, packed weights have at most so many bytes;
    CodegenError where no plan does. `careful`: as in exactness.py."""
    options = _Options(board, careful)
    plan, weights = _plan(graph, _Costs(options), model_sha256)
    if max_weights is None or weights <= max_weights:
        return plan
    least, weights = _plan(graph, _Costs(options, _PRICES[1]), model_sha256)
    if weights > max_weights:
        raise CodegenError(
            "--max-weights",
            f"{max_weights:,} bytes",
            f"the network's packed weights take at least {weights:,} bytes",
            "allow more",
        )
    low, high = map(math.log, _PRICES)
    for _ in range(_PRICE_STEPS):
        price = (low + high) / 2
        plan, weights = _plan(graph, _Costs(options, math.exp(price)), model_sha256)
        if weights > max_weights:
            low = price
        else:
            least, high = plan, price
    return least


def _plan(graph: Graph, costs: _Costs, model_sha256: str) -> tuple[Plan, int]:
    """The plan of the better layout, and its bytes of packed weights."""
    plans = []
    for layout in LAYOUTS:
        groups = _groups(graph, costs, layout)
        nodes, cost, weights = _walk(regroup(graph, groups), costs, layout)
        nodes = {n: replace(c, group=groups.get(n, ())) for n, c in nodes.items()}
        plans.append((cost, Plan(costs.board.name, model_sha256, nodes), weights))
    return min(plans, key=lambda p: p[0])[1:]


def _groups(graph: Graph, costs: _Costs, layout: str) -> dict[str, tuple[str, ...]]:
    """The groups that save most against their nodes computed one by one, none overlapping."""
    alone: dict[str, float] = {}
    board = costs.board
    by_name = {n.name: n for n in graph.nodes}
    saved: list[tuple[float, tuple[str, ...]]] = []
    for group in find_groups(graph):
        whole = regroup(graph, {group.name: group.names})
        node = next(n for n in whole.nodes if n.name == group.name)
        best = costs.best(whole, node, layout)
        if best.choice.layout != layout:
            continue
        # A formula must not outbid measurements; of groups only those that pay are recorded.
        if not _is_known(whole, node, board) and any(
            _is_known(graph, by_name[n], board) for n in group.names
        ):
            continue
        for name in group.names:
            if name not in alone:
                alone[name] = costs.of(costs.best(graph, by_name[name], layout))
        saved.append((sum(alone[n] for n in group.names) - costs.of(best), group.names))
    taken: dict[str, tuple[str, ...]] = {}
    for gain, names in sorted(saved, key=lambda s: (-s[0], s[1])):
        inside = {n for g in taken.values() for n in g} & set(names)
        if gain > 0 and not inside and gain > _apart(names, saved):
            taken[names[0]] = names
    return taken


def _apart(group: tuple[str, ...], saved: list[tuple[float, tuple[str, ...]]]) -> float:
    """What two groups save that share the nodes of one."""
    parts = {names: gain for gain, names in saved if set(names) < set(group)}
    pairs = ((a, b) for a in parts for b in parts if not set(a) & set(b))
    return max((parts[a] + parts[b] for a, b in pairs), default=0.0)


def _walk(graph: Graph, costs: _Costs, preferred: str) -> tuple[dict[str, Choice], float, int]:
    """Choices, their cost with changes of layout, bytes of packed weights."""
    layouts = dict.fromkeys((*graph.inputs, *graph.constants), "nchw")
    nodes: dict[str, Choice] = {}
    total, weights = 0.0, 0
    for node in graph.nodes:
        data = [t for t in node.inputs if t and t not in graph.constants]
        come = layouts.get(data[0], "nchw") if data else "nchw"
        if not needs_kernel(node):
            kept = reshape_keeps(come, *(graph.tensors[t].shape for t in (data[0], *node.outputs)))
            total += 0.0 if kept else _moving(graph, data[0])
            layouts.update(dict.fromkeys(node.outputs, come if kept else "nchw"))
            continue
        wanted = preferred if OPS[node.op].spatial else come
        best = costs.best(graph, node, wanted, come)
        if wanted != preferred:
            best = _moved(graph, node, costs, best, preferred)
        total += costs.of(best)
        weights += best.weights
        for t in data:
            wanted = best.reads if t == node.inputs[0] else best.choice.layout
            if layouts.get(t, "nchw") != wanted:
                total += _moving(graph, t)
        nodes[node.name] = best.choice
        layouts.update(dict.fromkeys(node.outputs, best.choice.layout))
    for t in graph.outputs:
        if layouts[t] != "nchw":
            total += _moving(graph, t)
    return nodes, total, weights


def _moved(graph: Graph, node: Node, costs: _Costs, best: _Option, preferred: str) -> _Option:
    """`best`, which keeps a layout, or a row that brings the tensor into the preferred one and
    costs less than both."""
    reads = best.choice.layout
    rows = [
        r for r in costs.options.of(graph, node, preferred, reads)
        if (r.choice.layout, r.reads) == (preferred, reads)
    ]  # fmt: skip
    least = min(rows, key=costs.of, default=best)
    keeps = costs.of(best) + _moving(graph, node.outputs[0])
    return least if costs.of(least) < keeps else best


def _options(
    graph: Graph, node: Node, board: Board, layout: str, come: str, careful: int
) -> list[_Option]:
    for wanted in (layout, *(x for x in LAYOUTS if x != layout)):
        layer = layer_of(graph, node, wanted, come)
        rows = [r for r in candidates(layer, board) if r.layout in ("any", wanted)]
        rows = [r for r in rows if is_allowed(r, careful)]
        fastest = _recorded(graph, node, board)
        layouts = (wanted, f"nchw>{wanted}")
        measured = dict(fastest[x] for x in layouts if x in fastest)
        known = sorted((r for r in rows if r.name in measured), key=lambda r: measured[r.name])
        # What is measured goes first; what is only expected does not outbid it.
        least = 1e3 * min((measured[r.name] for r in known), default=0.0)
        found = [
            _Option(
                Choice(r.name, wanted),
                1e3 * measured[r.name] if r.name in measured
                else max(least, cycles(graph, node, layer, r, board)),
                packed_bytes(graph, node, layer, r),
                r.come(wanted),
            )
            for r in (*known, *(r for r in rows if r not in known))
        ]  # fmt: skip
        if found:
            return found
    dtype = layer_of(graph, node, layout).dtype
    raise CodegenError(
        f"node {node.name!r}",
        f"no kernel for {node.op} on {dtype}",
        f"see templates/{OPS[node.op].family}/kernels.toml",
        "use --dtype f32, or a board with fp16",
    )


def _recorded(graph: Graph, node: Node, board: Board) -> Mapping[str, tuple[str, float]]:
    """Layout -> (fastest row, thousands of cycles) of a layer that was measured before."""
    table = load_recorded(board.core)
    return table.get(signature_of(graph, node).key, {}) if table else {}


def _is_known(graph: Graph, node: Node, board: Board) -> bool:
    return bool(_recorded(graph, node, board))
