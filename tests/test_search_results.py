"""What a search leaves behind: fronts, picks, explanations, corrections and guesses."""

import dataclasses
import json
import math
import random

import pytest
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st

from codegen.cli import cli
from codegen.errors import CodegenError
from codegen.exactness import LIMITS
from codegen.pipeline import finish, load_graph
from codegen.plan import read_plan
from codegen.pricing import plan_parts
from rl.active import select
from rl.agents import Budget, Problem
from rl.agents.qlearning import QLearning
from rl.assignment import choices_of, cost_of, plan_of, repaired, steps_of
from rl.correction import Observation, corrected, observe, predicted, without
from rl.exact import optimum
from rl.explain import explain, read_explanation, to_text
from rl.finalists import Finalist
from rl.formula import formula_table
from rl.front_file import pick
from rl.front_file import to_text as front_text
from rl.guess import filled, learn
from rl.limits import Limits, flash_of, goal_for
from rl.network import EndToEnd
from rl.pareto import Point, front, hypervolume, parse_axes, undominated
from rl.reward import Goal
from rl.space import build_space, careful
from rl.table import Price, Table, read_table
from rl.transfer import read_learnt
from rl.transfer import to_text as learnt_text
from rl.tune import true_arena
from rl.walk import Walk
from tests.search_cases import BOARD, KWS, RESNET, VWW

QUICK = settings(deadline=None, max_examples=60, derandomize=True, database=None)
AXES = ("latency", "arena", "flash")


@pytest.fixture(scope="module")
def walk() -> Walk:
    graph = load_graph(KWS)
    return Walk(build_space(graph, BOARD, formula_table(graph, BOARD)))


@pytest.fixture(scope="module")
def generated(walk):
    return finish(walk.space.graph, plan_of(walk.space, optimum(walk).choices, "0" * 64), BOARD,
                  "kws")  # fmt: skip


def arena_in(walk: Walk):
    return lambda choices: true_arena(walk.space.graph, plan_of(walk.space, choices, ""), BOARD)


# ---- tables ----


def test_a_table_survives_its_file(walk, tmp_path):
    (tmp_path / "t.json").write_text(walk.space.table.to_json())
    assert read_table(tmp_path / "t.json") == walk.space.table


@pytest.mark.parametrize("text", ["", "[]", '{"schema": 2}', '{"schema": 1, "layers": {}}'])
def test_files_that_are_no_tables(text, tmp_path):
    (tmp_path / "t.json").write_text(text)
    with pytest.raises(CodegenError, match="cannot be read as a price table"):
        read_table(tmp_path / "t.json")


def test_guesses_follow_what_a_row_took(walk):
    """Half of the candidates take three times what the formula says; so the others should."""
    formula = walk.space.table
    some = {
        key: {n: dataclasses.replace(p, cost=3 * p.cost, guessed=False)
              for i, (n, p) in enumerate(sorted(found.items())) if i % 2 == 0}
        for key, found in formula.layers.items()
    }  # fmt: skip
    measured = dataclasses.replace(formula, layers=some)
    table = filled(measured, formula)
    for key, found in formula.layers.items():
        assert table.layers[key].keys() == found.keys()
        for name, p in table.layers[key].items():
            assert p.guessed == (name not in some[key])
            assert p.cost / found[name].cost == pytest.approx(3.0, rel=0.15)
    cost, spread = learn(measured, formula).expect("a row never seen", 10.0)
    assert cost == pytest.approx(30.0, rel=0.15)
    assert spread > 0


def test_active_measuring_finds_the_optimum_with_fewer_measurements(vww):
    """The truth is the formula, distorted per row and per candidate."""
    graph, formula, rng = vww.space.graph, vww.space.table, random.Random(4)
    rows = {n.split()[0] for found in formula.layers.values() for n in found}
    factor = {row: math.exp(rng.gauss(0, 0.3)) for row in sorted(rows)}
    truth = dataclasses.replace(formula, layers={
        key: {n: Price(p.cost * factor[n.split()[0]] * math.exp(rng.gauss(0, 0.05)))
              for n, p in sorted(found.items())}
        for key, found in formula.layers.items()
    })  # fmt: skip
    known: dict[str, dict[str, Price]] = {}

    def measure(wanted):
        for signature, kernels in wanted.items():
            known.setdefault(signature.key, {}).update(
                (n, p) for n, p in truth.layers[signature.key].items() if n.split()[0] in kernels
            )
        return dataclasses.replace(truth, layers={k: dict(v) for k, v in known.items()})

    nothing = dataclasses.replace(truth, layers={})
    table = select(graph, BOARD, formula, nothing, measure)
    measured = sum(map(len, table.layers.values()))
    assert 0 < measured < 0.4 * sum(map(len, truth.layers.values()))
    found = Walk(build_space(graph, BOARD, filled(table, formula)))
    plan = plan_of(found.space, optimum(found).choices, "")
    real = Walk(build_space(graph, BOARD, truth))
    assert cost_of(real, choices_of(real.space, plan)) <= 1.03 * optimum(real).value
    stuck = select(graph, BOARD, formula, nothing, lambda wanted: nothing)
    assert stuck == nothing  # a budget of no measurements


