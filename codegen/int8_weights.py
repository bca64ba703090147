"""Packers of codes of int8; numpy only, at generation time."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from codegen.constants import Constants, Packed, padded


def _codes(c: Constants, w: np.ndarray, unit: int) -> Packed:
    """What follows the weights w [products][n] of an integer product: biases with x's zero point in
    them, scales, both padded to a multiple of `unit`, zero points, factors where they are used."""
    _, b, scale, zeros, factors = c.inputs
    n = w.shape[1]
    bias = b.astype(np.int64) - int(zeros[0]) * w.astype(np.int64).sum(axis=0)
    out = [
        ("b", padded(bias.astype(np.int32), n, unit, np.int32)),
        ("scale", padded(np.broadcast_to(scale.reshape(-1), (n,)), n, unit)),
        ("zeros", zeros),
    ]
    needed = c.dims["act"].fn or c.dims["residual"]
    return out + ([("factors", factors)] if needed else [])


def _code_panels(w: np.ndarray, params: Mapping[str, Any]) -> np.ndarray:
    """[k][n] -> for 4 columns at a time steps of [4][16], or, with a `chain` of pairs of products
    in 16 bits, of [4][16 chain]; the last one with what is left. In-order tiles
    (codegen/int8_order.py) read a step more."""
    k, n = w.shape
    step = 16 * params.get("chain", 1)
    w = np.pad(w, ((0, 0), (0, -n % 4)))
    panels = [
        w[a : a + step, j : j + 4].T.reshape(-1)
        for j in range(0, w.shape[1], 4) for a in range(0, k, step)
    ]  # fmt: skip
    more = np.zeros(4 * step if params.get("in_order") else 0, w.dtype)
    codes = np.concatenate([*panels, more])
    return _packed(codes) if params.get("packed") else codes


def _packed(codes: np.ndarray) -> np.ndarray:
    """Codes of 4 bits, each 16 after another 16 in the high halves of their bytes."""
    low, high = codes.reshape(-1, 2, 16).transpose(1, 0, 2)
    return ((low & 15) | (high << 4)).astype(np.int8).reshape(-1)


def qconv_panels(c: Constants) -> Packed:
    """OIHW weights of int8 -> panels of the [kh*kw*c][m] matrix, padded to multiples of a `step` of
    16 where windows are."""
    d = c.dims
    w = c.inputs[0].reshape(d["m"], d["c"], -1).transpose(2, 1, 0).reshape(-1, d["m"])
    padded = np.pad(w, ((0, -len(w) % c.params.get("step", 1)), (0, 0)))
    return [("w", _code_panels(padded, c.params)), *_codes(c, w, 4)]


def _code_pairs(w: np.ndarray) -> np.ndarray:
    """[k][n] -> [n/8][k/8][4][2][8], filled up with zeros: 8 products of pairs of columns."""
    w = np.pad(w, ((0, -len(w) % 8), (0, -w.shape[1] % 8)))
    k, n = w.shape
    return w.T.reshape(n // 8, 4, 2, k // 8, 8).transpose(0, 3, 1, 2, 4)


def qconv_pairs(c: Constants) -> Packed:
    """OIHW weights of int8 -> pairs of columns of the [kh*kw*c][m] matrix."""
    d = c.dims
    w = c.inputs[0].reshape(d["m"], d["c"], -1).transpose(2, 1, 0).reshape(-1, d["m"])
    return [("w", _code_pairs(w)), *_codes(c, w, 8)]


def qdense_pairs(c: Constants) -> Packed:
    """[k][n] of int8 -> pairs of columns."""
    return [("w", _code_pairs(c.inputs[0])), *_codes(c, c.inputs[0], 8)]


def _code_blocks(w: np.ndarray) -> np.ndarray:
    """[k][n] -> [blocks of 16][k][16], the last block as wide as its columns."""
    return np.concatenate([w[:, i : i + 16].ravel() for i in range(0, w.shape[1], 16)])


def qconv_taps(c: Constants) -> Packed:
    """Depthwise weights of int8 [m][1][kh][kw] -> blocks of 16 channels, [kh*kw][16]."""
    taps = c.inputs[0].reshape(c.dims["m"], -1).T
    return [("w", _code_blocks(taps)), *_codes(c, taps, 8)]


def qconv_columns(c: Constants) -> Packed:
    """OIHW weights of int8 -> blocks of 16 channels, [kh*kw*c][16]."""
    d = c.dims
    w = c.inputs[0].reshape(d["m"], d["c"], -1).transpose(2, 1, 0).reshape(-1, d["m"])
    return [("w", _code_blocks(w)), *_codes(c, w, 8)]


def qwinograd_panels(c: Constants) -> Packed:
    """OIHW weights of int8 -> [m / nr][c][9][nr]."""
    w, nr = c.inputs[0], c.params["nr"]
    panels = w.reshape(c.dims["m"] // nr, nr, c.dims["c"], 9).transpose(0, 2, 3, 1)
    return [("w", panels.reshape(-1)), *_codes(c, w.reshape(c.dims["m"], -1).T, 4)]


def qdense_panels(c: Constants) -> Packed:
    """[k][n] of int8 -> panels."""
    return [("w", _code_panels(c.inputs[0], c.params)), *_codes(c, c.inputs[0], 4)]


ALL = (qconv_panels, qconv_pairs, qdense_pairs, qconv_taps, qconv_columns, qwinograd_panels,
       qdense_panels)  # fmt: skip
