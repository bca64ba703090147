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
from codegen.pipeline import finish
from codegen.plan import Plan
from codegen.reference import random_inputs
from codegen.run import Job, pick_runner
from codegen.run.virtual import inorder
from codegen.sources import write
from codegen.toolchain import find_toolchain
from tests.kernel_cases import make_graph, plan_nodes, trials
from tests.test_quantise import check_extremes

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
    for depth, codes in itertools.product(DEPTHS, (True, False)):
        order = int8_order(rows, depth, chain, codes)
        text = block(order)
        products = [t for t in text if t.startswith(("smull", "smlal"))]
        assert len(products) == rows * 4 * depth // 8
        halves = [t for t in text if t.startswith("ldr") and "[x8]" in t]
        assert len(halves) == 4 * depth // 8
        for i in range(rows):
            assert sum(f"[x{i}]" in t for t in text) == depth // 8
            assert text.count(f"sub x{i}, x{i}, x15") == 1


@pytest.mark.parametrize("row", ROWS, ids=lambda r: r.name)
def test_assembly_is_exact(row, tmp_path):
    board = load_board(BOARD)
    try:
        toolchain = find_toolchain(board)
    except CodegenError as e:
        pytest.skip(str(e))
    runner = pick_runner(board, "qemu")
    if runner is None:
        pytest.skip(f"nothing runs code for {BOARD} here")
    check_extremes(row, board, tmp_path / "extremes")
    batch = trials(row)
    graph = make_graph(batch, seed=1)
    plan = Plan(board.name, "0" * 64, plan_nodes(graph, batch, row))
    generated = finish(graph, plan, board, "trials")
    write(generated.sources, tmp_path)
    binary = compile_library(generated.sources, tmp_path, toolchain)
    assert not binary.error, binary.error
    inputs = random_inputs(graph, 2)
    data = b"".join(np.ascontiguousarray(inputs[n]).tobytes() for n in graph.inputs)
    outcome = runner.run(Job(binary.verify, ("in", "out"), {"in": data}, ("out",)), board)
    assert not outcome.error, outcome.error
    expected, at = interpret(graph, inputs), 0
    for port, trial in zip(generated.sources.outputs, batch, strict=True):
        y = np.frombuffer(outcome.outputs["out"], np.int8, port.tensor.size, at)
        at += port.tensor.bytes
        off = np.abs(y.astype(int) - expected[port.tensor.name].reshape(-1)).max()
        # float32 beside float64 may fall on the other side of a tie
        assert off <= bool(trial.activation or trial.residual), f"{row.name} on {trial}"
