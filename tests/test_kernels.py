"""Every kernel row against the float64 reference, on every size that could trip it, compiled and
run on this machine; half precision, dot products and matrix products of int8 on an emulator, for
nothing stands in for their intrinsics. Of templates with many rows the quick suite takes the first
two."""

from collections import Counter

import numpy as np
import pytest

from codegen.board import Board, load_board
from codegen.build import compile_library
from codegen.compare import difference, passes
from codegen.errors import CodegenError
from codegen.interpret import interpret
from codegen.kernels import Kernel, load_kernels
from codegen.ops import OPS
from codegen.pipeline import finish
from codegen.plan import Plan
from codegen.reference import random_inputs
from codegen.run import Job, pick_runner
from codegen.sources import write
from codegen.toolchain import find_toolchain
from tests.kernel_cases import EMULATED, emulated_board, make_graph, plan_nodes, trials

ROWS = list(load_kernels().values())
_QUICK = 2  # rows of one template that the quick suite compiles; the rest are other sizes of it
# Of a layer in half precision: sums of up to 128 products are rounded after each of them.
HALF_TOLERANCE = 5e-3


def _board_for(row: Kernel) -> Board:
    """Where a row can run: this machine, or an emulated core; skips where there is none."""
    if row.isa not in EMULATED:
        return load_board("local")
    board = emulated_board(row.isa)
    try:
        find_toolchain(board)
    except CodegenError as e:
        pytest.skip(str(e))
    if pick_runner(board, "qemu") is None:
        pytest.skip(f"{row.name} needs {row.isa}, and no qemu runs it here")
    return board


def _marked() -> list:
    """All rows, those after the first of a template only in `make test-all`."""
    seen: Counter[tuple[str, str]] = Counter()
    out = []
    for row in ROWS:
        seen[row.family, row.template] += 1
        late = seen[row.family, row.template] > _QUICK
        out.append(pytest.param(row, marks=pytest.mark.slow if late else (), id=row.name))
    return out


@pytest.mark.parametrize("row", _marked())
def test_row_matches_reference(row, tmp_path):
    board = _board_for(row)
    batch = trials(row)
    assert batch, (
        f"no case reaches {row.name}: give its operator a case that satisfies the row's constraints"
    )
    graph = make_graph(batch, seed=1)
    plan = Plan(board.name, "0" * 64, plan_nodes(graph, batch, row))
    generated = finish(graph, plan, board, "trials")
    write(generated.sources, tmp_path)
    binary = compile_library(generated.sources, tmp_path, find_toolchain(board))
    assert not binary.error, binary.error
    inputs = random_inputs(graph, 2)
    data = b"".join(np.ascontiguousarray(inputs[n]).tobytes() for n in graph.inputs)
    outcome = pick_runner(board, "qemu" if row.isa in EMULATED else "").run(
        Job(binary.verify, ("in", "out"), {"in": data}, ("out",)), board
    )
    assert not outcome.error, outcome.error
    expected = interpret(graph, inputs)
    at = 0
    for port in generated.sources.outputs:
        t = port.tensor
        y = np.frombuffer(outcome.outputs["out"], t.dtype.numpy, t.size, at)
        at += t.bytes
        d = difference(y, np.asarray(expected[t.name]))
        trial = batch[int(t.name.split("/")[0].removeprefix("t").split("_")[0])]
        good = d.max_rel <= HALF_TOLERANCE if row.isa == "fp16" else passes(d, t.dtype.value)
        codes = OPS[trial.op].whole and not trial.case.attrs.get("reals")
        if codes and (trial.activation or trial.residual):
            # of float32 beside float64, one that falls on the other side of a tie is one code off
            good = np.abs(y.astype(int) - expected[t.name].reshape(-1)).max() <= 1
        assert good, f"{row.name} on {trial}: {d}"
