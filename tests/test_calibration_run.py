"""Networks over data: which tensors are calibrated, whether their ranges are those of the data, and
the command line."""

import json
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from codegen import cli
from codegen.calibration import activations as taps
from codegen.calibration.activations import Activations, activation_names, find_sources
from codegen.calibration.collect import Settings, calibrate
from codegen.calibration.data import open_data
from codegen.calibration.record import METHODS, check_calibration, read_calibration
from codegen.errors import CodegenError
from codegen.interpret import evaluate
from codegen.pipeline import load_graph, model_hash
from codegen.reference import random_inputs
from codegen.resources import examples_dir
from tests.tiny import tiny_network

MODELS = examples_dir() / "models"
BUNDLED = ("mnist8", "mlperf_ic_resnet8", "mlperf_kws_dscnn", "mlperf_vww_mbv1_025",
           "fashion_dscnn")  # fmt: skip


def weights(rng, name, *shape):
    return numpy_helper.from_array(rng.standard_normal(shape).astype(np.float32), name)


def network(path, nodes, constants, x, y):
    """An ONNX file of these nodes from x to y (shapes)."""
    ports = [helper.make_tensor_value_info(n, TensorProto.FLOAT, shape)
             for n, shape in (("x", x), ("y", y))]  # fmt: skip
    graph = helper.make_graph(nodes, "g", ports[:1], ports[1:], constants)
    opset = [helper.make_opsetid("", 17)]
    onnx.save(helper.make_model(graph, opset_imports=opset, ir_version=8), path)
    return path


@pytest.fixture
def normed(tmp_path):
    """A batch norm between two convolutions: folded into the first, whose tensor keeps its name."""
    rng = np.random.default_rng(0)
    vectors = [weights(rng, n, 4) for n in ("scale", "shift", "mean")]
    variance = numpy_helper.from_array(rng.random(4).astype(np.float32) + 0.5, "var")
    nodes = [
        helper.make_node("Conv", ["x", "w1"], ["c1"]),
        helper.make_node("BatchNormalization", ["c1", "scale", "shift", "mean", "var"], ["bn"]),
        helper.make_node("Conv", ["bn", "w2"], ["c2"], pads=[1] * 4),
        helper.make_node("Relu", ["c2"], ["y"]),
    ]
    constants = [weights(rng, "w1", 4, 3, 1, 1), weights(rng, "w2", 4, 4, 3, 3), *vectors, variance]
    return network(tmp_path / "bn.onnx", nodes, constants, [1, 3, 8, 8], [1, 4, 8, 8])


@pytest.fixture
def joined(tmp_path):
    """A factor per channel behind a Concat, folded through it into convolutions: the file has their
    results only without the factor."""
    rng = np.random.default_rng(0)
    nodes = [
        helper.make_node("Conv", ["x", "wa"], ["a"]),
        helper.make_node("Conv", ["x", "wb"], ["b"]),
        helper.make_node("Concat", ["a", "b"], ["c"], axis=1),
        helper.make_node("Mul", ["c", "factor"], ["m"]),
        helper.make_node("Softmax", ["m"], ["y"], axis=1),
    ]
    constants = [weights(rng, "wa", 2, 3, 1, 1), weights(rng, "wb", 4, 3, 1, 1),
                 weights(rng, "factor", 1, 6, 1, 1)]  # fmt: skip
    return network(tmp_path / "joined.onnx", nodes, constants, [1, 3, 8, 8], [1, 6, 8, 8])


def samples(graph, count, seed=0):
    return [random_inputs(graph, seed + i) for i in range(count)]


def saved(tmp_path, graph, count=6):
    runs = samples(graph, count)
    stacked = {t: np.concatenate([r[t] for r in runs]) for t in graph.inputs}
    np.savez(tmp_path / "data.npz", **stacked)
    return tmp_path / "data.npz"


def calibrated(model, tmp_path, count=6, **settings):
    graph = load_graph(model)
    path = saved(tmp_path, graph, count)
    data = open_data([path], [graph.tensors[t] for t in graph.inputs])
    return graph, calibrate(model, graph, data, Settings(**settings))


def check_ranges(graph, found, count=6):
    """Minimum and maximum of every activation are those of our own interpreter."""
    assert tuple(found.tensors) == activation_names(graph)
    assert not found.not_calibrated
    values = [evaluate(graph, s) for s in samples(graph, count)]
    for name, ranges in found.tensors.items():
        low, high = min(v[name].min() for v in values), max(v[name].max() for v in values)
        size = max(abs(low), abs(high))
        assert ranges["minmax"].low == pytest.approx(min(low, 0), abs=1e-4 * size), name
        assert ranges["minmax"].high == pytest.approx(max(high, 0), abs=1e-4 * size), name


