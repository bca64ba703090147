"""Active learning: which candidates are worth measuring.

A candidate matters if a plan that takes it could still be the best. So every candidate that was not
measured gets an optimistic price: what a cost model learnt from those that were (rl/guess.py)
expects, less so many standard deviations. The best plan at these prices is found exactly, and the
candidates it takes that were only guessed are measured; when it takes none, no plan can be better
than it as far as the model's bounds hold, and measuring ends. (Optimism in the face of uncertainty;
as the lower bounds of A* decide what is expanded.)
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from codegen.board import Board
from codegen.graph import Graph
from codegen.groups import regroup
from codegen.plan import Plan
from codegen.pricing import plan_parts
from codegen.schedule import lower
from codegen.signature import Signature
from rl.assignment import plan_of
from rl.codes import Codes
from rl.exact import optimum
from rl.guess import filled, row_of
from rl.space import build_space
from rl.table import Table
from rl.walk import Walk

# Measure these kernels of these layers, and return the table with all that is known by now.
Measure = Callable[[Mapping[Signature, set[str]]], Table]


@dataclass(frozen=True)
class Active:
    """`doubt` standard deviations are taken off what the model expects. `wide`: besides the plan's
    own, the so many most promising candidates of its layers are measured in a round, for a program
    holds many at the price of one. At most `rounds`."""

    doubt: float = 1.0
    wide: int = 1
    rounds: int = 40


DEFAULT = Active()


def select(
    graph: Graph,
    board: Board,
    formula: Table,
    known: Table,
    measure: Measure,
    settings: Active = DEFAULT,
    codes: Codes | None = None,
) -> Table:
    """Measure what may matter, starting from what is `known`; the table of all that was measured
    (guesses left out)."""
    for _ in range(settings.rounds):
        hopeful = filled(known, formula, settings.doubt)
        walk = Walk(build_space(graph, board, hopeful, codes))
        best = optimum(walk)
        if best is None:
            return known
        plan = plan_of(walk.space, best.choices, "")
        network = codes.graph_for(plan.bits) if codes else graph
        missing = _missing(network, board, plan, hopeful, known, settings.wide)
        if not missing:
            return known
        before, known = known, measure(missing)
        if known == before:  # the budget is used up
            break
    return known


def _missing(
    graph: Graph, board: Board, plan: Plan, hopeful: Table, known: Table, wide: int
) -> dict[Signature, set[str]]:
    """Kernels of the plan's layers that were not measured, and of those layers the next best."""
    whole = regroup(graph, plan.groups)
    out: dict[Signature, set[str]] = {}
    for part in plan_parts(whole, plan, lower(whole, plan, board)):
        key, name = part.signature.key, str(part.candidate)
        if name in known.layers.get(key, {}):
            continue
        guessed = sorted(
            (p.cost, n) for n, p in hopeful.layers[key].items() if p.guessed and n != name
        )
        names = [name, *(n for _, n in guessed[:wide])]
        out.setdefault(part.signature, set()).update(map(row_of, names))
    return out
