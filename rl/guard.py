"""What the outputs may lose by layers in int8, so that a plan keeps the limits on its accuracy.

Losses of layers only foretell that of a plan, and not how many answers change. So the limit on
their sum is searched for: it rises while plans that were measured keep what the user asked for,
falls while they do not, and then lies between the two.
"""

from math import inf, sqrt

from rl.choice import inaccurate
from rl.finalists import Contest
from rl.limits import Limits

ROUNDS = 8  # of measuring that it may take
_STEP, _NEAR = 4.0, 1.5


class Guard:
    """`loss`: what the outputs may lose; infinite where accuracy is not limited."""

    def __init__(self, limits: Limits):
        self.limits = limits
        self.loss = limits.loss if limits.judged else inf
        self._kept, self._broken = 0.0, inf  # sums of losses of plans

    @property
    def rounds(self) -> int:
        """How many more rounds the search for the limit may take."""
        return ROUNDS if self.limits.judged else 0

    def learn(self, contest: Contest) -> None:
        """Look at all that was measured."""
        if not self.limits.judged:
            return
        sums = [
            (contest.codes.loss(f.plan.bits), bool(inaccurate(f.measured, self.limits)))
            for f in contest.sound() if f.plan.bits
        ]  # fmt: skip
        self._broken = min((loss for loss, breaks in sums if breaks), default=inf)
        self._kept = max((loss for loss, _ in sums if loss < self._broken), default=0.0)
        if self._broken == inf:
            self.loss = max(self.loss, self._kept * _STEP)
        elif not self._kept:
            self.loss = min(self.loss, self._broken) / _STEP
        elif self._broken / self._kept > _NEAR:
            self.loss = sqrt(self._kept * self._broken)
        else:
            self.loss = self._kept
