"""Random small networks, plans and orders: what schedule, order and memory are tried on."""

from collections.abc import Callable

import numpy as np
from hypothesis import strategies as st

from codegen.board import load_board
from codegen.builder import Builder
from codegen.graph import Graph, Tensor
from codegen.kernels import candidates
from codegen.layer import layer_of
from codegen.layout import LAYOUTS
from codegen.plan import Choice, Plan, needs_kernel
from codegen.types import DType

BOARD = load_board("jetson-nano-cpu")
Draw = Callable[..., int]


class Maker:
    """A network that grows node by node; `values` are its float tensors so far."""

    def __init__(self, draw):
        self.b = Builder("random")
        self._draw = draw
        self.values: list[str] = []
        self.rng = np.random.default_rng(self.draw(0, 999))

    def draw(self, low: int, high: int) -> int:
        return self._draw(st.integers(low, high))

    def any(self, rank: int = 0, shape: tuple[int, ...] = ()) -> str:
        """One of the newest fitting tensors, or of all; "" where there is none."""
        fit = [v for v in self.values if not rank or len(self.shape(v)) == rank]
        fit = [v for v in fit if not shape or self.shape(v) == shape]
        return fit[-1 - self.draw(0, len(fit) - 1)] if fit else ""

    def shape(self, name: str) -> tuple[int, ...]:
        return self.b.tensors[name].shape

    def add(self, op: str, inputs: list[str], **attrs) -> None:
        self.values += self.b.add(op, inputs, attrs, f"{op.lower()}{len(self.b.nodes)}")

    def constant(self, *shape: int) -> str:
        value = self.rng.integers(-4, 5, shape) / 4
        return self.b.constant("c", value.astype(np.float32))

    def conv(self) -> None:
        x = self.any(4)
        if x:
            c, m, k = self.shape(x)[1], self.draw(1, 9), (1, 3)[self.draw(0, 1)]
            inputs = [x, self.constant(m, c, k, k)]
            inputs += [self.constant(m)] if self.draw(0, 1) else []
            self.add("Conv", inputs, pads=(k // 2,) * 4)

    def depthwise(self) -> None:
        x = self.any(4)
        if x:
            c = self.shape(x)[1]
            self.add("Conv", [x, self.constant(c, 1, 3, 3)], pads=(1,) * 4, group=c)

    def square_conv(self) -> None:
        """As many channels out as in, so that a sum with its input is likely."""
        x = self.any(4)
        if x:
            c = self.shape(x)[1]
            self.add("Conv", [x, self.constant(c, c, 1, 1)])
            if self.draw(0, 1):
                self.add("Add", [self.values[-1], x])

    def pool(self) -> None:
        x = self.any(4)
        if x:
            op = ("MaxPool", "AveragePool")[self.draw(0, 1)]
            self.add(op, [x], kernel_shape=(3, 3), pads=(1,) * 4)

    def unary(self) -> None:
        self.add(("Relu", "Tanh", "Sigmoid")[self.draw(0, 2)], [self.any()])

    def sum(self) -> None:
        x = self.any()
        self.add(("Add", "Sub", "Maximum")[self.draw(0, 2)], [x, self.any(shape=self.shape(x))])

    def scale(self) -> None:
        x = self.any(4)
        if x:
            self.add("Mul", [x, self.constant(self.shape(x)[1], 1, 1)])

    def softmax(self) -> None:
        x = self.any()
        self.add("SoftmaxAxis", [x], axis=self.draw(0, len(self.shape(x)) - 1))

    def concat(self) -> None:
        x = self.any()
        axis = min(1, len(self.shape(x)) - 1)
        if self.draw(0, 2) == 0:
            axis = self.draw(0, len(self.shape(x)) - 1)
        if max(self.shape(x)) > 24:
            return
        parts = [x]
        for _ in range(self.draw(1, 3)):
            y = self.any(len(self.shape(x)))
            a, b = list(self.shape(x)), list(self.shape(y))
            a[axis] = b[axis] = 0
            parts += [y] if a == b else []
        self.add("Concat", parts, axis=axis)

    def split(self) -> None:
        x = self.any(4)
        if x and self.shape(x)[1] > 1:
            n = self.shape(x)[1]
            first = self.draw(1, n - 1)
            name = f"split{len(self.b.nodes)}"
            how = {"axis": 1, "split": (first, n - first)}
            self.values += self.b.add("Split", [x], how, name, [f"{name}/a", f"{name}/b"])

    def reshape(self) -> None:
        x = self.any()
        s = self.shape(x)
        if len(s) == 4:
            ways = [(s[0], s[1], -1), (s[0], -1), (s[0], s[1], s[3], s[2]), (1, -1, s[2], s[3])]
        else:
            ways = [(1, -1, 1, 1), (s[0], -1), (s[0], s[1], -1, 1)]
        self.add("Reshape", [x], shape=ways[self.draw(0, len(ways) - 1)])

    def transpose(self) -> None:
        x = self.any(4)
        if x:
            perm = ((0, 2, 3, 1), (0, 3, 1, 2), (0, 1, 3, 2), (0, 2, 1, 3))[self.draw(0, 3)]
            self.add("Transpose", [x], perm=perm)

    def network(self, steps: int) -> Graph:
        inputs = ["in", "in2"][: 1 + self.draw(0, 1)]
        shape = (self.draw(1, 2), self.draw(1, 8), self.draw(1, 4), self.draw(1, 4))
        for name in inputs:
            self.b.input(Tensor(name, shape, DType.F32))
        self.values = list(inputs)
        ways = (self.conv, self.depthwise, self.square_conv, self.pool, self.unary, self.sum,
                self.scale, self.softmax, self.concat, self.concat, self.split, self.reshape,
                self.transpose)  # fmt: skip
        for _ in range(steps):
            ways[self.draw(0, len(ways) - 1)]()
        outputs = list(dict.fromkeys([self.values[-1], *(self.any() for _ in range(3))]))
        return self.b.graph(inputs, outputs[: 1 + self.draw(0, 3)])


@st.composite
def networks(draw, largest: int = 14) -> Graph:
    maker = Maker(draw)
    return maker.network(maker.draw(1, largest))


@st.composite
def plans(draw, graph: Graph) -> Plan:
    """Any kernel in any layout for every node, or all in one layout, and any order or none."""
    preferred = draw(st.sampled_from((None, "nchw", "nhwc", "nhwc")))
    nodes = {}
    for node in graph.nodes:
        if needs_kernel(node):
            pairs = [
                Choice(row.name, layout)
                for layout in LAYOUTS
                for row in candidates(layer_of(graph, node, layout), BOARD)
                if row.layout in ("any", layout)
            ]
            likely = [c for c in pairs if c.layout == preferred] or pairs
            nodes[node.name] = draw(st.sampled_from(likely))
    order = draw(st.permutations(list(nodes))) if draw(st.booleans()) else ()
    return Plan(BOARD.name, "0" * 64, nodes, tuple(order))
