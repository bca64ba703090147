"""codegen tune from the command line: what it refuses, and a bundled network on the virtual
board."""

import json
import sys

import pytest
from click.testing import CliRunner

from codegen.cli import cli
from codegen.errors import CodegenError
from tests.pricing_cases import MODELS, needs_cross
from tests.tiny import tiny_network


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--agent", "sarsa"], "--agent: 'sarsa'"),
        (["--budget", "soon"], "--budget: 'soon'"),
        (["--max-arena", "big"], "--max-arena: 'big'; a positive number of bytes"),
        (["--max-flash", "0"], "--max-flash: '0'"),
        (["--max-latency", "-1"], "--max-latency: -1"),
        (["--max-error", "-1"], "--max-error: -1; a positive number; write e.g. 1e-5"),
        (["--max-error", "nan"], "--max-error: nan"),
        (["--dtype", "f8"], "--dtype: 'f8'; f32, f16, i8; name one of them"),
        (["--dtype", "i8"], "--dtype: 'i8'; f32 or f16 for all layers, or --calibration"),
        (["--dtype", "f16"], "--dtype: float16 arithmetic on board local"),
        (["--runner", "qemu"], "--runner: 'qemu'"),
        (["--board", "nowhere"], "nowhere"),
    ],
)
def test_wrong_input(options, said, tmp_path):
    args = ["tune", str(tiny_network(tmp_path)), "--board", "local", *options]
    result = CliRunner().invoke(cli, args)
    assert isinstance(result.exception, CodegenError)
    assert said in str(result.exception)


def test_the_output_is_a_file(tmp_path):
    model = tiny_network(tmp_path)
    result = CliRunner().invoke(cli, ["tune", str(model), "--board", "local", "--out", str(model)])
    assert result.exit_code != 0
    assert "is a file" in result.output + str(result.exception)


def test_tensorboard_is_an_extra(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorboardX", None)
    args = ["tune", str(tiny_network(tmp_path)), "--board", "local", "--tensorboard",
            str(tmp_path / "logs")]  # fmt: skip
    result = CliRunner().invoke(cli, args)
    assert isinstance(result.exception, CodegenError)
    assert "--tensorboard: event files need what is not installed (tensorboardX); the extra" in str(
        result.exception
    )


@needs_cross
def test_a_bundled_network_on_the_virtual_board(tmp_path):
    out = tmp_path / "out"
    args = ["tune", str(MODELS / "mnist8.onnx"), "--board", "jetson-nano-cpu", "--out",
            str(out), "--store", str(tmp_path / "store"), "--measure", "active"]  # fmt: skip
    first = CliRunner().invoke(cli, args)
    assert first.exit_code == 0, first.output
    plan, told = (out / "plan.json").read_bytes(), json.loads((out / "tune.json").read_text())
    assert told["optimality_gap"] <= 0.01
    assert told["optimum"]["proven"]
    chosen = told["chosen"]
    assert chosen["measured_ms"] == min(f["measured_ms"] for f in told["finalists"])
    assert abs(chosen["measured_to_predicted"] - 1) < 0.05 or told["why"]
    again = CliRunner().invoke(cli, [*args, "--max-arena", "1k"])
    assert "--max-arena: 1024 bytes are not enough" in str(again.exception)
    assert (out / "plan.json").read_bytes() == plan
