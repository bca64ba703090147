"""A list of ONNX nodes under construction, and the shape rules that the converters share."""

from collections.abc import Mapping, Sequence

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

OPSET = 13
IR_VERSION = 8

Shape = Sequence[int]


class OnnxWriter:
    """Append operators with `op`, constants with `constant`; `model` freezes the result. Every name
    is unique: a hint that is taken gets a number."""

    def __init__(self):
        self._nodes: list[onnx.NodeProto] = []
        self._constants: list[onnx.TensorProto] = []
        self._taken: set[str] = set()

    def constant(self, value: np.ndarray, hint: str) -> str:
        """Add an initialiser; returns its name."""
        name = self.unique(hint)
        self._constants.append(numpy_helper.from_array(np.ascontiguousarray(value), name))
        return name

    def weight(self, value: np.ndarray, hint: str) -> str:
        """Add an initialiser as float32; returns its name."""
        return self.constant(np.asarray(value, np.float32), hint)

    def op(self, kind: str, inputs: Sequence[str], hint: str, **attributes) -> str:
        """Add a node with one output; returns the name of both."""
        name = self.unique(hint)
        self._nodes.append(helper.make_node(kind, list(inputs), [name], name=name, **attributes))
        return name

    def relu6(self, x: str, hint: str) -> str:
        """min(max(x, 0), 6)"""
        bounds = [
            self.weight(np.float32(0), f"{hint}.low"),
            self.weight(np.float32(6), f"{hint}.high"),
        ]
        return self.op("Clip", [x, *bounds], hint)

    def unique(self, hint: str) -> str:
        """Reserve `hint`, or `hint_2`... where it is taken."""
        name, i = hint, 1
        while name in self._taken:
            i += 1
            name = f"{hint}_{i}"
        self._taken.add(name)
        return name

    def model(
        self, name: str, inputs: Mapping[str, Shape], outputs: Mapping[str, Shape]
    ) -> onnx.ModelProto:
        """The checked model. All values are float32."""
        graph = helper.make_graph(
            self._nodes, name, _values(inputs), _values(outputs), self._constants
        )
        model = helper.make_model(
            graph, opset_imports=[helper.make_opsetid("", OPSET)], producer_name="codegen"
        )
        model.ir_version = IR_VERSION
        onnx.checker.check_model(model, full_check=True)
        return model


def _values(shapes: Mapping[str, Shape]) -> list[onnx.ValueInfoProto]:
    return [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, list(shape))
        for name, shape in shapes.items()
    ]


def same_padding(size: int, kernel: int, stride: int, dilation: int = 1) -> tuple[int, int, int]:
    """TensorFlow's SAME rule along one axis: (padding before, padding after, output size)."""
    reach = (kernel - 1) * dilation + 1
    out = -(-size // stride)
    total = max((out - 1) * stride + reach - size, 0)
    return total // 2, total - total // 2, out


def window(
    size: tuple[int, int],
    kernel: tuple[int, int],
    stride: tuple[int, int],
    padding: str,
    dilation: tuple[int, int] = (1, 1),
) -> tuple[list[int], tuple[int, int]]:
    """ONNX `pads` and the output (height, width) of a 2-d window with padding "same" or "valid"."""
    if padding == "same":
        top, bottom, height = same_padding(size[0], kernel[0], stride[0], dilation[0])
        left, right, width = same_padding(size[1], kernel[1], stride[1], dilation[1])
        return [top, left, bottom, right], (height, width)
    height, width = (
        (n - (k - 1) * d - 1) // s + 1
        for n, k, s, d in zip(size, kernel, stride, dilation, strict=True)
    )
    return [0, 0, 0, 0], (height, width)
