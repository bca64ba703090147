"""Searches in which layers may be in int8: limits on losses, and the verb from data to plan."""

import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from click.testing import CliRunner

from codegen.calibration.data import open_data
from codegen.cli import cli
from codegen.errors import CodegenError
from codegen.pipeline import load_graph
from codegen.plan import read_plan
from codegen.resources import examples_dir
from rl.asked import check
from rl.assignment import plan_of
from rl.choice import choose, inaccurate, used
from rl.codes import codes_of
from rl.exact import optimum
from rl.explain import explain
from rl.finalists import Finalist
from rl.front_file import pick
from rl.guard import Guard
from rl.limits import Limits, loss_of, within_loss
from rl.network import EndToEnd
from rl.pareto import front
from rl.proposals import promises
from rl.request import Request
from rl.reward import LATENCY
from rl.tune import _gauge
from rl.walk import Walk
from tests.pricing_cases import needs_cross
from tests.search_cases import BOARD, KWS, mixed, unranged

RESNET = examples_dir() / "models" / "mlperf_ic_resnet8.onnx"


@pytest.fixture(scope="module")
def walk() -> Walk:
    """Float rows cost what they are drawn at, but no less than 10; those of int8 and casts a
    thousandth."""
    space = mixed(load_graph(KWS))

    def cheap(action):
        prices = {k: replace(p, cost=p.cost / 1000 if action.bits else max(10.0, p.cost))
                  for k, p in action.prices.items()}  # fmt: skip
        return replace(action, prices=prices)

    stages = tuple(replace(s, actions=tuple(map(cheap, s.actions))) for s in space.stages)
    casts = {k: replace(c, cost=c.cost / 1000) for k, c in space.casts.items()}
    return Walk(replace(space, stages=stages, casts=casts))


def test_less_loss_costs_time(walk):
    """Down to a plan that loses nothing: no more int8 in it."""
    before = optimum(walk)
    most = loss_of(walk, before.choices)
    assert most > 0
    last = before.value
    for part in (1.0, 0.5, 0.2, 0.05, 0.0):
        goal = within_loss(walk, LATENCY, most * part)
        best = optimum(walk, goal)
        assert loss_of(walk, best.choices) <= most * part
        cost = optimum(walk, replace(goal, loss_price=0.0)).value
        assert cost <= best.value
        plan = plan_of(walk.space, best.choices, "")
        assert walk.space.codes.loss(plan.bits) == pytest.approx(loss_of(walk, best.choices))
        assert best.value - goal.loss_price * loss_of(walk, best.choices) >= last - 1e-6
        last = best.value - goal.loss_price * loss_of(walk, best.choices)
    products = [s.name for s in walk.stages if s.node.op in ("Conv", "Dense")]
    assert not set(products) & set(plan.bits)
    assert within_loss(walk, LATENCY, float("inf")) == LATENCY


def test_a_layer_whose_loss_is_not_known_stays_float_within_limits():
    graph = load_graph(KWS)
    calibration = unranged(graph)
    first, *others = calibration.sensitivity
    some = {n: {8: 0.0} for n in others}
    for known, loss in (({}, 0.0), (some, float("inf")), ({**some, first: {4: 0.1}}, float("inf"))):
        codes = codes_of(graph, BOARD, replace(calibration, sensitivity=known))
        assert codes.variants[first][0].loss == loss


def test_fronts_of_time_and_loss(walk):
    points = front(walk, ("latency", "accuracy"), lambda choices: 0)
    assert len(points) > 3
    assert [p.latency for p in points] == sorted(p.latency for p in points)
    assert [p.accuracy for p in points] == sorted((p.accuracy for p in points), reverse=True)


def test_explanations_tell_types(walk):
    rows = explain(walk, optimum(walk).choices, 1.0)
    coded = [r for r in rows if "bits" in r]
    assert coded
    assert all(r["bits"] in (8, 7, 6, 5, 4) and r["loss"] >= 0 for r in coded)


