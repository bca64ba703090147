"""Predictions against published latencies: errors and ranks."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.stats import kendalltau

# What is aimed at on the networks that were not used to fit.
MEAN_ERROR, PERCENTILE_90, TAU = 0.10, 0.18, 0.9


@dataclass(frozen=True)
class Comparison:
    """One network on one board. `shares`: fractions of the prediction by cause (core, branch, l2,
    memory)."""

    board: str
    network: str
    use: str
    predicted_ms: float
    published_ms: float
    shares: dict[str, float]

    @property
    def ratio(self) -> float:
        return self.predicted_ms / self.published_ms


@dataclass(frozen=True)
class Errors:
    """Of |predicted / published - 1|: mean and 90th percentile; `bias` is the geometric mean of
    predicted / published, `tau` Kendall's rank correlation (None for fewer than two networks)."""

    count: int
    mean: float
    percentile_90: float
    bias: float
    tau: float | None


def errors(rows: Sequence[Comparison]) -> Errors | None:
    """Of these rows, which are of one board where `tau` is to mean something; None without rows."""
    if not rows:
        return None
    ratios = np.array([r.ratio for r in rows])
    off = np.abs(ratios - 1)
    tau = None
    if len(rows) > 1:
        ranks = kendalltau([r.predicted_ms for r in rows], [r.published_ms for r in rows])
        tau = float(ranks.statistic)
    return Errors(
        len(rows),
        float(off.mean()),
        float(np.quantile(off, 0.9)),
        float(np.exp(np.log(ratios).mean())),
        tau,
    )


@dataclass(frozen=True)
class Target:
    """One thing aimed at, what came out, and whether that is enough."""

    what: str
    wanted: str
    found: str
    met: bool


def targets(rows: Sequence[Comparison]) -> list[Target]:
    """The targets on these rows: errors on the check networks of all boards, and for each board the
    ranks of all networks that are not extra, where it is a board that something was fitted for."""
    checked = errors([r for r in rows if r.use == "check"])
    out = []
    if checked:
        out += [
            Target("mean absolute error, check networks", f"<= {MEAN_ERROR:.0%}",
                   f"{checked.mean:.1%}", checked.mean <= MEAN_ERROR),
            Target("90th percentile, check networks", f"<= {PERCENTILE_90:.0%}",
                   f"{checked.percentile_90:.1%}", checked.percentile_90 <= PERCENTILE_90),
        ]  # fmt: skip
    for board in dict.fromkeys(r.board for r in rows):
        found = errors([r for r in rows if r.board == board and r.use in ("fit", "check")])
        if found and found.tau is not None:
            out.append(Target(f"Kendall tau, {board}", f">= {TAU}", f"{found.tau:.2f}",
                              found.tau >= TAU))  # fmt: skip
    return out
