"""Networks that came quantised, in float32 layer by layer."""

import json
import random

import numpy as np
import onnx
import pytest
from click.testing import CliRunner
from onnx import helper, numpy_helper

from codegen.cli import cli
from codegen.errors import CodegenError
from codegen.interpret import interpret
from codegen.onnx_import import import_onnx
from codegen.passes.dequantise import Twin
from codegen.passes.integers import BORDERS
from codegen.pipeline import computed_graph, load_graph, twin_of
from codegen.plan import read_plan
from codegen.reference import random_inputs
from codegen.types import DType
from rl.assignment import plan_of
from rl.codes import codes_as_they_came
from rl.space import build_space, in_floats
from rl.walk import Walk
from tests.pricing_cases import needs_cross
from tests.quantised_cases import (
    CONV,
    MODELS,
    hand_made,
    quantised,
    random_quantised,
    real,
    reference,
    twin_with_product,
    with_coded_ports,
)
from tests.search_cases import BOARD, Invented, check_costs, wander

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
    check_plans(twin, seed)


@pytest.mark.parametrize("seed", range(40))
def test_random_networks_between_codes(seed, tmp_path):
    """The same where the caller has codes. Outputs are compared as what they stand for."""
    path, _ = random_quantised(seed, tmp_path, ports=True)
    graph, twin = load_graph(path), twin_with_product(path)
    if isinstance(twin, str):
        assert "codes without one scale" in twin or "same tensor" in twin
        return
    x = random_inputs(graph, 7)
    for name in graph.inputs:
        if graph.tensors[name].dtype == DType.F32:
            x[name] = np.clip(x[name], -2.0, 2.0)
    came, whole, none = (interpret(g, x) for g in (graph, twin.quantised(), twin.quantised(())))
    real_of = {code: real for real, code in twin.ports.items()}
    plain = all(n.op in BORDERS or n.name in twin.forms for n in graph.nodes)
    for t in graph.outputs:
        assert whole[t].dtype == none[t].dtype == came[t].dtype == graph.tensors[t].dtype.numpy
        if plain:
            np.testing.assert_array_equal(whole[t], came[t])
        at = twin.scales[real_of[t]].scale if t in real_of else 1.0
        off = at * np.abs(none[t].astype(float) - came[t])
        assert np.mean(off) <= 0.1 * max(1.0, at * np.abs(came[t].astype(float)).max())
    check_plans(twin, seed)


def check_plans(twin: Twin, seed: int) -> None:
    """Plans cost what a walk says."""
    table = Invented(BOARD.name, "cycles", "cold", {}, seed)
    check_costs(build_space(twin.graph, BOARD, table, codes_as_they_came(twin, BOARD)), seed)


def test_a_float_network_has_no_twin():
    assert twin_of(import_onnx(MODELS / f"{NETWORKS[0]}.onnx")) is None
    with pytest.raises(CodegenError, match="i8 without --calibration"):
        computed_graph(MODELS / f"{NETWORKS[0]}.onnx", BOARD, dtype="i8")


def test_a_network_between_codes(tmp_path):
    """Its ports stay codes, whatever is between them; as it came nothing else is there."""
    path, _ = quantised(NETWORKS[0], tmp_path, True, "QInt8")
    onnx.save(with_coded_ports(onnx.load(path)), path)
    graph, twin = load_graph(path), twin_of(import_onnx(path))
    ports = [*graph.inputs, *graph.outputs]
    assert {graph.tensors[t].dtype for t in ports} == {DType.I8}
    assert sorted(twin.ports.values()) == sorted(ports)
    assert [n.op for n in twin.quantised().nodes] == [n.op for n in graph.nodes]
    none = twin.quantised(())
    assert [none.nodes[i].op for i in (0, -1)] == ["Dequantize", "Quantize"]
    assert not {n.op for n in none.nodes} & {"QConv", "QDense"}
    x = random_inputs(graph, 1)
    for t in graph.outputs:
        got, want = (interpret(g, x)[t].astype(int) for g in (none, graph))
        assert np.abs(got - want).max() < 16
    codes = codes_as_they_came(twin, BOARD)
    assert codes.graph_for({}).inputs == graph.inputs
    check_plans(twin, 3)


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
    limits = ("--data", str(tmp_path / "x.npz"), "--min-cosine", "0.98")
    kept = json.loads(run("tune", *given, "--out", str(tmp_path / "kept"), "--store", store,
                          "--budget", "10ep", *limits, "--json"))  # fmt: skip
    assert kept["chosen"]["cosine"] >= 0.98
    assert kept["chosen"]["samples"] == 4
    scores = json.loads(run("accuracy", *given, "--plan", str(out / "plan.json"), "--data",
                            str(tmp_path / "x.npz"), "--metric", "cosine", "--json"))  # fmt: skip
    assert scores["plans"]["plan.json"]["cosine"]["value"] > 0.99


def test_why_no_layer_was_tried_in_float32(tmp_path):
    """On the terminal and in tune.json."""
    nodes = [*CONV[:-1], ("Reshape", "cq shape", "m", {}), real("m", "y", "s")]
    path = hand_made(tmp_path, nodes)
    out = tmp_path / "out"
    done = CliRunner().invoke(cli, [
        "tune", str(path), "--board", "local", "--out", str(out), "--store",
        str(tmp_path / "store.sqlite"), "--budget", "10ep"], catch_exceptions=False)  # fmt: skip
    assert done.exit_code == 0, done.output
    said = "node 'node_m' (Reshape) moves codes of two scales"
    assert f"no layer was tried in float32: {said}" in done.stdout
    assert json.loads((out / "tune.json").read_text())["as_it_came"] == said
