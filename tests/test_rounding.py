"""Rounding of weights over a user's data: what layers read, what is gained on other samples, and
the way through calibration.json to a library."""

import json
from dataclasses import replace

import numpy as np
import onnx
import pytest
from click.testing import CliRunner
from onnx import TensorProto, helper, numpy_helper

from codegen.board import load_board
from codegen.calibration import columns as drawing
from codegen.calibration.collect import Settings, calibrate
from codegen.calibration.columns import draw_columns
from codegen.calibration.corrections import Corrections, pack, unpack
from codegen.calibration.data import open_data
from codegen.calibration.record import read_calibration
from codegen.calibration.rounding import narrow_widths, with_rounding
from codegen.calibration.sensitivity import sensitivities
from codegen.errors import CodegenError
from codegen.heuristic import default_plan
from codegen.interpret import evaluate
from codegen.passes.quantise import operands, quantise
from codegen.pipeline import computed_graph, finish, load_graph
from codegen.resources import examples_dir
from codegen.verbs.build import build
from codegen.verbs.calibrate import calibrate as verb

KWS = examples_dir() / "models" / "mlperf_kws_dscnn.onnx"


def convolutions(path):
    """Two images at a time through a convolution in groups, a depthwise one with holes, one of
    1x1 and a matrix product, all with their own pads and strides."""
    rng = np.random.default_rng(0)
    sizes = {"w1": (8, 2, 3, 2), "w2": (8, 1, 3, 3), "w3": (6, 8, 1, 1), "w4": (6 * 4 * 5, 7)}
    constants = [numpy_helper.from_array(rng.standard_normal(s).astype(np.float32), n)
                 for n, s in sizes.items()]  # fmt: skip
    nodes = [
        helper.make_node("Conv", ["x", "w1"], ["a"], "one", group=2, pads=[1, 0, 2, 1]),
        helper.make_node("Relu", ["a"], ["b"]),
        helper.make_node("Conv", ["b", "w2"], ["c"], "two", group=8, strides=[2, 2],
                         dilations=[2, 1], pads=[2, 1, 1, 1]),
        helper.make_node("Relu", ["c"], ["d"]),
        helper.make_node("Conv", ["d", "w3"], ["e"], "three"),
        helper.make_node("Flatten", ["e"], ["f"]),
        helper.make_node("MatMul", ["f", "w4"], ["y"], "four"),
    ]  # fmt: skip
    ports = [helper.make_tensor_value_info(n, TensorProto.FLOAT, s)
             for n, s in (("x", [2, 4, 8, 9]), ("y", [2, 7]))]  # fmt: skip
    graph = helper.make_graph(nodes, "g", ports[:1], ports[1:], constants)
    opset = [helper.make_opsetid("", 17)]
    onnx.save(helper.make_model(graph, opset_imports=opset, ir_version=8), path)
    return path


def images(shape, count, seed=0):
    """Samples whose neighbours are alike."""
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((count, *shape)).astype(np.float32)
    return (x + np.roll(x, 1, -1) + np.roll(x, 1, -2) + rng.standard_normal((count, 1, 1, 1))) / 2


def calibrated(model, tmp_path, count, **more):
    """Graph, data, the calibration without rounding, with it, and the gains."""
    graph = load_graph(model)
    x = graph.tensors[graph.inputs[0]]
    np.save(tmp_path / "x.npy", images(x.shape[1:], count).astype(np.float32))
    data = open_data([tmp_path / "x.npy"], [x])
    plain = calibrate(model, graph, data, Settings("mse"))
    return graph, data, plain, *with_rounding(plain, model, graph, data, **more)


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    folder = tmp_path_factory.mktemp("small")
    return calibrated(convolutions(folder / "net.onnx"), folder, 200)


@pytest.fixture(scope="module")
def kws(tmp_path_factory):
    return calibrated(KWS, tmp_path_factory.mktemp("kws"), 40)


