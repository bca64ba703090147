"""A network in float16: what becomes of its tensors, who may ask for it, and what it computes."""

import json
from pathlib import Path

import numpy as np
import onnx
import pytest
from click.testing import CliRunner
from onnx import TensorProto, numpy_helper

from codegen.board import load_board
from codegen.builder import Builder
from codegen.compare import TOLERANCE, difference
from codegen.errors import CodegenError
from codegen.graph import Tensor
from codegen.interpret import interpret
from codegen.models.fetch import fetch
from codegen.onnx_import import import_onnx
from codegen.passes import optimise
from codegen.passes.halve import COMPUTES, FOLLOWS, halve
from codegen.passes.widen import has_half, widen
from codegen.pipeline import computed_graph, generate
from codegen.plan import read_plan
from codegen.precision import check_dtype
from codegen.reference import random_inputs
from codegen.resources import examples_dir
from codegen.run import pick_runner
from codegen.toolchain import find_toolchain
from codegen.types import DType
from codegen.verbs.bench import bench
from codegen.verbs.build import build

MODELS = examples_dir() / "models"
KWS = MODELS / "mlperf_kws_dscnn.onnx"
BOARD = load_board("raspberry-pi-5")


def _half_file(folder: Path, keep_ports: bool = False) -> Path:
    """The keyword spotter as a converter to float16 would write it."""
    model = onnx.load(KWS)
    graph = model.graph
    for t in graph.initializer:
        if t.data_type == TensorProto.FLOAT:
            t.CopyFrom(
                numpy_helper.from_array(numpy_helper.to_array(t).astype(np.float16), t.name)
            )
    for info in (*graph.input, *graph.output, *graph.value_info):
        if info.type.tensor_type.elem_type == TensorProto.FLOAT:
            info.type.tensor_type.elem_type = TensorProto.FLOAT16
    if keep_ports:
        _cast_ports(graph)
    path = folder / "half.onnx"
    onnx.save(model, path)
    return path


def _cast_ports(graph: onnx.GraphProto) -> None:
    x, y = graph.input[0], graph.output[0]
    for node in graph.node:
        node.input[:] = ["x_half" if i == x.name else i for i in node.input]
        node.output[:] = ["y_half" if o == y.name else o for o in node.output]
    for info in (x, y):
        info.type.tensor_type.elem_type = TensorProto.FLOAT
    first = onnx.helper.make_node("Cast", [x.name], ["x_half"], to=TensorProto.FLOAT16)
    last = onnx.helper.make_node("Cast", ["y_half"], [y.name], to=TensorProto.FLOAT)
    nodes = [first, *graph.node, last]
    del graph.node[:]
    graph.node.extend(nodes)


def _types(graph, op: str) -> set[DType]:
    return {graph.tensors[n.outputs[0]].dtype for n in graph.nodes if n.op == op}


def _casts(graph) -> list[str]:
    return [n.inputs[0] for n in graph.nodes if n.op == "Cast"]


# ---- the pass ------------------------------------------------------------------------------------


def test_what_has_a_kernel_is_half():
    graph, dtype = computed_graph(KWS, BOARD, dtype="f16")
    assert dtype == "f16"
    assert _types(graph, "Conv") == _types(graph, "Dense") == {DType.F16}
    assert _types(graph, "SoftmaxAxis") == {DType.F32}
    assert {graph.tensors[t].dtype for t in (*graph.inputs, *graph.outputs)} == {DType.F32}
    assert len(_casts(graph)) == 2


@pytest.mark.parametrize("model", sorted(MODELS.glob("*.onnx")), ids=lambda p: p.stem)
def test_values_are_those_of_the_float32_network(model):
    """Up to the rounding of the weights: the interpreter carries float64."""
    single, half = optimise(import_onnx(model)), computed_graph(model, BOARD, dtype="f16")[0]
    inputs = random_inputs(single, 3)
    expected, got = interpret(single, inputs), interpret(half, inputs)
    assert list(expected) == list(got)
    for name, value in expected.items():
        assert got[name].dtype == value.dtype
        assert difference(got[name], value).max_rel < 5e-3


