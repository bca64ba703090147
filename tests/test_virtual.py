"""The virtual board: counters and cycles of programs with known answers, determinism, errors."""

import dataclasses
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from codegen.board import load_board
from codegen.run import Job, pick_runner
from codegen.run.virtual import outoforder, plugin, runner
from codegen.run.virtual.counts import (
    CountError,
    parse_counts,
)
from codegen.toolchain import find_llvm, find_qemu

SOURCE = Path(__file__).parent / "virtual_board.c"
CROSS = shutil.which("aarch64-linux-gnu-gcc")
A57, A53, A76 = map(load_board, ("jetson-nano-cpu", "raspberry-pi-3b-plus", "raspberry-pi-5"))
LINES, PAGES, TURNS = 131072, 2048, 10000

_LLVM = find_llvm("llvm-mc") and find_llvm("llvm-mca")
_ABSENT = [n for n, f in (("qemu-aarch64", find_qemu()), ("llvm-mc and llvm-mca", _LLVM),
                          ("aarch64-linux-gnu-gcc", CROSS)) if not f]  # fmt: skip
needs_tools = pytest.mark.skipif(bool(_ABSENT), reason=f"no {', '.join(_ABSENT)} on this machine")
needs_llvm = pytest.mark.skipif(not _LLVM, reason="no llvm-mc and llvm-mca on this machine")


