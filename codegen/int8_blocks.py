"""Sizes of kernels of int8: blocks of pixels, lines of a depthwise convolution."""

from collections.abc import Mapping
from functools import partial
from typing import Any

from codegen.int8_depthwise_order import DepthwiseOrder, Windows, depthwise_order
from codegen.int8_order import int8_order
from codegen.int8_winograd_order import PLANES, winograd_order
from codegen.winograd_blocks import odd_lines

# A block of pixels, inputs and outputs, stays in L1 (32 KiB) while weights pass, which stream from
# L2. Weights that do not stay there beside others come from memory; then blocks are large.
_NEAR_BYTES, _FAR_BYTES = 16 << 10, 128 << 10
_WEIGHTS_BYTES = 320 << 10
_LEAST_PIXELS = 16
_CHANNELS = 16  # of a panel of weights
# A panel of weights transformed for Winograd's method stays in L1 (32 KiB) beside inputs and sums.
# What is larger is made in parts, which sums of all tiles of a block then wait for.
_PANEL_BYTES, _PART_BYTES = 20 << 10, (13 << 10) + 512
# A panel's weights in parts, with a tile of inputs: L1 has two ways of 16 KiB.
_CUT_BYTES, _MOST_CUTS = 10 << 10, 12
_BOTH_BYTES = 192 << 10  # of inputs and sums of a block
_LINE_BYTES = 64


