"""Operators of onnxruntime's own domain against onnxruntime, one by one and as its quantiser writes
them."""

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from onnxruntime import quantization as q

from codegen.errors import CodegenError
from codegen.interpret import interpret
from codegen.onnx_import import translate
from codegen.ops import microsoft
from codegen.ops.base import Case
from codegen.passes.quantise import PRODUCTS
from codegen.pipeline import load_graph
from codegen.types import DType
from tests.quantised_cases import MODELS, Samples, reference

CASES = [(op, i) for op in microsoft.OPS for i in range(len(op.cases))]


def model(op: str, case: Case, inputs: int | None = None) -> onnx.ModelProto:
    """One node, of its first so many inputs."""
    arrays = dict(enumerate(case.inputs[:inputs]))
    names = ["" if a is None else f"x{i}" for i, a in arrays.items()]
    node = helper.make_node(op, names, ["y"], "node", domain=microsoft.DOMAIN, **case.attrs)
    element = helper.np_dtype_to_tensor_dtype
    given = [helper.make_tensor_value_info(f"x{i}", element(a.dtype), a.shape)
             for i, a in arrays.items() if a is not None and i not in case.constants]  # fmt: skip
    init = [numpy_helper.from_array(a, f"x{i}") for i, a in arrays.items()
            if a is not None and i in case.constants]  # fmt: skip
    real = op == "QGemm" and len(arrays) < 8
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT if real else TensorProto.UINT8, None)
    sets = [helper.make_opsetid("", 17), helper.make_opsetid(microsoft.DOMAIN, 1)]
    graph = helper.make_graph([node], "g", given, [y], init)
    return helper.make_model(graph, opset_imports=sets, ir_version=8)


@pytest.mark.parametrize(("op", "i"), CASES, ids=lambda v: getattr(v, "name", v))
def test_agrees_with_onnxruntime(op, i, tmp_path):
    """To a code, where a tie of float32 is rounded otherwise."""
    case = op.cases[i]
    made = model(op.name, case)
    onnx.save(made, tmp_path / "m.onnx")
    inputs = {f"x{k}": v for k, v in enumerate(case.inputs) if k not in case.constants}
    inputs = {k: v for k, v in inputs.items() if v is not None}
    graph = translate(made, Path("case.onnx"), "case")
    got = interpret(graph, inputs)[graph.outputs[0]]
    want = reference(tmp_path / "m.onnx", inputs)[0]
    assert got.shape == want.shape
    assert got.dtype == want.dtype
    if want.dtype.kind == "f":
        np.testing.assert_allclose(got, want, rtol=1e-5)
    else:
        off = np.abs(got.astype(int) - want.astype(int))
        assert off.max() <= 1
        assert (off > 0).mean() <= 0.02
        assert len(np.unique(want)) > 2


@pytest.mark.parametrize(("op", "inputs", "said"), [
    ("QLinearAdd", 4, "it has 4 inputs, and needs 7"),
    ("QGemm", 3, "it has 3 inputs, and needs 6"),
    ("QLinearConcat", 2, "it has 2 inputs, and needs 5"),
])  # fmt: skip
def test_operands_that_are_missing(op, inputs, said):
    case = next(o for o in microsoft.OPS if o.name == op).cases[0]
    with pytest.raises(CodegenError) as caught:
        translate(model(op, case, inputs), Path("case.onnx"), "case")
    assert said in str(caught.value)


def test_what_is_not_supported():
    pool = next(o for o in microsoft.OPS if o.name == "QLinearAveragePool").cases[0]
    last = Case(pool.inputs, {**pool.attrs, "channels_last": 1}, pool.constants)
    with pytest.raises(CodegenError, match="channels_last = 1"):
        translate(model("QLinearAveragePool", last), Path("case.onnx"), "case")
    gemm = next(o for o in microsoft.OPS if o.name == "QGemm").cases[0]
    late = Case(gemm.inputs, gemm.attrs, tuple(i for i in gemm.constants if i != 1))
    with pytest.raises(CodegenError, match="a bias beside scales that are computed at run time"):
        translate(model("QGemm", late), Path("case.onnx"), "case")


@pytest.mark.parametrize("activations", ["QInt8", "QUInt8"])
@pytest.mark.parametrize("name", ["mlperf_ic_resnet8", "mlperf_vww_mbv1_025"])
def test_networks_of_onnxruntime(name, activations, tmp_path):
    """In the format QOperator: all in integers, and what onnxruntime computes."""
    source, path = MODELS / f"{name}.onnx", tmp_path / f"{name}.onnx"
    floats = load_graph(source)
    samples = Samples(floats.inputs[0], floats.tensors[floats.inputs[0]].shape)
    q.quantize_static(
        str(source), str(path), samples, quant_format=q.QuantFormat.QOperator,
        activation_type=q.QuantType[activations], weight_type=q.QuantType.QInt8,
    )  # fmt: skip
    assert any(n.domain == microsoft.DOMAIN for n in onnx.load(path).graph.node)
    graph = load_graph(path)
    wanted = [n for n in floats.nodes if n.op in PRODUCTS]
    assert sum(n.op in PRODUCTS.values() for n in graph.nodes) == len(wanted)
    left = {n.op for n in graph.nodes if graph.tensors[n.outputs[0]].dtype == DType.F32}
    assert left <= {"Dequantize", "SoftmaxAxis"}
    rng = np.random.default_rng(7)
    shape = graph.tensors[graph.inputs[0]].shape
    inputs = {graph.inputs[0]: rng.standard_normal(shape).astype(np.float32)}
    got, want = interpret(graph, inputs)[graph.outputs[0]], reference(path, inputs)[0]
    assert np.abs(got - want).max() <= 2.01 / 255 * max(1.0, np.abs(want).max())
