"""The order of a tile's instructions: executed symbolically it multiplies what it should, and on
the model of the core it waits for nothing."""

import itertools

import pytest

from codegen.run.virtual import inorder
from codegen.tile_order import UNROLL, Order, Step, tile_order

TILES = list(itertools.product(range(1, 9), range(1, 4)))
PASSES = 4


class Machine:
    """Registers of names: ("x", row, k) and ("w", k, column); sums are lists of products."""

    def __init__(self, rows: int, vectors: int):
        depth = PASSES * UNROLL
        self.streams = {str(i): [("x", i, k) for k in range(depth)] for i in range(rows)}
        self.streams["w"] = [("w", k, c) for k in range(depth) for c in range(4 * vectors)]
        self.registers: dict[int, list] = {}
        self.temporaries: dict[int, list] = {}
        self.sums = {(0, v): [] for v in range(vectors)}
        self.k = 0  # of the pass

    def take(self, step: Step) -> list:
        """The next 8 bytes of a stream."""
        stream = self.streams[step["of"]]
        if step["of"] != "w":
            assert stream[0][2] == self.k + step["k"]
        out = stream[:2]
        del stream[:2]
        return out

    def run(self, steps: tuple[Step, ...]) -> None:
        for s in steps:
            match s["op"]:
                case "sum":
                    self.sums[s["row"], s["vector"]] = []
                case "low":
                    self.registers[s["register"]] = [*self.take(s), None, None]
                case "next":
                    self.temporaries[s["temporary"]] = self.take(s)
                case "high":
                    self.registers[s["register"]][2:] = self.temporaries[s["temporary"]]
                case "fmla":
                    x, w = self.registers[s["x"]][s["lane"]], self.registers[s["w"]]
                    self.sums[s["row"], s["vector"]].append((x, *w))


@pytest.mark.parametrize(("rows", "vectors"), TILES)
def test_products(rows, vectors):
    order, machine = tile_order(rows, vectors), Machine(rows, vectors)
    machine.run(order.begin)
    for steps in (*[order.body] * (PASSES - 1), order.last):
        machine.run(steps)
        machine.k += UNROLL
    assert not any(machine.streams.values()), "not all was read"
    for row, v in itertools.product(range(rows), range(vectors)):
        expected = [
            (("x", row, k), *(("w", k, 4 * v + c) for c in range(4)))
            for k in range(PASSES * UNROLL)
        ]
        assert machine.sums[row, v] == expected


def _listing(order: Order, vectors: int) -> list[str]:
    """A pass as llvm-mc writes it, with the sums in registers from v31 down."""

    def pointer(place: str) -> str:
        return "x8" if place == "w" else f"x{place}"

    def text(s: Step) -> str:
        match s["op"]:
            case "fmla":
                total = 31 - s["row"] * vectors - s["vector"]
                return f"fmla v{total}.4s, v{s['w']}.4s, v{s['x']}.s[{s['lane']}]"
            case "low":
                return f"ldr d{s['register']}, [{pointer(s['of'])}], #8"
            case "next":
                return f"ldr x{10 + s['temporary']}, [{pointer(s['of'])}], #8"
            case "high":
                return f"mov v{s['register']}.d[1], x{10 + s['temporary']}"
            case "count":
                return "subs x9, x9, #1"
            case "touch":
                return "ldr wzr, [x17]"
            case _:
                return "add x17, x17, x19"

    return [*map(text, order.body), "b.ne #0"]


@pytest.mark.parametrize(("rows", "vectors"), [t for t in TILES if t[0] * t[1] >= 12])
def test_a_cycle_per_multiply_and_per_load(rows, vectors):
    (cycles,) = inorder.cycles([(_listing(tile_order(rows, vectors), vectors), True)], "cortex-a53")
    loads = UNROLL * vectors + 2 * -(-rows // 2)
    assert cycles == UNROLL * rows * vectors + loads


def test_no_register_has_two_meanings():
    """Sums, and what is multiplied, fit into 32 registers; addresses and halves into x0 to x17."""
    for rows, vectors in TILES:
        order = tile_order(rows, vectors)
        assert rows * vectors + order.vector_registers <= 32
        assert order.temporaries <= 7
