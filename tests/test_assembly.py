"""The machine code of every row that multiplies matrices: its inner loop keeps all sums in
registers and consists mostly of FMLAs; the hand-ordered assembly computes what the reference does.
"""

import re
import subprocess
from dataclasses import dataclass

import numpy as np
import pytest

from codegen.board import load_board
from codegen.build import compile_library
from codegen.compare import difference, passes
from codegen.errors import CodegenError
from codegen.interpret import interpret
from codegen.kernels import Kernel, load_kernels
from codegen.ops.base import Case
from codegen.pipeline import finish
from codegen.plan import Choice, Plan
from codegen.reference import random_inputs
from codegen.run import Job, pick_runner
from codegen.sources import write
from codegen.toolchain import find_toolchain
from codegen.types import DType
from tests.kernel_cases import Trial, make_graph, plan_nodes, sparse_weights, trials

INORDER, OUT_OF_ORDER, HALF = "raspberry-pi-3b-plus", "jetson-nano-cpu", "raspberry-pi-5"
PRODUCTS = [
    r
    for r in load_kernels().values()
    if "nr" in r.params and r.family in ("conv2d", "conv_chain", "dense")
]
# The least share of FMLAs in the inner loop. An FMLA brings nr * mr / (nr + mr) of them per load of
# four floats; a load in two halves and an insert, as in-order cores want it, is three instructions.
SHARES = {
    "sparse_16x4": 0.55, "sparse": 0.25,
    "chain_nhwc_f32_neon_inorder": 0.55, "inorder": 0.58, "winograd": 0.6, "nr4": 0.25,
    "nr16": 0.33, "nr32": 0.4, "nr8": 0.4, "4x4": 0.57, "f16": 0.68,
    "": 0.7,
}  # fmt: skip
_LABEL = re.compile(r"^(\.?\w+):")
_BRANCH = re.compile(r"^\s(?:b\.?\w+|cbn?z|tbn?z)\s.*?(\.?\w+)$")
_SPILL = re.compile(r"^\s(?:ldr|str|ldp|stp|ldur|stur)\s+[qdvs]\d.*\[(?:sp|x29)")


def _board(row: Kernel) -> str:
    return HALF if row.isa == "fp16" else INORDER if "inorder" in row.name else OUT_OF_ORDER


