"""Equalised networks compute the same, with channels alike."""

import json

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from click.testing import CliRunner
from onnx import TensorProto, helper, numpy_helper

from codegen.calibration import weights
from codegen.cli import cli
from codegen.errors import CodegenError
from codegen.onnx_equalise import _Equalising, equalised
from codegen.onnx_import import read_simplified
from codegen.resources import examples_dir

MODELS = examples_dir() / "models"
RNG = np.random.default_rng(1)


def wild(*shape: int) -> np.ndarray:
    """Weights whose output channels differ in range by up to 100."""
    w = RNG.standard_normal(shape) * 10 ** RNG.uniform(-1, 1, (shape[0], *(1,) * (len(shape) - 1)))
    return w.astype(np.float32)


WEIGHTS = {
    "w1": wild(6, 3, 3, 3), "w2": wild(8, 6, 1, 1), "wd": wild(6, 1, 3, 3), "wg": wild(8, 3, 1, 1),
    "b": wild(6), "slope": wild(6, 1, 1), "g": wild(6 * 16, 5), "gt": wild(5, 6 * 16),
    "c5": wild(5), "g6": wild(5, 6), "two": np.float32([2.0]),
    "h": wild(6, 3, 3, 3).astype(np.float16), "six": np.float32(6.0), "none": np.float32(0.0),
    "dead": wild(6, 3, 3, 3),
}  # fmt: skip
WEIGHTS["dead"][2] = 1e-30


def model(nodes: list, outputs=("y",), element: int = TensorProto.FLOAT) -> onnx.ModelProto:
    """From x [1, 3, 8, 8], over nodes (operator, inputs, output, attributes)."""
    made = [helper.make_node(op, i.split(), o.split(), name=f"{op}:{o.split()[0]}", **attrs)
            for op, i, o, attrs in nodes]  # fmt: skip
    info = helper.make_tensor_value_info
    read = {t for n in made for t in n.input}
    graph = helper.make_graph(
        made, "net", [info("x", element, (1, 3, 8, 8))], [info(t, element, None) for t in outputs],
        [numpy_helper.from_array(v, k) for k, v in WEIGHTS.items() if k in read],
    )  # fmt: skip
    whole = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    inferred = {o.name: o for o in onnx.shape_inference.infer_shapes(whole).graph.output}
    for port in whole.graph.output:
        port.CopyFrom(inferred[port.name])
    return whole


def results(network: onnx.ModelProto, seed: int = 0) -> list[np.ndarray]:
    session = ort.InferenceSession(network.SerializeToString(), providers=["CPUExecutionProvider"])
    rng = np.random.default_rng(seed)
    inputs = {i.name: rng.standard_normal([d if isinstance(d, int) else 1 for d in i.shape])
              .astype(np.float32) for i in session.get_inputs()}  # fmt: skip
    return session.run(None, inputs)


PAD = {"pads": [1, 1, 1, 1]}
CONV1 = ("Conv", "x w1 b", "c", PAD)
CONV2 = ("Conv", "r w2", "y", {})
CHAINS = {
    "nothing between": [("Conv", "x w1 b", "r", PAD), CONV2],
    "Relu": [CONV1, ("Relu", "c", "r", {}), CONV2],
    "LeakyRelu": [CONV1, ("LeakyRelu", "c", "r", {"alpha": 0.2}), CONV2],
    "PRelu": [CONV1, ("PRelu", "c slope", "r", {}), CONV2],
    "pools": [CONV1, ("MaxPool", "c", "m", {"kernel_shape": [2, 2]}),
              ("AveragePool", "m", "r", {"kernel_shape": [3, 3]}), CONV2],
    "depthwise": [CONV1, ("Relu", "c", "r", {}), ("Conv", "r wd", "d", {"group": 6, **PAD}),
                  ("Relu", "d", "e", {}), ("Conv", "e w2", "y", {})],
    "groups": [CONV1, ("Relu", "c", "r", {}), ("Conv", "r wg", "y", {"group": 2})],
    "Gemm of images": [CONV1, ("MaxPool", "c", "m", {"kernel_shape": [2, 2], "strides": [2, 2]}),
                       ("Flatten", "m", "f", {}), ("Gemm", "f g c5", "y", {})],
    "Gemm, transposed": [CONV1, ("MaxPool", "c", "m", {"kernel_shape": [2, 2], "strides": [2, 2]}),
                         ("Flatten", "m", "f", {}), ("Gemm", "f gt c5", "y", {"transB": 1})],
    "Gemm of means": [CONV1, ("GlobalAveragePool", "c", "m", {}), ("Flatten", "m", "f", {}),
                      ("Gemm", "f g6 c5", "y", {"transB": 1})],
    "a dead channel": [("Conv", "x dead b", "c", PAD), ("Relu", "c", "r", {}), CONV2],
}  # fmt: skip


