"""Networks that come quantised, as onnxruntime's tools make them: integer products, the file's
scales, and what onnxruntime computes."""

import numpy as np
import onnx
import pytest
from click.testing import CliRunner
from onnx import TensorProto, helper, numpy_helper

from codegen.board import load_board
from codegen.interpret import evaluate_node, interpret, wide
from codegen.passes.integers import integer_products
from codegen.pipeline import load_graph
from codegen.reference import Reference
from codegen.types import DType
from codegen.verbs.build import build
from tests.quantised_cases import ALIKE, BETWEEN, MODELS, between, quantised, reference, small

BOARD = load_board("local")


def check_layers(graph, known):
    """Each layer, from what onnxruntime has before it: equal codes, but where a tie of float32 was
    rounded otherwise; then one code apart."""

    def value(name):
        v = known[name] if name in known else graph.constants[name]
        coded = v.dtype == np.uint8 and graph.tensors[name].dtype == DType.I8
        return (v.astype(int) - 128).astype(np.int8) if coded else v

    layers = [n for n in graph.nodes if n.outputs[0] in known
              and all(t in known or t in graph.constants for t in n.reads)]  # fmt: skip
    assert len(layers) >= len(graph.nodes) - 2  # a view inside has another name there
    for node in layers:
        values = {t: wide(value(t)) for t in node.reads}
        evaluate_node(graph, node, values)
        want = value(node.outputs[0])
        off = np.abs(values[node.outputs[0]].reshape(want.shape) - want.astype(np.float64))
        if graph.tensors[node.outputs[0]].dtype == DType.I8:
            assert off.max() <= 1, node.name
            assert (off > 0).mean() < 0.001, node.name
        else:
            assert off.max() < 1e-6, node.name


@pytest.mark.parametrize("activations", ["QInt8", "QUInt8"])
@pytest.mark.parametrize("per_channel", [False, True], ids=["tensor", "channel"])
@pytest.mark.parametrize("name", ["mlperf_kws_dscnn", "mlperf_ic_resnet8", "mlperf_vww_mbv1_025"])
def test_networks_of_onnxruntime(name, per_channel, activations, tmp_path):
    path, float_graph = quantised(name, tmp_path, per_channel, activations)
    graph = load_graph(path)
    products = [n for n in float_graph.nodes if n.op in ("Conv", "Dense")]
    made = [n for n in graph.nodes if n.op in ("QConv", "QDense")]
    assert len(made) == len(products)
    # all but the softmax, whose result leaves the network
    floats = {n.op for n in graph.nodes if graph.tensors[n.outputs[0]].dtype == DType.F32}
    assert floats <= {"Dequantize", "SoftmaxAxis"}
    rng = np.random.default_rng(7)
    shape = graph.tensors[graph.inputs[0]].shape
    inputs = {graph.inputs[0]: rng.standard_normal(shape).astype(np.float32)}
    made = Reference(path, extra=[t for n in graph.nodes for t in n.outputs]).run(inputs)
    check_layers(graph, {**inputs, **made})
    for t in graph.outputs:
        # what is one code apart inside may be two apart at the end
        assert np.abs(interpret(graph, inputs)[t] - made[t]).max() <= 2.01 / 255


def test_build_of_a_quantised_network(tmp_path):
    path, _ = quantised("mlperf_kws_dscnn", tmp_path, True, "QUInt8")
    done = CliRunner().invoke(
        build, [str(path), "--board", "local", "--out", str(tmp_path / "out"), "--seeds", "1"]
    )
    assert "verified against onnxruntime" in done.stderr, done.output


def test_bounds_are_bounds_of_the_codes(tmp_path):
    graph, path, x = small(tmp_path)
    conv = next(n for n in graph.nodes if n.op == "QConv")
    zeros = graph.constants[conv.inputs[4]]
    assert zeros.tolist()[:4] == [3, -100, -100, -40]
    assert graph.tensors[conv.outputs[0]].dtype == DType.I8
    assert np.abs(interpret(graph, x)["y"] - reference(path, x)[0]).max() < 1e-6


@pytest.mark.parametrize(
    "changes",
    [
        {"w": np.full((4, 3, 1, 1), -128, np.int8)},  # two products may not fit in 16 bits
        {"outputs": ["k"]},  # somebody reads the real result
    ],
    ids=["least code", "real result is read"],
)
def test_what_does_not_mean_the_same_stays_float(tmp_path, changes):
    graph, path, x = small(tmp_path, **changes)
    assert "QConv" not in {n.op for n in graph.nodes}
    got = interpret(graph, x)
    for name, want in zip(graph.outputs, reference(path, x), strict=True):
        assert np.abs(got[name] - want).max() < 1e-5


