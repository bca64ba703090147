"""The runner `virtual`: qemu user mode with the counting plugin, then the cycle model.

What a program costs depends on nothing of this machine: it starts under a fixed name, with an empty
environment, a fixed stack and fixed random numbers, in an address space of its own.
"""

import shutil
import struct
import subprocess
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from codegen.board import Board
from codegen.run.base import Job, Outcome, finish
from codegen.run.qemu import qemu_root
from codegen.run.virtual.counts import CountError, parse_counts
from codegen.run.virtual.errors import AnalysisError
from codegen.run.virtual.model import Cost, price
from codegen.run.virtual.plugin import PluginError, plugin_arguments, plugin_path
from codegen.toolchain import find_llvm, find_qemu

WHOLE = 0  # region of the whole network; 1... are its steps
WARM_UP = 65535  # a region that only fills the caches
_AARCH64 = 183  # e_machine
_PROGRAM, _PLUGIN, _COUNTS = "program", "vboard.so", "vboard.counts"


class VirtualRunner:
    """Cycles without a board. The report gets `cycles`, `ms` and `regions` where the program marked
    any; all are null where it did not. `stage` is told what a long run is at."""

    name = "virtual"

    def __init__(self, stage: Callable[[str], None] = lambda text: None):
        self.stage = stage

    def run(self, job: Job, board: Board) -> Outcome:
        start = time.monotonic()
        self.stage("running under qemu")
        outcome, text = count(job, board)
        if outcome.error:
            return outcome
        self.stage("analysing")
        try:
            costs = price(parse_counts(text), board.cycle_model, str(find_llvm("llvm-mc")),
                          str(find_llvm("llvm-mca")))  # fmt: skip
        except (CountError, AnalysisError) as e:
            return Outcome(error=str(e), seconds=time.monotonic() - start)
        report = {**outcome.report, **_report(costs, board)}
        return Outcome(report, outcome.outputs, time.monotonic() - start)


def count(job: Job, board: Board) -> tuple[Outcome, str]:
    """Run the job under the plugin: the program's own report, and the text that the plugin wrote
    (for counts.parse_counts); without the text where the outcome has an error."""
    problem = missing(board) or _wrong_program(job.program)
    if problem:
        return Outcome(error=problem), ""
    try:
        return _count(job, board, plugin_path(str(find_qemu())))
    except PluginError as e:
        return Outcome(error=str(e)), ""


def missing(board: Board) -> str:
    """Why this board cannot be run virtually here, or nothing."""
    if board.cycle_model is None:
        return f"board {board.name} has no [cycle_model], which runner virtual needs"
    if find_qemu() is None:
        return "qemu-aarch64 is not installed (package qemu-user)"
    for tool in ("llvm-mc", "llvm-mca"):
        if find_llvm(tool) is None:
            return f"{tool} is not installed (package llvm-19 or llvm)"
    return ""


def _wrong_program(program: Path) -> str:
    try:
        with program.open("rb") as f:
            head = f.read(20)
    except OSError as e:
        return f"the program cannot be read: {e}"
    if len(head) < 20 or head[:4] != b"\x7fELF":
        return f"{program.name} is not an ELF program"
    machine = struct.unpack_from("<H", head, 18)[0]
    if machine != _AARCH64 or head[4] != 2:
        return f"{program.name} is for another machine (ELF machine {machine}, AArch64 is 183)"
    return ""


def _count(job: Job, board: Board, plugin: Path) -> tuple[Outcome, str]:
    """Run in a private folder, in which every name is fixed."""
    with tempfile.TemporaryDirectory(prefix="codegen-run-") as name:
        folder = Path(name)
        data = folder / "data"
        data.mkdir()
        for file, content in job.inputs.items():
            (data / file).write_bytes(content)
        shutil.copyfile(job.program, folder / _PROGRAM)
        shutil.copyfile(plugin, folder / _PLUGIN)
        (folder / _PROGRAM).chmod(0o755)
        start = time.monotonic()
        try:
            done = subprocess.run(
                _command(job, board), cwd=data, capture_output=True, timeout=job.timeout_s,
                stdin=subprocess.DEVNULL, env={},
            )  # fmt: skip
        except subprocess.TimeoutExpired:
            late = f"the program did not end within {job.timeout_s:g} s"
            return Outcome(error=late, seconds=job.timeout_s), ""
        except OSError as e:
            return Outcome(error=f"the program cannot be started: {e}"), ""
        seconds = time.monotonic() - start
        files = {n: (data / n).read_bytes() for n in job.outputs if (data / n).is_file()}
        out, err = (s.decode(errors="replace") for s in (done.stdout, done.stderr))
        outcome = finish(done.returncode, out, err, files, job.outputs, seconds)
        counts = folder / _COUNTS
        return outcome, counts.read_text() if counts.is_file() and not outcome.error else ""


def _command(job: Job, board: Board) -> tuple[str, ...]:
    """qemu's options: no part of the guest's memory may depend on where or for whom it runs."""
    arguments = ",".join((f"../{_PLUGIN}", *plugin_arguments(board, f"../{_COUNTS}")))
    return (
        str(find_qemu()), "-cpu", board.qemu_cpu,
        "-s", "8388608", "-R", "0x8000000000", "-seed", "1", *qemu_root(job),
        "-0", _PROGRAM, "-plugin", arguments, f"../{_PROGRAM}", *job.args,
    )  # fmt: skip


def _report(costs: dict[int, Cost], board: Board) -> dict[str, Any]:
    """The keys that this runner adds to the program's own."""
    regions = {str(n): region_values(c, board) for n, c in sorted(costs.items()) if n != WARM_UP}
    whole = regions.get(str(WHOLE), {})
    return {
        "cycles": whole.get("cycles"),
        "ms": whole.get("ms"),
        "regions": regions,
        "basis": board.cycle_model.core.basis,
    }


def region_values(cost: Cost, board: Board) -> dict[str, Any]:
    """One region in plain values, as the report has it."""
    return {
        "cycles": cost.cycles,
        "ms": round(cost.cycles * 1e3 / board.clock_hz, 6),
        "core": round(cost.core),
        "branch": round(cost.branch),
        "l2": round(cost.l2),
        "memory": round(cost.memory),
        "instructions": cost.instructions,
        "events": dict(cost.events),
    }
