"""Model and board -> the best plan found, with what is known of it. Three phases: price candidates
(rl/measure.py), search the table (rl/agents), build and run the finalists whole (rl/finalists.py).
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path

from codegen.board import Board
from codegen.errors import CodegenError
from codegen.graph import Graph
from codegen.groups import regroup
from codegen.memory import allocate
from codegen.pipeline import Generated, Shapes, computed_graph, finish, generate, model_hash
from codegen.plan import Plan
from codegen.pricing import Settings, plan_parts, warm_weights
from codegen.pricing.trials import is_flat
from codegen.run import Runner
from codegen.schedule import lower
from codegen.signature import Signature
from codegen.store import Store
from codegen.toolchain import Toolchain
from rl.agents import Agent, Budget, Found, Problem, make_agent
from rl.assignment import Choices, plan_of
from rl.correction import predicted
from rl.exact import Optimum, optimum
from rl.finalists import Contest, Finalist, run_contest
from rl.limits import Limits, flash_of, goal_for
from rl.measure import Priced, price_network
from rl.network import Bench, EndToEnd
from rl.pareto import Point, front
from rl.promising import Selection
from rl.reward import Goal
from rl.space import Space, build_space
from rl.table import Table
from rl.walk import Walk

ROUNDS = 4  # of measuring, learning and searching again
POINTS = 8  # of a front that are measured


@dataclass(frozen=True)
class Request:
    """What is asked for. `weights`: auto, cold or warm, as in `codegen price`."""

    model: Path
    board: Board
    shapes: Shapes = field(default_factory=dict)
    agent: str = "qlearning"
    budget: Budget = Budget()
    seed: int = 0
    limits: Limits = Limits()
    weights: str = "auto"
    jobs: int = 0
    selection: Selection = Selection()
    timeout_s: float = 1800.0
    pareto: tuple[str, ...] = ()  # axes of the front that is wanted, too
    prior: Mapping[str, float] = field(default_factory=dict)  # rl/transfer.py


@dataclass(frozen=True)
class Tools:
    """What measures. `stage` and `progress` are told what is going on."""

    runner: Runner
    checker: Runner | None
    toolchain: Toolchain
    store: Store
    stage: Callable[[str], None] = lambda text: None
    progress: Callable[[int, int], None] = lambda done, of: None


@dataclass(frozen=True)
class Tuned:
    """What came out. `chosen` is the best finalist within the limits; `gap` is by how much the
    agent's plan is worse than the exact optimum, by the table and goal (0.01 = 1 %). `rounds` of
    measuring, `stable`: the last one proposed nothing new. `interrupted`: the user ended it."""

    chosen: Finalist
    finalists: tuple[Finalist, ...]
    space: Space
    priced: Priced
    found: Found
    best: Optimum
    goal: Goal
    learnt: Table
    wrong: tuple[dict[str, str], ...]
    rounds: int
    stable: bool
    interrupted: bool

    @property
    def gap(self) -> float | None:
        """None where there was no time for the agent."""
        if not self.found.curve:
            return None
        return self.found.value / self.best.value - 1.0 if self.best.value else 0.0


def tune(request: Request, tools: Tools) -> Tuned:
    """Search. CodegenError for wrong input, PricingError where the board fails. Ctrl-C ends the
    phase that runs, and the result is the best of what is known by then."""
    agent = make_agent(request.agent)
    tools.stage("importing")
    graph, _ = computed_graph(request.model, request.board, request.shapes)
    sha = model_hash(request.model, request.shapes)
    default = generate(request.model, request.board, None, request.shapes)
    interrupts = Interrupts()
    priced = _price(request, tools, graph, default, interrupts)
    space = build_space(graph, request.board, priced.table)
    walk = Walk(space)

    @cache
    def arena(choices: Choices) -> int:
        return true_arena(graph, plan_of(space, choices, sha), request.board)

    tools.stage("searching")
    goal = goal_for(walk, request.limits, arena)
    best = exact_of(walk, goal)
    found = Found(best.choices, best.value, ())  # an agent that does not run has no curve
    with interrupts.caught():
        interrupts.check()
        found = agent.search(
            Problem(walk, goal, request.seed, request.budget, interrupts.stopped, request.prior)
        )

    bench = Bench(request.model, request.shapes, request.board, tools.runner, tools.checker,
                  tools.toolchain, tools.store, request.timeout_s)  # fmt: skip
    contest = Contest(graph, bench, priced.table, tools.stage)
    greedy = make_agent("greedy").search(Problem(walk, goal))
    first = [(agent.name, plan_of(space, found.choices, sha)),
             ("exact", plan_of(space, best.choices, sha)),
             ("greedy", plan_of(space, greedy.choices, sha)),
             ("default", bare(default))]  # fmt: skip

    def propose(table: Table) -> Iterator[tuple[str, Plan]]:
        yield from _proposals(request, agent, goal, build_space(graph, request.board, table), sha,
                              interrupts)  # fmt: skip

    rounds, stable = 0, False
    with interrupts.caught():
        rounds, stable = run_contest(contest, first, propose, ROUNDS, interrupts.stopped)
        for point in _thinned(front(walk, request.pareto, arena)) if request.pareto else ():
            contest.enter("front", plan_of(space, point.choices, sha))
    if interrupts.stopped() and not contest.sound():
        chosen = _not_run(contest, *first[1])
    else:
        chosen = choose(contest, request.limits, request.board, priced.table.unit)
    return Tuned(
        chosen, tuple(contest.finalists.values()), space, priced, found, best, goal,
        contest.learnt, tuple(contest.wrong), rounds, stable, interrupts.stopped(),
    )  # fmt: skip


def _not_run(contest: Contest, name: str, plan: Plan) -> Finalist:
    """The best plan of the table, when there was no time to run any."""
    generated = finish(contest.graph, plan, contest.bench.board, contest.bench.model.name)
    measured = EndToEnd(0.0, (), generated.schedule.arena_bytes, 0, "not run: interrupted")
    return Finalist((name,), generated, predicted(generated, contest.table), measured)


class Interrupts:
    """Ctrl-C ends a phase, not the program."""

    def __init__(self) -> None:
        self._seen = False

    def stopped(self) -> bool:
        """Whether the user wants it to end."""
        return self._seen

    def check(self) -> None:
        """KeyboardInterrupt where it was pressed before."""
        if self._seen:
            raise KeyboardInterrupt

    @contextmanager
    def caught(self) -> Iterator[None]:
        """Go on behind the block when it is interrupted."""
        try:
            yield
        except KeyboardInterrupt:
            self._seen = True


def _price(
    request: Request, tools: Tools, graph: Graph, default: Generated, interrupts: Interrupts
) -> Priced:
    """Phase 1. What the default plan takes is priced in any case."""
    tools.stage("measuring candidates")
    warm = request.weights == "warm" or (
        request.weights == "auto" and warm_weights(default.schedule, request.board)
    )
    settings = Settings(warm, jobs=request.jobs, timeout_s=request.timeout_s)
    more: dict[Signature, set[str]] = {}
    for part in plan_parts(default.graph, default.plan, default.schedule.program):
        more.setdefault(part.signature, set()).add(part.candidate.kernel)

    def price(most: int) -> Priced:
        return price_network(graph, request.board, tools.runner, tools.store, settings,
                             request.selection, tools.progress, more, most)  # fmt: skip

    with interrupts.caught():
        return price(request.budget.measurements)
    return price(-1)  # what is known by now


def _thinned(points: list[Point]) -> list[Point]:
    """Both ends of a front and some between them: each is built and run."""
    if len(points) <= POINTS:
        return points
    at = {round(i * (len(points) - 1) / (POINTS - 1)) for i in range(POINTS)}
    return [points[i] for i in sorted(at)]


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


def _proposals(
    request: Request, agent: Agent, goal: Goal, space: Space, sha: str, interrupts: Interrupts
) -> Iterator[tuple[str, Plan]]:
    """What the corrected table finds: the agent's plan, and the exact one."""
    walk = Walk(space)
    best = exact_of(walk, goal)
    found = agent.search(Problem(walk, goal, request.seed, request.budget, interrupts.stopped))
    yield f"{agent.name}, corrected", plan_of(space, found.choices, sha)
    yield "exact, corrected", plan_of(space, best.choices, sha)


