"""`bench`, `price` and `compare` with --host: the whole way to a real OpenSSH server and back."""

import json
import os
from pathlib import Path

import pytest

from codegen.cli import main
from codegen.errors import CodegenError
from codegen.models.archive import cache_dir
from codegen.peers.sysroot import sysroot
from codegen.pipeline import load_graph
from codegen.pricing.trials import trials
from codegen.run.ssh import runner
from codegen.signature import signature_of
from codegen.store import Store
from tests.ssh_board import A57, UNSTEADY, needs_sshd
from tests.test_ssh import STEADY_CLOCK
from tests.tiny import tiny_network

pytestmark = needs_sshd
MODELS = Path(__file__).resolve().parent.parent / "examples" / "models"
KWS = MODELS / "mlperf_kws_dscnn.onnx"
CACHE = cache_dir()  # the user's, before tests give them another home
BOARD = ("--board", A57.name, "--host", "board")


def codegen(*args: object) -> int:
    with pytest.raises(SystemExit) as ended:
        main([str(a) for a in args])
    return ended.value.code


@pytest.fixture
def board(ssh_board):
    ssh_board.system(**STEADY_CLOCK)
    return ssh_board


@pytest.fixture
def unsteady(monkeypatch):
    monkeypatch.setattr(runner, "Limits", lambda: UNSTEADY)


@pytest.mark.usefixtures("unsteady")
def test_bench(board, tmp_path, capsys):
    assert codegen("bench", tiny_network(tmp_path), *BOARD, "--json") == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["runner"], found["basis"]) == ("ssh", "measured")
    assert found["runs"] >= 6
    low, high = found["ms_interval"]
    assert 0 < found["ms_min"] <= low <= found["ms"] <= high
    assert len(found["layers"]) == 2
    assert all(layer["ms"] > 0 for layer in found["layers"])
    assert found["conditions"]["after"]["governor"] == "performance"


@pytest.mark.usefixtures("unsteady")
def test_price(board, tmp_path, capsys):
    """With figures and conditions for every candidate; what is known needs no board."""
    args = ("price", KWS, *BOARD, "--layer", "dense", "--store", tmp_path / "s.sqlite", "--json")
    assert codegen(*args) == 0
    first = json.loads(capsys.readouterr().out)
    assert first["runner"] == "ssh"
    (layer,) = first["layers"]
    assert len(layer["candidates"]) > 3
    for c in layer["candidates"]:
        assert (c["error"], c["cycles"]) == ("", None)
        assert c["ns"] > 0
        assert c["conditions"]["before"]["cur_freq_hz"] == 1_430_000_000
    board.quirks("exit 1")  # nobody can work there any more
    assert codegen(*args) == 0
    assert json.loads(capsys.readouterr().out) == first


def says(board, runs: list[list[int]]) -> None:
    """Whatever the board runs, it reports these."""
    emulator = board.folder / "says"
    text = json.dumps({"cpu": 0, "runs_ns": runs})
    emulator.write_text(f"#!/bin/sh\necho '{text}'\n")
    emulator.chmod(0o755)
    board.quirks(f"export BOARD_QEMU={emulator}")


def test_a_noisy_candidate(board, tmp_path, capsys):
    """Its row says why, and only it is measured again the next time."""
    graph = load_graph(KWS)
    dense = signature_of(graph, next(n for n in graph.nodes if n.op == "Dense"))
    count = len({t.code for t in trials(dense, A57)})
    store = tmp_path / "s.sqlite"
    args = ("price", KWS, *BOARD, "--layer", "dense", "--store", store, "--json")
    says(board, [[5, 9] * 4] + [[7] * 8] * (count - 1))
    assert codegen(*args) == 0
    rows = json.loads(capsys.readouterr().out)["layers"][0]["candidates"]
    (noisy,) = (r for r in rows if r["error"])
    assert noisy == rows[-1]
    assert noisy["error"].startswith("noisy: the 95 % confidence interval of the median is 57.1%")
    assert noisy["ns"] is None
    assert {k.kernel for k, _ in Store(store).rows()} == {r["kernel"] for r in rows[:-1]}
    says(board, [[6] * 8])  # a program of one candidate
    assert codegen(*args) == 0
    rows = json.loads(capsys.readouterr().out)["layers"][0]["candidates"]
    assert (rows[0]["kernel"], rows[0]["ns"], rows[0]["error"]) == (noisy["kernel"], 6, "")
    assert len(list(Store(store).rows())) == count


@pytest.mark.slow  # packages may have to be fetched
@pytest.mark.usefixtures("unsteady")
def test_compare(board, capsys, monkeypatch):
    monkeypatch.setenv("CODEGEN_CACHE", str(CACHE))
    try:
        sysroot(A57)
    except CodegenError as e:
        pytest.skip(str(e))
    args = ("compare", MODELS / "mnist8.onnx", *BOARD, "--with", "blas", "--json")
    assert codegen(*args) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["runner"] == "ssh"
    assert [(r["engine"], r["error"]) for r in found["rows"]] == [("codegen", ""), ("blas", "")]
    assert all(r["ms"] > 0 and r["peak_bytes"] and r["binary_bytes"] for r in found["rows"])
    assert os.listdir(board.folder / "tmp") == []
