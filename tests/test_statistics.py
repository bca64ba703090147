"""Medians with their confidence, and the bench program that makes the runs."""

import json
import random
import shutil
import statistics
import subprocess
from pathlib import Path

import pytest

from codegen.board import load_board
from codegen.build import compile_library
from codegen.pipeline import generate
from codegen.run import Job, pick_runner
from codegen.run.statistics import interval_rank, summarise
from codegen.sources import write
from codegen.toolchain import find_host_cc, find_qemu, find_toolchain

MODEL = Path(__file__).resolve().parent.parent / "examples" / "models" / "mnist8.onnx"


# Distribution-free 95 % intervals of the median: ranks as in printed tables, e.g. Conover,
# Practical Nonparametric Statistics (n = 10: 2nd to 9th, n = 20: 6th to 15th).
@pytest.mark.parametrize(
    ("n", "rank"),
    [(1, 0), (5, 0), (6, 1), (8, 1), (9, 2), (10, 2), (20, 6), (50, 18), (100, 40), (1000, 469)],
)
def test_rank(n, rank):
    assert interval_rank(n) == rank


def test_summary():
    found = summarise([14, 10, 11, 12, 13, 1000, 12, 11, 12, 13])
    assert (found.min, found.median, found.mad, found.runs) == (10, 12, 1, 10)
    assert (found.ci_low, found.ci_high) == (11, 14)


def test_interval_holds_the_median_as_often_as_it_says():
    """Skewed times, as a machine with interrupts has them; their median is 1 + ln 2."""
    rng = random.Random(1)
    samples = [[1 + rng.expovariate(1) for _ in range(25)] for _ in range(2000)]
    hit = statistics.mean(s.ci_low <= 1.693147 <= s.ci_high for s in map(summarise, samples))
    assert 0.95 <= hit < 0.97


@pytest.mark.parametrize(
    ("runs", "said"),
    [
        ([100.0] * 6, ""),
        ([100, 101] * 20, ""),
        ([100.0] * 5, "5 runs are too few"),
        ([0] * 9, "the clock is too coarse"),
        ([100, 104] * 20, "interval of the median is 3.9% wide, 2% is allowed"),
        ([100] * 60 + [104, 108] * 5, ""),  # a few slow runs do no harm
        ([100 + i / 20 for i in range(300)], "the runs drift by +"),
    ],
)
def test_noisy(runs, said):
    noisy = summarise(runs).noisy
    assert said in noisy
    assert bool(said) == bool(noisy)


def test_no_runs():
    with pytest.raises(ValueError, match="no runs"):
        summarise([])


def _bench(board, folder: Path) -> Path:
    toolchain = find_toolchain(board)
    generated = generate(MODEL, board)
    write(generated.sources, folder)
    binary = compile_library(generated.sources, folder, toolchain)
    assert binary.error == ""
    return binary.bench


@pytest.mark.skipif(not find_host_cc(), reason="no C compiler on this machine")
def test_bench_ends_when_the_median_is_known(tmp_path):
    board = load_board("local")
    program = _bench(board, tmp_path)
    outcome = pick_runner(board).run(Job(program, ("80", "0", "1000")), board)
    assert outcome.error == ""
    report = outcome.report
    found = summarise(report["runs_ns"], width=0.01)
    # 16, 24, 36 and 54 runs are looked at.
    assert found.runs == 80 or (found.runs in (16, 24, 36, 54) and "wide" not in found.noisy)
    assert report["cpu"] in (0, -1)  # -1: this process may not use core 0
    assert len(report["steps_ns"]) > 3
    assert 0 < sum(report["steps_ns"]) <= 2 * found.median
    if report["cycles"] is not None:  # counted where this kernel allows it
        assert len(report["cycles"]) == found.runs
        assert min(report["cycles"]) > 0
    few = pick_runner(board).run(Job(program, ("3",)), board).report
    assert len(few["runs_ns"]) == 3


@pytest.mark.skipif(
    not (shutil.which("aarch64-linux-gnu-gcc") and find_qemu()),
    reason="no aarch64-linux-gnu-gcc and qemu-aarch64 on this machine",
)
def test_bench_without_a_cycle_counter(tmp_path):
    """The emulator refuses PMCCNTR_EL0 as most kernels do, and has no perf events: no cycles."""
    board = load_board("jetson-nano-cpu")
    program = _bench(board, tmp_path)
    outcome = pick_runner(board, "qemu").run(Job(program, ("6", "0", "0")), board)
    assert outcome.error == ""
    assert len(outcome.report["runs_ns"]) == 6
    assert outcome.report["cycles"] is None
    said = subprocess.run((find_qemu(), program, "0"), capture_output=True, check=True).stdout
    assert json.loads(said)["runs_ns"] == []
