"""codegen price: what every candidate kernel of every layer costs on a board."""

import difflib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click
from rich.console import Console
from rich.table import Table

from codegen.board import Board, load_board
from codegen.errors import CodegenError
from codegen.kernels import load_kernels
from codegen.pipeline import Generated, computed_graph, generate
from codegen.pricing import (
    Candidate,
    PricingError,
    Settings,
    layer_names,
    macs,
    plan_parts,
    price_signatures,
    ready,
    warm_weights,
)
from codegen.signature import Signature
from codegen.store import Measurement, Store, store_path
from codegen.store.records import PARTS, conditions_of
from codegen.verbs.hosts import measuring_runner
from codegen.verbs.options import (
    ACCEPT_HOST_KEY,
    BOARD,
    CALIBRATION,
    DTYPE,
    HOSTS,
    JOBS,
    JSON,
    MEASURER,
    MODEL,
    SHAPE,
    STORE,
    WEIGHTS,
    parse_shapes,
    verbosity,
)
from codegen.verbs.progress import counted

_FIGURES = ("cycles", "ns", *PARTS, "scratch_bytes", "code_bytes", "weights_bytes", "error")


@click.command()
@MODEL
@BOARD
@click.option(
    "--layer",
    default="",
    metavar="NAME",
    help="Only the layer of this node (or the layer whose key, as shown, begins so).",
)
@MEASURER
@HOSTS
@ACCEPT_HOST_KEY
@WEIGHTS
@click.option("--again", is_flag=True, help="Measure also what the store knows.")
@JOBS
@SHAPE
@DTYPE
@CALIBRATION
@STORE
@JSON
@verbosity
def price(
    model: Path,
    board: str,
    layer: str,
    runner: str,
    hosts: tuple[str, ...],
    accept_host_key: bool,
    weights: str,
    again: bool,
    jobs: int,
    shapes: tuple[str, ...],
    dtype: str,
    calibration: Path | None,
    store_file: Path | None,
    as_json: bool,
    quiet: bool,
    verbose: bool,
) -> int:
    """Measure every candidate kernel of each distinct layer of MODEL, fastest first; * marks what
    the default plan takes. Measurements are kept in the store: only what is new is run.

    Exit code 1 if the board fails. A candidate that fails is a row with its error.
    """
    target = load_board(board)
    pinned = parse_shapes(shapes)
    graph, _ = computed_graph(model, target, pinned, dtype=dtype, calibration=calibration)
    names = _choose(layer_names(graph), layer)
    generated = generate(model, target, None, pinned, dtype=dtype, calibration=calibration)
    warm = weights == "warm" or (weights == "auto" and warm_weights(generated.schedule, target))
    settings = Settings(warm, again, jobs)
    try:
        with (
            measuring_runner(target, runner, hosts, accept_host_key) as chosen,
            counted(quiet, "measuring") as progress,
        ):
            ready(target, chosen, settings)
            store = Store(store_path(store_file))  # not before all else is known to be right
            prices = price_signatures(
                list(names), target, chosen, store, None, progress, settings
            )
    except PricingError as e:
        click.echo(f"error: {e}", err=True)
        return 1
    taken = _taken(generated)
    layers = [_layer(s, names[s], prices[s], taken, target) for s in names]
    result = {
        "schema": 1,
        "model": model.name,
        "board": target.name,
        "runner": chosen.name,
        "weights": "warm" if warm else "cold",
        "layers": layers,
    }
    if as_json:
        click.echo(json.dumps(result, indent=1))
    elif not quiet:
        _show(result, verbose)
    return 0


def _choose(names: Mapping[Signature, list[str]], wanted: str) -> dict[Signature, list[str]]:
    """Those that are called so, alone or in a group; all where nothing is wanted."""
    if not wanted:
        return dict(names)
    found = {
        s: called
        for s, called in names.items()
        if s.key.startswith(wanted) or any(wanted in n.split(" + ") for n in called)
    }
    if not found:
        known = list(dict.fromkeys(n for called in names.values() for n in called))
        near = difflib.get_close_matches(wanted, known, 3, 0.4) or known[:3]
        raise CodegenError(
            "--layer",
            f"no layer is called {wanted!r}",
            f"{len(known)} names, e.g. {', '.join(map(repr, near))}",
            "name one of them",
        )
    return found


def _taken(generated: Generated) -> set[tuple[Signature, Candidate]]:
    parts = plan_parts(generated.graph, generated.plan, generated.schedule.program)
    return {(p.signature, p.candidate) for p in parts}


def _layer(
    signature: Signature,
    names: list[str],
    prices: Mapping[Candidate, Measurement],
    taken: set[tuple[Signature, Candidate]],
    board: Board,
) -> dict[str, Any]:
    work = macs(signature)
    ranked = sorted(prices.items(), key=lambda p: (p[1].cost, p[0]))
    return {
        "layer": signature.key,
        "op": signature.op,
        "text": str(signature),
        "names": names,
        "macs": work,
        "candidates": [
            {
                "kernel": c.kernel,
                "layout": c.layouts,
                "ms": None if m.ns is None else round(m.ns / 1e6, 6),
                "peak_percent": _peak(work / load_kernels()[c.kernel].peak, m, board),
                **{f: getattr(m, f) for f in _FIGURES},
                "conditions": conditions_of(m) or None,
                "default": (signature, c) in taken,
            }
            for c, m in ranked
        ],
    }


def _peak(work: float, measured: Measurement, board: Board) -> float | None:
    """`work` per cycle of the board's clock, in percent of the float32 multiply-adds that the core
    can start."""
    if not (work and measured.ns and board.cycle_model and board.clock_hz):
        return None
    rate = work / (measured.ns * board.clock_hz / 1e9)
    return round(100 * rate / board.cycle_model.core.macs_per_cycle, 1)


def _show(result: Mapping[str, Any], verbose: bool) -> None:
    show = Console(highlight=False)
    if not show.is_terminal:
        show = Console(highlight=False, width=160)
    for layer in result["layers"]:
        names = layer["names"]
        more = f" and {len(names) - 2} more" if len(names) > 2 else ""
        called = ", ".join(names if verbose else names[:2]) + ("" if verbose else more)
        show.print(f"{layer['layer']}  {layer['text']}: {called}", markup=False)
        if layer["candidates"]:
            show.print(_table(layer["candidates"], verbose))
    show.print(
        f"{result['model']} on {result['board']}, runner {result['runner']}, weights "
        f"{result['weights']}; * is what the default plan takes"
    )


def _table(rows: list[dict[str, Any]], verbose: bool) -> Table:
    table = Table(box=None, pad_edge=False)
    table.add_column("", width=1)
    table.add_column("kernel", overflow="fold")
    table.add_column("layout")
    for name in ("cycles", "ms", "% of peak", *(PARTS if verbose else ()), "scratch", "weights"):
        table.add_column(name, justify="right", no_wrap=True)
    for r in rows:
        mark, kernel = "*" if r["default"] else "", r["kernel"] or "(nothing to do)"
        if r["error"]:
            table.add_row(mark, kernel, r["layout"], "failed:", r["error"])
            continue
        share = "" if r["peak_percent"] is None else f"{r['peak_percent']:.0f}"
        causes = [_count(r[p]) for p in PARTS] if verbose else []
        sizes = (_count(r["scratch_bytes"]), _count(r["weights_bytes"]))
        cells = (_count(r["cycles"]), f"{r['ms']:.4f}", share, *causes, *sizes)
        table.add_row(mark, kernel, r["layout"], *cells)
    return table


def _count(value: int | None) -> str:
    return "" if value is None else f"{value:,}"
