"""What it takes to add a thing, shown by doing it in a copy of the project: files touched, and
no test edited."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

ROOT = Path(__file__).resolve().parent.parent
PARTS = (
    "codegen",
    "templates",
    "runtime_c",
    "boards",
    "tests",
    "CMakePresets.json",
    "pyproject.toml",
)

CUMSUM_OP = """
OPS = (
    *OPS,
    OpDef("CumSum", lambda at, ins: [(ins[0].shape, ins[0].dtype)],
          lambda at, x: np.cumsum(x, at["axis"][0]), "cumsum",
          lambda at, ins, outs: around(ins[0], at["axis"][0]), attrs={"axis": REQUIRED},
          const_inputs={1: "axis"}, axis_attrs=("axis",),
          cases=(Case(((2, 5, 3),), {"axis": (1,)}), Case(((1, 4, 3, 3),), {"axis": (2,)}))),
)
"""
CUMSUM_ROW = """
[[kernel]]
name     = "cumsum_f32_c"
template = "ref.c.j2"
rate     = 0.3
"""
CUMSUM_C = """
/* Running sum along an axis: x[${outer}][${n}][${inner}] -> y, same shape. Nothing overlaps y. */
void ${fn}(const float *restrict x, float *restrict y)
{
    for (int o = 0; o < ${outer}; o++)
        for (int i = 0; i < ${inner}; i++) {
            float sum = 0.0f;
            for (int k = 0; k < ${n}; k++) {
                sum += x[(o * ${n} + k) * ${inner} + i];
                y[(o * ${n} + k) * ${inner} + i] = sum;
            }
        }
}
"""


@pytest.fixture
def project(tmp_path):
    """A copy of the project to change."""
    for part in PARTS:
        source = ROOT / part
        copy = shutil.copytree if source.is_dir() else shutil.copy
        copy(
            source,
            tmp_path / part,
            **({"ignore": shutil.ignore_patterns("__pycache__")} if source.is_dir() else {}),
        )
    return tmp_path


def _append(path: Path, text: str) -> Path:
    path.parent.mkdir(exist_ok=True)
    path.write_text((path.read_text() if path.is_file() else "") + text)
    return path


def _python(project: Path, *args: str) -> str:
    env = {**os.environ, "PYTHONPATH": str(project), "PYTHONDONTWRITEBYTECODE": "1"}
    done = subprocess.run(
        [sys.executable, *args], cwd=project, env=env, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


def _test_row(project: Path, row: str) -> None:
    """The tests that are there already find and try the new row."""
    out = _python(
        project, "-m", "pytest", "-q", "-p", "no:cacheprovider", "tests/test_kernels.py", "-k", row
    )
    assert "1 passed" in out


def test_operator_is_three_files(project, tmp_path):
    touched = {
        _append(project / "codegen/ops/reduce.py", CUMSUM_OP),
        _append(project / "templates/cumsum/kernels.toml", CUMSUM_ROW),
        _append(project / "templates/cumsum/ref.c.j2", CUMSUM_C),
    }
    text = (project / "codegen/ops/reduce.py").read_text()
    head = "from codegen.ops.base import REQUIRED, Case, OpDef, around  # noqa: E402\n"
    (project / "codegen/ops/reduce.py").write_text(
        text.replace("\nOPS = (\n    *OPS,", f"\n{head}OPS = (\n    *OPS,")
    )
    assert len(touched) == 3
    _test_row(project, "cumsum_f32_c")
    model = helper.make_model(
        helper.make_graph(
            [helper.make_node("CumSum", ["x", "axis"], ["y"])],
            "g",
            [helper.make_tensor_value_info("x", TensorProto.FLOAT, [2, 7])],
            [helper.make_tensor_value_info("y", TensorProto.FLOAT, [2, 7])],
            [onnx.numpy_helper.from_array(np.array(1, np.int64), "axis")],
        ),
        opset_imports=[helper.make_opsetid("", 14)],
        ir_version=8,
    )
    onnx.save(model, project / "cumsum.onnx")
    out = _python(
        project, "-m", "codegen.cli", "build", "cumsum.onnx", "--board", "local", "--out", "lib"
    )
    assert "verified against onnxruntime" in out


def test_kernel_variant_is_two_files(project):
    _append(
        project / "templates/unary/kernels.toml",
        """
[[kernel]]
name     = "unary_f32_neon_by4"
template = "neon_by4.c.j2"
isa      = "neon"
when     = { fn = ["relu"] }
inplace  = "input"
""",
    )
    _append(
        project / "templates/unary/neon_by4.c.j2",
        """
/* y[i] = max(x[i], 0) for ${size} floats; y may be x. */
void ${fn}(const float *x, float *y)
{
    int i = 0;
    for (; i + 4 <= ${size}; i += 4)
        vst1q_f32(y + i, cg_relu_f32x4(vld1q_f32(x + i)));
    for (; i < ${size}; i++)
        y[i] = cg_relu_f32(x[i]);
}
""",
    )
    _test_row(project, "unary_f32_neon_by4")


def test_tile_size_is_one_row(project):
    _append(
        project / "templates/conv2d/kernels.toml",
        """
[[kernel]]
name     = "conv2d_nhwc_f32_neon_gemm_6x8"
template = "neon_gemm_nhwc.c.j2"
layout   = "nhwc"
isa      = "neon"
when     = { constant_weights = 1, pointwise = 1 }
params   = { mr = 6, nr = 8 }
pack     = "conv_panels_nhwc"
derive   = "pixel_block"
inplace  = "residual"
pitch    = true
rate     = 3.0
""",
    )
    _test_row(project, "conv2d_nhwc_f32_neon_gemm_6x8")


def test_board_is_one_file(project):
    shutil.copy(project / "boards/raspberry-pi-4.toml", project / "boards/my-board.toml")
    out = _python(
        project,
        "-c",
        "from codegen.board import board_names, load_board;"
        "print(load_board('my-board').core, 'my-board' in board_names())",
    )
    assert out.split() == ["cortex-a72", "True"]
