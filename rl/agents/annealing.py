"""Simulated annealing over whole plans: change one decision, keep what is better, and what is worse
with a probability that falls with the temperature."""

import math
import random
from dataclasses import dataclass

from rl.agents.base import Found, Problem
from rl.agents.plans import plan_value, start_choices
from rl.assignment import repaired


@dataclass(frozen=True)
class Annealing:
    """An episode is one changed plan. Temperatures are parts of the value of the plan that is
    started from, which is drawn at random or, with `from_greedy`, the greedy one; they fall
    geometrically."""

    name: str = "annealing"
    episodes: int = 1000
    hot: float = 0.02
    cold: float = 0.0001
    changes: int = 2
    from_greedy: bool = False

    def search(self, problem: Problem) -> Found:
        """Anneal once."""
        walk, rng = problem.walk, random.Random(problem.seed)
        now = start_choices(problem, rng, self.from_greedy)
        value = first = plan_value(problem, now)
        best, least = now, value
        open_stages = [i for i, s in enumerate(walk.stages) if len(s.actions) > 1]
        curve: list[float] = []
        total = problem.budget.episodes or self.episodes
        for i in problem.episodes(self.episodes):
            heat = first * self.hot * (self.cold / self.hot) ** min(1.0, i / total)
            wanted = list(now)
            for _ in range(rng.randint(1, self.changes) if open_stages else 0):
                at = rng.choice(open_stages)
                wanted[at] = rng.randrange(len(walk.stages[at].actions))
            tried = repaired(walk, wanted)
            cost = plan_value(problem, tried)
            if cost <= value or rng.random() < math.exp((value - cost) / heat):
                now, value = tried, cost
            if cost < least:
                best, least = tried, cost
            curve.append(least)
        return Found(best, least, tuple(curve or [least]))
