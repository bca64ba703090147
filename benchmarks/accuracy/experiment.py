"""One network on one board: calibrated on one half of the data, searched and tested on the
other."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from benchmarks.accuracy.samples import SOURCES, write_labelled, write_samples
from benchmarks.search.experiment import tools_for
from codegen.accuracy.gauge import Gauge, gauge_of, judge, native
from codegen.accuracy.metrics import parse_metrics, table_of
from codegen.accuracy.scores import Outputs
from codegen.board import Board
from codegen.calibration.collect import Settings, calibrate
from codegen.calibration.data import open_data
from codegen.calibration.record import OUTPUT, Calibration
from codegen.calibration.rounding import narrow_widths, with_rounding
from codegen.calibration.sensitivity import with_sensitivity
from codegen.graph import Graph
from codegen.layer import layer_of
from codegen.ops import OPS
from codegen.ops.quantised import BITS
from codegen.pipeline import load_graph
from codegen.run.local import LocalRunner
from rl.finalists import Finalist
from rl.limits import Limits
from rl.request import Request
from rl.tune import Tools, Tuned, milliseconds, tune

CALIBRATED = 200  # samples, at most
# Samples over which losses of layers are measured: as many as make so many multiply-adds.
_LEAST, _MOST, _WORK = 12, 64, 1_000_000_000
COSINE, AGREEMENT, DROP = 0.99, 0.98, 0.005
MANY = 2000  # labelled samples, from which on the loss of top-1 is a limit, below it agreement is
_TIMEOUT_S = 7200.0
_CALIBRATION = "calibration.json"


@dataclass(frozen=True)
class Prepared:
    """A network, its samples, those with labels where these are others, and what was found on the
    first half."""

    model: Path
    samples: Path
    labelled: Path | None
    calibration: Path


def prepare(model: Path, folder: Path) -> Prepared:
    """The same for all boards; what is in the folder is not made again."""
    path = write_samples(model.stem, folder)
    found = folder / _CALIBRATION
    if not found.exists():
        found.write_text(_calibrated(model, path).to_json())
    return Prepared(model, path, write_labelled(model.stem, folder), found)


def run(made: Prepared, board: Board, jobs: int, samples: int, objects: Path) -> dict[str, Any]:
    """Everything that docs/ACCURACY.md says of a network: plans are judged on at most so many
    samples of the half that was not calibrated on. `objects` keeps compiled kernels."""
    tools = replace(tools_for(board, jobs), objects=objects)
    graph = load_graph(made.model)
    data = open_data([made.samples], [graph.tensors[t] for t in graph.inputs], half=1)
    limits = Limits(cosine=COSINE)
    if data.labels is not None and len(data) >= MANY:
        limits = replace(limits, drop=DROP)
    else:
        limits = replace(limits, agreement=AGREEMENT)
    request = Request(made.model, board, jobs=jobs, limits=limits, calibration=made.calibration,
                      data=data, samples=samples, timeout_s=_TIMEOUT_S)  # fmt: skip
    tuned = tune(request, tools)
    gauges = [gauge_of(made.model, {}, data, samples, 0)]
    if made.labelled and made.labelled != made.samples:
        labelled = open_data([made.labelled], [graph.tensors[t] for t in graph.inputs], half=1)
        gauges.append(gauge_of(made.model, {}, labelled, samples, 0))
    return _figures(tuned, gauges, board, tools)


def _calibrated(model: Path, path: Path) -> Calibration:
    graph = load_graph(model)
    data = open_data([path], [graph.tensors[t] for t in graph.inputs], half=0)
    found = calibrate(model, graph, data, Settings(OUTPUT, samples=CALIBRATED))
    found, _ = with_rounding(found, model, graph, data)
    widths = (BITS, *narrow_widths())
    return with_sensitivity(found, model, graph, data, _losses(graph), widths=widths)


def _losses(graph: Graph) -> int:
    products = [(n, macs) for n in graph.nodes if (macs := OPS[n.op].macs)]
    macs = sum(macs(layer_of(graph, n, "nchw").dims) for n, macs in products)
    return min(max(_WORK // macs, _LEAST), _MOST)


def _figures(
    tuned: Tuned, gauges: Sequence[Gauge], board: Board, tools: Tools
) -> dict[str, Any]:
    """Top-1 of the last gauge, the rest of the first."""
    sound = [f for f in tuned.finalists if not f.measured.error]
    floats = [f for f in sound if not f.plan.bits]
    plans = {
        "float32": min(floats, key=lambda f: f.measured.cost),
        "int8": next((f for f in sound if "default in int8" in f.names), None),
        "chosen": tuned.chosen,
    }
    plans = {name: f for name, f in plans.items() if f}
    scores: dict[str, dict[str, Any]] = {"float model": {}, **{name: {} for name in plans}}
    for gauge in reversed(gauges):
        metrics = parse_metrics((), gauge.labels is not None)
        outputs = {n: _outputs(f, gauge, board, tools) for n, f in plans.items()}
        table = table_of({"float model": gauge.floats, **outputs}, gauge, metrics)
        for name, found in table.items():
            scores[name] |= found
    rows = {n: {**_plan(f, tuned, board), "scores": scores[n]} for n, f in plans.items()}
    greedy = next((f for f in sound if "greedy" in f.names), None)
    return {
        "greedy": _plan(greedy, tuned, board) if greedy else None,
        "samples": len(gauges[0]), "independent": gauges[0].independent,
        "labelled": sum(len(g) for g in gauges if g.labels is not None),
        "scores": scores["float model"], "plans": rows,
    }  # fmt: skip


def _outputs(finalist: Finalist, gauge: Gauge, board: Board, tools: Tools) -> Outputs:
    here = native(finalist.generated, tools.checker)
    place = (here, LocalRunner()) if here else (board, tools.checker)
    found = judge(finalist.generated, gauge, *place, _TIMEOUT_S, tools.objects)
    if isinstance(found, str):
        raise RuntimeError(f"{', '.join(finalist.names)}: {found}")
    return found


def _plan(finalist: Finalist, tuned: Tuned, board: Board) -> dict[str, Any]:
    m, widths = finalist.measured, list(finalist.plan.bits.values())
    layers = {n.name for n in finalist.generated.graph.nodes if n.op in ("QConv", "QDense")}
    weights = sum(w.array.nbytes for w in finalist.generated.schedule.program.weights)
    return {
        "ms": round(milliseconds(m.cost, tuned.priced.table.unit, board), 4),
        "arena_bytes": m.arena_bytes,
        "flash_bytes": m.flash_bytes,
        "weights_bytes": weights,
        "int8_layers": len(layers),
        "layers": sum(n.op in ("QConv", "QDense", "Conv", "Dense", "ConvChain")
                      for n in finalist.generated.graph.nodes),
        "narrow": sum(w < 8 for w in widths),
    }  # fmt: skip


__all__ = ["AGREEMENT", "COSINE", "DROP", "MANY", "SOURCES", "prepare", "run"]
