"""codegen bench: what a network costs on a board, layer by layer."""

import json
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click
from rich.console import Console
from rich.table import Table

from codegen.board import Board, load_board
from codegen.build import compile_library
from codegen.emit import write
from codegen.errors import CodegenError
from codegen.pipeline import generate
from codegen.report import layers as layer_rows
from codegen.run import Job, pick_runner
from codegen.run.virtual import WHOLE, missing
from codegen.toolchain import find_toolchain
from codegen.verbs.options import BOARD, JSON, SHAPE, parse_shapes, verbosity

# What the model does not see, shown wherever its figures are.
LIMITS = (
    "modelled, not measured; not seen: prfm, dc zva, TLB, L1I, DRAM queues, and "
    "compute that hides a miss; branches are guessed by their usual way; int8 is not validated"
)
_PARTS = ("core", "branch", "l2", "memory")


@click.command()
@click.argument("model", type=click.Path(path_type=Path))
@BOARD
@click.option(
    "--runner", default="virtual", show_default=True, help="What counts the cycles: virtual."
)
@click.option(
    "--plan",
    "plan_file",
    type=click.Path(path_type=Path),
    help="Use this plan.json instead of making one.",
)
@SHAPE
@click.option("--timeout", default=1800.0, show_default=True, help="Seconds the run may take.")
@JSON
@verbosity
def bench(
    model: Path,
    board: str,
    runner: str,
    plan_file: Path | None,
    shapes: tuple[str, ...],
    timeout: float,
    as_json: bool,
    quiet: bool,
    verbose: bool,
) -> int:
    """Count the cycles of MODEL (an ONNX file, or a folder that `codegen build` made) on the
    virtual board, layer by layer. Nothing is left behind.

    Exit code 1 if the program does not compile or run. Two calls give the same figures.
    """
    target = load_board(board)
    if runner != "virtual":
        raise CodegenError(
            "--runner", f"{runner!r} counts no cycles", "virtual", "leave the option away"
        )
    pinned = parse_shapes(shapes)
    if model.is_dir():
        result = _bench_folder(model, target, plan_file, pinned, timeout)
    else:
        result = _bench_model(model, target, plan_file, pinned, timeout)
    if isinstance(result, str):
        click.echo(f"error: {result}", err=True)
        return 1
    if as_json:
        click.echo(json.dumps(result, indent=1))
    else:
        _show(result, quiet, verbose)
    return 0


def _bench_folder(
    folder: Path, board: Board, plan_file: Path | None, shapes: Mapping[str, Any], timeout: float
) -> dict[str, Any] | str:
    """Run the program of an earlier build; a text where it does not run."""
    if plan_file or shapes:
        raise CodegenError(
            "--plan" if plan_file else "--shape",
            f"{folder} is already built",
            "these options go with an ONNX file",
            "leave them away or name the model",
        )
    program = folder / "build" / "bench"
    try:
        report = json.loads((folder / "report.json").read_text())
        layers, made_for = report["layers"], report["board"]
    except (OSError, ValueError, KeyError):
        report = None
    if report is None or not program.is_file():
        raise CodegenError(
            str(folder),
            "no report.json with a compiled build/bench",
            "a folder that `codegen build` made",
            "build first",
        )
    if made_for != board.name:
        raise CodegenError(
            "--board",
            f"{board.name}, but {folder} was built for {made_for}",
            made_for,
            "name that board, or build again",
        )
    return _run(program, board, report["model"], layers, timeout)


def _bench_model(
    model: Path, board: Board, plan_file: Path | None, shapes: Mapping[str, Any], timeout: float
) -> dict[str, Any] | str:
    """Build in a temporary folder and run; a text where that fails."""
    pick_runner(board, "virtual")  # before the work: can this board be run so, and here?
    problem = missing(board)
    if problem:
        return problem
    toolchain = find_toolchain(board)
    generated = generate(model, board, plan_file, shapes)
    with tempfile.TemporaryDirectory(prefix="codegen-bench-") as name:
        folder = Path(name)
        write(generated.sources, folder)
        binary = compile_library(generated.sources, folder, toolchain)
        if binary.error:
            return f"the generated library does not compile:\n{binary.error}"
        return _run(binary.bench, board, model.name, layer_rows(generated), timeout)


