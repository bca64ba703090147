"""Which range 8 bits should cover, from the histogram of a tensor."""

from collections.abc import Callable, Mapping

import numpy as np

from codegen.calibration.histogram import HALF, Histogram
from codegen.calibration.record import METHODS, Range

STEPS = 255  # between the 256 values of 8 bits
_CANDIDATES = 128  # shares of the full range that the search for the least error tries
_SIGNED, _UNSIGNED = 128, 256  # values that 8 bits have for magnitudes, with and without a sign
_STRIDE = 8  # bins between two thresholds that the entropy method tries


def all_ranges(histogram: Histogram, percentile: float) -> dict[str, Range]:
    """The range by each of METHODS; (0, 0) where nothing but zeros was seen."""
    if histogram.limit == 0.0:
        return dict.fromkeys(METHODS, Range(0.0, 0.0))
    finders: Mapping[str, Callable[[Histogram], Range]] = {
        "minmax": minmax,
        "percentile": lambda h: percentiles(h, percentile),
        "mse": least_error,
        "entropy": least_divergence,
    }
    return {method: finders[method](histogram) for method in METHODS}


def minmax(histogram: Histogram) -> Range:
    """Everything that was seen."""
    return Range.around(histogram.low, histogram.high)


def percentiles(histogram: Histogram, percentile: float) -> Range:
    """From the (100 - p)-th percentile to the p-th, and 0: at most a share of 1 - p/100 is clipped
    at each end. As numpy.percentile, to the width of a bin."""
    low, high = (_at(histogram, share / 100) for share in (100 - percentile, percentile))
    return Range.around(low, high)


def _at(histogram: Histogram, share: float) -> float:
    """The value of that rank, evenly spread within its bin; zeros come between the halves."""
    edges = np.arange(-HALF, HALF + 1) * histogram.width
    starts = np.concatenate([edges[:HALF], [0.0], edges[HALF:-1]])
    ends = np.concatenate([edges[1 : HALF + 1], [0.0], edges[HALF + 1 :]])
    counts = np.insert(histogram.counts, HALF, histogram.zeros)
    below = np.cumsum(counts)
    rank = share * (histogram.total - 1)
    i = int(np.searchsorted(below, rank, side="right"))
    inside = (rank - (below[i] - counts[i]) + 0.5) / counts[i]
    value = starts[i] + min(inside, 1.0) * (ends[i] - starts[i])
    return float(np.clip(value, histogram.low, histogram.high))


def quantisation_error(histogram: Histogram, low: float, high: float) -> float:
    """Mean squared error of the histogram's values (each in the middle of its bin) in 8 bits over
    [low, high], asymmetric, the zero point rounded to an integer as the kernels need it."""
    return float(_errors(histogram, np.array([low]), np.array([high]))[0])


def _errors(histogram: Histogram, low: np.ndarray, high: np.ndarray) -> np.ndarray:
    """The same for many ranges [K]."""
    seen = np.flatnonzero(histogram.counts)
    x = np.clip(histogram.centres[seen], histogram.low, histogram.high)
    weights = histogram.counts[seen] / histogram.total
    scale = (np.maximum(high - low, histogram.limit * 2.0**-40) / STEPS)[:, None]
    zero = np.round(-low[:, None] / scale)
    q = np.clip(np.round(x / scale) + zero, 0, STEPS)
    return np.square((q - zero) * scale - x) @ weights


def least_error(histogram: Histogram) -> Range:
    """The range with the least mean squared quantisation error (as in Banner et al. 2019,
    arXiv:1810.05723, which finds it for Gaussian and Laplacian tensors; here it is searched on the
    histogram): both ends together, then each alone until neither gains."""
    full = minmax(histogram)
    shares = np.arange(1, _CANDIDATES + 1) / _CANDIDATES
    best = int(np.argmin(_errors(histogram, full.low * shares, full.high * shares)))
    low, high = full.low * shares[best], full.high * shares[best]
    least = quantisation_error(histogram, low, high)
    while True:
        before = least
        for lows, highs in (
            (np.full(_CANDIDATES, low), full.high * shares),
            (full.low * shares, np.full(_CANDIDATES, high)),
        ):
            errors = _errors(histogram, lows, np.broadcast_to(highs, lows.shape))
            i = int(np.argmin(errors))
            if errors[i] < least:
                least, low, high = float(errors[i]), float(lows[i]), float(highs[i])
        if least == before:
            return Range.around(low, high)


def least_divergence(histogram: Histogram) -> Range:
    """The threshold on magnitudes whose quantised distribution diverges least from the true one.

    For each threshold T: P is the histogram of |x| up to T, with all beyond T in its last bin; Q is
    the histogram up to T in as many levels as 8 bits have, each level's count spread evenly over
    those of its bins that are not empty; the least Kullback-Leibler divergence D(P || Q) wins.
    Migacz, "8-bit Inference with TensorRT", GTC 2017, talk S7310; onnxruntime's
    `get_entropy_threshold` does the same. A tensor without negative (or positive) values has twice
    the levels. Zeros, which are exact, do not count.
    """
    negative, positive = histogram.counts[:HALF][::-1], histogram.counts[HALF:]
    one_sided = histogram.low >= 0 or histogram.high <= 0
    levels = _UNSIGNED if one_sided else _SIGNED
    counts = (negative + positive).astype(np.float64)
    end = int(np.flatnonzero(counts)[-1]) + 1
    tried = [*range(levels, end, _STRIDE), max(end, levels)]
    best = min(tried, key=lambda n: _divergence(counts, n, levels))
    threshold = best * histogram.width
    return Range.around(max(histogram.low, -threshold), min(histogram.high, threshold))


def _divergence(counts: np.ndarray, bins: int, levels: int) -> float:
    """D(P || Q) with the first `bins` bins kept, in so many levels. A last bin that holds only what
    was clipped counts as one value in Q, which must not be zero where P is not."""
    kept = counts[:bins]
    p = kept.copy()
    p[-1] += counts[bins:].sum()
    starts = np.arange(levels) * bins // levels
    sums = np.add.reduceat(kept, starts)
    filled = np.add.reduceat((kept > 0).astype(np.float64), starts)
    sizes = np.diff(np.append(starts, bins))
    spread = np.repeat(sums / np.maximum(filled, 1), sizes)
    q = np.where(kept > 0, spread, 0.0)
    if p[-1] > 0 and q[-1] == 0:
        q[-1] = 1.0
    p, q = p / p.sum(), q / q.sum()
    some = p > 0
    return float(np.sum(p[some] * np.log(p[some] / q[some])))
