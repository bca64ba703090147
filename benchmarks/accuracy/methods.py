"""How ranges are best found: each network wholly in int8 by each method and width of weights, on
the half of its data that was not calibrated on."""

import tempfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnxruntime
from onnxruntime.quantization import CalibrationDataReader, QuantType, quantize_static

from benchmarks.accuracy.experiment import CALIBRATED, Prepared
from codegen.accuracy.gauge import Gauge, gauge_of, judge, outputs_of
from codegen.accuracy.metrics import parse_metrics
from codegen.accuracy.scores import Outputs
from codegen.board import load_board
from codegen.calibration.data import Data, open_data
from codegen.calibration.record import CHOICES, OUTPUT, Calibration, read_calibration
from codegen.calibration.rounding import with_rounding
from codegen.graph import Graph
from codegen.heuristic import default_plan
from codegen.passes.quantise import quantise
from codegen.pipeline import finish, load_graph, model_hash
from codegen.precision import int8_rows
from codegen.run import pick_runner
from codegen.types import DType

WIDTHS = (8, 7)
ROUNDED = OUTPUT  # the ranges with which rounding is tried
_SCORES = ("agreement", "cosine")


def compare(made: Prepared, samples: int) -> dict[str, dict[str, float]]:
    """Scores by "method, bits". The arithmetic is integers, so that this machine computes what
    any board would; floats differ by roundings."""
    graph = load_graph(made.model)
    first, second = (
        open_data([made.samples], [graph.tensors[t] for t in graph.inputs], half=half)
        for half in (0, 1)
    )
    gauge = gauge_of(made.model, {}, second, samples, 0)
    known = replace(read_calibration(made.calibration), rounding={})
    out = {}
    for method in CHOICES:
        for bits in WIDTHS:
            ranges = replace(known, method=method)
            out[f"{method}, {bits} bits"] = _judged(made, graph, ranges, bits, gauge)
    ranges = replace(known, method=ROUNDED)
    rounded, _ = with_rounding(ranges, made.model, graph, first)
    out[f"{ROUNDED}, 4 bits"] = _judged(made, graph, ranges, 4, gauge)
    for bits in (7, 4):
        out[f"{ROUNDED}, {bits} bits, rounded"] = _judged(made, graph, rounded, bits, gauge)
    try:
        out["onnxruntime, 8 bits"] = _scores(_onnxruntime(made, first, gauge), gauge)
    except Exception as e:  # of some networks its quantiser makes none, by errors of any type
        print(f"{made.model.stem}: onnxruntime quantises it to nothing that runs: {e}", flush=True)
    return out


def _judged(
    made: Prepared, floats: Graph, known: Calibration, bits: int, gauge: Gauge
) -> dict[str, float]:
    """The network with all that can be in int8, by the default plan."""
    board = load_board("local")
    graph = quantise(floats, known.spans, int8_rows(board), {n.name: bits for n in floats.nodes},
                     known.corrections)  # fmt: skip
    plan = replace(default_plan(graph, board, model_hash(made.model)), dtype=DType.I8.value)
    generated = finish(graph, plan, board, made.model.name)
    found = judge(generated, gauge, board, pick_runner(board), 3600.0)
    if isinstance(found, str):
        raise RuntimeError(f"{made.model.stem}: {found}")
    return _scores(found, gauge)


class _Reader(CalibrationDataReader):
    """The samples that we calibrate on, for onnxruntime."""

    def __init__(self, data: Data):
        self.batches = data.batches(data.choose(CALIBRATED, 0))

    def get_next(self) -> dict[str, np.ndarray] | None:
        batch = next(self.batches, None)
        return dict(batch.inputs) if batch else None


def _onnxruntime(made: Prepared, data: Data, gauge: Gauge) -> Outputs:
    """What onnxruntime's static quantisation makes of the network, with its defaults but for
    scales per channel; without optimisations, whose kernels saturate sums on some machines."""
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    with tempfile.TemporaryDirectory(prefix="codegen-methods-") as folder:
        path = str(Path(folder) / "int8.onnx")
        quantize_static(str(made.model), path, _Reader(data), per_channel=True,
                        activation_type=QuantType.QInt8, weight_type=QuantType.QInt8)  # fmt: skip
        session = onnxruntime.InferenceSession(path, options, ["CPUExecutionProvider"])
    names = [o.name for o in session.get_outputs()]
    return outputs_of([
        dict(zip(names, session.run(None, dict(b.inputs)), strict=True)) for b in gauge.batches
    ])  # fmt: skip


def _scores(found: Outputs, gauge: Gauge) -> dict[str, float]:
    metrics = [m for m in parse_metrics((), False) if m.name in _SCORES]
    return {m.name: m.measure(found, gauge).value for m in metrics}
