"""SqueezeNet 1.1 (Iandola et al., 2016): NumPy weights in a pickle -> ONNX.

The pickle comes from another package, so only arrays of numbers may be made from it.
"""

import io
import pickle

import numpy as np
import onnx

from codegen.models.catalog import Model
from codegen.models.onnx_writer import OnnxWriter

CLASSES = 1000
LAST_FIRE = 9
# One max-pool follows each of these layers.
POOLED = ("conv1", "fire3", "fire5")


class ArrayUnpickler(pickle.Unpickler):
    """Unpickles containers and NumPy arrays; any other class is refused."""

    def find_class(self, module: str, name: str):
        allowed = {"_reconstruct": _empty_array, "ndarray": np.ndarray, "dtype": np.dtype}
        if module.split(".")[0] == "numpy" and name in allowed:
            return allowed[name]
        raise pickle.UnpicklingError(f"blocked class {module}.{name}")


def _empty_array(_subtype, shape, dtype) -> np.ndarray:
    return np.ndarray(shape, dtype)


def convert(data: bytes, row: Model) -> onnx.ModelProto:
    """Weights by layer name, (kernel HWIO, bias) each -> NCHW classifier with softmax."""
    weights = ArrayUnpickler(io.BytesIO(data), encoding="latin1").load()
    net = OnnxWriter()
    # The trained network pads the first layer as TensorFlow does: below and to the right only.
    x = _conv(net, weights, "input", "conv1", stride=2, pads=(0, 0, 1, 1))
    x = _pool(net, x, "conv1")
    for i in range(2, LAST_FIRE + 1):
        x = _fire(net, weights, x, f"fire{i}")
        x = _pool(net, x, f"fire{i}")
    x = _conv(net, weights, x, "conv10", relu=False)
    x = net.op("GlobalAveragePool", [x], "pool10")
    x = net.op("Flatten", [x], "logits")
    net.op("Softmax", [x], "output", axis=1)
    return net.model(row.name, {"input": row.input_shape}, {"output": (1, CLASSES)})


def _conv(
    net: OnnxWriter,
    weights: dict,
    x: str,
    name: str,
    stride: int = 1,
    pads=(0, 0, 0, 0),
    relu: bool = True,
) -> str:
    kernel, bias = weights[name][0], weights[name][1]
    inputs = [
        x,
        net.weight(kernel.transpose(3, 2, 0, 1), f"{name}.w"),
        net.weight(np.reshape(bias, -1), f"{name}.b"),
    ]
    y = net.op(
        "Conv", inputs, name, kernel_shape=kernel.shape[:2], strides=[stride, stride], pads=pads
    )
    return net.op("Relu", [y], f"{name}/relu") if relu else y


def _fire(net: OnnxWriter, weights: dict, x: str, name: str) -> str:
    squeezed = _conv(net, weights, x, f"{name}/squeeze1x1")
    small = _conv(net, weights, squeezed, f"{name}/expand1x1")
    large = _conv(net, weights, squeezed, f"{name}/expand3x3", pads=(1, 1, 1, 1))
    return net.op("Concat", [small, large], f"{name}/concat", axis=1)


def _pool(net: OnnxWriter, x: str, after: str) -> str:
    if after not in POOLED:
        return x
    return net.op("MaxPool", [x], f"{after}/pool", kernel_shape=[3, 3], strides=[2, 2])
