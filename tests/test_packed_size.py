"""Sizes of packed weights that are worked out beforehand, and plans that keep to a limit."""

from pathlib import Path

import pytest

from benchmarks.peers import report
from codegen.board import load_board
from codegen.constants import Constants
from codegen.errors import CodegenError
from codegen.kernels import load_kernels
from codegen.layer import layer_of
from codegen.packed_size import packed_bytes, weights_limit
from codegen.pipeline import generate
from codegen.weights import PACKERS
from tests.kernel_cases import make_graph, plan_nodes, trials

KWS = Path(__file__).resolve().parent.parent / "examples" / "models" / "mlperf_kws_dscnn.onnx"
RESNET8 = KWS.parent / "mlperf_ic_resnet8.onnx"
BOARD = load_board("jetson-nano-cpu")
PACKING = [r for r in load_kernels().values() if r.pack]


def packed(generated) -> int:
    return sum(w.array.nbytes for w in generated.schedule.program.weights)


@pytest.mark.parametrize("row", PACKING, ids=lambda r: r.name)
def test_size_is_what_the_packer_makes(row):
    batch = trials(row)
    graph = make_graph(batch, seed=1)
    choices = plan_nodes(graph, batch, row)
    checked = 0
    for node in graph.nodes:
        choice = choices.get(node.name)
        if choice is None or choice.kernel != row.name:
            continue
        layer = layer_of(graph, node, choice.layout)
        slope = node.activation.slope if node.activation else ""
        constants = tuple(graph.constants.get(t) for t in node.inputs[1:])
        made = PACKERS[row.pack](
            Constants(constants, graph.constants.get(slope), layer.dims, row.params)
        )
        assert packed_bytes(graph, node, layer, row) == sum(a.nbytes for _, a in made), node
        checked += 1
    assert checked


def test_limit_is_kept_where_it_costs_least():
    """Winograd's weights take more than twice their own size: the later layers, which have most of
    the weights, give it up first."""
    free, small, between = (generate(RESNET8, BOARD, max_weights=m) for m in ("", "1.1x", "2x"))
    own = free.graph.weights_bytes
    assert packed(free) > 2 * own
    assert packed(small) <= 1.1 * own < packed(between) <= 2 * own
    counts = [
        sum("winograd" in c.kernel for c in g.plan.nodes.values()) for g in (free, between, small)
    ]
    assert counts[0] > counts[1] > counts[2]
    first, *_, last = (c.kernel for c in between.plan.nodes.values() if "conv2d" in c.kernel)
    assert "winograd" in first
    assert "winograd" not in last


def test_a_limit_that_changes_nothing():
    free = generate(RESNET8, BOARD)
    assert generate(RESNET8, BOARD, max_weights=str(packed(free))).plan == free.plan


def test_what_a_plan_expects_is_what_is_packed():
    """A limit of exactly what a plan takes keeps it; one byte less does not."""
    free = generate(KWS, BOARD)
    limited = generate(KWS, BOARD, max_weights=str(packed(free) - 1))
    assert packed(limited) < packed(free)


def test_nothing_is_small_enough():
    with pytest.raises(CodegenError, match=r"--max-weights: 1,000 bytes; .* at least [\d,]+ bytes"):
        generate(KWS, BOARD, max_weights="1000")


@pytest.mark.parametrize("text", ["", "x", "1.1y", "-1", "1..1x", "12 M"])
def test_limit_that_is_none(text):
    with pytest.raises(CodegenError, match="--max-weights"):
        weights_limit(text, generate(KWS, BOARD).graph)


def test_units():
    graph = generate(KWS, BOARD).graph
    assert weights_limit("2K", graph) == weights_limit("2k", graph) == 2048
    assert weights_limit("1.5M", graph) == 3 << 19
    assert weights_limit("77", graph) == 77
    assert weights_limit("2x", graph) == 2 * graph.weights_bytes


def test_a_plan_that_is_given_knows_no_limit(tmp_path):
    plan = tmp_path / "plan.json"
    plan.write_text(generate(KWS, BOARD).plan.to_json())
    with pytest.raises(CodegenError, match="--max-weights: 2x beside --plan"):
        generate(KWS, BOARD, plan, max_weights="2x")


def test_tables_of_the_benchmarks():
    """Weights packed and not, what the small ones cost, and what else takes memory."""

    def row(engine, ms, peak, packed=None):
        figures = {"ms": ms, "peak_bytes": peak << 20, "weights_bytes": 4 << 20}
        return {"engine": engine, "model": "m", "core": "a57", "dtype": "f32", **figures,
                "packed_bytes": packed and packed << 20}  # fmt: skip

    rows = [row("codegen", 2.0, 11, 9), row("codegen-compact", 3.0, 7, 4), row("blas", 9.0, 12)]
    assert report.weights_table(rows).splitlines()[2] == (
        "| m | 4.00 | – | – | 9.00 | 4.00 (1.50x) | – | – |"
    )
    assert report.working_table(rows).splitlines()[2:] == ["| m | 2.00 | 8.00 | 4.00x |"]
    assert report.working_table(rows[1:]).splitlines()[2:] == []