def _blocked(pixels: int, depth: int, m: int, p: Mapping[str, Any]) -> dict[str, Any]:
    """Tiles of p["mr"] pixels and of what is left of the last block; what gives their order where
    the core does not find one (p["in_order"])."""
    mr, chain = p["mr"], p.get("chain", 1)
    most = (_NEAR_BYTES if depth * m <= _WEIGHTS_BYTES else _FAR_BYTES) // (depth + m)
    block = min(max(most, _LEAST_PIXELS) // mr * mr, -(-pixels // mr) * mr)
    rest = pixels % mr
    sizes = [mr] * (pixels >= mr) + [rest] * (rest > 0)
    order = partial(int8_order, depth=depth, chain=chain) if p.get("in_order") else None
    return {"pixels": pixels, "block": block, "sizes": sizes, "chain": chain, "order": order,
            "packed": p.get("packed", 0), "dot": p.get("dot", 0)}  # fmt: skip


def qgemm(d: Mapping[str, Any], p: Mapping[str, Any]) -> dict[str, Any]:
    """A pointwise convolution or a dense layer."""
    if "k" in d:
        return _blocked(d["m"], d["k"], d["n"], p)
    return _blocked(d["n"] * d["oh"] * d["ow"], d["c"], d["m"], p)


def qim2col(d: Mapping[str, Any], p: Mapping[str, Any]) -> dict[str, Any]:
    """Windows as rows of `depth` codes, whole steps of products that are added up together, in
    `cuts` equal parts one after the other. Scratch: windows, and sums between parts."""
    depth = -(-d["kh"] * d["kw"] * d["c"] // p["step"]) * p["step"]
    sizes = _blocked(d["n"] * d["oh"] * d["ow"], depth, d["m"], p)
    cuts = 1 if sizes["order"] else _cuts(sizes["block"] // p["mr"], depth, p)
    kept = 4 * _CHANNELS * sizes["block"] if cuts > 1 else 0
    return {**sizes, "depth": depth, "cuts": cuts,
            "scratch_floats": sizes["block"] * depth + kept}  # fmt: skip


def _cuts(tiles: int, depth: int, p: Mapping[str, Any]) -> int:
    """In how many equal parts of whole steps a depth is computed whose panels of weights do not
    stay in L1; 1 where there are none, or nothing follows the first tile."""
    panel = _CHANNELS * depth // (2 if p.get("packed") else 1)
    step = max(p["step"], 16 * p.get("chain", 1))
    if tiles == 1 or panel <= _PANEL_BYTES:
        return 1
    some = range(-(-panel // _CUT_BYTES), _MOST_CUTS + 1)
    return next((n for n in some if depth % (n * step) == 0), 1)


def qwinograd(d: Mapping[str, Any], p: Mapping[str, Any]) -> dict[str, Any]:
    """Tiles of 4x4 outputs, `rows` at a time, in blocks whose transformed inputs stay in L2; planes
    of 16 bits an odd number of cache lines long, so that they do not fall on the same sets.
    `parts` in which planes of weights are transformed and multiplied; where there are several, sums
    of a whole block are kept. `edges`: there are tiles that hang over the image; `order`, where the
    core does not find one (p["in_order"]), gives that of so many tiles. Scratch: products z or a
    patch of pixels, weights u, inputs v."""
    nr, c, planes = p["nr"], d["c"], PLANES
    ty, tx = -(-d["oh"] // 4), -(-d["ow"] // 4)
    tiles = d["n"] * ty * tx
    groups = -(-tiles // p["mr"])
    rows = -(-tiles // groups)
    v_plane, u_plane = odd_lines(rows * c, 2), odd_lines(c * nr, 2)
    parts = _parts(2 * planes * u_plane)
    near, kept = (_FAR_BYTES, 0) if parts == 1 else (_BOTH_BYTES, 4 * planes * rows * nr)
    most = max(near // (2 * planes * v_plane + kept), 1)
    together = -(-groups // -(-groups // most))
    sums = rows if parts == 1 else min(together * rows, tiles)
    z_bytes = max(4 * planes * sums * nr, _LINE_BYTES * -(-planes * c // _LINE_BYTES))
    order = partial(winograd_order, columns=nr, pitch=rows, passes=c // 8)
    return {
        "ty": ty, "tx": tx, "tiles": tiles, "rows": rows, "block": min(together * rows, tiles),
        "v_plane": v_plane, "u_plane": u_plane, "z_bytes": z_bytes, "parts": parts,
        "edges": bool(d["pt"] or d["pl"] or 4 * ty + 2 > d["h"] or 4 * tx + 2 > d["w"]),
        "order": order if p.get("in_order") else None,
        "scratch_floats": z_bytes + 2 * planes // parts * u_plane + 2 * planes * together * v_plane,
    }  # fmt: skip


def _parts(panel: int) -> int:
    """In how many parts a panel's transformed weights, so many bytes, are made and multiplied."""
    return 1 if panel <= _PANEL_BYTES else 3 if panel <= 3 * _PART_BYTES else 6


def qdirect(d: Mapping[str, Any], p: Mapping[str, Any]) -> dict[str, Any]:
    """Windows of an image of few channels. `copies`: of lines, `line` codes long, `copied` of them
    from the image, where windows hang over the left or the right side; `over`: over the others."""
    reach = (d["ow"] - 1) * d["sw"] + d["kw"]
    copies = d["pl"] > 0 or reach > d["w"]
    over = d["pt"] > 0 or (d["oh"] - 1) * d["sh"] - d["pt"] + d["kh"] > d["h"]
    line = (reach if copies else d["w"]) * d["c"]
    lines = d["kh"] * copies + (copies or over)
    return {
        "copies": copies, "over": over, "line": line, "group": 2 * p.get("chain", 1),
        "copied": min(d["w"], reach - d["pl"]) * d["c"], "scratch_floats": lines * line,
    }  # fmt: skip


def qdepthwise(d: Mapping[str, Any], p: Mapping[str, Any]) -> dict[str, Any]:
    """`line`: codes of a line outside of the image, 0 where none is needed; `span`: pixels of a
    window's row; `inside`: the outputs from and up to which windows hang over no side;
    `some_outputs` have what they read and write in L1; `group` products fit in 16 bits."""
    span = (d["kw"] - 1) * d["dw"] + 1
    first = min(-(-d["pl"] // d["sw"]), d["ow"])
    last = max(min((d["w"] + d["pl"] - span) // d["sw"] + 1, d["ow"]), first)
    under = (d["oh"] - 1) * d["sh"] - d["pt"] + (d["kh"] - 1) * d["dh"] >= d["h"]
    line = d["w"] * d["c"] if d["pt"] or under else 0
    some = (_NEAR_BYTES // d["c"] - d["kh"] * span) // (d["kh"] * d["sw"] + 1)
    parts = -(-(last - first) // max(some, 8)) or 1
    some = -(-(last - first) // (p["together"] * parts)) * p["together"]
    patch = d["kh"] * span * d["c"] if first or last < d["ow"] else 0
    return {
        "line": line, "span": span, "inside": (first, last), "some_outputs": some,
        "group": 2 * p.get("chain", 1), "scratch_floats": line + patch,
    }  # fmt: skip


def inorder_qdepthwise(d: Mapping[str, Any], p: Mapping[str, Any]) -> dict[str, Any]:
    """The same for assembly: windows up to `whole` are computed where they are, p["together"] at a
    time, the others as copies. `order` gives that of n channels of either (`copied`)."""
    sizes, together = qdepthwise(d, p), p["together"]
    first, last = sizes["inside"]
    whole = first + (last - first) // together * together
    copy = d["kh"] * sizes["span"] * d["c"]
    copies = together if whole - first < d["ow"] else 0
    return {
        **sizes, "whole": whole, "copies": copies, "order": partial(_depthwise_order, d, p, sizes),
        "scratch_floats": sizes["line"] + copies * copy,
    }  # fmt: skip


def _depthwise_order(
    d: Mapping[str, Any], p: Mapping[str, Any], sizes: Mapping[str, Any], n: int, copied: bool
) -> DepthwiseOrder:
    step = d["c"] * (sizes["span"] if copied else d["sw"])
    shape = d["kh"], d["kw"], p["together"], step, d["dw"] * d["c"]
    return depthwise_order(Windows(*shape, n, sizes["group"]))
