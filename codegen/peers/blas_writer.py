"""Graph -> the list of steps that runtime_c/peers/im2col_blas.c interprets."""

import struct
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from codegen.graph import Activation, Graph, Node
from codegen.ops import OPS
from codegen.peers.base import PeerError

# In the order of the enumerations in C.
_KINDS = ("Conv", "Depthwise", "Dense", "MaxPool", "AveragePool", "Mean", "Copy", "Add2", "Mul2",
          "Softmax", "Activate", "Transpose")  # fmt: skip
_ACTS = ("", "Relu", "Clip", "Sigmoid", "HardSigmoid", "HardSwish", "LeakyRelu", "Silu", "Tanh")
_INTS = ("kind", "in", "in2", "residual", "out", "w", "b", "act")
_MORE = ("n", "c", "h", "w_", "m", "oh", "ow", "kh", "kw", "sh", "sw", "dh", "dw", "pt", "pl",
         "groups", "size", "outer", "inner", "from", "to")  # fmt: skip


def write_net(graph: Graph) -> bytes:
    """net.bin: head, steps, weights; PeerError for an operator that the interpreter lacks."""
    if len(graph.inputs) != 1 or len(graph.outputs) != 1:
        raise PeerError("the im2col program takes networks with one input and one output")
    return _Writer(graph).net()


