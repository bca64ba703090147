"""codegen tune, from model to plan, on this machine with a tiny network."""

import dataclasses
import json
import struct
from pathlib import Path
from xml.etree import ElementTree

import pytest
from click.testing import CliRunner
from tensorboardX.proto import event_pb2

from codegen.board import load_board
from codegen.cli import cli
from codegen.errors import CodegenError
from codegen.footprint import functions
from codegen.pipeline import generate
from codegen.run import Job, Outcome
from codegen.run.local import LocalRunner
from codegen.signature import NETWORK
from codegen.store import Store
from codegen.toolchain import find_host_cc, find_toolchain
from rl.agents import Budget
from rl.assignment import choices_of, cost_of, plan_of, repaired
from rl.exact import Optimum
from rl.explain import explain
from rl.formula import formula_table
from rl.limits import Limits
from rl.measure import Priced
from rl.network import EndToEnd
from rl.report.page import page
from rl.result import plan_with_figures, summary, verdict, write_results
from rl.reward import LATENCY, Goal
from rl.space import build_space
from rl.table import Table
from rl.tensorboard import write_curves
from rl.tune import Request, Tools, tune
from rl.walk import Walk
from tests.browser import ask, needs_browser
from tests.pricing_cases import LOCAL, needs_cc
from tests.tiny import tiny_network


class Quick(LocalRunner):
    """Whole networks are run for milliseconds, and no run is noisy."""

    def run(self, job: Job, board) -> Outcome:
        if job.args or job.program.name != "bench":
            return super().run(job, board)
        outcome = super().run(dataclasses.replace(job, args=("5", "0", "0.01")), board)
        return dataclasses.replace(outcome, report={**outcome.report, "runs_ns": [1000.0] * 8})


class Wrong(LocalRunner):
    """A machine on which programs that contain a function compute nothing but zeros."""

    def __init__(self, function: str):
        self.function = function

    def run(self, job: Job, board) -> Outcome:
        outcome = super().run(job, board)
        if not any(self.function in f.name for f in functions(job.program)):
            return outcome
        zeros = {name: bytes(len(data)) for name, data in outcome.outputs.items()}
        return dataclasses.replace(outcome, outputs=zeros)


def tools(store: Store, checker=None, **told) -> Tools:
    return Tools(Quick(), checker, find_toolchain(LOCAL), store, **told)


def request_for(folder: Path) -> Request:
    return Request(tiny_network(folder), LOCAL, jobs=1, budget=Budget(episodes=20))


@pytest.fixture(scope="module")
def tuned_once(tmp_path_factory):
    """(request, store file, what came out) of one search on this machine."""
    if not find_host_cc():
        pytest.skip("no C compiler on this machine")
    folder = tmp_path_factory.mktemp("tuned")
    request = request_for(folder)
    store = Store(folder / "store.sqlite")
    return request, store, tune(request, tools(store, LocalRunner()))


@pytest.fixture
def invented(tuned_once, monkeypatch):
    """(request, tools) where layers are priced already and whole networks cost what is made up."""
    request, store, _ = tuned_once

    def measure(generated, bench) -> EndToEnd:
        steps = tuple(100.0 for _ in generated.schedule.program.steps)
        return EndToEnd(sum(steps), steps, generated.schedule.arena_bytes, 4096)

    monkeypatch.setattr("rl.finalists.measure_network", measure)
    return request, lambda **told: tools(store, **told)


def test_the_plan_is_the_fastest_finalist(tuned_once):
    request, _, tuned = tuned_once
    names = {n for f in tuned.finalists for n in f.names}
    assert names >= {"qlearning", "exact", "greedy", "default"}
    assert tuned.chosen.measured.cost == min(f.measured.cost for f in tuned.finalists)
    assert not any(f.measured.error for f in tuned.finalists)
    result = summary(request, tuned)
    assert result["optimality_gap"] == pytest.approx(0.0)
    assert result["chosen"]["measured_ms"] > 0
    figures = plan_with_figures(tuned).predicted
    assert figures["flash_bytes"] > 16 * 8 * 4
    assert figures["cycles"] is None  # this machine counts none


def test_a_second_search_measures_nothing_and_says_the_same(tuned_once):
    request, store, first = tuned_once
    measured = len(list(store.rows()))
    again = tune(request, tools(store))
    assert len(list(store.rows())) == measured
    assert again.priced.measured == 0 < first.priced.measured
    assert plan_with_figures(again).to_json() == plan_with_figures(first).to_json()


