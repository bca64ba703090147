"""Phase 3: finalists are built and run whole, the table is corrected by what they cost, and the
search goes on until it finds nothing that was not measured."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from codegen.graph import Graph
from codegen.order import node_of
from codegen.pipeline import Generated, finish
from codegen.plan import Plan
from codegen.pricing import plan_parts
from rl.codes import Codes
from rl.correction import Observation, corrected, observe, predicted, without
from rl.network import Bench, EndToEnd, measure_network
from rl.table import Table

Propose = Callable[[Table], Iterable[tuple[str, Plan]]]  # one after the other is measured


@dataclass(frozen=True)
class Finalist:
    """A plan that was built: who proposed it first (`names`), what the table said before anything
    was learnt (None: not all of it was priced), and what came out."""

    names: tuple[str, ...]
    generated: Generated
    predicted: float | None
    measured: EndToEnd

    @property
    def plan(self) -> Plan:
        """With its order, conversions and arena filled in."""
        return self.generated.plan


@dataclass
class Contest:
    """Finalists so far, by the plan's identity; with `codes` plans may be in int8. `table` is the
    one that was measured in phase 1, without candidates that turned out wrong. `wrong` lists
    those; `rejected` says why plans were not taken, by their identity."""

    graph: Graph
    bench: Bench
    table: Table
    stage: Callable[[str], None]
    finalists: dict[str, Finalist] = field(default_factory=dict)
    seen: list[Observation] = field(default_factory=list)
    wrong: list[dict[str, str]] = field(default_factory=list)
    codes: Codes | None = None
    rejected: dict[str, str] = field(default_factory=dict)

    def network(self, plan: Plan) -> Graph:
        """The network that a plan is for."""
        return self.codes.graph_for(plan.bits) if self.codes else self.graph

    def knows(self, plan: Plan) -> bool:
        """Was it measured?"""
        return plan.sha256 in self.finalists

    def enter(self, name: str, plan: Plan) -> bool:
        """Measure a plan, unless it was; whether it is new."""
        key = plan.sha256
        old = self.finalists.get(key)
        if old:
            if name not in old.names:
                names = (*old.names, name)
                self.finalists[key] = Finalist(names, old.generated, old.predicted, old.measured)
            return False
        self.stage(f"building and running the whole network ({name})")
        generated = finish(self.network(plan), plan, self.bench.board, self.bench.model.name)
        measured = measure_network(generated, self.bench)
        expected = predicted(generated, self.table)
        self.finalists[key] = Finalist((name,), generated, expected, measured)
        if measured.error:
            self._fail(generated, measured)
        else:
            self.seen += observe(generated, measured.steps)
        return True

    def _fail(self, generated: Generated, measured: EndToEnd) -> None:
        """A candidate that computed something wrong is never chosen again."""
        program = generated.schedule.program
        parts = plan_parts(generated.graph, generated.plan, program)
        for step, part in zip(program.steps, parts, strict=True):
            if measured.failed and node_of(step) == measured.failed.rsplit("[", 1)[0]:
                self.table = without(self.table, part, measured.error)
                self.wrong.append({"layer": step.name, "candidate": str(part.candidate),
                                   "error": measured.error})  # fmt: skip

    @property
    def learnt(self) -> Table:
        """The table, corrected by all that was measured."""
        return corrected(self.table, self.seen)

    def sound(self) -> list[Finalist]:
        """Finalists that run and compute what they should."""
        return [f for f in self.finalists.values() if not f.measured.error]


def run_contest(
    contest: Contest,
    first: Iterable[tuple[str, Plan]],
    propose: Propose,
    rounds: int,
    stopped: Callable[[], bool],
) -> tuple[int, bool]:
    """Measure `first`, then what `propose` finds in the corrected table, until it is nothing new:
    (rounds, whether that was reached)."""
    for name, plan in first:
        if stopped():
            return 0, False
        contest.enter(name, plan)
    for done in range(1, rounds + 1):
        if stopped():
            return done - 1, False
        new = [contest.enter(name, plan) for name, plan in propose(contest.learnt)]
        if not any(new):
            return done, True
    return rounds, False
