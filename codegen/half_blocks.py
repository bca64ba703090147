"""Sizes of kernels in half precision: tiles and panels of matrix products, bands of rows, and how
many products are summed in float16 before their sum goes on in float32."""

from collections.abc import Mapping, Sequence
from typing import Any

_HALF = 2  # bytes
_LANES = 8
# The rounding of a sum of n float16 products grows like the square root of n: with the sum of sums
# in float32 it stays that of so many.
_MOST_SUMMED = 128
_RESIDENT_BYTES = 128 << 10  # of the smallest L2 (512 KiB), for what each panel of weights reads


def equal_tiles(n: int, most: int) -> list[dict[str, int]]:
    """n pixels as tiles of nearly equal size, at most `most`: [start, end) in steps of `size`."""
    parts = -(-n // most)
    size = -(-n // parts)
    end = (n - parts * (size - 1)) * size
    tiles = [{"size": size, "start": 0, "end": end}]
    return tiles + ([{"size": size - 1, "start": end, "end": n}] if end < n else [])


def column_blocks(m: int, nr: int) -> list[dict[str, int]]:
    """m channels as panels of nr, and a narrower one: [start, end) in steps of 8 * `vectors`, of
    which `cols` channels exist."""
    whole, rest = m // nr * nr, m % nr
    blocks = [{"start": 0, "end": whole, "vectors": nr // _LANES, "cols": nr}] if whole else []
    if rest:
        blocks.append({"start": whole, "end": m, "vectors": -(-rest // _LANES), "cols": rest})
    return blocks


def chunks(depth: int, run: int) -> list[dict[str, int]]:
    """How a run of products is summed in float16 where a pixel has too many of them, `depth`, for
    that: [start, end) in steps of `size`, a multiple of 4 but for the last. None where all of a
    pixel's are summed so."""
    if depth <= _MOST_SUMMED:
        return []
    parts = -(-run // _MOST_SUMMED)
    size = run if parts == 1 else -(-run // (4 * parts)) * 4
    whole = run // size * size
    blocks = [{"start": 0, "end": whole, "size": size}]
    return blocks + ([{"start": whole, "end": run, "size": run - whole}] if whole < run else [])


def half_gemm(d: Mapping[str, Any], p: Mapping[str, Any]) -> dict[str, Any]:
    """A pointwise convolution as one product; `block` pixels stay in L2 for every panel."""
    pixels, mr = d["n"] * d["oh"] * d["ow"], p["mr"]
    block = max(_RESIDENT_BYTES // (_HALF * d["c"]) // mr, 1) * mr
    return {
        "pixels": pixels, "block": block, "tiles": equal_tiles(pixels, mr),
        "panels": column_blocks(d["m"], p["nr"]), "depth": d["c"], "chunks": chunks(d["c"], d["c"]),
    }  # fmt: skip


def half_direct(d: Mapping[str, Any], p: Mapping[str, Any]) -> dict[str, Any]:
    """A convolution on rows of the image, or of a copy with its padding: `rows_out` rows of outputs
    at a time, whose `width` columns of inputs stay in L2; `inside` of them are the image's."""
    c, run = d["c"], d["kw"] * d["c"]
    width = (d["ow"] - 1) * d["sw"] + d["kw"]
    reach = (d["kh"] - 1) * d["dh"] + 1
    copy = bool(_outside(d, width, reach))
    width = width if copy else d["w"]
    most = max((_RESIDENT_BYTES // (_HALF * width * c) - reach) // d["sh"] + 1, 1)
    rows = -(-d["oh"] // -(-d["oh"] // most))
    band = ((rows - 1) * d["sh"] + reach) * width * c
    return {
        "width": width, "copy": copy, "inside": min(d["w"], width - d["pl"]), "rows_out": rows,
        "tiles": equal_tiles(d["ow"], p["mr"]), "panels": column_blocks(d["m"], p["nr"]),
        "depth": d["kh"] * run, "block": rows * d["ow"], "chunks": chunks(d["kh"] * run, run),
        "scratch_floats": band if copy else 0,
    }  # fmt: skip


def _outside(d: Mapping[str, Any], width: int, reach: int) -> Sequence[str]:
    """The sides on which windows leave the image."""
    over = {
        "top": d["pt"] > 0, "left": d["pl"] > 0, "right": width - d["pl"] > d["w"],
        "bottom": (d["oh"] - 1) * d["sh"] + reach - d["pt"] > d["h"],
    }  # fmt: skip
    return [side for side, yes in over.items() if yes]


def half_dense(d: Mapping[str, Any], p: Mapping[str, Any]) -> dict[str, Any]:
    """A dense layer, row by row; `chunk` products are summed in float16."""
    parts = -(-d["k"] // _MOST_SUMMED)
    chunk = -(-d["k"] // (_LANES * parts)) * _LANES if parts > 1 else d["k"]
    return {"panels": column_blocks(d["n"], p["nr"]), "chunk": chunk, "split": parts > 1}


def half_depthwise(d: Mapping[str, Any], p: Mapping[str, Any]) -> dict[str, Any]:
    """Bands of p["rows"] output rows, as depthwise_rows has them; `part`: so many channels at a
    time, a multiple of 32, that two windows of a band and the weights take at most 16 KiB."""
    window = ((p["rows"] - 1) * d["sh"] + d["kh"]) * (d["kw"] + d["sw"]) + d["kh"] * d["kw"]
    most = max((16 << 10) // (_HALF * window) // 32, 1) * 32
    return {"part": -(-d["c"] // (32 * -(-d["c"] // most))) * 32}
