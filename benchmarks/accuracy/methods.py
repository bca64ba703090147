"""How ranges are best found: each network wholly in int8 by each method and width of weights, on
the half of its data that was not calibrated on."""

import tempfile
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import cache, partial
from pathlib import Path

import numpy as np
import onnxruntime
from onnxruntime.quantization import CalibrationDataReader, QuantType, quantize_static

from benchmarks.accuracy.experiment import CALIBRATED, Prepared
from codegen.accuracy.gauge import Gauge, gauge_of, judge, outputs_of
from codegen.accuracy.metrics import parse_metrics
from codegen.accuracy.scores import Outputs
from codegen.board import load_board
from codegen.calibration.collect import Settings, calibrate
from codegen.calibration.data import Data, open_data
from codegen.calibration.record import CHOICES, OUTPUT, Calibration, read_calibration
from codegen.calibration.rounding import with_rounding
from codegen.errors import CodegenError
from codegen.graph import Graph
from codegen.heuristic import default_plan
from codegen.onnx_equalise import equalised
from codegen.passes.quantise import quantise
from codegen.pipeline import finish, load_graph, model_hash
from codegen.precision import int8_rows
from codegen.run import pick_runner
from codegen.types import DType

WIDTHS = (8, 7)
ROUNDED = OUTPUT  # the ranges with which rounding is tried
EQUALISED = "mse"  # and equalisation
_SCORES = ("agreement", "cosine")


def compare(
    made: Prepared, samples: int, known: Mapping[str, Mapping[str, float]]
) -> dict[str, Mapping[str, float]]:
    """Scores by "method, bits": those that are `known`, and the others measured. The arithmetic is
    integers, so that this machine computes what any board would; floats differ by roundings."""
    return {
        name: found
        for name, measure in _trials(made, samples).items()
        if (found := known.get(name) or measure())
    }


def _trials(made: Prepared, samples: int) -> dict[str, Callable[[], Mapping[str, float] | None]]:
    """What measures each; None, with a line that says why, where a network has no such thing."""
    graph = load_graph(made.model)
    first, second = (
        open_data([made.samples], [graph.tensors[t] for t in graph.inputs], half=half)
        for half in (0, 1)
    )
    gauge = gauge_of(made.model, {}, second, samples, 0)
    found = replace(read_calibration(made.calibration), rounding={})
    best = replace(found, method=ROUNDED)

    @cache
    def rounded() -> Calibration:
        return with_rounding(best, made.model, graph, first)[0]

    def judged(ranges: Calibration, bits: int) -> dict[str, float]:
        return _judged(made.model, graph, ranges, bits, gauge)

    out: dict[str, Callable[[], Mapping[str, float] | None]] = {
        f"{method}, {bits} bits": partial(judged, replace(found, method=method), bits)
        for method in CHOICES for bits in WIDTHS
    }  # fmt: skip
    for bits in WIDTHS:
        out[f"{EQUALISED}, {bits} bits, equalised"] = partial(
            _equalised, made, first, gauge, bits, replace(found, method=EQUALISED)
        )
    out[f"{ROUNDED}, 4 bits"] = partial(judged, best, 4)
    for bits in (7, 4):
        out[f"{ROUNDED}, {bits} bits, rounded"] = lambda b=bits: judged(rounded(), b)
    out["onnxruntime, 8 bits"] = partial(_by_onnxruntime, made, first, gauge)
    return out


def _equalised(
    made: Prepared, data: Data, gauge: Gauge, bits: int, before: Calibration
) -> dict[str, float] | None:
    """The network with channels alike, calibrated on the same samples."""
    try:
        found = equalised(made.model)
    except CodegenError as e:
        print(e, flush=True)
        return None
    with tempfile.TemporaryDirectory(prefix="codegen-methods-") as folder:
        path = Path(folder) / made.model.name
        path.write_bytes(found.model.SerializeToString())
        graph = load_graph(path)
        settings = Settings(before.method, samples=CALIBRATED)
        return _judged(path, graph, calibrate(path, graph, data, settings), bits, gauge)


def _by_onnxruntime(made: Prepared, data: Data, gauge: Gauge) -> dict[str, float] | None:
    try:
        return _scores(_onnxruntime(made, data, gauge), gauge)
    except Exception as e:  # of some networks its quantiser makes none, by errors of any type
        print(f"{made.model.stem}: onnxruntime quantises it to nothing that runs: {e}", flush=True)
        return None


def _judged(
    model: Path, floats: Graph, known: Calibration, bits: int, gauge: Gauge
) -> dict[str, float]:
    """The network with all that can be in int8, by the default plan."""
    board = load_board("local")
    graph = quantise(floats, known.spans, int8_rows(board), {n.name: bits for n in floats.nodes},
                     known.corrections)  # fmt: skip
    plan = replace(default_plan(graph, board, model_hash(model)), dtype=DType.I8.value)
    generated = finish(graph, plan, board, model.name)
    found = judge(generated, gauge, board, pick_runner(board), 3600.0)
    if isinstance(found, str):
        raise RuntimeError(f"{model.stem}: {found}")
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
        dict(zip(names, session.run(None, dict(x)), strict=True)) for x in gauge.inputs()
    ])  # fmt: skip


def _scores(found: Outputs, gauge: Gauge) -> dict[str, float]:
    metrics = [m for m in parse_metrics((), False) if m.name in _SCORES]
    return {m.name: m.measure(found, gauge).value for m in metrics}