@pytest.mark.parametrize("name", BUNDLED)
def test_every_activation_of_the_bundled_networks(name, tmp_path):
    graph, found = calibrated(MODELS / f"{name}.onnx", tmp_path)
    check_ranges(graph, found)
    assert len(found.tensors) == len(graph.nodes) + 1
    check_calibration(found, model_hash(MODELS / f"{name}.onnx", {}))


def test_a_name_with_another_meaning_is_found_out(normed, tmp_path):
    graph, found = calibrated(normed, tmp_path)
    assert "c1" in found.tensors
    check_ranges(graph, found)
    assert find_sources(normed, {}, graph, samples(graph, 1)[0]).file["c1"] == "bn"


def test_what_the_file_does_not_have_is_computed(joined, tmp_path):
    graph, found = calibrated(joined, tmp_path)
    sources = find_sources(joined, {}, graph, samples(graph, 1)[0])
    assert {n.outputs[0] for n in sources.computed} == {"a", "b"}
    check_ranges(graph, found)


def test_a_blank_first_sample_does_not_mislead(joined):
    graph = load_graph(joined)
    blank = {"x": np.zeros((1, 3, 8, 8), np.float32)}
    sources = find_sources(joined, {}, graph, blank)
    assert {n.outputs[0] for n in sources.computed} == {"a", "b"}


def test_values_that_the_model_refuses(tmp_path):
    nodes = [helper.make_node("Gather", ["table", "x"], ["y"])]
    table = numpy_helper.from_array(np.ones((5, 3), np.float32), "table")
    ports = [helper.make_tensor_value_info("x", TensorProto.INT64, [1, 4]),
             helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 4, 3])]  # fmt: skip
    proto = helper.make_graph(nodes, "g", ports[:1], ports[1:], [table])
    onnx.save(helper.make_model(proto, opset_imports=[helper.make_opsetid("", 17)], ir_version=8),
              tmp_path / "g.onnx")  # fmt: skip
    graph = load_graph(tmp_path / "g.onnx")
    np.save(tmp_path / "d.npy", np.full((9, 4), 77))
    data = open_data([tmp_path / "d.npy"], [graph.tensors["x"]])
    with pytest.raises(CodegenError, match="onnxruntime cannot run it"):
        calibrate(tmp_path / "g.onnx", graph, data, Settings())


def test_what_would_take_long_is_listed(joined, tmp_path, monkeypatch):
    monkeypatch.setattr(taps, "_MOST_WORK", 10)
    _, found = calibrated(joined, tmp_path)
    assert set(found.not_calibrated) == {"a", "b"}
    assert "the ONNX file has no such tensor, and it takes" in found.not_calibrated["a"]
    assert set(found.tensors) == {"x", "m", "y"}


def test_tensors_that_depend_on_one_that_is_not_computed(joined, monkeypatch):
    graph = load_graph(joined)
    monkeypatch.setattr(taps, "_MOST_WORK", 10)
    monkeypatch.setattr(taps, "_same", lambda *a: False)
    missing = find_sources(joined, {}, graph, samples(graph, 1)[0]).missing
    assert "depends on 'a'" in missing["m"]


def test_a_residual_and_its_activation_are_one_tensor(tmp_path):
    graph, found = calibrated(MODELS / "mlperf_ic_resnet8.onnx", tmp_path, 2)
    fused = [n for n in graph.nodes if n.residual and n.activation]
    assert fused
    assert all(found.range_of(n.outputs[0]).low == 0 for n in fused)


def test_activations_are_those_of_the_graph(joined):
    graph = load_graph(joined)
    first, second = samples(graph, 2)
    found = Activations(joined, {}, graph, first).run(second)
    ours = evaluate(graph, second)
    for name, value in found.items():
        assert value.shape == graph.tensors[name].shape
        np.testing.assert_allclose(value, ours[name], rtol=1e-4, atol=1e-4)


def test_half_precision_network(tmp_path):
    rng = np.random.default_rng(0)
    w = numpy_helper.from_array(rng.standard_normal((16, 8)).astype(np.float16), "w")
    ports = [helper.make_tensor_value_info(n, TensorProto.FLOAT16, s)
             for n, s in (("x", [1, 16]), ("y", [1, 8]))]  # fmt: skip
    nodes = [helper.make_node("MatMul", ["x", "w"], ["m"]), helper.make_node("Relu", ["m"], ["y"])]
    proto = helper.make_graph(nodes, "g", ports[:1], ports[1:], [w])
    onnx.save(helper.make_model(proto, opset_imports=[helper.make_opsetid("", 17)], ir_version=8),
              tmp_path / "h.onnx")  # fmt: skip
    graph, found = calibrated(tmp_path / "h.onnx", tmp_path)
    assert tuple(found.tensors) == activation_names(graph)


