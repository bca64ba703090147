"""Sizes of kernels of int8: blocks of pixels, lines of a depthwise convolution."""

from collections.abc import Mapping
from typing import Any

# Pixels that every panel of weights is multiplied with before the next ones are read: in L1 (32
# KiB) beside a panel, while weights stream from L2.
_BLOCK_BYTES = 16 << 10


def _blocked(pixels: int, depth: int, mr: int) -> dict[str, Any]:
    """Tiles of mr pixels and of what is left of the last block."""
    block = min(max(_BLOCK_BYTES // depth // mr, 1) * mr, -(-pixels // mr) * mr)
    rest = pixels % mr
    sizes = [mr] * (pixels >= mr) + [rest] * (rest > 0)
    return {"pixels": pixels, "block": block, "sizes": sizes}


def qgemm(d: Mapping[str, Any], p: Mapping[str, Any]) -> dict[str, Any]:
    """A pointwise convolution or a dense layer."""
    dense = "k" in d
    pixels = d["m"] if dense else d["n"] * d["oh"] * d["ow"]
    return _blocked(pixels, d["k"] if dense else d["c"], p["mr"])


def qim2col(d: Mapping[str, Any], p: Mapping[str, Any]) -> dict[str, Any]:
    """Windows as rows of `depth` codes, whole steps of products that are added up together."""
    depth = -(-d["kh"] * d["kw"] * d["c"] // p["step"]) * p["step"]
    sizes = _blocked(d["n"] * d["oh"] * d["ow"], depth, p["mr"])
    return {**sizes, "depth": depth, "scratch_floats": sizes["block"] * depth}


def qdepthwise(d: Mapping[str, Any], p: Mapping[str, Any]) -> dict[str, Any]:
    """`line`: codes of an input line with the padding that windows see; `span` lines at a time."""
    line = ((d["ow"] - 1) * d["sw"] + (d["kw"] - 1) * d["dw"] + 1) * d["c"]
    line = max(line, d["pl"] * d["c"])
    span = (d["kh"] - 1) * d["dh"] + 1
    return {"line": line, "span": span, "scratch_floats": line * span}