# ---- corrections ----


def test_the_table_predicts_what_the_walk_does(walk, generated):
    assert predicted(generated, walk.space.table) == pytest.approx(optimum(walk).value)
    nothing = dataclasses.replace(walk.space.table, layers={})
    assert predicted(generated, nothing) is None


def test_what_was_measured_replaces_the_price_and_moves_its_rivals(walk, generated):
    table = walk.space.table
    parts = plan_parts(generated.graph, generated.plan, generated.schedule.program)
    costs = [1.25 * p.share * table.layers[p.signature.key][str(p.candidate)].cost for p in parts]
    learnt = corrected(table, observe(generated, costs))
    assert predicted(generated, learnt) == pytest.approx(1.25 * optimum(walk).value)
    for part in parts:
        for name, price in learnt.layers[part.signature.key].items():
            assert price.cost == pytest.approx(1.25 * table.layers[part.signature.key][name].cost)
    assert corrected(table, []) == table


def test_candidates_keep_their_own_ratio(walk, generated):
    part = plan_parts(generated.graph, generated.plan, generated.schedule.program)[0]
    table, key = walk.space.table, part.signature.key
    other = next(n for n in table.layers[key] if n != str(part.candidate))
    rival = dataclasses.replace(
        part, candidate=dataclasses.replace(part.candidate, kernel=other.split()[0],
                                            layout=other.split()[1], come=other.split()[1])
    )  # fmt: skip
    prices = table.layers[key]
    seen = [Observation(part, 1.2 * prices[str(part.candidate)].cost),
            Observation(rival, 0.9 * prices[other].cost)]  # fmt: skip
    learnt = corrected(table, seen).layers[key]
    assert learnt[str(part.candidate)].cost == pytest.approx(seen[0].cost)
    assert learnt[other].cost == pytest.approx(seen[1].cost)


def test_a_wrong_candidate_leaves_the_space(walk, generated):
    part = plan_parts(generated.graph, generated.plan, generated.schedule.program)[0]
    table = without(walk.space.table, part, "wrong result")
    space = build_space(walk.space.graph, BOARD, table)
    assert part.candidate.kernel not in {
        a.kernel for a in space.stages[0].actions
        if a.layout == part.candidate.layout and not a.group
    }  # fmt: skip


# ---- limits ----


@pytest.fixture(scope="module")
def vww() -> Walk:
    graph = load_graph(VWW)
    return Walk(build_space(graph, BOARD, formula_table(graph, BOARD)))


@pytest.fixture(scope="module")
def resnet() -> Walk:
    graph = load_graph(RESNET)
    return Walk(build_space(graph, BOARD, formula_table(graph, BOARD)))


def test_a_smaller_arena_costs_time(resnet):
    arena = arena_in(resnet)
    fastest = optimum(resnet)
    limit = int(0.75 * arena(fastest.choices))
    small = optimum(resnet, goal_for(resnet, Limits(arena=limit), arena))
    assert arena(small.choices) <= limit
    assert small.value > fastest.value
    with pytest.raises(CodegenError, match="--max-arena: 100 bytes are not enough; the smallest"):
        goal_for(resnet, Limits(arena=100), arena)


def test_q_learning_keeps_the_smallest_arena(vww):
    """Steps that the limit forbids are learnt, though what they cost is infinite."""
    arena = arena_in(vww)
    least = int(front(vww, ("latency", "arena"), arena)[-1].arena)
    goal = goal_for(vww, Limits(arena=least), arena)
    found = QLearning().search(Problem(vww, goal, seed=3))
    assert found.value <= 1.01 * optimum(vww, goal).value
    assert arena(found.choices) <= least


def test_smaller_flash_costs_time():
    graph = load_graph(KWS)
    table = formula_table(graph, BOARD)
    layers = {  # the faster a row, the more code it has
        k: {n: dataclasses.replace(p, flash_bytes=int(1e9 / (p.cost + 1e3))) for n, p in v.items()}
        for k, v in table.layers.items()
    }
    walk = Walk(build_space(graph, BOARD, dataclasses.replace(table, layers=layers)))
    fastest = optimum(walk)
    least = optimum(walk, Goal(flash_price=1e9))
    limit = (flash_of(walk, fastest.choices) + flash_of(walk, least.choices)) // 2
    small = optimum(walk, goal_for(walk, Limits(flash=limit), arena_in(walk)))
    assert flash_of(walk, small.choices) <= limit
    assert cost_of(walk, small.choices) > fastest.value


