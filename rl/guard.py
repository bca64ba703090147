"""What the outputs may lose by layers in int8, so that a plan keeps the limits on its accuracy.

Losses of layers only foretell that of a plan, and not how many answers change. So the limit on
their sum is searched for, between the largest sum that a measured plan had that keeps what the user
asked for, and the next one that does not. How much of what may be lost a plan uses says where else
to look: which answers change is a matter of chance, so that a plan that loses more may keep what
one that loses less did not.
"""

from math import inf, log, sqrt

from rl.choice import used
from rl.finalists import Contest
from rl.limits import Limits

ROUNDS = 8  # of measuring that it may take
_STEP, _NEAR = 4.0, 1.1
_LEAST = 1e-6  # share of what may be lost


class Guard:
    """`loss`: what the outputs may lose; infinite where accuracy is not limited. `places`: other
    sums below which a plan may keep the limits, the largest first."""

    def __init__(self, limits: Limits):
        self.limits = limits
        self.loss = limits.loss if limits.judged else inf
        self.places: tuple[float, ...] = ()

    @property
    def rounds(self) -> int:
        """How many more rounds the search for the limit may take."""
        return ROUNDS if self.limits.judged else 0

    def learn(self, contest: Contest) -> None:
        """Look at all that was measured."""
        if not self.limits.judged:
            return
        plans = [
            (loss, used(f.measured, self.limits)) for f in contest.sound()
            if f.plan.bits and (loss := contest.codes.loss(f.plan.bits)) < inf
        ]  # fmt: skip
        kept = max((loss for loss, share in plans if share <= 1.0), default=0.0)
        broken = min((loss for loss, share in plans if share > 1.0 and loss > kept), default=inf)
        if broken == inf:
            self.loss = max(self.loss, kept * _STEP)
        elif not kept:
            self.loss = min(self.loss, broken) / _STEP
        elif broken / kept > _NEAR:
            self.loss = _between(kept, broken, _guess(plans))
        else:
            self.loss = kept
        guesses = (loss / max(share, _LEAST) for loss, share in plans)
        most = max((loss for loss, _ in plans), default=0.0)
        self.places = tuple(sorted((g for g in guesses if kept < g < most), reverse=True))


def _guess(plans: list[tuple[float, float]]) -> float:
    """Where the limit is by the plan that is nearest to it: shares grow with losses."""
    loss, share = min(plans, key=lambda p: abs(log(max(p[1], _LEAST))))
    return loss / max(share, _LEAST)


def _between(kept: float, broken: float, guess: float) -> float:
    """The guess, but so that either answer rules out a quarter of what is between."""
    middle, quarter = sqrt(kept * broken), (broken / kept) ** 0.25
    return min(max(guess, middle / quarter), middle * quarter)
