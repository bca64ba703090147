"""Blocks of a transposition x[q][p] -> y[p][q] that stay in L1 while they are read or written."""

from collections.abc import Mapping
from typing import Any

# Half of the smallest L1 data cache (32 KiB) in floats; the other half is for what streams past.
_HALF_L1 = 4096
_LINE = 16


def transpose_tile(d: Mapping[str, Any], p: Mapping[str, Any]) -> dict[str, int]:
    """Rows of x at a time: whole lines of y, unless two such tiles of x are too much for L1."""
    tile = _LINE
    while tile > 4 and (2 * tile * d["p"] > _HALF_L1 or tile > d["q"]):
        tile //= 2
    return {"tile": tile}


def transpose_block(d: Mapping[str, Any], p: Mapping[str, Any]) -> dict[str, int]:
    """Columns of x at a time: so many rows of y stay in L1, and whole lines of x are read."""
    return {"block": max(_HALF_L1 // d["q"] // _LINE, 1) * _LINE}
