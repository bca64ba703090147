"""Networks in int8: the pass, and `build --calibration`."""

import json
from dataclasses import replace

import numpy as np
import pytest
from click.testing import CliRunner

from codegen.board import load_board
from codegen.builder import Builder
from codegen.calibration.corrections import Corrections
from codegen.compare import difference
from codegen.errors import CodegenError
from codegen.graph import Tensor
from codegen.heuristic import default_plan
from codegen.interpret import evaluate, interpret
from codegen.kernels import load_kernels, refusal
from codegen.layer import layer_of
from codegen.passes.quantise import bits_of, quantise, sums_fit
from codegen.passes.scales import scale_of
from codegen.pipeline import computed_graph, finish, generate, load_graph
from codegen.plan import plan_of_dict
from codegen.precision import int8_rows
from codegen.program import bench_program
from codegen.reference import Interpreted, random_inputs
from codegen.report import _single_layers
from codegen.resources import examples_dir
from codegen.types import DType
from codegen.verbs.bench import bench
from codegen.verbs.build import build
from codegen.verbs.calibrate import calibrate
from codegen.verbs.price import price
from codegen.verbs.profile import profile
from codegen.verbs.verify import verify

MODELS = examples_dir() / "models"
KWS = MODELS / "mlperf_kws_dscnn.onnx"
BOARD = load_board("local")
INT8 = [r for r in load_kernels().values() if r.family in ("qconv2d", "qdense")]


def spans_of(graph, inputs) -> dict[str, tuple[float, float]]:
    values = evaluate(graph, inputs)
    floats = {k: v for k, v in values.items() if graph.tensors[k].dtype == DType.F32}
    return {k: (float(v.min()), float(v.max())) for k, v in floats.items()
            if k not in graph.constants}  # fmt: skip


@pytest.mark.parametrize("name", ["mlperf_kws_dscnn", "mlperf_ic_resnet8", "mlperf_vww_mbv1_025"])
def test_a_network_in_int8_is_like_the_float_one(name):
    graph = load_graph(MODELS / f"{name}.onnx")
    inputs = random_inputs(graph, 0)
    made = quantise(graph, spans_of(graph, inputs), int8_rows(BOARD))
    assert not [n for n in made.nodes if n.op in ("Conv", "Dense")]
    assert {n.name for n in graph.nodes if n.op == "Conv"} == {
        n.name for n in made.nodes if n.op == "QConv"
    }
    y, ref = interpret(made, inputs), interpret(graph, inputs)
    assert all(difference(y[t], ref[t]).cosine > 0.995 for t in graph.outputs)
    assert [made.tensors[t].dtype for t in (*made.inputs, *made.outputs)] == [
        graph.tensors[t].dtype for t in (*graph.inputs, *graph.outputs)
    ]


def test_only_the_named_nodes_are_in_int8():
    graph = load_graph(KWS)
    convs = [n.name for n in graph.nodes if n.op == "Conv"]
    spans = spans_of(graph, random_inputs(graph, 0))
    bits = {convs[1]: 8, convs[3]: 5}
    made = quantise(graph, spans, int8_rows(BOARD), bits)
    assert [n.name for n in made.nodes if n.op == "QConv"] == list(bits)
    wide, narrow = (
        np.abs(made.constants[n.inputs[1]]).max() for n in made.nodes if n.op == "QConv"
    )
    assert (wide, narrow) == (127, 15)


@pytest.mark.parametrize("width", [7, 5, 4])
def test_weights_of_fewer_bits(width):
    """Kernels for so many bits take them, and those for fewer do not."""
    graph = load_graph(KWS)
    bits = {n.name: width for n in graph.nodes if n.op in ("Conv", "Dense")}
    spans = spans_of(graph, random_inputs(graph, 0))
    made = quantise(graph, spans, int8_rows(BOARD), bits)
    assert bits_of(made) == bits
    for node in (n for n in made.nodes if n.name in bits):
        assert np.abs(made.constants[node.inputs[1]]).max() == 2 ** (width - 1) - 1
        layer = layer_of(made, node, "nhwc")
        for row in (r for r in INT8 if "bits" in r.when and r.family == layer.family):
            refused = "needs bits" in refusal(row, layer, tuple(BOARD.isa))
            assert not refused or width > max(row.when["bits"])


