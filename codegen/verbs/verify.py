"""codegen verify: compare a built library with onnxruntime, output by output or layer by layer."""

import json
from pathlib import Path
from typing import Any

import click
from rich.table import Table

from codegen.board import Board, load_board
from codegen.errors import CodegenError
from codegen.graph import Graph
from codegen.onnx_import import import_onnx
from codegen.pipeline import computed_graph, model_hash, twin_of
from codegen.plan import read_plan
from codegen.reference import Interpreted, Reference, random_inputs
from codegen.run import pick_runner
from codegen.threads import check_one_thread
from codegen.types import DType
from codegen.verbs.options import (
    ACCEPT_HOST_KEY,
    CALIBRATION,
    HOST,
    JSON,
    MODEL,
    RUNNER,
    console,
    verbosity,
)
from codegen.verify import Case, CaseResult, Interface, check_case, load_cases


@click.command()
@MODEL
@click.argument("folder", type=click.Path(path_type=Path))
@click.option(
    "--board", default="", help="Board the folder was built for, if it is a TOML file of your own."
)
@RUNNER
@HOST
@ACCEPT_HOST_KEY
@click.option(
    "--inputs", type=click.Path(path_type=Path), help=".npy, .npz or an ONNX test-data folder."
)
@click.option(
    "--seeds",
    default=None,
    type=click.IntRange(0),
    help="Number of random inputs. Default: 2, or 0 with --inputs.",
)
@click.option(
    "--layers", is_flag=True, help="Compare after every layer and name the first that diverges."
)
@CALIBRATION
@click.option("--timeout", default=600.0, show_default=True, help="Seconds one run may take.")
@JSON
@verbosity
def verify(
    model: Path,
    folder: Path,
    board: str,
    runner: str,
    host: str,
    accept_host_key: bool,
    inputs: Path | None,
    seeds: int | None,
    layers: bool,
    calibration: Path | None,
    timeout: float,
    as_json: bool,
    quiet: bool,
    verbose: bool,
) -> int:
    """Run the library that `codegen build` left in FOLDER and compare it with onnxruntime on
    MODEL.

    Errors are max |y - ref|, the same relative to max |ref|, the largest distance in float32
    steps (ULP) and the cosine. Pass: relative error of at most 1e-4 for float32. A library in int8
    is compared with integer arithmetic instead, for which its calibration is needed, unless the
    model came quantised. Exit code 1 if a case fails.
    """
    report = _read_report(folder)
    target = load_board(board or report["board"])
    if model.is_file() and model_hash(model, report["shapes"]) != report["model_sha256"]:
        raise CodegenError(
            str(folder),
            f"was built from another model than {model.name}",
            f"model {report['model_sha256'][:12]}…",
            "name that model, or build again",
        )
    chosen = pick_runner(target, runner, host, accept_host_key)
    if chosen is None:
        raise CodegenError(
            "--runner",
            f"no runner for board {target.name} works here",
            f"its runners: {', '.join(target.runners)}",
            "see `codegen doctor`",
        )
    if chosen.name == "virtual":
        check_one_thread(report.get("threads", 1), str(folder))
    interface = Interface.from_dict(report["interface"])
    reference = _reference(model, target, report, folder, interface, layers, calibration)
    coded = reference.graph if isinstance(reference, Interpreted) else None
    cases = _cases(interface, coded, inputs, (0 if inputs else 2) if seeds is None else seeds)
    program = folder / "build" / "verify"
    results = [check_case(interface, program, chosen, target, reference, c, timeout) for c in cases]
    if as_json:
        click.echo(json.dumps([_plain(r) for r in results], indent=1))
    else:
        _show(results, console(quiet), layers)
    return 0 if results and all(r.passed for r in results) else 1


