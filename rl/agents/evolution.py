"""Evolution: a population of plans; children take each decision from one of two good parents, with
some decisions drawn anew."""

import random
from dataclasses import dataclass

from rl.agents.base import Found, Problem
from rl.agents.plans import plan_value, start_choices
from rl.assignment import Choices, repaired


@dataclass(frozen=True)
class Evolution:
    """An episode is one child. It replaces the worst of the population if it is better; parents are
    the best of `rivals` drawn ones. Plans are cut at two points, for neighbours belong together.
    `mutations` is the expected number of decisions drawn anew."""

    name: str = "evolution"
    episodes: int = 1000
    population: int = 40
    rivals: int = 4
    mutations: float = 1.5

    def search(self, problem: Problem) -> Found:
        """Let generations pass."""
        rng = random.Random(problem.seed)
        crowd: list[tuple[float, Choices]] = []
        curve: list[float] = []
        for i in problem.episodes(self.episodes):
            if i < self.population:
                child = start_choices(problem, rng, greedy=False)
            else:
                child = self._child(problem, crowd, rng)
            crowd.append((plan_value(problem, child), child))
            crowd.sort(key=lambda p: p[0])
            del crowd[self.population :]
            curve.append(crowd[0][0])
        if not crowd:
            child = start_choices(problem, rng, greedy=True)
            crowd, curve = [(plan_value(problem, child), child)], [plan_value(problem, child)]
        return Found(crowd[0][1], crowd[0][0], tuple(curve))

    def _child(
        self, problem: Problem, crowd: list[tuple[float, Choices]], rng: random.Random
    ) -> Choices:
        mother, father = (min(rng.choice(crowd) for _ in range(self.rivals))[1] for _ in range(2))
        a, b = sorted(rng.randrange(len(mother) + 1) for _ in range(2))
        genes = [*mother[:a], *father[a:b], *mother[b:]]
        stages = problem.walk.stages
        for i, stage in enumerate(stages):
            if stage.actions and rng.random() < self.mutations / len(stages):
                genes[i] = rng.randrange(len(stage.actions))
        return repaired(problem.walk, genes)
