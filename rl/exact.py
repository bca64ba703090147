"""The best plan there is by the table: dynamic programming over the states of a walk.

Latency is a sum of layers and changes of layout, and a state (rl/walk.py) holds all on which later
costs depend, so the best way to each state of a stage extends the best way to one of the stage
before. That is exact on any graph; its cost grows with the number of states, which depends on how
many tensors are alive at once (a handful in real networks), not on the number of layers. The same
idea on graphs in general is PBQP (Anderson and Gregg, CGO 2018).
"""

from dataclasses import dataclass

from rl.assignment import Choices
from rl.reward import LATENCY, Goal
from rl.walk import Walk

_MOST_STATES = 20_000


@dataclass(frozen=True)
class Optimum:
    """The best choices for a goal. `value` is the goal's, in the table's unit; `proven` is false
    where states had to be dropped. `states` is the largest number at one stage."""

    choices: Choices
    value: float
    proven: bool
    states: int


def optimum(walk: Walk, goal: Goal = LATENCY, most_states: int = _MOST_STATES) -> Optimum | None:
    """The plan of least value, within the goal's hard limit of memory; None where no plan is."""
    best: dict[int, float] = {walk.start: 0.0}
    came: list[dict[int, tuple[int, int]]] = []  # per stage: state after -> (state before, action)
    proven, widest = True, 1
    for i, stage in enumerate(walk.stages):
        after: dict[int, float] = {}
        back: dict[int, tuple[int, int]] = {}
        for state, so_far in best.items():
            for action in walk.actions(i, state):
                move = walk.move(i, state, action)
                value = so_far + goal.value(stage, action, move)
                if value < after.get(move.next, float("inf")):
                    after[move.next] = value
                    back[move.next] = state, action
        if not after:
            return None
        if len(after) > most_states:
            kept = sorted(after, key=lambda s: after[s])[:most_states]
            after, proven = {s: after[s] for s in kept}, False
        widest = max(widest, len(after))
        best = after
        came.append(back)
    end = min(best, key=lambda s: best[s])
    return Optimum(_way(came, end), best[end], proven, widest)


def _way(came: list[dict[int, tuple[int, int]]], state: int) -> Choices:
    out = []
    for back in reversed(came):
        state, action = back[state]
        out.append(action)
    return tuple(reversed(out))
