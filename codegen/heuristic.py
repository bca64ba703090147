"""The plan made without a search: both layouts are tried for the whole network, and each node, or
group of nodes, takes the row that was the fastest where its layer was measured before
(codegen/recorded), or else the one that is expected to be."""

from collections.abc import Mapping
from dataclasses import replace

from codegen.board import Board
from codegen.cost import cycles
from codegen.errors import CodegenError
from codegen.graph import Graph, Node
from codegen.groups import find_groups, regroup
from codegen.kernels import candidates
from codegen.layer import layer_of
from codegen.layout import LAYOUTS, reshape_keeps
from codegen.ops import OPS
from codegen.plan import Choice, Plan, needs_kernel
from codegen.recorded import load_recorded
from codegen.signature import signature_of

# Elements per cycle that a layout conversion moves; it only has to rank plans.
_CONVERSION_RATE = 0.5


def default_plan(graph: Graph, board: Board, model_sha256: str) -> Plan:
    """The cheaper of two plans by the rows' nominal rates: channels last, or ONNX order,
    wherever rows allow."""
    plans = []
    for layout in LAYOUTS:
        groups = _groups(graph, board, layout)
        nodes, cost = _walk(regroup(graph, groups), board, layout)
        nodes = {n: replace(c, group=groups.get(n, ())) for n, c in nodes.items()}
        plans.append((cost, Plan(board.name, model_sha256, nodes)))
    return min(plans, key=lambda p: p[0])[1]


def _groups(graph: Graph, board: Board, layout: str) -> dict[str, tuple[str, ...]]:
    """The groups that save most against their nodes computed one by one, none overlapping."""
    alone: dict[str, float] = {}
    by_name = {n.name: n for n in graph.nodes}
    saved: list[tuple[float, tuple[str, ...]]] = []
    for group in find_groups(graph):
        whole = regroup(graph, {group.name: group.names})
        node = next(n for n in whole.nodes if n.name == group.name)
        choice, cost = _cheapest(whole, node, board, layout)
        if choice.layout != layout:
            continue
        # A formula must not outbid measurements; of groups only those that pay are recorded.
        if not _is_known(whole, node, board) and any(
            _is_known(graph, by_name[n], board) for n in group.names
        ):
            continue
        for name in group.names:
            if name not in alone:
                alone[name] = _cheapest(graph, by_name[name], board, layout)[1]
        saved.append((sum(alone[n] for n in group.names) - cost, group.names))
    taken: dict[str, tuple[str, ...]] = {}
    for gain, names in sorted(saved, key=lambda s: (-s[0], s[1])):
        if gain > 0 and not {n for g in taken.values() for n in g} & set(names):
            taken[names[0]] = names
    return taken


def _walk(graph: Graph, board: Board, preferred: str) -> tuple[dict[str, Choice], float]:
    layouts = dict.fromkeys((*graph.inputs, *graph.constants), "nchw")
    nodes: dict[str, Choice] = {}
    total = 0.0
    for node in graph.nodes:
        data = [t for t in node.inputs if t and t not in graph.constants]
        come = layouts.get(data[0], "nchw") if data else "nchw"
        if not needs_kernel(node):
            kept = reshape_keeps(come, *(graph.tensors[t].shape for t in (data[0], *node.outputs)))
            total += 0.0 if kept else graph.tensors[data[0]].size / _CONVERSION_RATE
            layouts.update(dict.fromkeys(node.outputs, come if kept else "nchw"))
            continue
        wanted = preferred if OPS[node.op].spatial else come
        choice, cost = _cheapest(graph, node, board, wanted, come)
        for t in data:
            shape = graph.tensors[t].shape
            if len(shape) > 2 and layouts.get(t, "nchw") != choice.layout:
                cost += graph.tensors[t].size / _CONVERSION_RATE
        total += cost
        nodes[node.name] = choice
        layouts.update(dict.fromkeys(node.outputs, choice.layout))
    for t in graph.outputs:
        if layouts[t] != "nchw" and len(graph.tensors[t].shape) > 2:
            total += graph.tensors[t].size / _CONVERSION_RATE
    return nodes, total


def _cheapest(
    graph: Graph, node: Node, board: Board, layout: str, come: str = ""
) -> tuple[Choice, float]:
    """The best row in `layout`, or, where no row computes that layout, in the other one. An
    operator that moves data finds its inputs in layout `come`."""
    for wanted in (layout, *(x for x in LAYOUTS if x != layout)):
        layer = layer_of(graph, node, wanted, come)
        rows = [r for r in candidates(layer, board) if r.layout in ("any", wanted)]
        known = _recorded(graph, node, board).get(wanted)
        if known and known[0] in [r.name for r in rows]:
            return Choice(known[0], wanted), 1e3 * known[1]
        if rows:
            costs = [cycles(graph, node, layer, r, board) for r in rows]
            cost = min(costs)
            return Choice(rows[costs.index(cost)].name, wanted), cost
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
