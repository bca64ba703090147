"""What a packer of weights (weights.py, int8_weights.py) gets, and what it gives."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np


@dataclass(frozen=True)
class Constants:
    """What a packer gets: the node's constant inputs after the first one (None where absent),
    PRelu slopes, sizes."""

    inputs: tuple[np.ndarray | None, ...]
    slope: np.ndarray | None
    dims: Mapping[str, Any]
    params: Mapping[str, Any]


Packed = list[tuple[str, np.ndarray]]


def padded(
    v: np.ndarray | None, n: int, unit: int, dtype: np.dtype | type = np.float32
) -> np.ndarray:
    """A vector of n values padded with zeros to a multiple of `unit`; zeros where there is none."""
    out = np.zeros(-(-n // unit) * unit, dtype)
    if v is not None:
        out[:n] = v.reshape(-1)
    return out