@pytest.fixture(scope="module", autouse=True)
def _cache(tmp_path_factory):
    """Nothing comes from, or goes to, the user's cache."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CODEGEN_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="module")
def program(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("programs") / "known"
    command = (CROSS, "-O2", "-static", "-pthread", "-DDOT", str(SOURCE), "-o", str(path))
    subprocess.run(command, check=True)
    return path


def run(program: Path, what: str, board=A57, timeout=60.0):
    return pick_runner(board, "virtual").run(Job(program, (what,), timeout_s=timeout), board)


def regions(program: Path, what: str, board=A57):
    outcome = run(program, what, board)
    assert outcome.error == ""
    return {int(k): v for k, v in outcome.report["regions"].items()}


def events(region, **expected):
    """Those given, the others zero; loads, stores and branches apart."""
    apart = ("loads", "stores", "mispredicted")
    found = {k: v for k, v in region["events"].items() if k not in apart and v}
    assert found == expected


# ---- counters ----


@needs_tools
@pytest.mark.parametrize("board", [A57, A53], ids=lambda b: b.core)
def test_counters_are_exact(program, board):
    """Two lines of every page miss before the prefetcher follows; the pointers jump over pages."""
    found = regions(program, "caches", board)
    assert set(found) == {1, 2, 3, 4, 5}  # not the one that only warms up
    l2_lines, l1_lines = board.l2_bytes // 64, board.l1d_bytes // 64
    events(found[1], load_memory=2 * PAGES, first_load_memory=LINES - 2 * PAGES)
    events(found[2], load_memory=LINES)
    events(found[3], load_l2=2 * 64, first_load_l2=4096 - 2 * 64)
    events(found[4], store_memory=2 * PAGES, first_store_memory=LINES - 2 * PAGES,
           write_back_l2=LINES - l1_lines, write_back_memory=LINES - l2_lines)  # fmt: skip
    assert found[1]["events"]["loads"] == found[2]["events"]["loads"] == LINES
    assert found[4]["events"]["stores"] == LINES
    # Two callbacks of 8 bytes per 16-byte access; the second half lies on the next line.
    assert found[5]["events"]["loads"] == 4


@needs_tools
def test_penalties_are_the_boards(program):
    found, m = regions(program, "caches"), A57.cycle_model

    def waits(region):
        """For the bus: four instructions a line, counted with those of five to seven."""
        return m.memory.line - 5.5 * region["core"] / region["instructions"]

    assert waits(found[1]) > 0
    total = 2 * PAGES * m.memory.load + LINES * waits(found[1])
    assert found[1]["memory"] == pytest.approx(total, rel=1e-3)
    assert found[3]["l2"] == 128 * m.l2.load + (4096 - 128) * m.l2.first_load
    # Written lines take the bus once, when they leave L2.
    left = LINES - A57.l2_bytes // 64
    total = 2 * PAGES * m.memory.store + left * waits(found[4])
    assert found[4]["memory"] == pytest.approx(total, rel=1e-3)
    for r in found.values():
        assert abs(r["cycles"] - sum(r[k] for k in ("core", "branch", "l2", "memory"))) <= 2
        assert r["ms"] == pytest.approx(r["cycles"] * 1e3 / A57.clock_hz, abs=1e-6)
    # A load takes 4 cycles on the A57; the chase waits for each.
    assert found[2]["core"] == pytest.approx(4 * LINES, rel=0.02)


# ---- cycles ----

# Region of `core` -> cycles of one turn.
TURN = {
    # 16 FMLA.4S; 4 sums, each waiting for the one before; 4 products; 4 integer additions
    A57: {1: 16, 2: 16, 3: 20, 4: 4},  # one FMLA a cycle; sums after 4, products after 5
    A53: {1: 16, 2: 16, 3: 16, 4: 4},
    A76: {1: 8, 2: 16, 3: 12, 4: 4},  # two FMLA a cycle
}


@needs_tools
@pytest.mark.parametrize("board", TURN, ids=lambda b: b.core)
def test_cycles_of_known_loops(program, board):
    found = regions(program, "core", board)
    for number, cycles in TURN[board].items():
        # Up to a cycle or two for the loop's own end on a core that issues in order.
        slack = 1.3 if board is A53 else 0.25
        turn = found[number]["core"] / TURNS
        assert cycles * 0.99 <= turn <= cycles + slack, (number, turn)
        assert found[number]["events"]["mispredicted"] <= 2 * board.cycle_model.core.history
    assert found[0]["cycles"] == pytest.approx(found[6]["cycles"], abs=20)


@needs_tools
@pytest.mark.parametrize("board", TURN, ids=lambda b: b.core)
def test_branches_are_predicted_by_their_history(program, board):
    """The end of a short loop is learned while its history fills; that of a long one never."""
    found, core = regions(program, "core", board), board.cycle_model.core
    assert found[5]["events"]["mispredicted"] <= 3 * core.history
    assert 1000 <= found[7]["events"]["mispredicted"] <= 1000 + 3 * core.history
    for r in found.values():
        assert r["branch"] == r["events"]["mispredicted"] * core.branch


@needs_tools
def test_nothing_depends_on_this_machine(program, tmp_path, monkeypatch):
    """Another folder, name, environment, working and temporary folder: the same to the cycle."""
    first = run(program, "places").report
    again = run(program, "places").report
    moved = tmp_path / "a folder with a long, long name" / "other"
    moved.parent.mkdir()
    shutil.copy(program, moved)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr("tempfile.tempdir", None)
    for i in range(50):
        monkeypatch.setenv(f"VARIABLE_{i}", "x" * 1000)
    assert first == again == run(moved, "places").report
    assert first["cycles"] > 100_000


@needs_tools
def test_analysis_is_kept(program, monkeypatch):
    first = regions(program, "core")
    monkeypatch.setattr(outoforder, "_analyse", None)  # a call would fail
    assert regions(program, "core") == first


@needs_tools
def test_program_without_regions_has_no_cycles(program):
    report = run(program, "nothing").report
    assert report["done"] is True
    assert report["cycles"] is report["ms"] is None
    assert report["regions"] == {}


# ---- errors ----


@needs_tools
def test_instruction_that_the_core_does_not_have(program):
    timing = dataclasses.replace(A76.cycle_model.core, llvm_cpu="cortex-a57")
    wrong = dataclasses.replace(A76.cycle_model, core=timing)
    outcome = run(program, "dot", dataclasses.replace(A76, cycle_model=wrong))
    assert re.search(r"llvm-mca -mcpu=cortex-a57 cannot time .*dotprod.*'sdot v0", outcome.error)


@needs_tools
@pytest.mark.parametrize(
    ("what", "said"),
    [
        ("open", "a region was never closed"),
        ("end", "a region was closed that was not the last one opened"),
        ("deep", "regions are nested more than 8 deep"),
        ("threads", "a region ran on a second thread; the virtual board has one core"),
        ("trap", r"the program ended with signal \d+"),
    ],
)
def test_program_that_goes_wrong(program, what, said):
    outcome = run(program, what)
    assert re.match(said, outcome.error)
    assert not outcome.report


@needs_tools
def test_program_that_never_ends(program):
    assert run(program, "hang", timeout=1.0).error == "the program did not end within 1 s"


def test_counts_that_are_cut_off():
    with pytest.raises(CountError, match="cut off"):
        parse_counts("block 1 400000 d503201f\n")


@needs_tools
@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"#!/bin/sh\n" * 9, "is not an ELF program"),
        (b"\x7fELF\x02" + bytes(13) + b"\x3e\x00" + bytes(9), r"another machine \(ELF machine 62"),
        (None, "the program cannot be read"),
    ],
)
def test_program_that_is_none(tmp_path, content, said):
    if content:
        (tmp_path / "p").write_bytes(content)
    assert re.search(said, run(tmp_path / "p", "").error)


@pytest.mark.parametrize(
    ("qemu", "llvm", "said"),
    [
        (None, "x", "qemu-aarch64 is not installed (package qemu-user)"),
        ("x", None, "llvm-mc is not installed (package llvm-19 or llvm)"),
    ],
)
def test_missing_tools(monkeypatch, qemu, llvm, said):
    monkeypatch.setattr(runner, "find_qemu", lambda: qemu)
    monkeypatch.setattr(runner, "find_llvm", lambda tool: llvm)
    assert run(Path("p"), "").error == said


def test_board_without_a_cycle_model():
    bare = dataclasses.replace(A57, cycle_model=None)
    assert "has no [cycle_model]" in run(Path("p"), "", bare).error


@needs_tools
@pytest.mark.parametrize("failure", ["cc", "source", "qemu"])
def test_plugin_that_cannot_be_made(monkeypatch, tmp_path, program, failure):
    monkeypatch.setenv("CODEGEN_CACHE", str(tmp_path / "empty"))
    if failure == "cc":
        monkeypatch.setattr(plugin, "find_host_cc", lambda: None)
        said = "no C compiler for qemu's plugin (package gcc)"
    elif failure == "source":
        (tmp_path / "vboard").mkdir()
        (tmp_path / "vboard" / "plugin.c").write_text("this is no C")
        monkeypatch.setattr(plugin, "runtime_dir", lambda: tmp_path)
        said = "qemu's plugin does not compile: "
    else:
        monkeypatch.setattr(runner, "find_qemu", lambda: "/nonexistent")
        said = "qemu-aarch64 does not start: "
    assert said in run(program, "core").error
    assert not list(tmp_path.rglob("*.so"))


def test_default_runner_is_not_virtual():
    assert getattr(pick_runner(A57), "name", "") != "virtual"