def _small():
    """x -> Abs -> a, which an Exp and a sum read; two sums and a transposition are outputs."""
    b = Builder("small")
    b.input(Tensor("x", (1, 4, 2, 3), DType.F32))
    (a,) = b.add("Abs", ["x"], {}, "abs")
    (e,) = b.add("Exp", [a], {}, "exp")
    big = b.constant("big", np.full((1, 4, 2, 3), 1e5, np.float32))
    (s,) = b.add("Add", [a, e], {}, "sum", ["sum"])
    (t,) = b.add("Add", [s, big], {}, "large", ["large"])
    (moved,) = b.add("Transpose", [s], {"perm": (0, 2, 3, 1)}, "moved", ["moved"])
    return b.graph(["x"], [s, t, moved])


def _able(*names: str):
    return lambda _graph, node: (
        COMPUTES if node.name in names else FOLLOWS if node.op == "Transpose" else ""
    )


def test_casts_stand_where_types_meet_and_are_shared():
    graph = halve(_small(), _able("abs", "sum", "large"), {})
    made = {n.name: graph.tensors[n.outputs[0]].dtype for n in graph.nodes if n.op != "Cast"}
    assert made == {"abs": DType.F16, "exp": DType.F32, "sum": DType.F16, "large": DType.F32,
                    "moved": DType.F16}  # fmt: skip
    # x, a for exp, exp for the sum; the sum, as an output and for `large`, and what moves it
    assert len(_casts(graph)) == len(set(_casts(graph))) + 1 == 6
    assert {graph.tensors[t].dtype for t in graph.outputs} == {DType.F32}


def test_a_constant_beyond_float16_keeps_its_node_in_float32():
    graph = halve(_small(), _able("large"), {})
    assert not has_half(graph)


def test_nothing_follows_what_stays():
    assert not has_half(halve(_small(), _able(), {}))


def test_ports_may_be_half():
    graph = halve(_small(), _able("abs", "sum"), {"x": DType.F16, "sum": DType.F16})
    assert graph.tensors["x"].dtype == graph.tensors["sum"].dtype == DType.F16
    assert graph.tensors["large"].dtype == DType.F32
    readers = {n.name: n.inputs for n in graph.nodes}
    assert readers["abs"] == ("x",), "from the caller's float16 to float16 nothing is cast"


def test_a_half_output_of_a_float32_node_is_cast():
    graph = halve(_small(), _able(), {"large": DType.F16})
    assert graph.tensors["large"].dtype == DType.F16
    assert _casts(graph) == ["large_f32"]


# ---- float16 models ------------------------------------------------------------------------------


@pytest.mark.parametrize("keep_ports", [False, True], ids=["ports", "casts"])
def test_half_model_computes_in_half(tmp_path, keep_ports):
    path = _half_file(tmp_path, keep_ports)
    graph, dtype = computed_graph(path, BOARD)
    assert dtype == "f16"
    assert _types(graph, "Conv") == {DType.F16}
    port = DType.F32 if keep_ports else DType.F16
    assert {graph.tensors[t].dtype for t in (*graph.inputs, *graph.outputs)} == {port}
    assert len(_casts(graph)) == 2  # around the softmax, or at the input and before it


def test_half_model_computes_in_single(tmp_path):
    """On a board without float16 arithmetic, too."""
    path = _half_file(tmp_path)
    graph, _ = computed_graph(path, load_board("jetson-nano-cpu"), dtype="f32")
    assert _types(graph, "Conv") == {DType.F32}
    assert {graph.tensors[t].dtype for t in (*graph.inputs, *graph.outputs)} == {DType.F16}
    assert len(_casts(graph)) == 2


def test_idle_casts_go(tmp_path):
    wide = widen(import_onnx(_half_file(tmp_path, keep_ports=True)))
    assert not has_half(wide)
    assert not _casts(wide)