class Contested:
    """Plans with known losses, of which those above a limit break it."""

    def __init__(self, limit: float):
        self.limit, self.losses = limit, []
        self.codes = SimpleNamespace(loss=lambda bits: bits["x"])

    def sound(self):
        return [
            SimpleNamespace(
                plan=SimpleNamespace(bits={"x": loss}),
                measured=EndToEnd(1.0, (), 0, 0, scores={"cosine": 1 - (loss > self.limit)}),
            )
            for loss in self.losses
        ]


@pytest.mark.parametrize("limit", [0.001, 0.013, 0.3, 7.0])
def test_the_guard_finds_how_much_may_be_lost(limit):
    """Plans come in steps of loss; the best that keeps the limit is found in a few rounds."""
    steps = [1.3**k * 1e-4 for k in range(60)]
    guard, contest = Guard(Limits(cosine=0.99)), Contested(limit)
    assert guard.loss == pytest.approx(0.02)
    for _ in range(guard.rounds + 4):
        contest.losses.append(max(s for s in steps if s <= max(guard.loss, steps[0])))
        guard.learn(contest)
    kept = max(s for s in contest.losses if s <= limit)
    assert kept >= max(s for s in steps if s <= limit) / 1.6


def test_without_limits_anything_may_be_lost():
    guard = Guard(Limits())
    guard.learn(Contested(0.0))
    assert (guard.loss, guard.rounds) == (float("inf"), 0)


@pytest.mark.parametrize(("scores", "limits", "said"), [
    (None, Limits(cosine=0.9), "its accuracy is unknown"),
    ({"cosine": 0.89}, Limits(cosine=0.9), "its cosine of 0.890000 is below --min-cosine 0.9"),
    ({"cosine": 0.9}, Limits(cosine=0.9), ""),
    ({"cosine": 1.0, "top1 lost": 0.006}, Limits(drop=0.005), "it loses 0.60% of top-1, above"),
    ({"cosine": 0.5, "top1 lost": -0.01}, Limits(drop=0.0), ""),
    ({"cosine": float("nan")}, Limits(cosine=0.9), "its cosine of nan is below --min-cosine 0.9"),
    ({"cosine": 1.0, "agreement": 0.97}, Limits(agreement=0.98),
     "it agrees on 97.00% of the samples, below --min-agreement 98.00%"),
    ({"cosine": 1.0, "agreement": 0.98}, Limits(agreement=0.98), ""),
])  # fmt: skip
def test_objections_to_accuracy(scores, limits, said):
    found = inaccurate(EndToEnd(1.0, (), 0, 0, scores=scores), limits)
    assert found.startswith(said)
    assert bool(found) == bool(said)


def finalist(name: str, cost: float, cosine: float) -> Finalist:
    measured = EndToEnd(cost, (), 0, 0, scores={"cosine": cosine}, samples=10)
    return Finalist((name,), SimpleNamespace(plan=SimpleNamespace(sha256=name)), cost, measured)


def test_a_plan_that_was_lucky_is_not_taken():
    """What keeps the limits on some of the data must keep them on all; the next one is tried."""
    plans = [finalist("slow", 3.0, 1.0), finalist("fast", 1.0, 0.99), finalist("wrong", 0.5, 0.5),
             finalist("medium", 2.0, 0.99)]  # fmt: skip
    contest = SimpleNamespace(sound=lambda: plans, rejected={})
    on_all, asked = {"fast": 0.97, "medium": 0.985, "slow": 1.0}, []

    def judge(f: Finalist) -> EndToEnd:
        asked.append(f.names[0])
        return replace(f.measured, scores={"cosine": on_all[f.names[0]]}, samples=200)

    limits = Limits(cosine=0.98)
    assert choose(contest, limits, BOARD, "cycles").names == ("fast",)
    taken = choose(contest, limits, BOARD, "cycles", judge)
    assert (taken.names, taken.measured.scores["cosine"]) == (("medium",), 0.985)
    assert asked == ["fast", "medium"]
    assert contest.rejected == {
        "fast": "on all of the data its cosine of 0.970000 is below --min-cosine 0.98"
    }
    assert choose(contest, limits, BOARD, "cycles").names == ("medium",)
    contest.rejected.clear()
    failing = EndToEnd(9.0, (), 0, 0, "does not compile")
    taken = choose(contest, limits, BOARD, "cycles",
                   lambda f: failing if f.names == ("fast",) else judge(f))  # fmt: skip
    assert taken.names == ("medium",)
    assert contest.rejected == {"fast": "on all of the data does not compile"}
    contest.rejected.clear()
    on_all.update(medium=0.9, slow=0.9)
    with pytest.raises(CodegenError, match="3 plans keep them on the samples .* none on all data"):
        choose(contest, limits, BOARD, "cycles", judge)


