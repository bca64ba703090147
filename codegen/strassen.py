"""One level of Strassen's method in Winograd's form, for pointwise convolutions
(templates/conv2d/neon_strassen_nhwc.c.j2): the weights' part of it, and sizes of blocks."""

from collections.abc import Mapping
from typing import Any

import numpy as np

_MOST_PRODUCTS = 256  # of one part, so that a panel of weights stays in L1
_RESIDENT_BYTES = 128 << 10  # rows that pass once per panel, in the smallest L2
_FLOAT = 4


def strassen_weights(w: np.ndarray) -> list[np.ndarray]:
    """The seven right-hand factors [k/2][n/2] of weights [k][n], k and n even, in the order in
    which the kernel uses them: w11, w21, t1, t2, w22, t3, -t4. Sums are made in float64."""
    k, n = (size // 2 for size in w.shape)
    wide = w.astype(np.float64)
    w11, w12, w21, w22 = wide[:k, :n], wide[:k, n:], wide[k:, :n], wide[k:, n:]
    t1 = w12 - w11
    t2 = w22 - t1
    t3 = w22 - w12
    factors = (w11, w21, t1, t2, w22, t3, w21 - t2)
    return [f.astype(w.dtype) for f in factors]


def strassen(d: Mapping[str, Any], p: Mapping[str, Any]) -> dict[str, Any]:
    """Parts of a half's products, blocks of its rows, and (rows, vectors) of the tiles."""
    pixels, k, m = d["n"] * d["oh"] * d["ow"], d["c"] // 2, d["m"] // 2
    kc = max(i for i in range(4, min(k, _MOST_PRODUCTS) + 1, 4) if k % i == 0)
    block = max(_RESIDENT_BYTES // (_FLOAT * kc) // p["mr"], 1) * p["mr"]
    return {
        "pixels": pixels, "depth": k, "kc": kc, "block": block, "tiles": _tiles(pixels, m, p),
        "scratch_floats": -(-pixels // 2) * (k + m),
    }  # fmt: skip


def _tiles(pixels: int, m: int, p: Mapping[str, Any]) -> set[tuple[int, int]]:
    """(rows, vectors) of the tiles of both halves."""
    mr, halves = p["mr"], (-(-pixels // 2), pixels // 2)
    rows = {h % mr for h in halves} | {mr for h in halves if h >= mr}
    full, rest = divmod(m, p["nr"])
    vectors = {v for v in (p["nr"] // 4 if full else 0, rest // 4) if v}
    return {(h, v) for h in rows if h for v in vectors}
