"""Parts of networks that came quantised, in float32: bounds, what is nothing else, what cannot
be."""

import numpy as np
import onnx
import pytest
from onnx import TensorProto, numpy_helper

from codegen.errors import CodegenError
from codegen.graph import Activation
from codegen.interpret import interpret
from codegen.onnx_import import import_onnx
from codegen.passes.dequantise import Twin
from codegen.passes.integers import BORDERS
from codegen.pipeline import computed_graph, load_graph, twin_of
from rl.codes import codes_as_they_came
from rl.space import build_space
from tests.quantised_cases import (
    BETWEEN,
    CONV,
    WEIGHTS,
    between,
    hand_made,
    quantize,
    real,
    reference,
    small,
    twin_with_product,
)
from tests.search_cases import BOARD, Invented, check_costs


@pytest.mark.parametrize("op", BETWEEN)
def test_operators_between_codes(op, tmp_path):
    """In float32 within half a code of each operand and of the result."""
    graph, path, x, _ = between(tmp_path, op)
    twin = twin_with_product(path)
    assert isinstance(twin, Twin), twin
    assert {n.op for n in twin.graph.nodes} & {"Quantize", "Dequantize"} == set()
    whole = twin.quantised()
    np.testing.assert_array_equal(interpret(whole, x)["y"], interpret(graph, x)["y"])
    few = {k: np.clip(v, -2.0, 2.0) for k, v in x.items()}
    off = np.abs(interpret(twin.quantised(()), few)["y"] - interpret(graph, few)["y"]).max()
    # codes of these end before they do, which may be a Clip
    narrow = ("HardSwish", "Relu", "AveragePool", "GlobalAveragePool")
    assert bool(twin.fixed) == (op in narrow)
    assert off == 0 if twin.fixed else 0 < off < 0.4


def test_bounds_stay(tmp_path):
    """Of a Clip in the file, and where the codes end: quantisers drop a Relu that begins there."""
    graph, path, x = small(tmp_path)
    twin = twin_with_product(path)
    conv = next(n for n in twin.graph.nodes if n.op == "Conv")
    assert conv.activation == Activation("Clip", (0.0, pytest.approx(6.0)))
    assert conv.outputs == twin.graph.outputs
    got = interpret(twin.graph, x)["y"]
    assert got.min() == 0.0
    assert np.abs(got - reference(path, x)[0]).max() < 0.25  # the input, too


def test_bounds_of_who_is_computed_in_floats_anyhow(tmp_path):
    """A product of a code that kernels have not, with and without a Clip of its own."""
    _, path, x = small(tmp_path, w=np.full((4, 3, 1, 1), -128, np.int8))
    twin = twin_with_product(path)
    assert not twin.forms
    conv = next(n for n in twin.graph.nodes if n.op == "Conv")
    assert conv.activation == Activation("Clip", (0.0, 6.0))  # codes go on to 22.7
    assert np.abs(interpret(twin.graph, x)["y"] - reference(path, x)[0]).max() < 0.25


@pytest.mark.parametrize(("nodes", "options", "said"), [
    ([WEIGHTS, quantize("x", "xq"), real("xq", "xr", "t"), ("Conv", "xr wr", "c", {}),
      quantize("c", "cq", "t"), ("Relu", "cq", "m", {}), real("m", "y", "t")], {},
     "node 'node_c' (QConv) has codes without one scale"),
    ([*CONV[:-1], ("Reshape", "cq shape", "m", {}), real("m", "y", "s")], {},
     "node 'node_m' (Reshape) moves codes of two scales"),
    ([*CONV[:-1], real("cq", "y", "t"), real("cq", "v", "t")], {"outputs": ("y", "v")},
     "two inputs or outputs of the network are the same tensor"),
])  # fmt: skip
def test_networks_without_a_twin(nodes, options, said, tmp_path):
    """They are computed as they came; types layer by layer are refused, with the reason."""
    path = hand_made(tmp_path, nodes, **options)
    assert said in twin_of(import_onnx(path))
    with pytest.raises(CodegenError, match="i8 layer by layer, but") as caught:
        computed_graph(path, BOARD, dtype="i8")
    assert said in str(caught.value)
    graph, dtype = computed_graph(path, BOARD)
    assert dtype == "f32"
    assert any(n.op == "QConv" for n in graph.nodes)


POOL = {"kernel_shape": [2, 2]}
END = [quantize("m", "mq"), real("mq", "y")]  # negative codes, too
END2 = [quantize("m", "mq", "t"), real("mq", "y", "t")]
ZERO = [quantize("m", "mq", "s", "u"), real("mq", "y", "s", "u")]  # none
ADDED = [real("k", "kr", "t"), ("Add", "cr kr", "m", {}), *END]


