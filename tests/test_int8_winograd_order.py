"""The order of Winograd's products in integers: executed instruction by instruction it computes
them and reads nothing else, and on the model of the core it waits for almost nothing."""

import re
from itertools import product

import numpy as np
import pytest

from codegen.int8_winograd_order import PLANES, WinogradOrder, winograd_order
from codegen.interpret import interpret
from codegen.kernels import load_kernels
from codegen.ops.quantised import qconv_case
from codegen.reference import random_inputs
from codegen.run.virtual import inorder
from codegen.types import DType
from tests.kernel_cases import Trial, make_graph
from tests.test_int8_order import computed, the_board

TILES = [(rows, 8) for rows in range(1, 9)] + [(rows, 16) for rows in range(1, 5)]
LOOP = ["subs x9, x9, #1", "b.ne #0"]


class Machine:
    """Executes what orders consist of. Memory of `x0`, `x8` and `x13`, `x16`: inputs, weights in 16
    bits, sums in 32."""

    def __init__(self, x: np.ndarray, w: np.ndarray, sums: np.ndarray, steps: dict[str, int]):
        self.memory = {"x0": x.view(np.int64), "x8": w.view(np.int64)}
        self.sums = sums
        self.vectors = np.zeros((32, 8), np.int16)
        self.at = {"x0": 0, "x8": 0, "x13": 0, "x16": 0, "x14": PLANES, "xzr": 0, **steps}

    def run(self, steps: tuple[str, ...]) -> None:
        for text in steps:
            opcode, *operands = re.findall(r"[\w.]+", text)
            getattr(self, f"_{opcode[:5]}")(operands, opcode.endswith("2"))

    def _ldr(self, o: list[str], _: bool) -> None:
        offset = self.at[o[1]] + int(o[2])
        assert offset >= 0
        assert offset % 8 == 0
        value = self.memory[o[1]][offset // 8]
        if o[0].startswith("d"):
            self.vectors[int(o[0][1:])] = np.array([value, 0]).view(np.int16)
        else:
            self.at[o[0]] = value

    def _ins(self, o: list[str], _: bool) -> None:
        self.vectors[int(o[0][1:-2])].view(np.int64)[1] = self.at[o[-1]]

    def _smull(self, o: list[str], high: bool) -> None:
        self._sum(o)[:] = self._products(o, high)

    def _smlal(self, o: list[str], high: bool) -> None:
        self._sum(o)[:] += self._products(o, high)

    def _sum(self, o: list[str]) -> np.ndarray:
        return self.vectors[int(o[0][1:-3])].view(np.int32)

    def _products(self, o: list[str], high: bool) -> np.ndarray:
        weights = self.vectors[int(o[1][1:-3])][4 * high : 4 * high + 4].astype(np.int32)
        register = int(o[2][1:-2])
        assert register < 16, "not an element that SMLAL can read"
        return weights * self.vectors[register][int(o[3])]

    def _str(self, o: list[str], _: bool) -> None:
        at = (self.at[o[1]] + int(o[2])) // 4
        assert at >= 0
        self.sums[at : at + 4] = self.vectors[int(o[0][1:])].view(np.int32)

    def _add(self, o: list[str], _: bool) -> None:
        self.at[o[0]] = self.at[o[1]] + (int(o[2]) if o[2].isdigit() else self.at[o[2]])

    def _subs(self, o: list[str], _: bool) -> None:
        self.at[o[0]] = self.at[o[1]] - int(o[2])

    def _mov(self, o: list[str], _: bool) -> None:
        self.at[o[0]] = self.at[o[1]]

    def _csel(self, o: list[str], _: bool) -> None:
        """By the count of planes."""
        self.at[o[0]] = self.at[o[1] if self.at["x14"] else o[2]]


@pytest.mark.parametrize(("rows", "columns"), TILES)
def test_products(rows, columns):
    random = np.random.default_rng(1)
    for passes, pitch in product((1, 2, 3, 4), (rows, rows + 1)):
        order = winograd_order(rows, columns, pitch, passes)
        depth, gap = 8 * passes, 32  # values between planes
        size = depth * pitch + gap, depth * columns + gap
        x, w = (random.integers(-9999, 9999, (PLANES, n)).astype(np.int16) for n in size)
        sums = np.zeros(PLANES * rows * columns, np.int32)
        steps = {"x15": 16 * pitch + 2 * gap, "x17": 16 * columns + 2 * gap}
        machine = Machine(x.reshape(-1), w.reshape(-1), sums, steps)
        machine.run(order.begin)
        while machine.at["x14"]:
            machine.run(order.first + order.times * order.body + order.last)
        machine.run(order.end)
        tiles = x[:, : depth * pitch].reshape(PLANES, passes, pitch, 8)[:, :, :rows]
        weights = w[:, : depth * columns].reshape(PLANES, passes, 8, columns)
        expected = np.einsum("pcrk,pckn->rpn", tiles, weights, dtype=np.int32)
        np.testing.assert_array_equal(sums, expected.reshape(-1))


def plane(order: WinogradOrder) -> list[str]:
    """One plane as llvm-mc writes it."""
    text = [*order.first, *order.times * [*order.body, *LOOP], *order.last, "cbnz x14, #0"]
    return [t.replace("ins ", "mov ") for t in text]


@pytest.mark.parametrize(
    ("rows", "columns", "most"), [(8, 8, 145), (6, 8, 111), (4, 8, 78), (4, 16, 150)]
)
def test_cycles_per_pass(rows, columns, most):
    """From one plane to the next, with stores."""
    for passes in (1, 2, 8):
        order = winograd_order(rows, columns, rows, passes)
        (cycles,) = inorder.cycles([(plane(order), True)], "cortex-a53")
        assert cycles <= passes * most


@pytest.mark.parametrize("tile", ["8x8", "4x16"])
def test_results_are_exact(tile, tmp_path):
    """Groups of all heights and what is left of them, planes of one pass and of several."""
    board = the_board()
    sizes = [(4 * n, 8 * (1 + n % 5)) for n in (*range(1, 12), 17)]
    cases = [qconv_case((1, c, 4, w), 16, (3, 3), pads=(1, 1, 1, 1)) for w, c in sizes]
    batch = [Trial("QConv", case, "nhwc", None, False, DType.I8) for case in cases]
    graph = make_graph(batch, seed=1)
    row = load_kernels()[f"qconv2d_nhwc_i8_neon_inorder_winograd4_{tile}"]
    expected = interpret(graph, random_inputs(graph, 2))
    for name, y in computed(graph, batch, row, board, tmp_path).items():
        np.testing.assert_array_equal(y, expected[name].reshape(-1))
