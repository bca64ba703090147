"""codegen bench: what a network costs, layer by layer, on the virtual board and on real ones."""

import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from codegen.board import load_board
from codegen.build import Binary
from codegen.cli import main
from codegen.measured import BOUNDS, PARTS
from codegen.run.base import Outcome
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
    assert found["basis"] == A57.cycle_model.core.basis
    assert found["board_core"] == "cortex-a57"
    assert "prfm" in found["limits"]
    assert found["macs"] == sum(x["macs"] for x in layers)
    # Nothing is faster than the core's multiply-adds, and a third of them is met by any kernel.
    assert found["macs"] / 4 < found["cycles"] < 3 * found["macs"] / 4
    for row in (found, *found["layers"]):
        parts = sum(row[k] for k in ("core", "branch", "l2", "memory"))
        assert row["cycles"] == pytest.approx(parts, abs=2)
        assert row["gflops"] == pytest.approx(2 * row["macs"] / row["ms"] / 1e6, abs=0.01)
        assert row["peak_percent"] <= 100
        assert row["bound"] == BOUNDS[max(PARTS, key=lambda part, row=row: row[part])]
        moved, events = row["bytes"], row["events"]
        assert moved["l2_memory"]["write"] == 64 * events["write_back_memory"]
        assert 0 <= moved["l2_memory"]["read"] <= moved["l1_l2"]["read"]
        flops = row["intensity"]["l1_l2"] * sum(moved["l1_l2"].values())
        assert flops == pytest.approx(2 * row["macs"], rel=1e-3, abs=1)
    # The steps are all of the network.
    total = sum(x["cycles"] for x in found["layers"])
    assert found["cycles"] == pytest.approx(total, rel=0.005)
    for way in ("read", "write"):
        parts = sum(x["bytes"]["l1_l2"][way] for x in found["layers"])
        assert found["bytes"]["l1_l2"][way] == pytest.approx(parts, rel=0.01)
    # Every weight and every input of a layer comes from below L1D in a network of this size.
    assert found["bytes"]["l1_l2"]["read"] > 4 * 22_000


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
    assert "conv2d_nhwc_f32_neon" in said  # a kernel's name
    assert re.search(r"conv2d +\d+\.\d+ +\d+\.\d% .* (compute|L2) +\d+% .* KiB ", said)
    assert f"basis: {A57.cycle_model.core.basis}; modelled, not measured" in said
    assert codegen("bench", built, "--board", A57.name, "-q") == 0
    assert capsys.readouterr().out == ""


@needs_tools
@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--board", "raspberry-pi-4"), "was built for jetson-nano-cpu"),
        (("--board", A57.name, "--plan", "plan.json"), "--plan: .* is already built"),
        (("--board", A57.name, "--shape", "x=1x2"), "--shape: .* is already built"),
        (("--board", A57.name, "--runner", "qemu"), "'qemu' counts no cycles, and .*; virtual, l"),
        (("--board", A57.name, "--runner", "local"), "'local' cannot run code for board jetson"),
        (("--board", A57.name, "--runner", "ssh", "--roofline", "r.svg"), "host"),
        (("--board", A57.name, "--roofline", "none/r.svg"), "there is no folder none"),
    ],
)
def test_wrong_options(built, capsys, options, said):
    assert codegen("bench", built, *options) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    assert re.search(said, error)


def test_board_that_is_not_emulated(capsys):
    assert codegen("bench", MODEL, "--board", "local", "--runner", "virtual") == 2
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
    monkeypatch.setattr("codegen.program.compile_library", lambda *a: failed)
    assert codegen("bench", MODEL, "--board", A57.name) == 1
    assert "the generated library does not compile" in capsys.readouterr().err


# ---- what takes the time instead of counting ----

RUNS_NS = [1_000_000, 1_010_000, 990_000, 1_000_000, 1_005_000, 1_000_000, 1_000_000]
LAYERS = [
    {"name": "conv", "kernel": "conv2d_nchw_f32_c_direct", "macs": 4_000_000},
    {"name": "relu", "kernel": "relu_f32_c", "macs": 0},
]


