"""codegen bench: what a network costs on a board, layer by layer."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click
from rich.console import Console
from rich.table import Table

from codegen.board import Board, load_board
from codegen.errors import CodegenError
from codegen.measured import LIMITS, PARTS, Unsuitable, modelled, timed
from codegen.program import bench_program
from codegen.roofline import roofline_svg
from codegen.run import Job, Runner
from codegen.run.virtual import VirtualRunner, missing
from codegen.run.virtual.bandwidth import roofs
from codegen.threads import check_one_thread
from codegen.toolchain import find_llvm
from codegen.verbs.hosts import measuring_runner
from codegen.verbs.options import (
    ACCEPT_HOST_KEY,
    BOARD,
    CALIBRATION,
    DTYPE,
    HOSTS,
    JSON,
    PLAN,
    SHAPE,
    THREADS,
    parse_shapes,
    verbosity,
)
from codegen.verbs.progress import progress


@click.command()
@click.argument("model", type=click.Path(path_type=Path))
@BOARD
@click.option(
    "--runner",
    default="",
    help="What measures: virtual, local or ssh. Default: virtual where the board has a cycle "
    "model, ssh with --host.",
)
@HOSTS
@ACCEPT_HOST_KEY
@PLAN
@SHAPE
@DTYPE
@CALIBRATION
@THREADS
@click.option("--timeout", default=1800.0, show_default=True, help="Seconds the run may take.")
@click.option(
    "--roofline",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Draw the layers under the core's roofs into this SVG file (virtual board only).",
)
@JSON
@verbosity
def bench(
    model: Path,
    board: str,
    runner: str,
    hosts: tuple[str, ...],
    accept_host_key: bool,
    plan_file: Path | None,
    shapes: tuple[str, ...],
    dtype: str,
    calibration: Path | None,
    threads: int | None,
    timeout: float,
    roofline: Path | None,
    as_json: bool,
    quiet: bool,
    verbose: bool,
) -> int:
    """Measure MODEL (an ONNX file, or a folder that `codegen build` made), layer by layer: on the
    virtual board, which counts cycles, or on a real one, which takes the time. Nothing is left
    behind.

    Exit code 1 if the program does not compile or run. Two calls give the same figures on the
    virtual board.
    """
    target = load_board(board)
    _check_runner(runner)
    pinned = parse_shapes(shapes)
    with measuring_runner(target, runner, hosts, accept_host_key) as chosen:
        if chosen.name == "virtual":
            check_one_thread(threads or 1, "--threads")
        if roofline:
            _check_roofline(roofline, chosen)
        result = _bench(
            model, target, chosen, plan_file, pinned, threads, dtype, calibration, timeout, quiet
        )
    if isinstance(result, str):
        click.echo(f"error: {result}", err=True)
        return 1
    if roofline:
        tops = roofs(target.cycle_model, str(find_llvm("llvm-mca")))
        roofline.write_text(roofline_svg(result, tops), encoding="utf-8")
    if as_json:
        click.echo(json.dumps(result, indent=1))
    elif not quiet:
        _show(result, verbose)
    return 0


def _check_runner(name: str) -> None:
    """It takes times or counts cycles."""
    if name == "qemu":
        raise CodegenError(
            "--runner",
            "'qemu' counts no cycles, and its time says nothing about the board",
            "virtual, local or ssh",
            "name one of these",
        )


def _check_roofline(path: Path, runner: Runner) -> None:
    if runner.name != "virtual":
        raise CodegenError(
            "--roofline",
            f"runner {runner.name} does not count bytes",
            "the virtual board",
            "leave --roofline or the runner away",
        )
    if not path.parent.is_dir():
        raise CodegenError(
            "--roofline", f"there is no folder {path.parent}", "a file in an existing folder",
            "make the folder",
        )  # fmt: skip


def _bench(
    model: Path,
    board: Board,
    runner: Runner,
    plan_file: Path | None,
    shapes: Mapping[str, Any],
    threads: int | None,
    dtype: str,
    calibration: Path | None,
    timeout: float,
    quiet: bool,
) -> dict[str, Any] | str:
    """The figures, or a text that says why there are none."""
    virtual = runner.name == "virtual"
    problem = missing(board) if virtual else ""  # before the work
    if problem:
        return problem
    with (
        progress(quiet) as stage,
        bench_program(
            model, board, plan_file, shapes, stage, virtual, threads, dtype, calibration
        ) as program,
    ):
        if program.error:
            return f"the generated library does not compile:\n{program.error}"
        if virtual:  # a warm-up, then one run with every step marked
            runner, args = VirtualRunner(stage), ("0",)
        else:
            stage(f"running on {getattr(runner, 'host', 'this machine')}")
            args = ()
        outcome = runner.run(Job(program.path, args, timeout_s=timeout), board)
        if outcome.error:
            return outcome.error
        try:
            if virtual:
                return modelled(program, outcome, board)
            return timed(program, outcome, board, runner.name)
        except Unsuitable as e:
            return str(e)


def _show(result: Mapping[str, Any], verbose: bool) -> None:
    """Layers with their share and bound; with `verbose` also the causes of the cycles, bytes and
    kernels. On stdout."""
    counted = result["runner"] == "virtual"
    more = (*PARTS, "L1-L2", "memory bytes") if verbose and counted else ()
    table = Table(box=None, pad_edge=False)
    table.add_column("layer", overflow="fold")
    for name in ("ms", "share", "GFLOP/s", "% of peak"):
        table.add_column(name, justify="right", no_wrap=True)
    if counted:
        table.add_column("bound")
    for name in more:
        table.add_column(name, justify="right", no_wrap=True)
    if verbose:
        table.add_column("kernel", overflow="fold")
    # of a clock's figures the layers are the fastest runs, the network's is the median
    total = result["ms"] if counted else sum(r["ms"] or 0 for r in result["layers"])
    for r in (*result["layers"], {**result, "name": "total", "kernel": ""}):
        cells = _cells(r, total, verbose) if counted else _common(r, total)
        table.add_row(*cells, *((r["kernel"],) if verbose else ()))
    show = Console(highlight=False)
    if not show.is_terminal:
        show = Console(highlight=False, width=160)
    show.print(table)
    show.print(_summary(result))


def _common(r: Mapping[str, Any], total: float) -> tuple[str, ...]:
    ms = r["ms"]
    if ms is None:
        return r["name"], "?", "", "", ""
    peak = "" if r["peak_percent"] is None else f"{r['peak_percent']:.0f}"
    speed = (f"{r['gflops']:.2f}", peak) if r["macs"] else ("", "")
    return r["name"], f"{ms:.3f}", f"{ms / (total or 1):.1%}", *speed


def _cells(r: Mapping[str, Any], total: float, verbose: bool) -> tuple[str, ...]:
    if not verbose:
        return *_common(r, total), r["bound"]
    causes = (f"{r[part] / (r['cycles'] or 1):.0%}" for part in PARTS)
    moved = (_size(sum(r["bytes"][way].values())) for way in ("l1_l2", "l2_memory"))
    return *_common(r, total), r["bound"], *causes, *moved


def _size(n: int) -> str:
    return f"{n / 1024:,.0f} KiB" if n else "0"


def _summary(result: Mapping[str, Any]) -> str:
    threads = f" ({result['threads']} threads)" if result["threads"] > 1 else ""
    where = f"{result['model']} on {result['board']}{threads}: {result['ms']:.3f} ms"
    if result["runner"] == "virtual":
        parts = ", ".join(f"{p} {result[p] / (result['cycles'] or 1):.0%}" for p in PARTS)
        clock = f"{result['clock_hz'] / 1e9:g} GHz"
        return (
            f"{where}, {result['cycles']:,} cycles at {clock} ({parts})\n"
            f"basis: {result['basis']}; {LIMITS}"
        )
    low, high = result["ms_interval"]
    cycles = "" if result["cycles"] is None else f", {result['cycles']:,} cycles counted"
    lines = [
        f"{where} (median of {result['runs']} runs; 95 % interval {low:.3f} to {high:.3f}, "
        f"minimum {result['ms_min']:.3f}, MAD {result['ms_mad']:.3f}){cycles}",
        "each layer: its fastest run",
    ]
    if result["noisy"]:
        lines.append(f"noisy: {result['noisy']}")
    for when, c in (result["conditions"] or {}).items():
        lines.append(f"{when}: {', '.join(f'{k} {v}' for k, v in c.items() if v is not None)}")
    return "\n".join(lines)
