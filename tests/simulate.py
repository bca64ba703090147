"""A schedule executed byte by byte in numpy: what the C library does to memory, without C.

Every step reads and writes one real arena (and the caller's buffers) at the addresses and in the
layout that the generated call gets, data movement by its loop sizes alone. Unwritten memory is
NaN, scratch is overwritten, and reads, results and scratch of a step must not touch one another
except where the row says so.
"""

from collections.abc import Iterator, Mapping

import numpy as np
from numpy.lib.stride_tricks import as_strided

from codegen.graph import Graph, Node
from codegen.interpret import activate
from codegen.layout import memory_shape, permutation, same_memory
from codegen.memory import Schedule
from codegen.ops import OPS
from codegen.plan import Plan
from codegen.steps import Step

Span = tuple[str, int, int]  # memory, first byte, one past the last
MOVES = ("Concat", "Transpose", "Convert", "Copy")


class Machine:
    """The memory of one run: the arena, and a buffer per input and output."""

    def __init__(self, graph: Graph, plan: Plan, schedule: Schedule):
        self.graph, self.plan, self.schedule = graph, plan, schedule
        self.nodes = {n.name: n for n in graph.nodes}
        program = schedule.program
        self.memory = {"arena": np.full(schedule.arena_bytes, 0xFF, np.uint8)}
        for key in (*program.inputs, *program.outputs):
            self.memory[f"io {key}"] = np.full(program.values[key].bytes, 0xFF, np.uint8)

    def run(self, inputs: Mapping[str, np.ndarray]) -> list[np.ndarray]:
        """Outputs in the order of the network's."""
        for name in self.schedule.program.inputs:
            self.memory[f"io {name}"][:] = np.ascontiguousarray(inputs[name]).reshape(-1).view("u1")
        before = {n: self.memory[f"io {n}"].copy() for n in self.schedule.program.inputs}
        for step in self.schedule.program.steps:
            self.check(step)
            if step.scratch_bytes:
                at = self.schedule.scratch[step.name]
                self.memory["arena"][at : at + step.scratch_bytes] = 0xFF
            if step.op in MOVES:
                self.move(step)
            else:
                self.compute(step)
        for name, data in before.items():
            assert np.array_equal(self.memory[f"io {name}"], data), f"{name} was written"
        return [self.load(k, "nchw").copy() for k in self.schedule.program.outputs]

    def base(self, key: str) -> tuple[str, int]:
        """Memory and first byte of a value."""
        place = self.schedule.places[key]
        return ("arena" if place.kind == "arena" else f"io {place.name}"), place.offset

    def window(self, key: str, layout: str) -> np.ndarray:
        """A writable array over a value's memory, dimensions in the memory order of `layout`."""
        tensor = self.schedule.program.values[key].tensor
        shape, pitch = memory_shape(tensor.shape, layout), self.schedule.places[key].pitch
        name, at = self.base(key)
        if not pitch:
            flat = self.memory[name][at : at + tensor.bytes]
            return flat.view(tensor.dtype.numpy).reshape(shape)
        assert layout == "nhwc"
        rows, cols, size = tensor.size // shape[-1], shape[-1], tensor.dtype.size
        end = at + ((rows - 1) * pitch + cols) * size
        assert end <= self.memory[name].size, "beyond the memory"
        flat = self.memory[name][at:end].view(tensor.dtype.numpy)
        return as_strided(flat, (rows, cols), (pitch * size, size))

    def load(self, key: str, layout: str) -> np.ndarray:
        """A value as a kernel that expects `layout` reads it, dimensions in ONNX order."""
        tensor = self.schedule.program.values[key].tensor
        array = self.window(key, layout).reshape(memory_shape(tensor.shape, layout))
        return array.transpose(np.argsort(permutation(layout, array.ndim)))

    def store(self, key: str, layout: str, value: np.ndarray) -> None:
        window = self.window(key, layout)
        value = np.asarray(value).astype(window.dtype)
        window[...] = value.transpose(permutation(layout, value.ndim)).reshape(window.shape)

    def compute(self, step: Step) -> None:
        node, layout = self.nodes[step.name], self.plan.nodes[step.name].layout
        data = iter([a for a in step.args if not a.startswith("&")])
        come = step.kernel.come(layout)  # of the first input
        args = [
            self.operand(node, i, name, data, layout if i else come)
            for i, name in enumerate(node.inputs)
        ]
        with np.errstate(all="ignore"):
            result = OPS[node.op].reference(node.attrs, *args)
            results = list(result) if isinstance(result, tuple) else [result]
            if step.residual:
                results[0] = results[0] + self.load(step.residual, layout)
            if node.activation:
                slope = self.graph.constants.get(node.activation.slope)
                results[0] = activate(node.activation, results[0], slope)
        wanted = [t for t in node.outputs if t]
        kept = [r for t, r in zip(node.outputs, results, strict=False) if t]
        assert tuple(wanted) == step.outputs
        for key, value in zip(step.outputs, kept, strict=True):
            self.store(key, layout, value)

    def operand(
        self, node: Node, i: int, name: str, data: Iterator[str], layout: str
    ) -> np.ndarray | None:
        """Input i, wide; only the first input of a spatial operator follows the layout."""
        if not name:
            return None
        if name in self.graph.constants:
            value = self.graph.constants[name]
        else:
            value = self.load(next(data), layout if i == 0 or not OPS[node.op].spatial else "nchw")
        return value.astype(np.float64) if value.dtype.kind == "f" else value.copy()

    def move(self, step: Step) -> None:
        """y = x by the loops that the C function runs, with strides in elements."""
        dtype = self.schedule.program.values[step.outputs[0]].tensor.dtype
        x = self.source(step.args[0])
        name, at = self.base(step.outputs[0])
        y = self.memory[name][at + step.offset * dtype.size :].view("u1")
        d = step.dims
        if step.op == "Concat":
            loops = (d["rows"], d["cols"]), (d["xp"], 1), (d["yp"], 1)
        elif step.op == "Copy":
            loops = (d["size"],), (1,), (1,)
        else:
            loops = d["extents"], d["xs"], d["ys"]
        extents, xs, ys = loops
        _strided(y, extents, ys, dtype.size)[...] = _strided(x, extents, xs, dtype.size).copy()

    def source(self, arg: str) -> np.ndarray:
        """Bytes from the address of an argument on."""
        if arg.startswith("&"):
            weights = {w.symbol: w.array for w in self.schedule.program.weights}
            return np.ascontiguousarray(weights[arg[1:]]).reshape(-1).view("u1")
        name, at = self.base(arg)
        return self.memory[name][at:]

    def check(self, step: Step) -> None:
        """Layouts as the kernel expects them, and nothing aliased that may not be."""
        program = self.schedule.program
        if step.op not in MOVES:
            layout = self.plan.nodes[step.name].layout
            assert step.kernel.layout in ("any", layout)
            wanted = [(key, step.kernel.come(layout)) for key in step.args[:1]]
            wanted += [(key, layout) for key in (*step.outputs, step.residual) if key]
            for key, at in wanted:
                value = None if key.startswith("&") else program.values[key]
                assert value is None or same_memory(value.tensor.shape, value.layout, at)
        pitched = [k for k in step.reads if self.schedule.places[k].pitch]
        assert not pitched, f"{step.name} would have to read {pitched} with a pitch"
        assert step.kernel.pitch or not any(self.schedule.places[k].pitch for k in step.outputs)
        scratch = self.scratch(step)
        outs = [s for k in step.outputs for s in self.bytes_written(step, k)]
        for key in step.reads:
            name, at = self.base(key)
            span = (name, at, at + program.values[key].bytes)
            assert not scratch or not _meet(span, scratch), f"{step.name}: scratch over {key}"
            may = key in ((step.residual,) if step.kernel.inplace == "residual" else step.args)
            may = may and bool(step.kernel.inplace)
            may = may and not (step.kernel.inplace == "residual" and key in step.args)
            for out in outs:
                assert not _meet(span, out) or (may and span == out), f"{step.name}: {key}"
        assert not any(scratch and _meet(out, scratch) for out in outs)

    def scratch(self, step: Step) -> Span | None:
        if not step.scratch_bytes:
            return None
        at = self.schedule.scratch[step.name]
        assert at % 64 == 0
        assert at + step.scratch_bytes <= self.schedule.arena_bytes
        return "arena", at, at + step.scratch_bytes

    def bytes_written(self, step: Step, key: str) -> list[Span]:
        """What a step writes, one span per contiguous row."""
        tensor, place = self.schedule.program.values[key].tensor, self.schedule.places[key]
        name, at = self.base(key)
        rows, cols, pitch = 1, tensor.size, 0
        if step.op == "Concat":
            rows, cols, pitch = step.dims["rows"], step.dims["cols"], step.dims["yp"]
        elif place.pitch:
            rows, cols, pitch = tensor.size // tensor.shape[1], tensor.shape[1], place.pitch
        at += step.offset * tensor.dtype.size
        each, size = pitch * tensor.dtype.size, cols * tensor.dtype.size
        return [(name, at + r * each, at + r * each + size) for r in range(rows)]


def _meet(a: Span, b: Span) -> bool:
    return a[0] == b[0] and a[1] < b[2] and b[1] < a[2]


def _strided(flat: np.ndarray, extents, strides, size: int) -> np.ndarray:
    """Elements of `size` bytes as an array of bytes; the last element must lie within `flat`."""
    last = sum((e - 1) * s for e, s in zip(extents, strides, strict=True))
    assert (last + 1) * size <= flat.size, "beyond the memory"
    return as_strided(flat, (*extents, size), (*(s * size for s in strides), 1))


def simulate(
    graph: Graph, plan: Plan, schedule: Schedule, inputs: Mapping[str, np.ndarray]
) -> list[np.ndarray]:
    """Outputs of the network as the generated library would leave them."""
    return Machine(graph, plan, schedule).run(inputs)