@pytest.mark.parametrize("relu", [False, True], ids=["plain", "relu"])
@pytest.mark.parametrize("op", BETWEEN)
def test_operators_between_codes(op, relu, tmp_path):
    """Within a code of what onnxruntime computes in float32 between its own codes."""
    graph, path, x, step = between(tmp_path, op, relu)
    floats = {n.op for n in graph.nodes if graph.tensors[n.outputs[0]].dtype == DType.F32}
    if not (relu and op in ALIKE or relu and op in ("Sigmoid", "HardSwish", "Softmax")):
        assert floats == {"Dequantize"}
    got, want = interpret(graph, x)["y"], reference(path, x)[0]
    off = np.abs(got - want) / step
    assert off.max() < 1.01
    assert np.mean(off > 0.01) < 0.02
    assert len(np.unique(np.round(want / step))) > 3


@pytest.mark.parametrize("op", ALIKE)
def test_codes_of_two_scales_are_not_mixed(op, tmp_path):
    graph, path, x, step = between(tmp_path, op, alike=False)
    made = graph.producers()
    moving = next(n for n in graph.nodes if n.op not in ("Quantize", "Dequantize"))
    assert {made[t].op for t in moving.inputs} == {"Dequantize"}
    assert np.abs(interpret(graph, x)["y"] - reference(path, x)[0]).max() < 1.01 * step


@pytest.mark.parametrize("stored", ["initializer", "Constant"])
def test_weights_with_a_quantize_of_their_own(stored, tmp_path):
    """As PyTorch's exporters write them: float weights that the file rounds, a float bias."""
    rng = np.random.default_rng(0)
    w = rng.standard_normal((4, 3, 3, 3)).astype(np.float32)
    constants = {
        "w": w, "ws": (np.abs(w).max((1, 2, 3)) / 127).astype(np.float32),
        "wz": np.zeros(4, np.int8), "xs": np.float32(0.0213), "xz": np.uint8(120),
        "ys": np.float32(0.0497), "yz": np.uint8(0), "b": rng.standard_normal(4).astype(np.float32),
    }  # fmt: skip
    node, info = helper.make_node, helper.make_tensor_value_info
    nodes = [
        node("QuantizeLinear", ["x", "xs", "xz"], ["xq"]),
        node("DequantizeLinear", ["xq", "xs", "xz"], ["xr"]),
        node("QuantizeLinear", ["w", "ws", "wz"], ["wq"], axis=0),
        node("DequantizeLinear", ["wq", "ws", "wz"], ["wr"], axis=0),
        node("Conv", ["xr", "wr", "b"], ["c"], pads=[1] * 4),
        node("Relu", ["c"], ["r"]),
        node("QuantizeLinear", ["r", "ys", "yz"], ["yq"]),
        node("DequantizeLinear", ["yq", "ys", "yz"], ["y"]),
    ]
    tensors = [numpy_helper.from_array(np.asarray(v), k) for k, v in constants.items()]
    if stored == "Constant":
        nodes = [*(node("Constant", [], [t.name], value=t) for t in tensors), *nodes]
    graph = helper.make_graph(
        nodes, "net", [info("x", TensorProto.FLOAT, (1, 3, 8, 8))],
        [info("y", TensorProto.FLOAT, (1, 4, 8, 8))], tensors if stored == "initializer" else [],
    )  # fmt: skip
    path, opset = tmp_path / "net.onnx", helper.make_opsetid("", 13)
    onnx.save(helper.make_model(graph, opset_imports=[opset], ir_version=8), path)
    made = load_graph(path)
    assert [n.op for n in made.nodes] == ["Quantize", "QConv", "Dequantize"]
    x = {"x": rng.standard_normal((1, 3, 8, 8)).astype(np.float32)}
    off = np.abs(interpret(made, x)["y"] - reference(path, x)[0]) / 0.0497
    assert off.max() < 1.01
    assert np.mean(off > 0.01) < 0.02


def test_float_networks_are_left_alone():
    graph = load_graph(MODELS / "mlperf_kws_dscnn.onnx")
    assert integer_products(graph) is graph