class _Writer:
    def __init__(self, graph: Graph):
        self.graph = graph
        self.steps: list[dict[str, Any]] = []
        self.weights: list[np.ndarray] = []
        self.floats = 0
        self.patches = 0
        # a reshaped value lies where its source does
        self.alias: dict[str, str] = {}

    def net(self) -> bytes:
        g = self.graph
        for node in g.nodes:
            write = _OPERATORS.get(node.op)
            if write is None:
                raise PeerError(f"operator {node.op} is not in the im2col program")
            write(self, node)
        offsets, arena = self.places()
        packed = b"".join(self.pack(s, offsets) for s in self.steps)
        ports = [(offsets[self.root(t)], g.tensors[t].size) for t in (g.inputs[0], g.outputs[0])]
        head = struct.pack("<8i", len(self.steps), arena, self.patches, self.floats, *ports[0],
                           *ports[1])  # fmt: skip
        return head + packed + b"".join(w.astype("<f4").tobytes() for w in self.weights)

    def root(self, name: str) -> str:
        while name in self.alias:
            name = self.alias[name]
        return name

    def step(self, kind: str, node: Node, **more: Any) -> None:
        act = node.activation or Activation("")
        if act.op not in _ACTS or act.slope:
            raise PeerError(f"activation {act.op} is not in the im2col program")
        args = (*act.args, 0.0, 0.0)
        step = {"in": node.inputs[0], "residual": node.residual, "out": node.outputs[0]}
        step |= {"kind": _KINDS.index(kind), "act": _ACTS.index(act.op), "a": args[:2]}
        self.steps.append({**step, **more})

    def weight(self, array: np.ndarray) -> int:
        at = self.floats
        self.weights.append(np.ascontiguousarray(array, np.float32))
        self.floats += array.size
        return at

    def constant(self, node: Node, index: int) -> int:
        """Offset of a constant input among the weights; -1 where it is absent."""
        if len(node.inputs) <= index or not node.inputs[index]:
            return -1
        value = self.graph.constants.get(node.inputs[index])
        if value is None:
            raise PeerError(f"{node.op} with computed weights is not in the im2col program")
        return self.weight(value)

    def dims(self, node: Node) -> dict[str, Any]:
        shapes = [self.graph.tensors[t].shape for t in node.inputs if t]
        d = dict(OPS[node.op].dims(node.attrs, shapes, [self.graph.tensors[node.outputs[0]].shape]))
        d["w_"] = d.pop("w")
        return {k: v for k, v in d.items() if k in _MORE}

    def places(self) -> tuple[dict[str, int], int]:
        """Offsets in floats: first fit by lifetime; the input stays for the next run."""
        first, last = {self.root(self.graph.inputs[0]): 0}, {}
        for i, s in enumerate(self.steps):
            for key in ("in", "in2", "residual", "out"):
                if isinstance(s.get(key), str) and s[key]:
                    name = self.root(s[key])
                    first.setdefault(name, i)
                    last[name] = i
        for t in (*self.graph.inputs, *self.graph.outputs):
            last[self.root(t)] = len(self.steps)
        offsets: dict[str, int] = {}
        end = 0
        for name in sorted(first, key=lambda n: (first[n], n)):
            size = -(-self.graph.tensors[name].size // 16) * 16
            taken = sorted((offsets[o], offsets[o] + -(-self.graph.tensors[o].size // 16) * 16)
                           for o in offsets
                           if first[name] <= last[o] and first[o] <= last[name])  # fmt: skip
            at = 0
            for low, high in taken:
                if at + size <= low:
                    break
                at = max(at, high)
            offsets[name] = at
            end = max(end, at + size)
        return offsets, end

    def pack(self, s: Mapping[str, Any], offsets: Mapping[str, int]) -> bytes:
        def number(key: str) -> int:
            value = s.get(key, -1)
            if isinstance(value, str):
                return offsets[self.root(value)] + s.get(f"{key}_at", 0) if value else -1
            return value

        return struct.pack(
            "<8i2f21i8i", *(number(k) for k in _INTS), *s["a"], *(s.get(k, 0) for k in _MORE),
            *s.get("dims", (0,) * 4), *s.get("perm", (0,) * 4),
        )  # fmt: skip


def _conv(w: _Writer, node: Node) -> None:
    d = w.dims(node)
    kernel, bias = w.constant(node, 1), w.constant(node, 2)
    depthwise = d["groups"] == d["c"] and d["groups"] > 1
    if not depthwise:
        depth = d["c"] // d["groups"] * d["kh"] * d["kw"]
        w.patches = max(w.patches, depth * d["oh"] * d["ow"])
    w.step("Depthwise" if depthwise else "Conv", node, **d, w=kernel, b=bias)


def _dense(w: _Writer, node: Node) -> None:
    rows = w.graph.tensors[node.inputs[0]].shape
    if len(w.graph.tensors[node.inputs[1]].shape) != 2:
        raise PeerError("a batched matrix product is not in the im2col program")
    w.step("Dense", node, n=int(np.prod(rows[:-1])), c=rows[-1],
           m=w.graph.tensors[node.inputs[1]].shape[1], w=w.constant(node, 1),
           b=w.constant(node, 2))  # fmt: skip


def _pool(w: _Writer, node: Node) -> None:
    w.step(node.op, node, **w.dims(node), size=int(node.attrs.get("count_include_pad", 0)))


def _reduce(w: _Writer, node: Node) -> None:
    shape = w.graph.tensors[node.inputs[0]].shape
    axes = sorted(a % len(shape) for a in node.attrs["axes"])
    if node.attrs["fn"] != "mean" or axes != list(range(len(shape) - len(axes), len(shape))):
        raise PeerError("only means over the last dimensions are in the im2col program")
    inner = int(np.prod([shape[a] for a in axes]))
    w.step("Mean", node, inner=inner, outer=int(np.prod(shape)) // inner)


def _concat(w: _Writer, node: Node) -> None:
    out = w.graph.tensors[node.outputs[0]].shape
    axis = node.attrs["axis"] % len(out)
    outer, stride, at = int(np.prod(out[:axis])), int(np.prod(out[axis:])), 0
    for name in node.inputs:
        if name in w.graph.constants:
            raise PeerError("concatenation with constants is not in the im2col program")
        size = int(np.prod(w.graph.tensors[name].shape[axis:]))
        w.step("Copy", node, **{"in": name, "out_at": at, "outer": outer, "size": size,
                                "from": size, "to": stride})  # fmt: skip
        at += size


def _view(w: _Writer, node: Node) -> None:
    w.alias[node.outputs[0]] = node.inputs[0]


def _transpose(w: _Writer, node: Node) -> None:
    shape, perm = w.graph.tensors[node.inputs[0]].shape, tuple(node.attrs["perm"])
    moved = [p for p in perm if shape[p] > 1]
    if moved == sorted(moved):
        _view(w, node)
        return
    if len(shape) > 4:
        raise PeerError("transposes of more than 4 dimensions are not in the im2col program")
    extra = 4 - len(shape)
    w.step("Transpose", node, dims=(1,) * extra + shape,
           perm=(*range(extra), *(p + extra for p in perm)))  # fmt: skip


def _shuffle(w: _Writer, node: Node) -> None:
    n, c, *pixels = w.graph.tensors[node.inputs[0]].shape
    groups = node.attrs["groups"]
    dims = (n, groups, c // groups, int(np.prod(pixels)))
    w.step("Transpose", node, dims=dims, perm=(0, 2, 1, 3))


def _softmax(w: _Writer, node: Node) -> None:
    shape = w.graph.tensors[node.inputs[0]].shape
    if node.attrs["axis"] % len(shape) != len(shape) - 1 or node.attrs.get("log"):
        raise PeerError("only softmax over the last dimension is in the im2col program")
    w.step("Softmax", node, inner=shape[-1], outer=int(np.prod(shape[:-1])))


def _binary(w: _Writer, node: Node) -> None:
    """x op z, z of x's shape or, with its extents of 1 spread, one run of x's dimensions."""
    a, b = node.inputs
    if w.graph.tensors[a].size < w.graph.tensors[b].size or a in w.graph.constants:
        a, b = b, a
    big, small = w.graph.tensors[a].shape, w.graph.tensors[b].shape
    small = (1,) * (len(big) - len(small)) + tuple(small)
    own = [i for i, n in enumerate(small) if n > 1] or [0]
    low, high = own[0], own[-1] + 1
    if small[low:high] != tuple(big[low:high]):
        raise PeerError(f"this broadcast of {node.op} is not in the im2col program")
    constant = w.graph.constants.get(b)
    other = {"in2": b} if constant is None else {"w": w.weight(constant)}
    outer, size, inner = (
        int(np.prod(part)) for part in (big[:low], big[low:high], big[high:])
    )
    w.step(node.op, node, **{"in": a}, **other, outer=outer, size=size, inner=inner)


def _unary(w: _Writer, node: Node) -> None:
    act = Activation(node.op, tuple(node.attrs.get(k) for k in OPS[node.op].attrs))
    if act.op not in _ACTS:
        raise PeerError(f"activation {act.op} is not in the im2col program")
    size = w.graph.tensors[node.outputs[0]].size
    w.step("Activate", node, size=size, act=_ACTS.index(act.op), a=(*act.args, 0.0, 0.0)[:2])


_OPERATORS: Mapping[str, Callable[[_Writer, Node], None]] = {
    "Conv": _conv, "Dense": _dense, "MaxPool": _pool, "AveragePool": _pool, "ReduceAxes": _reduce,
    "Concat": _concat, "Reshape": _view, "Identity": _view, "Transpose": _transpose,
    "ShuffleChannels": _shuffle,
    "SoftmaxAxis": _softmax, "Add2": _binary, "Mul2": _binary,
    **dict.fromkeys(_ACTS[1:], _unary),
}  # fmt: skip