@pytest.mark.parametrize("op", ["Conv", "Dense"])
def test_biases_make_up_for_rounded_weights(op):
    """With the means of the channels, the mean of each output is nearly that of the float one."""
    rng, b = np.random.default_rng(4), Builder("net")
    shape = {"Conv": (1, 12, 9, 9), "Dense": (1, 12)}[op]
    weights = {"Conv": (8, 6, 3, 3), "Dense": (12, 8)}[op]
    b.input(Tensor("x", shape, DType.F32))
    w = b.constant("w", rng.standard_normal(weights).astype(np.float32))
    attrs = {"group": 2} if op == "Conv" else {}
    graph = b.graph(["x"], list(b.add(op, ["x", w], attrs, "y")))
    samples = [{"x": 1 + rng.random(shape).astype(np.float32)} for _ in range(40)]
    spans = {"x": (0.0, 2.0), graph.outputs[0]: (-60.0, 60.0)}
    means = {"x": np.mean([s["x"] for s in samples], axis=(0, 1, 3, 4)[: len(shape)])}
    bits, errors = {graph.nodes[0].name: 4}, []
    for known in (Corrections(), Corrections(means)):
        made = quantise(graph, spans, int8_rows(BOARD), bits, known)
        off = [interpret(made, s)["y"] - interpret(graph, s)["y"] for s in samples]
        errors.append(np.abs(np.mean(off, axis=(0, 1, 3, 4)[: len(shape)])).max())
    assert errors[1] < errors[0] / 4


def test_data_is_moved_as_codes_where_that_is_asked_for():
    b = Builder("net")
    b.input(Tensor("x", (1, 2, 3, 3), DType.F32))
    graph = b.graph(["x"], list(b.add("Transpose", ["x"], {"perm": (0, 1, 3, 2)}, "y")))
    spans, node = spans_of(graph, random_inputs(graph, 0)), graph.nodes[0].name
    assert [n.op for n in quantise(graph, spans, int8_rows(BOARD)).nodes] == ["Transpose"]
    made = quantise(graph, spans, int8_rows(BOARD), {node: 8})
    assert [n.op for n in made.nodes] == ["Quantize", "Transpose", "Dequantize"]
    assert bits_of(made) == {node: 8}


def test_a_tensor_without_a_range_stays_float():
    graph = load_graph(KWS)
    convs = [n for n in graph.nodes if n.op == "Conv"]
    spans = spans_of(graph, random_inputs(graph, 0))
    del spans[convs[0].outputs[0]]
    made = quantise(graph, spans, int8_rows(BOARD))
    assert [n.name for n in made.nodes if n.op == "Conv"] == [n.name for n in convs[:2]]


@pytest.mark.parametrize("span", [(0.0, 6.0), (-1.0, 3.0), (2.0, 5.0), (-4.0, -1.0), (0.0, 0.0)])
def test_codes_cover_the_range_and_zero(span):
    s = scale_of(*span)
    assert -128 <= s.zero <= 127
    low, high = min(span[0], 0.0), max(span[1], 0.0)
    assert s.scale * (-128 - s.zero) <= low + s.scale / 2
    assert s.scale * (127 - s.zero) >= high - s.scale / 2


def test_weights_too_small_for_their_bias_get_a_coarser_scale():
    """A dead channel, as depthwise layers have them: its bias is all that it computes."""
    b = Builder("net")
    b.input(Tensor("x", (1, 2, 3, 3), DType.F32))
    w = b.constant("w", np.array([1e-12, 0.5], np.float32).reshape(2, 1, 1, 1))
    bias = b.constant("b", np.array([3.0, 0.25], np.float32))
    graph = b.graph(["x"], list(b.add("Conv", ["x", w, bias], {"group": 2}, "y")))
    inputs = random_inputs(graph, 1)
    made = quantise(graph, spans_of(graph, inputs), int8_rows(BOARD))
    y, ref = interpret(made, inputs), interpret(graph, inputs)
    assert np.abs(y["y"] - ref["y"]).max() < 0.03
    assert np.abs(y["y"][:, 0] - 3.0).max() < 0.02


