"""Weights that are mostly zeros: which layers are marked, how their blocks are stored, and that
plans take the rows for them where these pay and nowhere else."""

import math
from dataclasses import replace

import numpy as np
import onnx
import pytest

from benchmarks.sparse import layer_graph, pruned
from codegen.board import load_board
from codegen.compare import difference, passes
from codegen.graph import Graph
from codegen.heuristic import default_plan
from codegen.interpret import interpret
from codegen.layer import layer_of
from codegen.passes.quantise import quantise
from codegen.passes.sparse import mark_sparse
from codegen.pipeline import finish, load_graph
from codegen.pricing.trials import trials
from codegen.reference import random_inputs
from codegen.resources import examples_dir
from codegen.signature import graph_of, signature_of
from codegen.sparsity import (
    LEAST_ZEROS,
    MOST_INPUTS,
    blocks_high,
    compress,
    count_nonzero,
    is_sparse,
    typical,
)
from tests.kernel_cases import sparse_weights
from tests.library import compiled, quickest_board, run_harness

BOARDS = [load_board(b) for b in ("raspberry-pi-3b-plus", "jetson-nano-cpu", "raspberry-pi-4")]
MODELS = examples_dir() / "models"
VWW = MODELS / "mlperf_vww_mbv1_025.onnx"


def unpacked(w: np.ndarray, part: int) -> np.ndarray:
    """What kernels make of the blocks."""
    k, n = w.shape
    blocks, high = compress(w, part), blocks_high(n)
    out = np.zeros((k, 4 * high), w.dtype)
    for at in range(len(blocks.first) - 1):
        for i in range(blocks.first[at], blocks.first[at + 1]):
            j = at % high
            out[at // high * part + blocks.index[i], 4 * j : 4 * j + 4] = blocks.values[i]
    return out[:, :n]


@pytest.mark.parametrize(("k", "n"), [(1, 1), (9, 4), (12, 5), (40, 31)])
@pytest.mark.parametrize("zeros", [0.0, 0.7, 1.0])
def test_blocks_hold_the_weights(k, n, zeros):
    w = sparse_weights(k, n, zeros)
    for part in {k, -(-k // 2), min(4, k)}:
        assert (unpacked(w, part) == w).all()
        blocks = compress(w, part)
        assert blocks.first[-1] == count_nonzero(w) == len(blocks.values) - 1
        assert not blocks.values[-1].any()  # which is loaded ahead
        assert len(blocks.index) % 2 == 0
        assert len(blocks.index) >= len(blocks.values)
        assert (blocks.index < part).all()


def test_blocks_are_counted():
    w = np.zeros((3, 6), np.float32)
    assert count_nonzero(w) == 0
    w[0, :4] = 1  # a full block
    w[1, 3] = w[1, 4] = 1  # the ends of two
    assert count_nonzero(w) == 3


def test_how_many_zeros_are_sparse():
    total = 50 * blocks_high(10)
    most = int((1 - LEAST_ZEROS) * total + 1e-9)
    assert is_sparse(typical(50, 10, most))
    assert not is_sparse(typical(50, 10, most + 1))
    assert not is_sparse(np.zeros((MOST_INPUTS + 1, 1), np.float32))


@pytest.mark.parametrize("nonzero", [0, 1, 30, 60])
def test_typical_weights_have_so_many_blocks(nonzero):
    w = typical(20, 11, nonzero)
    assert w.shape == (20, 11)
    assert count_nonzero(w) == nonzero
    assert (w == typical(20, 11, nonzero)).all()


def marks(graph: Graph) -> list[int | None]:
    return [n.attrs.get("nonzero") for n in graph.nodes]


def test_only_pointwise_products_with_zeros_are_marked():
    few = 64 * 16 - math.ceil(0.8 * 64 * 16)
    assert marks(layer_graph(64, 64, 5, 0.8)) == [few]
    assert marks(layer_graph(64, 64, 0, 0.8)) == [few]
    assert marks(layer_graph(64, 64, 5, 0.6)) == [None]
    graph = layer_graph(64, 64, 5, 0.8)
    node = replace(graph.nodes[0], attrs={**graph.nodes[0].attrs, "strides": (2, 2)})
    del node.attrs["nonzero"]
    assert marks(mark_sparse(replace(graph, nodes=(node,)))) == [None]
    computed = replace(graph, constants={}, nodes=(replace(node, attrs={}),))
    assert marks(mark_sparse(computed)) == [None]


@pytest.mark.parametrize("name", ["mlperf_kws_dscnn", "mlperf_ic_resnet8", "mlperf_vww_mbv1_025"])
def test_networks_without_zeros_are_as_before(name):
    graph = load_graph(MODELS / f"{name}.onnx")
    assert mark_sparse(graph) == graph
    assert not any("nonzero" in n.attrs for n in graph.nodes)


@pytest.mark.parametrize("extent", [0, 7])
def test_a_signature_has_the_number_of_blocks(extent):
    graph = layer_graph(40, 24, extent, 0.75)
    signature = signature_of(graph, graph.nodes[0])
    again = graph_of(signature)
    node = again.nodes[0]
    w = again.constants[node.inputs[1]]
    assert count_nonzero(w.reshape(24, 40).T if extent else w) == node.attrs["nonzero"] == 60
    assert signature_of(again, node) == signature
    assert signature != signature_of(*_first(layer_graph(40, 24, extent, 0.8)))
    found = {t.candidate.kernel for t in trials(signature, BOARDS[1])}
    assert any("_sparse_" in k for k in found)
    assert any("_sparse_" not in k for k in found)


def _first(graph: Graph):
    return graph, graph.nodes[0]


@pytest.mark.parametrize("board", BOARDS, ids=lambda b: b.core)
@pytest.mark.parametrize("extent", [0, 7, 28])
def test_plans_take_the_rows_where_they_pay(board, extent):
    for zeros, taken in ((0.8, True), (0.5, False)):
        plan = default_plan(layer_graph(256, 256, extent, zeros), board, "0" * 64)
        assert ("_sparse_" in plan.nodes["layer"].kernel) == taken


def test_int8_knows_nothing_of_it():
    graph = layer_graph(64, 64, 5, 0.8)
    spans = dict.fromkeys(("x", *graph.outputs), (-1.0, 1.0))
    made = quantise(graph, spans, lambda *_: True)
    product = next(n for n in made.nodes if n.op == "QConv")
    assert "nonzero" not in product.attrs
    assert layer_of(made, product, "nhwc").dims["sparse"] == 0


def test_a_pruned_network(tmp_path):
    """Blocks of each 1x1 convolution are zeros; the library computes what the graph says."""
    path = tmp_path / "pruned.onnx"
    path.write_bytes(pruned(onnx.load(VWW), 0.8).SerializeToString())
    graph, board = load_graph(path), load_board(quickest_board())
    products = [n for n in graph.nodes if n.attrs.get("nonzero")]
    assert len(products) > 10
    plan = default_plan(graph, board, "0" * 64)
    assert sum("_sparse_" in c.kernel for c in plan.nodes.values()) > 5
    made = finish(graph, plan, board, path.name)
    expected = interpret(graph, random_inputs(graph, 0))
    for name, y in run_harness(compiled(made, board.name, tmp_path / "out"), "run", [0]).items():
        assert passes(difference(y, np.asarray(expected[name])), "f32")
