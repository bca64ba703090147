"""The bench program of a network, and what its layers are: what `bench` and `profile` run."""

import json
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from codegen.board import Board
from codegen.build import compile_library
from codegen.errors import CodegenError
from codegen.pipeline import Shapes, generate
from codegen.report import layers as layer_rows
from codegen.sources import write
from codegen.threads import check_one_thread
from codegen.toolchain import find_toolchain


@dataclass(frozen=True)
class Program:
    """`layers` are entries of report.json in execution order: layer i is region i + 1 of the
    program at `path`, which runs them on so many `threads`. With `error` (it does not compile)
    there is nothing else."""

    path: Path
    model: str
    layers: tuple[Mapping[str, Any], ...] = ()
    error: str = ""
    threads: int = 1


@contextmanager
def bench_program(
    model: Path,
    board: Board,
    plan_file: Path | None,
    shapes: Shapes,
    stage: Callable[[str], None],
    virtual: bool = False,
    threads: int | None = None,
    dtype: str = "",
    calibration: Path | None = None,
) -> Iterator[Program]:
    """That of a folder which `codegen build` made, or of an ONNX file, compiled in a temporary
    folder that goes when the context ends. `stage` is told what is being done. CodegenError for
    wrong input, such as several threads on the virtual board."""
    if model.is_dir():
        given = {"--plan": plan_file, "--shape": shapes, "--dtype": dtype, "--threads": threads,
                 "--calibration": calibration}  # fmt: skip
        yield _built(model, board, virtual, given)
        return
    toolchain = find_toolchain(board)
    stage("generating")
    generated = generate(model, board, plan_file, shapes, threads=threads, dtype=dtype,
                         calibration=calibration)  # fmt: skip
    if virtual:
        check_one_thread(generated.plan.threads, str(model))
    with tempfile.TemporaryDirectory(prefix="codegen-bench-") as name:
        write(generated.sources, Path(name))
        stage("compiling")
        binary = compile_library(generated.sources, Path(name), toolchain)
        if binary.error:
            yield Program(Path(), model.name, (), binary.error)
        else:
            rows, count = tuple(layer_rows(generated)), generated.plan.threads
            yield Program(binary.bench, model.name, rows, threads=count)


def _built(folder: Path, board: Board, virtual: bool, given: Mapping[str, object]) -> Program:
    """`given`: options that go with a model, by name."""
    if any(value not in (None, "", {}) for value in given.values()):
        raise CodegenError(
            next(option for option, value in given.items() if value not in (None, "", {})),
            f"{folder} is already built",
            "these options go with an ONNX file",
            "leave them away or name the model",
        )
    program = folder / "build" / "bench"
    try:
        report = json.loads((folder / "report.json").read_text())
        rows, count = tuple(report["layers"]), report.get("threads", 1)
        found = Program(program, report["model"], rows, threads=count)
        made_for = report["board"]
    except (OSError, ValueError, KeyError, TypeError):
        found = None
    if found is None or not program.is_file():
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
    if virtual:
        check_one_thread(found.threads, str(folder))
    return found
