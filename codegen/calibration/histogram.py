"""How often a tensor took which values, counted as they come."""

import math
from dataclasses import dataclass, field

import numpy as np

HALF = 2048  # bins on each side of zero
# Float32 holds HALF / limit, and limit, for all limits from here.
_LEAST_LIMIT = 2.0**-100


def _no_counts() -> np.ndarray:
    return np.zeros(2 * HALF, np.int64)


@dataclass(frozen=True)
class Histogram:
    """Counts of values in 2 * HALF equal bins over [-limit, limit], with the exact minimum and
    maximum. `limit` is a power of two that grows with the values; pairs of bins then merge, so that
    nothing is ever counted in a wrong bin. Exact zeros, which any range represents without error,
    are counted apart."""

    limit: float = 0.0
    counts: np.ndarray = field(default_factory=_no_counts)
    zeros: int = 0
    low: float = math.inf
    high: float = -math.inf

    @property
    def total(self) -> int:
        """Number of values."""
        return int(self.counts.sum()) + self.zeros

    @property
    def width(self) -> float:
        """Of one bin."""
        return self.limit / HALF

    @property
    def centres(self) -> np.ndarray:
        """Middle of each bin, float64 [2 * HALF]."""
        return (np.arange(-HALF, HALF) + 0.5) * self.width

    def add(self, values: np.ndarray) -> "Histogram":
        """With the values of an array, all finite, counted as well."""
        values = np.asarray(values, np.float32).reshape(-1)
        if not values.size:
            return self
        low, high = float(values.min()), float(values.max())
        largest = max(-low, high)
        if largest == 0.0:
            limit, zeros, counts = self.limit, values.size, self.counts
        else:
            limit = max(self.limit, _power_above(largest))
            zeros = values.size - int(np.count_nonzero(values))
            # a product with a power of two is exact
            place = np.floor(values * np.float32(HALF / limit)).astype(np.int32) + HALF
            new = np.bincount(np.minimum(place, 2 * HALF - 1), minlength=2 * HALF)
            new[HALF] -= zeros
            counts = _grown(self.counts, self.limit, limit) + new
        return Histogram(
            limit, counts, self.zeros + zeros, min(self.low, low), max(self.high, high)
        )


def _power_above(value: float) -> float:
    """The least power of two >= value."""
    mantissa, exponent = math.frexp(value)
    return max(math.ldexp(1.0, exponent - (mantissa == 0.5)), _LEAST_LIMIT)


def _grown(counts: np.ndarray, old: float, new: float) -> np.ndarray:
    """The counts in the bins of a wider range: 2^k old bins fill one new one, from zero on."""
    if not old or old == new:
        return counts
    merge = min(int(new / old), HALF)  # from HALF on, all of a side is in the bin beside zero
    inner = counts.reshape(-1, merge).sum(1)
    pad = HALF - inner.size // 2
    return np.pad(inner, (pad, pad))
