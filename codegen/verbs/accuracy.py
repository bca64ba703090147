"""codegen accuracy: how well plans do their task, as the generated C computes it."""

import json
from collections.abc import Callable, Mapping
from math import isfinite
from pathlib import Path
from typing import Any

import click

from codegen.accuracy.gauge import Gauge, check_classes, check_unseen, gauge_of, judge, not_known
from codegen.accuracy.metrics import Metric, need_classes, parse_metrics, table_of
from codegen.accuracy.scores import Outputs
from codegen.board import Board, load_board
from codegen.calibration.data import open_data
from codegen.calibration.record import Calibration
from codegen.errors import CodegenError
from codegen.pipeline import Generated, Shapes, calibration_of, generate, load_graph, model_hash
from codegen.plan import read_plan
from codegen.run import Runner, pick_runner
from codegen.types import DType
from codegen.verbs.options import (
    ACCEPT_HOST_KEY,
    BOARD,
    CALIBRATION,
    HOST,
    JSON,
    MODEL,
    RUNNER,
    SHAPE,
    parse_shapes,
    print_rows,
    verbosity,
)
from codegen.verbs.progress import progress

FLOAT = "float model"


@click.command()
@MODEL
@BOARD
@click.option("--plan", "plans", multiple=True, type=click.Path(path_type=Path), metavar="FILE",
              help="A plan of this model to measure. Repeatable. Default: the plan of a build, and "
              "with --calibration that in int8, too.")  # fmt: skip
@click.option("--data", "paths", multiple=True, type=click.Path(path_type=Path),
              help="Samples, as `codegen calibrate` reads them, with labels in key `y` of a .npz "
              "where there are any. Repeatable.")  # fmt: skip
@click.option("--preprocess", default="", metavar="SPEC",
              help="What is done to images and arrays, as in `codegen calibrate`.")  # fmt: skip
@click.option("--half", type=int, help="Use only half 0 or 1 of the data: the one that was not "
              "calibrated on.")  # fmt: skip
@click.option("--samples", type=click.IntRange(1), metavar="N",
              help="Use at most so many samples, drawn at random. Default: all.")  # fmt: skip
@click.option("--seed", default=0, type=click.IntRange(0), show_default=True, help="Of the draw.")
@click.option("--metric", "metrics", multiple=True, metavar="NAME",
              help="top1, agreement, cosine, mse, or a function of yours as FILE.py:NAME or "
              "MODULE:NAME, called with outputs [n, elements] and labels [n]. Repeatable. Default: "
              "all that the data allow.")  # fmt: skip
@CALIBRATION
@RUNNER
@HOST
@ACCEPT_HOST_KEY
@click.option("--timeout", default=3600.0, show_default=True, help="Seconds one run may take.")
@SHAPE
@JSON
@verbosity
def accuracy(
    model: Path,
    board: str,
    plans: tuple[Path, ...],
    paths: tuple[Path, ...],
    preprocess: str,
    half: int | None,
    samples: int | None,
    seed: int,
    metrics: tuple[str, ...],
    calibration: Path | None,
    runner: str,
    host: str,
    accept_host_key: bool,
    timeout: float,
    shapes: tuple[str, ...],
    as_json: bool,
    quiet: bool,
    verbose: bool,
) -> int:
    """Score the float MODEL and plans for it side by side: each plan's C code is generated,
    compiled, and run over the data.

    Figures come with an interval that has the true one with 95 % confidence; samples of one `group`
    count as one. Data that int8 was calibrated on are refused. Exit code 1 if a plan does not
    compile or run.
    """
    target, pinned = load_board(board), parse_shapes(shapes)
    chosen = _runner(target, runner, host, accept_host_key)
    graph = load_graph(model, pinned)
    data = open_data(paths, [graph.tensors[t] for t in graph.inputs], preprocess, half)
    wanted = parse_metrics(metrics, data.labels is not None)
    known = calibration_of(calibration, model_hash(model, pinned)) if calibration else None
    labelled = sum(r.label is not None for r in data.rows)
    if 0 < labelled < len(data):
        said = f"note: {labelled} of {len(data)} samples have labels, and none is used"
        click.echo(said, err=True)
    if known and known.data.preprocess != data.preprocess:
        click.echo(f"note: calibrated with --preprocess {known.data.preprocess!r}, these data are "
                   f"read with {data.preprocess!r}", err=True)  # fmt: skip
    jobs = _jobs(model, target, plans, pinned, calibration)
    if said := not_known(known):
        click.echo(said, err=True)
    with progress(quiet or as_json) as stage:
        stage("running the float model")
        gauge = gauge_of(model, pinned, data, samples, seed)
        if known:
            check_unseen(gauge, known, "--data")
        if need_classes(wanted):
            check_classes(gauge, "--data")
        outputs = {FLOAT: gauge.floats}
        for name, make in jobs.items():
            stage(f"building and running {name}")
            found = judge(make(), gauge, target, chosen, timeout)
            if isinstance(found, str):
                click.echo(f"error: {name}: {found}", err=True)
                return 1
            outputs[name] = found
    if as_json or not quiet:
        _tell(outputs, gauge, wanted, known, as_json)
    if verbose and not (as_json or quiet):
        print_rows(_changed(outputs, gauge))
    return 0


