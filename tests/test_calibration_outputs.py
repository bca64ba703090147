"""Ranges by what outputs lose: what a range costs behind a tensor, and that the least is taken."""

import json
from dataclasses import replace

import numpy as np
import pytest
from onnx import helper, numpy_helper

from codegen.calibration.collect import Settings, calibrate
from codegen.calibration.data import open_data
from codegen.calibration.outputs import with_output_ranges
from codegen.calibration.record import METHODS, OUTPUT, read_calibration
from codegen.calibration.sensitivity import sensitivities
from codegen.errors import CodegenError
from codegen.onnx_file import read_model, with_inputs
from codegen.pipeline import load_graph
from codegen.types import DType
from tests.test_calibration_run import network, run, weights


def matrix(name, values):
    return numpy_helper.from_array(np.array(values, np.float32), name)


@pytest.fixture
def ignored(tmp_path):
    """A hidden value that is 20 times the others, and of which the output reads a ten-thousandth:
    the least squared error keeps it, the least loss of the output does not."""
    first = np.zeros((8, 8))
    np.fill_diagonal(first, [20.0, *[1.0] * 7])
    second = np.vstack([np.full((1, 4), 1e-4), np.random.default_rng(0).standard_normal((7, 4))])
    nodes = [
        helper.make_node("MatMul", ["x", "w1"], ["h"]),
        helper.make_node("Relu", ["h"], ["r"]),
        helper.make_node("MatMul", ["r", "w2"], ["y"]),
    ]
    constants = [matrix("w1", first), matrix("w2", second)]
    return network(tmp_path / "ignored.onnx", nodes, constants, [1, 8], [1, 4])


@pytest.fixture
def pooled(tmp_path):
    """Two convolutions into a concatenation, pooled, and what reads that: one range."""
    rng = np.random.default_rng(1)
    nodes = [
        helper.make_node("Conv", ["x", "w1"], ["a"]),
        helper.make_node("Conv", ["x", "w2"], ["b"]),
        helper.make_node("Concat", ["a", "b"], ["c"], axis=1),
        helper.make_node("MaxPool", ["c"], ["p"], kernel_shape=[2, 2], strides=[2, 2]),
        helper.make_node("Conv", ["p", "w3"], ["y"]),
    ]
    constants = [weights(rng, "w1", 3, 2, 1, 1), weights(rng, "w2", 5, 2, 1, 1),
                 weights(rng, "w3", 4, 8, 1, 1)]  # fmt: skip
    return network(tmp_path / "pooled.onnx", nodes, constants, [1, 2, 6, 6], [1, 4, 3, 3])


def calibrated(model, folder, count=60, method=OUTPUT):
    graph = load_graph(model)
    x = graph.tensors[graph.inputs[0]]
    samples = np.random.default_rng(2).standard_normal((count, *x.shape[1:])).astype(np.float32)
    np.save(folder / "x.npy", samples)
    data = open_data([folder / "x.npy"], [x])
    return graph, data, calibrate(model, graph, data, Settings(method))


def test_what_outputs_do_not_read_is_clipped(ignored, tmp_path):
    graph, _, found = calibrated(ignored, tmp_path)
    mse, output = (found.range_of("r", m).high for m in ("mse", OUTPUT))
    assert output < 0.45 * found.range_of("r", "minmax").high < mse
    assert found.range_of("r", OUTPUT).low == 0.0
    assert found.spans["r"] == (0.0, output)


def test_outputs_lose_less_than_by_any_other_method(ignored, tmp_path):
    """Measured by other code than that which chose: integers of the layer that reads the tensor."""
    graph, data, found = calibrated(ignored, tmp_path)
    samples = [b.inputs for b in data.batches(range(60))]
    lost = {}
    for method in (*METHODS, OUTPUT):
        spans = replace(found, method=method).spans
        *_, last = sensitivities(graph, spans, samples, (8,)).values()
        lost[method] = last[8]
    assert lost[OUTPUT] < 0.5 * min(lost[m] for m in METHODS), lost


def test_tensors_among_which_values_move_have_one_range(pooled, tmp_path):
    _, _, found = calibrated(pooled, tmp_path)
    assert len({found.range_of(t) for t in ("a", "b", "c", "p")}) == 1
    assert found.range_of("p") != found.range_of("x")