def test_what_is_worth_measuring():
    """Not integers that are known to lose too much, nor what is as slow as a plan that keeps all
    limits."""

    def measured(bits, cost: float, cosine: float, arena: int = 0) -> SimpleNamespace:
        scores = {"cosine": cosine}
        return SimpleNamespace(plan=SimpleNamespace(bits=bits),
                               measured=EndToEnd(cost, (), arena, 0, scores=scores))  # fmt: skip

    plans = [measured({}, 10.0, 1.0), measured({"a": 8}, 5.0, 0.9), measured({"c": 8}, 12.0, 1.0)]

    def worth(bits, cost: float, limits: Limits) -> bool:
        contest = SimpleNamespace(sound=lambda: plans, table=SimpleNamespace(unit="cycles"))
        request = Request(KWS, BOARD, limits=limits)
        return promises(SimpleNamespace(bits=bits), cost, contest, request)

    limits = Limits(cosine=0.95)
    assert worth({"a": 7}, 9.0, limits)
    assert worth({"a": 8, "b": 8}, 10.01, limits)  # the table may overestimate
    assert not worth({"a": 7}, 10.1, limits)
    assert not worth({"a": 8}, 5.0, limits)
    assert worth({}, 9.9, limits)  # the same integers by faster rows
    assert not worth({}, 9.995, limits)
    assert worth({"a": 8}, 4.9, Limits(cosine=0.9))
    assert not worth({"b": 8}, 5.1, Limits(cosine=0.9))
    assert worth({"a": 8}, 20.0, Limits())
    plans[0] = measured({}, 10.0, 1.0, arena=2000)  # where it breaks a limit slower ones do
    assert worth({"a": 7}, 11.0, Limits(cosine=0.95, arena=1000))
    assert not worth({"a": 7}, 11.0, limits)
    plans.clear()
    assert worth({}, 1e9, limits)


@pytest.fixture(scope="module")
def prepared(tmp_path_factory) -> tuple[Path, Path, Path]:
    """(data with labels, a calibration of its first half with losses, the folder)"""
    folder = tmp_path_factory.mktemp("mixed")
    x = np.random.default_rng(0).standard_normal((24, 1, 50, 10)).astype(np.float32)
    np.savez(folder / "data.npz", x=x, y=np.arange(24) % 12)
    args = ["calibrate", str(KWS), "--data", str(folder / "data.npz"), "--half", "0",
            "--sensitivity", "2", "--out", str(folder / "ranges.json")]  # fmt: skip
    assert CliRunner().invoke(cli, args, catch_exceptions=False).exit_code == 0
    return folder / "data.npz", folder / "ranges.json", folder


def requested(prepared, **more) -> Request:
    graph = load_graph(KWS)
    data = open_data([prepared[0]], [graph.tensors["input"]], half=1)
    return replace(Request(KWS, BOARD, calibration=prepared[1], data=data), **more)


@pytest.mark.parametrize(("changes", "said"), [
    (dict(dtype="i8"), "--dtype: 'i8' beside --calibration; f32 or f16 for all layers"),
    (dict(dtype="i8", calibration=None), "--dtype: 'i8'; f32 or f16 for all layers"),
    (dict(dtype="f32"), "--dtype: 'f32' beside --calibration"),
    (dict(limits=Limits(error=1e-5)), "--max-error: beside --calibration"),
    (dict(pareto=("latency", "error")), "--pareto error: beside --calibration"),
    (dict(limits=Limits(cosine=0.9), data=None), "--min-cosine: without --data"),
    (dict(limits=Limits(agreement=0.9), data=None), "--min-agreement: without --data"),
    (dict(limits=Limits(agreement=0.95)),
     "--min-agreement: 0.95 of 12 samples leaves none on which plans may differ; 20 samples or"),
    (dict(limits=Limits(drop=0.0), calibration=None), "--max-accuracy-drop: without --calibration"),
    (dict(limits=Limits(), pareto=("latency", "accuracy"), calibration=None),
     "--pareto accuracy: without --calibration"),
])  # fmt: skip
def test_requests_that_cannot_be_met(prepared, changes, said):
    with pytest.raises(CodegenError) as caught:
        check(requested(prepared, **changes), SimpleNamespace())
    assert str(caught.value).startswith(said)


