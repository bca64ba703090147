"""The virtual board: counters and cycles of programs with known answers, determinism, errors."""

import dataclasses
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from codegen import cycle_model
from codegen.board import board_names, load_board
from codegen.errors import CodegenError
from codegen.resources import boards_dir
from codegen.run import Job, pick_runner
from codegen.run.virtual import inorder, model, outoforder, plugin, runner
from codegen.run.virtual.counts import (
    EVENTS,
    START,
    Block,
    CountError,
    Counts,
    Region,
    parse_counts,
)
from codegen.run.virtual.disassemble import disassemble
from codegen.run.virtual.errors import AnalysisError
from codegen.run.virtual.traces import trace_region
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
    """Those given, the others zero; loads and stores apart."""
    found = {k: v for k, v in region["events"].items() if k not in ("loads", "stores") and v}
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
    miss = 2 * PAGES * m.memory.load + (LINES - 2 * PAGES) * m.memory.first_load
    assert found[1]["memory"] == miss
    assert found[3]["l2"] == 128 * m.l2.load + (4096 - 128) * m.l2.first_load
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
        assert found[number]["branch"] == board.cycle_model.core.branch
    assert found[5]["branch"] == pytest.approx(1001 * board.cycle_model.core.branch, rel=0.01)
    assert found[0]["cycles"] == pytest.approx(found[6]["cycles"], abs=20)


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


# ---- the in-order model ----

IN_ORDER = [
    # (core, loop, cycles of a turn)
    ("cortex-a53", ["fmla v0.4s, v30.4s, v31.4s"], 4),  # the sum is forwarded after 4
    ("cortex-a53", ["fmla v0.4s, v0.4s, v31.4s"], 8),
    ("cortex-a53", ["ldr x0, [x0]"], 3),
    ("cortex-a53", ["ldr q0, [x0]", "ldr q1, [x0]"], 4),  # 64 bits a cycle
    # a vector load of 128 bits holds vector arithmetic up for two cycles, one of 64 bits for one
    ("cortex-a53", ["ldr q0, [x0]", "fmla v1.4s, v30.4s, v31.4s", "fmla v2.4s, v30.4s, v31.4s"], 4),
    ("cortex-a55", ["ldr d0, [x0]", "fmla v1.4s, v30.4s, v31.4s", "ldr d2, [x0]",
                    "fmla v3.4s, v30.4s, v31.4s", "ldr d4, [x0]", "fmla v5.4s, v30.4s, v31.4s",
                    "ldr d6, [x0]", "fmla v7.4s, v30.4s, v31.4s"], 4),
    # a move from a general register goes with a vector load, and not with a 128-bit operation
    ("cortex-a53", ["ldr d0, [x0]", "mov v1.d[1], x2"], 3),
    ("cortex-a53", ["fadd v2.2s, v3.2s, v4.2s", "fadd v5.2s, v6.2s, v7.2s"], 1),
    ("cortex-a53", ["fadd v2.4s, v3.4s, v4.4s", "fadd v5.4s, v6.4s, v7.4s"], 2),
    ("cortex-a53", ["add x1, x2, x3", "add x4, x5, x6"], 1),
    ("cortex-a53", ["mul x1, x2, x3", "mul x4, x5, x6"], 2),
    ("cortex-a53", ["str x1, [x9]", "str x2, [x9, #8]"], 2),
    ("cortex-a53", ["cmp x1, x2", "csel x1, x4, x5, eq"], 2),
]  # fmt: skip


@pytest.mark.parametrize(("cpu", "loop", "cycles"), IN_ORDER, ids=lambda v: str(v)[:40])
def test_in_order_core(cpu, loop, cycles):
    assert inorder.cycles([(loop, True)], cpu) == [pytest.approx(cycles, abs=0.3)]


def test_in_order_profiles_are_the_cores():
    assert tuple(inorder.PROFILES) == cycle_model.IN_ORDER


def test_in_order_straight_code_ends_with_its_last_issue():
    code = ["fmla v0.4s, v30.4s, v31.4s", "fmla v0.4s, v30.4s, v31.4s", "nop"]
    assert inorder.cycles([(code, False)], "cortex-a53") == [5.0]


def test_in_order_refuses_what_it_cannot_read():
    with pytest.raises(AnalysisError, match=r"no timing for the instruction '\?\?\?'"):
        inorder.cycles([(["???"], False)], "cortex-a53")


# ---- llvm ----