@pytest.mark.parametrize("name", CHAINS)
def test_chains_compute_the_same(name, tmp_path):
    before = model(CHAINS[name])
    onnx.save(before, tmp_path / "net.onnx")
    made = equalised(tmp_path / "net.onnx")
    (want,), (got,) = results(before), results(made.model)
    np.testing.assert_allclose(got, want, rtol=1e-4, atol=1e-5 * np.abs(want).max())
    products = sum(n.op_type in ("Conv", "Gemm") for n in before.graph.node)
    assert len(made.pairs) == products - 1
    assert max(p.after for p in made.pairs) < max(p.before for p in made.pairs)
    changed = {t.name: numpy_helper.to_array(t) for t in made.model.graph.initializer}
    assert any(not np.array_equal(v, WEIGHTS[k]) for k, v in changed.items())


def test_ranges_of_a_pair_are_alike(tmp_path):
    """Channel by channel, also where three layers share theirs; a dead one keeps its weights."""
    onnx.save(model(CHAINS["depthwise"]), tmp_path / "net.onnx")
    made = equalised(tmp_path / "net.onnx").model.graph.initializer
    w1, wd, w2 = (numpy_helper.to_array(next(t for t in made if t.name == n))
                  for n in ("w1", "wd", "w2"))  # fmt: skip
    ranges = [np.abs(w1).max((1, 2, 3)), np.abs(wd).max((1, 2, 3)), np.abs(w2).max((0, 2, 3))]
    np.testing.assert_allclose(ranges[0], ranges[1], rtol=1e-2)
    np.testing.assert_allclose(ranges[0], ranges[2], rtol=1e-2)
    onnx.save(model(CHAINS["a dead channel"]), tmp_path / "net.onnx")
    made = equalised(tmp_path / "net.onnx").model.graph.initializer
    dead = numpy_helper.to_array(next(t for t in made if t.name == "dead"))
    np.testing.assert_array_equal(dead[2], WEIGHTS["dead"][2])


@pytest.mark.parametrize(("name", "pairs"), [
    ("mlperf_ic_resnet8", 3), ("mlperf_vww_mbv1_025", 27), ("mlperf_kws_dscnn", 9), ("mnist8", 1),
])  # fmt: skip
def test_real_networks_compute_the_same(name, pairs):
    path = MODELS / f"{name}.onnx"
    made = equalised(path)
    assert len(made.pairs) == pairs
    for seed in range(3):
        before = results(onnx.load(path), seed)
        for got, want in zip(results(made.model, seed), before, strict=True):
            np.testing.assert_allclose(got, want, rtol=2e-4, atol=1e-4 * np.abs(want).max())


