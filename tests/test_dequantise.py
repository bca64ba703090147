"""Networks that came quantised, in float32 layer by layer."""

import json
import random
from pathlib import Path

import numpy as np
import onnx
import pytest
from click.testing import CliRunner
from onnx import TensorProto, helper, numpy_helper

from codegen.cli import cli
from codegen.errors import CodegenError
from codegen.graph import Activation
from codegen.interpret import interpret
from codegen.onnx_import import import_onnx
from codegen.passes import optimise
from codegen.passes.dequantise import Twin, dequantise
from codegen.passes.integers import BORDERS
from codegen.pipeline import computed_graph, load_graph, twin_of
from codegen.plan import read_plan
from codegen.types import DType
from rl.assignment import plan_of
from rl.codes import codes_as_they_came
from rl.space import build_space, in_floats
from rl.walk import Walk
from tests.pricing_cases import needs_cross
from tests.quantised_cases import (
    BETWEEN,
    MODELS,
    between,
    quantised,
    random_quantised,
    reference,
    small,
)
from tests.search_cases import BOARD, Invented, wander
from tests.test_search_space import check_costs

NETWORKS = ("mlperf_kws_dscnn", "mlperf_ic_resnet8", "mlperf_vww_mbv1_025")


@pytest.fixture(scope="module", params=NETWORKS)
def network(request, tmp_path_factory):
    """A network as onnxruntime quantises it: file, its graph in integers, its twin."""
    folder = tmp_path_factory.mktemp("quantised")
    path, _ = quantised(request.param, folder, True, "QUInt8")
    return path, load_graph(path), twin_of(import_onnx(path))


def inputs_of(graph, seed: int = 3):
    rng = np.random.default_rng(seed)
    return {t: rng.standard_normal(graph.tensors[t].shape).astype(np.float32)
            for t in graph.inputs}  # fmt: skip


def test_all_of_it_as_it_came(network):
    """The same numbers to the last bit, by the same number of kernels."""
    _, graph, twin = network
    whole, x = twin.quantised(), inputs_of(graph)
    got, want = interpret(whole, x), interpret(graph, x)
    for name in graph.outputs:
        np.testing.assert_array_equal(got[name], want[name])
    assert sorted(n.op for n in whole.nodes) == sorted(n.op for n in graph.nodes)


def test_none_of_it(network):
    """Floats in all of it, and what they compute is what a float network computes that
    onnxruntime has the weights of: the file without the rounding of activations."""
    path, graph, twin = network
    assert {twin.graph.tensors[t].dtype for n in twin.graph.nodes for t in n.outputs} == {DType.F32}
    x = inputs_of(graph)
    bare = path.with_name("bare.onnx")
    onnx.save(without_rounding(onnx.load(path)), bare)
    got, want = interpret(twin.graph, x), reference(bare, x)
    for t, y in zip(graph.outputs, want, strict=True):
        np.testing.assert_allclose(got[t], y, atol=2e-5)


def without_rounding(model: onnx.ModelProto) -> onnx.ModelProto:
    """Each Quantize and the Dequantize after it as a Clip to what the codes stand for; weights
    stay as they are."""
    known = {t.name: numpy_helper.to_array(t) for t in model.graph.initializer}
    quantize = {n.output[0]: n for n in model.graph.node if n.op_type == "QuantizeLinear"}
    made, more = [], []
    for node in model.graph.node:
        if node.op_type == "QuantizeLinear":
            continue
        before = quantize.get(node.input[0]) if node.op_type == "DequantizeLinear" else None
        if before is None:
            made.append(node)
            continue
        if before.input[0] in {i.name for i in model.graph.input}:
            made.append(helper.make_node("Identity", before.input[:1], node.output))
            continue
        scale, zero = known[before.input[1]].item(), known[before.input[2]]
        codes = np.iinfo(zero.dtype)
        names = [f"{node.output[0]}_{k}" for k in ("low", "high")]
        ends = [scale * (c - zero.item()) for c in (codes.min, codes.max)]
        more += [numpy_helper.from_array(np.array(v, np.float32), n)
                 for n, v in zip(names, ends, strict=True)]  # fmt: skip
        made.append(helper.make_node("Clip", [before.input[0], *names], node.output))
    graph = helper.make_graph(made, "bare", model.graph.input, model.graph.output,
                              [*model.graph.initializer, *more])  # fmt: skip
    return helper.make_model(graph, opset_imports=model.opset_import, ir_version=8)


