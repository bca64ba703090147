"""Small networks in ONNX, and what passes make of them, held against onnxruntime.

They are translated without onnxsim, which would do some of the work first.
"""

from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
from onnx import TensorProto, helper, numpy_helper

from codegen.graph import Graph
from codegen.interpret import interpret
from codegen.onnx_import import translate

X = (1, 4, 6, 6)
RNG = np.random.default_rng(3)


def weights(*shape: int) -> np.ndarray:
    return RNG.normal(size=shape).astype(np.float32)


def node(op: str, inputs: str, output: str, **attrs):
    """`inputs` and `output` are names separated by blanks; "-" is an absent input."""
    names = ["" if n == "-" else n for n in inputs.split()]
    return helper.make_node(op, names, output.split(), name=output.split()[0], **attrs)


def batch_norm(x: str, y: str, channels: int = 4):
    """The node and its constants."""
    names = [f"{y}_{part}" for part in ("scale", "bias", "mean", "var")]
    values = [weights(channels), weights(channels), weights(channels), weights(channels) ** 2 + 0.5]
    return node("BatchNormalization", " ".join([x, *names]), y), dict(
        zip(names, values, strict=True)
    )


def _output(name: str, element: int, shape):
    """Types are inferred, but not that of an input."""
    known = (element, shape) if name == "x" else (TensorProto.UNDEFINED, None)
    return helper.make_tensor_value_info(name, *known)


def model(nodes, outputs="y", shape=X, dtype=np.float32, **constants) -> onnx.ModelProto:
    """A model with the input x."""
    element = helper.np_dtype_to_tensor_dtype(np.dtype(dtype))
    graph = helper.make_graph(
        nodes,
        "net",
        [helper.make_tensor_value_info("x", element, shape)],
        [_output(o, element, shape) for o in outputs.split()],
        [numpy_helper.from_array(np.asarray(v), k) for k, v in constants.items()],
    )
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    made = onnx.shape_inference.infer_shapes(made, strict_mode=True)
    onnx.checker.check_model(made)
    return made


def run(passes, nodes, outputs="y", shape=X, dtype=np.float32, **constants) -> Graph:
    """The graph after `passes`; its values are compared with those before and with onnxruntime."""
    made = model(nodes, outputs, shape, dtype, **constants)
    before = after = translate(made, Path("net.onnx"), "net")
    for one in passes if isinstance(passes, tuple) else (passes,):
        after = one(after)
    x = (np.random.default_rng(5).normal(size=shape) * 4).astype(dtype)
    session = ort.InferenceSession(made.SerializeToString(), providers=["CPUExecutionProvider"])
    expected = session.run(None, {"x": x})
    for graph in (before, after):
        values = interpret(graph, {"x": x})
        for name, y in zip(graph.outputs, expected, strict=True):
            assert values[name].dtype == y.dtype
            np.testing.assert_allclose(values[name], y, rtol=1e-4, atol=1e-4)
    assert after.outputs == before.outputs
    read = {t for n in after.nodes for t in n.reads}
    assert set(after.constants) <= read, "constants that nobody reads"
    return after


def ops(graph: Graph) -> list[str]:
    return [n.op for n in graph.nodes]


CONV = dict(w=weights(4, 4, 3, 3), b=weights(4))
SMALL = dict(w=weights(4, 4, 1, 1))
THIRDS = dict(three=np.float32(3), zero=np.float32(0), six=np.float32(6), sixth=np.float32(1 / 6))
PADS = np.array([0, 0, 1, 0, 0, 0, 2, 1])


def pad(value: float = 0.0, x: str = "x", **attrs):
    return node("Pad", f"{x} pads v", "p", **attrs), dict(pads=PADS, v=np.float32(value))