def _run(
    program: Path, board: Board, model: str, layers: list[dict[str, Any]], timeout: float
) -> dict[str, Any] | str:
    """RUNS = 0 of the bench program: a warm-up, then one run with every step marked."""
    outcome = pick_runner(board, "virtual").run(Job(program, ("0",), timeout_s=timeout), board)
    if outcome.error:
        return outcome.error
    regions = outcome.report["regions"]
    if str(WHOLE) not in regions:
        return "the program marks no region; it was built by an older codegen: build again"
    rows = [
        _row(layer, regions[str(i)], board)
        for i, layer in enumerate(layers, 1)
        if str(i) in regions
    ]
    whole = _row({"name": "", "kernel": "", "macs": sum(x["macs"] for x in layers)},
                 regions[str(WHOLE)], board)  # fmt: skip
    del whole["name"], whole["kernel"]
    return {
        "schema": 1,
        "model": model,
        "board": board.name,
        "core": board.core,
        "runner": "virtual",
        "clock_hz": board.clock_hz,
        "basis": board.cycle_model.core.basis,
        "limits": LIMITS,
        **whole,
        "layers": rows,
    }


def _row(layer: Mapping[str, Any], region: Mapping[str, Any], board: Board) -> dict[str, Any]:
    """GFLOP/s counts 2 per multiply-add; peak is macs_per_cycle of the board's cycle model."""
    cycles, macs = region["cycles"], layer["macs"]
    rate = macs / cycles if cycles else 0.0
    return {
        "name": layer["name"],
        "kernel": layer["kernel"],
        "cycles": cycles,
        "ms": region["ms"],
        "macs": macs,
        "gflops": round(2 * rate * board.clock_hz / 1e9, 3),
        "peak_percent": round(100 * rate / board.cycle_model.core.macs_per_cycle, 1),
        **{part: region[part] for part in _PARTS},
        "instructions": region["instructions"],
        "events": region["events"],
    }


def _show(result: Mapping[str, Any], quiet: bool, verbose: bool) -> None:
    """Layers with their share; with `verbose` also kernels and the causes of the cycles."""
    if quiet:
        return
    table = Table(box=None, pad_edge=False)
    table.add_column("layer", overflow="fold")
    for name in ("ms", "share", "GFLOP/s", "% of peak", *(_PARTS if verbose else ())):
        table.add_column(name, justify="right", no_wrap=True)
    if verbose:
        table.add_column("kernel", overflow="fold")
    total = result["cycles"] or 1
    for r in (*result["layers"], {**result, "name": "total", "kernel": ""}):
        causes = [f"{r[part] / (r['cycles'] or 1):.0%}" for part in _PARTS]
        speed = (f"{r['gflops']:.2f}", f"{r['peak_percent']:.0f}") if r["macs"] else ("", "")
        share = f"{r['cycles'] / total:.1%}"
        more = (*causes, r["kernel"]) if verbose else ()
        table.add_row(r["name"], f"{r['ms']:.3f}", share, *speed, *more)
    show = Console(highlight=False)
    if not show.is_terminal:
        show = Console(highlight=False, width=160)
    show.print(table)
    parts = ", ".join(f"{p} {result[p] / total:.0%}" for p in _PARTS)
    show.print(
        f"{result['model']} on {result['board']}: {result['ms']:.3f} ms, {result['cycles']:,} "
        f"cycles at {result['clock_hz'] / 1e9:g} GHz ({parts})\nbasis: {result['basis']}; {LIMITS}"
    )
