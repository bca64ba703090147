"""Weights that are mostly zeros, in blocks of 4 outputs x 1 input: which of them there are, and the
form in which kernels read those that are not all zeros.

4 outputs are a vector of weights that meet the same inputs: a block costs one load and one index,
and is 4 products for each pixel. A matrix is [k][n], inputs by outputs, as in Dense.
"""

from dataclasses import dataclass

import numpy as np

HEIGHT = 4  # outputs of a block
LEAST_ZEROS = 0.7  # share of blocks that are all zeros, from which kernels for these may pay
MOST_INPUTS = 1 << 16  # an index has 16 bits


@dataclass(frozen=True)
class Blocks:
    """The blocks of a matrix that are not all zeros, by part of the inputs, then by 4 outputs, then
    by input: `values` [blocks][4], `index` of the input within its part, and `first`: where those
    of each 4 outputs begin, and at last the number of blocks."""

    values: np.ndarray
    index: np.ndarray
    first: np.ndarray


def count_nonzero(w: np.ndarray) -> int:
    """Blocks of a matrix that are not all zeros."""
    return int(_nonzero(w).sum())


def is_sparse(w: np.ndarray) -> bool:
    """Are so many blocks all zeros that they may better be left out?"""
    k, n = w.shape
    return k <= MOST_INPUTS and count_nonzero(w) <= (1 - LEAST_ZEROS) * k * blocks_high(n)


def blocks_high(n: int) -> int:
    """Blocks that n outputs take, the last one filled up with zeros."""
    return -(-n // HEIGHT)


def compress(w: np.ndarray, part: int) -> Blocks:
    """The blocks of a matrix with its inputs in parts of `part`; one block of zeros at the end,
    which kernels load ahead, and `index` is filled up to an even length."""
    values, index, counts = [], [], [0]
    for at in range(0, len(w), part):
        panels = _panels(w[at : at + part])
        high, inputs = np.nonzero(panels.any(axis=2))
        values.append(panels[high, inputs])
        index.append(inputs)
        counts.append(np.bincount(high, minlength=len(panels)))
    total = sum(map(len, index))
    ahead = np.zeros((1, HEIGHT), w.dtype)
    filled = np.zeros(2 - total % 2, np.int64)
    return Blocks(
        np.concatenate([*values, ahead]),
        np.concatenate([*index, filled]).astype(np.uint16),
        np.cumsum(np.concatenate([np.atleast_1d(c) for c in counts])).astype(np.int32),
    )


def typical(k: int, n: int, nonzero: int) -> np.ndarray:
    """A matrix of float32 with so many blocks of ones, anywhere: always the same."""
    high = blocks_high(n)
    chosen = np.zeros(high * k, np.float32)
    chosen[np.random.RandomState(0).permutation(high * k)[:nonzero]] = 1
    return np.repeat(chosen.reshape(high, k), HEIGHT, axis=0)[:n].T


def _panels(w: np.ndarray) -> np.ndarray:
    """[k][n] -> [blocks high][k][4], filled up with zeros."""
    padded = np.pad(w, ((0, 0), (0, -w.shape[1] % HEIGHT)))
    return padded.T.reshape(-1, HEIGHT, len(w)).transpose(0, 2, 1)


def _nonzero(w: np.ndarray) -> np.ndarray:
    return _panels(w).any(axis=2)
