"""Trials -> measurements: compile one program, run it once, read what it says."""

import re
import signal
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from threading import Event
from typing import Any

from codegen.board import Board
from codegen.build import compile_program, is_clang
from codegen.footprint import functions
from codegen.pricing.program import Bench, microbench
from codegen.pricing.trials import Trial
from codegen.run import Job, Outcome, Runner
from codegen.run.statistics import median
from codegen.sources import write
from codegen.store import Measurement
from codegen.store.records import PARTS, conditions_text
from codegen.toolchain import Toolchain

# No candidate may profit from where the linker happened to put it, or share code with another:
# gcc folds functions that come out the same.
APART = ("-falign-functions=64",)
GCC_APART = ("-fno-ipa-icf",)
# What a compiler finds in the source; not that it was killed, or its disk is full.
_DIAGNOSED = re.compile(r":\d+: error: ")
# What a program does to itself: under an emulator it will do so again.
_FAULTS = (
    signal.SIGILL, signal.SIGTRAP, signal.SIGABRT, signal.SIGBUS, signal.SIGFPE, signal.SIGSEGV,
)  # fmt: skip


@dataclass(frozen=True)
class Bed:
    """Where trials run. `warm`: the weights are in L2. `ms` is the time for the runs of one trial
    on a real board, `timeout_s` that for a whole program. No program starts once `stop` is set."""

    board: Board
    runner: Runner
    toolchain: Toolchain
    warm: bool
    ms: int = 100
    timeout_s: float = 300.0
    stop: Event = field(default_factory=Event)


class BoardLost(Exception):
    """The board, not a candidate, failed; the text says how."""


def measure(trials: Sequence[Trial], bed: Bed) -> list[Measurement]:
    """One measurement for each trial. A candidate that does not compile, crashes or hangs is found
    by halving, and the others are measured without it. A figure that the runner calls noisy is an
    error. What another try may mend is marked `passing`. BoardLost where the board fails."""
    if bed.stop.is_set():
        raise BoardLost("stopped")
    with tempfile.TemporaryDirectory(prefix="codegen-price-") as name:
        found = _try(trials, bed, Path(name))
    if not isinstance(found, Measurement):
        return found
    if len(trials) == 1:
        return [_stamped(found, trials[0])]
    half = len(trials) // 2
    return measure(trials[:half], bed) + measure(trials[half:], bed)


def _try(trials: Sequence[Trial], bed: Bed, folder: Path) -> list[Measurement] | Measurement:
    """Figures of each, or why the program as a whole has none."""
    bench = microbench(trials, bed.board)
    write(bench.sources, folder)
    apart = APART if is_clang(bed.toolchain) else APART + GCC_APART
    program = compile_program(bench.sources, folder, bed.toolchain, apart)
    if isinstance(program, str):
        error = f"it does not compile: {_first_error(program)}"
        return Measurement(error=error, passing=not _DIAGNOSED.search(program))
    job = Job(program, arguments(bed.runner.name, bed.warm, bed.ms), timeout_s=bed.timeout_s)
    outcome = bed.runner.run(job, bed.board)
    if outcome.lost:
        raise BoardLost(outcome.error)
    if outcome.error:
        lasting = bed.runner.name == "virtual" and outcome.signal in _FAULTS
        return Measurement(error=outcome.error, passing=not lasting)
    sizes = _code_bytes(program, bench)
    return [
        _stamped(replace(figures(outcome, i, bed.runner.name, bed.board), code_bytes=size), trial)
        for i, (trial, size) in enumerate(zip(trials, sizes, strict=True))
    ]


def _first_error(text: str) -> str:
    lines = text.strip().splitlines()
    return next((x.strip() for x in lines if "error:" in x), lines[-1] if lines else "no message")


def arguments(runner: str, warm: bool, ms: int) -> tuple[str, ...]:
    """How the program is called."""
    return ("0" if runner == "virtual" else "1000", str(int(warm)), str(ms))


def figures(outcome: Outcome, index: int, runner: str, board: Board) -> Measurement:
    """What the program's answer says of a trial."""
    if runner != "virtual":
        return _timed(outcome.report, index)
    region = outcome.report["regions"][str(index + 1)]
    ns = round(region["cycles"] * 1e9 / board.clock_hz)
    return Measurement(region["cycles"], ns, ns, **{part: region[part] for part in PARTS})


def _timed(report: Mapping[str, Any], index: int) -> Measurement:
    """By a clock; a runner that judges (ssh) has tried several times before it says noisy."""
    noisy = report.get("noisy") or ()
    if noisy and noisy[index]:
        return Measurement(error=f"noisy: {noisy[index]}", passing=True)
    runs, told = report["runs_ns"][index], conditions_text(report.get("conditions"))
    return Measurement(ns=median(sorted(runs)), ns_min=min(runs), conditions=told)


def _stamped(measured: Measurement, trial: Trial) -> Measurement:
    return replace(
        measured,
        scratch_bytes=trial.scratch_bytes,
        weights_bytes=trial.weights_bytes,
        date=datetime.now(UTC).isoformat(timespec="seconds"),
    )


def _code_bytes(program: Path, bench: Bench) -> list[int]:
    """Of each trial's functions, with the static ones that they are made of."""
    known = [(f.name, f.bytes) for f in functions(program)]

    def size(function: str) -> int:
        parts = (f"{function}_", f"{function}.")
        return sum(n for name, n in known if name == function or name.startswith(parts))

    return [sum(map(size, dict.fromkeys(names))) for names in bench.functions]


def free(trials: Iterable[Trial]) -> dict[Trial, Measurement]:
    """Those that need no kernel call cost nothing."""
    nothing = Measurement(0, 0, 0, *(0 for _ in PARTS))
    return {t: _stamped(nothing, t) for t in trials if not t.program.steps}
