"""The functions of runtime_c/cg_neon.h against float64, with the error bounds that it states."""

import subprocess

import numpy as np
import pytest
from scipy import special

from codegen.board import load_board
from codegen.resources import runtime_dir
from codegen.toolchain import find_toolchain

ULP = 2.0**-23
X = np.unique(
    np.concatenate([np.linspace(-87.3, 88.3, 20001), np.geomspace(1e-30, 88, 2000),
                    -np.geomspace(1e-30, 87, 2000), [-1e30, -100, 0, 100, 1e30]]).astype(np.float32)
)  # fmt: skip
INSIDE = (X >= -87.3) & (X <= 88.3)

PROGRAM = """#include "cg_neon.h"
#include <stdio.h>
int main(void)
{
    float x[4];
    while (fread(x, sizeof x, 1, stdin) == 1) {
        vst1q_f32(x, cg_%s_f32x4(vld1q_f32(x)));
        fwrite(x, sizeof x, 1, stdout);
    }
    return 0;
}
"""


@pytest.fixture(scope="module")
def computed(tmp_path_factory):
    """computed(function, x): the C function's values, as float64."""
    toolchain, folder = find_toolchain(load_board("local")), tmp_path_factory.mktemp("math")

    def run(function: str, x: np.ndarray) -> np.ndarray:
        source, program = folder / f"{function}.c", folder / function
        source.write_text(PROGRAM % function)
        flags = (*toolchain.flags, "-std=c11", f"-I{runtime_dir()}")
        subprocess.run((*toolchain.cc, *flags, source, "-o", program, "-lm"), check=True)
        padded = np.resize(x, -(-x.size // 4) * 4)
        done = subprocess.run([program], input=padded.tobytes(), check=True, capture_output=True)
        return np.frombuffer(done.stdout, np.float32)[: x.size].astype(np.float64)

    return run


def test_exp(computed):
    y, want = computed("exp", X[INSIDE]), np.exp(X[INSIDE].astype(np.float64))
    assert np.max(np.abs(y - want) / want) < 2 * ULP


def test_reciprocal(computed):
    x = np.geomspace(1, 2.0**125, 20001).astype(np.float32)
    assert np.max(np.abs(computed("reciprocal", x) * x.astype(np.float64) - 1)) < 2 * ULP


@pytest.mark.parametrize(("function", "exact"), [("sigmoid", special.expit), ("tanh", np.tanh)])
def test_squashing(computed, function, exact):
    assert np.max(np.abs(computed(function, X) - exact(X.astype(np.float64)))) < 3e-7


def test_silu(computed):
    x = X[INSIDE].astype(np.float64)
    want = x * special.expit(x)
    assert np.max(np.abs(computed("silu", X[INSIDE]) - want) / np.maximum(np.abs(x), 1)) < 3e-7
