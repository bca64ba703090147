"""What a runner is: it takes a program and files to a board, runs it there, and brings files and
one JSON line back."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from codegen.board import Board


@dataclass(frozen=True)
class Job:
    """`program` with `args`; a file argument is a plain name. `inputs` are put beside it,
    `outputs` fetched after. A program that needs more than itself brings `root`, a folder that
    stands for `/`, and environment variables."""

    program: Path
    args: tuple[str, ...] = ()
    inputs: Mapping[str, bytes] = field(default_factory=dict)
    outputs: tuple[str, ...] = ()
    timeout_s: float = 600.0
    root: Path | None = None
    env: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Outcome:
    """What came back: the program's JSON line and files, or `error`. `seconds` is wall time, for
    progress only. `lost` says that the board failed and not the program (it died, it throttles):
    another board, or the same one later, may do the job. `signal` is the number of the one that
    ended the program, 0 where it ended by itself."""

    report: Mapping[str, Any] = field(default_factory=dict)
    outputs: Mapping[str, bytes] = field(default_factory=dict)
    seconds: float = 0.0
    error: str = ""
    lost: bool = False
    signal: int = 0


class Runner(Protocol):
    """Every way of executing a binary for a board. `name` is part of the key of what it measures.
    One that stands for several boards may be called by several threads at once and has their number
    in an attribute `boards`."""

    name: str

    def run(self, job: Job, board: Board) -> Outcome:
        """Never raises for what the program does: a crash, a hang or garbage is an Outcome with
        an error."""
        ...


def parse_report(stdout: str) -> Mapping[str, Any] | None:
    """The last line that is a JSON object, or None."""
    for line in reversed(stdout.splitlines()):
        try:
            value = json.loads(line)
        except json.JSONDecodeError:
            continue
        if isinstance(value, dict):
            return value
    return None


def finish(
    code: int,
    stdout: str,
    stderr: str,
    outputs: Mapping[str, bytes],
    wanted: Sequence[str],
    seconds: float,
) -> Outcome:
    """Judge a finished process: exit code, JSON line, files."""
    report = parse_report(stdout)
    said = (report or {}).get("error") or stderr.strip()[-2000:] or stdout.strip()[-500:]
    if code != 0:
        reason = f"signal {-code}" if code < 0 else f"exit code {code}"
        error = f"the program ended with {reason}: {said}"
        return Outcome(error=error, seconds=seconds, signal=max(0, -code))
    if report is None:
        return Outcome(error=f"the program printed no JSON line: {said!r}", seconds=seconds)
    missing = [n for n in wanted if n not in outputs]
    if missing:
        return Outcome(error=f"the program did not write {missing[0]}", seconds=seconds)
    return Outcome(report, outputs, seconds)
