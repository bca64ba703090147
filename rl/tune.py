"""Model and board -> the best plan found, with what is known of it. Three phases: price candidates
(rl/measure.py), search the table (rl/agents), build and run the finalists whole (rl/finalists.py).
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import cache, partial
from pathlib import Path

from codegen.accuracy.gauge import Gauge, check_classes, check_unseen, gauge_of
from codegen.board import Board
from codegen.graph import Graph
from codegen.groups import regroup
from codegen.memory import allocate
from codegen.onnx_import import import_onnx
from codegen.passes.dequantise import Twin
from codegen.pipeline import (
    Generated,
    calibration_of,
    computed_graph,
    finish,
    generate,
    model_hash,
    twin_of,
)
from codegen.plan import Plan
from codegen.pricing import Settings, plan_parts, warm_weights
from codegen.pricing.trials import is_flat
from codegen.run import Runner
from codegen.schedule import lower
from codegen.signature import Signature
from codegen.store import Store
from codegen.toolchain import Toolchain
from codegen.types import DType
from rl.agents import Found, Problem, make_agent
from rl.asked import check
from rl.assignment import Choices, plan_of
from rl.choice import Judge, choose, milliseconds
from rl.codes import Codes, codes_as_they_came, codes_of
from rl.correction import predicted
from rl.exact import Optimum, optimum
from rl.finalists import Contest, Finalist, run_contest
from rl.guard import Guard
from rl.interrupts import Interrupts
from rl.limits import flash_of, goal_for
from rl.measure import Priced, price_network
from rl.network import Bench, EndToEnd, measure_network
from rl.pareto import Point, front
from rl.proposals import Proposals, exact_of, levels, spaces
from rl.request import Request
from rl.reward import Goal
from rl.space import Space, build_space, in_floats
from rl.table import Table
from rl.walk import Walk

ROUNDS = 4  # of measuring, learning and searching again
POINTS = 8  # of a front that are measured


@dataclass(frozen=True)
class Tools:
    """What measures. `stage` and `progress` are told what is going on; in `objects` stay kernels
    that were compiled to judge a plan."""

    runner: Runner
    checker: Runner | None
    toolchain: Toolchain
    store: Store
    stage: Callable[[str], None] = lambda text: None
    progress: Callable[[int, int], None] = lambda done, of: None
    objects: Path | None = None


@dataclass(frozen=True)
class Tuned:
    """What came out. `chosen` is the best finalist within the limits; `gap` is by how much the
    agent's plan is worse than the exact optimum, by the table and goal (0.01 = 1 %). `rounds` of
    measuring, `stable`: the last one proposed nothing new. `interrupted`: the user ended it.
    `rejected`: why finalists do not keep the limits on all of the data, by their identity.
    `as_it_came`: why no layer of a network that came quantised may be in float32."""

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
    rejected: Mapping[str, str]
    as_it_came: str = ""

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
    twin = _twin(request)
    check(request, tools.checker, isinstance(twin, Twin))
    graph, dtype, codes = _typed(request, twin)
    sha = model_hash(request.model, request.shapes)
    as_plan = partial(plan_of, model_sha256=sha, dtype=dtype)
    gauge = _gauge(request, tools)
    defaults = _defaults(request, dtype)
    interrupts = Interrupts()
    priced = _price(request, tools, graph, codes, defaults, interrupts)
    space = build_space(graph, request.board, priced.table, codes)
    walk = Walk(space)

    def arena_in(part: Space) -> Callable[[Choices], int]:
        def arena(choices: Choices) -> int:
            plan = as_plan(part, choices)
            return true_arena(codes.graph_for(plan.bits) if codes else graph, plan, request.board)

        return cache(arena)

    tools.stage("searching")
    guard = Guard(request.limits)
    goal = goal_for(walk, request.limits, arena_in(space), loss=guard.loss)
    best = exact_of(walk, goal)
    found = Found(best.choices, best.value, ())  # an agent that does not run has no curve
    with interrupts.caught():
        interrupts.check()
        found = agent.search(
            Problem(walk, goal, request.seed, request.budget, interrupts.stopped, request.prior)
        )

    bench = Bench(request.model, request.shapes, request.board, tools.runner, tools.checker,
                  tools.toolchain, tools.store, request.timeout_s, request.exactness,
                  gauge, tools.objects)  # fmt: skip
    contest = Contest(graph, bench, priced.table, tools.stage, codes=codes)
    greedy = make_agent("greedy").search(Problem(walk, goal))
    first = [(agent.name, as_plan(space, found.choices)), ("exact", as_plan(space, best.choices)),
             ("greedy", as_plan(space, greedy.choices)),
             *((name, bare(plan)) for name, plan in defaults.items())]  # fmt: skip
    if codes and (single := optimum(Walk(in_floats(space)), replace(goal, loss_price=0.0))):
        first.append(("exact in float32", as_plan(in_floats(space), single.choices)))

    propose = Proposals(request, agent, goal, guard, contest, as_plan, interrupts.stopped)
    rounds, stable = 0, False
    with interrupts.caught():
        rounds, stable = run_contest(contest, first, propose, ROUNDS + guard.rounds,
                                     interrupts.stopped)
        for part in spaces(request, space) if request.pareto else ():
            for point in _thinned(front(Walk(part), request.pareto, arena_in(part))):
                contest.enter("front", as_plan(part, point.choices))
    if interrupts.stopped() and not contest.sound():
        chosen = _not_run(contest, *first[1])
    else:
        taken = partial(choose, contest, request.limits, request.board, priced.table.unit)
        with interrupts.caught():
            interrupts.check()
            chosen = taken(_judge(request, tools, bench))
        if interrupts.stopped():
            chosen = taken()
    return Tuned(
        chosen, tuple(contest.finalists.values()), space, priced, found, best, goal,
        contest.learnt, tuple(contest.wrong), rounds, stable, interrupts.stopped(),
        contest.rejected, twin if isinstance(twin, str) else "",
    )  # fmt: skip


def _not_run(contest: Contest, name: str, plan: Plan) -> Finalist:
    """The best plan of the table, when there was no time to run any."""
    network, bench = contest.network(plan), contest.bench
    generated = finish(network, plan, bench.board, bench.model.name)
    measured = EndToEnd(0.0, (), generated.schedule.arena_bytes, 0, "not run: interrupted")
    return Finalist((name,), generated, predicted(generated, contest.table), measured)


def _price(
    request: Request,
    tools: Tools,
    graph: Graph,
    codes: Codes | None,
    defaults: Mapping[str, Generated],
    interrupts: Interrupts,
) -> Priced:
    """Phase 1. What default plans take is priced in any case."""
    tools.stage("measuring candidates")
    warm = request.weights == "warm" or (
        request.weights == "auto" and warm_weights(defaults["default"].schedule, request.board)
    )
    settings = Settings(warm, jobs=request.jobs, timeout_s=request.timeout_s)
    more: dict[Signature, set[str]] = {}
    for plan in defaults.values():
        for part in plan_parts(plan.graph, plan.plan, plan.schedule.program):
            more.setdefault(part.signature, set()).add(part.candidate.kernel)

    def price(most: int) -> Priced:
        return price_network(graph, request.board, tools.runner, tools.store, settings,
                             request.selection, tools.progress, more, most,
                             codes)  # fmt: skip

    with interrupts.caught():
        return price(request.budget.measurements)
    return price(-1)  # what is known by now


def _thinned(points: list[Point]) -> list[Point]:
    """Both ends of a front and some between them: each is built and run."""
    if len(points) <= POINTS:
        return points
    at = {round(i * (len(points) - 1) / (POINTS - 1)) for i in range(POINTS)}
    return [points[i] for i in sorted(at)]


def _defaults(request: Request, dtype: str) -> dict[str, Generated]:
    """The plan of `codegen build` and, where digits count, careful ones."""
    make = partial(generate, request.model, request.board, None, request.shapes, dtype=dtype)
    made = {"default": make()}
    made |= {f"default, careful {n}": make(careful=n) for n in levels(request)}
    if request.calibration:
        made["default in int8"] = make(dtype="", calibration=request.calibration)
    return made


def _twin(request: Request) -> Twin | str | None:
    """Of a network that came quantised the one in float32, if layers may be in either type."""
    if request.dtype or request.calibration or request.exactness:
        return None
    return twin_of(import_onnx(request.model, request.shapes))


def _typed(request: Request, twin: Twin | str | None) -> tuple[Graph, str, Codes | None]:
    """The network, the type of its plans, and what of it may be in int8."""
    board, shapes = request.board, request.shapes
    if isinstance(twin, Twin):
        return twin.graph, DType.I8.value, codes_as_they_came(twin, board)
    graph, dtype = computed_graph(request.model, board, shapes, dtype=request.dtype)
    if request.calibration is None:
        return graph, dtype, None
    known = calibration_of(request.calibration, model_hash(request.model, shapes))
    return graph, dtype, codes_of(graph, board, known)


def _gauge(request: Request, tools: Tools) -> Gauge | None:
    if request.data is None:
        return None
    tools.stage("running the float model")
    made = gauge_of(request.model, request.shapes, request.data, request.samples, request.seed)
    check_classes(made, "--data")
    if request.calibration:
        sha = model_hash(request.model, request.shapes)
        check_unseen(made, calibration_of(request.calibration, sha), "--data")
    return made


def _judge(request: Request, tools: Tools, bench: Bench) -> Judge | None:
    """How a plan does on all of the data, where plans were judged on some of it."""
    if not request.limits.judged or len(bench.gauge) == len(request.data):
        return None
    whole = replace(bench, gauge=_gauge(replace(request, samples=None), tools))

    def judge(finalist: Finalist) -> EndToEnd:
        tools.stage(f"judging on all samples ({', '.join(finalist.names)})")
        return measure_network(finalist.generated, whole)

    return judge


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


__all__ = ["Request", "Tools", "Tuned", "flash_of", "milliseconds", "tune"]