def test_columns_are_what_outputs_read(small, tmp_path, monkeypatch):
    """Weights times columns are the outputs, each once: more are asked for than there are."""
    graph, data = small[:2]
    chosen = range(10)
    monkeypatch.setattr(drawing, "_LEAST", 1000)
    told = []
    nodes = [n for n in graph.nodes if n.op in ("Conv", "Dense")]
    assert len(nodes) == 4
    drawn = draw_columns(
        convolutions(tmp_path / "net.onnx"), graph, data, chosen, nodes, 0, {}, told.append
    )
    assert told == [2, 4, 6, 8, 10]
    values = [evaluate(graph, b.inputs) for b in data.batches(chosen)]
    for node, columns in zip(nodes, drawn, strict=True):
        weights, _ = operands(graph, node)
        for part, runs in ((columns.made_of, (0, 1, 2, 4)), (columns.held_out, (3,))):
            rows = weights.reshape(len(part), -1, part.shape[1])
            found = (rows @ part).reshape(len(weights), -1)
            true = np.concatenate([
                np.moveaxis(values[r][node.outputs[0]], 1, 0).reshape(len(weights), -1)
                for r in runs
            ], 1)  # fmt: skip
            true = np.maximum(true, 0) if node.activation else true
            found = np.maximum(found, 0) if node.activation else found
            np.testing.assert_allclose(np.sort(found), np.sort(true), rtol=1e-3, atol=1e-3)


def test_columns_are_bounded(small, tmp_path, monkeypatch):
    graph, data = small[:2]
    model = convolutions(tmp_path / "net.onnx")
    nodes = [n for n in graph.nodes if n.op == "Conv"]
    sizes = []
    for memory in (1 << 27, 8000):
        monkeypatch.setattr(drawing, "_MEMORY", memory)
        drawn = draw_columns(model, graph, data, range(200), nodes, 0)
        sizes.append(sum(c.made_of.size + c.held_out.size for c in drawn))
        assert all(c.made_of.shape[-1] + c.held_out.shape[-1] < 700 for c in drawn)
    assert sizes[0] > 8000 * 1.3 > sizes[1] > 0


def relative_error(graph, calibration, bits, corrections, samples):
    widths = {n.name: bits for n in graph.nodes if n.op in ("Conv", "Dense")}
    made = quantise(graph, calibration.spans, lambda *_: True, widths, corrections)
    softmax = [n.inputs[0] for n in graph.nodes if "Softmax" in n.op]  # says little: saturated
    out = (*softmax, graph.outputs[0])[0]
    error = energy = 0.0
    for x in samples:
        found, true = (evaluate(g, {graph.inputs[0]: x})[out] for g in (made, graph))
        error += np.square(found - true).sum()
        energy += np.square(true).sum()
    return error / energy


@pytest.mark.parametrize(("name", "gained"), [("small", 0.8), ("kws", 0.7)])
def test_outputs_are_closer_on_other_samples(name, gained, request):
    graph, _, plain, rounded, gains = request.getfixturevalue(name)
    shape = graph.tensors[graph.inputs[0]].shape
    unseen = images(shape[1:], 12 * shape[0], 99).reshape(12, *shape)
    nearest, chosen = (
        relative_error(graph, plain, 4, c.corrections, unseen) for c in (plain, rounded)
    )
    assert chosen < gained * nearest
    assert set(gains) == {n.name for n in graph.nodes if n.op in ("Conv", "Dense")}
    assert all(after <= before for at in gains.values() for before, after in at.values())
    assert all(set(at) == {7, 4} for at in gains.values())
    # 8 bits are as they were
    assert relative_error(graph, plain, 8, plain.corrections, unseen[:1]) == relative_error(
        graph, plain, 8, rounded.corrections, unseen[:1]
    )


def test_losses_are_those_of_the_rounded_weights(kws):
    graph, data, plain, rounded, _ = kws
    samples = [b.inputs for b in data.batches(range(2))]
    before, after = (
        sensitivities(graph, plain.spans, samples, (4,), corrections=c.corrections)
        for c in (plain, rounded)
    )
    layers = list(rounded.rounding)
    assert sum(after[n][4] for n in layers) < 0.8 * sum(before[n][4] for n in layers)


