"""What was measured before comes before the formula in the default plan."""

import pytest

from benchmarks.record import add_recorded
from codegen.board import load_board
from codegen.heuristic import default_plan
from codegen.kernels import load_kernels
from codegen.pipeline import load_graph
from codegen.recorded import FOLDER, load_recorded
from codegen.resources import examples_dir
from codegen.signature import signature_of

BOARD = load_board("jetson-nano-cpu")
MODEL = examples_dir() / "models" / "mlperf_kws_dscnn.onnx"


@pytest.fixture
def graph(monkeypatch, tmp_path):
    monkeypatch.setattr("tests.test_recorded.FOLDER", tmp_path)
    monkeypatch.setattr("codegen.heuristic.load_recorded", lambda core: load(core, tmp_path))
    return load_graph(MODEL)


def load(core, folder):
    load_recorded.cache_clear()
    return load_recorded(core, folder)


def _record(graph, **rows):
    layers = {
        signature_of(graph, n).key: {"nhwc": (rows[n.name], 1.0)}
        for n in graph.nodes if n.name in rows
    }  # fmt: skip
    add_recorded(BOARD.core, layers, {"core": BOARD.core}, FOLDER)


def _first_pointwise(graph):
    return next(n for n in graph.nodes if n.op == "Conv" and n.attrs["kernel_shape"] == (1, 1))


def test_a_recorded_row_is_taken(graph):
    node = _first_pointwise(graph)
    row = "conv2d_nhwc_f32_neon_gemm_4x4"  # which the formula would not take
    assert default_plan(graph, BOARD, "").nodes.get(node.name, None) != row
    _record(graph, **{node.name: row})
    plan = default_plan(graph, BOARD, "")
    assert plan.nodes[node.name].kernel == row
    assert plan.nodes[node.name].layout == "nhwc"


def test_a_group_that_was_not_worth_recording_is_not_taken(graph):
    assert any(c.group for c in default_plan(graph, BOARD, "").nodes.values())
    rows = {n.name: "conv2d_nhwc_f32_neon_gemm_4x16_k256" for n in graph.nodes if n.op == "Conv"}
    for n in graph.nodes:
        if n.op == "Conv" and n.attrs["group"] > 1:
            rows[n.name] = "conv2d_nhwc_f32_neon_depthwise_rows2"
    _record(graph, **rows)
    assert not any(c.group for c in default_plan(graph, BOARD, "").nodes.values())


def test_a_row_that_is_gone_leaves_it_to_the_formula(graph):
    before = default_plan(graph, BOARD, "")
    node = _first_pointwise(graph)
    _record(graph, **{node.name: "conv2d_nhwc_f32_neon_gone"})
    row = default_plan(graph, BOARD, "").nodes[node.name]
    assert row.kernel in load_kernels()
    assert before.nodes.keys() <= default_plan(graph, BOARD, "").nodes.keys()


def test_a_core_without_figures_takes_those_of_the_nearest(graph, tmp_path):
    add_recorded("cortex-a57", {"a": {"nhwc": ("x", 1.0)}, "b": {"nhwc": ("x", 2.0)}}, {}, tmp_path)
    add_recorded("cortex-a72", {"b": {"nhwc": ("y", 3.0)}}, {}, tmp_path)
    found = load("cortex-a72", tmp_path)
    assert found == {"a": {"nhwc": ("x", 1.0)}, "b": {"nhwc": ("y", 3.0)}}
    assert load("cortex-a76", tmp_path) == {}


def test_a_recorded_row_may_read_another_layout_than_it_writes(graph):
    """It is taken where what it saves of the change of layout makes up for what it costs more."""
    graph = load_graph(MODEL.with_name("mlperf_ic_resnet8.onnx"))  # an image of three channels
    first = next(n for n in graph.nodes if n.op == "Conv")
    plain, reads = "conv2d_nhwc_f32_neon_im2col_8x8", "conv2d_nhwc_f32_neon_planes_8x8"
    for cost, row in ((12.0, reads), (1000.0, plain)):
        found = {"nhwc": (plain, 10.0), "nchw>nhwc": (reads, cost)}
        add_recorded(BOARD.core, {signature_of(graph, first).key: found}, {}, FOLDER)
        default = default_plan(graph, BOARD, "0" * 64)
        # groups that are not recorded cannot outbid a layer that is
        assert default.nodes[first.name].kernel == row


@pytest.mark.parametrize("path", sorted(FOLDER.glob("*.json")), ids=lambda p: p.stem)
def test_files_name_layouts_and_costs(path):
    """What comes with the program can be read, and most of its rows still exist."""
    layers = load_recorded(path.stem)
    assert layers
    best = [b for layer in layers.values() for b in layer.values()]
    assert {x for layer in layers.values() for x in layer} <= {"nchw", "nhwc", "nchw>nhwc"}
    assert all(cost > 0 for _, cost in best)
    known = load_kernels()
    assert sum(row in known for row, _ in best) > 0.5 * len(best)
