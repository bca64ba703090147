"""What a kernel is expected to cost on a board, before anything is measured: arithmetic at the
row's nominal rate, and the lines that pass between caches. It ranks candidates for the default
plan; figures come from `codegen bench`."""

from collections.abc import Mapping
from typing import Any

from codegen.board import Board
from codegen.cycle_model import LINE_BYTES
from codegen.derive import DERIVED
from codegen.graph import Graph, Node
from codegen.kernels import Kernel, Layer
from codegen.ops import OPS
from codegen.packed_size import packed_bytes
from codegen.sparsity import HEIGHT
from codegen.types import DType

_FLOAT = 4
_STRASSEN_SUMS = 1.5  # cycles per element of a half
# A prefetcher stops at the end of a page, and follows again after two misses.
_PAGE_LINES = 64
# Cycles that Winograd takes per vector in a transformed domain, for each row of the transform, on
# out-of-order and on in-order cores.
_TRANSFORM = (0.75, 2.2)
_HALF_TRANSFORM = (2.0, 5.0)  # the same per vector of a whole transform in float16
# Cycles per element that a product by blocks of weights takes to bring pixels into rows and results
# out of them, on out-of-order and on in-order cores.
_SPARSE_MOVES = (0.9, 1.8)


def cycles(graph: Graph, node: Node, layer: Layer, row: Kernel, board: Board) -> float:
    """Expected cycles of `node` computed by `row`."""
    cost = work(graph, node, layer, row) / row.rate(board.core)
    if board.cycle_model is None or OPS[node.op].macs is None:
        return cost
    data = [t for t in node.reads if t not in graph.constants]
    cost += sum(_passing(graph.tensors[t].bytes, board) for t in (*data, *node.outputs) if t)
    derived = DERIVED[row.derive](layer.dims, row.params) if row.derive else {}
    size = DType(layer.dtype).size
    if row.params.get("nr") and layer.family == "conv_chain":
        cost += _l2_cycles(_chain_bytes(layer.dims, row.params, derived, board), board)
    elif row.derive == "pair_bands":
        chains = (derived["one"], derived["two"])
        cost += _l2_cycles(sum(_chain_bytes(c, c, c, board) for c in chains), board)
    elif row.derive in ("depthwise_rows", "depthwise_sweeps", "half_depthwise_rows"):
        cost += _lost_streams(graph, node, layer.dims, row.params, board)
    elif "products" in row.params:
        cost += _STRASSEN_SUMS * (4 * layer.dims["c"] + 5 * layer.dims["m"]) * derived["pixels"] / 4
    elif row.derive == "half_winograd":
        cost += _half_winograd(layer.dims, derived, board)
    elif row.when.get("sparse") and layer.family == "conv2d":
        cost += _sparse(layer.dims, derived, packed_bytes(graph, node, layer, row), board)
    elif "planes" in derived:
        cost += _winograd(layer.dims, row.rate(board.core), derived, board)
    elif layer.family == "conv2d" and "block" in derived:
        cost += _l2_cycles(_product_bytes(layer.dims, row.params, derived, board, size), board)
    return cost