def timed_folder(folder: Path, board: str, report: dict) -> Path:
    """A build folder whose program says what it is told to."""
    (folder / "build").mkdir(parents=True)
    about = {"model": "m.onnx", "board": board, "layers": LAYERS}
    (folder / "report.json").write_text(json.dumps(about))
    program = folder / "build" / "bench"
    program.write_text(f"#!/bin/sh\necho '{json.dumps(report)}'\n")
    program.chmod(0o755)
    return folder


def test_local_board_takes_the_time(tmp_path, capsys):
    report = {"runs_ns": RUNS_NS, "steps_ns": [900_000, 80_000], "cycles": None, "cpu": 1}
    folder = timed_folder(tmp_path / "b", "local", report)
    assert codegen("bench", folder, "--board", "local", "--json") == 0
    found = json.loads(capsys.readouterr().out)
    assert found["runner"] == "local"
    assert found["basis"] == "measured"
    assert (found["ms"], found["ms_min"], found["ms_mad"], found["runs"]) == (1.0, 0.99, 0.0, 7)
    assert found["ms_interval"] == [0.99, 1.01]
    assert found["gflops"] == 8.0
    for row in (found, *found["layers"]):  # what a clock cannot know
        assert row["cycles"] is None
        assert all(row[k] is None for k in (*PARTS, "events", "bytes", "intensity", "bound"))
        assert row["peak_percent"] is None
    assert [x["ms"] for x in found["layers"]] == [0.9, 0.08]
    assert codegen("bench", folder, "--board", "local") == 0
    said = capsys.readouterr().out
    assert re.search(r"conv +0\.900 +91\.8% +8\.89", said)
    assert "median of 7 runs; 95 % interval 0.990 to 1.010, minimum 0.990, MAD 0.000" in said


def test_noisy_runs_are_called_so(tmp_path, capsys):
    report = {"runs_ns": [1, 2, 3, 4, 5, 6, 7], "steps_ns": [], "cycles": None}
    folder = timed_folder(tmp_path / "b", "local", report)
    assert codegen("bench", folder, "--board", "local") == 0
    assert "noisy: the 95 % confidence interval of the median is" in capsys.readouterr().out


def test_program_that_takes_no_times(tmp_path, capsys):
    folder = timed_folder(tmp_path / "b", "local", {"hello": 1})
    assert codegen("bench", folder, "--board", "local") == 1
    assert "the program reports no times" in capsys.readouterr().err


def test_real_board(tmp_path, capsys, monkeypatch):
    """Cycles are the board's own; its conditions are told."""
    conditions = {"before": {"governor": "performance", "temperature_c": 41.0, "throttled": None}}
    report = {
        "runs_ns": RUNS_NS, "steps_ns": [900_000, 80_000], "cpu": 3, "conditions": conditions,
        "cycles": [1_430_000, 1_431_000, 1_429_000, 1_430_000, 1_430_000, 1_430_000, 1_430_000],
    }  # fmt: skip
    folder = timed_folder(tmp_path / "b", A57.name, report)

    class Board:
        name = "ssh"

        def run(self, job, board):
            assert job.args == ()
            return Outcome(report)

    asked = []
    monkeypatch.setattr(
        "codegen.verbs.hosts.pick_runner", lambda *a: asked.append(a) or Board()
    )
    assert codegen("bench", folder, "--board", A57.name, "--host", "nano", "--json") == 0
    assert asked == [(A57, "", "nano", False)]
    found = json.loads(capsys.readouterr().out)
    assert found["cycles"] == 1_430_000
    assert found["conditions"] == conditions
    assert found["cpu"] == 3
    assert found["peak_percent"] == pytest.approx(100 * 4e6 / 1e6 / (4 * 1.43), abs=0.1)
    assert codegen("bench", folder, "--board", A57.name, "--host", "nano") == 0
    said = capsys.readouterr().out
    assert "1,430,000 cycles counted" in said
    assert "before: governor performance, temperature_c 41.0" in said


def test_roofline_needs_counted_bytes(tmp_path, capsys):
    report = {"runs_ns": RUNS_NS, "steps_ns": [900_000, 80_000], "cycles": None}
    folder = timed_folder(tmp_path / "b", "local", report)
    assert codegen("bench", folder, "--board", "local", "--roofline", tmp_path / "r.svg") == 2
    assert "--roofline: runner local does not count bytes" in capsys.readouterr().err
    assert not (tmp_path / "r.svg").exists()