def bare(generated: Generated) -> Plan:
    """A plan's decisions, without what lowering filled in; layouts that mean nothing are ONNX
    order, as in the space, so that equal plans are equal."""
    graph, plan = generated.graph, generated.plan
    nodes = {
        n.name: replace(c, layout="nchw") if is_flat(graph, n) else c
        for n in graph.nodes if (c := plan.nodes.get(n.name))
    }  # fmt: skip
    return replace(plan, nodes=nodes, order=(), conversions=(), predicted={})


def true_arena(graph: Graph, plan: Plan, board: Board) -> int:
    """Bytes, as the build allocates it."""
    return allocate(lower(regroup(graph, plan.groups), plan, board)).arena_bytes


def choose(contest: Contest, limits: Limits, board: Board, unit: str) -> Finalist:
    """The fastest finalist within the limits; of the first, where several are alike. CodegenError
    where none runs, or none keeps the limits."""
    sound = contest.sound()
    if not sound:
        first = next(iter(contest.finalists.values()))
        raise CodegenError(
            str(contest.bench.model),
            f"no plan works on {board.name}: {first.measured.error}",
            "a plan that compiles, runs and computes what it should",
            "see `codegen build` and `codegen verify`",
        )
    kept = [f for f in sound if within(f, limits, board, unit)]
    if not kept:
        nearest = min(sound, key=lambda f: f.measured.cost)
        raise CodegenError(
            "limits",
            f"the fastest plan found takes {milliseconds(nearest.measured.cost, unit, board):.3f} "
            f"ms, {nearest.measured.arena_bytes} bytes of arena and "
            f"{nearest.measured.flash_bytes} of flash",
            "plans within --max-latency, --max-arena and --max-flash together",
            "allow more",
        )
    return min(kept, key=lambda f: f.measured.cost)


def within(finalist: Finalist, limits: Limits, board: Board, unit: str) -> bool:
    """Whether a plan as measured keeps the limits."""
    m = finalist.measured
    return (
        (not limits.arena or m.arena_bytes <= limits.arena)
        and (not limits.flash or m.flash_bytes <= limits.flash)
        and (not limits.latency_ms or milliseconds(m.cost, unit, board) <= limits.latency_ms)
    )


def milliseconds(cost: float, unit: str, board: Board) -> float:
    """The table's unit as time at the board's clock."""
    return cost / 1e6 if unit == "ns" else 1e3 * cost / board.clock_hz


__all__ = ["Request", "Tools", "Tuned", "flash_of", "milliseconds", "tune"]
