"""Operators between codes of int8 other than products, at the limits of their numbers."""

import itertools

import numpy as np
import pytest

from codegen.board import load_board
from codegen.builder import Builder
from codegen.graph import Tensor
from codegen.interpret import interpret
from codegen.kernels import load_kernels, refusal
from codegen.layer import layer_of
from codegen.ops import integer
from codegen.plan import Choice
from codegen.run import pick_runner
from codegen.types import DType
from tests.computed import computed

BOARD = load_board("local")
OPS = {op.name: op for op in integer.OPS}
FAMILIES = {op.family for op in integer.OPS}
ROWS = [r for r in load_kernels().values() if r.family in FAMILIES]
SHAPES = {"qaverage_pool2d": (1, 27, 4, 300)}
SHAPE = (1, 27, 5, 5)
EXTREMES = (-128, 127)


def nodes_of(family: str) -> list[tuple[str, list[np.ndarray], dict]]:
    """(operator, constants, attributes) with zero points as far from the codes as can be and sums
    that nearly fill the result."""
    factors = np.array([0.251, 0.249], np.float32)
    table = np.linspace(-128, 127, 256).astype(np.int8)[::-1].copy()
    shares = np.exp(-0.05 * np.arange(256)).astype(np.float32)
    out = []
    for zero, other, y in itertools.product(EXTREMES, EXTREMES, (0, 127)):
        zeros = np.array([zero, y, -128, 127, other], np.int32)
        window = {"kernel_shape": (2, 300), "strides": (1, 1), "pads": (0, 0, 0, 0)}
        out += [
            ("QAdd", [zeros, factors], {}),
            ("QMul", [zeros, factors / 255], {}),
            ("QAveragePool", [zeros, 2 * factors], window),
            ("QMap", [table], {}),
            ("QSoftmax", [shares, zeros, 250 * factors], {"axis": 1}),
        ]
    return [n for n in out if OPS[n[0]].family == family]


@pytest.mark.parametrize("row", ROWS, ids=lambda r: r.name)
def test_extreme_values_are_exact(row, tmp_path):
    b, inputs, nodes, outputs = Builder("net"), {}, {}, []
    shape = SHAPES.get(row.family, SHAPE)
    wanted = 2 if row.family == "qbinary" else 1
    for i, (op, constants, attrs) in enumerate(nodes_of(row.family)):
        values = [np.full(shape, v, np.int8) for v in (EXTREMES[i % 2], EXTREMES[i // 2 % 2])]
        values[0][..., -1] = EXTREMES[1 - i % 2]
        names = [f"x{i}_{j}" for j in range(wanted)]
        for name, value in zip(names, values, strict=False):
            b.input(Tensor(name, shape, DType.I8))
            inputs[name] = value
        names += [b.constant(f"k{i}_{j}", c) for j, c in enumerate(constants)]
        outputs += b.add(op, names, attrs, f"n{i}")
        nodes[f"n{i}"] = Choice(row.name, "nhwc")
    graph = b.graph(list(inputs), outputs)
    assert not refusal(row, layer_of(graph, graph.nodes[0], "nhwc"), tuple(BOARD.isa))
    got = computed(graph, nodes, BOARD, pick_runner(BOARD), inputs, tmp_path)
    expected = interpret(graph, inputs)
    for name in outputs:
        np.testing.assert_array_equal(got[name].reshape(-1), expected[name].reshape(-1))
    assert len({v for name in outputs for v in expected[name].reshape(-1).tolist()}) > 1
