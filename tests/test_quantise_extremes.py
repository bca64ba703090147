"""Kernels in int8 at the limits of their numbers, and codes at ties."""

import numpy as np
import pytest

from codegen.board import load_board
from codegen.builder import Builder
from codegen.errors import CodegenError
from codegen.graph import Tensor
from codegen.interpret import interpret
from codegen.kernels import candidates, load_kernels, refusal
from codegen.layer import layer_of
from codegen.ops.base import Case
from codegen.plan import Choice
from codegen.run import pick_runner
from codegen.toolchain import find_toolchain
from codegen.types import DType
from tests.computed import computed
from tests.kernel_cases import EMULATED, emulated_board, make_graph, trials

BOARD = load_board("local")
INT8 = [r for r in load_kernels().values() if r.family in ("qconv2d", "qdense")]


def extreme(row, x: int, w: int) -> tuple:
    """One layer whose every product is as large as can be, of sign w; scales that keep its sums."""
    depth, dims = 512, {"qconv2d": (1, 512, 1, 9), "qdense": (5, 512)}[row.family]
    channels, kernel, attrs = 6, (1, 1), {}
    if "depthwise" in row.name:
        dims, channels, kernel, depth = (1, 24, 5, 5), 24, (3, 3), 9
        attrs = {"group": 24}
    if "direct" in row.name:
        dims, channels, kernel, depth = (1, 4, 8, 9), 24, (5, 5), 100
    if "winograd" in row.name:
        channels, kernel, most = 16, (3, 3), row.at_most["c"]
        dims, depth = (1, most, 7, 6), 9 * most
    weights = (channels, dims[1] // attrs.get("group", 1), *kernel)
    weights = weights if row.family == "qconv2d" else (512, channels)
    attrs["bits"] = max(row.when.get("bits", [8]))
    w *= 2 ** (attrs["bits"] - 1) - 1
    constants = (
        np.full(weights, w, np.int8),
        np.full(channels, 1000, np.int32),
        np.full(channels, 100.0 / (256 * 127 * depth), np.float32),
        np.array([127 if x < 0 else -128, 3, -128, 127, 0], np.int32),
        np.ones(2, np.float32),
    )
    return Case((dims, *constants), attrs, (1, 2, 3, 4, 5)), np.full(dims, x, np.int8)


@pytest.mark.parametrize("row", INT8, ids=lambda r: r.name)
def test_extreme_values_are_exact(row, tmp_path):
    board = emulated_board(row.isa) if row.isa in EMULATED else BOARD
    try:
        find_toolchain(board)
    except CodegenError as e:
        pytest.skip(str(e))
    if pick_runner(board) is None:
        pytest.skip(f"nothing runs code for {board.name} here")
    check_extremes(row, board, tmp_path)


@pytest.mark.parametrize("isa", ["dotprod", "i8mm"])
def test_instructions_are_for_boards_that_have_them(isa):
    rows = [r for r in INT8 if r.isa == isa]
    for row in rows:
        layer = layer_of(*_layer(row), "nhwc")
        assert row in candidates(layer, emulated_board(isa))
        assert row not in candidates(layer, load_board("jetson-nano-cpu"))
    assert len(rows) == 3


def _layer(row):
    graph = make_graph(trials(row)[:1], seed=0)
    return graph, graph.nodes[0]


def check_extremes(row, board, tmp_path):
    """x of -128 and 127 beside the zero point that is farthest, the least and the largest weights
    of as many bits as the row takes: sums in 16 bits are as large as they can be."""
    b, inputs, nodes, outputs = Builder("net"), {}, {}, []
    op = "QConv" if row.family == "qconv2d" else "QDense"
    for i, (x, w) in enumerate(((-128, 1), (-128, -1), (127, 1), (127, -1))):
        case, value = extreme(row, x, w)
        b.input(Tensor(f"x{i}", value.shape, DType.I8))
        names = [b.constant(f"k{i}_{j}", c) for j, c in enumerate(case.inputs[1:])]
        outputs += b.add(op, [f"x{i}", *names], case.attrs, f"n{i}")
        inputs[f"x{i}"], nodes[f"n{i}"] = value, Choice(row.name, "nhwc")
    graph = b.graph(list(inputs), outputs)
    assert not refusal(row, layer_of(graph, graph.nodes[0], "nhwc"), tuple(board.isa))
    got = computed(graph, nodes, board, pick_runner(board), inputs, tmp_path)
    expected = interpret(graph, inputs)
    for name in outputs:
        np.testing.assert_array_equal(got[name].reshape(-1), expected[name].reshape(-1))
        assert len(set(expected[name].reshape(-1).tolist()) - {-128, 127}) >= 1


@pytest.mark.parametrize("name", ["local", "jetson-nano-cpu"])
@pytest.mark.parametrize("inverse", [0, 1])
def test_codes_are_those_of_a_division(name, inverse, tmp_path):
    """Or of a product by one over the scale. Real values around ties of many scales, and what is
    far beyond the codes; the board's division is one only in effect."""
    board = load_board(name)
    try:
        find_toolchain(board)
        runner = pick_runner(board, "" if name == "local" else "qemu")
    except CodegenError as e:
        pytest.skip(str(e))
    if runner is None:
        pytest.skip(f"nothing runs code for {name} here")
    rng = np.random.default_rng(5)
    b, inputs, nodes, outputs = Builder("net"), {}, {}, []
    ties = np.arange(-140, 140, dtype=np.float32) + np.float32(0.5)
    odd = np.array([np.inf, -np.inf, np.nan, 3e38, -3e38, 1e-45, 0.0, 1e30], np.float32)
    odd = odd[5:7] if name == "local" else odd  # x86 converts nothing beyond 32 bits
    scales = np.exp(rng.uniform(-12, 6, 40)).astype(np.float32)
    for i, scale in enumerate((*scales, np.float32(1e-38), np.float32(1e30))):
        with np.errstate(all="ignore"):
            at = ties * scale
            near = [at, np.nextafter(at, np.float32(np.inf)), np.nextafter(at, -np.float32(np.inf))]
            value = np.concatenate([*near, odd]).astype(np.float32)[None]
        b.input(Tensor(f"x{i}", value.shape, DType.F32))
        zero = np.array(rng.integers(-128, 128), np.int8)
        names = [f"x{i}", b.constant(f"s{i}", np.array(scale)), b.constant(f"z{i}", zero)]
        outputs += b.add("Quantize", names, {"axis": 0, "inverse": inverse}, f"n{i}")
        inputs[f"x{i}"], nodes[f"n{i}"] = value, Choice("quantize_f32_neon", "nchw")
    graph = b.graph(list(inputs), outputs)
    got = computed(graph, nodes, board, runner, inputs, tmp_path)
    expected = interpret(graph, inputs)
    for t in outputs:
        np.testing.assert_array_equal(got[t].reshape(-1), expected[t].reshape(-1), t)
