"""Baselines that make one walk, or many blind ones: random, greedy, and the fastest row of each
layer."""

import random
from dataclasses import dataclass

from rl.agents.base import Found, Problem
from rl.assignment import cost_of, repaired
from rl.decisions import Decisions, Place
from rl.space import Stage


def walk_once(decisions: Decisions, choose) -> tuple[list[int], float]:
    """(positions taken, regret) of a walk on which `choose` says which action is taken."""
    taken, regret, place = [], 0.0, decisions.begin
    while place is not None:
        decisions.expand(place)
        k = choose(place)
        taken.append(k)
        regret += place.regrets[k]
        place = place.after[k]
    return taken, regret


@dataclass(frozen=True)
class RandomSearch:
    """The best of so many plans drawn at random, each action of a place alike."""

    name: str = "random"
    episodes: int = 1000

    def search(self, problem: Problem) -> Found:
        """Draw, and keep the best."""
        decisions, rng = problem.decisions(), random.Random(problem.seed)

        def draw(place: Place) -> int:
            return int(rng.random() * len(place.actions))

        best, least = walk_once(decisions, draw)
        curve = []
        for i in problem.episodes(self.episodes):
            taken, regret = walk_once(decisions, draw) if i else (best, least)
            if regret < least:
                best, least = taken, regret
            curve.append(least)
        values = tuple(map(decisions.value, curve or [least]))
        return Found(decisions.choices(best), values[-1], values)


@dataclass(frozen=True)
class Greedy:
    """In execution order the cheapest row, given what was chosen before and the changes of layout
    that it needs itself. A group is compared by what is left of its price once its other layers,
    each by its cheapest row, are paid for."""

    name: str = "greedy"

    def search(self, problem: Problem) -> Found:
        """One walk."""
        walk, goal = problem.walk, problem.goal
        alone = {
            s.name: min((a.price.cost for a in s.actions if not a.group), default=0.0)
            for s in walk.stages
        }
        state, total, out = walk.start, 0.0, []
        for i, stage in enumerate(walk.stages):

            def seen(action: int, i: int = i, stage: Stage = stage, state: int = state) -> float:
                others = stage.actions[action].group[1:] if action >= 0 else ()
                value = goal.value(stage, action, walk.move(i, state, action))
                return value - sum(alone[name] for name in others)

            action = min(walk.actions(i, state), key=seen)
            move = walk.move(i, state, action)
            total += goal.value(stage, action, move)
            state = move.next
            out.append(action)
        return Found(tuple(out), total, (total,))


@dataclass(frozen=True)
class Lookahead:
    """As greedy, but a choice also counts what follows from it up to the next one: changes of
    layout for layers that have only one candidate, or for the rest of a group."""

    name: str = "lookahead"

    def search(self, problem: Problem) -> Found:
        """One walk."""
        decisions = problem.decisions()
        taken, regret = walk_once(decisions, lambda p: p.regrets.index(min(p.regrets)))
        value = decisions.value(regret)
        return Found(decisions.choices(taken), value, (value,))


@dataclass(frozen=True)
class Fastest:
    """The fastest row of each layer, as if layouts could be changed for nothing."""

    name: str = "fastest"

    def search(self, problem: Problem) -> Found:
        """One walk."""
        walk = problem.walk
        wanted = []
        for stage in walk.stages:
            alone = [(a.price.cost, i) for i, a in enumerate(stage.actions) if not a.group]
            wanted.append(min(alone, default=(0.0, -1))[1])
        choices = repaired(walk, wanted)
        value = cost_of(walk, choices)
        return Found(choices, value, (value,))