def test_a_tensor_that_is_not_finite_is_listed(tmp_path):
    nodes = [helper.make_node("Log", ["x"], ["l"]), helper.make_node("Exp", ["l"], ["y"])]
    model = network(tmp_path / "log.onnx", nodes, [], [1, 4], [1, 4])
    graph = load_graph(model)
    data = np.ones((9, 4), np.float32)
    data[0], data[5, 1] = [1, 2, 3, 4], 0
    np.save(tmp_path / "d.npy", data)
    found = calibrate(model, graph, open_data([tmp_path / "d.npy"], [graph.tensors["x"]]),
                      Settings())  # fmt: skip
    assert found.not_calibrated == {"l": "NaN or infinity for sample 5"}
    assert set(found.tensors) == {"x", "y"}


def test_equal_data_and_seed_give_equal_bytes(tmp_path):
    model = tiny_network(tmp_path)
    first, again, other, fewer = (
        calibrated(model, tmp_path, 20, samples=12, seed=s, method=m)[1]
        for s, m in ((1, "mse"), (1, "mse"), (2, "mse"), (1, "entropy"))
    )
    assert first.to_json() == again.to_json()
    assert first.data.sha256 != other.data.sha256
    assert first.tensors == fewer.tensors
    assert first.data.samples == 12


def test_samples_are_streamed(tmp_path, monkeypatch):
    """No more than the activations of one run are alive at a time: each run is counted before the
    next is read."""
    model, seen = tiny_network(tmp_path), []
    graph = load_graph(model)
    data = open_data([saved(tmp_path, graph, 5)], [graph.tensors["x"]])
    run = Activations.run
    monkeypatch.setattr(Activations, "run", lambda *a: seen.append("run") or run(*a))
    calibrate(model, graph, data, Settings(), None, lambda *told: seen.append(told))
    assert seen == [step for i in range(1, 6) for step in ("run", (i, 5))]


@pytest.mark.parametrize(("settings", "said"), [
    ({"method": "best"}, "--method: unknown method 'best'; methods: minmax"),
    ({"percentile": 50.0}, "--percentile: 50"), ({"percentile": 101.0}, "--percentile: 101"),
    ({"samples": 0}, "--samples: 0"),
])  # fmt: skip
def test_bad_settings(settings, said, tmp_path):
    with pytest.raises(CodegenError, match=said):
        calibrated(tiny_network(tmp_path), tmp_path, **settings)


# --- the command line ---


def run(capsys, *args):
    """Exit code, stdout, stderr."""
    with pytest.raises(SystemExit) as done:
        cli.main([*map(str, args)])
    out = capsys.readouterr()
    return done.value.code, out.out, out.err


@pytest.fixture
def resnet_data(tmp_path):
    rng = np.random.default_rng(0)
    np.savez(tmp_path / "images.npz", images=rng.integers(0, 256, (10, 32, 32, 3), np.uint8),
             labels=np.arange(10))  # fmt: skip
    return tmp_path / "images.npz"


def test_calibrate_writes_the_file(resnet_data, tmp_path, capsys):
    model, out = MODELS / "mlperf_ic_resnet8.onnx", tmp_path / "c.json"
    args = ["calibrate", model, "--data", resnet_data, "--preprocess", "mean=128,scale=1/128",
            "--out", out, "--method", "mse"]  # fmt: skip
    code, stdout, stderr = run(capsys, *args)
    assert (code, stdout) == (0, "")
    assert "14 tensors over 10 sample(s), method mse" in stderr
    assert "warning" not in stderr
    found = read_calibration(out)
    assert found.method == "mse"
    assert found.model_sha256 == model_hash(model, {})
    assert found.data.files == ("images.npz",)
    assert found.range_of("input", "minmax").low == -1
    assert found.range_of("input", "minmax").high == np.float32(127 / 128)
    before = out.read_bytes()
    code, stdout, _ = run(capsys, *args, "--json")
    assert code == 0
    assert out.read_bytes() == before == stdout.encode()
    assert set(json.loads(stdout)["tensors"]["input"]) == set(METHODS)


