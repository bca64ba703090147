"""MobileNetV1/V2/V3-large and ResNet18 at 224 x 224, written down layer by layer.

The parameters are ConstantOfShape nodes, as in the networks that the onnx package carries; `seeded`
fills them. Strides, channels and order are those of the papers and of the reference code that came
with them.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import onnx
from onnx import TensorProto, helper

from codegen.models.onnx_writer import OnnxWriter

SIZE, CLASSES = 224, 1000
EPSILON = 1e-5
# (stride, output channels) of each depthwise-separable block; Howard et al., 2017, table 1.
V1_BLOCKS = (
    (1, 64),
    (2, 128),
    (1, 128),
    (2, 256),
    (1, 256),
    (2, 512),
    (1, 512),
    (1, 512),
    (1, 512),
    (1, 512),
    (1, 512),
    (2, 1024),
    (1, 1024),
)
# (expansion, output channels, repeats, stride of the first); Sandler et al., 2018, table 2.
V2_BLOCKS = (
    (1, 16, 1, 1),
    (6, 24, 2, 2),
    (6, 32, 3, 2),
    (6, 64, 4, 2),
    (6, 96, 3, 1),
    (6, 160, 3, 2),
    (6, 320, 1, 1),
)
# (kernel, expanded channels, output channels, squeeze-excitation, activation, stride); Howard et
# al., 2019, table 1.
V3_BLOCKS = (
    (3, 16, 16, False, "Relu", 1),
    (3, 64, 24, False, "Relu", 2),
    (3, 72, 24, False, "Relu", 1),
    (5, 72, 40, True, "Relu", 2),
    (5, 120, 40, True, "Relu", 1),
    (5, 120, 40, True, "Relu", 1),
    (3, 240, 80, False, "HardSwish", 2),
    (3, 200, 80, False, "HardSwish", 1),
    (3, 184, 80, False, "HardSwish", 1),
    (3, 184, 80, False, "HardSwish", 1),
    (3, 480, 112, True, "HardSwish", 1),
    (3, 672, 112, True, "HardSwish", 1),
    (5, 672, 160, True, "HardSwish", 2),
    (5, 960, 160, True, "HardSwish", 1),
    (5, 960, 160, True, "HardSwish", 1),
)
# (output channels, stride of the first block) of each stage of two basic blocks; He et al., 2015,
# table 1.
RESNET18_STAGES = ((64, 1), (128, 2), (256, 2), (512, 2))


@dataclass(frozen=True)
class _Map:
    name: str
    channels: int


class _Network:
    """Layers common to the four networks."""

    def __init__(self):
        self.net = OnnxWriter()

    def parameter(self, name: str, shape: Sequence[int]) -> str:
        size = self.net.constant(np.array(shape, np.int64), f"{name}.shape")
        zero = helper.make_tensor("value", TensorProto.FLOAT, [1], [0.0])
        return self.net.op("ConstantOfShape", [size], name, value=zero)

    def conv(
        self,
        x: _Map,
        name: str,
        channels: int,
        kernel: int = 1,
        stride: int = 1,
        group: int = 1,
        bias: bool = False,
    ) -> _Map:
        """Convolution with `kernel // 2` zeros all around."""
        inputs = [
            x.name,
            self.parameter(f"{name}.w", (channels, x.channels // group, kernel, kernel)),
        ]
        if bias:
            inputs.append(self.parameter(f"{name}.b", (channels,)))
        y = self.net.op(
            "Conv",
            inputs,
            name,
            kernel_shape=[kernel] * 2,
            strides=[stride] * 2,
            pads=[kernel // 2] * 4,
            group=group,
        )
        return _Map(y, channels)

    def unit(
        self,
        x: _Map,
        name: str,
        channels: int,
        kernel: int = 1,
        stride: int = 1,
        group: int = 1,
        activation: str = "",
    ) -> _Map:
        """Convolution, batch-norm and activation ("" for none)."""
        y = self.conv(x, name, channels, kernel, stride, group)
        parameters = [
            self.parameter(f"{name}.{p}", (channels,))
            for p in ("scale", "bias", "mean", "variance")
        ]
        normed = self.net.op(
            "BatchNormalization", [y.name, *parameters], f"{name}/bn", epsilon=EPSILON
        )
        return self.activate(_Map(normed, channels), activation)

    def depthwise(self, x: _Map, name: str, kernel: int, stride: int, activation: str) -> _Map:
        return self.unit(x, name, x.channels, kernel, stride, x.channels, activation)

    def activate(self, x: _Map, activation: str) -> _Map:
        if not activation:
            return x
        hint = f"{x.name}/{activation.lower()}"
        if activation == "Relu6":
            return _Map(self.net.relu6(x.name, hint), x.channels)
        if activation == "HardSwish":  # an operator of its own only from opset 14 on
            return self.mul(x, self.hard_sigmoid(x, f"{hint}/gate"), hint)
        return _Map(self.net.op(activation, [x.name], hint), x.channels)

    def hard_sigmoid(self, x: _Map, hint: str) -> _Map:
        return _Map(self.net.op("HardSigmoid", [x.name], hint, alpha=1 / 6, beta=0.5), x.channels)

    def mul(self, a: _Map, b: _Map, hint: str) -> _Map:
        return _Map(self.net.op("Mul", [a.name, b.name], hint), a.channels)

    def add(self, a: _Map, b: _Map, hint: str) -> _Map:
        return _Map(self.net.op("Add", [a.name, b.name], hint), a.channels)

    def pool(self, x: _Map, hint: str = "pool") -> _Map:
        return _Map(self.net.op("GlobalAveragePool", [x.name], hint), x.channels)

    def finish(self, name: str, x: _Map) -> onnx.ModelProto:
        """Flatten, classifier, softmax."""
        flat = self.net.op("Flatten", [x.name], "flatten")
        parameters = [
            self.parameter("classifier.w", (CLASSES, x.channels)),
            self.parameter("classifier.b", (CLASSES,)),
        ]
        logits = self.net.op("Gemm", [flat, *parameters], "classifier", transB=1)
        self.net.op("Softmax", [logits], "output", axis=1)
        return self.net.model(name, {"input": (1, 3, SIZE, SIZE)}, {"output": (1, CLASSES)})


def mobilenet_v1() -> onnx.ModelProto:
    """569 million multiply-accumulates, 4.2 million parameters."""
    n = _Network()
    x = n.unit(_Map("input", 3), "conv0", 32, 3, 2, activation="Relu6")
    for i, (stride, channels) in enumerate(V1_BLOCKS, 1):
        x = n.depthwise(x, f"block{i}/dw", 3, stride, "Relu6")
        x = n.unit(x, f"block{i}/pw", channels, activation="Relu6")
    return n.finish("mobilenet_v1", n.pool(x))


def mobilenet_v2() -> onnx.ModelProto:
    """301 million multiply-accumulates, 3.5 million parameters."""
    n = _Network()
    x, index = n.unit(_Map("input", 3), "conv0", 32, 3, 2, activation="Relu6"), 0
    for expansion, channels, repeats, first_stride in V2_BLOCKS:
        for repeat in range(repeats):
            index += 1
            x = _inverted_residual(
                n, x, f"block{index}", expansion, channels, first_stride if repeat == 0 else 1
            )
    x = n.unit(x, "head", 1280, activation="Relu6")
    return n.finish("mobilenet_v2", n.pool(x))


def _inverted_residual(
    n: _Network, x: _Map, name: str, expansion: int, channels: int, stride: int
) -> _Map:
    y = (
        n.unit(x, f"{name}/expand", x.channels * expansion, activation="Relu6")
        if expansion > 1
        else x
    )
    y = n.depthwise(y, f"{name}/dw", 3, stride, "Relu6")
    y = n.unit(y, f"{name}/project", channels)
    return n.add(y, x, f"{name}/add") if stride == 1 and x.channels == channels else y


def mobilenet_v3() -> onnx.ModelProto:
    """The large one; 219 million multiply-accumulates, 5.4 million parameters."""
    n = _Network()
    x = n.unit(_Map("input", 3), "conv0", 16, 3, 2, activation="HardSwish")
    for i, block in enumerate(V3_BLOCKS, 1):
        x = _v3_block(n, x, f"block{i}", *block)
    x = n.unit(x, "head", 960, activation="HardSwish")
    x = n.activate(n.conv(n.pool(x), "features", 1280, bias=True), "HardSwish")
    return n.finish("mobilenet_v3", x)


def _v3_block(
    n: _Network,
    x: _Map,
    name: str,
    kernel: int,
    expanded: int,
    channels: int,
    gated: bool,
    activation: str,
    stride: int,
) -> _Map:
    y = (
        n.unit(x, f"{name}/expand", expanded, activation=activation)
        if expanded != x.channels
        else x
    )
    y = n.depthwise(y, f"{name}/dw", kernel, stride, activation)
    if gated:
        y = _squeeze_excite(n, y, f"{name}/se")
    y = n.unit(y, f"{name}/project", channels)
    return n.add(y, x, f"{name}/add") if stride == 1 and x.channels == channels else y


def _squeeze_excite(n: _Network, x: _Map, name: str) -> _Map:
    """Gate each channel by a small network of the channel means, narrowed to a quarter (a multiple
    of 8)."""
    narrow = max(8, (x.channels // 4 + 4) // 8 * 8)
    gate = n.activate(
        n.conv(n.pool(x, f"{name}/pool"), f"{name}/reduce", narrow, bias=True), "Relu"
    )
    gate = n.hard_sigmoid(n.conv(gate, f"{name}/expand", x.channels, bias=True), f"{name}/gate")
    return n.mul(x, gate, f"{name}/scale")


def resnet18() -> onnx.ModelProto:
    """1.8 billion multiply-accumulates, 11.7 million parameters."""
    n = _Network()
    x = n.unit(_Map("input", 3), "conv1", 64, 7, 2, activation="Relu")
    x = _Map(
        n.net.op(
            "MaxPool", [x.name], "pool1", kernel_shape=[3, 3], strides=[2, 2], pads=[1, 1, 1, 1]
        ),
        64,
    )
    for i, (channels, stride) in enumerate(RESNET18_STAGES, 1):
        x = _basic_block(n, x, f"stage{i}/a", channels, stride)
        x = _basic_block(n, x, f"stage{i}/b", channels, 1)
    return n.finish("resnet18", n.pool(x))


def _basic_block(n: _Network, x: _Map, name: str, channels: int, stride: int) -> _Map:
    y = n.unit(x, f"{name}/conv1", channels, 3, stride, activation="Relu")
    y = n.unit(y, f"{name}/conv2", channels, 3)
    shortcut = (
        n.unit(x, f"{name}/shortcut", channels, 1, stride)
        if stride != 1 or x.channels != channels
        else x
    )
    return n.activate(n.add(y, shortcut, f"{name}/add"), "Relu")


TOPOLOGIES: dict[str, Callable[[], onnx.ModelProto]] = {
    "mobilenet_v1": mobilenet_v1,
    "mobilenet_v2": mobilenet_v2,
    "mobilenet_v3": mobilenet_v3,
    "resnet18": resnet18,
}
