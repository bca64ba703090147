"""The order of a depthwise convolution's instructions: on the model of the core it waits for
little, all is loaded once, and on an emulator the results are exact."""

import re
from itertools import product

import numpy as np
import pytest

from codegen.int8_depthwise_order import DepthwiseOrder, Windows, depthwise_order
from codegen.interpret import interpret
from codegen.kernels import load_kernels
from codegen.ops.quantised import qconv_case
from codegen.reference import random_inputs
from codegen.run.virtual import inorder
from codegen.types import DType
from tests.kernel_cases import Trial, make_graph
from tests.test_int8_order import computed, the_board

PIXEL = 48  # bytes
SHAPES = [
    Windows(k, k, 3, columns * PIXEL, PIXEL, n, group)
    for k, columns, n, group in product((3, 5), (1, 2, 5), (8, 16), (2, 4))
]


def loop(order: DepthwiseOrder) -> list[str]:
    """A block as llvm-mc writes it."""
    text = [re.sub(r"{(\S+)}", r"{ \1 }", t.replace("ins ", "mov ")) for t in order.body]
    return [*text, "cbnz x14, #0"]


@pytest.mark.parametrize(
    ("columns", "n", "group", "most"), [(1, 16, 2, 75), (2, 16, 2, 77), (1, 16, 4, 66)]
)
def test_cycles_per_window(columns, n, group, most):
    order = depthwise_order(Windows(3, 3, 3, columns * PIXEL, PIXEL, n, group))
    (cycles,) = inorder.cycles([(loop(order), True)], "cortex-a53")
    assert cycles / 3 <= most


@pytest.mark.parametrize("s", SHAPES, ids=str)
def test_all_is_loaded_once_and_multiplied(s):
    order = depthwise_order(s)
    text = order.body
    assert sum(t.startswith(("smull", "smlal")) for t in text) == 3 * s.kh * s.kw * s.n // 8
    assert sum(t.startswith("saddw") for t in text) == 3 * -(-s.kh * s.kw // s.group) * s.n // 4
    pixels = s.kh * len({o * s.step + j * s.dilation for o in range(3) for j in range(s.kw)})
    halves = (pixels + s.kh * s.kw) * s.n // 8 + s.n  # and biases and scales
    loads = [t.split(", ", 1)[1] for t in text if t.startswith("ldr")]
    assert len(loads) == len(set(loads)) == halves
    first = [t.split(", ", 1)[1] for t in order.begin if t.startswith("ldr")]
    assert set(first) < set(loads)
    assert [t.split("}")[1] for t in text if t.startswith("st1")] == [
        f", [x{5 + o}], x16" for o in range(3)
    ]


@pytest.mark.parametrize("bits", [8, 7])
def test_results_are_exact(bits, tmp_path):
    """Groups of windows and what is left of them, fewer than a group, blocks of channels."""
    board, cases = the_board(), []
    for i, (w, c) in enumerate(((1, 16), (4, 24), (5, 32), (9, 48), (12, 56), (70, 136))):
        for kernel, stride in ((3, 1), (3, 2), (5, 1 + i % 2)):
            window = dict(group=c, strides=(stride, stride), bits=bits)
            pads = (kernel // 2, i % 2, kernel // 2, kernel // 2)
            size = (1 + i % 2, c, 1 + 2 * i, max(w, kernel - 1 - i % 2))
            cases.append(qconv_case(size, c, (kernel, kernel), pads=pads, **window))
    batch = [Trial("QConv", case, "nhwc", None, False, DType.I8) for case in cases]
    graph = make_graph(batch, seed=1)
    row = load_kernels()["qconv2d_nhwc_i8_neon_inorder_depthwise" + "_w7" * (bits == 7)]
    expected = interpret(graph, random_inputs(graph, 2))
    for name, y in computed(graph, batch, row, board, tmp_path).items():
        np.testing.assert_array_equal(y, expected[name].reshape(-1))
