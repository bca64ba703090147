"""A LiteRT flatbuffer in the making, through LiteRT's own schema module. Tensors with four
dimensions are stored channels last, as LiteRT wants them."""

import importlib.util
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from types import ModuleType
from typing import Any

import numpy as np

from codegen.graph import Activation, Graph, Node
from codegen.peers.base import PeerError
from codegen.peers.sysroot import board_package
from codegen.peers.wheels import LITERT

TO_NHWC, TO_NCHW = (0, 2, 3, 1), (0, 3, 1, 2)
# Activations that LiteRT has fused into its operators, and those that are operators of their own.
_FUSED = {("Relu", ()): "RELU", ("Clip", (0.0, 6.0)): "RELU6",
          ("Clip", (-1.0, 1.0)): "RELU_N1_TO_1"}  # fmt: skip
UNARY = {"HardSwish": "HARD_SWISH", "Sigmoid": "LOGISTIC", "Tanh": "TANH", "Abs": "ABS",
          "Sqrt": "SQRT", "Exp": "EXP", "Neg": "NEG", "Identity": "RESHAPE"}  # fmt: skip


@lru_cache(maxsize=1)
def schema() -> ModuleType:
    """LiteRT's generated classes, out of its wheel."""
    path = board_package(LITERT) / "ai_edge_litert" / "schema_py_generated.py"
    spec = importlib.util.spec_from_file_location("litert_schema", path)
    module = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except ImportError as e:
        raise PeerError(f"LiteRT's schema module needs a package: {e}") from None
    return module


def stored(shape: Sequence[int]) -> tuple[int, ...]:
    """A shape in ONNX order as LiteRT stores it."""
    return tuple(shape[i] for i in TO_NHWC) if len(shape) == 4 else tuple(shape)


