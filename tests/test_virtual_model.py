"""The virtual board's parts: the in-order core, llvm's tools, traces, the table of a board."""

from dataclasses import replace

import pytest

from codegen import cycle_model
from codegen.board import board_names, load_board
from codegen.errors import CodegenError
from codegen.resources import boards_dir
from codegen.run.virtual import inorder, model, outoforder
from codegen.run.virtual.counts import EVENTS, START, Block, Counts, Region
from codegen.run.virtual.disassemble import disassemble
from codegen.run.virtual.errors import AnalysisError
from codegen.run.virtual.traces import trace_region
from codegen.toolchain import find_llvm

A57 = load_board("jetson-nano-cpu")
_LLVM = find_llvm("llvm-mc") and find_llvm("llvm-mca")
needs_llvm = pytest.mark.skipif(not _LLVM, reason="no llvm-mc and llvm-mca on this machine")


@pytest.fixture(autouse=True)
def _cache(tmp_path, monkeypatch):
    """Nothing comes from, or goes to, the user's cache."""
    monkeypatch.setenv("CODEGEN_CACHE", str(tmp_path / "cache"))


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


@pytest.mark.parametrize("tool", ["/nonexistent", "/bin/false"])
def test_broken_llvm(tool):
    with pytest.raises(AnalysisError, match="llvm-mc failed"):
        disassemble((0x4E3FCFC0,), tool)
    with pytest.raises(AnalysisError, match="llvm-mca .*(No such file|exit code 1)"):
        outoforder.cycles([("nop",)], "cortex-a57", tool)


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
    assert traced.scale == 1


# ---- penalties ----


def test_what_the_core_does_meanwhile_hides_the_bus():
    """A line every 0 to 3 instructions, and one every 40 to 43, at two cycles an instruction."""
    events = dict.fromkeys(EVENTS, 0) | {"spacing0": 1000, "spacing40": 500, "load_memory": 3}
    memory = cycle_model.MemoryModel(load=100, store=0, line=20)
    cost = model.charge(model.Work(2000.0, 1000, events), replace(A57.cycle_model, memory=memory))
    assert cost.memory == 3 * 100 + 1000 * (20 - 1.5 * 2)
    assert cost.core == 2000


def test_events_have_penalties():
    """Every penalty is that of its own event."""
    l2 = cycle_model.L2Model(load=1, store=10, first_load=100, first_store=1000)
    memory = cycle_model.MemoryModel(load=2, store=20, line=0)
    core = replace(A57.cycle_model.core, branch=7)
    table = replace(A57.cycle_model, core=core, l2=l2, memory=memory)
    names = {"load_l2": 1, "store_l2": 10, "first_load_l2": 100, "first_store_l2": 1000,
             "load_memory": 2, "store_memory": 20, "mispredicted": 7, "first_load_memory": 0,
             "write_back_l2": 0, "loads": 0}  # fmt: skip
    for name, penalty in names.items():
        events = dict.fromkeys(EVENTS, 0) | {name: 3}
        assert model.charge(model.Work(0.0, 1, events), table).cycles == 3 * penalty, name


# ---- the board's table ----


@pytest.mark.parametrize("name", board_names())
def test_every_emulated_board_has_a_cycle_model(name):
    board = load_board(name)
    assert (board.cycle_model is not None) == ("virtual" in board.runners)


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ('llvm_cpu = "cortex-a57"', 'llvm_cpu = "cortex-x9"', "'cortex-x9'; llvm_cpu is one of:"),
        ('"fitted"', '"sure"', "basis = 'sure'; basis is one of: fitted, checked, guess"),
        ("streams = 8", "stream = 8", "unknown key 'stream'|missing key 'streams'"),
        ("[cycle_model]", "[cycle_models]", "unknown key 'cycle_models'"),
        ("load = 16", "load = -9", "load = -9; load is 0 to 10000"),
        ("load = 16", "load = true", "load = True; load is 0 to 10000"),
        ("history = 12", "history = 21", "history = 21; history is 1 to 20"),
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
