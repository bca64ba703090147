"""Float TensorFlow Lite networks -> ONNX: NHWC at inputs and outputs, NCHW inside."""

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import onnx

from codegen.errors import CodegenError
from codegen.models.catalog import Model
from codegen.models.onnx_file import simplify
from codegen.models.onnx_writer import OnnxWriter, window
from codegen.models.tflite_file import Operator, TfliteGraph, read

PADDING = {0: "same", 1: "valid"}
TO_NCHW, TO_NHWC = [0, 3, 1, 2], [0, 2, 3, 1]
# NHWC axis -> NCHW axis.
NCHW_AXIS = {0: 0, 1: 2, 2: 3, 3: 1}


@dataclass
class _Conversion:
    """`names` has the ONNX name of each computed tensor, `values` each constant (float16 weights
    widened). Rank-4 tensors are NCHW in ONNX, all others as in the file."""

    source: TfliteGraph
    net: OnnxWriter = field(default_factory=OnnxWriter)
    names: dict[int, str] = field(default_factory=dict)
    values: dict[int, np.ndarray] = field(default_factory=dict)

    def shape(self, tensor: int) -> tuple[int, ...]:
        return self.source.tensors[tensor].shape

    def hint(self, op: Operator) -> str:
        return self.source.tensors[op.outputs[0]].name

    def put(self, op: Operator, name: str, activation: int) -> None:
        """The operator's output is `name`, after the activation fused into it."""
        if activation not in ACTIVATIONS:
            raise CodegenError(
                f"operator {op.kind} '{self.hint(op)}'",
                f"fused activation number {activation}",
                f"supported: {sorted(ACTIVATIONS)}",
                "add it to codegen/models/tflite.py",
            )
        self.names[op.outputs[0]] = ACTIVATIONS[activation](self.net, name)


ACTIVATIONS: dict[int, Callable[[OnnxWriter, str], str]] = {
    0: lambda net, x: x,
    1: lambda net, x: net.op("Relu", [x], f"{x}/relu"),
    3: lambda net, x: net.relu6(x, f"{x}/relu6"),
}


def convert(data: bytes, row: Model) -> onnx.ModelProto:
    """Inputs and outputs keep the names and layouts of the file."""
    source = read(data, row.path[-1])
    c = _Conversion(source)
    c.values = {i: _widened(t.value) for i, t in enumerate(source.tensors) if t.value is not None}
    for i in source.inputs:
        c.names[i] = c.net.op(
            "Transpose", [c.net.unique(source.tensors[i].name)], "input_nchw", perm=TO_NCHW
        )
    for op in source.operators:
        CONVERTERS[op.kind](c, op)
    outputs = {_output(c, i): c.shape(i) for i in source.outputs}
    inputs = {source.tensors[i].name: c.shape(i) for i in source.inputs}
    return simplify(c.net.model(row.name, inputs, outputs))


def _widened(value: np.ndarray) -> np.ndarray:
    return value.astype(np.float32) if value.dtype == np.float16 else value


def _output(c: _Conversion, tensor: int) -> str:
    """An output under the name the file gives it (a node may have that name already, then with a
    number)."""
    name = c.names[tensor]
    if len(c.shape(tensor)) == 4:
        return c.net.op("Transpose", [name], f"{name}_nhwc", perm=TO_NHWC)
    return name


def _dequantize(c: _Conversion, op: Operator) -> None:
    """Weights stored as float16; they were widened on reading."""
    c.values[op.outputs[0]] = c.values[op.inputs[0]]


def _conv(c: _Conversion, op: Operator) -> None:
    """Filter (out, height, width, in)."""
    options = op.options
    _convolve(
        c,
        op,
        c.values[op.inputs[1]].transpose(0, 3, 1, 2),
        group=1,
        dilations=(options.scalar(5, "i", 1), options.scalar(4, "i", 1)),
        activation=options.scalar(3, "b"),
    )


