"""Sizes that a template needs beyond the operator's own: block sizes and scratch. Named in
kernel rows."""

from collections.abc import Callable, Mapping
from typing import Any

from codegen.band_blocks import (
    chain_bands,
    chain_whole,
    depthwise_sweeps,
    pair_bands,
    pair_whole,
    plane_of,
)
from codegen.half_blocks import (
    half_dense,
    half_depthwise,
    half_direct,
    half_gemm,
    half_winograd,
)
from codegen.inorder_blocks import inorder_dense, inorder_gemm, inorder_im2col
from codegen.int8_blocks import (
    inorder_qdepthwise,
    qdepthwise,
    qdirect,
    qgemm,
    qim2col,
    qwinograd,
)
from codegen.sparse_blocks import sparse_nchw, sparse_nhwc
from codegen.strassen import strassen
from codegen.transpose_blocks import transpose_block, transpose_tile
from codegen.winograd_blocks import inorder_winograd, winograd_blocks

# A block of patches should stay in the L1 data cache of every core we know (32 KiB) beside one
# panel of weights.
_BLOCK_BYTES = 24 << 10
# A block of pixels that is read again for every panel of weights should stay in the smallest L2
# (512 KiB).
_RESIDENT_BYTES = 128 << 10
_HALF_L1_BYTES = 16 << 10
_HALF_L2_BYTES = 256 << 10