def test_what_cannot_be_tried_keeps_mse(pooled, tmp_path):
    """Outputs are read by nothing."""
    _, _, found = calibrated(pooled, tmp_path)
    assert found.range_of("y") == found.range_of("y", "mse")


def test_equal_data_equal_ranges_and_progress(pooled, tmp_path):
    graph, data, plain = calibrated(pooled, tmp_path, method="mse")
    told = []
    found = [
        with_output_ranges(plain, pooled, graph, data, progress=lambda k, of: told.append((k, of)))
        for _ in range(2)
    ]
    assert found[0] == found[1]
    assert found[0].method == OUTPUT
    assert told == [(1, 2), (2, 2)] * 2


def test_one_run_tells_nothing(pooled, tmp_path):
    graph, data, plain = calibrated(pooled, tmp_path, 1, "mse")
    found = with_output_ranges(plain, pooled, graph, data)
    assert found.range_of("x") == found.range_of("x", "mse")
    shared = {found.range_of(t, "mse") for t in ("a", "b", "c", "p")}
    assert found.range_of("a").low == min(r.low for r in shared)
    assert found.range_of("a").high == max(r.high for r in shared)


def test_a_cut_leaves_out_what_comes_before(pooled):
    """The convolutions, where the pool's result is given; in a branch, what it reads is kept."""
    model = read_model(pooled)
    with_inputs(model, {"p": DType.F32})
    assert [n.op_type for n in model.graph.node] == ["Conv"]
    made = [helper.make_empty_tensor_value_info("i")]
    inner = helper.make_graph([helper.make_node("Identity", ["c"], ["i"])], "branch", [], made)
    branch = helper.make_node("If", ["flag"], ["z"], then_branch=inner, else_branch=inner)
    model = read_model(pooled)
    model.graph.node.append(branch)
    model.graph.output.append(helper.make_empty_tensor_value_info("z"))
    with_inputs(model, {"p": DType.F32})
    assert [n.op_type for n in model.graph.node] == ["Conv", "Conv", "Concat", "Conv", "If"]


def test_zeros_alone_keep_an_empty_range(pooled, tmp_path):
    graph = load_graph(pooled)
    np.save(tmp_path / "zero.npy", np.zeros((9, 2, 6, 6), np.float32))
    data = open_data([tmp_path / "zero.npy"], [graph.tensors["x"]])
    found = calibrate(pooled, graph, data, Settings(OUTPUT))
    assert found.spans["x"] == (0.0, 0.0)


def test_the_file_keeps_the_range_and_its_method(pooled, tmp_path):
    _, _, found = calibrated(pooled, tmp_path)
    path = tmp_path / "c.json"
    path.write_text(found.to_json())
    assert read_calibration(path) == found
    raw = json.loads(found.to_json())
    del raw["tensors"]["a"][OUTPUT]
    path.write_text(json.dumps(raw))
    with pytest.raises(CodegenError, match="entry of tensor 'a'.*entropy, minmax, mse, output"):
        read_calibration(path)
    path.write_text(json.dumps({**raw, "method": "mse"}))  # then nobody asks for it
    assert read_calibration(path).spans["a"] == tuple(raw["tensors"]["a"]["mse"])


def test_on_the_command_line(pooled, tmp_path, capsys):
    np.save(tmp_path / "x.npy", np.random.default_rng(3).random((20, 2, 6, 6)).astype(np.float32))
    out = tmp_path / "c.json"
    args = ["calibrate", pooled, "--data", tmp_path / "x.npy", "--method", OUTPUT, "-v"]
    code, shown, said = run(capsys, *args, "--out", out)
    assert code == 0
    assert shown.splitlines()[0].split() == ["tensor", OUTPUT, *METHODS]
    assert "method output" in said
    assert read_calibration(out).method == OUTPUT


def test_progress_comes_to_its_end(pooled, tmp_path):
    graph, data, _ = calibrated(pooled, tmp_path, 20, "mse")
    told = []
    calibrate(pooled, graph, data, Settings(OUTPUT), progress=lambda k, of: told.append((k, of)))
    assert {of for _, of in told} == {40}
    assert [k for k, _ in told] == [*range(1, 21), 30, 40]
