"""Keras models saved as HDF5 (.h5) -> ONNX, NCHW and batch 1, without TensorFlow.

The file holds the layer graph as JSON in the attribute `model_config` and one group of arrays per
layer.
"""

import io
import json
from collections.abc import Iterator
from typing import Any

import numpy as np
import onnx

from codegen.models.catalog import Model
from codegen.models.keras_layers import LAYERS, Layer, Value, unsupported
from codegen.models.onnx_file import simplify
from codegen.models.onnx_writer import OnnxWriter
from codegen.models.optional import require

NESTED = ("Functional", "Model")
Config = dict[str, Any]
Weights = dict[str, dict[str, np.ndarray]]


def convert(data: bytes, row: Model) -> onnx.ModelProto:
    """A functional Keras model with one input and one output, batch-norm folded."""
    h5py = require("h5py", "h5py", "reading Keras weights")
    with h5py.File(io.BytesIO(data), "r") as file:
        config = json.loads(file.attrs["model_config"])
        weights = _weights(file["model_weights"], h5py.Dataset)
    batch, channels, height, width = row.input_shape
    net = OnnxWriter()
    source = Value(net.unique("input"), (height, width, channels))
    result = _run(net, weights, config["config"], source)
    result = Value(net.op("Identity", [result.name], "output"), result.shape)
    model = net.model(row.name, {"input": row.input_shape}, {"output": (batch, *result.onnx_shape)})
    return simplify(model)


def _weights(group, dataset_type: type) -> Weights:
    """Layer name -> parameter name -> array; the folders above the layer are those of nested
    models."""
    weights: Weights = {}

    def visit(path: str, item) -> None:
        if isinstance(item, dataset_type):
            *_, layer, parameter = path.split("/")
            weights.setdefault(layer, {})[parameter.split(":")[0]] = np.array(item)

    group.visititems(visit)
    return weights


def _run(net: OnnxWriter, weights: Weights, config: Config, source: Value) -> Value:
    """Emit the layers of one (nested) model on its input; returns its output."""
    values: dict[str, Value] = {}
    for layer in config["layers"]:
        inputs = [values[name] for name in _sources(layer["inbound_nodes"])]
        values[layer["name"]] = _layer(net, weights, layer, inputs or [source])
    return values[next(_names(config["output_layers"]))]


def _layer(net: OnnxWriter, weights: Weights, layer: Config, inputs: list[Value]) -> Value:
    kind, name = layer["class_name"], layer["name"]
    if kind in NESTED:
        return _run(net, weights, layer["config"], inputs[0])
    if kind not in LAYERS:
        raise unsupported(name, f"Keras layer {kind}", LAYERS)
    return LAYERS[kind](Layer(net, name, layer["config"], weights.get(name, {})), inputs)


def _sources(nodes: list) -> Iterator[str]:
    """Names of the layers that feed a layer, from the spelling of Keras 2 or 3."""
    if nodes and isinstance(nodes[0], dict):
        yield from _histories(nodes[0]["args"])
    elif nodes:
        yield from (entry[0] for entry in nodes[0])


def _histories(item) -> Iterator[str]:
    """Every `keras_history` inside the arguments of a Keras 3 node."""
    if isinstance(item, list):
        for child in item:
            yield from _histories(child)
    elif isinstance(item, dict) and item.get("class_name") == "__keras_tensor__":
        yield item["config"]["keras_history"][0]


def _names(entries: list) -> Iterator[str]:
    """Layer names out of `[name, node, tensor]`, or a list of these."""
    yield from ([entries[0]] if isinstance(entries[0], str) else (entry[0] for entry in entries))