def _runner(board: Board, name: str, host: str, accept_host_key: bool) -> Runner:
    chosen = pick_runner(board, name, host, accept_host_key)
    if chosen is None:
        raise CodegenError(
            "--runner", f"no runner for board {board.name} works here",
            f"its runners: {', '.join(board.runners)}", "see `codegen doctor`",
        )  # fmt: skip
    return chosen


def _jobs(
    model: Path, board: Board, plans: tuple[Path, ...], shapes: Shapes, calibration: Path | None
) -> dict[str, Callable[[], Generated]]:
    """What to build, by the name it gets in the table."""
    if not plans:
        jobs: dict[str, Callable[[], Generated]] = {}
        jobs["float32"] = lambda: generate(model, board, shapes=shapes)
        if calibration:
            jobs["int8"] = lambda: generate(model, board, shapes=shapes, calibration=calibration)
        return jobs
    names = [p.name for p in plans]
    unique = names if len(set(names)) == len(names) else [str(p) for p in plans]
    return {
        name: lambda p=path: _by_plan(model, board, p, shapes, calibration)
        for name, path in zip(unique, plans, strict=True)
    }


def _by_plan(
    model: Path, board: Board, path: Path, shapes: Shapes, calibration: Path | None
) -> Generated:
    """A calibration is for the plans in int8."""
    ranges = calibration if read_plan(path).dtype == DType.I8.value else None
    return generate(model, board, path, shapes, calibration=ranges)


def _tell(
    outputs: dict[str, Outputs], gauge: Gauge, metrics: list[Metric],
    calibration: Calibration | None, as_json: bool,
) -> None:  # fmt: skip
    rows = table_of(outputs, gauge, metrics)
    head: dict[str, Any] = {
        "samples": len(gauge), "independent": gauge.independent,
        "labelled": gauge.labels is not None,
        "calibrated_on": calibration.data.samples if calibration else None,
    }  # fmt: skip
    if as_json:
        click.echo(json.dumps(_plain({**head, "plans": rows}), indent=1))
        return
    print_rows([
        {"": name, **{m: _text(score) for m, score in scores.items()}}
        for name, scores in rows.items()
    ])  # fmt: skip
    note = "" if gauge.independent == len(gauge) else f", {gauge.independent} of them independent"
    click.echo(f"{len(gauge)} samples{note}; in brackets: 95 % confidence")


def _changed(outputs: Mapping[str, Outputs], gauge: Gauge) -> list[dict[str, str]]:
    """The samples of which a plan has another largest output than the float model."""
    tops = {name: o.first.argmax(1) for name, o in outputs.items()}
    rows = []
    for i, at in enumerate(gauge.chosen):
        if len({int(t[i]) for t in tops.values()}) > 1:
            label = {} if gauge.labels is None else {"label": str(gauge.labels[i])}
            rows.append({"largest output": gauge.data.rows[at].where, **label,
                         **{name: str(t[i]) for name, t in tops.items()}})  # fmt: skip
    return rows


def _plain(value: Any) -> Any:
    """JSON has no number for NaN and infinity: null."""
    if isinstance(value, dict):
        return {k: _plain(v) for k, v in value.items()}
    return None if isinstance(value, float) and not isfinite(value) else value


def _text(score: dict[str, float | None] | None) -> str:
    if score is None:
        return ""
    if score["low"] is None:
        return f"{score['value']:.6g}"
    return f"{score['value']:.6g} [{score['low']:.4g}, {score['high']:.4g}]"