def test_cast_from_input_to_output_becomes_a_copy():
    b = Builder("cast")
    b.input(Tensor("x", (3,), DType.F16))
    (y,) = b.add("Cast", ["x"], {"to": "f32"}, "cast", ["y"])
    wide = widen(b.graph(["x"], [y]))
    assert [(n.op, n.inputs, n.outputs) for n in wide.nodes] == [("Copy", ("x",), ("y",))]


# ---- who may ask ---------------------------------------------------------------------------------


def test_unknown_type():
    with pytest.raises(CodegenError, match="--dtype: 'f8'; f32, f16, i8; name one of them"):
        check_dtype("f8", BOARD, "--dtype")


def test_board_without_float16(tmp_path):
    with pytest.raises(CodegenError, match="board jetson-nano-cpu, whose core .* has no fp16; .*"
                       "this one has neon; use --dtype f32, or another board"):  # fmt: skip
        generate(KWS, load_board("jetson-nano-cpu"), dtype="f16")
    with pytest.raises(CodegenError, match="half.onnx: float16 arithmetic on board"):
        generate(_half_file(tmp_path), load_board("raspberry-pi-4"))


def test_plan_says_the_type(tmp_path):
    made = generate(KWS, BOARD, dtype="f16")
    file = tmp_path / "plan.json"
    file.write_text(made.plan.to_json())
    assert read_plan(file).dtype == "f16"
    again = generate(KWS, BOARD, file)
    assert again.sources.files == made.sources.files
    with pytest.raises(CodegenError, match="--dtype: f32, but .*plan.json is a plan for f16; f16"):
        generate(KWS, BOARD, file, dtype="f32")
    file.write_text(made.plan.to_json().replace('"dtype": "f16"', '"dtype": "f8"'))
    with pytest.raises(CodegenError, match="plan.json: 'f8'; f32, f16, i8; name one of them"):
        generate(KWS, BOARD, file)
    single = generate(KWS, BOARD)
    assert single.plan.dtype == "f32"
    assert '"dtype"' not in single.plan.to_json()


def test_built_folder_has_its_type(tmp_path):
    done = CliRunner().invoke(bench, [str(tmp_path), "--board", BOARD.name, "--dtype", "f16"])
    assert isinstance(done.exception, CodegenError)
    assert "--dtype" in str(done.exception)


# ---- end to end ----------------------------------------------------------------------------------


def _built(model: Path, folder: Path, *args: str) -> dict:
    try:
        find_toolchain(BOARD)
    except CodegenError as e:
        pytest.skip(str(e))
    if pick_runner(BOARD, "qemu") is None:
        pytest.skip(f"no qemu runs code for {BOARD.name} here")
    command = [str(model), "--board", BOARD.name, "--runner", "qemu", "--out", str(folder), *args]
    done = CliRunner().invoke(build, command, standalone_mode=False)
    assert (done.exception, done.return_value) == (None, 0), done.output
    report = json.loads((folder / "report.json").read_text())
    assert report["verified"]
    assert report["max_rel_error"] <= TOLERANCE["f16"]
    return report


def test_keyword_spotter(tmp_path):
    single = generate(KWS, BOARD)
    report = _built(KWS, tmp_path / "kws", "--dtype", "f16")
    assert report["dtype"] == "f16"
    assert report["weights_bytes"] < 0.51 * sum(
        w.array.nbytes for w in single.schedule.program.weights
    )
    assert report["single_layers"] == ["dense/softmax"]


def test_half_keyword_spotter(tmp_path):
    _built(_half_file(tmp_path), tmp_path / "half", "--threads", "2")


@pytest.mark.slow
@pytest.mark.parametrize("model", ["mlperf_ic_resnet8", "mlperf_vww_mbv1_025", "mnist8"])
def test_bundled_network(model, tmp_path):
    _built(MODELS / f"{model}.onnx", tmp_path / "out", "--dtype", "f16", "--seeds", "5")


@pytest.mark.slow
@pytest.mark.parametrize("model", ["mobilenet_v1", "mobilenet_v2", "squeezenet1_1", "resnet18"])
def test_large_network(model, tmp_path):
    _built(fetch(model), tmp_path / "out", "--dtype", "f16", "--timeout", "3600")