# ---- fronts ----


@pytest.mark.parametrize("text", ["latency", "latency,latency", "latency,taste", ""])
def test_axes_that_are_none(text):
    with pytest.raises(CodegenError, match="--pareto: .*two or more of latency, .*, flash, error"):
        parse_axes(text)


points = st.lists(
    st.tuples(*[st.integers(0, 6)] * 3).map(lambda v: Point((), *map(float, v))), min_size=1,
    max_size=7,
)  # fmt: skip


@QUICK
@given(points)
def test_undominated_points(found):
    kept = undominated(found, AXES)
    for p in found:
        assert any(all(a <= b for a, b in zip(q.values(AXES), p.values(AXES), strict=True))
                   for q in kept)  # fmt: skip
    for p in kept:
        beaten = [q for q in kept if q is not p and all(
            a <= b for a, b in zip(q.values(AXES), p.values(AXES), strict=True))]  # fmt: skip
        assert not beaten


@QUICK
@given(points)
def test_hypervolume_is_the_cells_that_are_dominated(found):
    cells = sum(
        any(p.latency <= x and p.arena <= y and p.flash <= z for p in found)
        for x in range(6) for y in range(6) for z in range(6)
    )  # fmt: skip
    assert hypervolume(found, AXES, (6, 6, 6)) == pytest.approx(cells / 6**3)


def test_a_front_has_both_ends(resnet):
    found = front(resnet, ("latency", "arena"), arena_in(resnet))
    assert found[0].latency == pytest.approx(optimum(resnet).value)
    assert len(found) > 1
    sizes = [p.arena for p in found]
    assert sizes == sorted(set(sizes), reverse=True)
    for p in found:
        assert p.latency == pytest.approx(cost_of(resnet, p.choices))


@pytest.fixture
def front_path(walk, generated, tmp_path):
    figures = [(3.0, 100, 50, 1e-7), (2.0, 300, 60, 1e-5), (2.5, 400, 70, None), (9.0, 50, 40, 0.0)]
    made = [
        Finalist((str(i),), generated, ms, EndToEnd(ms, (), arena, flash, max_rel_error=off))
        for i, (ms, arena, flash, off) in enumerate(figures)
    ]
    (tmp_path / "front.json").write_text(front_text(made, AXES, BOARD, 1.0))
    return tmp_path / "front.json"


def test_picking_from_a_front(front_path, tmp_path):
    raw = json.loads(front_path.read_text())
    assert [p["latency_ms"] for p in raw["points"]] == [2.0, 3.0, 9.0]  # 2.5 ms is beaten
    assert 0 < raw["hypervolume"] < 1
    assert pick(front_path, Limits())["latency_ms"] == 2.0
    assert pick(front_path, Limits(arena=200))["latency_ms"] == 3.0
    assert pick(front_path, Limits(flash=45))["arena_bytes"] == 50
    assert pick(front_path, Limits(error=1e-6))["latency_ms"] == 3.0
    with pytest.raises(CodegenError, match="none of 3 plans keeps the limits; the least .* 50"):
        pick(front_path, Limits(arena=10))
    out = tmp_path / "picked.json"
    args = ["pick", str(front_path), "--max-arena", "200", "--out", str(out), "--json"]
    result = CliRunner().invoke(cli, args)
    assert json.loads(result.output)["latency_ms"] == 3.0
    assert read_plan(out).nodes


@pytest.mark.parametrize("text", ["", "{}", '{"points": [{}]}', '{"points": 3}'])
def test_files_that_are_no_fronts(text, tmp_path):
    (tmp_path / "front.json").write_text(text)
    with pytest.raises(CodegenError, match="cannot be read as a front"):
        pick(tmp_path / "front.json", Limits())


def test_an_error_that_was_not_measured_keeps_no_limit(front_path):
    raw = json.loads(front_path.read_text())
    for p in raw["points"]:
        p["max_rel_error"] = None
    front_path.write_text(json.dumps(raw))
    assert pick(front_path, Limits())["max_rel_error"] is None
    with pytest.raises(CodegenError, match="none of 3 plans keeps the limits"):
        pick(front_path, Limits(error=1.0))


def test_a_careful_space_has_no_rows_that_lose_digits():
    graph = load_graph(RESNET)
    space = build_space(graph, BOARD, formula_table(graph, BOARD))
    spaces = [space, careful(space, 1), careful(space, 2)]
    errors = [max(a.errors for s in x.stages for a in s.actions) for x in spaces]
    assert errors == sorted(set(errors), reverse=True)
    best = [optimum(Walk(x)).value for x in spaces]
    assert best == sorted(best)
    losing = [tuple(a for a in s.actions if a.errors > LIMITS[2]) for s in space.stages]
    only = [dataclasses.replace(s, actions=some or s.actions)
            for s, some in zip(space.stages, losing, strict=True)]  # fmt: skip
    stays = dataclasses.replace(space, stages=tuple(only))
    assert careful(stays, 2).stages == stays.stages