def moved(b: Builder, x: str) -> str:
    """Two convolutions whose results are joined, pooled and convolved again."""
    rng = np.random.default_rng(1)
    parts = []
    for i, size in enumerate((1.0, 9.0)):
        w = b.constant(f"w{i}", size * rng.standard_normal((8, 8, 1, 1)).astype(np.float32))
        parts += b.add("Conv", [x, w], {}, f"c{i}")
    joined = b.add("Concat", parts, {"axis": 1}, "join")[0]
    w = b.constant("w3", rng.standard_normal((4, 16, 1, 1)).astype(np.float32))
    return b.add("Conv", [joined, w], {}, "last")[0]


def test_what_is_joined_has_one_scale_and_stays_in_int8():
    b = Builder("net")
    b.input(Tensor("x", (1, 8, 5, 5), DType.F32))
    graph = b.graph(["x"], [moved(b, "x")])
    inputs = random_inputs(graph, 3)
    made = quantise(graph, spans_of(graph, inputs), int8_rows(BOARD))
    join = next(n for n in made.nodes if n.op == "Concat")
    assert {made.tensors[t].dtype for t in (*join.inputs, *join.outputs)} == {DType.I8}
    y, ref = interpret(made, inputs), interpret(graph, inputs)
    assert difference(y["last"], ref["last"]).cosine > 0.999


def calibrated(tmp_path, model=KWS):
    shape = load_graph(model).tensors[load_graph(model).inputs[0]].shape[1:]
    np.save(tmp_path / "x.npy", np.random.default_rng(0).standard_normal((8, *shape)).astype("f4"))
    out = tmp_path / "calibration.json"
    args = [str(model), "--data", str(tmp_path / "x.npy"), "--out", str(out)]
    done = CliRunner().invoke(calibrate, args)
    assert done.exit_code == 0, done.output
    return out


def test_build(tmp_path):
    """Calibrate, build, build again by the plan: verified, and small."""
    ranges = calibrated(tmp_path)
    first = None
    for more in ([], ["--plan", str(tmp_path / "plan.json")]):
        out = tmp_path / f"out{len(more)}"
        args = [str(KWS), "--board", "local", "--out", str(out), "--calibration", str(ranges)]
        done = CliRunner().invoke(build, [*args, *more])
        assert "verified against integer arithmetic" in done.stderr, done.output
        report = json.loads((out / "report.json").read_text())
        assert report["verified"]
        assert report["dtype"] == "i8"
        assert report["cosine_to_float"] > 0.99
        plan = (out / "plan.json").read_text()
        assert first in (None, plan)
        first = plan
        (tmp_path / "plan.json").write_text(plan)
    args = [str(KWS), str(tmp_path / "out0"), "--seeds", "1"]
    assert CliRunner().invoke(verify, [*args, "--calibration", str(ranges)]).exit_code == 0
    for wrong, message in (
        ([], "--calibration: none for a library in i8"),
        (["--layers", "--calibration", str(ranges)], "--layers: a library in int8"),
    ):
        with pytest.raises(CodegenError, match=message):
            CliRunner().invoke(verify, [*args, *wrong], catch_exceptions=False)
    small, large = (
        sum(w.array.nbytes for w in g.schedule.program.weights)
        for g in (generate(KWS, BOARD, calibration=ranges), generate(KWS, BOARD))
    )
    assert small < large / 2