def _trial(row: Kernel) -> Trial:
    """A layer with full tiles and, where the row can do that, products in several parts."""
    dtype = DType(row.dtype[0])
    if row.when.get("sparse"):
        w = sparse_weights(512, 48, 0.8)
        if row.family == "dense":
            return Trial("Dense", Case(((8, 512), w, (48,)), {}, (1, 2)), "nchw")
        w = np.ascontiguousarray(w.T).reshape(48, 512, 1, 1)
        return Trial("Conv", Case(((1, 512, 8, 9), w, (48,)), {}, (1, 2)), row.layout)
    if row.family == "dense":
        case = Case(((8, 512), (512, 48), (48,)), {}, (1, 2))
        return Trial("Dense", case, "nchw", dtype=dtype)
    if row.family == "conv_chain":
        return max(trials(row), key=lambda t: sum(map(np.prod, t.case.inputs[:1])))
    k, s = 1 if row.when.get("pointwise") else row.when.get("kh", 3), row.when.get("sh", 1)
    c = max(row.when.get("c", [512]))
    # Winograd's tiles are groups of pixels
    extent = (16 * s, 32 * s) if "f" in row.params else (8, 24 if row.isa == "fp16" else 9)
    shape = ((1, c, *extent), (48, c, k, k), (48,))
    window = {"pads": (k // 2,) * 4, "strides": (s, s)}
    return Trial("Conv", Case(shape, window, (1, 2)), row.layout, dtype=dtype)


def _toolchain(board: str):
    try:
        return find_toolchain(load_board(board))
    except CodegenError as e:
        pytest.skip(str(e))


@pytest.fixture(scope="module")
def assembly(tmp_path_factory):
    """assembly(row): lines of its functions, inlined ones included."""
    made: dict[str, dict[str, list[str]]] = {}

    def of(row: Kernel) -> list[str]:
        board = _board(row)
        if board not in made:
            rows = [r for r in PRODUCTS if _board(r) == board]
            made[board] = _compiled(rows, board, tmp_path_factory.mktemp(board))
        return made[board][row.name]

    return of


def _compiled(rows: list[Kernel], board: str, folder) -> dict[str, list[str]]:
    toolchain = _toolchain(board)
    batch = [_trial(r) for r in rows]
    graph = make_graph(batch, seed=1)
    nodes = {f"t{i}": Choice(r.name, batch[i].layout) for i, r in enumerate(rows)}
    sources = finish(graph, Plan(board, "0" * 64, nodes), load_board(board), "rows").sources
    write(sources, folder)
    text = ""
    endings = tuple({f"_{r.family}.c" for r in rows})
    for source in (p for p in sources.library if p.endswith(endings)):
        flags = (*toolchain.flags, "-std=c11", "-fno-ipa-icf", "-Isrc", "-Iinclude")
        command = (*toolchain.cc, *flags, "-S", source, "-o", "-")
        done = subprocess.run(command, cwd=folder, check=True, capture_output=True, text=True)
        text += done.stdout
    return {r.name: _functions(text, f"{sources.name}_{r.name}_1") for r in rows}


def _functions(text: str, prefix: str) -> list[str]:
    """Lines of all functions whose names are `prefix` or begin with `prefix`_."""
    out: list[str] = []
    inside = False
    for line in text.splitlines():
        if line.startswith("\t.size"):
            inside = False
        if re.match(rf"{prefix}(_\w+|\.\w+)*(\.\w+)*:", line):
            inside = True
        if inside and line.strip() and not re.match(r"\s*(\.|//|#)(?!L)", line):
            out.append(re.sub(r"\s*(//|@).*$", "", line))
    return out


@dataclass(frozen=True)
class Loop:
    code: tuple[str, ...]

    @property
    def multiplies(self) -> int:
        return sum(line.split()[0] == "fmla" for line in self.code)

    @property
    def share(self) -> float:
        return self.multiplies / len(self.code)


def inner_loop(lines: list[str], least: int) -> Loop:
    """Of the loops that hold no other one and at least so many FMLAs, the one with the largest
    share of them (transforms multiply, too)."""
    at: dict[str, int] = {}
    loops = []
    last = -1  # the end of the last loop
    for i, line in enumerate(lines):
        if label := _LABEL.match(line):
            at[label[1]] = i
        branch = _BRANCH.match(line)
        start = at.get(re.sub(r"^(\d+)b$", r"\1", branch[1]), -1) if branch else -1
        if start > last:
            code = (x for x in lines[start : i + 1] if not _LABEL.match(x))
            loops.append(Loop(tuple(code)))
            last = i
    return max((x for x in loops if x.multiplies >= least), key=lambda loop: loop.share)


@pytest.mark.parametrize("row", PRODUCTS, ids=lambda r: r.name)
def test_inner_loop_multiplies(row, assembly):
    lanes = 16 // DType(row.dtype[0]).size
    loop = inner_loop(assembly(row), row.params.get("mr", 1) * row.params["nr"] // lanes)
    spilled = [line for line in loop.code if _SPILL.match(line)]
    assert not spilled, f"sums go through memory: {spilled}"
    least = next(v for k, v in SHARES.items() if k in row.name)
    assert loop.share >= least, f"{loop.share:.2f} of {len(loop.code)} instructions"


@pytest.mark.parametrize(
    "row", [r for r in PRODUCTS if "inorder" in r.name], ids=lambda r: r.name
)
def test_assembly_matches_reference(row, tmp_path):
    """On an emulator: elsewhere intrinsics stand in for it."""
    toolchain, board = _toolchain(INORDER), load_board(INORDER)
    runner = pick_runner(board, "qemu")
    if runner is None:
        pytest.skip(f"nothing runs code for {INORDER} here")
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
    expected = interpret(graph, inputs)
    at = 0
    for port in generated.sources.outputs:
        y = np.frombuffer(outcome.outputs["out"], np.float32, port.tensor.size, at)
        at += port.tensor.bytes
        d = difference(y, np.asarray(expected[port.tensor.name]))
        assert passes(d, "f32"), f"{row.name}, {port.tensor.name}: {d}"
