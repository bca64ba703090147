"""codegen tune: the best plan for a network on a board, found by search and measurement."""

import json
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import click
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table as Rows

from codegen.accuracy.gauge import not_known
from codegen.board import Board, load_board
from codegen.calibration.data import Data, open_data
from codegen.errors import CodegenError
from codegen.models.fetch import write_atomically
from codegen.pipeline import Shapes, calibration_of, load_graph, model_hash
from codegen.pricing import PricingError, Settings, ready
from codegen.run import Runner, pick_runner
from codegen.store import Store, store_path
from codegen.verbs.hosts import measuring_runner
from codegen.verbs.options import (
    ACCEPT_HOST_KEY,
    BOARD,
    DTYPE,
    HOSTS,
    JOBS,
    JSON,
    MEASURER,
    MODEL,
    SHAPE,
    STORE,
    WEIGHTS,
    console,
    parse_shapes,
    verbosity,
)
from rl.agents import AGENTS, make_agent, parse_budget
from rl.limits import Limits
from rl.pareto import parse_axes
from rl.promising import Selection
from rl.report.page import page
from rl.result import summary, verdict, write_results
from rl.tensorboard import write_curves, writer_class
from rl.transfer import read_learnt
from rl.tune import Request, Tools, Tuned
from rl.tune import tune as search
from rl.verbs.sizes import (
    AGREEMENT,
    COSINE,
    DROP,
    parse_agreement,
    parse_bytes,
    parse_cosine,
    parse_drop,
    parse_error,
    parse_ms,
)


@click.command()
@MODEL
@BOARD
@click.option("--agent", default="qlearning", show_default=True,
              help=f"Who searches: {', '.join(AGENTS)}.")  # fmt: skip
@click.option(
    "--budget",
    default="",
    metavar="LIST",
    help="What the search may use, joined by commas: episodes (500ep), time of the agent (5m), new "
    "measurements (200meas). Default: the agent's episodes, all promising candidates.",
)
@click.option("--seed", default=0, type=click.IntRange(0), show_default=True,
              help="Decides every draw.")  # fmt: skip
@click.option("--out", type=click.Path(path_type=Path, file_okay=False), metavar="DIR",
              help="Where plan.json, tune.json and table.json go. "
              "Default: build/MODEL-BOARD-tuned.")  # fmt: skip
@click.option("--max-arena", default="", metavar="BYTES", help="Largest arena, e.g. 512k or 2M.")
@click.option("--max-flash", default="", metavar="BYTES", help="Largest code and weights.")
@click.option("--max-latency", default=0.0, metavar="MS", help="Longest run, in milliseconds.")
@click.option("--max-error", default=0.0, metavar="X", help="Largest max_rel_error of the network "
              "against onnxruntime, e.g. 1e-5; plans that exceed it are dropped.")  # fmt: skip
@click.option("--max-accuracy-drop", default="", metavar="X%", help=DROP)
@click.option("--min-cosine", default=0.0, metavar="C", help=COSINE)
@click.option("--min-agreement", default="", metavar="X%", help=AGREEMENT)
@click.option("--calibration", type=click.Path(path_type=Path), metavar="FILE",
              help="Also choose which layers are computed in int8, and how wide their weights are, "
              "by ranges and losses in this file (`codegen calibrate --sensitivity`).")
@click.option("--data", "paths", multiple=True, type=click.Path(path_type=Path),
              help="Samples on which plans are judged, with labels where there are any, as in "
              "`codegen accuracy`. Repeatable.")  # fmt: skip
@click.option("--preprocess", default="", metavar="SPEC",
              help="What is done to them, as in `codegen calibrate`.")  # fmt: skip
@click.option("--half", type=int, help="Use only half 0 or 1 of the data: the one that was not "
              "calibrated on.")  # fmt: skip
@click.option("--samples", type=click.IntRange(1), default=100, show_default=True, metavar="N",
              help="Judge plans on at most so many of them, drawn at random; the one that is taken "
              "keeps the limits on all.")  # fmt: skip
@click.option("--pareto", default="", metavar="AXES",
              help="Also write front.json: plans between the extremes of latency, arena, flash, "
              "error and accuracy (e.g. latency,arena), for `codegen pick`.")  # fmt: skip
@click.option("--html", is_flag=True, help="Also write report.html, one page with pictures.")
@click.option("--tensorboard", type=click.Path(path_type=Path, file_okay=False), metavar="DIR",
              help="Also write learning curves there, for TensorBoard (extra "
              "[tensorboard]).")  # fmt: skip