@pytest.mark.parametrize(
    ("text", "split"),
    [
        ("str q0, [x1], #16", ("str q0, [x1]", "add x1, x1, #16")),
        ("stp x29, x30, [sp, #-16]!", ("sub sp, sp, #16", "stp x29, x30, [sp]")),
        ("st1 { v0.4s }, [x0], x2", ("st1 { v0.4s }, [x0]", "add x0, x0, x2")),
        ("str q0, [x1, #16]", ("str q0, [x1, #16]",)),
        ("ldr q0, [x1], #16", ("ldr q0, [x1], #16",)),
    ],
)
def test_write_back_stores_are_split(text, split):
    assert outoforder.split_stores([text]) == split


@needs_llvm
def test_disassembly_leaves_out_the_unknown():
    words = (0x4E3FCFC0, 0xFFFFFFFF, 0x54FFFFE1)
    text = {0x4E3FCFC0: "fmla v0.4s, v30.4s, v31.4s", 0x54FFFFE1: "b.ne #0"}
    assert disassemble(words, find_llvm("llvm-mc")) == text


def counts_of(*words: int) -> Counts:
    region = Region(1, dict.fromkeys(EVENTS, 0), {(START, 1): 1, (1, 1): 99})
    return Counts({1: Block(0x1000, words)}, {0: region})


@needs_llvm
def test_unknown_encoding_in_hot_code():
    with pytest.raises(AnalysisError, match="hot code has the unknown instruction 0xffffffff"):
        model.price(counts_of(0xFFFFFFFF), A57.cycle_model, find_llvm("llvm-mc"), "")


@pytest.mark.parametrize("tool", ["/nonexistent", shutil.which("false")])
def test_broken_llvm(tool):
    with pytest.raises(AnalysisError, match="llvm-mc failed"):
        disassemble((0x4E3FCFC0,), tool)
    with pytest.raises((AnalysisError, OSError)):
        outoforder.cycles([("nop",)], "cortex-a57", tool)


@needs_tools
def test_instruction_that_the_core_does_not_have(program):
    timing = dataclasses.replace(A76.cycle_model.core, llvm_cpu="cortex-a57")
    wrong = dataclasses.replace(A76.cycle_model, core=timing)
    outcome = run(program, "dot", dataclasses.replace(A76, cycle_model=wrong))
    assert re.search(r"llvm-mca -mcpu=cortex-a57 cannot time .*dotprod.*'sdot v0", outcome.error)


# ---- traces ----


def test_traces_join_and_close():
    """1 -> (2 -> 3) x 10 -> 4, all of it 100 times."""
    ret, beq, nop = 0xD65F03C0, 0x54000000, 0xD503201F
    blocks = {1: Block(0, (nop,)), 2: Block(4, (nop,)), 3: Block(8, (beq,)), 4: Block(12, (ret,))}
    edges = {(START, 1): 100, (1, 2): 100, (2, 3): 1000, (3, 2): 900, (3, 4): 100}
    traced = trace_region(Region(1, {}, edges), blocks)
    assert [(t.words, t.loop, t.times) for t in traced.traces] == [
        ((nop, beq), True, 1000),
        ((nop,), False, 100),
        ((ret,), False, 100),
    ]
    assert traced.exits == 100
    assert traced.scale == 1


# ---- errors ----


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


# ---- the board's table ----


@pytest.mark.parametrize("name", board_names())
def test_every_emulated_board_has_a_cycle_model(name):
    board = load_board(name)
    assert (board.cycle_model is not None) == ("virtual" in board.runners)


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ('llvm_cpu = "cortex-a57"', 'llvm_cpu = "cortex-x9"', "'cortex-x9'; llvm_cpu is one of:"),
        ('"checked"', '"sure"', "basis = 'sure'; basis is one of: fitted, checked, guess"),
        ("streams = 8", "stream = 8", "unknown key 'stream'|missing key 'streams'"),
        ("[cycle_model]", "[cycle_models]", "unknown key 'cycle_models'"),
        ("load = 9", "load = -9", "load = -9; load is 0 to 10000"),
        ("load = 9", "load = true", "load = True; load is 0 to 10000"),
        ("streams = 8", "streams = 0", "streams = 0; streams is 1 to 10000"),
        ("l1d_ways = 2", "l1d_ways = 3", "32768 bytes do not make 3 ways"),
        ("l2 = {", "l3 = {", r"\[cycle_model\]: (missing key 'l2'|unknown key 'l3')"),
    ],
)
def test_wrong_table(tmp_path, old, new, said):
    text = (boards_dir() / "jetson-nano-cpu.toml").read_text()
    assert old in text
    (tmp_path / "mine.toml").write_text(text.replace(old, new, 1))
    with pytest.raises(CodegenError, match=said):
        load_board(str(tmp_path / "mine.toml"))
