"""Real networks, end to end through the command line: build, run on the board's runner, compare
with onnxruntime.

`make test` takes the bundled networks and two architectures; `make test-all` takes every network
on every board.
"""

import json

import pytest
from click.testing import CliRunner

from codegen.board import load_board
from codegen.models import catalog
from codegen.models.architectures import ARCHITECTURES
from codegen.models.fetch import fetch
from codegen.resources import examples_dir
from codegen.run import pick_runner
from codegen.verbs.build import build

BOARDS = ("local", "jetson-nano-cpu", "raspberry-pi-3b-plus", "raspberry-pi-4")
BUNDLED = tuple(sorted(p.stem for p in (examples_dir() / "models").glob("*.onnx")))
TRAINED = tuple(m.name for m in catalog.MODELS)
LIGHT = tuple(n for n in ARCHITECTURES if n.startswith("light_"))
KEYS = {
    "model",
    "model_sha256",
    "board",
    "plan_sha256",
    "toolchain",
    "arena_bytes",
    "arena_lower_bound_bytes",
    "weights_bytes",
    "text_bytes",
    "rodata_bytes",
    "bss_bytes",
    "stack_bytes",
    "max_abs_error",
    "max_rel_error",
    "layers",
}


def _needs_runner(board: str) -> None:
    if pick_runner(load_board(board)) is None:
        pytest.skip(f"no runner for {board} here: qemu-aarch64 or a cross compiler is missing")


def _build(path, board, out, seeds=2):
    """The report of a build that must succeed."""
    _needs_runner(board)
    args = [
        str(path),
        "--board",
        board,
        "--out",
        str(out),
        "--json",
        "--timeout",
        "3600",
        "--seeds",
        str(seeds),
    ]
    result = CliRunner().invoke(build, args, standalone_mode=False)
    assert result.exception is None, result.output
    assert result.return_value == 0, result.output
    return json.loads((out / "report.json").read_text())


def _check(report):
    assert set(report) >= KEYS
    assert report["verified"]
    assert report["max_rel_error"] <= 1e-4
    assert report["foreign_symbols"] == []
    assert report["arena_bytes"] <= 1.05 * report["arena_lower_bound_bytes"]


@pytest.mark.parametrize("board", BOARDS)
@pytest.mark.parametrize("name", BUNDLED)
def test_bundled(name, board, tmp_path):
    _check(_build(examples_dir() / "models" / f"{name}.onnx", board, tmp_path / "out"))


@pytest.mark.parametrize("name", ["light_squeezenet", "light_shufflenet"])
def test_architecture(name, tmp_path):
    _check(_build(fetch(name, tmp_path), "jetson-nano-cpu", tmp_path / "out"))


@pytest.mark.slow
@pytest.mark.parametrize("board", BOARDS)
@pytest.mark.parametrize("name", [*TRAINED, *LIGHT])
def test_every_network_on_every_board(name, board, tmp_path):
    _check(_build(fetch(name), board, tmp_path / "out", seeds=1))


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(set(ARCHITECTURES) - set(LIGHT)))
def test_classic_topologies(name, tmp_path):
    _check(_build(fetch(name), "jetson-nano-cpu", tmp_path / "out"))
