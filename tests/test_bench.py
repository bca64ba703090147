"""codegen bench: cycles of a network, layer by layer, on the virtual board."""

import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from codegen.board import load_board
from codegen.build import Binary
from codegen.cli import main
from codegen.run.virtual import missing

ROOT = Path(__file__).resolve().parent.parent
MODEL = ROOT / "examples" / "models" / "mlperf_kws_dscnn.onnx"
A57 = load_board("jetson-nano-cpu")
CROSS = shutil.which("aarch64-linux-gnu-gcc")
_WHY = missing(A57) or ("" if CROSS else "no aarch64-linux-gnu-gcc on this machine")
needs_tools = pytest.mark.skipif(bool(_WHY), reason=_WHY)


def codegen(*args: object) -> int:
    with pytest.raises(SystemExit) as ended:
        main([str(a) for a in args])
    return ended.value.code


@pytest.fixture(scope="module")
def built(tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("build") / "kws"
    assert codegen("build", MODEL, "--board", A57.name, "--out", out, "--no-verify", "-q") == 0
    return out


@needs_tools
def test_json(built, capsys):
    assert codegen("bench", built, "--board", A57.name, "--json") == 0
    found = json.loads(capsys.readouterr().out)
    layers = json.loads((built / "report.json").read_text())["layers"]
    assert [x["name"] for x in found["layers"]] == [x["name"] for x in layers]
    assert [x["kernel"] for x in found["layers"]] == [x["kernel"] for x in layers]
    assert found["runner"] == "virtual"
    assert found["basis"] == "checked"
    assert "prfm" in found["limits"]
    assert found["macs"] == sum(x["macs"] for x in layers)
    # Nothing is faster than the core's multiply-adds, and half of them are met by such kernels.
    assert 4 / 3 * found["macs"] / 4 < found["cycles"] < 3 * found["macs"] / 4
    for row in (found, *found["layers"]):
        parts = sum(row[k] for k in ("core", "branch", "l2", "memory"))
        assert row["cycles"] == pytest.approx(parts, abs=2)
        assert row["gflops"] == pytest.approx(2 * row["macs"] / row["ms"] / 1e6, abs=0.01)
        assert row["peak_percent"] <= 100
    # The steps are all of the network.
    total = sum(x["cycles"] for x in found["layers"])
    assert found["cycles"] == pytest.approx(total, rel=0.005)


@needs_tools
def test_model_and_folder_agree(built, capsys):
    assert codegen("bench", built, "--board", A57.name, "--json") == 0
    first = capsys.readouterr().out
    assert codegen("bench", MODEL, "--board", A57.name, "--json") == 0
    assert capsys.readouterr().out == first  # to the cycle


@needs_tools
def test_table(built, capsys):
    assert codegen("bench", built, "--board", A57.name, "-v") == 0
    said = capsys.readouterr().out
    assert "conv2d_nhwc_f32_neon_gemm" in said
    assert "basis: checked; modelled, not measured" in said
    assert codegen("bench", built, "--board", A57.name, "-q") == 0
    assert capsys.readouterr().out == ""


@needs_tools
@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--board", "raspberry-pi-4"), "was built for jetson-nano-cpu"),
        (("--board", A57.name, "--plan", "plan.json"), "--plan: .* is already built"),
        (("--board", A57.name, "--shape", "x=1x2"), "--shape: .* is already built"),
        (("--board", A57.name, "--runner", "qemu"), "'qemu' counts no cycles; virtual"),
    ],
)
def test_wrong_options(built, capsys, options, said):
    assert codegen("bench", built, *options) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    assert re.search(said, error)


def test_board_that_is_not_emulated(capsys):
    assert codegen("bench", MODEL, "--board", "local") == 2
    assert "'virtual' cannot run code for board local" in capsys.readouterr().err


def test_folder_that_no_build_made(tmp_path, capsys):
    assert codegen("bench", tmp_path, "--board", A57.name) == 2
    assert "no report.json with a compiled build/bench" in capsys.readouterr().err


@needs_tools
@pytest.mark.parametrize(
    ("program", "said"),
    [
        ('int puts(const char *); int main(void) { puts("{}"); }', "the program marks no region"),
        ("int main(void) { return 3; }", "the program ended with exit code 3"),
    ],
)
def test_program_that_does_not_answer(tmp_path, capsys, built, program, said):
    (tmp_path / "build").mkdir()
    shutil.copy(built / "report.json", tmp_path)
    (tmp_path / "p.c").write_text(program)
    make = (CROSS, "-static", str(tmp_path / "p.c"), "-o", str(tmp_path / "build" / "bench"))
    subprocess.run(make, check=True)
    assert codegen("bench", tmp_path, "--board", A57.name) == 1
    assert said in capsys.readouterr().err


@needs_tools
def test_library_that_does_not_compile(monkeypatch, capsys):
    failed = Binary(error="x.c:1: error")
    monkeypatch.setattr("codegen.verbs.bench.compile_library", lambda *a: failed)
    assert codegen("bench", MODEL, "--board", A57.name) == 1
    assert "the generated library does not compile" in capsys.readouterr().err