@pytest.mark.parametrize("seed", range(3))
def test_some_of_it(network, seed):
    """Layers in float32 between others: near to either, and only what was asked for."""
    _, graph, twin = network
    rng = random.Random(seed)
    names = [n for n in twin.forms if rng.random() < 0.5]
    some, x = twin.quantised(names), inputs_of(graph)
    coded = {n.name for n in some.nodes if n.op.startswith("Q") and n.op != "Quantize"}
    assert coded == {n for n in names if twin.forms[n].op.startswith("Q")}
    got, want = interpret(some, x), interpret(graph, x)
    for name in graph.outputs:
        assert np.abs(got[name] - want[name]).max() < 0.1
        assert np.abs(got[name]).max() > 0.2


def test_prices_of_plans(network):
    """What a walk says a plan costs is what the plan costs when it is lowered."""
    _, _, twin = network
    codes = codes_as_they_came(twin, BOARD)
    table = Invented(BOARD.name, "cycles", "cold", {}, 5)
    check_costs(build_space(twin.graph, BOARD, table, codes), 5)


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


def twin_with_product(path: Path) -> Twin | str:
    """Also of a network without a product."""
    imported = import_onnx(path)
    return dequantise(imported, optimise(imported))


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


def file(tmp_path: Path, nodes: list, x: int = TensorProto.FLOAT, outputs=("y",)) -> Path:
    """A network of nodes between x [1, 4, 6, 6] and outputs, which may use scales s, t, zero
    points z, u (the first code), weights w and pads p."""
    rng = np.random.default_rng(1)
    constants = {
        "s": np.array(0.05, np.float32), "t": np.array(0.1, np.float32),
        "z": np.array(3, np.int8), "u": np.array(-128, np.int8), "n": np.array(0, np.int8),
        "b": np.array(128, np.uint8), "k": rng.integers(-9, 10, (1, 4, 6, 6)).astype(np.int8),
        "slope": np.array(-1.0, np.float32), "ws": np.array(0.01, np.float32),
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


@pytest.mark.parametrize(("nodes", "options", "said"), [
    ([WEIGHTS, real("x", "xr"), ("Conv", "xr wr", "c", {}), quantize("c", "cq", "t"),
      real("cq", "y", "t")], {"x": TensorProto.INT8},
     "node 'node_c' (QConv) has codes without one scale"),
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
    path = file(tmp_path, nodes, **options)
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
    path = file(tmp_path, nodes, kind, outputs)
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
    want, whole, none = (interpret(g, x) for g in (graph, twin.quantised(), twin.quantised(())))
    for t in graph.outputs:
        if twin.forms:
            np.testing.assert_array_equal(whole[t], want[t])
        assert np.abs(none[t] - want[t]).max() < 0.3
        assert np.abs(want[t]).max() > 0.4
    table = Invented(BOARD.name, "cycles", "cold", {}, 5)
    check_costs(build_space(twin.graph, BOARD, table, codes_as_they_came(twin, BOARD)), 5)


def test_nodes_called_as_casts_would_be(tmp_path):
    path = file(tmp_path, [*CONV[:-1], real("cq", "y", "t")])
    model = onnx.load(path)
    next(n for n in model.graph.node if n.op_type == "Conv").name = "x/quantize"
    onnx.save(model, path)
    with pytest.raises(CodegenError, match="node 'x/quantize': it is called as a cast"):
        computed_graph(path, BOARD, dtype="i8")


def test_a_scale_of_zero_is_no_scale(tmp_path):
    """What is divided by it stays as the file has it."""
    path = file(tmp_path, [*CONV[:-1], real("cq", "y", "t")])
    model = onnx.load(path)
    scale = next(t for t in model.graph.initializer if t.name == "t")
    scale.CopyFrom(numpy_helper.from_array(np.array(0.0, np.float32), "t"))
    onnx.save(model, path)
    assert "QConv" not in {n.op for n in load_graph(path).nodes}


@pytest.mark.parametrize("seed", range(40))
def test_random_networks(seed, tmp_path):
    """As onnxruntime quantises them, in either format, whole or in part: in integers what the file
    computes, in float32 what the network did that was quantised, and plans cost what they do."""
    path, floats = random_quantised(seed, tmp_path)
    graph, twin = load_graph(path), twin_with_product(path)
    if isinstance(twin, str):
        assert "codes without one scale" in twin or "same tensor" in twin
        return
    rng = np.random.default_rng(7)
    x = {t: rng.uniform(-2.0, 2.0, graph.tensors[t].shape).astype(np.float32) for t in graph.inputs}
    want = dict(zip(graph.outputs, reference(floats, x), strict=True))
    came, whole, none = (interpret(g, x) for g in (graph, twin.quantised(), twin.quantised(())))
    plain = all(n.op in BORDERS or n.name in twin.forms for n in graph.nodes)
    for t in graph.outputs:
        scale = np.abs(want[t]).max()
        lost = np.abs(came[t] - want[t]).max()
        if plain:  # else what is rounded between two operators in float32 is not
            np.testing.assert_array_equal(whole[t], came[t])
        assert np.abs(whole[t] - want[t]).max() <= lost + 0.05 * scale
        assert np.abs(none[t] - want[t]).max() <= lost + 0.05 * scale
    table = Invented(BOARD.name, "cycles", "cold", {}, seed)
    check_costs(build_space(twin.graph, BOARD, table, codes_as_they_came(twin, BOARD)), seed)


def test_a_float_network_has_no_twin():
    assert twin_of(import_onnx(MODELS / f"{NETWORKS[0]}.onnx")) is None
    with pytest.raises(CodegenError, match="i8 without --calibration"):
        computed_graph(MODELS / f"{NETWORKS[0]}.onnx", BOARD, dtype="i8")


def test_plans_of_either_type(network):
    """A plan is built as it says, in either type."""
    path, graph, twin = network
    codes = codes_as_they_came(twin, BOARD)
    space = build_space(twin.graph, BOARD, Invented(BOARD.name, "cycles", "cold", {}, 7), codes)
    counts = set()
    for part, seed in ((space, 1), (space, 2), (space, 3), (in_floats(space), 1)):
        plan = plan_of(part, wander(Walk(part), random.Random(seed)), "0" * 64, "i8")
        counts.add(len(plan.bits))
        assert plan.dtype == "i8"
        made, _ = computed_graph(path, BOARD, dtype="i8", bits=plan.bits)
        assert {n.name for n in made.nodes} >= set(plan.nodes)
    assert 0 in counts
    assert any(0 < n < len(twin.forms) - 1 for n in counts)  # a view among them


@needs_cross
def test_from_a_quantised_file_to_a_plan(tmp_path):
    """`tune` offers float32, is not slower than the file's integers, and its plan is built,
    verified, explained and judged without a calibration."""
    path, _ = quantised(NETWORKS[0], tmp_path, True, "QInt8")
    out, store = tmp_path / "out", str(tmp_path / "store.sqlite")
    given = [str(path), "--board", "raspberry-pi-3b-plus"]

    def run(*args: str):
        done = CliRunner().invoke(cli, list(args), catch_exceptions=False)
        assert done.exit_code == 0, done.output
        return done.stdout

    told = json.loads(run("tune", *given, "--out", str(out), "--store", store,
                          "--budget", "40meas", "--json"))  # fmt: skip
    by_name = {n: f for f in told["finalists"] for n in f["names"]}
    assert "int8_layers" not in by_name["exact in float32"]
    assert by_name["default"]["int8_layers"] == 12
    assert told["chosen"]["measured_ms"] == min(f["measured_ms"] for f in told["finalists"])
    plan = read_plan(out / "plan.json")
    assert (plan.dtype, len(plan.bits)) == ("i8", told["chosen"]["int8_layers"])
    built = ("build", *given, "--plan", str(out / "plan.json"), "--out", str(tmp_path / "lib"))
    report = json.loads(run(*built, "--json"))
    assert report["verified"]
    assert report["cosine_to_float"] > 0.99
    run("verify", str(path), str(tmp_path / "lib"), "--seeds", "1")
    assert "8-bit weights" in run("explain", str(out / "plan.json"))
    rng = np.random.default_rng(1)
    graph = load_graph(path)
    np.savez(tmp_path / "x.npz", x=rng.standard_normal((4, *graph.tensors["input"].shape[1:])))
    scores = json.loads(run("accuracy", *given, "--plan", str(out / "plan.json"), "--data",
                            str(tmp_path / "x.npz"), "--metric", "cosine", "--json"))  # fmt: skip
    assert scores["plans"]["plan.json"]["cosine"]["value"] > 0.99


def test_why_no_layer_was_tried_in_float32(tmp_path):
    """On the terminal and in tune.json."""
    nodes = [WEIGHTS, real("x", "xr"), ("Conv", "xr wr", "c", {}), quantize("c", "cq", "t"),
             real("cq", "y", "t")]  # fmt: skip
    path = file(tmp_path, nodes, TensorProto.INT8)
    out = tmp_path / "out"
    done = CliRunner().invoke(cli, [
        "tune", str(path), "--board", "local", "--out", str(out), "--store",
        str(tmp_path / "store.sqlite"), "--budget", "10ep"], catch_exceptions=False)  # fmt: skip
    assert done.exit_code == 0, done.output
    said = "node 'node_c' (QConv) has codes without one scale"
    assert f"no layer was tried in float32: {said}" in done.stdout
    assert json.loads((out / "tune.json").read_text())["as_it_came"] == said
