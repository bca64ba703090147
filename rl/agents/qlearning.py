"""Tabular Q-learning with experience replay, as in QS-DNN (de Prado et al., DATE 2019,
arXiv 1811.07315): an agent walks the layers and chooses one candidate each; every layer's regret is
its reward; epsilon falls in steps, so that the last episodes exploit."""

import random
from dataclasses import dataclass

from rl.agents.base import Found, Problem
from rl.decisions import Decisions, Place
from rl.transfer import Keys
from rl.walk import Walk


def _worst(walk: Walk) -> float:
    """More than a plan costs whose layers all take their dearest candidates."""
    return 2 * sum(max((a.price.cost for a in s.actions), default=0.0) for s in walk.stages)


@dataclass(frozen=True)
class QLearning:
    """`explore` is the part of the episodes with epsilon 1, after which epsilon falls in
    `epsilon_steps` equal steps to `epsilon_end`. `replay` transitions, drawn from the last
    `memory`, are learnt again after each episode, those nearest to the end of the network first.
    docs/SEARCH.md has the sweep that the numbers are from."""

    name: str = "qlearning"
    episodes: int = 1000
    learning_rate: float = 0.5
    discount: float = 1.0
    explore: float = 0.4
    epsilon_steps: int = 10
    epsilon_end: float = 0.02
    replay: int = 128
    memory: int = 20_000

    def epsilon(self, progress: float) -> float:
        """The part of random choices when `progress` (0 to 1) of the episodes are over."""
        if progress < self.explore:
            return 1.0
        step = int((progress - self.explore) / (1 - self.explore) * self.epsilon_steps) + 1
        return max(self.epsilon_end, 1.0 - step / self.epsilon_steps)

    def search(self, problem: Problem) -> Found:
        """Learn, and return the best plan met on the way."""
        run = _Run(self, problem)
        return run.found()


class _Run:
    """One search in the making."""

    def __init__(self, agent: QLearning, problem: Problem):
        self.agent, self.problem = agent, problem
        self.decisions: Decisions = problem.decisions()
        self.rng = random.Random(problem.seed)
        # At which a step that the goal forbids is learnt: what is infinite tells nothing of the way
        # there, and what is less than a plan's regret would be preferred to the plan.
        self.forbidden = max(1.0, _worst(problem.walk) / self.decisions.scale)
        self.keys = Keys(problem.walk)
        self.values: list[list[float]] = []  # by number of place
        self.memory: list[tuple[Place, int]] = []
        self.best, self.taken = float("inf"), []
        self.curve: list[float] = []

    def found(self) -> Found:
        """All episodes, the last one without exploration."""
        agent, problem = self.agent, self.problem
        total = problem.budget.episodes or agent.episodes
        for i in problem.episodes(agent.episodes):
            self.episode(agent.epsilon(min(1.0, i / total)))
        self.episode(0.0)
        return Found(
            self.decisions.choices(self.taken), self.decisions.value(self.best),
            tuple(map(self.decisions.value, self.curve)), self.learnt(),
        )  # fmt: skip

    def episode(self, epsilon: float) -> None:
        """Walk once, then learn from it and from older steps."""
        path, regret, rng = [], 0.0, self.rng
        place = self.decisions.begin
        while place is not None:
            values = self.values_of(place)
            if epsilon and rng.random() < epsilon:
                k = int(rng.random() * len(values))
            else:
                k = values.index(max(values))
            path.append((place, k))
            regret += place.regrets[k]
            place = place.after[k]
        if regret < self.best or not self.curve:
            self.best, self.taken = regret, [k for _, k in path]
        self.curve.append(self.best)
        for place, k in reversed(path):
            self.learn(place, k)
        self.replay(path)

    def replay(self, path: list[tuple[Place, int]]) -> None:
        agent, rng, memory = self.agent, self.rng, self.memory
        room = agent.memory - len(memory)
        memory += path[:room]
        for step in path[max(0, room) :]:  # in a full memory a step takes the place of an older one
            memory[int(rng.random() * len(memory))] = step
        if not memory or not agent.replay:
            return
        drawn = [memory[int(rng.random() * len(memory))] for _ in range(agent.replay)]
        drawn.sort(key=lambda step: -step[0].stage)
        for place, k in drawn:
            self.learn(place, k)

    def learn(self, place: Place, k: int) -> None:
        after = place.after[k]
        target = -min(self.forbidden, place.regrets[k] / self.decisions.scale)
        if after is not None:
            target += self.agent.discount * max(self.values_of(after))
        values = self.values[place.number]
        values[k] += self.agent.learning_rate * (target - values[k])

    def values_of(self, place: Place) -> list[float]:
        """What the actions of a place are worth; at first what was learnt elsewhere, or 0, which is
        more than they can be, so that every action is tried."""
        while len(self.values) <= place.number:
            self.values.append([])
        values = self.values[place.number]
        if not values:
            self.decisions.expand(place)
            prior = self.problem.prior
            values += [prior.get(self.keys(place, a), 0.0) if prior else 0.0
                       for a in place.actions]  # fmt: skip
        return values

    def learnt(self) -> dict[str, float]:
        """Values by what the decision is, for a search on another network."""
        places = self.decisions.places
        return {
            self.keys(p, a): round(v, 6)
            for p in places if p.number < len(self.values)
            for a, v in zip(p.actions, self.values[p.number], strict=False) if v
        }  # fmt: skip
