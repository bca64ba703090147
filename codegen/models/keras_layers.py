"""Keras layers as ONNX nodes: one function per layer class, listed in LAYERS. Keras is NHWC, the
result NCHW."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from codegen.errors import CodegenError
from codegen.models.onnx_writer import OnnxWriter, window


@dataclass(frozen=True)
class Value:
    """A tensor's name and its shape as Keras sees it: (height, width, channels) or (features,),
    without batch."""

    name: str
    shape: tuple[int, ...]

    @property
    def onnx_shape(self) -> tuple[int, ...]:
        return (self.shape[2], *self.shape[:2]) if len(self.shape) == 3 else self.shape


@dataclass(frozen=True)
class Layer:
    """What a layer function gets: where to write, the layer's name, its Keras config and its
    arrays."""

    net: OnnxWriter
    name: str
    config: Mapping[str, Any]
    weights: Mapping[str, np.ndarray]

    def op(self, kind: str, inputs: list[str], hint: str = "", **attributes) -> str:
        return self.net.op(kind, inputs, f"{self.name}/{hint}" if hint else self.name, **attributes)

    def weight(self, value: np.ndarray, parameter: str) -> str:
        return self.net.weight(value, f"{self.name}.{parameter}")


def unsupported(where: str, what: str, known: Iterable[str]) -> CodegenError:
    """The error for a construct that has no converter."""
    return CodegenError(
        f"Keras layer '{where}'",
        f"{what} is not supported",
        f"supported: {', '.join(sorted(known))}",
        "add it to codegen/models/keras_layers.py or export the network to ONNX",
    )


def _activate(layer: Layer, x: Value, name: str | None) -> Value:
    if name in (None, "linear"):
        return x
    if name not in ACTIVATIONS:
        raise unsupported(layer.name, f"activation '{name}'", ACTIVATIONS)
    return Value(ACTIVATIONS[name](layer, x.name), x.shape)


ACTIVATIONS: dict[str, Callable[[Layer, str], str]] = {
    "relu": lambda layer, x: layer.op("Relu", [x], "relu"),
    "relu6": lambda layer, x: layer.net.relu6(x, f"{layer.name}/relu6"),
    "sigmoid": lambda layer, x: layer.op("Sigmoid", [x], "sigmoid"),
    "softmax": lambda layer, x: layer.op("Softmax", [x], "softmax", axis=1),
    "tanh": lambda layer, x: layer.op("Tanh", [x], "tanh"),
}


def _activation(layer: Layer, inputs: list[Value]) -> Value:
    return _activate(layer, inputs[0], layer.config["activation"])


def _relu(layer: Layer, inputs: list[Value]) -> Value:
    limits = {None: "relu", 6.0: "relu6"}
    limit = layer.config.get("max_value")
    if limit not in limits:
        raise unsupported(layer.name, f"ReLU with max_value {limit}", ("none", "6"))
    return _activate(layer, inputs[0], limits[limit])


def _conv(layer: Layer, inputs: list[Value]) -> Value:
    """Kernel (height, width, in, out) -> (out, in, height, width)."""
    return _convolve(
        layer,
        inputs[0],
        layer.weights["kernel"].transpose(3, 2, 0, 1),
        layer.config.get("groups", 1),
    )


def _depthwise(layer: Layer, inputs: list[Value]) -> Value:
    """Kernel (height, width, channels, multiplier) -> (channels * multiplier, 1, height, width)."""
    kernel = layer.weights["depthwise_kernel" if "depthwise_kernel" in layer.weights else "kernel"]
    height, width, channels, multiplier = kernel.shape
    kernel = kernel.transpose(2, 3, 0, 1).reshape(channels * multiplier, 1, height, width)
    return _convolve(layer, inputs[0], kernel, channels)


def _convolve(layer: Layer, x: Value, kernel: np.ndarray, group: int) -> Value:
    strides, dilations = (
        tuple(layer.config["strides"]),
        tuple(layer.config.get("dilation_rate", (1, 1))),
    )
    pads, size = window(x.shape[:2], kernel.shape[2:], strides, layer.config["padding"], dilations)
    inputs = [x.name, layer.weight(kernel, "kernel")]
    if "bias" in layer.weights:
        inputs.append(layer.weight(layer.weights["bias"], "bias"))
    y = layer.op(
        "Conv",
        inputs,
        kernel_shape=kernel.shape[2:],
        strides=strides,
        dilations=dilations,
        pads=pads,
        group=group,
    )
    return _activate(layer, Value(y, (*size, kernel.shape[0])), layer.config.get("activation"))


def _batch_norm(layer: Layer, inputs: list[Value]) -> Value:
    parameters = [
        layer.weight(layer.weights[p], p)
        for p in ("gamma", "beta", "moving_mean", "moving_variance")
    ]
    x = inputs[0]
    return Value(
        layer.op("BatchNormalization", [x.name, *parameters], epsilon=layer.config["epsilon"]),
        x.shape,
    )


def _average_pool(layer: Layer, inputs: list[Value]) -> Value:
    x, kernel, strides = inputs[0], tuple(layer.config["pool_size"]), tuple(layer.config["strides"])
    pads, size = window(x.shape[:2], kernel, strides, layer.config["padding"])
    y = layer.op("AveragePool", [x.name], kernel_shape=kernel, strides=strides, pads=pads)
    return Value(y, (*size, x.shape[2]))


def _global_average_pool(layer: Layer, inputs: list[Value]) -> Value:
    x = inputs[0]
    y = layer.op("GlobalAveragePool", [x.name], "pool")
    return Value(layer.op("Flatten", [y]), x.shape[2:])


def _zero_padding(layer: Layer, inputs: list[Value]) -> Value:
    x, ((top, bottom), (left, right)) = inputs[0], layer.config["padding"]
    pads = layer.net.constant(
        np.array([0, 0, top, left, 0, 0, bottom, right], np.int64), f"{layer.name}.pads"
    )
    height, width, channels = x.shape
    return Value(
        layer.op("Pad", [x.name, pads]), (height + top + bottom, width + left + right, channels)
    )


def _flatten(layer: Layer, inputs: list[Value]) -> Value:
    x = inputs[0]
    name = (
        layer.op("Transpose", [x.name], "nhwc", perm=[0, 2, 3, 1]) if len(x.shape) == 3 else x.name
    )
    return Value(layer.op("Flatten", [name]), (int(np.prod(x.shape)),))


def _reshape(layer: Layer, inputs: list[Value]) -> Value:
    """Features -> an image; the elements stay in Keras's order, height, width, channels."""
    height, width, channels = layer.config["target_shape"]
    shape = layer.net.constant(
        np.array([1, height, width, channels], np.int64), f"{layer.name}.shape"
    )
    y = layer.op("Reshape", [inputs[0].name, shape], "nhwc")
    return Value(layer.op("Transpose", [y], perm=[0, 3, 1, 2]), (height, width, channels))


def _dense(layer: Layer, inputs: list[Value]) -> Value:
    kernel = layer.weights["kernel"]
    y = layer.op(
        "Gemm",
        [
            inputs[0].name,
            layer.weight(kernel, "kernel"),
            layer.weight(layer.weights["bias"], "bias"),
        ],
    )
    return _activate(layer, Value(y, (kernel.shape[1],)), layer.config.get("activation"))


def _add(layer: Layer, inputs: list[Value]) -> Value:
    first, second = inputs
    return Value(layer.op("Add", [first.name, second.name]), first.shape)


def _same(_layer: Layer, inputs: list[Value]) -> Value:
    return inputs[0]


LAYERS: dict[str, Callable[[Layer, list[Value]], Value]] = {
    "Activation": _activation,
    "Add": _add,
    "AveragePooling2D": _average_pool,
    "BatchNormalization": _batch_norm,
    "Conv2D": _conv,
    "Dense": _dense,
    "DepthwiseConv2D": _depthwise,
    "Dropout": _same,
    "Flatten": _flatten,
    "GlobalAveragePooling2D": _global_average_pool,
    "InputLayer": _same,
    "ReLU": _relu,
    "Reshape": _reshape,
    "ZeroPadding2D": _zero_padding,
}
