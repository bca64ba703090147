"""Plans without kernels that lose digits: asked for, or where the fastest is not exact enough."""

import json
from dataclasses import replace

import numpy as np
import pytest
from click.testing import CliRunner

from codegen.board import load_board
from codegen.compare import TOLERANCE, Difference
from codegen.errors import CodegenError
from codegen.exactness import LIMITS, MOST_CAREFUL, errors_of, is_allowed
from codegen.kernels import load_kernels
from codegen.pipeline import generate
from codegen.resources import examples_dir
from codegen.verbs import build as verb
from codegen.verify import CaseResult
from codegen.winograd import axis, loss

RESNET8 = examples_dir() / "models" / "mlperf_ic_resnet8.onnx"
BOARD = load_board("jetson-nano-cpu")


def worst(plan) -> float:
    rows = load_kernels()
    return max(errors_of(rows[c.kernel]) for c in plan.nodes.values())


def run(tmp_path, *more):
    args = [str(RESNET8), "--board", "local", "--out", str(tmp_path / "out"), "--seeds", "1", *more]
    return CliRunner().invoke(verb.build, args)


@pytest.mark.parametrize(
    ("row", "most_careful"),
    [
        ("gemm_4x16", 2),
        ("winograd2_strided_5x16", 2),
        ("winograd4_8x8", 1),
        ("winograd4x2_8x8", 1),
        ("winograd4_strided_5x16", 1),
        ("winograd4x2_strided7_5x16", 0),
        ("strassen_4x16", 0),
        ("winograd4_strided7_5x16", 0),
        ("winograd6_8x8", 0),
    ],
)
def test_rows_of_plans_by_how_careful_they_are(row, most_careful):
    kernel = load_kernels()[f"conv2d_nhwc_f32_neon_{row}"]
    allowed = [is_allowed(kernel, careful) for careful in range(MOST_CAREFUL + 1)]
    assert allowed == [careful <= most_careful for careful in range(MOST_CAREFUL + 1)]


def test_rounding_errors_of_winograd_are_as_foretold():
    """Simulated in float32: the errors of rows have the ratios that their transforms foretell."""
    rows = load_kernels()
    foretold, found = {}, {}
    for f in (2, 4, 6):
        t = axis(f, 3, 1, False).transforms
        foretold[f], found[f] = loss(t) ** 2, _rounding(t)
    assert foretold[6] == errors_of(rows["conv2d_nhwc_f32_neon_winograd6_8x8"])
    for f in (4, 6):
        assert found[f] / found[2] == pytest.approx(foretold[f] / foretold[2], rel=0.3)


def _rounding(t) -> float:
    """Root mean square of the rounding errors of 2-d tiles over 64 channels."""
    rng = np.random.default_rng(1)
    d = rng.standard_normal((300, 64, len(t.b), len(t.b))).astype(np.float32)
    g = rng.standard_normal((64, 3, 3))
    b, a = t.b.astype(np.float32), t.a.astype(np.float32)
    u = np.einsum("ai,cij,bj->cab", *(x.astype(np.float64) for x in (t.g, g, t.g)))
    v, z = b @ d @ b.T, np.zeros((300, *t.b.shape), np.float32)
    for c in range(64):
        z += v[:, c] * u[c].astype(np.float32)
    exact_b, exact_a = t.b.astype(np.float64), t.a.astype(np.float64)
    exact_z = ((exact_b @ d @ exact_b.T) * u).sum(axis=1)
    return float(np.sqrt(((a @ z @ a.T - exact_a @ exact_z @ exact_a.T) ** 2).mean()))


def test_a_careful_plan_has_no_rows_that_lose_more():
    for careful in range(1, MOST_CAREFUL + 1):
        assert worst(generate(RESNET8, BOARD, careful=careful).plan) <= LIMITS[careful]
    assert worst(generate(RESNET8, BOARD).plan) > LIMITS[MOST_CAREFUL]


def test_asked_for(tmp_path):
    done = run(tmp_path, "--careful", "2", "--json")
    report = json.loads(done.stdout)
    assert report["careful"] == 2
    assert report["fastest_plan_was_off_by"] is None
    assert not any("winograd4" in x["kernel"] for x in report["layers"])


def test_made_where_the_fastest_plan_is_not_exact_enough(tmp_path, monkeypatch):
    """More and more careful until it is."""
    found = iter((2e-4, 1.5e-4, 0.0))
    monkeypatch.setattr(verb, "_inexact", lambda results: next(found))
    done = run(tmp_path)
    assert "without kernels that lose digits (Winograd beyond" in done.stderr
    assert "the fastest plan was off by 2.0e-04" in done.stderr
    report = json.loads((tmp_path / "out" / "report.json").read_text())
    assert report["careful"] == 2
    assert report["fastest_plan_was_off_by"] == 2e-4
    plan = tmp_path / "out" / "plan.json"
    assert not any(w in plan.read_text() for w in ("winograd4", "winograd6", "strassen"))


@pytest.mark.slow
def test_no_more_careful_than_needed(tmp_path, monkeypatch):
    found = iter((2e-4, 0.0))
    monkeypatch.setattr(verb, "_inexact", lambda results: next(found))
    report = json.loads(run(tmp_path, "--json").stdout)
    assert report["careful"] == 1
    assert report["verified"]


@pytest.mark.slow
def test_said_where_no_plan_is_exact_enough(tmp_path, monkeypatch):
    fast = json.loads(run(tmp_path, "--json").stdout)
    monkeypatch.setitem(TOLERANCE, "f32", 1e-9)
    done = run(tmp_path, "--json")
    report = json.loads(done.stdout)
    assert report["careful"] == MOST_CAREFUL
    assert report["fastest_plan_was_off_by"] == fast["max_rel_error"]
    assert report["verified"] is False


def test_not_made_for_a_plan_that_is_given(tmp_path, monkeypatch):
    run(tmp_path, "--json")
    plan = tmp_path / "plan.json"
    plan.write_text((tmp_path / "out" / "plan.json").read_text())
    monkeypatch.setitem(TOLERANCE, "f32", 1e-9)
    done = run(tmp_path, "--plan", str(plan), "--json")
    report = json.loads(done.stdout)
    assert report["careful"] == 0
    assert report["verified"] is False


def test_not_made_for_results_that_are_far_off():
    result = CaseResult("x", {"y": _difference(0.5)}, False)
    assert verb._inexact([result]) == 0.0
    near = replace(result, outputs={"y": _difference(2e-4)})
    assert verb._inexact([near]) == 2e-4
    assert verb._inexact([near, replace(result, error="crashed")]) == 0.0
    assert verb._inexact([]) == 0.0


def _difference(relative: float) -> Difference:
    return Difference(relative, relative, 0, 1.0)


def test_beside_a_plan(tmp_path):
    plan = tmp_path / "plan.json"
    plan.write_text(generate(RESNET8, BOARD).plan.to_json())
    with pytest.raises(CodegenError, match="--careful: beside --plan"):
        generate(RESNET8, BOARD, plan, careful=1)
