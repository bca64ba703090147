"""Sizes of kernels of int8: blocks of pixels, lines of a depthwise convolution."""

from collections.abc import Mapping
from itertools import product
from typing import Any

from codegen.int8_order import int8_order

# A block of pixels, inputs and outputs, stays in L1 (32 KiB) while weights pass, which stream from
# L2. Weights that do not stay there beside others come from memory; then blocks are large.
_NEAR_BYTES, _FAR_BYTES = 16 << 10, 128 << 10
_WEIGHTS_BYTES = 320 << 10
_LEAST_PIXELS = 16


def _blocked(pixels: int, depth: int, m: int, p: Mapping[str, Any]) -> dict[str, Any]:
    """Tiles of p["mr"] pixels and of what is left of the last block; their orders where the core
    does not find one (p["in_order"])."""
    mr, chain = p["mr"], p.get("chain", 1)
    most = (_NEAR_BYTES if depth * m <= _WEIGHTS_BYTES else _FAR_BYTES) // (depth + m)
    block = min(max(most, _LEAST_PIXELS) // mr * mr, -(-pixels // mr) * mr)
    rest = pixels % mr
    sizes = [mr] * (pixels >= mr) + [rest] * (rest > 0)
    orders = {
        (n, codes): int8_order(n, depth, chain, codes)
        for n, codes in product(sizes, (True, False)) if p.get("in_order")
    }  # fmt: skip
    return {"pixels": pixels, "block": block, "sizes": sizes, "chain": chain, "orders": orders,
            "packed": p.get("packed", 0)}  # fmt: skip


def qgemm(d: Mapping[str, Any], p: Mapping[str, Any]) -> dict[str, Any]:
    """A pointwise convolution or a dense layer."""
    if "k" in d:
        return _blocked(d["m"], d["k"], d["n"], p)
    return _blocked(d["n"] * d["oh"] * d["ow"], d["c"], d["m"], p)


def qim2col(d: Mapping[str, Any], p: Mapping[str, Any]) -> dict[str, Any]:
    """Windows as rows of `depth` codes, whole steps of products that are added up together."""
    depth = -(-d["kh"] * d["kw"] * d["c"] // p["step"]) * p["step"]
    sizes = _blocked(d["n"] * d["oh"] * d["ow"], depth, d["m"], p)
    return {**sizes, "depth": depth, "scratch_floats": sizes["block"] * depth}


def qdepthwise(d: Mapping[str, Any], p: Mapping[str, Any]) -> dict[str, Any]:
    """`line`: codes of an input line with the padding that windows see; `span` lines at a time."""
    line = ((d["ow"] - 1) * d["sw"] + (d["kw"] - 1) * d["dw"] + 1) * d["c"]
    line = max(line, d["pl"] * d["c"])
    span = (d["kh"] - 1) * d["dh"] + 1
    return {"line": line, "span": span, "scratch_floats": line * span}