def _im2col(d: Mapping[str, Any], tile: int) -> dict[str, int]:
    """Pixels per block of patches, a multiple of the micro-kernel's pixel tile; scratch holds
    block * depth floats.

    All weights pass once per block. Weights that stay in L2 may do so often, and the patches keep
    L1 to themselves; larger ones come from memory each time, so that blocks must be large.
    """
    depth = d["kh"] * d["kw"] * (d["c"] // d["groups"])
    small = 4 * depth * d["m"] <= _HALF_L2_BYTES
    limit = _BLOCK_BYTES if small else _HALF_L2_BYTES
    block = max(limit // (4 * depth) // tile, 1) * tile
    block = min(block, -(-d["oh"] * d["ow"] // tile) * tile)
    return {"depth": depth, "block": block, "scratch_floats": block * depth}


def im2col_nhwc(d: Mapping[str, Any], p: Mapping[str, Any]) -> dict[str, int]:
    """Patches as rows: [block][kh*kw*c/groups]."""
    return _im2col(d, p["mr"])


def im2col_planes(d: Mapping[str, Any], p: Mapping[str, Any]) -> dict[str, int]:
    """Patches as rows [block][c*kh*kw], padded to multiples of 4 and, behind the last, by a vector,
    of an image whose channels lie `plane` floats apart."""
    depth = -(-d["kh"] * d["kw"] * d["c"] // 4) * 4
    sizes = _im2col({**d, "kh": 1, "kw": 1, "c": depth, "groups": 1}, p["mr"])
    return {**sizes, "plane": plane_of(d), "scratch_floats": sizes["scratch_floats"] + 4}


def inorder_planes(d: Mapping[str, Any], p: Mapping[str, Any]) -> dict[str, Any]:
    """Like inorder_im2col, of an image in ONNX order; a vector more scratch."""
    sizes = inorder_im2col(d, p)
    return {**sizes, "plane": plane_of(d), "scratch_floats": sizes["scratch_floats"] + 4}


def im2col_nchw(d: Mapping[str, Any], p: Mapping[str, Any]) -> dict[str, int]:
    """Patches as columns: [block/nr][c/groups*kh*kw][nr]."""
    return _im2col(d, p["nr"])


def pixel_block(d: Mapping[str, Any], p: Mapping[str, Any]) -> dict[str, int]:
    """Pixels of a pointwise convolution that are multiplied with every panel before the next
    ones are read."""
    pixels = d["n"] * d["oh"] * d["ow"]
    block = max(_RESIDENT_BYTES // (4 * d["c"]) // p["mr"], 1) * p["mr"]
    return {"pixels": pixels, "block": min(block, pixels)}


def reduce_block(d: Mapping[str, Any], p: Mapping[str, Any]) -> dict[str, int]:
    """Rows of which two blocks stay in L1 beside their sum."""
    return {"block": min(max(_BLOCK_BYTES // 8 // d["inner"], 1), d["count"])}


def matmul_panel(d: Mapping[str, Any], p: Mapping[str, Any]) -> dict[str, int]:
    """Scratch for columns of the right operand."""
    return {"scratch_floats": d["k"] * p["nr"]}


def _k_block(depth: int, most: int) -> int:
    """Equal blocks of at most `most` products, a multiple of 4; one block where that is enough."""
    parts = -(-depth // most)
    return depth if parts == 1 else -(-depth // (4 * parts)) * 4


def _tails(pixels: int, block: int, tile: int) -> list[int]:
    """Heights of the tiles that blocks of pixels, `block` a multiple of `tile`, fall into."""
    rest = pixels % block % tile
    return ([tile] if min(block, pixels) >= tile else []) + ([rest] if rest else [])


def gemm_split(d: Mapping[str, Any], p: Mapping[str, Any]) -> dict[str, Any]:
    """Like pixel_block, with the products of a pixel in blocks of at most p["k"]."""
    pixels, kc = d["n"] * d["oh"] * d["ow"], _k_block(d["c"], p["k"])
    block = max(_RESIDENT_BYTES // (4 * kc) // p["mr"], 1) * p["mr"]
    tails = _tails(pixels, block, p["mr"])
    return {"pixels": pixels, "block": block, "depth": d["c"], "kc": kc, "tails": tails}


def im2col_split(d: Mapping[str, Any], p: Mapping[str, Any]) -> dict[str, Any]:
    """Blocks of patches for L2, their products in blocks of at most p["k"]."""
    depth, pixels, mr = d["kh"] * d["kw"] * d["c"], d["oh"] * d["ow"], p["mr"]
    small = 4 * depth * d["m"] <= _HALF_L2_BYTES  # weights that stay in L2 may pass often
    block = max((_BLOCK_BYTES if small else _RESIDENT_BYTES) // (4 * depth) // mr, 1) * mr
    block = min(block, -(-pixels // mr) * mr)
    return {
        "block": block, "depth": depth, "kc": _k_block(depth, p["k"]),
        "tails": _tails(pixels, block, mr), "scratch_floats": block * depth,
    }  # fmt: skip


def depthwise_rows(d: Mapping[str, Any], p: Mapping[str, Any]) -> dict[str, Any]:
    """Bands of p["rows"] output rows, and `part`: so many channels at a time, a multiple of 16,
    that two windows of a band and the weights take at most half of L1."""
    window = ((p["rows"] - 1) * d["sh"] + d["kh"]) * (d["kw"] + d["sw"]) + d["kh"] * d["kw"]
    most = max(_HALF_L1_BYTES // (4 * window) // 16, 1) * 16
    part = -(-d["c"] // (16 * -(-d["c"] // most))) * 16
    return {"bands": depthwise_sweeps(d, {**p, "columns": d["ow"]})["bands"], "part": part}


def half_depthwise_rows(d: Mapping[str, Any], p: Mapping[str, Any]) -> dict[str, Any]:
    """The same in half precision, with channels in multiples of 32."""
    return {**depthwise_rows(d, p), **half_depthwise(d, p)}


DERIVED: dict[str, Callable[[Mapping[str, Any], Mapping[str, Any]], dict[str, Any]]] = {
    f.__name__: f
    for f in (
        im2col_nhwc, im2col_nchw, im2col_planes, inorder_planes, pixel_block, gemm_split,
        im2col_split, inorder_gemm,
        inorder_im2col, inorder_dense, depthwise_sweeps, depthwise_rows, chain_whole, chain_bands,
        pair_whole, pair_bands,
        qdepthwise, inorder_qdepthwise, qdirect, qgemm, qim2col, qwinograd,
        strassen, winograd_blocks, inorder_winograd, transpose_tile, transpose_block,
        reduce_block, matmul_panel, half_gemm, half_direct, half_dense, half_depthwise_rows,
        half_winograd, sparse_nchw, sparse_nhwc,
    )
}  # fmt: skip
