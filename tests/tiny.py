"""A network of two layers that take microseconds."""

from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper


def tiny_network(folder: Path) -> Path:
    """A product of 16 by 8 and a softmax, written to folder/tiny.onnx."""
    weights = numpy_helper.from_array(np.ones((16, 8), np.float32), "w")
    ports = [helper.make_tensor_value_info(n, TensorProto.FLOAT, [1, size])
             for n, size in (("x", 16), ("y", 8))]  # fmt: skip
    nodes = [helper.make_node("MatMul", ["x", "w"], ["m"]),
             helper.make_node("Softmax", ["m"], ["y"])]  # fmt: skip
    graph = helper.make_graph(nodes, "tiny", ports[:1], ports[1:], [weights])
    opset = [helper.make_opsetid("", 17)]
    onnx.save(helper.make_model(graph, opset_imports=opset, ir_version=8), folder / "tiny.onnx")
    return folder / "tiny.onnx"
