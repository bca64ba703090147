"""Layer signatures: equal layers of different networks are equal; a layer can be built again."""

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest

from codegen.graph import Activation, Graph, Node, Tensor
from codegen.pipeline import load_graph
from codegen.plan import needs_kernel
from codegen.pricing import layer_names
from codegen.signature import Signature, conversion_signature, graph_of, signature_of
from codegen.types import DType

MODELS = Path(__file__).resolve().parent.parent / "examples" / "models"


def conv(prefix: str = "", **change) -> Graph:
    """One 3x3 convolution of 8 channels with a residual and a clip."""
    sizes = {"x": (1, 8, 6, 6), "w": (8, 8, 3, 3), "r": (1, 8, 6, 6), "y": (1, 8, 6, 6)}
    names = {n: prefix + n for n in sizes}
    tensors = {names[n]: Tensor(names[n], s, DType.F32) for n, s in sizes.items()}
    attrs = {"kernel_shape": (3, 3), "strides": (1, 1), "pads": (1, 1, 1, 1), "dilations": (1, 1),
             "group": 1}  # fmt: skip
    node = Node(f"{prefix}conv", "Conv", (names["x"], names["w"]), (names["y"],), attrs, names["r"],
                Activation("Clip", (0.0, float("inf"))))  # fmt: skip
    weights = np.random.default_rng(len(prefix)).random(sizes["w"], np.float32)
    inputs = (names["x"], names["r"])
    return Graph("g", inputs, (names["y"],), (dataclasses.replace(node, **change),), tensors,
                 {names["w"]: weights})  # fmt: skip


def of(graph: Graph) -> Signature:
    return signature_of(graph, graph.nodes[0])


def test_names_and_weight_values_do_not_matter():
    assert of(conv()) == of(conv("other/"))


@pytest.mark.parametrize(
    "change",
    [
        {"residual": ""},
        {"residual": "x"},  # read once, not twice
        {"activation": None},
        {"activation": Activation("Clip", (0.0, 6.0))},
        {"attrs": {**conv().nodes[0].attrs, "strides": (2, 2)}},
    ],
    ids=str,
)
def test_what_kernels_see_matters(change):
    assert of(conv()) != of(conv(**change))


def test_weights_that_are_computed_matter():
    graph = conv()
    assert of(graph) != of(dataclasses.replace(graph, constants={}))


@pytest.mark.parametrize("model", sorted(MODELS.glob("*.onnx")), ids=lambda p: p.stem)
def test_a_layer_is_built_again_from_its_signature(model):
    graph = load_graph(model)
    for node in filter(needs_kernel, graph.nodes):
        signature = signature_of(graph, node)
        again = graph_of(signature)
        assert signature_of(again, again.nodes[0]) == signature
        assert dict(again.nodes[0].attrs) == dict(node.attrs)


def test_infinite_arguments_come_back():
    again = graph_of(of(conv()))
    assert again.nodes[0].activation == Activation("Clip", (0.0, float("inf")))
    assert "Infinity" not in of(conv()).text


def test_text_is_canonical():
    signature = of(conv())
    text = json.dumps(signature.fields, sort_keys=True, separators=(",", ":"))
    assert signature.text == text
    assert len(signature.key) == 16
    assert str(signature) == "Conv 1x8x6x6 8x8x3x3 +residual Clip"


def test_conversions_have_a_direction():
    tensor = Tensor("x", (1, 8, 6, 6), DType.F32)
    there = conversion_signature(tensor, "nchw", "nhwc")
    assert there != conversion_signature(tensor, "nhwc", "nchw")
    assert there == conversion_signature(dataclasses.replace(tensor, name="y"), "nchw", "nhwc")


def test_layers_of_a_network():
    """Equal layers are one; groups and changes of layout are layers, too."""
    names = layer_names(load_graph(MODELS / "mlperf_kws_dscnn.onnx"))
    alike = {s.op: called for s, called in names.items() if len(called) == 4}
    assert alike["Conv"] == ["conv2d_1", "conv2d_2", "conv2d_3", "conv2d_4"]
    called = {n for c in names.values() for n in c}
    assert {"depthwise_conv2d + conv2d_1", "dense"} <= called
    assert any(n.endswith(" to nhwc") for n in called)
