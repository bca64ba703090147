"""Networks that come quantised: as onnxruntime's tools make them, and small ones by hand."""

import random
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
from onnx import TensorProto, helper, numpy_helper
from onnxruntime import quantization as q

from codegen.onnx_import import import_onnx
from codegen.passes import optimise
from codegen.passes.dequantise import Twin, dequantise
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


_PADS = {"pads": [1, 1, 1, 1]}
_WINDOW = {"kernel_shape": [3, 3], **_PADS}
_ONE = ("Relu", "Sigmoid", "Tanh", "LeakyRelu", "HardSwish", "Elu", "GlobalAveragePool")
_TWO = ("Add", "Sub", "Mul", "Max")


class _Random:
    """A random network from x [1, 4, 8, 8] as ONNX nodes. `made` are its images: (name, channels,
    rows)."""

    def __init__(self, seed: int):
        self.choice, self.rng = random.Random(seed), np.random.default_rng(seed)
        self.nodes: list[onnx.NodeProto] = []
        self.constants: dict[str, np.ndarray] = {}
        self.made = [("x", 4, 8)]

    def constant(self, value) -> str:
        name = f"k{len(self.constants)}"
        self.constants[name] = np.asarray(value)
        return name

    def weights(self, *shape: int) -> str:
        return self.constant((self.rng.standard_normal(shape) / 3).astype(np.float32))

    def add(self, op: str, inputs: list[str], channels: int, rows: int, **attrs) -> None:
        y = f"t{len(self.nodes)}"
        self.nodes.append(helper.make_node(op, inputs, [y], name=f"{op}_{y}", **attrs))
        self.made.append((y, channels, rows))

    def step(self) -> None:
        """One more node, of one of the last images."""
        x, c, n = self.choice.choice(self.made[-3:])
        kind = self.choice.choice(("conv", "conv", "conv", "depthwise", "one", "two", "more"))
        if kind == "conv":
            m, k = self.choice.choice((4, 8)), self.choice.choice((1, 3))
            self.add("Conv", [x, self.weights(m, c, k, k)], m, n, pads=[k // 2] * 4)
        elif kind == "depthwise":
            self.add("Conv", [x, self.weights(c, 1, 3, 3)], c, n, group=c, **_PADS)
        elif kind == "one":
            op = self.choice.choice(_ONE)
            self.add(op, [x], c, 1 if op.startswith("Global") else n)
        elif kind == "two":
            alike = [t for t, *shape in self.made if shape == [c, n]]
            other = self.choice.choice([*alike, self.weights(1, c, n, n), self.weights(1, c, 1, 1)])
            self.add(self.choice.choice(_TWO), [x, other], c, n)
        else:
            self.more(x, c, n)

    def more(self, x: str, c: int, n: int) -> None:
        """What moves or clips."""
        y, d, _ = self.choice.choice([t for t in self.made if t[2] == n])
        ends = [self.constant(np.float32(v)) for v in self.choice.choice(((0, 6), (-0.5, 0.7)))]
        part = [self.constant(np.array([v])) for v in (1, 3, 1)]
        self.choice.choice((
            lambda: self.add("Concat", [x, y], c + d, n, axis=1),
            lambda: self.add("Concat", [self.weights(1, 2, n, n), x], c + 2, n, axis=1),
            lambda: self.add("MaxPool", [x], c, n, **_WINDOW),
            lambda: self.add("AveragePool", [x], c, n, **_WINDOW),
            lambda: self.add("Transpose", [x], c, n, perm=[0, 1, 3, 2]),
            lambda: self.add("Clip", [x, *ends], c, n),
            lambda: self.add("Slice", [x, *part], 2, n),
            lambda: self.add("PRelu", [x, self.weights(c, 1, 1)], c, n),
            lambda: self.add("Softmax", [x], c, n, axis=1),
            lambda: self.add("MatMul", [x, self.weights(n, n)], c, n),
        ))()  # fmt: skip

    def model(self) -> onnx.ModelProto:
        """The last image, and perhaps the one before it."""
        info = helper.make_tensor_value_info
        read = {t for n in self.nodes for t in n.input}
        outputs = [t for t, *_ in self.made[-self.choice.choice((1, 1, 2)) :]]
        graph = helper.make_graph(
            self.nodes, "net", [info("x", TensorProto.FLOAT, (1, 4, 8, 8))],
            [info(t, TensorProto.FLOAT, None) for t in outputs],
            [numpy_helper.from_array(v, k) for k, v in self.constants.items() if k in read],
        )  # fmt: skip
        opset = [helper.make_opsetid("", 14)]
        made = helper.make_model(graph, opset_imports=opset, ir_version=8)
        return onnx.shape_inference.infer_shapes(made)


def with_coded_ports(model: onnx.ModelProto) -> onnx.ModelProto:
    """Without the QuantizeLinear of inputs and the DequantizeLinear of outputs of int8, where
    nobody else reads these."""
    graph, info = model.graph, helper.make_tensor_value_info
    zeros = {t.name: t for t in graph.initializer}
    reads = [t for n in graph.node for t in n.input] + [o.name for o in graph.output]
    for node in list(graph.node):
        if len(node.input) < 3 or zeros.get(node.input[2]) is None:
            continue
        coded = zeros[node.input[2]].data_type == TensorProto.INT8
        for op, ports, real, code in (
            ("QuantizeLinear", graph.input, node.input[0], node.output[0]),
            ("DequantizeLinear", graph.output, node.output[0], node.input[0]),
        ):
            port = next((p for p in ports if p.name == real), None)
            other = code in {p.name for p in graph.output} or code in zeros
            if node.op_type == op and coded and port and reads.count(real) == 1 and not other:
                shape = [d.dim_value for d in port.type.tensor_type.shape.dim]
                port.CopyFrom(info(code, TensorProto.INT8, shape))
                graph.node.remove(node)
    return model


def random_quantised(seed: int, folder, ports: bool = False):
    """A random network as onnxruntime quantises it, wholly or some of its operators, and as it was:
    files. With `ports`, its inputs and outputs are codes, if they can be."""
    made, choice = _Random(seed), random.Random(seed)
    for _ in range(choice.randint(3, 9)):
        made.step()
    floats, path = folder / "floats.onnx", folder / "net.onnx"
    onnx.save(made.model(), floats)
    some = choice.choice((None, None, ["Conv"], ["Conv", "Add", "Clip"],
                          ["Conv", "MatMul", "Concat", "MaxPool"]))  # fmt: skip
    q.quantize_static(
        str(floats), str(path), Samples("x", (1, 4, 8, 8)), per_channel=choice.random() < 0.5,
        quant_format=choice.choice((q.QuantFormat.QDQ, q.QuantFormat.QOperator)),
        activation_type=choice.choice((q.QuantType.QInt8, q.QuantType.QInt8 if ports else
                                       q.QuantType.QUInt8)),
        weight_type=q.QuantType.QInt8, op_types_to_quantize=some,
        extra_options={"ActivationSymmetric": choice.random() < 0.2},
    )  # fmt: skip
    if ports:
        onnx.save(with_coded_ports(onnx.load(path)), path)
    return path, floats


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


def twin_with_product(path: Path) -> Twin | str:
    """Also of a network without a product."""
    imported = import_onnx(path)
    return dequantise(imported, optimise(imported))


def hand_made(tmp_path: Path, nodes: list, x: int = TensorProto.FLOAT, outputs=("y",)) -> Path:
    """A network of nodes between x [1, 4, 6, 6] and outputs, which may use scales s, t, zero
    points z, u (the first code), weights w and pads p."""
    rng = np.random.default_rng(1)
    constants = {
        "s": np.array(0.05, np.float32), "t": np.array(0.1, np.float32),
        "z": np.array(3, np.int8), "u": np.array(-128, np.int8), "n": np.array(0, np.int8),
        "b": np.array(128, np.uint8), "k": rng.integers(-9, 10, (1, 4, 6, 6)).astype(np.int8),
        "slope": np.array(-1.0, np.float32), "wide": np.array(0.15, np.float32),
        "ws": np.array(0.01, np.float32),
        "w": rng.integers(-127, 128, (4, 4, 1, 1)).astype(np.int8),
        "p": np.array([0, 0, 1, 1, 0, 0, 1, 1], np.int64), "shape": np.array([1, 4, 36], np.int64),
    }  # fmt: skip
    made = [helper.make_node(op, i.split(), o.split(), name=f"node_{o}", **attrs)
            for op, i, o, attrs in nodes]  # fmt: skip
    info = helper.make_tensor_value_info
    graph = helper.make_graph(
        made, "net", [info("x", x, (1, 4, 6, 6))],
        [info(t, TensorProto.FLOAT, None) for t in outputs],
        [numpy_helper.from_array(v, k) for k, v in constants.items()],
    )  # fmt: skip
    path = tmp_path / "net.onnx"
    opset = helper.make_opsetid("", 13)
    onnx.save(helper.make_model(graph, opset_imports=[opset], ir_version=8), path)
    return path


def quantize(x: str, y: str, scale: str = "s", zero: str = "z") -> tuple:
    return ("QuantizeLinear", f"{x} {scale} {zero}", y, {})


def real(x: str, y: str, scale: str = "s", zero: str = "z") -> tuple:
    return ("DequantizeLinear", f"{x} {scale} {zero}", y, {})


WEIGHTS = real("w", "wr", "ws", "n")
CONV = [WEIGHTS, quantize("x", "xq"), real("xq", "xr"), ("Conv", "xr wr", "c", {}),
        quantize("c", "cq", "t"), real("cq", "cr", "t")]  # fmt: skip