@click.option("--learn-from", "learnt", multiple=True, type=click.Path(path_type=Path),
              metavar="DIR", help="Start from what Q-learning learnt in an earlier search, of this "
              "network or another (its --out). Repeatable.")  # fmt: skip
@click.option(
    "--measure",
    type=click.Choice(["promising", "active", "all"]),
    default="promising",
    show_default=True,
    help="Which candidates: those that the cost formula finds promising, those that may still "
    "change the plan by a cost model learnt on the way (fewest), or all.",
)
@MEASURER
@HOSTS
@ACCEPT_HOST_KEY
@WEIGHTS
@JOBS
@click.option("--timeout", default=1800.0, show_default=True, help="Seconds one run may take.")
@SHAPE
@DTYPE
@STORE
@JSON
@verbosity
def tune(
    model: Path,
    board: str,
    agent: str,
    budget: str,
    seed: int,
    out: Path | None,
    max_arena: str,
    max_flash: str,
    max_latency: float,
    max_error: float,
    max_accuracy_drop: str,
    min_cosine: float,
    min_agreement: str,
    calibration: Path | None,
    paths: tuple[Path, ...],
    preprocess: str,
    half: int | None,
    samples: int,
    pareto: str,
    html: bool,
    tensorboard: Path | None,
    learnt: tuple[Path, ...],
    measure: str,
    runner: str,
    hosts: tuple[str, ...],
    accept_host_key: bool,
    weights: str,
    jobs: int,
    timeout: float,
    shapes: tuple[str, ...],
    dtype: str,
    store_file: Path | None,
    as_json: bool,
    quiet: bool,
    verbose: bool,
) -> int:
    """Search the fastest plan for MODEL on a board: price candidates, search, then build and run
    the best plans whole.

    The plan is never slower, measured end to end, than the default plan and the greedy one, where
    these keep the limits. Ctrl-C ends the search with the best plan so far; what was measured is
    kept in the store, so that the same command goes on where it was. Exit code 1 if the board
    fails.
    """
    target = load_board(board)
    make_agent(agent)
    limits = Limits(parse_bytes("--max-arena", max_arena), parse_bytes("--max-flash", max_flash),
                    parse_ms("--max-latency", max_latency),
                    parse_error("--max-error", max_error),
                    parse_drop("--max-accuracy-drop", max_accuracy_drop),
                    parse_cosine("--min-cosine", min_cosine),
                    parse_agreement("--min-agreement", min_agreement))  # fmt: skip
    pinned = parse_shapes(shapes)
    data = _data(model, pinned, paths, preprocess, half)
    request = Request(
        model, target, pinned, agent, parse_budget(budget), seed, limits, weights,
        jobs, Selection(how=measure), timeout, parse_axes(pareto) if pareto else (),
        read_learnt(learnt), dtype, calibration, data, samples,
    )  # fmt: skip
    if data and calibration:
        known = calibration_of(calibration, model_hash(model, pinned))
        if said := not_known(known):
            click.echo(said, err=True)
    out = out or Path("build") / f"{model.stem}-{target.name}-tuned"
    _check_out(out)
    if tensorboard:
        writer_class()  # before the work
    start = time.monotonic()
    try:
        with measuring_runner(target, runner, hosts, accept_host_key) as chosen:
            toolchain = ready(target, chosen, Settings(jobs=jobs))
            with _progress(quiet or as_json) as (stage, progress):
                store = Store(store_path(store_file))
                checker = _checker(target, chosen)
                with TemporaryDirectory(prefix="codegen-objects-") as objects:
                    tools = Tools(chosen, checker, toolchain, store, stage, progress, Path(objects))
                    tuned = search(request, tools)
    except PricingError as e:
        click.echo(f"error: {e}", err=True)
        return 1
    rows = write_results(out, request, tuned)
    if html:
        write_atomically(out / "report.html", page(request, tuned, rows).encode())
    if tensorboard:
        write_curves(tensorboard, tuned, agent, target)
    result = summary(request, tuned)
    if as_json:
        click.echo(json.dumps(result, indent=1))
    else:
        console(quiet).print(f"{out / 'plan.json'} ({time.monotonic() - start:.0f} s)")
        _show(result, quiet, verbose, tuned)
    return 0


