"""Networks in int8 whose layers write real values where no integer layer could read codes."""

import numpy as np
import pytest

from codegen.builder import Builder
from codegen.compare import difference
from codegen.graph import Tensor
from codegen.interpret import interpret
from codegen.passes.quantise import bits_of, quantise
from codegen.pipeline import load_graph
from codegen.precision import int8_rows
from codegen.reference import random_inputs
from codegen.types import DType
from tests.test_quantise import BOARD, MODELS, moved, spans_of


def test_what_no_integer_layer_reads_is_not_rounded():
    """Logits before the softmax of an output."""
    graph = load_graph(MODELS / "mlperf_ic_resnet8.onnx")
    made = quantise(graph, spans_of(graph, random_inputs(graph, 0)), int8_rows(BOARD))
    reals = [n for n in made.nodes if n.attrs.get("reals")]
    assert [n.op for n in reals] == ["QDense"]
    assert made.tensors[reals[0].outputs[0]].dtype == DType.F32
    assert not [n for n in made.nodes if n.op == "Dequantize"]
    kept = [n for n in made.nodes if n.op in ("QConv", "QAveragePool")]
    assert all(made.tensors[n.outputs[0]].dtype == DType.I8 for n in kept)
    assert bits_of(made)[reals[0].name] == 8


@pytest.mark.parametrize(("kernel", "group", "ops"), [
    (1, 1, ["Quantize", "QConv"]),
    (3, 1, ["Quantize", "QConv", "Dequantize"]),  # Winograd's writes codes and is faster
    (3, 8, ["Quantize", "QConv", "Dequantize"]),  # as all of depthwise convolutions
])  # fmt: skip
def test_an_output_is_real_where_a_fast_row_can_write_it(kernel, group, ops):
    rng, b = np.random.default_rng(0), Builder("net")
    b.input(Tensor("x", (1, 8, 6, 6), DType.F32))
    w = b.constant("w", rng.standard_normal((8, 8 // group, kernel, kernel)).astype(np.float32))
    attrs = {"group": group, "pads": (kernel // 2,) * 4}
    graph = b.graph(["x"], list(b.add("Conv", ["x", w], attrs, "y")))
    inputs = random_inputs(graph, 1)
    made = quantise(graph, spans_of(graph, inputs), int8_rows(BOARD))
    assert [n.op for n in made.nodes] == ops
    y, ref = interpret(made, inputs)["y"], interpret(graph, inputs)["y"]
    assert difference(y, ref).cosine > 0.9995


def test_a_tensor_that_an_integer_layer_may_read_is_codes():
    """Whether or not that layer is in int8: what a layer writes does not depend on others."""
    b = Builder("net")
    b.input(Tensor("x", (1, 8, 5, 5), DType.F32))
    graph = b.graph(["x"], [moved(b, "x")])
    spans = spans_of(graph, random_inputs(graph, 3))
    for bits in ({"c0": 8}, {"c0": 8, "last": 8}, {"last": 8}):
        made = {n.name: n for n in quantise(graph, spans, int8_rows(BOARD), bits).nodes}
        reals = [n for n in ("c0", "last") if made[n].attrs.get("reals")]
        assert reals == ["last"] * ("last" in bits)
