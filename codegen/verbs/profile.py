"""codegen profile: the hot code of one layer, and what it waits for."""

import difflib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import click

from codegen.board import Board, load_board
from codegen.errors import CodegenError
from codegen.footprint import functions
from codegen.measured import LIMITS, modelled_row
from codegen.profile_text import print_profile
from codegen.program import Program, bench_program
from codegen.run import Job, pick_runner
from codegen.run.virtual import missing
from codegen.run.virtual.counts import CountError, parse_counts
from codegen.run.virtual.errors import AnalysisError
from codegen.run.virtual.hot import HotTrace, RegionProfile, profile_region
from codegen.run.virtual.runner import count, region_values
from codegen.toolchain import find_llvm
from codegen.verbs.options import BOARD, CALIBRATION, DTYPE, JSON, PLAN, SHAPE, parse_shapes
from codegen.verbs.progress import progress


@click.command()
@click.argument("model", type=click.Path(path_type=Path))
@BOARD
@click.option(
    "--layer", required=True, help="Name of the layer, or its number (1 is the first kernel call)."
)
@click.option("--top", default=3, show_default=True, type=click.IntRange(1), help="Traces to show.")
@PLAN
@SHAPE
@DTYPE
@CALIBRATION
@click.option("--timeout", default=1800.0, show_default=True, help="Seconds the run may take.")
@JSON
def profile(
    model: Path,
    board: str,
    layer: str,
    top: int,
    plan_file: Path | None,
    shapes: tuple[str, ...],
    dtype: str,
    calibration: Path | None,
    timeout: float,
    as_json: bool,
) -> int:
    """Show where one layer of MODEL (an ONNX file, or a folder that `codegen build` made) spends
    its cycles on the virtual board: the hot traces as the core runs them, how often and how fast
    each ran, and what holds it up.

    Exit code 1 if the program does not compile or run.
    """
    target = load_board(board)
    pick_runner(target, "virtual")  # can this board be run so at all?
    result = _profile(
        model, target, layer, top, plan_file, parse_shapes(shapes), timeout, dtype, calibration
    )
    if isinstance(result, str):
        click.echo(f"error: {result}", err=True)
        return 1
    if as_json:
        click.echo(json.dumps(result, indent=1))
    else:
        print_profile(result)
    return 0


def _profile(
    model: Path,
    board: Board,
    layer: str,
    top: int,
    plan_file: Path | None,
    shapes: Mapping[str, Any],
    timeout: float,
    dtype: str = "",
    calibration: Path | None = None,
) -> dict[str, Any] | str:
    """The figures, or a text that says why there are none."""
    problem = missing(board)
    if problem:
        return problem
    with (
        progress(False) as stage,
        bench_program(
            model, board, plan_file, shapes, stage, virtual=True, dtype=dtype,
            calibration=calibration,
        ) as program,
    ):
        if program.error:
            return f"the generated library does not compile:\n{program.error}"
        number = find_layer(layer, program.layers)
        stage("running under qemu")
        outcome, text = count(Job(program.path, ("0",), timeout_s=timeout), board)
        if outcome.error:
            return outcome.error
        stage("analysing")
        tools = str(find_llvm("llvm-mc")), str(find_llvm("llvm-mca"))
        try:
            counts = parse_counts(text)
            if number not in counts.regions:
                return (
                    "the program does not mark this layer; it was built by an older codegen: "
                    "build again"
                )
            names = functions(program.path)
            found = profile_region(counts, number, board.cycle_model, names, tools, top)
        except (CountError, AnalysisError) as e:
            return str(e)
        return _plain(program, number, board, found)


def find_layer(wanted: str, layers: Sequence[Mapping[str, Any]]) -> int:
    """The number, from 1, of the layer with that name or number; CodegenError where there is none
    or there are several."""
    names = [x["name"] for x in layers]
    if names.count(wanted) == 1:
        return names.index(wanted) + 1
    if wanted in names:
        numbers = ", ".join(str(i) for i, n in enumerate(names, 1) if n == wanted)
        raise CodegenError("--layer", f"{wanted!r} names several layers", f"numbers {numbers}",
                           "give the number")  # fmt: skip
    if wanted.isascii() and wanted.isdigit() and 1 <= int(wanted) <= len(names):
        return int(wanted)
    near = difflib.get_close_matches(wanted, names, 5, 0.4)
    near += [n for n in names if wanted.lower() in n.lower() and n not in near][:5]
    raise CodegenError(
        "--layer",
        f"there is no layer {wanted!r}",
        f"near names: {', '.join(near) if near else 'none'}; numbers: 1 to {len(names)}",
        "see the names with `codegen bench`",
    )


def _plain(program: Program, number: int, board: Board, found: RegionProfile) -> dict[str, Any]:
    layer = program.layers[number - 1]
    return {
        "schema": 1,
        "model": program.model,
        "board": board.name,
        "board_core": board.core,
        "runner": "virtual",
        "clock_hz": board.clock_hz,
        "basis": board.cycle_model.core.basis,
        "limits": LIMITS,
        "in_order": board.cycle_model.core.in_order,
        "layer": {
            "number": number,
            "name": layer["name"],
            "kernel": layer["kernel"],
            **modelled_row(layer, region_values(found.cost, board), board),
        },
        "traces": [_trace(t, found.cost.cycles, board) for t in found.traces],
        "others": {"traces": found.others, "cycles": round(found.rest)},
    }


def _trace(t: HotTrace, total: int, board: Board) -> dict[str, Any]:
    """`latency` of an instruction is of cores out of order, `cycles` (that pass before it issues)
    of cores in order."""
    key = "cycles" if board.cycle_model.core.in_order else "latency"
    return {
        "loop": t.loop,
        "times": t.times,
        "cycles_per_iteration": round(t.cycles, 4),
        "cycles": round(t.times * t.cycles),
        "share": round(t.times * t.cycles / (total or 1), 6),
        "ipc": round(len(t.lines) / t.cycles, 3) if t.cycles else None,
        "bottleneck": t.explanation.bottleneck,
        "use": {name: round(cycles, 3) for name, cycles in t.explanation.use},
        "lines": [
            {
                "address": x.address,
                "function": x.function,
                "offset": x.offset,
                "text": x.text,
                key: round(x.note.cycles, 3),
                "units": x.note.units,
                "why": x.note.why,
            }
            for x in t.lines
        ],
    }
