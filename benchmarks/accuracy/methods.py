"""How ranges are best found: each network wholly in int8 by each method and width of weights, on
the half of its data that was not calibrated on."""

from dataclasses import replace

from benchmarks.accuracy.experiment import Prepared
from codegen.accuracy.gauge import Gauge, gauge_of, judge
from codegen.accuracy.metrics import parse_metrics
from codegen.board import Board, load_board
from codegen.calibration.data import open_data
from codegen.calibration.record import METHODS, read_calibration
from codegen.heuristic import default_plan
from codegen.passes.quantise import quantise
from codegen.pipeline import Generated, finish, load_graph, model_hash
from codegen.precision import int8_rows
from codegen.run import pick_runner
from codegen.types import DType

WIDTHS = (8, 7)
_SCORES = ("agreement", "cosine")


def compare(made: Prepared, samples: int) -> dict[str, dict[str, float]]:
    """Scores by "method, bits". The arithmetic is integers, so that this machine computes what
    any board would; floats differ by roundings."""
    board = load_board("local")
    graph = load_graph(made.model)
    data = open_data([made.samples], [graph.tensors[t] for t in graph.inputs], half=1)
    gauge = gauge_of(made.model, {}, data, samples, 0)
    out = {}
    for method in METHODS:
        for bits in WIDTHS:
            out[f"{method}, {bits} bits"] = _scores(_whole(made, board, method, bits), gauge, board)
    return out


def _whole(made: Prepared, board: Board, method: str, bits: int) -> Generated:
    """The network with all that can be in int8, by the default plan."""
    known = replace(read_calibration(made.calibration), method=method)
    floats = load_graph(made.model)
    graph = quantise(floats, known.spans, int8_rows(board), {n.name: bits for n in floats.nodes},
                     known.corrections)  # fmt: skip
    plan = default_plan(graph, board, model_hash(made.model))
    return finish(graph, replace(plan, dtype=DType.I8.value), board, made.model.name)


def _scores(generated: Generated, gauge: Gauge, board: Board) -> dict[str, float]:
    found = judge(generated, gauge, board, pick_runner(board), 3600.0)
    if isinstance(found, str):
        raise RuntimeError(f"{generated.graph.name}: {found}")
    metrics = [m for m in parse_metrics((), False) if m.name in _SCORES]
    return {m.name: m.measure(found, gauge).value for m in metrics}