def test_equal_data_and_seed_give_equal_bytes_and_the_file_is_read(kws, tmp_path):
    graph, data, plain, rounded, _ = kws
    again, _ = with_rounding(plain, KWS, graph, data)
    assert again.to_json() == rounded.to_json()
    (tmp_path / "c.json").write_text(rounded.to_json())
    assert read_calibration(tmp_path / "c.json") == rounded
    other, _ = with_rounding(replace(plain, data=replace(plain.data, seed=1)), KWS, graph, data)
    assert other.rounding != rounded.rounding


def test_few_runs_and_large_layers_keep_the_nearest(kws, tmp_path, monkeypatch):
    graph, data, plain, _, _ = kws
    few = replace(plain, data=replace(plain.data, samples=3))
    done = []
    found, gains = with_rounding(few, KWS, graph, data, None, lambda *told: done.append(told))
    assert found == few
    assert not gains
    assert done[-1][0] == done[-1][1]
    monkeypatch.setattr("codegen.calibration.rounding._ROWS", 1)
    assert with_rounding(plain, KWS, graph, data) == (plain, {})


def test_packed_differences():
    difference = np.random.default_rng(0).integers(-1, 2, 10_000).astype(np.int8)
    assert np.array_equal(unpack(pack(difference)), difference)
    assert len(pack(difference)) < 10_000 * 2 / 6 * 1.1
    assert len(pack(np.zeros(10_000))) < 2000
    with pytest.raises(ValueError, match="incorrect"):
        unpack("aaaa")


def test_codes_stay_within_their_width():
    nearest = np.array([[7, -7, 3]], np.int8)
    corrections = Corrections({}, {"n": {4: pack(np.array([1, -1, 1]))}})
    assert corrections.rounded("n", 4, nearest).tolist() == [[7, -7, 4]]
    assert corrections.rounded("n", 7, nearest) is nearest
    far, near = np.array([127, -127], np.int8), np.array([-127, 127], np.int8)
    corrections = replace(corrections, rounding={"n": {4: pack(np.zeros(3)), 8: pack(far - near)}})
    assert corrections.rounded("n", 8, near).tolist() == far.tolist()
    with pytest.raises(CodegenError, match="rounding of node 'n' is of 3 weights; the model's has"):
        corrections.rounded("n", 4, nearest[:, :2])


def test_widths_are_those_of_kernels():
    assert narrow_widths() == (7, 4)


def test_calibrate_and_build(tmp_path):
    """The command line: what it says and writes; a library of 4 bits by a plan, verified."""
    graph, board = load_graph(KWS), load_board("local")
    np.save(tmp_path / "x.npy", images(graph.tensors[graph.inputs[0]].shape[1:], 10))
    out = tmp_path / "calibration.json"
    args = [str(KWS), "--data", str(tmp_path / "x.npy"), "--out", str(out), "--round-weights", "-v"]
    done = CliRunner().invoke(verb, args, catch_exceptions=False)
    assert done.exit_code == 0
    found = json.loads(out.read_text())["rounding"]
    assert f"weights of {len(found)} layer(s) rounded" in done.stderr
    assert "7 bits" in done.stdout
    assert " -> " in done.stdout
    bits = dict.fromkeys(found, 4)
    made, _ = computed_graph(KWS, board, calibration=out, bits=bits)
    known = read_calibration(out)
    nearest = quantise(graph, known.spans, lambda *_: True, bits, Corrections(known.means))
    node = next(n for n in made.nodes if n.name == next(iter(found)))
    assert (made.constants[node.inputs[1]] != nearest.constants[node.inputs[1]]).any()
    plan = replace(default_plan(made, board, known.model_sha256), dtype="i8")
    (tmp_path / "plan.json").write_text(finish(made, plan, board, KWS.name).plan.to_json())
    args = [str(KWS), "--board", "local", "--out", str(tmp_path / "out"), "--calibration",
            str(out), "--plan", str(tmp_path / "plan.json")]  # fmt: skip
    built = CliRunner().invoke(build, args, catch_exceptions=False)
    assert "verified against integer arithmetic" in built.stderr, built.output
