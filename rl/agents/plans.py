"""Whole plans as agents that change them see them: a plan to start from, and its value."""

import random

from rl.agents.base import Problem
from rl.agents.walkers import Greedy
from rl.assignment import Choices


def start_choices(problem: Problem, rng: random.Random, greedy: bool) -> Choices:
    """The greedy plan, or one drawn at random."""
    if greedy:
        return Greedy().search(problem).choices
    walk = problem.walk
    state, out = walk.start, []
    for i in range(len(walk.stages)):
        out.append(rng.choice(walk.actions(i, state)))
        state = walk.move(i, state, out[-1]).next
    return tuple(out)


def plan_value(problem: Problem, choices: Choices) -> float:
    """The goal's value of a plan."""
    walk, goal = problem.walk, problem.goal
    state, total = walk.start, 0.0
    for i, action in enumerate(choices):
        move = walk.move(i, state, action)
        total += goal.value(walk.stages[i], action, move)
        state = move.next
    return total
