"""Sizes of matrix products for in-order cores (templates/conv2d/inorder_product.j2): what stays in
which cache, and how far ahead lines are touched."""

from collections.abc import Mapping
from typing import Any

from codegen.tile_order import tile_order

_L1_BYTES = 28 << 10  # of 32 KiB, for one tile
_BLOCK_BYTES = 16 << 10  # the same for several: each outlives the panels of the others
_L2_BYTES = 256 << 10  # of the smallest L2 (512 KiB), for weights that are read again per block
# A tensor beyond this has partly gone to memory before it is read again.
_FAR_BYTES = 192 << 10
_FLOAT, _LINE = 4, 16  # bytes; floats of a line
_MOST_ROWS = 32
_DEEP = 64  # products per element of y


def _part(depth: int, row: int) -> int:
    """Products per part of depth, so that `row` rows of both operands share L1: the largest divisor
    of depth that is a multiple of 4; all where there is none of at least 64."""
    most = _L1_BYTES // (_FLOAT * row)
    sizes = [k for k in range(64, min(depth, most) + 1, 4) if depth % k == 0]
    return depth if depth <= most else max(sizes, default=depth)


def product_sizes(
    depth: int, m: int, count: int, p: Mapping[str, Any], x_far: bool, y_far: bool
) -> dict[str, Any]:
    """Sizes of y[count][m] = x[count][depth] w, tiles of p["mr"] x p["nr"]; `x_far`, `y_far`: do
    they come from, or go to, memory rather than L2?"""
    mr, nr = p["mr"], p["nr"]
    kc = _part(depth, mr + nr)
    columns = m
    if _FLOAT * kc * m > _L2_BYTES:
        parts = -(-_FLOAT * kc * m // _L2_BYTES)
        columns = -(-m // (parts * nr)) * nr
    block = (_BLOCK_BYTES // (_FLOAT * kc) - nr) // mr * mr
    block = max(mr, min(block, _MOST_ROWS, -(-count // mr) * mr))
    return {
        "depth": depth, "kc": kc, "columns": columns, "block": block, "x_far": x_far,
        "y_far": y_far, "ahead": _ahead(depth, kc, columns, m, block, p, x_far, y_far),
        "scratch_floats": block * kc if kc < depth else 0,
    }  # fmt: skip


def _ahead(
    depth: int, kc: int, columns: int, m: int, block: int, p: Mapping[str, Any], x_far: bool,
    y_far: bool,
) -> int:  # fmt: skip
    """Bytes per pass by which a tile moves on through the next block's lines: as few as suffice for
    all of them, and no more than a line. A run ends with the row where rows are in parts."""
    if not (x_far or y_far) or kc < _LINE:
        return 0
    tiles = block // p["mr"] * -(-columns // p["nr"])
    for step in (16, 32):
        run = kc * step // 16
        x_runs = block if kc < depth else block * depth // run
        y_runs = block if columns < m else block * m // run
        if kc < depth or x_runs * x_far + y_runs * y_far <= tiles:
            return step
    return 4 * _LINE


def _orders(count: int, m: int, p: Mapping[str, Any]) -> dict[tuple[int, int], Any]:
    """The tiles of a product, (rows, vectors), and the order of their instructions."""
    rows = {h for h in (p["mr"] if count >= p["mr"] else 0, count % p["mr"]) if h}
    full, rest = divmod(m, p["nr"])
    vectors = {v for v in (p["nr"] // 4 if full else 0, -(-rest // 4)) if v}
    return {(h, v): tile_order(h, v) for h in rows for v in vectors}


def _y_far(d: Mapping[str, Any], depth: int, pixels: int) -> bool:
    """Are lines of y worth fetching ahead? The bus has the time for that beside many products; a
    residual must be read anyway."""
    far = _FLOAT * pixels * d["m"] > _FAR_BYTES
    return far and (depth >= _DEEP or bool(d.get("residual")))


def inorder_gemm(d: Mapping[str, Any], p: Mapping[str, Any]) -> dict[str, Any]:
    """A pointwise convolution as one product."""
    pixels = d["n"] * d["oh"] * d["ow"]
    x_far = _FLOAT * pixels * d["c"] > _FAR_BYTES
    sizes = product_sizes(d["c"], d["m"], pixels, p, x_far, _y_far(d, d["c"], pixels))
    return {"pixels": pixels, "orders": _orders(pixels, d["m"], p), **sizes}


def inorder_im2col(d: Mapping[str, Any], p: Mapping[str, Any]) -> dict[str, Any]:
    """Products of `pass` pixels, whose patches stay in L2; where the weights do not, passes are
    large."""
    depth, pixels, mr = -(-d["kh"] * d["kw"] * d["c"] // 4) * 4, d["oh"] * d["ow"], p["mr"]
    large = _FLOAT * depth * d["m"] > _L2_BYTES
    rows = (_L2_BYTES if large else _L2_BYTES // 4) // (_FLOAT * depth) // mr * mr
    rows = min(max(rows, mr), -(-pixels // mr) * mr)
    sizes = product_sizes(depth, d["m"], rows, p, False, _y_far(d, depth, pixels))
    sizes["scratch_floats"] += rows * depth
    return {"pass": rows, "orders": _orders(pixels, d["m"], p), **sizes}


def inorder_dense(d: Mapping[str, Any], p: Mapping[str, Any]) -> dict[str, Any]:
    """A dense layer as one product."""
    x_far, y_far = (_FLOAT * d["m"] * size > _FAR_BYTES for size in (d["k"], d["n"]))
    sizes = product_sizes(d["k"], d["n"], d["m"], p, x_far, y_far)
    return {"orders": _orders(d["m"], d["n"], p), **sizes}
