"""Plans without kernels that lose digits: asked for, or where the fastest is not exact enough."""

import json
from dataclasses import replace

import pytest
from click.testing import CliRunner

from codegen.board import load_board
from codegen.compare import TOLERANCE, Difference
from codegen.errors import CodegenError
from codegen.kernels import load_kernels
from codegen.pipeline import generate
from codegen.resources import examples_dir
from codegen.verbs import build as verb
from codegen.verify import CaseResult

RESNET8 = examples_dir() / "models" / "mlperf_ic_resnet8.onnx"
BOARD = load_board("jetson-nano-cpu")


def losing(plan) -> list[str]:
    rows = load_kernels()
    return [c.kernel for c in plan.nodes.values() if rows[c.kernel].loses_digits]


def run(tmp_path, *more):
    args = [str(RESNET8), "--board", "local", "--out", str(tmp_path / "out"), "--seeds", "1", *more]
    return CliRunner().invoke(verb.build, args)


def test_rows_that_lose_digits():
    rows = load_kernels()
    assert rows["conv2d_nhwc_f32_neon_winograd4_8x8"].loses_digits
    assert rows["conv2d_nhwc_f32_neon_winograd4x2_8x8"].loses_digits
    assert rows["conv2d_nhwc_f32_neon_strassen_4x16"].loses_digits
    assert not rows["conv2d_nhwc_f32_neon_winograd2_strided_5x16"].loses_digits
    assert not rows["conv2d_nhwc_f32_neon_gemm_4x16"].loses_digits


def test_a_careful_plan_has_none():
    assert losing(generate(RESNET8, BOARD).plan)
    assert not losing(generate(RESNET8, BOARD, careful=True).plan)


def test_asked_for(tmp_path):
    done = run(tmp_path, "--careful", "--json")
    report = json.loads(done.stdout)
    assert report["careful"] is True
    assert report["fastest_plan_was_off_by"] is None
    assert not any("winograd4" in x["kernel"] for x in report["layers"])


def test_made_where_the_fastest_plan_is_not_exact_enough(tmp_path, monkeypatch):
    """A limit between the errors of the two plans."""
    fast = json.loads(run(tmp_path, "--json").stdout)
    careful = json.loads(run(tmp_path, "--json", "--careful").stdout)
    assert careful["max_rel_error"] < fast["max_rel_error"]
    assert not fast["careful"]
    limit = (careful["max_rel_error"] + fast["max_rel_error"]) / 2
    monkeypatch.setitem(TOLERANCE, "f32", limit)
    done = run(tmp_path)
    assert f"the fastest plan was off by {fast['max_rel_error']:.1e}" in done.stderr
    report = json.loads((tmp_path / "out" / "report.json").read_text())
    assert report["fastest_plan_was_off_by"] == fast["max_rel_error"]
    assert report["careful"]
    assert report["verified"]
    plan = tmp_path / "out" / "plan.json"
    assert not any(w in plan.read_text() for w in ("winograd4", "strassen"))


def test_not_made_for_a_plan_that_is_given(tmp_path, monkeypatch):
    run(tmp_path, "--json")
    plan = tmp_path / "plan.json"
    plan.write_text((tmp_path / "out" / "plan.json").read_text())
    monkeypatch.setitem(TOLERANCE, "f32", 1e-9)
    done = run(tmp_path, "--plan", str(plan), "--json")
    report = json.loads(done.stdout)
    assert report["careful"] is False
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
        generate(RESNET8, BOARD, plan, careful=True)
