"""codegen build: model in, verified C library out."""

import json
import shutil
import tempfile
from functools import partial
from pathlib import Path
from typing import Any

import click
from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from codegen.board import Board, load_board
from codegen.build import Binary, compile_library
from codegen.compare import difference
from codegen.errors import CodegenError
from codegen.exactness import MOST_CAREFUL
from codegen.interpret import interpret
from codegen.memory_map import svg
from codegen.pipeline import Generated, Shapes, generate
from codegen.reference import Interpreted, Reference, random_inputs
from codegen.report import make_report, print_report
from codegen.resources import presets_file
from codegen.run import Runner, pick_runner
from codegen.sources import write
from codegen.threads import check_one_thread
from codegen.toolchain import Toolchain, find_toolchain
from codegen.types import DType
from codegen.verbs.options import (
    ACCEPT_HOST_KEY,
    BOARD,
    CALIBRATION,
    DTYPE,
    HOST,
    JSON,
    MODEL,
    PLAN,
    RUNNER,
    SHAPE,
    THREADS,
    console,
    parse_shapes,
    verbosity,
)
from codegen.verify import Case, CaseResult, Interface, check_case, load_cases

NEAR = 2e-2  # of the largest output: an error beyond is no matter of digits


@click.command()
@MODEL
@BOARD
@click.option(
    "--out", type=click.Path(path_type=Path), help="Output folder. Default: build/<model>-<board>."
)
@PLAN
@SHAPE
@DTYPE
@THREADS
@CALIBRATION
@click.option(
    "--max-weights",
    default="",
    metavar="SIZE",
    help="Pack weights into at most so many bytes (12M), or so many times the network's own "
    "(1.1x), where that costs least time. Default: as fast as can be, however large.",
)
@click.option(
    "--careful",
    default=0,
    type=click.IntRange(0, MOST_CAREFUL),
    help="Leave out kernels that lose digits. 1: those that lose most, Winograd's F(6x6) and "
    "7x7, and Strassen; 2: also F(4x4, 3x3). Default: 0, and more where the plan "
    "turns out to be less exact than it must be.",
)
@click.option(
    "--name", default="", help="Prefix of files and C symbols. Default: the model's file name."
)
@RUNNER
@HOST
@ACCEPT_HOST_KEY
@click.option(
    "--inputs",
    type=click.Path(path_type=Path),
    help="Verify on these inputs too: .npy, .npz or an ONNX test-data folder.",
)
@click.option(
    "--seeds",
    default=2,
    show_default=True,
    type=click.IntRange(0),
    help="Number of random inputs to verify on.",
)
@click.option(
    "--timeout", default=600.0, show_default=True, help="Seconds one verification run may take."
)
@click.option(
    "--verify/--no-verify", default=True, help="Run the binary and compare it with onnxruntime."
)
@JSON
@verbosity
def build(
    model: Path,
    board: str,
    out: Path | None,
    plan_file: Path | None,
    shapes: tuple[str, ...],
    dtype: str,
    threads: int | None,
    calibration: Path | None,
    max_weights: str,
    careful: int,
    name: str,
    runner: str,
    host: str,
    accept_host_key: bool,
    inputs: Path | None,
    seeds: int,
    timeout: float,
    verify: bool,
    as_json: bool,
    quiet: bool,
    verbose: bool,
) -> int:
    """Compile MODEL (an ONNX file) into a C library for a board, run it and compare it with
    onnxruntime.

    The output folder gets include/, src/, tools/, CMakeLists.txt, the compiled build/,
    plan.json, report.json and memory.svg. Exit code 0 only if everything held; 1 if compiling,
    running or comparing failed; 2 for bad input.
    """
    pinned, target = parse_shapes(shapes), load_board(board)
    chosen = pick_runner(target, runner, host, accept_host_key) if verify else None
    out = out or Path("build") / f"{model.stem}-{target.name}"
    _check_folder(out)
    toolchain = find_toolchain(target)
    with _stage(out) as stage, _progress(quiet or as_json) as progress:
        task = progress.add_task("importing")
        plan = partial(
            generate, model, target, plan_file, pinned, name, threads, dtype, max_weights,
            calibration=calibration,
        )  # fmt: skip
        generated = plan(careful)
        if chosen and chosen.name == "virtual":
            check_one_thread(generated.plan.threads, "--runner")
        cases = _cases(generated, inputs, seeds) if verify else []
        check = partial(_check, model, pinned, target, toolchain, chosen, cases, timeout)
        progress.update(task, description="compiling and verifying")
        binary, results = check(generated, stage)
        in_codes = generated.plan.dtype == DType.I8.value
        first = off = 0.0 if plan_file or in_codes else _inexact(results)
        while off and careful < MOST_CAREFUL:
            careful += 1
            progress.update(task, description=f"compiling and verifying a plan, careful {careful}")
            generated = plan(careful)
            binary, results = check(generated, stage)
            off = _inexact(results)
        if binary.error:
            click.echo(f"error: the generated library does not compile:\n{binary.error}", err=True)
            return 1
        (stage / "plan.json").write_text(generated.plan.to_json())
        shutil.copyfile(presets_file(), stage / "CMakePresets.json")
        report = _report(
            generated, binary, target, toolchain, model, pinned, results, chosen, verify
        )
        report["careful"] = careful
        report["fastest_plan_was_off_by"] = first or None
        report["cosine_to_float"] = _cosine(generated, model, pinned, cases) if in_codes else None
        (stage / "report.json").write_text(json.dumps(report, indent=1) + "\n")
        picture = svg(
            generated.schedule.buffers,
            len(report["layers"]),
            report["arena_bytes"],
            report["arena_lower_bound_bytes"],
            [layer["name"] for layer in report["layers"]],
        )
        (stage / "memory.svg").write_text(picture)
    if as_json:
        click.echo(json.dumps(report, indent=1))
    else:
        show = console(quiet)
        show.print(f"{generated.sources.name} for {target.name} in {out}")
        print_report(report, show, verbose)
    return 0 if _held(report, verify) else 1


