"""One network on one board: agents on the price table, and uniform plans measured whole."""

import os
import statistics
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from codegen.board import Board
from codegen.pricing import Settings, plan_parts, ready
from codegen.run import pick_runner
from codegen.store import Store, store_path
from rl.agents import Agent, Budget, Problem, make_agent
from rl.agents.qlearning import QLearning
from rl.agents.rules import RULES
from rl.assignment import Choices, plan_of, steps_of
from rl.finalists import Contest
from rl.formula import formula_table
from rl.guess import filled
from rl.limits import Limits, goal_for
from rl.network import Bench
from rl.pareto import front
from rl.proposals import exact_of
from rl.reward import LATENCY, Goal
from rl.space import Space, build_space
from rl.tune import Request, Tools, Tuned, milliseconds, true_arena, tune
from rl.walk import Walk

EPISODES, LONG = 1000, 10_000
LEARNERS = ("qlearning", "random", "annealing", "evolution")
FIXED = ("greedy", "lookahead", "fastest")
# Episodes at which curves are looked at.
AT = (1, 2, 3, 5, 8, 12, 20, 35, 60, 100, 160, 250, 400, 500, 600, 700, 800, 900, 1000)
SWEEP = [
    {}, {"learning_rate": 0.05, "discount": 0.9}, {"learning_rate": 0.05}, {"discount": 0.9},
    {"learning_rate": 0.2}, {"learning_rate": 1.0}, {"replay": 0}, {"replay": 512},
    {"explore": 0.0}, {"explore": 0.7}, {"epsilon_steps": 3},
]  # fmt: skip


@dataclass(frozen=True)
class Extent:
    """What is measured of a network: agents over so many `seeds`; also uniform plans run `whole`,
    the `sweep` of hyper-parameters, and the `time` that `codegen tune` takes with an empty store
    and again with what it has left there."""

    seeds: int = 10
    whole: bool = False
    sweep: bool = False
    time: bool = False


def run(model: Path, board: Board, jobs: int, extent: Extent) -> dict[str, Any]:
    """Everything that docs/SEARCH.md says of a network."""
    seeds, seconds = extent.seeds, timed(model, board, jobs) if extent.time else {}
    tools = tools_for(board, jobs)
    tuned = tune(Request(model, board, jobs=jobs), tools)
    walk = Walk(tuned.space)
    best = tuned.best.value
    rules = filled(tuned.priced.table, formula_table(tuned.space.graph, board))
    full = Walk(build_space(tuned.space.graph, board, rules))
    out: dict[str, Any] = {
        "model": model.stem,
        "board": board.name,
        "layers": sum(bool(s.actions) for s in tuned.space.stages),
        "candidates": tuned.priced.candidates,
        "plans": tuned.space.plans,
        "optimum_ms": milliseconds(best, tuned.priced.table.unit, board),
        "states": tuned.best.states,
        "agents": {n: learner(walk, lambda n=n: make_agent(n), best, seeds) for n in LEARNERS},
        "long_random": gap(walk, make_agent("random"), best, 0, LONG),
        "fixed": {n: gap(walk, make_agent(n), best) for n in FIXED},
        "rules": {n: gap(full, make_agent(n), best) for n in RULES},
        "arena": arenas(walk, tuned),
        "finalists": [_finalist(tuned, f) for f in tuned.finalists],
        "chosen": list(tuned.chosen.names),
        "steps": steps(tuned),
        "rounds": tuned.rounds,
        **seconds,
    }
    if extent.sweep:
        out["sweep"] = [
            {**s, **learner(walk, lambda s=s: QLearning(**s), best, seeds)} for s in SWEEP
        ]
    if extent.whole:
        out["whole"] = uniform(full.space, tuned, model, tools)
    return out


def tools_for(board: Board, jobs: int) -> Tools:
    """The virtual board and the user's store."""
    runner = pick_runner(board, "virtual")
    toolchain = ready(board, runner, Settings(jobs=jobs))
    return Tools(runner, pick_runner(board), toolchain, Store(store_path()))


def timed(model: Path, board: Board, jobs: int) -> dict[str, float]:
    """Seconds of a search that finds nothing in the store, and of the same one again; those of
    processors, too, which do not depend on what else the machine does."""
    out = {}
    with tempfile.TemporaryDirectory(prefix="codegen-search-") as name:
        tools = replace(tools_for(board, jobs), store=Store(Path(name) / "store.sqlite"))
        for which in ("cold", "warm"):
            start, before = time.monotonic(), sum(os.times()[:4])
            tune(Request(model, board, jobs=jobs), tools)
            out[f"{which}_s"] = round(time.monotonic() - start, 1)
            out[f"{which}_cpu_s"] = round(sum(os.times()[:4]) - before, 1)
    return out


