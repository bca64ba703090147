"""A walk as agents see it: only the places where something is to be decided.

What follows of itself (views, nodes inside a group that was begun, nodes with one candidate) is
added to the cost of the decision before. Costs are told as *regret*: what a step costs above the
least that its layers can cost. The sum of those least costs is the same for all plans, so that the
ranking of plans is not changed (potential-based shaping; Ng, Harada and Russell, ICML 1999), and
each step is rewarded for what it decides and not for how large its layer is.
"""

from collections.abc import Sequence

from rl.assignment import Choices
from rl.reward import Goal
from rl.walk import Walk


class Place:
    """A decision: action k (of `actions`) costs `regrets[k]` and leads to `Decisions.after`.
    Everything about it is a matter of fact; what an agent learns of it is kept by its `number`."""

    __slots__ = ("actions", "after", "number", "regrets", "stage", "state")

    def __init__(self, number: int, stage: int, state: int, actions: tuple[int, ...]):
        self.number, self.stage, self.state, self.actions = number, stage, state, actions
        self.regrets: list[float] = []
        self.after: list[Place | None] = []


class Decisions:
    """Places are made when they are met first. `scale` is the least that a plan could cost if no
    choice depended on another one: what values are in relation to."""

    def __init__(self, walk: Walk, goal: Goal):
        self.walk, self.goal = walk, goal
        self.places: list[Place] = []
        self._known: dict[tuple[int, int], Place] = {}
        self.ahead = _least_ahead(walk)
        self.scale = self.ahead[0] or 1.0
        first = walk.start
        self.begin, self.fixed = self._next(0, first, 0.0)

    def value(self, regret: float) -> float:
        """The goal's value of a plan whose steps have this regret in all."""
        return regret + self.fixed + self.scale

    def _next(self, stage: int, state: int, cost: float) -> tuple[Place | None, float]:
        """The place that is reached, and the regret until there, where `cost` was paid already."""
        walk, goal, since = self.walk, self.goal, stage
        while stage < len(walk.stages):
            actions = walk.actions(stage, state)
            if len(actions) != 1:
                break
            move = walk.move(stage, state, actions[0])
            cost += goal.value(walk.stages[stage], actions[0], move)
            stage, state = stage + 1, move.next
        regret = cost - (self.ahead[since] - self.ahead[stage])
        return (self._place(stage, state) if stage < len(walk.stages) else None), regret

    def _place(self, stage: int, state: int) -> Place:
        key = stage, state
        if key not in self._known:
            place = Place(len(self.places), stage, state, self.walk.actions(stage, state))
            self._known[key] = place
            self.places.append(place)
        return self._known[key]

    def expand(self, place: Place) -> Place:
        """Fill in what the actions of a place cost and lead to."""
        if not place.regrets:
            stage = self.walk.stages[place.stage]
            own = self.ahead[place.stage] - self.ahead[place.stage + 1]
            for action in place.actions:
                move = self.walk.move(place.stage, place.state, action)
                cost = self.goal.value(stage, action, move)
                after, regret = self._next(place.stage + 1, move.next, 0.0)
                place.after.append(after)
                place.regrets.append(cost - own + regret)
        return place

    def choices(self, taken: Sequence[int]) -> Choices:
        """The actions of all stages, from the positions chosen at the places passed."""
        out: list[int] = []
        state, i = self.walk.start, 0
        for stage in range(len(self.walk.stages)):
            actions = self.walk.actions(stage, state)
            if len(actions) == 1:
                action = actions[0]
            else:
                action, i = actions[taken[i]], i + 1
            out.append(action)
            state = self.walk.move(stage, state, action).next
        return tuple(out)


def _least_ahead(walk: Walk) -> list[float]:
    """Per stage, a bound on what is still to be paid from there on, whatever was chosen before: the
    least prices, those of groups credited to their first nodes."""
    alone = [
        min((a.price.cost for a in s.actions if not a.group), default=0.0)
        if s.node.op not in ("Concat", "Transpose") else 0.0
        for s in walk.stages
    ]  # fmt: skip
    at = {s.name: i for i, s in enumerate(walk.stages)}
    least = list(alone)
    for i, stage in enumerate(walk.stages):
        gains = [
            sum(alone[at[n]] for n in a.group) - a.price.cost for a in stage.actions if a.group
        ]
        least[i] -= max([0.0, *gains])
    out = [0.0]
    for value in reversed(least):
        out.append(out[-1] + value)
    return out[::-1]
