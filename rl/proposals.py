"""Which plans are built and run next, as the corrected table has them."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from itertools import islice

from codegen.errors import CodegenError
from codegen.exactness import MOST_CAREFUL
from codegen.plan import Plan
from rl.agents import Agent, Problem
from rl.assignment import Choices
from rl.choice import known_inaccurate
from rl.codes import Codes
from rl.exact import Optimum, optimum, optimum_within
from rl.finalists import Contest
from rl.guard import Guard
from rl.limits import within_loss
from rl.request import Request
from rl.reward import Goal
from rl.space import Space, build_space, careful
from rl.table import Table
from rl.walk import Walk

_WITHIN = 2  # plans within losses in a round

AsPlan = Callable[[Space, Choices], Plan]


@dataclass(frozen=True)
class Proposals:
    """Called with a table: (who, plan), of those that are not known to lose too much. `goal` is the
    search's, `stopped` tells whether the user ended it."""

    request: Request
    agent: Agent
    goal: Goal
    codes: Codes | None
    guard: Guard
    contest: Contest
    as_plan: AsPlan
    stopped: Callable[[], bool]

    def __call__(self, table: Table) -> Iterator[tuple[str, Plan]]:
        space = build_space(self.contest.graph, self.request.board, table, self.codes)
        self.guard.learn(self.contest)
        walk, free = Walk(space), replace(self.goal, loss_price=0.0)
        for name, plan in self._best(space, within_loss(walk, free, self.guard.loss)):
            if not self._too_lossy(plan):
                yield name, plan
        if self.guard.loss < float("inf"):
            within = (optimum_within(walk, free, loss)
                      for loss in (self.guard.loss, *self.guard.places))  # fmt: skip
            plans = (self.as_plan(space, found.choices) for found in within if found)
            new = (p for p in plans if not self.contest.knows(p) and not self._too_lossy(p))
            yield from (("exact within losses", plan) for plan in islice(new, _WITHIN))

    def _best(self, space: Space, goal: Goal) -> Iterator[tuple[str, Plan]]:
        """The agent's plan, and the exact one; where digits count, also the best without candidates
        that lose them."""
        walk, name = Walk(space), self.agent.name
        best = exact_of(walk, goal)
        problem = Problem(walk, goal, self.request.seed, self.request.budget, self.stopped)
        yield f"{name}, corrected", self.as_plan(space, self.agent.search(problem).choices)
        yield "exact, corrected", self.as_plan(space, best.choices)
        for level, part in enumerate(spaces(self.request, space)[1:], 1):
            exact = optimum(Walk(part), goal)
            if exact:
                yield f"exact, careful {level}", self.as_plan(part, exact.choices)

    def _too_lossy(self, plan: Plan) -> bool:
        return known_inaccurate(plan, self.contest, self.request.limits)


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