def _reference(
    model: Path, board: Board, report: dict[str, Any], folder: Path, interface: Interface,
    layers: bool, calibration: Path | None,
) -> Reference | Interpreted:  # fmt: skip
    """What the library should compute."""
    in_codes = report.get("dtype") == DType.I8.value
    if in_codes and layers:
        raise CodegenError(
            "--layers", "a library in int8", "libraries in float32 or float16",
            "leave --layers away",
        )  # fmt: skip
    shapes = report["shapes"]
    unknown = in_codes and not calibration and twin_of(import_onnx(model, shapes)) is None
    if unknown or (calibration and not in_codes):
        raise CodegenError(
            "--calibration", f"{calibration or 'none'} for a library in {report.get('dtype')}",
            "a library in int8, and the calibration.json it was built with",
            "leave it away" if calibration else "name that file",
        )  # fmt: skip
    if in_codes:
        bits = read_plan(folder / "plan.json").bits
        graph, _ = computed_graph(
            model, board, shapes, dtype=DType.I8.value, calibration=calibration, bits=bits
        )
        return Interpreted(graph)
    return Reference(
        model, shapes, [t.tensor.name for t in interface.traces] if layers else ()
    )


def _read_report(folder: Path) -> dict[str, Any]:
    path = folder / "report.json"
    try:
        return json.loads(path.read_text())
    except FileNotFoundError:
        raise CodegenError(
            str(folder), "no report.json", "a folder that `codegen build` made", "build first"
        ) from None
    except json.JSONDecodeError as e:
        raise CodegenError(
            str(path), f"not JSON ({e})", "the report of a build", "build again"
        ) from None


def _cases(
    interface: Interface, coded: Graph | None, inputs: Path | None, seeds: int
) -> list[Case]:
    """Random ones are those of the build; `coded`: the network, where it computes codes."""
    tensors = {t.name: t for t in interface.inputs}
    shell = coded or Graph("", tuple(tensors), (), (), tensors, {})
    cases = [Case(f"random {s}", random_inputs(shell, s)) for s in range(seeds)]
    if inputs:
        cases += load_cases(inputs, interface.inputs, interface.outputs)
    if not cases:
        raise CodegenError(
            "--seeds", "0 and no --inputs", "at least one input", "give --inputs or --seeds"
        )
    return cases


def _plain(r: CaseResult) -> dict[str, Any]:
    return {
        "case": r.name,
        "passed": r.passed,
        "error": r.error,
        "outputs": {k: d.as_dict() for k, d in r.outputs.items()},
        "first_divergence": r.first_divergence,
        "layers": [
            {
                "layer": x.layer,
                "tensor": x.tensor,
                "passed": x.passed,
                "reason": x.reason,
                **(x.difference.as_dict() if x.difference else {}),
            }
            for x in r.layers
        ],
    }


def _show(results: list[CaseResult], show: Any, layers: bool) -> None:
    table = Table(box=None, pad_edge=False)
    for column in ("case", "tensor", "max abs", "max rel", "ULP", "cosine", ""):
        table.add_column(column, overflow="fold", justify="right" if column == "ULP" else "left")
    for r in results:
        if r.error:
            table.add_row(r.name, "", "", "", "", "", f"failed: {r.error}")
        for x in r.layers if layers else ():
            if x.difference is None:
                table.add_row(r.name, x.tensor, "", "", "", "", x.reason)
            else:
                _row(table, r.name, x.tensor, x.difference, "" if x.passed else "DIVERGES")
        for name, d in r.outputs.items():
            _row(table, r.name, name, d, "ok" if r.passed else "WRONG")
    show.print(table)
    for r in results:
        if r.first_divergence:
            show.print(f"{r.name}: the first layer that diverges is {r.first_divergence}")


def _row(table: Table, case: str, tensor: str, d: Any, verdict: str) -> None:
    table.add_row(
        case,
        tensor,
        f"{d.max_abs:.2e}",
        f"{d.max_rel:.2e}",
        str(d.max_ulp),
        f"{d.cosine:.9f}",
        verdict,
    )
