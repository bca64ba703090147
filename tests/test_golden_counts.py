"""The virtual board gives the same figures everywhere: those of a committed program are committed
too, and neither the user, the folder, the environment nor the layout of memory moves them."""

import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from codegen.board import load_board
from codegen.cli import main
from codegen.run.virtual import missing
from tests.golden_counts import BOARDS, COUNTS, PROGRAM, measure, versions
from tests.tiny import tiny_network

CROSS = shutil.which("aarch64-linux-gnu-gcc")
ROOT = Path(__file__).resolve().parent.parent
GOLDEN = json.loads(COUNTS.read_text())
_WHY = missing(load_board(BOARDS[0]))
needs_tools = pytest.mark.skipif(bool(_WHY), reason=_WHY)
NOBODY = 65534
MAIN_BOARDS = ("jetson-nano-cpu", "raspberry-pi-3b-plus", "raspberry-pi-4")

# What another process runs: cycles of the program at argv[1] on the board argv[2].
_ELSEWHERE = """
import json, sys
from pathlib import Path
from codegen.board import load_board
from codegen.run import Job, pick_runner
board = load_board(sys.argv[2])
outcome = pick_runner(board, "virtual").run(Job(Path(sys.argv[1])), board)
print(json.dumps(outcome.error or outcome.report["regions"]))
"""


@needs_tools
@pytest.mark.parametrize("board", BOARDS)
def test_golden_counts(board, monkeypatch, tmp_path):
    """`python -m tests.golden_counts` shows what moved, with --write it writes the file anew."""
    here = versions()
    if here != GOLDEN["versions"]:
        pytest.skip(f"figures are written for {GOLDEN['versions']}, here are {here}")
    monkeypatch.setenv("CODEGEN_CACHE", str(tmp_path))  # nothing that was computed before
    assert measure(board) == GOLDEN["boards"][board]


def test_golden_program_does_what_it_says():
    """Figures that follow from its source alone, whatever the versions."""
    for board, regions in GOLDEN["boards"].items():
        product, copy, chase, branches = (regions[n] for n in "1234")
        macs_per_cycle = load_board(board).cycle_model.core.macs_per_cycle
        assert product["core"] > 200 * 64 * 8 * 4 / macs_per_cycle
        assert copy["events"]["loads"] == copy["events"]["stores"] == (1 << 20) // 8
        assert chase["events"]["loads"] == 4096
        assert 0 <= chase["instructions"] - 3 * 4096 < 20
        # half of 20,000 random choices are guessed wrong, and nearly none of a loop's
        assert 8_000 < branches["events"]["mispredicted"] < 12_000
        assert copy["events"]["mispredicted"] < 10
    assert PROGRAM.stat().st_size < 100_000


@pytest.fixture
def open_folder():
    """A folder that every user may read and write, with the program in it under another name."""
    folder = Path(tempfile.mkdtemp(prefix="another place "))
    folder.chmod(0o777)
    shutil.copy(PROGRAM, folder / "program with another name")
    yield folder
    shutil.rmtree(folder)


def environment(folder: Path) -> dict[str, str]:
    """Nothing of it is as here."""
    return {
        "PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT), "CODEGEN_CACHE": str(folder / "cache"),
        "TMPDIR": str(folder), "HOME": str(folder), "LANG": "tr_TR.UTF-8", "UNUSUAL": "x" * 5000,
    }  # fmt: skip


def elsewhere(folder: Path, board: str, *prefix: str) -> subprocess.CompletedProcess:
    command = (*prefix, sys.executable, "-c", _ELSEWHERE)
    program = str(folder / "program with another name")
    return subprocess.run((*command, program, board), capture_output=True, text=True, cwd=folder,
                          env=environment(folder))  # fmt: skip


@needs_tools
@pytest.mark.parametrize("board", MAIN_BOARDS)
def test_another_user(open_folder, board):
    """As nobody, with another home, environment, cache and language."""
    if os.geteuid() != 0 or not shutil.which("setpriv"):
        pytest.skip("only root can become another user, with setpriv")
    prefix = ("setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups")
    probe = (*prefix, sys.executable, "-c", "import codegen.cli")
    bare = {"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT)}
    seen = subprocess.run(probe, capture_output=True, text=True, env=bare, cwd=open_folder)
    if seen.returncode:
        pytest.skip(f"user nobody cannot read this checkout: {seen.stderr.splitlines()[-1]}")
    done = elsewhere(open_folder, board, *prefix)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == measure(board)
    made = list((open_folder / "cache").rglob("*.so"))
    assert made
    assert {p.stat().st_uid for p in made} == {NOBODY}  # it was that user


def can_set_layout(*options: str) -> None:
    """Skips where it cannot."""
    if not shutil.which("setarch"):
        pytest.skip("no setarch on this machine")
    if subprocess.run(("setarch", *options, "true"), capture_output=True).returncode:
        pytest.skip(f"setarch {' '.join(options)} is not allowed here")


@needs_tools
@pytest.mark.parametrize("board", MAIN_BOARDS)
@pytest.mark.parametrize("options", [("-R",), ("-R", "-L"), ("-R", "-X")], ids=" ".join)
def test_another_layout_of_memory(open_folder, board, options):
    """This machine's addresses fixed instead of random, its memory from below, all of it
    executable."""
    can_set_layout(*options)
    done = elsewhere(open_folder, board, "setarch", *options)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == measure(board)


@needs_tools
@pytest.mark.skipif(not CROSS, reason="no aarch64-linux-gnu-gcc on this machine")
@pytest.mark.parametrize("board", MAIN_BOARDS)
def test_bench_of_a_network_elsewhere(open_folder, board, capsys):
    """A whole `codegen bench`: with another layout, environment, cache and folder."""
    can_set_layout("-R", "-L")
    args = ("bench", str(tiny_network(open_folder)), "--board", board, "--json")
    with pytest.raises(SystemExit) as ended:
        main(list(args))
    here = json.loads(capsys.readouterr().out)
    command = ("setarch", "-R", "-L", sys.executable, "-m", "codegen.cli", *args)
    done = subprocess.run(command, capture_output=True, text=True, cwd=open_folder,
                          env=environment(open_folder))  # fmt: skip
    assert (ended.value.code, done.returncode) == (0, 0), done.stderr
    assert json.loads(done.stdout) == here
    assert here["cycles"] > 0