def _depthwise(c: _Conversion, op: Operator) -> None:
    """Filter (1, height, width, channels * multiplier)."""
    options, channels = op.options, c.shape(op.inputs[0])[3]
    _convolve(
        c,
        op,
        c.values[op.inputs[1]].transpose(3, 0, 1, 2),
        group=channels,
        dilations=(options.scalar(6, "i", 1), options.scalar(5, "i", 1)),
        activation=options.scalar(4, "b"),
    )


def _convolve(
    c: _Conversion,
    op: Operator,
    kernel: np.ndarray,
    group: int,
    dilations: tuple[int, int],
    activation: int,
) -> None:
    x, bias, hint = op.inputs[0], c.values[op.inputs[2]], c.hint(op)
    strides = (op.options.scalar(2, "i"), op.options.scalar(1, "i"))
    padding = PADDING[op.options.scalar(0, "b")]
    pads, _size = window(c.shape(x)[1:3], kernel.shape[2:], strides, padding, dilations)
    inputs = [c.names[x], c.net.weight(kernel, f"{hint}.w"), c.net.weight(bias, f"{hint}.b")]
    c.put(
        op,
        c.net.op(
            "Conv",
            inputs,
            hint,
            kernel_shape=kernel.shape[2:],
            strides=strides,
            dilations=dilations,
            pads=pads,
            group=group,
        ),
        activation,
    )


def _max_pool(c: _Conversion, op: Operator) -> None:
    x, options = op.inputs[0], op.options
    strides = (options.scalar(2, "i"), options.scalar(1, "i"))
    kernel = (options.scalar(4, "i"), options.scalar(3, "i"))
    pads, _size = window(c.shape(x)[1:3], kernel, strides, PADDING[options.scalar(0, "b")])
    y = c.net.op(
        "MaxPool", [c.names[x]], c.hint(op), kernel_shape=kernel, strides=strides, pads=pads
    )
    c.put(op, y, options.scalar(5, "b"))


def _pad(c: _Conversion, op: Operator) -> None:
    """Zero padding, given as (before, after) per NHWC axis."""
    before, after = c.values[op.inputs[1]][[0, 3, 1, 2]].T
    pads = c.net.constant(np.concatenate([before, after]).astype(np.int64), f"{c.hint(op)}.pads")
    c.names[op.outputs[0]] = c.net.op("Pad", [c.names[op.inputs[0]], pads], c.hint(op))


def _add(c: _Conversion, op: Operator) -> None:
    c.put(
        op, c.net.op("Add", [c.names[i] for i in op.inputs], c.hint(op)), op.options.scalar(0, "b")
    )


def _relu(c: _Conversion, op: Operator) -> None:
    c.names[op.outputs[0]] = c.net.op("Relu", [c.names[op.inputs[0]]], c.hint(op))


def _concat(c: _Conversion, op: Operator) -> None:
    rank, axis = len(c.shape(op.outputs[0])), op.options.scalar(0, "i")
    axis = NCHW_AXIS[axis % rank] if rank == 4 else axis
    y = c.net.op("Concat", [c.names[i] for i in op.inputs], c.hint(op), axis=axis)
    c.put(op, y, op.options.scalar(1, "b"))


def _reshape(c: _Conversion, op: Operator) -> None:
    """Reshapes see the elements in NHWC order."""
    x, hint = c.names[op.inputs[0]], c.hint(op)
    if len(c.shape(op.inputs[0])) == 4:
        x = c.net.op("Transpose", [x], f"{hint}/nhwc", perm=TO_NHWC)
    shape = c.net.constant(np.array(c.shape(op.outputs[0]), np.int64), f"{hint}.shape")
    y = c.net.op("Reshape", [x, shape], hint)
    if len(c.shape(op.outputs[0])) == 4:
        y = c.net.op("Transpose", [y], f"{hint}/nchw", perm=TO_NCHW)
    c.names[op.outputs[0]] = y


CONVERTERS: dict[str, Callable[[_Conversion, Operator], None]] = {
    "ADD": _add,
    "CONCATENATION": _concat,
    "CONV_2D": _conv,
    "DEPTHWISE_CONV_2D": _depthwise,
    "DEQUANTIZE": _dequantize,
    "MAX_POOL_2D": _max_pool,
    "PAD": _pad,
    "RELU": _relu,
    "RESHAPE": _reshape,
}