def _data(
    model: Path, shapes: Shapes, paths: tuple[Path, ...], preprocess: str, half: int | None
) -> Data | None:
    """The samples that plans are judged on, if there are any."""
    if not paths:
        without = next((o for o, v in (("--half", half), ("--preprocess", preprocess or None))
                        if v is not None), "")  # fmt: skip
        if without:
            raise CodegenError(
                without, "given without --data", "it says what is read of data", "name data"
            )
        return None
    graph = load_graph(model, shapes)
    return open_data(paths, [graph.tensors[t] for t in graph.inputs], preprocess, half)


def _check_out(out: Path) -> None:
    """Before the work."""
    if out.exists() and not out.is_dir():
        raise CodegenError("--out", f"{out} is not a folder", "a folder", "name another one")


def _checker(board: Board, runner: Runner) -> Runner | None:
    """What checks results: an emulator that counts nothing is faster than one that does."""
    return pick_runner(board) if runner.name == "virtual" else runner


@contextmanager
def _progress(
    quiet: bool,
) -> Iterator[tuple[Callable[[str], None], Callable[[int, int], None]]]:
    """One line on the terminal's stderr: the phase, and how far measuring is."""
    show = Console(stderr=True)
    columns = TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn()
    hidden = quiet or not show.is_terminal
    with Progress(
        *columns, TimeElapsedColumn(), console=show, transient=True, disable=hidden
    ) as bar:
        task = bar.add_task("", total=None)
        yield (
            lambda text: bar.update(task, description=text, completed=0, total=None),
            lambda done, of: bar.update(task, completed=done, total=of),
        )


def _scores(f: Mapping[str, Any]) -> tuple[str, ...]:
    """Layers in int8, top-1 lost, agreement, cosine."""
    lost = f"{f['top1_lost']:.2%}" if "top1_lost" in f else ""
    same = f"{f['agreement']:.2%}" if "agreement" in f else ""
    cosine = f"{f['cosine']:.5f}" if "cosine" in f else ""
    return str(f.get("int8_layers", 0)), lost, same, cosine


def _show(result: dict[str, Any], quiet: bool, verbose: bool, tuned: Tuned) -> None:
    if quiet:
        return
    show = Console(highlight=False)
    if not show.is_terminal:
        show = Console(highlight=False, width=160)
    table = Rows(box=None, pad_edge=False)
    table.add_column("", width=1)
    table.add_column("plan", overflow="fold")
    judged = any("cosine" in f for f in result["finalists"])
    scores = ("int8", "lost", "agree", "cosine") if judged else ()
    for name in ("ms", "predicted", "arena", "flash", "error", *scores):
        table.add_column(name, justify="right", no_wrap=True)
    for f in result["finalists"]:
        mark = "*" if f["plan_sha256"] == result["chosen"]["plan_sha256"] else ""
        expected = "?" if f["predicted_ms"] is None else f"{f['predicted_ms']:.3f}"
        cost = "failed" if "error" in f else f"{f['measured_ms']:.3f}"
        off = "?" if f["max_rel_error"] is None else f"{f['max_rel_error']:.1e}"
        table.add_row(mark, ", ".join(f["names"]), cost, expected,
                      f"{f['arena_bytes']:,}", f"{f['flash_bytes']:,}", off,
                      *(_scores(f) if judged else ()))  # fmt: skip
    show.print(table)
    show.print(
        f"{result['model']} on {result['board']}: {result['plans']:.3g} plans of "
        f"{result['candidates']} candidates ({result['measured_candidates']} measured now); "
        f"{verdict(result)}"
    )
    for f in result["failed"]:
        show.print(f"failed: {f['layer']}: {f['candidate']}: {f['error']}", markup=False)
    for f in result["dropped"]:
        show.print(f"dropped: {', '.join(f['names'])}: {f['reason']}", markup=False)
    if "samples" in (best := result["chosen"]):
        lost, same, cosine = _scores(best)[1:]
        lost = f"{lost} of top-1 lost, " if lost else ""
        show.print(f"on {best['samples']} samples the chosen plan: {lost}{same} agreement, "
                   f"cosine {cosine}", markup=False)  # fmt: skip
    if "as_it_came" in result:
        show.print(f"no layer was tried in float32: {result['as_it_came']}", markup=False)
    if result["why"]:
        show.print(result["why"])
    if verbose:
        for name, choice in tuned.chosen.plan.nodes.items():
            bits = f" {choice.bits}-bit weights" if choice.bits else ""
            show.print(f"  {name}: {choice.kernel} {choice.layout}{bits}", markup=False)
