"""Networks that come quantised: as onnxruntime's tools make them, and small ones by hand."""

import numpy as np
import onnx
import onnxruntime as ort
from onnx import TensorProto, helper, numpy_helper
from onnxruntime import quantization as q

from codegen.pipeline import load_graph
from codegen.resources import examples_dir

MODELS = examples_dir() / "models"


class Samples(q.CalibrationDataReader):
    """Random inputs for onnxruntime's quantiser."""

    def __init__(self, name: str, shape: tuple[int, ...]):
        rng = np.random.default_rng(0)
        self.left = [{name: rng.standard_normal(shape).astype(np.float32)} for _ in range(4)]

    def get_next(self):
        return self.left.pop() if self.left else None


def quantised(name: str, folder, per_channel: bool, activations: str):
    """The model file as onnxruntime quantises it, and its float graph."""
    source, path = MODELS / f"{name}.onnx", folder / f"{name}.onnx"
    graph = load_graph(source)
    samples = Samples(graph.inputs[0], graph.tensors[graph.inputs[0]].shape)
    q.quantize_static(
        str(source), str(path), samples, quant_format=q.QuantFormat.QDQ, per_channel=per_channel,
        activation_type=q.QuantType[activations], weight_type=q.QuantType.QInt8,
    )  # fmt: skip
    return path, graph


def reference(path, inputs) -> list[np.ndarray]:
    """onnxruntime without optimisations: its fused kernels saturate 16-bit sums on some CPUs."""
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    return ort.InferenceSession(str(path), options, ["CPUExecutionProvider"]).run(None, inputs)


def small(tmp_path, **changes):
    """Quantize -> Dequantize -> Conv -> Clip -> Quantize -> Dequantize, with one thing changed."""
    w = changes.get("w", np.random.default_rng(1).integers(-127, 128, (4, 3, 1, 1)).astype(np.int8))
    constants = {
        "xs": np.array(0.05, np.float32), "xz": np.array(3, np.int8), "w": w,
        "ws": np.array(0.02, np.float32), "wz": np.array(0, np.int8),
        "ys": np.array(0.1, np.float32), "yz": np.array(-100, np.int8),
        "lo": np.array(0.0, np.float32), "hi": np.array(6.0, np.float32),
    }  # fmt: skip
    node = helper.make_node
    nodes = [
        node("QuantizeLinear", ["x", "xs", "xz"], ["xq"]),
        node("DequantizeLinear", ["xq", "xs", "xz"], ["xr"]),
        node("DequantizeLinear", ["w", "ws", "wz"], ["wr"]),
        node("Conv", ["xr", "wr"], ["c"], name="conv"),
        node("Clip", ["c", "lo", "hi"], ["k"]),
        node("QuantizeLinear", ["k", "ys", "yz"], ["yq"]),
        node("DequantizeLinear", ["yq", "ys", "yz"], ["y"]),
    ]
    outputs = ["y", *changes.get("outputs", ())]
    info = helper.make_tensor_value_info
    graph = helper.make_graph(
        nodes, "net", [info("x", TensorProto.FLOAT, (1, 3, 5, 5))],
        [info(t, TensorProto.FLOAT, (1, 4, 5, 5)) for t in outputs],
        [numpy_helper.from_array(v, k) for k, v in constants.items()],
    )  # fmt: skip
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
    path = tmp_path / "net.onnx"
    onnx.save(model, path)
    x = {"x": np.random.default_rng(2).standard_normal((1, 3, 5, 5)).astype(np.float32)}
    return load_graph(path), path, x


BETWEEN = {
    "Add": (2, {}), "Mul": (2, {}), "Sub": (2, {}), "Sigmoid": (1, {}), "HardSwish": (1, {}),
    "Relu": (1, {}), "AveragePool": (1, {"kernel_shape": [3, 3], "pads": [1, 0, 1, 0]}),
    "GlobalAveragePool": (1, {}), "GlobalMaxPool": (1, {}), "Softmax": (1, {"axis": 1}),
    "MaxPool": (1, {"kernel_shape": [3, 2], "strides": [2, 2]}), "Concat": (2, {"axis": 1}),
    "Transpose": (1, {"perm": [0, 1, 3, 2]}),
}  # fmt: skip
ALIKE = ("GlobalMaxPool", "MaxPool", "Concat", "Transpose")  # only with one scale


def between(tmp_path, op: str, relu: bool = False, alike: bool = True):
    """op between codes of int8, as a QDQ file has it, then a Relu of its own."""
    count, attrs = BETWEEN[op]
    fine = not (op in ALIKE and alike)
    # no ratio of small numbers, which would make many ties
    scales = {"s": 0.0503, "s1": 0.0811 if fine else 0.0503, "t": 0.0217 if fine else 0.0503}
    constants = {
        **{k: np.array(v, np.float32) for k, v in scales.items()},
        "z": np.array(3, np.int8), "z1": np.array(-20 if fine else 3, np.int8),
        "u": np.array(-7 if fine else 3, np.int8),
    }  # fmt: skip
    node = helper.make_node
    nodes, reals = [], []
    for i, (s, z) in list(enumerate((("s", "z"), ("s1", "z1"))))[:count]:
        nodes.append(node("QuantizeLinear", [f"x{i}", s, z], [f"q{i}"]))
        nodes.append(node("DequantizeLinear", [f"q{i}", s, z], [f"r{i}"]))
        reals.append(f"r{i}")
    nodes += [
        node(op, reals, ["m"], name="it", **attrs),
        *([node("Relu", ["m"], ["a"])] if relu else []),
        node("QuantizeLinear", ["a" if relu else "m", "t", "u"], ["yq"]),
        node("DequantizeLinear", ["yq", "t", "u"], ["y"]),
    ]
    info = helper.make_tensor_value_info
    graph = helper.make_graph(
        nodes, "net", [info(f"x{i}", TensorProto.FLOAT, (1, 19, 5, 6)) for i in range(count)],
        [info("y", TensorProto.FLOAT, None)],
        [numpy_helper.from_array(v, k) for k, v in constants.items()],
    )  # fmt: skip
    path = tmp_path / "net.onnx"
    opset = helper.make_opsetid("", 14)
    onnx.save(helper.make_model(graph, opset_imports=[opset], ir_version=8), path)
    rng = np.random.default_rng(3)
    x = {f"x{i}": 2 * rng.standard_normal((1, 19, 5, 6)).astype(np.float32) for i in range(count)}
    return load_graph(path), path, x, scales["t"]
