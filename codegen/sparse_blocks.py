"""Sizes of 1x1 convolutions by the blocks of weights that are not zeros
(templates/conv2d/sparse.j2)."""

from collections.abc import Mapping
from typing import Any

from codegen.band_blocks import plane_of
from codegen.sparsity import HEIGHT, blocks_high

_L1_BYTES = 20 << 10  # of 32 KiB, for the inputs of a tile of pixels, which are read in any order
_FLOAT, _VECTOR = 4, 4


def sparse_part(d: Mapping[str, Any], p: Mapping[str, Any]) -> int:
    """Inputs per part, equal parts in multiples of 4 so that those of p["mr"] pixels stay in L1. It
    does not depend on how many pixels there are, for weights are packed by it."""
    parts = -(-_FLOAT * d["c"] * p["mr"] // _L1_BYTES)
    return d["c"] if parts == 1 else -(-d["c"] // (4 * parts)) * 4


def sparse_nhwc(d: Mapping[str, Any], p: Mapping[str, Any]) -> dict[str, Any]:
    """Tiles of at most p["mr"] pixels of all images."""
    return _tiles(d, p, d["n"] * d["oh"] * d["ow"])


def sparse_nchw(d: Mapping[str, Any], p: Mapping[str, Any]) -> dict[str, Any]:
    """Tiles of pixels of one image, whose channels lie `plane` floats apart."""
    return {**_tiles(d, p, d["oh"] * d["ow"]), "plane": plane_of(d)}


def _tiles(d: Mapping[str, Any], p: Mapping[str, Any], pixels: int) -> dict[str, Any]:
    """Tiles as equal as vectors of 4 pixels allow: the first `wide` pixels in tiles of `high`
    vectors, the others in tiles of one less."""
    vectors = -(-pixels // _VECTOR)
    tiles = -(-vectors // (p["mr"] // _VECTOR))
    high = -(-vectors // tiles)
    wide = _VECTOR * high * (vectors - tiles * (high - 1))
    part = sparse_part(d, p)
    sums = HEIGHT * blocks_high(d["m"]) if part < d["c"] else 0
    return {
        "pixels": pixels, "high": high, "wide": min(wide, pixels), "part": part,
        "scratch_floats": _VECTOR * high * (part + sums),
    }  # fmt: skip