@pytest.mark.parametrize(("nodes", "options", "first", "why"), [
    ([CONV1, ("Relu", "c", "r", {}), CONV2], {"outputs": ("y", "r")}, "Conv:c",
     "'r' is an output"),
    ([CONV1, ("Relu", "c", "r", {}), ("Conv", "r w2", "v", {}), ("Conv", "r w3", "w", {}),
      ("Add", "v w", "y", {})], {}, "Conv:c", "'r' is read 2 times"),
    ([CONV1, ("Relu", "c", "r", {}), CONV2], {}, "Conv:y", "'y' is an output"),
    ([CONV1, ("Sigmoid", "c", "r", {}), CONV2], {}, "Conv:c", "Sigmoid follows"),
    ([CONV1, ("Clip", "c none six", "r", {}), CONV2], {}, "Conv:c", "Clip follows"),
    ([CONV1, ("PRelu", "slope c", "r", {}), CONV2], {}, "Conv:c", "PRelu follows"),
    ([CONV1, ("MaxPool", "c", "r i", {"kernel_shape": [2, 2]}), CONV2,
      ("Cast", "i", "k", {"to": TensorProto.FLOAT})], {"outputs": ("y", "k")}, "Conv:c",
     "MaxPool with a second result follows"),
    ([CONV1, ("Relu", "c", "r", {}), CONV2, ("Conv", "x w1", "d", {})], {"outputs": ("y", "d")},
     "Conv:c", "'w1' is not constant, or shared"),
    ([CONV1, ("GlobalAveragePool", "c", "m", {}), ("Flatten", "m", "f", {}),
      ("Gemm", "f g6 c5", "y", {"transB": 1, "alpha": 2.0})], {}, "Conv:c",
     "Gemm with alpha, beta or transA"),
    ([CONV1, ("Flatten", "c", "f", {"axis": 3}), ("Gemm", "f g8", "y", {})], {}, "Conv:c",
     "Flatten with axis 3 follows"),
    ([CONV1, ("Transpose", "c", "r", {"perm": [0, 2, 3, 1]}), ("Conv", "r w8", "y", {})], {},
     "Conv:c", "Transpose follows"),
    ([CONV1, ("Relu", "c", "r", {}), ("Conv", "r wg", "v", {"group": 2}), ("Flatten", "v", "f", {}),
      ("MaxPool", "v", "y", {"kernel_shape": [2, 2]})], {"outputs": ("y", "f", "r")}, "Conv:v",
     "'v' is read 2 times"),
    ([("Conv", "x h", "r", PAD), ("Conv", "r h2", "y", {})], {"element": TensorProto.FLOAT16},
     "Conv:r", "'h' is not float32"),
])  # fmt: skip
def test_what_is_left(nodes, options, first, why, tmp_path, monkeypatch):
    """Each product that is not the first of a pair, with the reason; of a network without a pair
    the first such reason is the error."""
    more = {"w3": wild(8, 6, 1, 1), "w8": wild(4, 8, 1, 1), "g8": wild(8, 5),
            "h2": wild(8, 6, 1, 1).astype(np.float16)}  # fmt: skip
    for name, value in more.items():
        monkeypatch.setitem(WEIGHTS, name, value)
    onnx.save(model(nodes, **options), tmp_path / "net.onnx")
    run = _Equalising(read_simplified(tmp_path / "net.onnx", {}))
    pairs = [n for n in run.products if run.second(n)]
    assert run.left[first] == why
    if pairs:
        assert equalised(tmp_path / "net.onnx").left == run.left
        return
    with pytest.raises(CodegenError, match="nothing to equalise .Conv:") as caught:
        equalised(tmp_path / "net.onnx")
    assert next(iter(run.left.values())) in str(caught.value)


def test_a_network_without_products(tmp_path):
    onnx.save(model([("Relu", "x", "y", {})]), tmp_path / "net.onnx")
    with pytest.raises(CodegenError, match="nothing to equalise .it has no convolution or Gemm"):
        equalised(tmp_path / "net.onnx")


def test_calibrated_in_place_of_the_model(tmp_path):
    """Ranges, build and accuracy are of the file that was written."""
    source, made = MODELS / "mlperf_ic_resnet8.onnx", tmp_path / "eq.onnx"
    ranges = tmp_path / "c.json"
    x = np.random.default_rng(0).integers(0, 256, (40, 32, 32, 3)).astype(np.float32)
    np.savez(tmp_path / "x.npz", x=x)

    def run(*args: str) -> str:
        done = CliRunner().invoke(cli, list(args), catch_exceptions=False)
        assert done.exit_code == 0, done.output
        return done.stdout + done.stderr

    given = ("--data", str(tmp_path / "x.npz"), "--half", "0", "--out", str(ranges))
    said = run("calibrate", str(source), *given, "--equalise", str(made), "-v")
    assert f"3 pair(s) of layers equalised in {made}" in said
    assert "conv2d_1 and conv2d_2" in said
    assert "not conv2d_2" in said
    judged = ("--board", "local", "--calibration", str(ranges), "--data", str(tmp_path / "x.npz"),
              "--half", "1", "--metric", "cosine", "--json", "-q")  # fmt: skip
    scores = json.loads(run("accuracy", str(made), *judged))
    assert scores["plans"]["int8"]["cosine"]["value"] > 0.98
    with pytest.raises(CodegenError, match="made for model"):
        run("accuracy", str(source), *judged)