@pytest.mark.parametrize(("nodes", "others"), [
    # never below zero, so that codes that begin there had no Relu before them
    ([*CONV, ("Sigmoid", "cr", "m", {}), *ZERO], "Sigmoid"),
    ([*CONV, ("Softmax", "cr", "m", {"axis": 1}), *ZERO], "SoftmaxAxis"),
    # what may be a Relu stays in integers, where kernels have no bounds
    ([*CONV, ("AveragePool", "cr", "m", POOL), *END2], "AveragePool"),
    ([*CONV, ("AveragePool", "cr", "m", POOL), *ZERO], "=QAveragePool"),
    ([*CONV, ("Tanh", "cr", "a", {}), ("Relu", "a", "m", {}), *END], "=QMap"),
    ([*CONV, ("Tanh", "cr", "m", {}), *END], "Tanh"),
    ([*CONV, ("Sin", "cr", "m", {}), *ZERO], "=QMap"),
    # and what has a constant of codes, or computes with codes themselves
    ([*CONV, *ADDED], "=QAdd"),
    ([*CONV, real("k", "kr", "t"), ("Sub", "kr cr", "m", {}), *END], "=QAdd"),
    ([*CONV, real("k", "kr", "t"), ("Concat", "kr cr", "m", {"axis": 1}),
      *END2], "=Concat"),
    ([*CONV[:-1], ("Relu", "cq", "m", {}), real("m", "y", "t")], "=Relu"),
    ([*CONV[:-1], ("Pad", "cq p n", "m", {}), real("m", "y", "t")], "=PadDims"),
    # between floats a Clip of its own has the bounds
    ([*CONV, ("Sigmoid", "c", "e", {}), ("Add", "cr e", "y", {})], "Add2 Clip Sigmoid"),
    ([*CONV[:4], ("PRelu", "c slope", "m", {}), *ZERO], "Clip"),
    ([*CONV, ("Relu", "cr", "m", {}), *END], "Clip Relu"),  # m is an output
    ([*CONV, quantize("x", "xq2", "t"), real("xq2", "xr2", "t"), ("Conv", "xr2 wr", "d", {}),
      quantize("d", "dq"), real("dq", "dr"), ("Add", "cr dr", "y", {})], "Add2 Clip Conv"),
    # what chooses among values has their bounds, if these are no wider
    ([*CONV, ("MaxPool", "cr", "m", POOL), quantize("m", "mq", "wide"),
      real("mq", "y", "wide")],
     "MaxPool"),
    ([*CONV, ("MaxPool", "cr", "m", POOL), *END], "Clip MaxPool"),
    ([*CONV, ("Concat", "cr xr", "m", {"axis": 1}), *END2], "Concat"),
    ([*CONV, ("Concat", "cr xr", "m", {"axis": 1}), *END], "Clip Concat"),
    # slices move codes
    ([*CONV, ("Split", "cr", "m e", {"axis": 1}), quantize("m", "mq", "t"), real("mq", "y", "t"),
      quantize("e", "eq", "t"), real("eq", "v", "t")], "SliceDims SliceDims"),
    # an image of uint8 becomes codes of int8, with and without what may be a Relu
    ([CONV[0], real("x", "x0", "ws", "b"), quantize("x0", "xq"), *CONV[2:-1],
      real("cq", "y", "t")], "Dequantize"),
    ([CONV[0], real("x", "x0", "ws", "b"), quantize("x0", "xq", "s", "u"),
      real("xq", "xr", "s", "u"), *CONV[3:-1], real("cq", "y", "t")], "Clip Dequantize"),
    # constants that are nobody's weights
    ([*CONV, real("k", "v", "t"), ("Relu", "cr", "y", {})], "Dequantize Relu"),
])  # fmt: skip
def test_what_else_there_is(nodes, others, tmp_path):
    """Beside the convolution: what is between codes, in float32 or (=) nothing else. As it came it
    is the same to the last bit, in float32 near."""
    read = {t for _, i, _, _ in nodes for t in i.split()}
    ends = {o for _, _, names, _ in nodes for o in names.split()}
    outputs = tuple(t for t in ("y", "v") if t in ends and (t not in read or t == "y"))
    if ("Relu", "cr", "m", {}) in nodes:
        outputs = ("y", "m")
    kind = TensorProto.UINT8 if "x0" in ends else TensorProto.FLOAT
    path = hand_made(tmp_path, nodes, kind, outputs)
    graph, twin = load_graph(path), twin_with_product(path)
    assert isinstance(twin, Twin), twin
    fixed = sorted("=" + twin.forms[n].op for n in twin.fixed)
    free = [n.op for n in twin.graph.nodes if n.name not in twin.fixed]
    free.remove("Conv")
    assert sorted([*free, *fixed]) == sorted(others.split())
    rng = np.random.default_rng(2)
    shape = graph.tensors["x"].shape
    x = {"x": rng.integers(0, 256, shape).astype(np.uint8) if kind == TensorProto.UINT8
         else rng.uniform(-6.0, 6.0, shape).astype(np.float32)}  # fmt: skip
    plain = all(n.op in BORDERS or n.name in twin.forms for n in graph.nodes)
    want, whole, none = (interpret(g, x) for g in (graph, twin.quantised(), twin.quantised(())))
    for t in graph.outputs:
        if plain:  # else what is rounded between two operators in float32 is not
            np.testing.assert_array_equal(whole[t], want[t])
        assert np.abs(none[t] - want[t]).max() < 0.3
        assert np.abs(want[t]).max() > 0.4
    table = Invented(BOARD.name, "cycles", "cold", {}, 5)
    check_costs(build_space(twin.graph, BOARD, table, codes_as_they_came(twin, BOARD)), 5)


def test_nodes_called_as_casts_would_be(tmp_path):
    path = hand_made(tmp_path, [*CONV[:-1], real("cq", "y", "t")])
    model = onnx.load(path)
    next(n for n in model.graph.node if n.op_type == "Conv").name = "x/quantize"
    onnx.save(model, path)
    with pytest.raises(CodegenError, match="node 'x/quantize': it is called as a cast"):
        computed_graph(path, BOARD, dtype="i8")


def test_a_scale_of_zero_is_no_scale(tmp_path):
    """What is divided by it stays as the file has it."""
    path = hand_made(tmp_path, [*CONV[:-1], real("cq", "y", "t")])
    model = onnx.load(path)
    scale = next(t for t in model.graph.initializer if t.name == "t")
    scale.CopyFrom(numpy_helper.from_array(np.array(0.0, np.float32), "t"))
    onnx.save(model, path)
    assert "QConv" not in {n.op for n in load_graph(path).nodes}