def test_few_samples_are_a_warning_and_ranges_can_be_shown(resnet_data, tmp_path, capsys):
    code, stdout, stderr = run(
        capsys, "calibrate", MODELS / "mlperf_ic_resnet8.onnx", "--data", resnet_data,
        "--samples", 3, "-v", "--out", tmp_path / "c.json",
    )  # fmt: skip
    assert code == 0
    assert "warning: 3 sample(s)" in stderr
    assert stdout.splitlines()[0].split()[:2] == ["tensor", "mse"]
    assert len(stdout.splitlines()) == 15
    code, stdout, stderr = run(
        capsys, "calibrate", MODELS / "mlperf_ic_resnet8.onnx", "--data", resnet_data, "--half", 1,
        "-q", "--out", tmp_path / "c.json",
    )  # fmt: skip
    assert (code, stdout, stderr) == (0, "", "")
    assert read_calibration(tmp_path / "c.json").data.samples == 5


def test_what_is_not_calibrated_is_said(joined, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(taps, "_MOST_WORK", 10)
    data = saved(tmp_path, load_graph(joined), 9)
    code, _, stderr = run(capsys, "calibrate", joined, "--data", data, "--out", tmp_path / "c.json")
    assert code == 0
    assert "not calibrated: a: the ONNX file has no such tensor" in stderr
    assert "not_calibrated" in (tmp_path / "c.json").read_text()


def test_open_shapes_are_pinned(tmp_path, capsys):
    proto = onnx.load(tiny_network(tmp_path))
    for port in (*proto.graph.input, *proto.graph.output):
        port.type.tensor_type.shape.dim[0].dim_param = "N"
    onnx.save(proto, tmp_path / "open.onnx")
    np.save(tmp_path / "d.npy", np.random.default_rng(0).random((10, 16)))
    args = ["calibrate", tmp_path / "open.onnx", "--data", tmp_path / "d.npy", "--out",
            tmp_path / "c.json"]  # fmt: skip
    assert run(capsys, *args)[0] == 2
    assert run(capsys, *args, "--shape", "x=2x16")[0] == 0
    found = read_calibration(tmp_path / "c.json")
    assert found.model_sha256 == model_hash(tmp_path / "open.onnx", {"x": (2, 16)})
    assert found.data.samples == 10


@pytest.mark.parametrize(("args", "said"), [
    ([], "--data: no data"),
    (["--data", "none"], "no such file or folder"),
    (["--data", ".", "--method", "best"], "unknown method 'best'"),
    (["--data", ".", "--preprocess", "flip"], "unknown word 'flip'"),
])  # fmt: skip
def test_bad_input_is_one_line(args, said, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    code, stdout, stderr = run(capsys, "calibrate", tiny_network(tmp_path), *args)
    assert (code, stdout) == (2, "")
    assert said in stderr
    assert stderr.count("\n") == 1
    assert not Path("calibration.json").exists()


def test_what_a_new_file_loses_is_said(resnet_data, tmp_path, capsys):
    """Losses of layers of the same model; nothing where they are measured again."""
    args = ["calibrate", MODELS / "mnist8.onnx", "--data", tmp_path / "d.npy", "--out",
            tmp_path / "c.json"]  # fmt: skip
    np.save(tmp_path / "d.npy", np.random.default_rng(0).random((9, 1, 28, 28)))
    assert run(capsys, *args, "--sensitivity", "1")[0] == 0
    assert "note" not in run(capsys, *args, "--sensitivity", "1")[2]
    assert "had losses of layers of this model, which are gone" in run(capsys, *args)[2]
    assert "note" not in run(capsys, *args)[2]
    other = ["calibrate", tiny_network(tmp_path), "--data", tmp_path / "t.npy", "--out",
             tmp_path / "c.json"]  # fmt: skip
    graph = load_graph(other[1])
    np.save(tmp_path / "t.npy", np.ones((9, *graph.tensors[graph.inputs[0]].shape)))
    assert "c.json had the calibration of another model, which is gone" in run(capsys, *other)[2]


def test_an_input_without_values_is_a_warning(tmp_path, capsys):
    np.save(tmp_path / "d.npy", np.zeros((9, 1, 28, 28)))
    args = ["--data", tmp_path / "d.npy", "--out", tmp_path / "c.json"]
    code, _, stderr = run(capsys, "calibrate", MODELS / "mnist8.onnx", *args)
    assert code == 0
    assert "warning: input Input3 is 0 in all samples" in stderr


def test_output_that_cannot_be_written(resnet_data, capsys):
    code, _, stderr = run(
        capsys, "calibrate", MODELS / "mlperf_ic_resnet8.onnx", "--data", resnet_data,
        "--out", "/proc/none/c.json",
    )  # fmt: skip
    assert code == 2
    assert "cannot be written" in stderr