def test_data_that_plans_cannot_be_judged_on(prepared, tmp_path):
    inputs = [load_graph(KWS).tensors["input"]]
    tools = SimpleNamespace(stage=lambda text: None)
    seen = requested(prepared, data=open_data([prepared[0]], inputs, half=0))
    with pytest.raises(CodegenError, match="--data: 12 of 12 samples were calibrated on"):
        _gauge(seen, tools)
    np.savez(tmp_path / "d.npz", x=np.zeros((2, 1, 50, 10), np.float32), y=[1, 12])
    odd = requested(prepared, data=open_data([tmp_path / "d.npz"], inputs))
    with pytest.raises(CodegenError, match="--data: 1 of 2 labels are no class, e.g. 12"):
        _gauge(odd, tools)


def test_limits_need_labels_and_losses(prepared, tmp_path):
    with pytest.raises(CodegenError, match="--data: nothing here can compare results"):
        check(requested(prepared), None)
    graph = load_graph(KWS)
    np.save(tmp_path / "x.npy", np.zeros((4, 1, 50, 10), np.float32))
    data = open_data([tmp_path / "x.npy"], [graph.tensors["input"]])
    with pytest.raises(CodegenError, match="--max-accuracy-drop: data without labels"):
        check(requested(prepared, data=data, limits=Limits(drop=0.0)), SimpleNamespace())
    raw = json.loads(prepared[1].read_text())
    del raw["sensitivity"]
    (tmp_path / "ranges.json").write_text(json.dumps(raw))
    asked = requested(prepared, calibration=tmp_path / "ranges.json", limits=Limits(cosine=0.9))
    with pytest.raises(CodegenError, match="has no sensitivity of layers"):
        check(asked, SimpleNamespace())
    check(requested(prepared, limits=Limits(cosine=0.9)), SimpleNamespace())


@pytest.mark.parametrize(("options", "said"), [
    (["--max-accuracy-drop", "0.5"], "--max-accuracy-drop: '0.5'; percentage points"),
    (["--max-accuracy-drop", "101%"], "--max-accuracy-drop: '101%'"),
    (["--min-agreement", "0.98"], "--min-agreement: '0.98'; a part of the samples"),
    (["--min-cosine", "1.1"], "--min-cosine: 1.1; a cosine from 0 to 1"),
    (["--max-latency", "nan"], "--max-latency: nan; a positive time in ms"),
    (["--half", "1"], "--half: given without --data"),
    (["--preprocess", "scale=2"], "--preprocess: given without --data"),
])  # fmt: skip
def test_limits_that_are_none(options, said):
    with pytest.raises(CodegenError) as caught:
        CliRunner().invoke(cli, ["tune", str(KWS), "--board", "local", *options],
                           catch_exceptions=False)  # fmt: skip
    assert said in str(caught.value)


