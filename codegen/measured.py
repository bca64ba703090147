"""What a run of the bench program says about a network and its layers, as plain values.

Every runner gives the same keys; what it cannot know is None. Only the virtual board counts
cycles, their causes and bytes; a real board's cycles come from its own counter or not at all.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from codegen.board import Board
from codegen.kernels import load_kernels
from codegen.program import Program
from codegen.run.base import Outcome
from codegen.run.statistics import median, summarise
from codegen.run.virtual import WHOLE
from codegen.run.virtual.traffic import traffic

# What the model does not see, shown wherever its figures are.
LIMITS = (
    "modelled, not measured; not seen: prfm, dc zva, TLB, L1I, banks, the order of requests in "
    "DRAM; int8 came out at 0.70 to 0.83 of published times (docs/VALIDATION.md)"
)
PARTS = ("core", "branch", "l2", "memory")
BOUNDS = {"core": "compute", "branch": "branch", "l2": "L2", "memory": "memory"}
_COUNTED = (*PARTS, "instructions", "events", "bytes", "intensity", "bound")


class Unsuitable(Exception):
    """The program ran, but its report is not that of a bench program."""


def modelled(program: Program, outcome: Outcome, board: Board) -> dict[str, Any]:
    """A run on the virtual board. Unsuitable where the program marks no regions."""
    regions = outcome.report["regions"]
    if str(WHOLE) not in regions:
        raise Unsuitable("the program marks no region; it was built by an older codegen: "
                        "build again")  # fmt: skip
    found = [
        (layer, regions[str(i)]) for i, layer in enumerate(program.layers, 1) if str(i) in regions
    ]
    whole = _whole(program)
    return {
        **_head(program, board, "virtual"),
        "basis": board.cycle_model.core.basis,
        "limits": LIMITS,
        **modelled_row(whole, regions[str(WHOLE)], board),
        "layers": [{**_name(x), **modelled_row(x, r, board)} for x, r in found],
    }


def modelled_row(
    layer: Mapping[str, Any], region: Mapping[str, Any], board: Board
) -> dict[str, Any]:
    """Figures of one region that does the multiply-adds of `layer`. `bound` is the part that takes
    the most cycles."""
    macs, moved = layer["macs"], traffic(region["events"])
    ns = region["cycles"] / board.clock_hz * 1e9
    parts = {part: region[part] for part in PARTS}
    return {
        "cycles": region["cycles"],
        "ms": region["ms"],
        **_speed(layer, ns, board),
        **parts,
        "instructions": region["instructions"],
        "events": region["events"],
        "bytes": asdict(moved),
        "intensity": {
            "l1_l2": _ratio(2 * macs, moved.l1_l2.both),
            "l2_memory": _ratio(2 * macs, moved.l2_memory.both),
        },
        "bound": BOUNDS[max(PARTS, key=lambda part: parts[part])],
    }


def timed(program: Program, outcome: Outcome, board: Board, runner: str) -> dict[str, Any]:
    """A run on something with a clock: the network's median, each layer's fastest run. Unsuitable
    where the program took no times."""
    report = outcome.report
    if not report.get("runs_ns"):
        raise Unsuitable("the program reports no times; it is not a bench program: build again")
    runs = summarise(report["runs_ns"])
    cycles, steps = report.get("cycles"), _steps(report.get("steps_ns", ()), program)
    return {
        **_head(program, board, runner),
        "basis": "measured",
        "limits": "",
        "cycles": round(median(sorted(cycles))) if cycles else None,
        **_timed_row(_whole(program), runs.median, board),
        "ms_min": _ms(runs.min),
        "ms_mad": _ms(runs.mad),
        "ms_interval": [_ms(runs.ci_low), _ms(runs.ci_high)],
        "runs": runs.runs,
        "noisy": runs.noisy,
        "cpu": report.get("cpu"),
        "conditions": report.get("conditions"),
        "layers": [
            {**_name(x), "cycles": None, **_timed_row(x, ns, board)}
            for x, ns in zip(program.layers, steps, strict=True)
        ],
    }


def _steps(steps: Sequence[float], program: Program) -> Sequence[float | None]:
    return steps if len(steps) == len(program.layers) else [None] * len(program.layers)


def _head(program: Program, board: Board, runner: str) -> dict[str, Any]:
    return {
        "schema": 1,
        "model": program.model,
        "board": board.name,
        "board_core": board.core,
        "runner": runner,
        "clock_hz": board.clock_hz,
        "threads": program.threads,
    }


def _name(layer: Mapping[str, Any]) -> dict[str, Any]:
    return {"name": layer["name"], "kernel": layer["kernel"]}


def _timed_row(layer: Mapping[str, Any], ns: float | None, board: Board) -> dict[str, Any]:
    return {"ms": _ms(ns), **_speed(layer, ns, board), **dict.fromkeys(_COUNTED)}


def _whole(program: Program) -> dict[str, Any]:
    """The network as one layer."""
    layers = program.layers
    return {"macs": sum(x["macs"] for x in layers), "single_macs": sum(map(_single_macs, layers))}


def _single_macs(layer: Mapping[str, Any]) -> float:
    """The multiply-adds in float32 that take the core as long."""
    row = load_kernels().get(layer.get("kernel", ""))
    return layer.get("single_macs", layer["macs"] / (row.peak if row else 1))


def _speed(layer: Mapping[str, Any], ns: float | None, board: Board) -> dict[str, Any]:
    """GFLOP/s counts 2 per multiply-add; the peak is macs_per_cycle of the board's cycle model at
    the board's clock, and twice that in float16."""
    peak = board.cycle_model.core.macs_per_cycle * board.clock_hz / 1e9 if board.cycle_model else 0
    return {
        "macs": layer["macs"],
        "gflops": round(2 * (layer["macs"] / ns if ns else 0.0), 3),
        "peak_percent": round(100 * (_single_macs(layer) / ns if ns else 0.0) / peak, 1)
        if peak
        else None,
    }


def _ms(ns: float | None) -> float | None:
    return None if ns is None else round(ns / 1e6, 6)


def _ratio(flops: int, moved: int) -> float | None:
    return round(flops / moved, 4) if moved else None
