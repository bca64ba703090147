"""Input that is wrong and programs that go wrong: one clear line, and no figure in the store."""

import shutil
from pathlib import Path

import pytest

from codegen.board import load_board
from codegen.cli import main
from codegen.pipeline import load_graph
from codegen.pricing import Settings, price_signatures, run
from codegen.resources import boards_dir
from codegen.run import pick_runner
from codegen.run.virtual import missing
from codegen.signature import signature_of
from codegen.store import Store
from codegen.toolchain import ENV_CC
from tests.test_store import KEY, MEASURED

KWS = Path(__file__).resolve().parent.parent / "examples" / "models" / "mlperf_kws_dscnn.onnx"
A57 = load_board("jetson-nano-cpu")
_WHY = missing(A57) or (
    "" if shutil.which("aarch64-linux-gnu-gcc") else "no aarch64-linux-gnu-gcc on this machine"
)
needs_tools = pytest.mark.skipif(bool(_WHY), reason=_WHY)


def codegen(*args: object) -> int:
    with pytest.raises(SystemExit) as ended:
        main([str(a) for a in args])
    return ended.value.code


@pytest.fixture(params=["no store", "a store"])
def store(request, tmp_path) -> Path:
    path = tmp_path / "store" / "store.sqlite"
    if request.param == "a store":
        Store(path).put([(KEY, MEASURED)])
    return path


def contents(path: Path) -> dict[str, bytes]:
    return {p.name: p.read_bytes() for p in path.parent.glob("*")}


MODEL, BOARD, TOOL, FILE = "model", "board", "tool", "file"
# What is wrong -> options of `codegen price`, and what it says. TOOL is one that is not there, FILE
# replaces words in the board's file, MODEL and BOARD take the place of the right ones.
BAD = {
    "no model": ({MODEL: "none.onnx"}, "none.onnx"),
    "no ONNX": ({MODEL: __file__}, "test_bad_input.py"),
    "layer": (("--layer", "dence"), "no layer is called 'dence'"),
    "board": ({BOARD: "jetson"}, "there is no such board"),
    "core": ({FILE: ('core = "cortex-a57"', 'core = "cortex-x9"')}, "core = 'cortex-x9'"),
    "qemu's core": ({FILE: ('qemu_cpu = "cortex-a57"', 'qemu_cpu = "cortex-x9"')}, "qemu_cpu = "),
    "compiler's core": ({FILE: ("-mcpu=cortex-a57", "-mcpu=cortex-x9")}, "'-mcpu=cortex-x9'"),
    "shape": (("--shape", "x"), "--shape"),
    "runner": (("--runner", "simulator"), "--runner: 'simulator'"),
    "runner without figures": (("--runner", "qemu"), "'qemu' measures nothing"),
    "runner of another board": (("--runner", "local"), "'local' cannot run code"),
    "host": (("--host", "a;b"), "--host: 'a;b'"),
    "host that is off": (("--host", "x@127.0.0.1:1"), "x@127.0.0.1:1"),
    "jobs": (("--jobs", "-1"), "--jobs: -1"),
    "llvm": ({TOOL: "llvm-mca"}, "llvm-mca is not installed"),
    "compiler": ({TOOL: "gcc"}, "there is no command 'nowhere-gcc'"),
}


@needs_tools
@pytest.mark.parametrize("what", BAD)
def test_bad_input_leaves_the_store_untouched(what, store, capsys, monkeypatch, tmp_path):
    change, said = BAD[what]
    monkeypatch.setenv("HOME", str(tmp_path))
    before = contents(store)
    options = change if isinstance(change, tuple) else ("--layer", "dense")
    given = change if isinstance(change, dict) else {}
    if given.get(TOOL) == "llvm-mca":
        monkeypatch.setattr("codegen.run.virtual.runner.find_llvm", lambda tool: None
                            if tool == "llvm-mca" else "/bin/true")  # fmt: skip
    if given.get(TOOL) == "gcc":
        monkeypatch.setenv(ENV_CC, "nowhere-gcc")
    board = given.get(BOARD, A57.name)
    if FILE in given:
        board = tmp_path / "mine.toml"
        text = (boards_dir() / f"{A57.name}.toml").read_text()
        board.write_text(text.replace(*given[FILE], 1))
    args = ("price", given.get(MODEL, KWS), "--board", board)
    assert codegen(*args, "--store", store, *options) in (1, 2)
    told = capsys.readouterr()
    assert said in told.err
    assert (told.out, told.err.count("error: "), told.err.count("\n")) == ("", 1, 1)
    assert contents(store) == before


# ---- programs that go wrong ----

# What a candidate does before its work; SDOT is of Armv8.2, and the A57 is older.
WRONG = {
    "traps": ("__builtin_trap();", "the program ended with signal 5", True),
    "has an instruction that the core has not":
        ('__asm__ volatile(".inst 0x4e809400");', "the program ended with signal 4", True),
    "hangs": ('for (;;) __asm__ volatile("");', "the program did not end within 2 s", False),
    "leaves a region open": ("cg_region(1, 40);", "a region was", False),
}  # fmt: skip


@needs_tools
@pytest.mark.parametrize("what", WRONG)
def test_a_program_that_goes_wrong_leaves_no_figure(what, tmp_path, monkeypatch, capsys):
    """What dies by its own fault on the virtual board is kept, as failed; the rest is not kept."""
    code, said, kept = WRONG[what]
    real = run.write

    def sabotage(sources, folder):
        real(sources, folder)
        file = folder / "src" / "microbench.c"
        begin = "static void trial_0(void)\n{\n"
        assert begin in file.read_text()
        file.write_text(file.read_text().replace(begin, f"{begin}    {code}\n"))

    monkeypatch.setattr(run, "write", sabotage)
    graph = load_graph(KWS)
    layer = signature_of(graph, next(n for n in graph.nodes if n.op == "Dense"))
    path = tmp_path / "store.sqlite"
    settings = Settings(jobs=1, timeout_s=2 if what == "hangs" else 300)
    args = ([layer], A57, pick_runner(A57, "virtual"), Store(path), {"dense_f32_neon_nr16"})
    (measured,) = price_signatures(*args, settings=settings)[layer].values()
    assert measured.error.startswith(said)
    assert (measured.cycles, measured.ns, measured.cost) == (None, None, float("inf"))
    assert path.exists() is kept
    assert [m for _, m in Store(path).rows()] == [measured] * kept
    assert codegen("store", "ls", "--store", path) == 0
    assert (f"failed: {said}" in capsys.readouterr().out) is kept