def arenas(walk: Walk, tuned: Tuned) -> dict[str, Any]:
    """Plans between the fastest and the one with the smallest arena, as [ms by the table, bytes];
    the step that needs most memory in the last one; the fastest plan in which no kernel computes
    several nodes; and what greedy and Q-learning make of the smallest arena as a limit."""
    space, unit, sha = walk.space, tuned.priced.table.unit, tuned.chosen.plan.model_sha256

    def arena(choices: Choices, of: Space = space) -> int:
        return true_arena(space.graph, plan_of(of, choices, sha), space.board)

    def told(latency: float, size: float) -> list[float]:
        return [milliseconds(latency, unit, space.board), size]

    points = front(walk, ("latency", "arena"), arena)
    stages = [replace(s, actions=tuple(a for a in s.actions if not a.group)) for s in space.stages]
    apart = replace(space, stages=tuple(stages))
    alone = exact_of(Walk(apart), LATENCY)
    goal = goal_for(walk, Limits(arena=int(points[-1].arena)), arena)
    least = exact_of(walk, goal).value
    limited = {n: gap(walk, make_agent(n), least, goal=goal) for n in ("greedy", "qlearning")}
    steps = steps_of(walk, points[-1].choices)
    at = max(range(len(steps)), key=lambda i: steps[i].held + steps[i].scratch)
    kernel = space.stages[at].actions[steps[at].action].kernel if steps[at].action >= 0 else ""
    return {
        "points": [told(p.latency, p.arena) for p in points],
        "apart": told(alone.value, arena(alone.choices, apart)),
        "limited": {n: g if g < float("inf") else None for n, g in limited.items()},
        "peak": {"layer": steps[at].name, "kernel": kernel, "held": steps[at].held,
                 "scratch": steps[at].scratch},
    }  # fmt: skip


def steps(tuned: Tuned) -> list[dict[str, Any]]:
    """The chosen plan step by step: what the table says, and what was measured in the network."""
    table, board = tuned.priced.table, tuned.space.board
    generated, graph = tuned.chosen.generated, tuned.space.graph
    program = generated.schedule.program
    size = {w.symbol: w.array.nbytes for w in program.weights}
    parts = plan_parts(generated.graph, generated.plan, program)
    out = []
    for step, part, cost in zip(program.steps, parts, tuned.chosen.measured.steps, strict=True):
        price = table.layers.get(part.signature.key, {}).get(str(part.candidate))
        if price is None:  # a copy to an output, say
            continue
        out.append({
            "step": step.name,
            "ms": milliseconds(cost, table.unit, board),
            "table_ms": milliseconds(part.share * price.cost, table.unit, board),
            "reads_input": any(program.root(k)[0] in graph.inputs for k in step.reads),
            "weights_bytes": sum(size[a[1:]] for a in step.args if a.startswith("&")),
        })  # fmt: skip
    return out


def learner(walk: Walk, make: Callable[[], Agent], best: float, seeds: int) -> dict[str, Any]:
    """Gaps to the optimum over seeds: last, and along the episodes as (mean, least, most)."""
    curves, start = [], time.monotonic()
    for seed in range(seeds):
        problem = Problem(walk, seed=seed, budget=Budget(episodes=EPISODES))
        curves.append(make().search(problem).curve)
    seconds = (time.monotonic() - start) / seeds
    last = [c[-1] / best - 1 for c in curves]
    return {
        "gap_mean": statistics.mean(last),
        "gap_most": max(last),
        "within_1_percent": sum(g <= 0.01 for g in last),
        "seeds": seeds,
        "seconds": round(seconds, 2),
        "curve": [[e, *_spread([c[min(e, len(c)) - 1] / best - 1 for c in curves])] for e in AT],
    }


def gap(
    walk: Walk, agent: Agent, best: float, seed: int = 0, episodes: int = 0, goal: Goal = LATENCY
) -> float:
    """How much worse than the optimum an agent's plan is."""
    found = agent.search(Problem(walk, goal, seed, Budget(episodes=episodes)))
    return found.value / best - 1


def uniform(space: Space, tuned: Tuned, model: Path, tools: Tools) -> Mapping[str, float | None]:
    """Milliseconds of the plans by rules, built and run whole; None where one does not run."""
    board = space.board
    bench = Bench(model, {}, board, tools.runner, tools.checker, tools.toolchain, tools.store)
    contest = Contest(space.graph, bench, space.table, lambda text: None)
    sha, walk, out = tuned.chosen.plan.model_sha256, Walk(space), {}
    for name in RULES:
        choices = make_agent(name).search(Problem(walk)).choices
        plan = plan_of(space, choices, sha)
        contest.enter(name, plan)
        measured = contest.finalists[plan.sha256].measured
        out[name] = None if measured.error else milliseconds(
            measured.cost, tuned.priced.table.unit, board)  # fmt: skip
    return out


def _finalist(tuned: Tuned, f: Any) -> dict[str, Any]:
    unit, board = tuned.priced.table.unit, tuned.space.board
    return {
        "names": list(f.names),
        "ms": None if f.measured.error else milliseconds(f.measured.cost, unit, board),
        "predicted_ms": None if f.predicted is None else milliseconds(f.predicted, unit, board),
        "arena_bytes": f.measured.arena_bytes,
        "flash_bytes": f.measured.flash_bytes,
    }


def _spread(values: Sequence[float]) -> tuple[float, float, float]:
    return statistics.mean(values), min(values), max(values)