# ---- explanations ----


def test_alternatives_cost_what_the_walk_says(walk):
    best = optimum(walk)
    rows = explain(walk, best.choices, 1.0)
    stages = {s.name: i for i, s in enumerate(walk.stages)}
    assert len(rows) == sum(c >= 0 for c in best.choices)
    assert sum(r["layer_ms"] + r["conversions_ms"] for r in rows) <= best.value + 1e-3
    for row in rows:
        i = stages[row["node"]]
        assert all(a["plan_ms"] >= -1e-6 for a in row["alternatives"])  # it is the optimum
        for a in row["alternatives"]:
            k = next(
                k for k, x in enumerate(walk.stages[i].actions)
                if (x.kernel, x.layout, list(x.group)) == (a["kernel"], a["layout"], a["group"])
            )  # fmt: skip
            changed = repaired(walk, (*best.choices[:i], k, *best.choices[i + 1 :]))
            slower = cost_of(walk, changed) - best.value
            assert a["plan_ms"] == pytest.approx(slower, abs=1e-3)


def test_conversions_are_the_reason(walk):
    """Make one row of the other layout the cheapest, but not by what the conversions cost."""
    best = optimum(walk)
    i = next(i for i, s in enumerate(walk.stages) if s.node.op == "AveragePool")
    assert walk.stages[i].actions[best.choices[i]].layout == "nhwc"
    stage = walk.stages[i]
    rival = next(a for a in stage.actions if a.layout == "nchw" and not a.group)
    own = steps_of(walk, best.choices)[i].layer
    actions = tuple(
        dataclasses.replace(a, prices={"nchw": Price(0.9 * own)}) if a is rival else a
        for a in stage.actions
    )
    stages = list(walk.stages)
    stages[i] = dataclasses.replace(stage, actions=actions)
    changed = Walk(dataclasses.replace(walk.space, stages=tuple(stages)))
    row = next(r for r in explain(changed, best.choices, 1.0) if r["node"] == stage.name)
    assert row["why"].startswith(f"{rival.kernel} nchw takes")
    assert "more of layout changes" in row["why"]


def test_the_verb_explains(walk, generated, tmp_path):
    plan = generated.plan
    (tmp_path / "plan.json").write_text(plan.to_json())
    rows = explain(walk, choices_of(walk.space, plan), 1e-6)
    (tmp_path / "explain.json").write_text(to_text(plan, BOARD.name, rows))
    path = str(tmp_path / "plan.json")
    told = CliRunner().invoke(cli, ["explain", path, "--node", "dense"])
    assert told.exit_code == 0
    assert "dense_f32_neon" in told.output
    assert json.loads(CliRunner().invoke(cli, ["explain", path, "--json"]).output) == rows
    other = dataclasses.replace(plan, board="raspberry-pi-4")
    with pytest.raises(CodegenError, match="no explanation of this plan"):
        read_explanation(other, tmp_path / "explain.json")


def test_tables_of_nothing_price_nothing():
    assert Table("b", "ns", "cold", {}).price("layer", "k", "nchw", "nchw") is None


# ---- transfer ----


def test_what_was_learnt_survives_its_file(tmp_path):
    for name, value in (("a", 1.0), ("b", 3.0)):
        (tmp_path / name).mkdir()
        (tmp_path / name / "learnt.json").write_text(learnt_text({"x": value, name: 0.5}))
    found = read_learnt([tmp_path / "a", tmp_path / "b" / "learnt.json"])
    assert found == {"x": 2.0, "a": 0.5, "b": 0.5}
    with pytest.raises(CodegenError, match="cannot be read as learnt values"):
        read_learnt([tmp_path / "c"])


def test_values_start_the_search_on_another_network(walk):
    """Decisions are known by their layers: the same network under other names."""
    first = QLearning().search(Problem(walk, seed=1))
    graph = walk.space.graph
    nodes = tuple(dataclasses.replace(n, name=f"other/{n.name}") for n in graph.nodes)
    renamed = dataclasses.replace(graph, nodes=nodes)
    other = Walk(build_space(renamed, BOARD, walk.space.table))
    budget = Budget(episodes=1)
    cold = QLearning(explore=0.0).search(Problem(other, seed=2, budget=budget))
    warm = QLearning(explore=0.0).search(Problem(other, seed=2, budget=budget, prior=first.learnt))
    assert warm.value < cold.value
