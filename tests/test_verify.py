"""Comparison, its error messages, and that it finds the layer at fault."""

import numpy as np
import onnx
import pytest

from codegen.board import load_board
from codegen.build import compile_library
from codegen.compare import difference, passes
from codegen.errors import CodegenError
from codegen.graph import Tensor
from codegen.pipeline import generate
from codegen.reference import Reference, random_inputs
from codegen.resources import examples_dir
from codegen.run import Job, pick_runner
from codegen.run.base import finish, parse_report
from codegen.sources import write
from codegen.toolchain import find_toolchain
from codegen.types import DType
from codegen.verify import Case, Interface, check_case, load_cases

RESNET = examples_dir() / "models" / "mlperf_ic_resnet8.onnx"
X = Tensor("x", (1, 2, 3), DType.F32)


def test_difference_of_equal_tensors_is_zero():
    x = np.array([1.0, np.nan, np.inf, -0.0], np.float32)
    d = difference(x, x)
    assert (d.max_abs, d.max_rel, d.max_ulp, d.cosine) == (0.0, 0.0, 0, 1.0)


def test_difference_counts_float_steps():
    x = np.array([1.0, 4.0], np.float32)
    y = np.array([np.nextafter(np.float32(1.0), np.float32(2.0)), 4.0], np.float32)
    d = difference(y, x)
    assert d.max_ulp == 1
    assert d.max_abs == pytest.approx(2.0**-23)
    assert d.max_rel == pytest.approx(2.0**-25)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_nan_and_infinity_never_pass(bad):
    d = difference(np.array([1.0, bad], np.float32), np.array([1.0, 2.0], np.float32))
    assert not passes(d, "f32")


def test_integers_must_be_equal():
    d = difference(np.array([1000001]), np.array([1000000]))
    assert not passes(d, "i64")


def test_names_the_first_layer_that_diverges(tmp_path, monkeypatch):
    """One weight of one layer is changed behind the compiler's back."""
    monkeypatch.setattr("codegen.emit.BLOB_BYTES", 1 << 30)  # weights as text
    board = load_board("local")
    generated = generate(RESNET, board)
    write(generated.sources, tmp_path)
    weights = next((tmp_path / "src").glob("*_weights.c"))
    lines = weights.read_text().splitlines()
    at = next(i for i, line in enumerate(lines) if "w_conv2d_3_w[" in line)
    lines[at + 1] = lines[at + 1].replace(lines[at + 1].split(",")[0].strip(), "9.0f", 1)
    weights.write_text("\n".join(lines) + "\n")
    binary = compile_library(generated.sources, tmp_path, find_toolchain(board))
    assert not binary.error, binary.error
    interface = Interface.of(generated.sources, generated.schedule)
    reference = Reference(RESNET, {}, [t.tensor.name for t in interface.traces])
    case = Case("random", random_inputs(generated.graph, 0))
    result = check_case(interface, binary.verify, pick_runner(board), board, reference, case)
    assert not result.passed
    assert result.first_divergence == "conv2d_3"
    assert sum(r.difference is not None for r in result.layers) > 8


def _raises(path, said):
    with pytest.raises(CodegenError, match=said):
        load_cases(path, [X], [X])


def test_bad_inputs(tmp_path):
    _raises(tmp_path / "none.npy", "no such file")
    (tmp_path / "text.npy").write_text("hello")
    _raises(tmp_path / "text.npy", "cannot be read")
    np.save(tmp_path / "shape.npy", np.zeros((2, 2), np.float32))
    _raises(tmp_path / "shape.npy", r"has shape \(2, 2\)")
    np.savez(tmp_path / "name.npz", y=np.zeros((1, 2, 3), np.float32))
    _raises(tmp_path / "name.npz", "no array for input 'x'")
    (tmp_path / "folder").mkdir()
    _raises(tmp_path / "folder", "no input_N.pb")
    (tmp_path / "folder" / "input_0.pb").write_bytes(b"\xff\xff\xff")
    _raises(tmp_path / "folder", "not an ONNX tensor")
    onnx.save_tensor(onnx.numpy_helper.from_array(np.zeros(5)), tmp_path / "folder" / "input_0.pb")
    _raises(tmp_path / "folder", r"shape \(5,\)")


def test_unequal_sample_counts(tmp_path):
    np.savez(tmp_path / "n.npz", x=np.zeros((4, 1, 2, 3)), y=np.zeros((3, 1, 2, 3)))
    with pytest.raises(CodegenError, match="samples"):
        load_cases(tmp_path / "n.npz", [X, Tensor("y", (1, 2, 3), DType.F32)], [])


def test_onnxruntime_that_cannot_load_is_named(tmp_path, monkeypatch):
    import onnxruntime

    def refuse(*args, **kwargs):
        raise RuntimeError("no such kernel")

    monkeypatch.setattr(onnxruntime, "InferenceSession", refuse)
    with pytest.raises(CodegenError, match="no such kernel"):
        Reference(RESNET)


# --- runners ---


def _script(tmp_path, text):
    path = tmp_path / "program"
    path.write_text("#!/bin/sh\n" + text)
    path.chmod(0o755)
    return Job(path, outputs=("out",), timeout_s=2.0)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("echo '{}'; exit 3", "exit code 3"),
        ("kill -SEGV $$", "signal 11"),
        ("echo hello > out", "no JSON line"),
        ("echo '{}'", "did not write out"),
        ("sleep 20", "did not end within 2 s"),
    ],
)
def test_a_failing_program_is_a_value(text, said, tmp_path):
    board = load_board("local")
    outcome = pick_runner(board).run(_script(tmp_path, text), board)
    assert said in outcome.error


def test_program_that_is_not_there(tmp_path):
    board = load_board("local")
    outcome = pick_runner(board).run(Job(tmp_path / "none"), board)
    assert "cannot be started" in outcome.error


def test_report_is_the_last_json_line():
    assert parse_report('{"a": 1}\nnoise\n{"b": 2}\n[1]\n') == {"b": 2}
    assert parse_report("noise") is None
    assert finish(0, '{"b": 2}', "", {}, (), 0.1).report == {"b": 2}
