"""codegen compare: the same network in other engines, on the same board."""

import json
from pathlib import Path
from typing import Any

import click
from rich.console import Console
from rich.table import Table

from codegen.board import load_board
from codegen.errors import CodegenError
from codegen.peers.engines import ENGINES, pick_engines
from codegen.peers.measure import Row, measure, remark
from codegen.peers.network import load_network
from codegen.run import pick_runner
from codegen.run.virtual import missing
from codegen.verbs.bench import LIMITS
from codegen.verbs.options import (
    ACCEPT_HOST_KEY,
    BOARD,
    HOST,
    JSON,
    SHAPE,
    parse_shapes,
    verbosity,
)
from codegen.verbs.progress import progress

_MIB = 1 << 20
_OURS = "codegen"
_COUNTING = ("virtual", "ssh")


@click.command()
@click.argument("model", type=click.Path(path_type=Path))
@BOARD
@click.option(
    "--with",
    "engines",
    default="ncnn,mnn,litert,ort,blas",
    show_default=True,
    metavar="A,B",
    help=f"Engines to compare with: {', '.join(n for n in ENGINES if n != _OURS)}.",
)
@click.option("--dtype", type=click.Choice(("f32", "i8")), default="f32", show_default=True,
              help="Element type; int8 is calibrated on seeded inputs.")  # fmt: skip
@click.option(
    "--runner", default="", help="virtual (the default), or ssh (the default with --host)."
)
@HOST
@ACCEPT_HOST_KEY
@SHAPE
@click.option("--timeout", default=3600.0, show_default=True, help="Seconds one run may take.")
@JSON
@verbosity
def compare(
    model: Path,
    board: str,
    engines: str,
    dtype: str,
    runner: str,
    host: str,
    accept_host_key: bool,
    shapes: tuple[str, ...],
    timeout: float,
    as_json: bool,
    quiet: bool,
    verbose: bool,
) -> int:
    """Run MODEL (an ONNX file) in other engines and in codegen, on the same board with the same
    seeded input, one thread: time, memory and size side by side.

    Engines are fetched with pip and run without being installed. An engine that cannot take the
    model, or whose result differs from onnxruntime's, gets a line with the reason. Exit code 1
    only if our own library fails.
    """
    target = load_board(board)
    runner = runner or ("ssh" if host else "virtual")
    if runner not in _COUNTING:
        raise CodegenError("--runner", f"{runner!r} tells no times of a board",
                           f"runners: {', '.join(_COUNTING)}", "name one of them")  # fmt: skip
    chosen = pick_runner(target, runner, host, accept_host_key)
    problem = missing(target) if runner == "virtual" else ""
    if problem:
        click.echo(f"error: {problem}", err=True)
        return 1
    picked = [ENGINES[_OURS], *(e for e in pick_engines(engines) if e.name != _OURS)]
    network = load_network(model, parse_shapes(shapes), model.stem)
    rows = []
    with progress(quiet) as stage:
        for engine in picked:
            stage(engine.name)
            rows.append(measure(engine, network, target, dtype, chosen, timeout))
    if as_json:
        click.echo(json.dumps(_report(rows, target.name, runner), indent=1))
    elif not quiet:
        _show(rows, target.name, runner, verbose)
    return 1 if rows[0].error else 0


def _report(rows: list[Row], board: str, runner: str) -> dict[str, Any]:
    """What --json prints; `x_ours` is the multiple of our time."""
    ours = rows[0].ms
    return {
        "schema": 1,
        "model": rows[0].model,
        "board": board,
        "core": rows[0].core,
        "runner": runner,
        **({"limits": LIMITS} if runner == "virtual" else {}),
        "rows": [
            {**r.as_dict(), "x_ours": round(r.ms / ours, 3) if r.ms and ours else None}
            for r in rows
        ],
    }


def _show(rows: list[Row], board: str, runner: str, verbose: bool) -> None:
    table = Table(box=None, pad_edge=False)
    for i, name in enumerate(("engine", "version", "dtype", "ms", "cycles", "x ours",
                              "memory MiB", "size MiB")):  # fmt: skip
        table.add_column(name, justify="right" if i > 2 else "left", no_wrap=True)
    if verbose:
        table.add_column("largest error", justify="right")
    ours = rows[0].ms
    for r in rows:
        if r.error:
            table.add_row(r.engine, r.version, r.dtype, "–")
            continue
        cycles = f"{r.cycles:,}" if r.cycles else "–"
        ratio = f"{r.ms / ours:.2f}" if ours else "–"
        more = (f"{r.max_rel_error:.1e}",) if verbose else ()
        sizes = (f"{size / _MIB:.2f}" for size in (r.peak_bytes, r.binary_bytes))
        table.add_row(r.engine, r.version, r.dtype, f"{r.ms:.3f}", cycles, ratio, *sizes, *more)
    show = Console(highlight=False)
    if not show.is_terminal:
        show = Console(highlight=False, width=160)
    show.print(table)
    for r in rows:
        if r.error or remark(r):
            show.print(f"{r.engine}: {r.error or remark(r)}", soft_wrap=True, markup=False)
    note = f"; {LIMITS}" if runner == "virtual" else ""
    show.print(f"{rows[0].model} on {board}, runner {runner}, one thread{note}")