def work(graph: Graph, node: Node, layer: Layer, row: Kernel) -> float:
    """MACs as the row executes them (tiles padded to their full size), or elements written plus
    read."""
    op = OPS[node.op]
    if op.macs is None:
        return sum(graph.tensors[t].size for t in (*node.outputs, *node.inputs[:1]) if t)
    dims, (mr, nr) = layer.dims, (row.params.get("mr", 1), row.params.get("nr", 1))
    macs = float(op.macs(dims))
    if row.when.get("sparse"):
        k, n = (dims["c"], dims["m"]) if op.spatial else (dims["k"], dims["n"])
        return macs * dims["nonzero"] * HEIGHT / (k * n)
    if not op.spatial:
        return macs * _padding(dims["n"], row.params.get("last", nr))
    if "m" not in dims or "groups" not in dims:
        return macs
    # rows of a tile are pixels with the channels last, and channels in ONNX order
    pixel_tile, channel_tile = (nr, mr) if row.layout == "nchw" else (mr, nr)
    if "last" in row.params:  # what is left of pixels and channels has tiles of its own
        pixel_tile, channel_tile = 1, row.params["last"]
    if row.derive == "qim2col":  # windows are filled up to whole steps
        window = dims["kh"] * dims["kw"] * dims["c"]
        macs *= DERIVED[row.derive](dims, row.params)["depth"] / window
    channels = _padding(dims["m"] // dims["groups"], channel_tile)
    if "products" in row.params:  # Strassen: so many products of halves instead of eight
        macs *= row.params["products"] / 8
    if "f" in row.params:  # Winograd: products of the transformed tiles
        d = DERIVED[row.derive](dims, row.params)
        return d["tiles"] * d["planes"] * d["depth"] * dims["m"] * channels
    return macs * channels * _padding(dims["oh"] * dims["ow"], pixel_tile)


def _padding(n: int, tile: int) -> float:
    """By how much a size grows when it is rounded up to whole tiles."""
    return -(-n // tile) * tile / n


def _passing(size: int, board: Board) -> float:
    """Cycles, for a writer or a reader, of a tensor that passes from one to the other."""
    model = board.cycle_model
    level = model.l2 if size <= board.l2_bytes // 2 else model.memory
    return size / LINE_BYTES * level.streamed


def _l2_cycles(size: float, board: Board) -> float:
    """Cycles of bytes that a kernel reads again from L2, in order."""
    return size / LINE_BYTES * board.cycle_model.l2.first_load


def _lost_streams(
    graph: Graph, node: Node, d: Mapping[str, Any], p: Mapping[str, Any], board: Board
) -> float:
    """Cycles of lines from memory that no prefetcher brings, where a band of a depthwise
    convolution reads and writes more rows at once than it follows; sweeps of a few channels go from
    pixel to pixel, where it never follows."""
    streams = (p["rows"] - 1) * d["sh"] + d["kh"] + p["rows"]
    size = graph.tensors[node.inputs[0]].bytes
    if "columns" in p:
        level = board.cycle_model.l2 if size <= board.l2_bytes // 2 else board.cycle_model.memory
        return size / LINE_BYTES * level.load
    if streams <= board.cycle_model.caches.streams or size <= board.l2_bytes // 2:
        return 0.0
    return size / LINE_BYTES * board.cycle_model.memory.load


def _stays(size: int, board: Board) -> bool:
    """May so many bytes be read again from L1, beside what streams past them?"""
    return size <= board.l1d_bytes // 2


def _product_bytes(
    d: Mapping[str, Any],
    p: Mapping[str, Any],
    derived: Mapping[str, Any],
    board: Board,
    size: int,
) -> float:
    """A matrix product of elements of `size` bytes, in blocks of pixels and perhaps of k: the
    pixels once per panel of weights unless a block stays in L1, a panel once per block, or per tile
    where it does not stay, and the sums between blocks of k back and forth."""
    depth = derived.get("depth", d["c"])
    k_block = derived.get("kc", depth)
    pixels = d["n"] * d["oh"] * d["ow"]
    again = -(-d["m"] // p["nr"]) - 1
    if _stays(size * derived["block"] * depth, board):
        again = 0
    panel_stays = _stays(size * k_block * p["nr"], board)
    passes = -(-pixels // (derived["block"] if panel_stays else p["mr"]))
    sums = 2 * (-(-depth // k_block) - 1) * pixels * d["m"]
    weights = float(depth * d["m"])
    if "columns" in derived:  # a block of pixels stays in L1, and as many columns in L2
        return size * (weights * passes + sums)
    if size * weights > board.l2_bytes // 2:  # then they come from memory each time
        weights *= board.cycle_model.memory.line / board.cycle_model.l2.first_load
    return size * (pixels * depth * again + weights * (passes - 1) + sums)


def _winograd(d: Mapping[str, Any], rate: float, derived: Mapping[str, Any], board: Board) -> float:
    """The transforms of Winograd, per vector of transformed inputs and of products; weights as they
    come from memory, of which the products of a group of tiles hide a part; other lines."""
    model = board.cycle_model
    blocks, products = (derived["block"], derived["panels"]), derived["ey"] * derived["ex"] * d["m"]
    lines = derived["traffic"].lines(*blocks, board.l2_bytes * 7 // 8)
    vectors = derived["planes"] * derived["depth"] + products
    transforms = derived["tiles"] * vectors / 4 * derived["ey"] * _TRANSFORM[model.core.in_order]
    hidden = LINE_BYTES / _FLOAT * derived["rows"] / rate
    waits = max(0.0, model.memory.line - hidden) + 2 * model.memory.load / _PAGE_LINES
    spilled = model.memory.store + model.memory.line
    near = lines["again"] * model.l2.first_load
    product_lines = derived["tiles"] * products * _FLOAT / LINE_BYTES
    near += product_lines * (model.l2.first_load + model.l2.store)
    return transforms + lines["streamed"] * waits + lines["spilled"] * spilled + near


def _half_winograd(d: Mapping[str, Any], derived: Mapping[str, Any], board: Board) -> float:
    """The transforms of F(2x2, 3x3) in vectors of 8 halves, transformed inputs once per panel and
    weights once per block."""
    model, size = board.cycle_model, DType.F16.size
    vectors = derived["tiles"] * derived["planes"] * (d["c"] + d["m"]) / 8
    passes = -(-d["oh"] // (2 * derived["rows"]))
    weights = size * derived["planes"] * d["c"] * d["m"]
    far = model.memory.line if weights > board.l2_bytes // 2 else model.l2.first_load
    again = size * derived["tiles"] * derived["planes"] * d["c"] * len(derived["panels"])
    again *= -(-d["m"] // derived["width"]) / len(derived["panels"])
    lines = weights * (passes - 1) / LINE_BYTES * far + weights / LINE_BYTES * model.memory.line / 2
    return vectors * _HALF_TRANSFORM[model.core.in_order] + lines + _l2_cycles(again, board)


def _sparse(
    d: Mapping[str, Any], derived: Mapping[str, Any], weights: int, board: Board
) -> float:
    """Pixels in and out of rows, and all weights once more for every tile of pixels."""
    moves = d["n"] * d["oh"] * d["ow"] * (d["c"] + d["m"])
    again = weights * (-(-derived["pixels"] // (4 * derived["high"])) - 1) / LINE_BYTES
    far = board.cycle_model.memory.line if weights > board.l2_bytes // 2 else 0
    lines = again * max(far, board.cycle_model.l2.first_load)
    return moves * _SPARSE_MOVES[board.cycle_model.core.in_order] + lines


def _chain_bytes(
    d: Mapping[str, Any], p: Mapping[str, Any], derived: Mapping[str, Any], board: Board
) -> float:
    """Inside a chain: the image once per slice, the sums of a slice back and forth, the line buffer
    unless it stays in L1, what a sweep leaves once per panel, weights once per band or sweep."""
    bands, sweeps = -(-d["oh"] // p["rows"]), -(-d["ow"] // derived["sweeps"][0]["n"])
    slices, slots = d["e"] // derived["slice"], derived["slots"]
    first = _FLOAT * d["e"] * d["ekh"] * d["ekw"] * d["c"] * bool(d["expand"])
    last = _FLOAT * d["e"] * d["m"] * d["project"]
    line = _FLOAT * slots * d["ew"] * derived["slice"]
    z = _FLOAT * derived["z_pixels"] * derived["slice"]
    total = first * (1 if _stays(first // slices, board) else bands)
    total += last * (1 if _stays(last // slices, board) else bands * sweeps)
    total += _FLOAT * d["h"] * d["w"] * d["c"] * _image_passes(d, slices, board)
    if d["expand"] == 1 and not _stays(_FLOAT * p["rows"] * d["sh"] * d["w"] * d["c"], board):
        total += _FLOAT * d["h"] * d["w"] * d["c"] * (d["e"] // p["nr"] - slices)
    total += 2 * (slices - 1) * _FLOAT * d["oh"] * d["ow"] * d["m"] * d["project"]
    if not _stays(line, board):
        total += _FLOAT * d["e"] * d["ew"] * (d["eh"] + bands * slots)
    if d["project"] and not _stays(z, board):
        total += _FLOAT * d["e"] * d["oh"] * d["ow"] * -(-d["m"] // p["nr"])
    return total * d["n"]


def _image_passes(d: Mapping[str, Any], slices: int, board: Board) -> float:
    """How often a chain reads its image, in reads of lines that L2 holds and a prefetcher
    fetches. Without an expansion a slice reads a few channels of each pixel: all is read once,
    but no line is prefetched."""
    model = board.cycle_model
    level = model.l2 if _FLOAT * d["h"] * d["w"] * d["c"] <= board.l2_bytes // 2 else model.memory
    if d["expand"] or slices == 1:
        return slices * level.first_load / model.l2.first_load
    return level.load / model.l2.first_load
