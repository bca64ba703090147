"""Winograd's fast convolution F(f x f, 3 x 3): the transforms, the weights in transformed form, and
how many tiles are worked on at once.

    y = A' [(G g G') * (B' d B)] A,   d a tile of (f + 2)^2 inputs, y one of f^2 outputs

A. Lavin, S. Gray, Fast Algorithms for Convolutional Neural Networks, 2015 (arXiv:1509.09308).
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import numpy as np

# Tables by f: B' (the input's transform), G (the weights'), A' (the output's). Points 0, 1, -1,
# 2, -2, 1/2, -1/2 and infinity as far as needed, scaled so that A' and B' have small factors. The
# second column of A' (point 1) is all ones: a bias added at position (1, 1) reaches every output.
_TABLES = {
    2: (
        "1 0 -1 0, 0 1 1 0, 0 -1 1 0, 0 1 0 -1",
        "1 0 0, 1/2 1/2 1/2, 1/2 -1/2 1/2, 0 0 1",
        "1 1 1 0, 0 1 -1 -1",
    ),
    4: (
        "4 0 -5 0 1 0, 0 -4 -4 1 1 0, 0 4 -4 -1 1 0, 0 -2 -1 2 1 0, 0 2 -1 -2 1 0, 0 4 0 -5 0 1",
        "1/4 0 0, -1/6 -1/6 -1/6, -1/6 1/6 -1/6, 1/24 1/12 1/6, 1/24 -1/12 1/6, 0 0 1",
        "1 1 1 1 1 0, 0 1 -1 2 -2 0, 0 1 1 4 4 0, 0 1 -1 8 -8 1",
    ),
    6: (
        "1 0 -21/4 0 21/4 0 -1 0, 0 1 1 -17/4 -17/4 1 1 0, 0 -1 1 17/4 -17/4 -1 1 0,"
        "0 1/2 1/4 -5/2 -5/4 2 1 0, 0 -1/2 1/4 5/2 -5/4 -2 1 0,"
        "0 2 4 -5/2 -5 1/2 1 0, 0 -2 4 5/2 -5 -1/2 1 0, 0 -1 0 21/4 0 -21/4 0 1",
        "1 0 0, -2/9 -2/9 -2/9, -2/9 2/9 -2/9, 1/90 1/45 2/45, 1/90 -1/45 2/45,"
        "1/45 1/90 1/180, 1/45 -1/90 1/180, 0 0 1",
        "1 1 1 1 1 32 32 0, 0 1 -1 2 -2 16 -16 0, 0 1 1 4 4 8 8 0,"
        "0 1 -1 8 -8 4 -4 0, 0 1 1 16 16 2 2 0, 0 1 -1 32 -32 1 -1 1",
    ),
}


def transforms(f: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """B' [f+2][f+2], G [f+2][3] and A' [f][f+2] as exact fractions; f is 2, 4 or 6."""

    def table(text: str) -> np.ndarray:
        return np.array([[Fraction(v) for v in row.split()] for row in text.split(",")])

    b, g, a = map(table, _TABLES[f])
    return b, g, a


def transform_weights(w: np.ndarray, f: int) -> np.ndarray:
    """OIHW [m][c][3][3] -> [(f+2)^2][c][m]: G g G' in float64, rounded once."""
    g = transforms(f)[1].astype(np.float64)
    u = np.einsum("ai,mcij,bj->abcm", g, w.astype(np.float64), g, optimize=True)
    return u.reshape(-1, *u.shape[2:]).astype(np.float32)


# Channels x tiles that a group must have, so that multiply-adds do not wait for one another.
_SUMS = 48
# A plane of tiles and a panel of weights that are used again and again should fit L1 (32 KiB).
_L1_BYTES = 24 << 10
# Cycles that a cache line costs, roughly, on the cores we know: fetched from L2; streamed from
# memory, which multiplication hides in part; written to memory and read back out of order.
_NEAR, _STREAMED, _SPILLED = 2, 6, 40


@dataclass(frozen=True)
class _Traffic:
    """A layer as the kernel sees it: `weights` bytes in all, bytes per tile of the transformed
    `inputs` and of the `products`, bytes of one `panel` of weights at one position."""

    tiles: int
    panels: int
    positions: int
    weights: int
    inputs: int
    products: int
    panel: int

    def cost(self, block: int, together: int, l2: int) -> int:
        """Relative cost of moving data when `block` tiles are multiplied with `together` panels at
        a time. What is used again before `l2` bytes have passed is still in L2."""
        passes, rounds = -(-self.tiles // block), self.panels // together
        v, z = block * self.inputs, block * self.products // rounds
        plane_stays = v // self.positions + self.panel <= _L1_BYTES
        cost = _NEAR * passes * (self.weights + v * (rounds if plane_stays else self.panels))
        if self.weights + v + z <= l2:
            return cost + _STREAMED * self.weights
        cost += _STREAMED * passes * self.weights
        if self.weights // rounds + v + z > l2:
            cost += _SPILLED * passes * rounds * (v + z)
        return cost


def winograd_blocks(d: Mapping[str, Any], p: Mapping[str, Any]) -> dict[str, int]:
    """Sizes for neon_winograd_nhwc: tiles per group (`rows`) and per block, weight panels used
    together, the stride of planes in scratch (floats, an odd number of cache lines, so that
    positions do not fall on the same sets). p["l2_kib"]: how much of L2 may be counted on."""
    f, nr = p["f"], p["nr"]
    positions = (f + 2) ** 2
    ty, tx = -(-d["oh"] // f), -(-d["ow"] // f)
    tiles, panels, depth = d["n"] * ty * tx, -(-d["m"] // nr), -(-d["c"] // 4) * 4
    rows = _group(tiles, p["mr"], nr)
    panel, products = 4 * depth * nr, 4 * positions * panels * nr
    traffic = _Traffic(
        tiles, panels, positions, positions * panels * panel, 4 * positions * depth, products, panel
    )
    block, together = min(
        _choices(tiles, panels, rows),
        key=lambda x: (traffic.cost(*x, p["l2_kib"] << 10), x[0] * (depth + x[1] * nr)),
    )
    v_plane = _odd_lines(rows * depth)
    groups = -(-block // rows)
    return {
        "ty": ty,
        "tx": tx,
        "tiles": tiles,
        "rows": rows,
        "block": block,
        "groups_in_block": groups,
        "depth": depth,
        "panels": together,
        "width": together * nr,
        "blocks": panels // together,
        "v_plane": v_plane,
        "ragged": int(bool(d["oh"] % f or d["ow"] % f or d["m"] % 4)),
        "scratch_floats": positions * (groups * v_plane + block * together * nr),
    }


def _group(tiles: int, mr: int, nr: int) -> int:
    """Tiles per group, at most mr, such that the last group is not much smaller than the others: a
    group of few sums waits for each of them."""
    least = -(-_SUMS // nr)

    def time(rows: int) -> tuple[int, int]:
        groups, rest = divmod(tiles, rows)
        return groups * max(rows, least) + max(rest, least if rest else 0), -rows

    return min(range(1, min(mr, tiles) + 1), key=time)


def _choices(tiles: int, panels: int, rows: int) -> Iterator[tuple[int, int]]:
    """(tiles per block, panels used together) worth comparing."""
    groups = -(-tiles // rows)
    for passes in range(1, groups + 1):
        block = min(-(-groups // passes) * rows, tiles)
        yield from ((block, k) for k in range(1, panels + 1) if panels % k == 0)


def _odd_lines(floats: int) -> int:
    """Rounded up to an odd number of cache lines of 16 floats."""
    return (-(-floats // 16) | 1) * 16
