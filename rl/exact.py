"""The best plan there is by the table: dynamic programming over the states of a walk.

Latency is a sum of layers and changes of layout, and a state (rl/walk.py) holds all on which later
costs depend, so the best way to each state of a stage extends the best way to one of the stage
before. That is exact on any graph; its cost grows with the number of states, which depends on how
many tensors are alive at once (a handful in real networks), not on the number of layers. The same
idea on graphs in general is PBQP (Anderson and Gregg, CGO 2018).
"""

from dataclasses import dataclass
from typing import NamedTuple

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


class _Label(NamedTuple):
    """A way to a state: what it costs and loses, its last action, and the way before that."""

    value: float
    loss: float
    action: int
    before: "_Label | None"


def optimum_within(
    walk: Walk, goal: Goal, loss: float, most_labels: int = _MOST_STATES
) -> Optimum | None:
    """The same among plans whose layers in int8 lose at most `loss` together. Of the ways to a
    state those are kept that none beats in value and loss; `proven` is false where they had to be
    thinned out, to so many at a stage. (Labels, as in shortest paths with a resource: M. Desrochers
    and F. Soumis, A generalized permanent labelling algorithm for the shortest path problem with
    time windows, 1988.)"""
    best: dict[int, list[_Label]] = {walk.start: [_Label(0.0, 0.0, -1, None)]}
    proven, widest = True, 1
    for i, stage in enumerate(walk.stages):
        after: dict[int, list[_Label]] = {}
        for state, labels in best.items():
            for action in walk.actions(i, state):
                move = walk.move(i, state, action)
                value = goal.value(stage, action, move)
                lost = stage.actions[action].loss if action >= 0 else 0.0
                after.setdefault(move.next, []).extend(
                    _Label(way.value + value, way.loss + lost, action, way)
                    for way in labels if way.loss + lost <= loss
                )  # fmt: skip
        fronts = {s: front for s, labels in after.items() if (front := _undominated(labels))}
        if not fronts:
            return None
        most = max(2, most_labels // len(fronts))
        proven &= all(len(front) <= most for front in fronts.values())
        best = {state: _thinned(front, most) for state, front in fronts.items()}
        widest = max(widest, len(best))
    end = min((way for front in best.values() for way in front), key=lambda way: way.value)
    choices, way = [], end
    while way.before is not None:
        choices.append(way.action)
        way = way.before
    return Optimum(tuple(reversed(choices)), end.value, proven, widest)


def _undominated(labels: list[_Label]) -> list[_Label]:
    """The cheapest first; each loses less than those before it."""
    out: list[_Label] = []
    for label in sorted(labels, key=lambda way: (way.value, way.loss)):
        if not out or label.loss < out[-1].loss:
            out.append(label)
    return [way for way in out if way.value < float("inf")]


def _thinned(front: list[_Label], most: int) -> list[_Label]:
    """Both ends and some between them."""
    if len(front) <= most:
        return front
    return [front[round(k * (len(front) - 1) / (most - 1))] for k in range(most)]


def _way(came: list[dict[int, tuple[int, int]]], state: int) -> Choices:
    out = []
    for back in reversed(came):
        state, action = back[state]
        out.append(action)
    return tuple(reversed(out))
