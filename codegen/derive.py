"""Sizes that a template needs beyond the operator's own: block sizes and scratch. Named in
kernel rows."""

from collections.abc import Callable, Mapping
from typing import Any

# A block of patches should stay in the L1 data cache of every core we know (32 KiB) beside one
# panel of weights.
_BLOCK_BYTES = 24 << 10
# A block of pixels that is read again for every panel of weights should stay in the smallest L2
# (512 KiB).
_RESIDENT_BYTES = 128 << 10


def im2col_nhwc(d: Mapping[str, Any], p: Mapping[str, Any]) -> dict[str, int]:
    """Pixels per block of an NHWC im2col: a multiple of mr; scratch holds
    [block][kh*kw*c/groups] floats."""
    depth = d["kh"] * d["kw"] * (d["c"] // d["groups"])
    pixels = d["oh"] * d["ow"]
    block = max(_BLOCK_BYTES // (4 * depth) // p["mr"], 1) * p["mr"]
    block = min(block, -(-pixels // p["mr"]) * p["mr"])
    return {"depth": depth, "block": block, "scratch_floats": block * depth}


def im2col_nchw(d: Mapping[str, Any], p: Mapping[str, Any]) -> dict[str, int]:
    """Pixels per block of an NCHW im2col: a multiple of nr; scratch holds
    [block/nr][c/groups*kh*kw][nr] floats."""
    depth = d["kh"] * d["kw"] * (d["c"] // d["groups"])
    pixels = d["oh"] * d["ow"]
    block = max(_BLOCK_BYTES // (4 * depth) // p["nr"], 1) * p["nr"]
    block = min(block, -(-pixels // p["nr"]) * p["nr"])
    return {"depth": depth, "block": block, "scratch_floats": block * depth}


def pixel_block(d: Mapping[str, Any], p: Mapping[str, Any]) -> dict[str, int]:
    """Pixels of a pointwise convolution that are multiplied with every panel before the next
    ones are read."""
    pixels = d["n"] * d["oh"] * d["ow"]
    block = max(_RESIDENT_BYTES // (4 * d["c"]) // p["mr"], 1) * p["mr"]
    return {"pixels": pixels, "block": min(block, pixels)}


DERIVED: dict[str, Callable[[Mapping[str, Any], Mapping[str, Any]], dict[str, int]]] = {
    f.__name__: f for f in (im2col_nhwc, im2col_nchw, pixel_block)
}
