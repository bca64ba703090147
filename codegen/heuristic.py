"""The plan made without a search: both layouts are tried for the whole network, and each node
takes the cheapest row."""

from codegen.board import Board
from codegen.errors import CodegenError
from codegen.graph import Graph, Node
from codegen.kernels import Kernel, Layer, candidates
from codegen.layer import layer_of
from codegen.layout import LAYOUTS
from codegen.ops import OPS
from codegen.plan import Choice, Plan, needs_kernel

# Elements per cycle that a layout conversion moves; it only has to rank plans.
_CONVERSION_RATE = 0.5


def default_plan(graph: Graph, board: Board, model_sha256: str) -> Plan:
    """The cheaper of two plans by the rows' nominal rates: channels last, or ONNX order,
    wherever rows allow."""
    plans = []
    for layout in LAYOUTS:
        nodes, cost = _walk(graph, board, layout)
        plans.append((cost, Plan(board.name, model_sha256, nodes)))
    return min(plans, key=lambda p: p[0])[1]


def work(layer: Layer, node: Node, graph: Graph, row: Kernel) -> float:
    """MACs as the row executes them (tiles padded to their full size), or elements written plus
    read."""
    op = OPS[node.op]
    if op.macs is None:
        return sum(graph.tensors[t].size for t in (*node.outputs, *node.inputs[:1]) if t)
    dims, (mr, nr) = layer.dims, (row.params.get("mr", 1), row.params.get("nr", 1))
    macs = float(op.macs(dims))
    if not op.spatial:
        return macs * _padding(dims["n"], nr)
    if "m" not in dims:
        return macs
    # rows of a tile are pixels with the channels last, and channels in ONNX order
    pixel_tile, channel_tile = (nr, mr) if row.layout == "nchw" else (mr, nr)
    channels = _padding(dims["m"] // dims["groups"], channel_tile)
    return macs * channels * _padding(dims["oh"] * dims["ow"], pixel_tile)


def _padding(n: int, tile: int) -> float:
    """By how much a size grows when it is rounded up to whole tiles."""
    return -(-n // tile) * tile / n


def _walk(graph: Graph, board: Board, preferred: str) -> tuple[dict[str, Choice], float]:
    layouts = dict.fromkeys((*graph.inputs, *graph.constants), "nchw")
    nodes: dict[str, Choice] = {}
    total = 0.0
    for node in graph.nodes:
        data = [t for t in node.inputs if t and t not in graph.constants]
        come = layouts.get(data[0], "nchw") if data else "nchw"
        if not needs_kernel(node):
            layouts.update(dict.fromkeys(node.outputs, come))
            continue
        choice, cost = _cheapest(graph, node, board, preferred if OPS[node.op].spatial else come)
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


def _cheapest(graph: Graph, node: Node, board: Board, layout: str) -> tuple[Choice, float]:
    """The best row in `layout`, or, where no row computes that layout, in the other one."""
    for wanted in (layout, *(x for x in LAYOUTS if x != layout)):
        layer = layer_of(graph, node, wanted)
        rows = [r for r in candidates(layer, board) if r.layout in ("any", wanted)]
        if rows:
            costs = [work(layer, node, graph, r) / r.rate(board.core) for r in rows]
            cost = min(costs)
            return Choice(rows[costs.index(cost)].name, wanted), cost
    dtype = layer_of(graph, node, layout).dtype
    raise CodegenError(
        f"node {node.name!r}",
        f"no kernel for {node.op} on {dtype}",
        f"see templates/{OPS[node.op].family}/kernels.toml",
        "convert the model to float32",
    )
