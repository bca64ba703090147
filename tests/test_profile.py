"""codegen profile: hot traces of one layer with the reason for their cycles; and what bench and
profile say of bad input."""

import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from codegen.board import load_board
from codegen.build import Binary
from codegen.cli import main
from codegen.errors import CodegenError
from codegen.footprint import functions
from codegen.resources import boards_dir
from codegen.run.virtual import inorder, missing, ports, runner, stalls
from codegen.run.virtual.chains import Chain, chains
from codegen.run.virtual.errors import AnalysisError
from codegen.run.virtual.hot import target
from codegen.run.virtual.instruction import parse
from codegen.toolchain import find_llvm
from codegen.verbs.profile import find_layer
from codegen.verbs.progress import progress

ROOT = Path(__file__).resolve().parent.parent
MODEL = ROOT / "examples" / "models" / "mnist8.onnx"
A57, A53, A76 = map(load_board, ("jetson-nano-cpu", "raspberry-pi-3b-plus", "raspberry-pi-5"))
CROSS = shutil.which("aarch64-linux-gnu-gcc")
MCA = find_llvm("llvm-mca")
_WHY = missing(A57) or ("" if CROSS else "no aarch64-linux-gnu-gcc on this machine")
needs_tools = pytest.mark.skipif(bool(_WHY), reason=_WHY)
needs_llvm = pytest.mark.skipif(not MCA, reason="no llvm-mca on this machine")


def codegen(*args: object) -> int:
    with pytest.raises(SystemExit) as ended:
        main([str(a) for a in args])
    return ended.value.code


