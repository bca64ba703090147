"""The order of an int8 tile's instructions: on the model of the core it waits for almost nothing,
and on an emulator the rows that consist of it are exact."""

import itertools

import numpy as np
import pytest

from codegen.board import load_board
from codegen.build import compile_library
from codegen.errors import CodegenError
from codegen.int8_order import Int8Order, int8_order
from codegen.interpret import interpret
from codegen.kernels import load_kernels
from codegen.ops.quantised import qconv_case
from codegen.pipeline import finish
from codegen.plan import Plan
from codegen.reference import random_inputs
from codegen.run import Job, pick_runner
from codegen.run.virtual import inorder
from codegen.sources import write
from codegen.toolchain import find_toolchain
from codegen.types import DType
from tests.kernel_cases import Trial, make_graph, plan_nodes, trials
from tests.test_quantise_extremes import check_extremes

BOARD = "raspberry-pi-3b-plus"
ROWS = [r for r in load_kernels().values() if r.params.get("in_order") and r.dtype == ("i8",)]
DEPTHS = (8, 16, 24, 32, 40, 72, 144, 152, 320, 960)


def block(order: Int8Order) -> list[str]:
    """One block as llvm-mc writes it."""
    loop = [*order.body, "subs x9, x9, #1", "b.ne #0"] * order.times
    lines = [*order.head, *loop, *order.tail, "cbnz x14, #0"]
    return [t.replace("ins ", "mov ") for t in lines]


@pytest.mark.parametrize(
    ("chain", "depth", "least"), [(1, 96, 4.0), (1, 960, 4.4), (2, 96, 4.4), (2, 960, 4.8)]
)
def test_products_per_cycle(chain, depth, least):
    (cycles,) = inorder.cycles([(block(int8_order(4, depth, chain)), True)], "cortex-a53")
    assert 16 * depth / cycles >= least


@pytest.mark.parametrize(("rows", "chain"), [*itertools.product(range(1, 5), (1, 2))])
def test_all_is_loaded_once_and_multiplied(rows, chain):
    for depth, end in itertools.product(DEPTHS, ("sums", "codes", "residual")):
        order = int8_order(rows, depth, chain, end)
        text = block(order)
        products = [t for t in text if t.startswith(("smull", "smlal"))]
        assert len(products) == rows * 4 * depth // 8
        halves = [t for t in text if t.startswith("ldr") and "[x8]" in t]
        assert len(halves) == 4 * depth // 8
        for i in range(rows):
            halves = sum(f"[x{i}]" in t for t in text)
            if halves == 0:  # all stays in registers
                bytes_ = sum(int(t.split("#")[1]) for t in order.begin if f"[x{i}]" in t)
                assert (bytes_, depth <= 32 * chain) == (depth, True)
            else:
                assert (halves, text.count(f"sub x{i}, x{i}, x15")) == (depth // 8, 1)


def the_board():
    board = load_board(BOARD)
    try:
        find_toolchain(board)
    except CodegenError as e:
        pytest.skip(str(e))
    if pick_runner(board, "qemu") is None:
        pytest.skip(f"nothing runs code for {BOARD} here")
    return board


def computed(graph, batch, row, board, path):
    """Codes, or real values, of all outputs, computed by one row on an emulator."""
    plan = Plan(board.name, "0" * 64, plan_nodes(graph, batch, row))
    generated = finish(graph, plan, board, "trials")
    write(generated.sources, path)
    binary = compile_library(generated.sources, path, find_toolchain(board))
    assert not binary.error, binary.error
    inputs = random_inputs(graph, 2)
    data = b"".join(np.ascontiguousarray(inputs[n]).tobytes() for n in graph.inputs)
    job = Job(binary.verify, ("in", "out"), {"in": data}, ("out",))
    outcome = pick_runner(board, "qemu").run(job, board)
    assert not outcome.error, outcome.error
    out, at = {}, 0
    for port in generated.sources.outputs:
        y = np.frombuffer(outcome.outputs["out"], port.tensor.dtype.numpy, port.tensor.size, at)
        out[port.tensor.name] = y.astype(int if y.dtype.kind == "i" else np.float64)
        at += port.tensor.bytes
    return out


@pytest.mark.parametrize("row", ROWS, ids=lambda r: r.name)
def test_assembly_is_exact(row, tmp_path):
    board = the_board()
    check_extremes(row, board, tmp_path / "extremes")
    batch = trials(row)
    graph = make_graph(batch, seed=1)
    expected = interpret(graph, random_inputs(graph, 2))
    outputs = computed(graph, batch, row, board, tmp_path)
    for (name, y), trial in zip(outputs.items(), batch, strict=True):
        true = expected[name].reshape(-1)
        off = np.abs(y - true).max()
        if trial.case.attrs.get("reals"):
            assert off <= 1e-6 * np.abs(true).max(), f"{row.name} on {trial}"
            continue
        # float32 beside float64 may fall on the other side of a tie
        assert off <= bool(trial.activation or trial.residual), f"{row.name} on {trial}"


def test_residual_is_that_of_c(tmp_path):
    """In every bit: tiles and what is left of them, whole and half steps, in loops and not."""
    board = the_board()
    sizes = ((1, 16, 8), (2, 36, 24), (3, 20, 144), (9, 36, 336), (8, 4, 16), (7, 24, 152))
    cases = [qconv_case((1, c, 1, w), m, (1, 1)) for w, m, c in sizes]
    batch = [Trial("QConv", case, "nhwc", None, True, DType.I8) for case in cases]
    graph = make_graph(batch, seed=1)
    rows, names = load_kernels(), ("neon_inorder_gemm_4x16", "neon_gemm_4x16")
    one, other = (
        computed(graph, batch, rows[f"qconv2d_nhwc_i8_{n}"], board, tmp_path / n) for n in names
    )
    for name, y in one.items():
        np.testing.assert_array_equal(y, other[name])
        assert len(set(y)) >= 8
