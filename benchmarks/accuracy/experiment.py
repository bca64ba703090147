"""One network on one board: calibrated on one half of the data, searched and tested on the
other."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from benchmarks.accuracy.samples import SOURCES, write_samples
from benchmarks.search.experiment import tools_for
from codegen.accuracy.gauge import Gauge, gauge_of, judge, native
from codegen.accuracy.metrics import parse_metrics, table_of
from codegen.board import Board
from codegen.calibration.collect import Settings, calibrate
from codegen.calibration.data import Data, open_data
from codegen.calibration.sensitivity import with_sensitivity
from codegen.pipeline import load_graph
from codegen.run.local import LocalRunner
from rl.finalists import Finalist
from rl.limits import Limits
from rl.request import Request
from rl.tune import Tools, Tuned, milliseconds, tune

CALIBRATED, LOSSES = 500, 12  # samples, at most
COSINE, AGREEMENT, DROP = 0.99, 0.98, 0.005
MANY = 2000  # labelled samples, from which on the loss of top-1 is a limit, below it agreement is
# Plans are judged on fewer samples than they are tested on: of what they may lose they get this.
_SHARE = 0.75
_TIMEOUT_S = 7200.0
_SAMPLES, _CALIBRATION = "samples.npz", "calibration.json"


@dataclass(frozen=True)
class Prepared:
    """A network, its samples, and what was found on the first half of them."""

    model: Path
    samples: Path
    calibration: Path


def prepare(model: Path, folder: Path) -> Prepared:
    """The same for all boards; what is in the folder is not made again."""
    if (folder / _CALIBRATION).exists():
        return Prepared(model, folder / _SAMPLES, folder / _CALIBRATION)
    path = write_samples(model.stem, folder)
    return Prepared(model, path, _calibrated(model, path, folder))


def run(made: Prepared, board: Board, jobs: int, searched: int, tested: int) -> dict[str, Any]:
    """Everything that docs/ACCURACY.md says of a network: plans are compared on `searched` samples
    of the half that was not calibrated on, and the chosen ones scored on `tested`, at most."""
    tools = tools_for(board, jobs)
    graph = load_graph(made.model)
    data = open_data([made.samples], [graph.tensors[t] for t in graph.inputs], half=1)
    limits = Limits(cosine=_within(COSINE))
    if data.labels is not None and len(data) >= MANY:
        limits = replace(limits, drop=DROP)
    else:
        limits = replace(limits, agreement=_within(AGREEMENT))
    request = Request(made.model, board, jobs=jobs, limits=limits, calibration=made.calibration,
                      data=data, samples=searched, timeout_s=_TIMEOUT_S)  # fmt: skip
    tuned = tune(request, tools)
    gauge = gauge_of(made.model, {}, data, tested, 0)
    return _figures(tuned, gauge, board, tools, data)


def _within(least: float) -> float:
    return 1.0 - (1.0 - least) * _SHARE


def _calibrated(model: Path, path: Path, folder: Path) -> Path:
    graph = load_graph(model)
    data = open_data([path], [graph.tensors[t] for t in graph.inputs], half=0)
    found = calibrate(model, graph, data, Settings(samples=CALIBRATED))
    found = with_sensitivity(found, graph, data, LOSSES)
    (folder / _CALIBRATION).write_text(found.to_json())
    return folder / _CALIBRATION


def _figures(
    tuned: Tuned, gauge: Gauge, board: Board, tools: Tools, data: Data
) -> dict[str, Any]:
    sound = [f for f in tuned.finalists if not f.measured.error]
    floats = [f for f in sound if not f.plan.bits]
    plans = {
        "float32": min(floats, key=lambda f: f.measured.cost),
        "int8": next((f for f in sound if "default in int8" in f.names), None),
        "chosen": tuned.chosen,
    }
    metrics = parse_metrics((), gauge.labels is not None)
    outputs, rows = {}, {}
    for name, finalist in plans.items():
        if finalist is None:
            continue
        made = finalist.generated
        here = native(made, tools.checker)
        place = (here, LocalRunner()) if here else (board, tools.checker)
        found = judge(made, gauge, *place, _TIMEOUT_S)
        if isinstance(found, str):
            raise RuntimeError(f"{name}: {found}")
        outputs[name], rows[name] = found, _plan(finalist, tuned, board)
    scores = table_of({"float model": gauge.floats, **outputs}, gauge, metrics)
    for name, row in rows.items():
        row["scores"] = scores[name]
    greedy = next((f for f in sound if "greedy" in f.names), None)
    return {
        "greedy": _plan(greedy, tuned, board) if greedy else None,
        "samples": len(gauge), "independent": gauge.independent, "of": len(data),
        "scores": scores["float model"], "plans": rows,
    }  # fmt: skip


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