class Writer:
    """Collects tensors, buffers and operators; tensor 0... are numbered in order of first use."""

    def __init__(self, graph: Graph):
        self.s = schema()
        self.graph = graph
        self.tensors: list[Any] = []
        self.buffers: list[Any] = [self.s.BufferT()]
        self.operators: list[Any] = []
        self.codes: dict[int, int] = {}
        self.index: dict[str, int] = {}

    def model(self, operators: Mapping[str, Callable[["Writer", Node], None]]) -> bytes:
        """The flatbuffer; `operators` write the nodes, by name."""
        import flatbuffers

        s, g = self.s, self.graph
        inputs = [self.value(n) for n in g.inputs]
        for node in g.nodes:
            write = operators.get(node.op)
            if write is None:
                raise PeerError(f"operator {node.op} is not written for LiteRT")
            write(self, node)
        outputs = [self.index[n] for n in g.outputs]
        sub = s.SubGraphT(self.tensors, inputs, outputs, self.operators, "main")
        codes = [s.OperatorCodeT(min(c, 127), None, 1, c) for c in self.codes]
        model = s.ModelT(3, codes, [sub], "codegen", self.buffers)
        builder = flatbuffers.Builder(1 << 20)
        builder.Finish(model.Pack(builder), b"TFL3")
        return bytes(builder.Output())

    def tensor(self, name: str, shape: Sequence[int], data: np.ndarray | None = None) -> int:
        """A tensor of the shape as stored; with `data`, a constant."""
        kind = self.s.TensorType
        buffer, code = 0, kind.FLOAT32
        if data is not None:
            code = kind.INT32 if data.dtype == np.int32 else kind.FLOAT32
            raw = np.frombuffer(np.ascontiguousarray(data).tobytes(), np.uint8)
            self.buffers.append(self.s.BufferT(raw))
            buffer = len(self.buffers) - 1
        self.tensors.append(self.s.TensorT(list(map(int, shape)), code, buffer, name))
        return len(self.tensors) - 1

    def value(self, name: str) -> int:
        """The tensor of a graph's value or constant."""
        if name not in self.index:
            data = self.graph.constants.get(name)
            if data is not None:
                data = data.astype(np.float32)
                data = data.transpose(TO_NHWC) if data.ndim == 4 else data
            shape = stored(self.graph.tensors[name].shape)
            self.index[name] = self.tensor(name, shape, data)
        return self.index[name]

    def constant(self, name: str, data: np.ndarray) -> int:
        return self.tensor(name, data.shape, data)

    def emit(self, code: str, inputs: Sequence[int], output: int, options: Any = None) -> int:
        number = getattr(self.s.BuiltinOperator, code)
        at = self.codes.setdefault(number, len(self.codes))
        op = self.s.OperatorT(at, list(inputs), [output])
        if options is not None:
            kind = type(options).__name__.removesuffix("T")
            op.builtinOptionsType = getattr(self.s.BuiltinOptions, kind)
            op.builtinOptions = options
        self.operators.append(op)
        return output

    def like(self, name: str, suffix: str) -> int:
        """A new tensor of the stored shape of a graph's value."""
        return self.tensor(f"{name}/{suffix}", stored(self.graph.tensors[name].shape))

    def finish(self, node: Node, make: Callable[[int, int], Any]) -> None:
        """`make(output, fused activation)` emits the operator; the residual and what LiteRT cannot
        fuse follow as operators of their own."""
        out, act = node.outputs[0], node.activation
        fused = self.fused(act)
        last = self.value(out)
        target = last if fused is not None else self.like(out, "sum")
        code = fused if fused is not None else 0
        if node.residual:
            part = self.like(out, "product")
            make(part, 0)
            self.emit("ADD", (part, self.value(node.residual)), target, self.s.AddOptionsT(code))
        else:
            make(target, code)
        if fused is None:
            self.unary(act, target, last)

    def fused(self, act: Activation | None) -> int | None:
        """LiteRT's number of a fused activation, None where it has none."""
        kinds = self.s.ActivationFunctionType
        if act is None:
            return kinds.NONE
        name = _FUSED.get((act.op, tuple(act.args)))
        return None if name is None else getattr(kinds, name)

    def unary(self, act: Activation, source: int, target: int) -> None:
        name = _FUSED.get((act.op, tuple(act.args))) or UNARY.get(act.op)
        if act.op == "LeakyRelu":
            self.emit("LEAKY_RELU", (source,), target, self.s.LeakyReluOptionsT(act.args[0]))
        elif act.op == "HardSigmoid":
            self.hard_sigmoid(act, source, target)
        elif name is None or act.slope:
            raise PeerError(f"activation {act.op}{act.args} is not written for LiteRT")
        else:
            self.emit(name, (source,), target)

    def hard_sigmoid(self, act: Activation, source: int, target: int) -> None:
        """clip(a x + b, 0, 1) as relu6(6 a x + 6 b) / 6, for any a and b."""
        alpha, beta = act.args
        shape = self.tensors[source].shape
        names = [f"hard_sigmoid{len(self.tensors)}/{i}" for i in range(2)]
        parts = [self.tensor(n, shape) for n in names]
        six = [self.constant(f"{names[0]}/c{i}", np.float32([v]))
               for i, v in enumerate((6 * alpha, 6 * beta, 1 / 6))]  # fmt: skip
        relu6 = self.s.ActivationFunctionType.RELU6
        self.emit("MUL", (source, six[0]), parts[0], self.s.MulOptionsT(0))
        self.emit("ADD", (parts[0], six[1]), parts[1], self.s.AddOptionsT(relu6))
        self.emit("MUL", (parts[1], six[2]), target, self.s.MulOptionsT(0))

    def in_onnx_order(self, name: str) -> int:
        """The value with its elements in ONNX order (a copy where that is another one)."""
        source, shape = self.value(name), self.graph.tensors[name].shape
        if len(shape) != 4 or shape[1] == 1 or shape[2] * shape[3] == 1:
            return source
        flat = self.tensor(f"{name}/nchw", shape)
        perm = self.constant(f"{name}/perm", np.int32(TO_NCHW))
        return self.emit("TRANSPOSE", (source, perm), flat, self.s.TransposeOptionsT())

    def reshape(self, source: int, target: int) -> None:
        shape = np.int32(self.tensors[target].shape)
        sizes = self.constant(f"shape{len(self.tensors)}", shape)
        self.emit("RESHAPE", (source, sizes), target, self.s.ReshapeOptionsT(shape.tolist()))