def test_a_plan_says_which_nodes_are_in_int8(tmp_path):
    """Half of the network back in float32: the plan is read as it was written, and computes."""
    ranges = calibrated(tmp_path)
    whole, single = generate(KWS, BOARD, calibration=ranges), generate(KWS, BOARD)
    convs = [n for n, c in whole.plan.nodes.items() if c.kernel.startswith("qconv2d")]
    coded = convs[len(convs) // 2 :]
    graph, _ = computed_graph(KWS, BOARD, calibration=ranges, bits=dict.fromkeys(coded, 8))
    plan = replace(default_plan(graph, BOARD, whole.plan.model_sha256), dtype="i8")
    made = finish(graph, plan, BOARD, KWS.name)
    assert list(made.plan.bits) == coded
    assert set(single.plan.nodes) < set(made.plan.nodes)
    (tmp_path / "mixed.json").write_text(made.plan.to_json())
    again = generate(KWS, BOARD, tmp_path / "mixed.json", calibration=ranges)
    assert again.sources.files == made.sources.files
    assert again.plan == made.plan


@pytest.mark.parametrize("bits", [3, 9, True, "8"])
def test_widths_that_are_none(tmp_path, bits):
    entry = {"kernel": "qconv2d_nhwc_i8_c", "layout": "nhwc", "bits": bits}
    raw = {"schema": 1, "model_sha256": "0", "board": "local", "threads": 1, "dtype": "i8",
           "nodes": {"a": entry}}  # fmt: skip
    with pytest.raises(CodegenError, match='"bits": 4 to 8'):
        plan_of_dict(raw, "plan.json")


@pytest.mark.parametrize(
    ("dtype", "with_ranges", "message"),
    [
        ("i8", False, "i8 without --calibration; int8 needs the ranges"),
        ("f32", True, "--calibration: .* beside f32; ranges are for int8"),
    ],
)
def test_int8_and_ranges_go_together(tmp_path, dtype, with_ranges, message):
    ranges = calibrated(tmp_path) if with_ranges else None
    with pytest.raises(CodegenError, match=message):
        computed_graph(KWS, BOARD, dtype=dtype, calibration=ranges)


def test_ranges_of_another_model(tmp_path):
    with pytest.raises(CodegenError, match="made for model"):
        computed_graph(MODELS / "mlperf_ic_resnet8.onnx", BOARD, calibration=calibrated(tmp_path))


def test_a_calibration_that_has_nothing_or_the_wrong_things(tmp_path):
    """Nothing in int8 is refused; a layer without range is named; means must fit the channels."""
    path = calibrated(tmp_path)
    whole = json.loads(path.read_text())
    changes = {
        "nothing": {"tensors": {}, "means": {}},
        "means": {"means": {k: v[1:] for k, v in whole["means"].items()}},
        "denormal": {"tensors": {k: {m: [0.0, 1e-45] for m in v}
                                 for k, v in whole["tensors"].items()}},
    }  # fmt: skip
    for name, change in changes.items():
        (tmp_path / name).write_text(json.dumps({**whole, **change}))
    with pytest.raises(CodegenError, match="nothing of this network can be in int8 by it"):
        generate(KWS, BOARD, calibration=tmp_path / "nothing")
    with pytest.raises(CodegenError, match="means for tensor .*; one for each of its .* channels"):
        generate(KWS, BOARD, calibration=tmp_path / "means")
    assert generate(KWS, BOARD, calibration=tmp_path / "denormal").plan.bits
    graph = load_graph(KWS)
    conv = next(n for n in graph.nodes if n.op == "Conv")
    del whole["tensors"][conv.inputs[0]]
    (tmp_path / "one").write_text(json.dumps(whole))
    made = generate(KWS, BOARD, calibration=tmp_path / "one")
    assert _single_layers(made) == [conv.name]
    assert _single_layers(generate(KWS, BOARD, calibration=path)) == []


def test_random_inputs_of_a_calibrated_network_are_all_that_codes_stand_for(tmp_path):
    graph = generate(KWS, BOARD, calibration=calibrated(tmp_path)).graph
    quantize = next(n for n in graph.nodes if n.op == "Quantize")
    scale, zero = (graph.constants[t].item() for t in quantize.inputs[1:])
    codes = random_inputs(graph, 0)["input"] / scale + zero
    assert -128 <= codes.min() < -120
    assert 120 < codes.max() <= 127


def test_integer_reference():
    graph = load_graph(KWS)
    inputs = random_inputs(graph, 0)
    reference = Interpreted(graph)
    assert reference.outputs == graph.outputs
    assert (reference.run(inputs)["output"] == interpret(graph, inputs)["output"]).all()


def test_bench_and_price_know_calibrations(tmp_path):
    ranges, stages = calibrated(tmp_path), []
    with bench_program(KWS, BOARD, None, {}, stages.append, calibration=ranges) as program:
        assert any(row["kernel"].startswith("qconv2d") for row in program.layers)
    built = bench_program(tmp_path, BOARD, None, {}, stages.append, calibration=ranges)
    with pytest.raises(CodegenError, match="--calibration: .* already built"), built:
        pass
    for verb in (bench, price, profile):
        assert "--calibration" in {o for p in verb.params for o in p.opts}


def test_sums_fit_in_32_bits():
    codes, largest = np.full((1, 4, 1, 1), 127, np.int8), 2**31 - 1
    assert sums_fit(codes, np.array([largest - 4 * 127 * 255]), 0)
    assert not sums_fit(codes, np.array([largest - 4 * 127 * 255 + 1]), 0)
    assert not sums_fit(codes.reshape(4, 1), np.array([-largest]), 1)
