"""Which plans are built and run next, as the corrected table has them."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from itertools import islice

from codegen.errors import CodegenError
from codegen.exactness import MOST_CAREFUL
from codegen.plan import Plan
from rl.agents import Agent, Problem
from rl.assignment import Choices, cost_of
from rl.choice import inaccurate, objection
from rl.exact import Optimum, optimum, optimum_within
from rl.finalists import Contest
from rl.guard import Guard
from rl.limits import within_loss
from rl.request import Request
from rl.reward import Goal
from rl.space import Space, build_space, careful
from rl.table import Table
from rl.walk import Walk

_WITHIN = 3  # plans within losses in a round
_DEAR = 4.0  # times what casts cost, where plans are to have few
# By so much the table may overestimate; by so much a plan must be faster than the same integers.
_ERROR, _GAIN = 0.005, 0.001

AsPlan = Callable[[Space, Choices], Plan]


@dataclass(frozen=True)
class Proposals:
    """Called with a table: (who, plan), of those that are worth measuring. `goal` is the search's,
    `stopped` tells whether the user ended it."""

    request: Request
    agent: Agent
    goal: Goal
    guard: Guard
    contest: Contest
    as_plan: AsPlan
    stopped: Callable[[], bool]

    def __call__(self, table: Table) -> Iterator[tuple[str, Plan]]:
        space = build_space(self.contest.graph, self.request.board, table, self.contest.codes)
        self.guard.learn(self.contest)
        walk, free = Walk(space), replace(self.goal, loss_price=0.0)
        best = self._best(space, within_loss(walk, free, self.guard.loss))
        yield from ((name, plan) for name, plan, cost in best if self._promises(plan, cost))
        if self.guard.loss < float("inf"):
            walks, losses = (walk, Walk(_few_casts(space))), (self.guard.loss, *self.guard.places)
            within = (optimum_within(each, free, loss) for loss in losses for each in walks)
            plans = ((self.as_plan(space, w.choices), cost_of(walk, w.choices))
                     for w in within if w)  # fmt: skip
            new = (p for p, cost in plans if not self.contest.knows(p) and self._promises(p, cost))
            yield from (("exact within losses", plan) for plan in islice(new, _WITHIN))

    def _best(self, space: Space, goal: Goal) -> Iterator[tuple[str, Plan, float]]:
        """The agent's plan, and the exact one; where digits count, also the best without candidates
        that lose them; each with what it costs by the table."""
        walk, name = Walk(space), self.agent.name
        problem = Problem(walk, goal, self.request.seed, self.request.budget, self.stopped)
        best = exact_of(walk, goal).choices
        found = [(f"{name}, corrected", space, self.agent.search(problem).choices),
                 ("exact, corrected", space, best)]  # fmt: skip
        for level, part in enumerate(spaces(self.request, space)[1:], 1):
            exact = optimum(Walk(part), goal)
            found += [(f"exact, careful {level}", part, exact.choices)] if exact else []
        for title, part, choices in found:
            yield title, self.as_plan(part, choices), cost_of(Walk(part), choices)

    def _promises(self, plan: Plan, cost: float) -> bool:
        return promises(plan, cost, self.contest, self.request)


def _few_casts(space: Space) -> Space:
    """The space where casts seem dear. A tensor between two layers in int8 counts in the loss of
    either, so that runs of such layers lose less than the sum has it."""
    dear = {way: replace(c, cost=_DEAR * c.cost) for way, c in space.casts.items()}
    return replace(space, casts=dear)


def promises(plan: Plan, cost: float, contest: Contest, request: Request) -> bool:
    """Where accuracy is limited, whether a plan that costs so much by the table may keep the limits
    and be faster than the best one that does. Plans with the same layers in int8 compute the same
    in them: one that loses too much speaks for the others, and one that does not is measured again
    only if that is faster."""
    if not request.limits.judged:
        return True
    sound = contest.sound()
    alike = [f for f in sound if f.plan.bits == plan.bits]
    if any(inaccurate(f.measured, request.limits) for f in alike):
        return False
    unit = contest.table.unit
    kept = [f for f in sound if not objection(f, request.limits, request.board, unit)]
    best = min((f.measured.cost for f in kept), default=float("inf"))
    least = min((f.measured.cost for f in alike), default=float("inf"))
    return cost < min((1.0 + _ERROR) * best, (1.0 - _GAIN) * least)


def exact_of(walk: Walk, goal: Goal) -> Optimum:
    """The optimum, where limits were made so that there is one."""
    best = optimum(walk, goal)
    if best is None:
        raise CodegenError(
            walk.space.graph.name,
            "no plan can be made of the candidates that were priced",
            "layouts that can be converted into one another",
            "see `codegen price` for what failed",
        )
    return best


def spaces(request: Request, space: Space) -> list[Space]:
    """The space, and where digits count what is left of it without candidates that lose them."""
    return [space, *(careful(space, level) for level in levels(request))]


def levels(request: Request) -> range:
    """How careful plans are made, where digits count."""
    return range(1, MOST_CAREFUL + 1 if request.exactness else 1)