def test_a_row_that_computes_nonsense_is_marked_and_not_chosen(tuned_once, tmp_path):
    """The cheapest row of the product is wrong on this board."""
    request, store, tuned = tuned_once
    best = plan_of(tuned.space, tuned.best.choices, "").nodes
    product = next(c.kernel for c in best.values() if c.kernel.startswith("dense"))
    copy = Store(tmp_path / "copy")
    copy.put(r for r in store.rows() if r[0].layer.op != NETWORK)
    tuned = tune(request, tools(copy, Wrong(product)))
    assert product not in {c.kernel for c in tuned.chosen.plan.nodes.values()}
    failed = summary(request, tuned)["failed"]
    assert {f["candidate"].split()[0] for f in failed} == {product}
    assert "wrong result" in failed[0]["error"]


def test_when_nothing_works_it_says_so(invented, monkeypatch):
    request, tools_with = invented
    bad = EndToEnd(float("inf"), (), 0, 0, "signal 11")
    monkeypatch.setattr("rl.finalists.measure_network", lambda generated, bench: bad)
    with pytest.raises(CodegenError, match="no plan works on local: signal 11"):
        tune(request, tools_with())


@pytest.mark.parametrize("phase", ["measuring candidates", "building"])
def test_ctrl_c_keeps_the_best_so_far(phase, invented):
    def press(text: str) -> None:
        if text.startswith(phase) and not pressed:
            pressed.append(text)
            raise KeyboardInterrupt

    request, tools_with = invented
    pressed: list[str] = []
    if phase == "building":
        tuned = tune(request, tools_with(stage=press))
    else:
        tuned = tune(request, tools_with(progress=lambda done, of: press(phase)))
    assert pressed
    result = summary(request, tuned)
    assert result["interrupted"]
    assert result["why"] == "not run: interrupted"
    assert result["chosen"]["measured_ms"] is None
    # the agent has no say if it could not run; the plan is the best of what is known
    assert result["optimality_gap"] == (None if phase == "measuring candidates" else 0.0)
    assert ("did not run" in verdict(result)) == (phase == "measuring candidates")
    choices = choices_of(tuned.space, tuned.chosen.plan)
    assert cost_of(Walk(tuned.space), choices) == pytest.approx(tuned.best.value)
    assert tuned.chosen.plan.nodes.keys() == generate(request.model, LOCAL).plan.nodes.keys()


@needs_cc
def test_a_budget_of_measurements(tuned_once, invented, tmp_path):
    few = dataclasses.replace(tuned_once[0], budget=Budget(episodes=5, measurements=2))
    tuned = tune(few, tools(Store(tmp_path / "empty")))
    assert tuned.priced.measured == 2
    prices = [p for found in tuned.priced.table.layers.values() for p in found.values()]
    assert sum(not p.guessed for p in prices) == 2
    assert any(p.guessed for p in prices)
    assert tuned.chosen.measured.cost > 0


@pytest.mark.parametrize(
    ("limits", "said"),
    [
        (Limits(flash=10), "--max-flash: 10 bytes are not enough"),
        (Limits(latency_ms=1e-6), "limits: the fastest plan found takes"),
    ],
)
def test_limits_that_cannot_be_kept(limits, said, invented):
    request, tools_with = invented
    with pytest.raises(CodegenError, match=said):
        tune(dataclasses.replace(request, limits=limits), tools_with())


def test_no_candidate_is_left(tuned_once):
    request, _, tuned = tuned_once
    graph = generate(request.model, LOCAL).graph
    nothing = Table("local", "ns", "cold", {})
    with pytest.raises(CodegenError, match=r"no candidate is left \(none was priced\)"):
        build_space(graph, LOCAL, nothing)
    failed = {
        key: {n: dataclasses.replace(p, error="signal 11") for n, p in found.items()}
        for key, found in tuned.priced.table.layers.items()
    }
    with pytest.raises(CodegenError, match=r"all \d+ candidates failed, e.g. dense.*signal 11"):
        build_space(graph, LOCAL, dataclasses.replace(nothing, layers=failed))