def _held(report: dict[str, Any], verify: bool) -> bool:
    """Compiled, no foreign symbols, and (where a runner exists and it was asked for) verified."""
    if report["foreign_symbols"]:
        return False
    return report["verified"] if verify and report["runner"] else not report["errors"]


def _check_folder(out: Path) -> None:
    """Only an empty folder, or one that a build made, may be replaced."""
    if out.is_dir() and any(out.iterdir()) and not (out / "report.json").is_file():
        raise CodegenError(
            "--out",
            f"{out} has files that no build made",
            "a new or empty folder, or an earlier build",
            "name another folder",
        )
    if out.exists() and not out.is_dir():
        raise CodegenError("--out", f"{out} is not a folder", "a folder", "name another one")


class _stage:
    """A folder beside the output that becomes it only when everything was written."""

    def __init__(self, out: Path):
        self.out = out

    def __enter__(self) -> Path:
        try:
            self.out.parent.mkdir(parents=True, exist_ok=True)
            self.folder = Path(tempfile.mkdtemp(prefix=f".{self.out.name}-", dir=self.out.parent))
        except OSError as e:
            raise CodegenError(
                "--out",
                f"cannot write to {self.out.parent} ({e.strerror})",
                "a writable folder",
                "name another one",
            ) from None
        self.folder.chmod(0o755)
        return self.folder

    def __exit__(self, kind: object, value: object, trace: object) -> None:
        if kind is None and (self.folder / "report.json").is_file():
            if self.out.is_dir():
                shutil.rmtree(self.out)
            self.folder.rename(self.out)
        else:
            shutil.rmtree(self.folder, ignore_errors=True)


def _progress(quiet: bool) -> Progress:
    """What is going on, on a terminal only."""
    show = console(False)
    columns = (SpinnerColumn(), TextColumn("{task.description}"), TimeElapsedColumn())
    return Progress(*columns, transient=True, console=show, disable=quiet or not show.is_terminal)


def _cases(generated: Generated, inputs: Path | None, seeds: int) -> list[Case]:
    graph = generated.graph
    cases = [Case(f"random {s}", random_inputs(graph, s)) for s in range(seeds)]
    if inputs:
        cases += load_cases(
            inputs,
            [graph.tensors[t] for t in graph.inputs],
            [graph.tensors[t] for t in graph.outputs],
        )
    return cases


def _check(
    model: Path,
    shapes: Shapes,
    board: Board,
    toolchain: Toolchain,
    runner: Runner | None,
    cases: list[Case],
    timeout: float,
    generated: Generated,
    stage: Path,
) -> tuple[Binary, list[CaseResult]]:
    """Write the library into an empty `stage`, compile it and compare its results."""
    for path in stage.iterdir():
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    write(generated.sources, stage)
    binary = compile_library(generated.sources, stage, toolchain)
    if binary.error or runner is None or not cases:
        return binary, []
    interface = Interface.of(generated.sources, generated.schedule)
    in_codes = generated.plan.dtype == DType.I8.value
    reference = Interpreted(generated.graph) if in_codes else Reference(model, shapes)
    return binary, [
        check_case(interface, binary.verify, runner, board, reference, c, timeout) for c in cases
    ]


def _cosine(generated: Generated, model: Path, shapes: Shapes, cases: list[Case]) -> float | None:
    """How like the float network's the outputs of a network in int8 are on these inputs, at
    least."""
    if not cases:
        return None
    real = Reference(model, shapes)
    pairs = [(interpret(generated.graph, c.inputs), real.run(c.inputs)) for c in cases]
    return min(difference(a[t], b[t]).cosine for a, b in pairs for t in b)


def _inexact(results: list[CaseResult]) -> float:
    """The largest relative error, where results are near what they must be, and not near enough;
    else 0."""
    if all(r.passed for r in results) or any(r.error for r in results):
        return 0.0
    worst = max(d.max_rel for r in results for d in r.outputs.values())
    return worst if worst <= NEAR else 0.0


def _report(
    generated: Generated,
    binary: Binary,
    board: Board,
    toolchain: Toolchain,
    model: Path,
    shapes: Shapes,
    results: list[CaseResult],
    runner: Runner | None,
    verify: bool,
) -> dict[str, Any]:
    why = (
        ""
        if results
        else "it was not asked for"
        if not verify
        else (
            "no input was given (--seeds 0)"
            if runner
            else "no runner for this board works here; see `codegen doctor`"
        )
    )
    return make_report(
        generated,
        binary,
        board,
        toolchain,
        model.name,
        shapes,
        results,
        runner.name if runner else "",
        why,
    )