@pytest.fixture(scope="module", autouse=True)
def _cache(tmp_path_factory):
    """Nothing comes from, or goes to, the user's cache."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CODEGEN_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


# ---- why a trace takes its cycles ----

SUMS = [f"fmla v{i}.4s, v30.4s, v31.4s" for i in range(16)]
CHAIN = ["fmla v16.4s, v0.4s, v1.s[0]"] * 3
LOADS = ["ldr q0, [x1]", "ldr q1, [x1, #16]", "ldr q2, [x1, #32]"]
CHASE = ["ldr x0, [x0]"]
MIXED = ["ldr q0, [x1]", "fadd v0.4s, v0.4s, v1.4s", "str q0, [x1]"]
COUNTERS = [f"add x{i}, x{i}, #1" for i in range(8)]
NOPS = ["nop"] * 9
WHY = [
    ("cortex-a57", SUMS, r"throughput of the FP/ASIMD W and X pipes: 16 of 16.1 cycles"),
    ("neoverse-n1", SUMS, r"throughput of the FP/ASIMD V0 and V1 pipes: 8 of 8.1 cycles"),
    ("cortex-a53", SUMS, r"the vector pipe is full: 16 of 16 cycles"),
    ("cortex-a57", CHAIN, r"latency chain through v16: fmla x 4: 12.* of 12.* cycles"),
    ("cortex-a53", CHAIN, r"latency, waits for a vector result: 1\d of 12 cycles, most through "
                          r"v16: fmla -> fmla"),
    ("cortex-a57", LOADS, r"throughput of the load L pipe: 3 of 3.1 cycles"),
    ("cortex-a53", LOADS, r"the memory port is busy: 6 of 6 cycles"),
    ("cortex-a57", CHASE, r"latency chain through x0: ldr -> ldr: 4 of 4 cycles"),
    ("cortex-a53", CHASE, r"latency, waits for a load: 3 of 3 cycles, most through x0: ldr -> ldr"),
    ("cortex-a57", MIXED, r"throughput of the store S pipe: 2 of 2.1 cycles"),
    ("cortex-a53", MIXED, r"latency, waits for a load: 5 of 10 cycles, .*; then waits for a vec"),
    ("cortex-a57", COUNTERS, r"throughput of the integer I0 and I1 pipes: 4 of 4 cycles"),
    ("cortex-a55", COUNTERS, r"two instructions a cycle: 4 of 4 cycles are full"),
    ("cortex-a57", NOPS, r"front end: 9 micro-ops at 3 a cycle take 3 of 3 cycles"),
    ("cortex-a57", ["fadd v0.4s, v1.4s, v2.4s", "fadd v3.4s, v0.4s, v3.4s", *COUNTERS[:4]],
     r"latency chain through v3: fadd -> fadd"),
]  # fmt: skip


@needs_llvm
@pytest.mark.parametrize(("cpu", "code", "said"), WHY, ids=lambda v: str(v)[:30])
def test_bottleneck_is_named(cpu, code, said):
    if cpu in inorder.PROFILES:
        found = stalls.explain(code, True, cpu)
        # every cycle of a pass has its reason
        passed = inorder.cycles([(code, True)], cpu)[0]
        assert sum(n for _, n in found.use) == pytest.approx(passed)
        assert sum(n.cycles for n in found.notes) == pytest.approx(passed)
    else:
        found = ports.explain(code, cpu, MCA)
    assert re.match(said, found.bottleneck), found.bottleneck
    assert len(found.notes) == len(code)


def test_margin_of_an_in_order_core():
    code = ["ldr q0, [x1]", "fadd v2.4s, v0.4s, v3.4s", "mov x5, x6", "b #0"]
    wait, pair = (stalls.explain(code, True, "cortex-a53").notes[i] for i in (1, 2))
    assert (wait.cycles, wait.units, wait.why) == (5, "vector", "v0 from ldr, 1 back")
    assert (pair.cycles, pair.why) == (0, "")
    first = stalls.explain(code, True, "cortex-a53").notes[0]
    assert "another fetch" in first.why


@needs_llvm
def test_margin_of_an_out_of_order_core():
    """A store that was split for llvm-mca is one instruction again."""
    found = ports.explain(["ldr q0, [x1], #16", *CHAIN, "str q0, [x2], #16"], "cortex-a57", MCA)
    load, *chain, store = found.notes
    assert (load.units, load.why) == ("I L", "")
    assert [(n.cycles, n.units, n.why) for n in chain] == [(10, "W X", "in the chain")] * 3
    assert set(store.units.split()) == {"I", "S"}


@needs_llvm
def test_no_single_bottleneck_names_the_nearest():
    code = [*CHAIN, *SUMS[:7], "mul x1, x2, x3", "ldr q5, [x6]"]
    said = ports.explain(code, "cortex-a57", MCA).bottleneck
    figures = [float(x) for x in re.findall(r"takes ([\d.]+) of", said)]
    assert said.startswith(("no single one; ", "latency chain", "throughput"))
    assert figures == sorted(figures, reverse=True)


def test_straight_code_is_watched_once():
    found = stalls.explain(CHAIN, False, "cortex-a53")
    assert [n.cycles for n in found.notes] == [0, 4, 4]


@pytest.mark.parametrize(
    ("code", "found"),
    [
        (SUMS[:2], [Chain((0,), ("v0",)), Chain((1,), ("v1",))]),
        (["ldr q0, [x1], #16"], [Chain((0,), ("x1",))]),
        (["ldr x0, [x1]", "add x2, x0, #1", "mov x1, x2"], [Chain((0, 1, 2), ("x0", "x2", "x1"))]),
        (["add x1, x2, x3", "add x4, x1, x1"], []),
        (["mov x1, #0", "add x1, x1, #1"], []),  # begins anew in every turn
        (["subs x3, x3, #1", "b.ne #0"], [Chain((0,), ("x3",))]),
        ([], []),
    ],
)
def test_chains(code, found):
    assert chains([parse(t) for t in code]) == found


@pytest.mark.parametrize("tool", ["/nonexistent", "/bin/false"])
def test_broken_llvm(tool):
    with pytest.raises(AnalysisError, match="llvm-mca failed"):
        ports.explain(SUMS, "cortex-a57", tool)


@pytest.mark.parametrize(
    ("word", "goes"),
    [
        (0x94000010, 0x10040),  # bl +0x40
        (0x17FFFFFF, 0x0FFFC),  # b -4
        (0x54FFFFE1, 0x0FFFC),  # b.ne -4
        (0xB4000040, 0x10008),  # cbz x0, +8
        (0x36000060, 0x1000C),  # tbz w0, #0, +12
        (0xB0000001, 0x11000),  # adrp x1, +1 page
        (0x10000021, 0x10004),  # adr x1, +4
        (0xD65F03C0, None),  # ret
        (0x4E3FCFC0, None),  # fmla
    ],
)
def test_where_branches_go(word, goes):
    assert target(word, 0x10000) == goes


# ---- the verb ----


@pytest.fixture(scope="module")
def built(tmp_path_factory) -> dict[str, Path]:
    """mnist8 for both kinds of core."""
    made = {}
    for board in (A57, A53):
        made[board.name] = out = tmp_path_factory.mktemp(board.name) / "mnist"
        made_it = codegen("build", MODEL, "--board", board.name, "--out", out, "--no-verify", "-q")
        assert made_it == 0
    return made


@needs_tools
@pytest.mark.parametrize("board", [A57, A53], ids=lambda b: b.core)
def test_json(built, board, capsys):
    folder = built[board.name]
    command = ("profile", folder, "--board", board.name, "--layer", "Convolution110", "--json")
    assert codegen(*command) == 0
    found = json.loads(capsys.readouterr().out)
    layer, traces = found["layer"], found["traces"]
    assert (layer["number"], layer["name"]) == (3, "Convolution110")
    assert codegen("bench", folder, "--board", board.name, "--json") == 0
    measured = json.loads(capsys.readouterr().out)["layers"][2]
    assert {k: layer[k] for k in measured} == measured  # the same figures
    assert [t["share"] for t in traces] == sorted((t["share"] for t in traces), reverse=True)
    assert traces[0]["share"] > 0.25  # the inner loop
    assert traces[0]["loop"] is True
    assert traces[0]["bottleneck"]
    core = sum(t["cycles"] for t in traces) + found["others"]["cycles"]
    assert core == pytest.approx(layer["core"], rel=0.01)
    hot = traces[0]
    assert hot["cycles"] == pytest.approx(hot["times"] * hot["cycles_per_iteration"], rel=1e-3)
    assert hot["ipc"] == pytest.approx(len(hot["lines"]) / hot["cycles_per_iteration"], abs=1e-2)
    assert any(x["text"].startswith("fmla v") for x in hot["lines"])
    assert all("conv2d" in x["function"] for x in hot["lines"])
    if board is A53:
        waited = sum(x["cycles"] for x in hot["lines"])
        assert waited == pytest.approx(hot["cycles_per_iteration"], abs=0.01)
        assert sum(hot["use"].values()) == pytest.approx(waited, abs=0.01)
    else:
        assert max(hot["use"].values()) <= hot["cycles_per_iteration"]


@needs_tools
def test_lines_are_the_program(built, capsys):
    """Addresses and encodings as objdump has them, branches with where they go."""
    folder = built[A57.name]
    command = ("profile", folder, "--board", A57.name, "--layer", "3", "--top", "1", "--json")
    assert codegen(*command) == 0
    (trace,) = json.loads(capsys.readouterr().out)["traces"]
    places = {f.name: f.address for f in functions(folder / "build" / "bench")}
    for line in trace["lines"]:
        assert line["address"] == places[line["function"]] + line["offset"]
    last = trace["lines"][-1]
    goal = int(re.search(r"([0-9a-f]+)$", last["text"])[1], 16)
    assert last["text"].startswith(("b.", "cb", "tb"))
    assert goal == trace["lines"][0]["address"]


@needs_tools
def test_text(built, capsys):
    folder = built[A53.name]
    assert codegen("profile", folder, "--board", A53.name, "--layer", "Convolution110") == 0
    said = capsys.readouterr().out
    assert "Convolution110  conv2d_nhwc_f32" in said
    assert re.search(r"trace 1: \d\d\.\d% of the layer  loop of \d+ instructions, [\d,]+ times x "
                     r"\d+(\.\d)? cycles, IPC \d\.\d\d\nbottleneck: \w", said)  # fmt: skip
    assert re.search(r"\n +[0-9a-f]{6} +\d+ +vector +fmla v\d+", said)
    assert "prefetched from L2" in said
    assert "modelled, not measured" in said
    assert not [line for line in said.splitlines() if line != line.rstrip()]


NAMES = [{"name": n} for n in ("conv1", "conv2", "block/conv", "relu", "relu", "2")]


@pytest.mark.parametrize(("wanted", "number"), [("conv2", 2), ("1", 1), ("6", 6), ("2", 6)])
def test_layer_by_name_or_number(wanted, number):
    assert find_layer(wanted, NAMES) == number


@pytest.mark.parametrize(
    ("wanted", "said"),
    [
        ("conf1", "there is no layer 'conf1'; near names: conv1, .*; numbers: 1 to 6"),
        ("BLOCK", "near names: block/conv"),
        ("zzz", "near names: none"),
        ("0", "there is no layer '0'"),
        ("7", "there is no layer '7'"),
        ("relu", "'relu' names several layers; numbers 4, 5; give the number"),
    ],
)
def test_layer_that_is_not_there(wanted, said):
    with pytest.raises(CodegenError, match=said):
        find_layer(wanted, NAMES)


def test_progress_is_for_terminals_alone(capsys):
    with progress(False) as stage:
        stage("compiling")
    assert capsys.readouterr() == ("", "")


def test_progress_on_a_terminal(capsys, monkeypatch):
    """The stage that is under way alone; stdout stays free for figures."""
    monkeypatch.setenv("FORCE_COLOR", "1")  # what a terminal is to rich
    with progress(False) as stage:
        stage("compiling")
        stage("analysing")
    out, shown = capsys.readouterr()
    assert out == ""
    assert "analysing" in shown
    assert "0:00:0" in shown  # elapsed
    assert not re.search(r"compiling[^\r]*analysing", shown)  # never side by side
    with progress(True) as stage:
        stage("compiling")
    assert capsys.readouterr() == ("", "")


# ---- bad input, of both verbs ----

VERBS = [("bench",), ("profile", "--layer", "1")]
both_verbs = pytest.mark.parametrize("verb", VERBS, ids=lambda v: v[0])


def folder_with(folder: Path, program: bytes, board: str) -> Path:
    (folder / "build").mkdir(parents=True)
    layers = [{"name": "one", "kernel": "k", "macs": 0}]
    report = {"model": "m.onnx", "board": board, "layers": layers}
    (folder / "report.json").write_text(json.dumps(report))
    (folder / "build" / "bench").write_bytes(program)
    return folder


def say(capsys, code: int, verb: tuple, folder: Path, board: object, *more: object) -> str:
    """The one line that it says on stderr, with nothing on stdout."""
    assert codegen(*verb[:1], folder, *verb[1:], "--board", board, *more) == code
    out, error = capsys.readouterr()
    assert out == ""
    assert error.startswith("error: ")
    assert error.count("\n") == 1
    return error


@needs_tools
@both_verbs
@pytest.mark.parametrize(
    ("what", "said"),
    [
        (1, "a region was never closed"),
        (2, r"the program ended with signal \d+"),
        (3, "the program did not end within 1 s"),
        (4, r"llvm-mca -mcpu=cortex-a57 cannot time .*'sdot"),
    ],
    ids=["open", "trap", "hang", "sdot"],
)
def test_program_that_goes_wrong(tmp_path, capsys, verb, what, said):
    program = tmp_path / "program"
    source = ROOT / "tests" / "bad_programs.c"
    subprocess.run((CROSS, "-O2", "-static", f"-DWHAT={what}", source, "-o", program), check=True)
    # an A76 whose code is timed as if it were an A57's: it runs sdot, which those tables lack
    text = (boards_dir() / f"{A76.name}.toml").read_text().replace("neoverse-n1", "cortex-a57")
    board = tmp_path / f"{A76.name}.toml"
    board.write_text(text)
    folder = folder_with(tmp_path / "b", program.read_bytes(), A76.name)
    assert re.search(said, say(capsys, 1, verb, folder, board, "--timeout", "1"))


@needs_tools
@both_verbs
@pytest.mark.parametrize(
    ("program", "said"),
    [
        (b"\x7fELF\x02" + bytes(13) + b"\x3e\x00" + bytes(9), "for another machine"),
        (b"#!/bin/sh\n" * 9, "is not an ELF program"),
    ],
)
def test_program_for_another_machine(tmp_path, capsys, verb, program, said):
    assert said in say(capsys, 1, verb, folder_with(tmp_path / "b", program, A57.name), A57.name)


@both_verbs
@pytest.mark.parametrize(
    ("tool", "said"),
    [
        ("find_qemu", "qemu-aarch64 is not installed (package qemu-user)"),
        ("find_llvm", "llvm-mc is not installed (package llvm-19 or llvm)"),
    ],
)
def test_missing_tools_name_their_package(monkeypatch, capsys, verb, tool, said):
    monkeypatch.setattr(runner, "find_qemu", lambda: "/bin/true")
    monkeypatch.setattr(runner, "find_llvm", lambda name: "/bin/true")
    monkeypatch.setattr(runner, tool, lambda *a: None)
    assert said in say(capsys, 1, verb, MODEL, A57.name)


@both_verbs
def test_unknown_core(tmp_path, capsys, verb):
    text = (boards_dir() / f"{A57.name}.toml").read_text()
    (tmp_path / "mine.toml").write_text(text.replace('"cortex-a57", mac', '"cortex-x9", mac'))
    assert "llvm_cpu = 'cortex-x9'" in say(capsys, 2, verb, MODEL, tmp_path / "mine.toml")
    assert "there is no such board" in say(capsys, 2, verb, MODEL, "raspberry-pi-9")


def test_profile_needs_the_virtual_board(capsys):
    said = say(capsys, 2, VERBS[1], MODEL, "local")
    assert "'virtual' cannot run code for board local" in said


@needs_tools
def test_profile_of_a_program_that_marks_no_layers(tmp_path, capsys):
    source = tmp_path / "p.c"
    source.write_text('int puts(const char *); int main(void) { return puts("{}") < 0; }')
    program = tmp_path / "p"
    subprocess.run((CROSS, "-static", source, "-o", program), check=True)
    folder = folder_with(tmp_path / "b", program.read_bytes(), A57.name)
    said = say(capsys, 1, VERBS[1], folder, A57.name)
    assert "the program does not mark this layer; it was built by an older codegen" in said


@needs_tools
def test_profile_of_a_library_that_does_not_compile(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("codegen.program.compile_library", lambda *a: Binary(error="x.c:1: error"))
    assert codegen("profile", MODEL, "--board", A57.name, "--layer", "1") == 1
    assert "the generated library does not compile:\nx.c:1: error" in capsys.readouterr().err