def test_the_page_is_well_formed_and_names_everything(tuned_once):
    request, _, tuned = tuned_once
    rows = explain(Walk(tuned.space), tuned.best.choices, 1e-6)
    text = page(request, tuned, rows)
    root = ElementTree.fromstring(text.split("\n", 1)[1])
    assert len(root.findall(".//{http://www.w3.org/2000/svg}svg")) == 6
    said = "".join(root.itertext())
    assert all(n.name in said for n in tuned.space.graph.nodes)
    assert all(name in said for name in ("qlearning", "random", "exact optimum", "ncnn"))
    assert "http" not in text.replace("http://www.w3.org/2000/svg", "")  # self-contained
    assert page(request, tuned, rows) == text


@needs_browser
def test_the_page_in_a_browser(tuned_once, tmp_path):
    """It is shown in standards mode, fetches nothing, every picture has a place and words in it,
    and nothing sticks out of the window."""
    request, _, tuned = tuned_once
    rows = explain(Walk(tuned.space), tuned.best.choices, 1e-6)
    question = """{
        mode: document.compatMode, title: document.title,
        fetched: performance.getEntriesByType("resource").length,
        headings: [...document.querySelectorAll("h1, h2")].map(h => h.textContent),
        pictures: [...document.querySelectorAll("svg")].map(s => {
            const box = s.getBoundingClientRect()
            const out = [...s.querySelectorAll("text")].map(t => t.getBoundingClientRect())
                .filter(t => t.width && (t.left < box.left - 1 || t.right > box.right + 1))
            return {width: box.width, height: box.height, words: s.textContent.trim().length,
                    cut: out.length}
        }),
        over: document.documentElement.scrollWidth - document.documentElement.clientWidth,
        rows: document.querySelectorAll("tr").length,
    }"""
    seen, said = ask(page(request, tuned, rows), question, tmp_path)
    assert said == []
    assert (seen["mode"], seen["fetched"]) == ("CSS1Compat", 0)
    assert seen["title"] == seen["headings"][0] == "tiny.onnx on local"
    assert len(seen["pictures"]) == 6
    for picture in seen["pictures"]:
        assert min(picture["width"], picture["height"], picture["words"]) > 10
        assert picture["cut"] == 0
    assert seen["over"] <= 0
    assert seen["rows"] == 2 + len(tuned.finalists) + len(rows)


# ---- element types ----


@pytest.mark.parametrize("dtype", ["", "f32", "f16"])
def test_the_plan_says_in_which_type_it_computes(dtype, invented, tmp_path, monkeypatch):
    """At formula prices, on a board that computes in half precision."""
    request, tools_with = invented
    board = load_board("raspberry-pi-5")

    def price(graph, *_) -> Priced:
        return Priced(formula_table(graph, board), 0, 0, [])

    monkeypatch.setattr("rl.tune.price_network", price)
    asked = dataclasses.replace(request, board=board, dtype=dtype)
    tuned = tune(asked, tools_with())
    assert tuned.chosen.plan.dtype == (dtype or "f32")
    kernels = {c.kernel for c in tuned.chosen.plan.nodes.values()}
    assert any("_f16_" in k for k in kernels) == (dtype == "f16")
    assert summary(asked, tuned)["dtype"] == (dtype or "f32")
    write_results(tmp_path / "out", asked, tuned)
    again = generate(request.model, board, tmp_path / "out" / "plan.json")
    assert again.plan.nodes == tuned.chosen.plan.nodes


# ---- exactness ----


def test_a_plan_that_is_not_exact_enough_is_dropped(tuned_once, monkeypatch):
    """The fastest plan is off by more than the limit; a slower one is taken, with the reason."""
    request, store, first = tuned_once
    fast = {"cost": 1.0, "max_rel_error": 1e-3}
    slow = {"cost": 2.0, "max_rel_error": 1e-6}
    worst = plan_of(first.space, _slowest(Walk(first.space)).choices, "")
    first_kernel = next(iter(worst.nodes.values())).kernel

    def measure(generated, bench) -> EndToEnd:
        assert bench.exactness
        kernel = next(iter(generated.plan.nodes.values())).kernel
        figures = fast if kernel == first_kernel else slow
        steps = tuple(1.0 for _ in generated.schedule.program.steps)
        return EndToEnd(steps=steps, arena_bytes=64, flash_bytes=4096, **figures)

    monkeypatch.setattr("rl.finalists.measure_network", measure)
    monkeypatch.setattr("rl.proposals.optimum", _slowest)
    limited = dataclasses.replace(request, limits=Limits(error=1e-5))
    tuned = tune(limited, tools(store, LocalRunner()))
    assert tuned.chosen.measured.max_rel_error == 1e-6
    told = summary(limited, tuned)
    assert told["chosen"]["max_rel_error"] == 1e-6
    names = {n for f in told["dropped"] for n in f["names"]}
    assert "exact" in names
    assert "qlearning" not in names
    reasons = {f["reason"] for f in told["dropped"]}
    assert reasons == {"its max_rel_error of 0.001 is above --max-error 1e-05"}
    none = dataclasses.replace(request, limits=Limits(error=1e-7))
    with pytest.raises(CodegenError, match="the most exact one found is off by 1e-06"):
        tune(none, tools(store, LocalRunner()))