@pytest.mark.parametrize(("out", "said"), [
    ("model.onnx", "--equalise: .* is another file of this command"),
    ("data.npz", "--equalise: .* is another file of this command"),
    ("c.json", "--equalise: .* is another file of this command"),
    ("data.npz/eq.onnx", "--equalise: .* cannot be written"),
])  # fmt: skip
def test_files_that_are_not_written(out, said, tmp_path):
    model_file = tmp_path / "model.onnx"
    model_file.write_bytes((MODELS / "mlperf_ic_resnet8.onnx").read_bytes())
    np.savez(tmp_path / "data.npz", x=np.zeros((8, 32, 32, 3), np.float32))
    before = model_file.read_bytes()
    asked = ["calibrate", str(model_file), "--data", str(tmp_path / "data.npz"), "--equalise",
             str(tmp_path / out), "--out", str(tmp_path / "c.json")]  # fmt: skip
    with pytest.raises(CodegenError, match=said):
        CliRunner().invoke(cli, asked, catch_exceptions=False)
    assert model_file.read_bytes() == before
    assert not (tmp_path / "c.json").exists()


def test_constants_are_weights_too(tmp_path):
    """As nodes, which some exporters write."""
    whole = model(CHAINS["Relu"])
    want = equalised_weights(whole, tmp_path)
    nodes = [helper.make_node("Constant", [], [t.name], value=t) for t in whole.graph.initializer]
    del whole.graph.initializer[:]
    kept = list(whole.graph.node)
    del whole.graph.node[:]
    whole.graph.node.extend([*nodes, *kept])
    got = equalised_weights(whole, tmp_path)
    assert got.keys() == want.keys()
    for name, value in want.items():
        np.testing.assert_array_equal(got[name], value)


def equalised_weights(whole: onnx.ModelProto, folder) -> dict[str, np.ndarray]:
    onnx.save(whole, folder / "net.onnx")
    made = equalised(folder / "net.onnx").model
    return {t.name: numpy_helper.to_array(t) for t in made.graph.initializer}


def test_a_file_with_shapes_of_its_own(tmp_path):
    """What --shape pinned is in the file, which needs none any more."""
    whole = model(CHAINS["Relu"])
    for port in (whole.graph.input[0], whole.graph.output[0]):
        port.type.tensor_type.shape.dim[0].dim_param = "N"
    onnx.save(whole, tmp_path / "net.onnx")
    np.save(tmp_path / "x.npy", np.random.default_rng(0).standard_normal((9, 3, 8, 8)))
    made, ranges = str(tmp_path / "eq.onnx"), str(tmp_path / "c.json")
    for args in (
        ["calibrate", str(tmp_path / "net.onnx"), "--shape", "x=1x3x8x8", "--data",
         str(tmp_path / "x.npy"), "--equalise", made, "--out", ranges],
        ["build", made, "--board", "local", "--calibration", ranges, "--no-verify", "--out",
         str(tmp_path / "lib")],
    ):  # fmt: skip
        done = CliRunner().invoke(cli, args, catch_exceptions=False)
        assert done.exit_code == 0, done.output


def test_another_network_is_not_written(tmp_path, monkeypatch):
    """Should equalisation ever be wrong."""
    onnx.save(model(CHAINS["Relu"]), tmp_path / "net.onnx")
    np.save(tmp_path / "x.npy", np.random.default_rng(0).standard_normal((9, 3, 8, 8)))
    right = weights.equalise
    monkeypatch.setattr("codegen.onnx_equalise.equalise",
                        lambda *a: (right(*a)[0], a[1], np.ones(len(a[0]))))  # fmt: skip
    asked = ["calibrate", str(tmp_path / "net.onnx"), "--data", str(tmp_path / "x.npy"),
             "--equalise", str(tmp_path / "eq.onnx"),
             "--out", str(tmp_path / "c.json")]  # fmt: skip
    with pytest.raises(CodegenError, match="equalised it would compute something else"):
        CliRunner().invoke(cli, asked, catch_exceptions=False)
    assert not (tmp_path / "eq.onnx").exists()