@needs_cross
def test_from_data_to_a_plan_of_both_types(prepared, tmp_path):
    """On the virtual board: never slower than the float and the int8 plan of a build, judged on
    data, built again by its plan, and picked from its front."""
    data, ranges, folder = prepared
    given = [str(KWS), "--board", "jetson-nano-cpu", "--calibration", str(ranges), "--data",
             str(data), "--half", "1"]  # fmt: skip
    out = tmp_path / "out"
    limits = ["--min-cosine", "0.98", "--min-agreement", "70%"]
    args = ["tune", *given, *limits, "--pareto", "latency,accuracy", "--out", str(out),
            "--store", str(folder / "store.sqlite"), "--html", "--json"]  # fmt: skip
    told = json.loads(CliRunner().invoke(cli, args, catch_exceptions=False).stdout)
    chosen, finalists = told["chosen"], told["finalists"]
    by_name = {n: f for f in finalists for n in f["names"]}
    assert {"default", "default in int8", "exact", "exact in float32"} <= set(by_name)
    assert "int8_layers" not in by_name["exact in float32"]
    kept = [f for f in finalists if f["cosine"] >= 0.98 and f["agreement"] >= 0.7]
    assert chosen["measured_ms"] == min(f["measured_ms"] for f in kept)
    assert chosen["cosine"] >= 0.98
    assert by_name["default"]["cosine"] > 0.999999
    plan = read_plan(out / "plan.json")
    assert len(plan.bits) == chosen.get("int8_layers", 0)
    assert (plan.dtype == "i8") == bool(plan.bits)
    score = ["accuracy", *given, "--plan", str(out / "plan.json"), "--metric", "cosine", "--json"]
    again = json.loads(CliRunner().invoke(cli, score, catch_exceptions=False).stdout)
    assert again["plans"]["plan.json"]["cosine"]["value"] == pytest.approx(chosen["cosine"])
    points = json.loads((out / "front.json").read_text())["points"]
    most = max(p["cosine"] for p in points)
    best = pick(out / "front.json", Limits(cosine=most))
    assert best["latency_ms"] == min(p["latency_ms"] for p in points if p["cosine"] == most)
    with pytest.raises(CodegenError, match="none of"):
        pick(out / "front.json", Limits(drop=-1.0))
    with pytest.raises(CodegenError, match="none of"):
        pick(out / "front.json", Limits(agreement=1.01))
    warm = json.loads(CliRunner().invoke(cli, args, catch_exceptions=False).stdout)
    assert warm["chosen"] == chosen
    assert warm["measured_candidates"] == 0
    some = json.loads(CliRunner().invoke(cli, [*args, "--samples", "6"]).stdout)
    assert {f["samples"] for f in some["finalists"]} == {6}
    assert some["chosen"]["samples"] == chosen["samples"] == 12
    assert some["chosen"]["cosine"] >= 0.98


@pytest.mark.parametrize(("scores", "limits", "share"), [
    (None, Limits(cosine=0.9), float("inf")),
    ({"cosine": 0.98}, Limits(cosine=0.96), 0.5),
    ({"cosine": 1.0, "agreement": 0.97}, Limits(agreement=0.98), 2.25),
    ({"cosine": 0.9, "top1 lost": 0.0025}, Limits(drop=0.005), 0.25),
    ({"cosine": 1.0, "top1 lost": -0.01}, Limits(drop=0.0), 0.0),
    ({"cosine": 1.0, "top1 lost": 0.01}, Limits(drop=0.0), float("inf")),
    ({"cosine": 0.98, "agreement": 0.99}, Limits(cosine=0.9, agreement=0.98), 0.25),
])  # fmt: skip
def test_shares_of_what_may_be_lost(scores, limits, share):
    measured = EndToEnd(1.0, (), 0, 0, scores=scores)
    assert used(measured, limits) == pytest.approx(share)
    assert (used(measured, limits) > 1.0) == bool(inaccurate(measured, limits))


def test_the_guard_looks_beyond_a_plan_that_was_unlucky():
    """Answers change by chance: one that loses more and keeps the limit counts for more."""
    guard, contest = Guard(Limits(cosine=0.99)), Contested(0.0)
    shares = {0.01: 0.5, 0.02: 1.1, 0.03: 0.9, 0.08: 3.0}
    contest.sound = lambda: [
        SimpleNamespace(
            plan=SimpleNamespace(bits={"x": loss}),
            measured=EndToEnd(1.0, (), 0, 0, scores={"cosine": 1 - 0.01 * share}),
        )
        for loss, share in shares.items()
    ]
    shares[float("inf")] = 0.0  # of a layer without a known loss
    guard.learn(contest)
    assert 0.03 < guard.loss < 0.05
    assert guard.places == pytest.approx((0.03 / 0.9,))
    shares[0.03] = 1.2  # then the plan that loses most says where else to look
    guard.learn(contest)
    assert 0.01 < guard.loss < 0.02
    assert guard.places == pytest.approx((0.08 / 3, 0.03 / 1.2, 0.01 / 0.5, 0.02 / 1.1))