def _slowest(walk: Walk, goal: Goal = LATENCY) -> Optimum:
    """A plan of each layer's slowest candidate."""
    wanted = [max(range(len(s.actions)), key=lambda i, s=s: s.actions[i].price.cost, default=-1)
              for s in walk.stages]  # fmt: skip
    choices = repaired(walk, wanted)
    return Optimum(choices, cost_of(walk, choices), True, 1)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"limits": Limits(error=1e-5)}, "--max-error: nothing here can compare"),
        ({"pareto": ("latency", "error")}, "--pareto: nothing here can compare"),
    ],
)
def test_exactness_needs_something_that_checks(change, said, tuned_once):
    request, store, _ = tuned_once
    with pytest.raises(CodegenError, match=said):
        tune(dataclasses.replace(request, **change), tools(store))


def test_what_the_store_knows_without_an_error_is_not_enough(tuned_once, tmp_path):
    request, store, _ = tuned_once
    copy = Store(tmp_path / "copy")
    copy.put((k, dataclasses.replace(m, conditions="")) for k, m in store.rows())
    unknown = tune(request, tools(copy, LocalRunner()))
    assert unknown.chosen.measured.max_rel_error is None
    limited = dataclasses.replace(request, limits=Limits(error=1e-4), pareto=("latency", "error"))
    known = tune(limited, tools(copy, LocalRunner()))
    assert known.chosen.measured.max_rel_error <= 1e-4
    write_results(tmp_path / "out", limited, known)
    front = json.loads((tmp_path / "out" / "front.json").read_text())
    assert front["axes"] == ["latency", "error"]
    assert all(p["max_rel_error"] <= 1e-4 for p in front["points"])


# ---- TensorBoard ----


def events_of(folder: Path) -> dict[str, list[float]]:
    """Values by tag of the one event file in a folder."""
    (file,) = folder.glob("events*")
    data, at, out = file.read_bytes(), 0, {}
    while at < len(data):  # length, its checksum, a message, its checksum
        (size,) = struct.unpack_from("<Q", data, at)
        event = event_pb2.Event.FromString(data[at + 12 : at + 12 + size])
        for value in event.summary.value:
            out.setdefault(value.tag, []).append(value.simple_value)
        at += size + 16
    return out


def test_learning_curves_for_tensorboard(tuned_once, tmp_path):
    request, _, tuned = tuned_once
    write_curves(tmp_path, tuned, "qlearning", request.board)
    found = events_of(tmp_path / "qlearning")
    assert len(found["best_ms"]) == len(found["gap"]) == len(tuned.found.curve)
    assert found["best_ms"] == sorted(found["best_ms"], reverse=True)
    assert found["gap"][-1] == pytest.approx(tuned.gap, abs=1e-6)
    assert len(found["finalist_ms"]) == len(tuned.finalists)


# ---- the verb ----


def test_the_verb_writes_a_plan_that_builds(tuned_once, tmp_path):
    model, out = tuned_once[0].model, tmp_path / "out"
    args = ["tune", str(model), "--board", "local", "--jobs", "1", "--out", str(out), "--json",
            "--store", str(tuned_once[1].path)]  # fmt: skip
    result = CliRunner().invoke(cli, args)
    assert result.exit_code == 0, result.output
    report = json.loads(result.stdout)
    assert report == json.loads((out / "tune.json").read_text())
    plan = ["--plan", str(out / "plan.json"), "--out", str(tmp_path / "lib")]
    args = ["build", str(model), "--board", "local", "--no-verify", *plan]
    built = CliRunner().invoke(cli, args)
    assert built.exit_code == 0, built.output
