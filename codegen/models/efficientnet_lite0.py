"""EfficientNet-Lite0 (Tan & Le, 2019; no squeeze-excitation, ReLU6): PyTorch state dictionary ->
ONNX."""

from dataclasses import dataclass

import numpy as np
import onnx

from codegen.models import torch_pth
from codegen.models.catalog import Model
from codegen.models.onnx_file import simplify
from codegen.models.onnx_writer import OnnxWriter, window

CLASSES = 1000
EPSILON = 1e-3
STEM_CHANNELS = 32
# Repeats, kernel, stride of the first repeat, expansion, output channels.
STAGES = (
    (1, 3, 1, 1, 16),
    (2, 3, 2, 6, 24),
    (2, 5, 2, 6, 40),
    (3, 3, 2, 6, 80),
    (3, 5, 1, 6, 112),
    (4, 5, 2, 6, 192),
    (1, 3, 1, 6, 320),
)


@dataclass(frozen=True)
class _Map:
    """A feature map: tensor name and (height, width)."""

    name: str
    size: tuple[int, int]


class _Builder:
    def __init__(self, weights: dict[str, np.ndarray]):
        self.net, self.weights = OnnxWriter(), weights

    def conv(self, x: _Map, conv: str, norm: str, stride: int = 1, relu: bool = True) -> _Map:
        """Convolution (depthwise if the weights are), batch-norm and ReLU6; SAME padding as in
        TensorFlow."""
        kernel = self.weights[f"{conv}.weight"]
        k, depthwise = kernel.shape[2], kernel.shape[1] == 1
        pads, size = window(x.size, (k, k), (stride, stride), "same")
        y = self.net.op(
            "Conv",
            [x.name, self.net.weight(kernel, f"{conv}.w")],
            conv,
            kernel_shape=[k, k],
            strides=[stride, stride],
            pads=pads,
            group=kernel.shape[0] if depthwise else 1,
        )
        parts = ("weight", "bias", "running_mean", "running_var")
        parameters = [self.net.weight(self.weights[f"{norm}.{p}"], f"{norm}.{p}") for p in parts]
        y = self.net.op("BatchNormalization", [y, *parameters], norm, epsilon=EPSILON)
        return _Map(self.net.relu6(y, f"{conv}/relu6") if relu else y, size)

    def block(self, x: _Map, name: str, stride: int, expansion: int, residual: bool) -> _Map:
        """Inverted residual: expand, depthwise, project."""
        y = x
        if expansion != 1:
            y = self.conv(y, f"{name}._expand_conv", f"{name}._bn0")
        y = self.conv(y, f"{name}._depthwise_conv", f"{name}._bn1", stride)
        y = self.conv(y, f"{name}._project_conv", f"{name}._bn2", relu=False)
        return _Map(self.net.op("Add", [y.name, x.name], f"{name}.add"), y.size) if residual else y


def convert(data: bytes, row: Model) -> onnx.ModelProto:
    """NCHW classifier with softmax, batch-norm folded."""
    build = _Builder(torch_pth.load(data, row.path[-1]))
    x = build.conv(_Map("input", row.input_shape[2:]), "_conv_stem", "_bn0", 2)
    channels, index = STEM_CHANNELS, 0
    for repeats, _kernel, stride, expansion, out in STAGES:
        for repeat in range(repeats):
            step = stride if repeat == 0 else 1
            x = build.block(
                x, f"_blocks.{index}", step, expansion, residual=step == 1 and channels == out
            )
            channels, index = out, index + 1
    x = build.conv(x, "_conv_head", "_bn1")
    _classify(build, x.name)
    return simplify(build.net.model(row.name, {"input": row.input_shape}, {"output": (1, CLASSES)}))


def _classify(build: _Builder, x: str) -> None:
    net, weights = build.net, build.weights
    x = net.op("GlobalAveragePool", [x], "pool")
    x = net.op("Flatten", [x], "flatten")
    parameters = [
        net.weight(weights["_fc.weight"], "_fc.w"),
        net.weight(weights["_fc.bias"], "_fc.b"),
    ]
    x = net.op("Gemm", [x, *parameters], "logits", transB=1)
    net.op("Softmax", [x], "output", axis=1)
