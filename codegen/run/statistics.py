"""What many runs of one program say: the median with a confidence interval, and whether they are
steady enough to be a figure."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

CONFIDENCE = 0.95
WIDTH = 0.02  # of the median: an interval that is wider is no figure
DRIFT = 0.05  # of the median: between the first and the last third of the runs


@dataclass(frozen=True)
class Summary:
    """Nanoseconds (or counts, as the runs are). `mad` is the median absolute deviation from the
    median, unscaled. The true median lies in [ci_low, ci_high] with at least 95 % confidence,
    whatever the distribution. `noisy` says why the figure would be rejected, or nothing."""

    min: float
    median: float
    mad: float
    ci_low: float
    ci_high: float
    runs: int
    noisy: str


def summarise(
    runs_ns: Sequence[float], width: float = WIDTH, drift: float = DRIFT
) -> Summary:
    """Order statistics of at least one run, in the order in which they were made. ValueError for
    none."""
    if not runs_ns:
        raise ValueError("no runs to summarise")
    ordered = sorted(runs_ns)
    middle = median(ordered)
    rank = interval_rank(len(ordered))
    low, high = (ordered[rank - 1], ordered[-rank]) if rank else (ordered[0], ordered[-1])
    return Summary(
        min=ordered[0],
        median=middle,
        mad=median(sorted(abs(x - middle) for x in ordered)),
        ci_low=low,
        ci_high=high,
        runs=len(ordered),
        noisy=_noisy(runs_ns, middle, low, high, rank, width, drift),
    )


def median(ordered: Sequence[float]) -> float:
    """Of values in ascending order."""
    half = len(ordered) // 2
    return ordered[half] if len(ordered) % 2 else (ordered[half - 1] + ordered[half]) / 2


def interval_rank(n: int) -> int:
    """The largest k for which [k-th smallest, k-th largest] of n runs holds the median with 95 %
    confidence; 0 where n is too small (below 6).

    Each run is below the median with probability 1/2, so the interval misses it with probability
    2 P(B < k), B binomial(n, 1/2): David and Nagaraja, Order Statistics, 7.1.
    """
    missed = (1 - CONFIDENCE) / 2
    rank, below = 0, 0.0
    while rank < n:
        below += math.comb(n, rank) / 2**n
        if below > missed:
            break
        rank += 1
    return rank


def _noisy(
    runs: Sequence[float], middle: float, low: float, high: float, rank: int, width: float,
    drift: float,
) -> str:  # fmt: skip
    if not rank:
        return f"{len(runs)} runs are too few for a 95 % confidence interval, which needs 6"
    if middle <= 0:
        return "the clock is too coarse: the median is 0"
    if high - low > width * middle:
        return (
            f"the 95 % confidence interval of the median is {(high - low) / middle:.1%} wide, "
            f"{width:.0%} is allowed"
        )
    third = len(runs) // 3
    first, last = (median(sorted(part)) for part in (runs[:third], runs[-third:]))
    if abs(last - first) > drift * middle:
        return (
            f"the runs drift by {(last - first) / middle:+.1%} from the first third to the last, "
            f"{drift:.0%} is allowed"
        )
    return ""
