"""The runner itself: lease, push, measure, judge, fetch, clean up."""

import re
import time
from dataclasses import dataclass, replace

import paramiko

from codegen.board import Board
from codegen.run.base import Job, Outcome, finish
from codegen.run.ssh.address import split_host
from codegen.run.ssh.conditions import (
    READ,
    Conditions,
    choose_cpu,
    parse_conditions,
    why_throttled,
)
from codegen.run.ssh.connection import connect
from codegen.run.ssh.judge import Runs, read_runs
from codegen.run.ssh.lease import Lease
from codegen.run.ssh.problems import BoardProblem, RunProblem
from codegen.run.ssh.shell import posix, run
from codegen.run.ssh.transfer import Files, open_files
from codegen.run.statistics import DRIFT, WIDTH

# In the folder's data/: two processes' numbers for the keeper, the program, and its exit code as a
# number even where a signal ended it, which SSH would tell by name.
_RUN = """
cd "$1/data" && shift && echo $$ >../pid || exit
sh -c 'echo $$ >>../pid && exec env "$@" </dev/null' codegen "$@"
exit $?
"""
_MOST_OUTPUT = 4 << 20


@dataclass(frozen=True)
class Limits:
    """Seconds and numbers. `connect_s` bounds each step of connecting, `lease_s` the wait for
    another's job, `silence_s` how long a dead board is waited for. A measurement is made at most
    `attempts` times; a board that throttled rests for `settle_s` in between. It is noisy where the
    interval of the median is wider than `width`, or first and last third of the runs are further
    apart than `drift`, both as parts of the median."""

    connect_s: float = 15.0
    lease_s: float = 1800.0
    silence_s: float = 40.0
    attempts: int = 3
    settle_s: float = 10.0
    width: float = WIDTH
    drift: float = DRIFT


class SshRunner:
    """A real board: an alias of ~/.ssh/config or user@host[:port]. One connection per job."""

    name = "ssh"

    def __init__(self, host: str, accept_host_key: bool = False, limits: Limits | None = None):
        split_host(host)
        self.host, self.accept_host_key, self.limits = host, accept_host_key, limits or Limits()

    def run(self, job: Job, board: Board) -> Outcome:
        """The report of a program that gives `runs_ns` gets `conditions` {"before", "after"}, and
        comes only from an attempt that neither throttled nor was noisy. Of a program with several
        lists of runs the steady ones are good, whichever attempt they are of, and `noisy` has for
        each its reason or nothing; `conditions` spans these attempts.
        `lost` is set where the board and not the program failed, so also for a rejected figure."""
        problem = _unsuitable(job)
        if problem:
            return Outcome(error=problem)
        begin, limits = time.monotonic(), self.limits
        try:
            with (
                connect(self.host, self.accept_host_key, limits.connect_s) as client,
                Lease(client, limits.lease_s, limits.silence_s) as lease,
            ):
                return _Attempt(client, lease, job, board, limits).repeat()
        except BoardProblem as e:
            return Outcome(error=self._at(e), seconds=time.monotonic() - begin, lost=True)
        except RunProblem as e:
            return Outcome(error=self._at(e), seconds=time.monotonic() - begin)

    def _at(self, e: Exception) -> str:
        return str(e) if str(e).startswith(self.host) else f"{self.host}: {e}"


class _Attempt:
    """One job on one leased board."""

    def __init__(
        self, client: paramiko.SSHClient, lease: Lease, job: Job, board: Board, limits: Limits
    ):
        self.client, self.lease, self.job, self.board = client, lease, job, board
        self.limits = limits

    def repeat(self) -> Outcome:
        """Until a figure is steady and was taken on a board that did not throttle; a board that
        throttles rests in between. Of several trials each is kept from where it was steady."""
        best, first, reason, throttled = None, None, "", ""
        with open_files(self.client, self.limits.connect_s) as files:
            self._push(files)
            for _ in range(self.limits.attempts):
                if throttled:
                    self.lease.rest(self.limits.settle_s)
                outcome, runs, throttled = self._measure(files)
                if not runs.trials:
                    return outcome
                if not throttled:
                    best, taken = runs.better(best), outcome
                    first = first or outcome
                    if not any(best.noisy):
                        break
                reason = throttled or next(filter(None, best.noisy))
        if best is None or (any(best.noisy) and not best.nested):
            error = f"rejected after {self.limits.attempts} attempts: {reason}"
            return Outcome(error=error, seconds=outcome.seconds, lost=True)
        noisy = {"noisy": list(best.noisy)} if best.nested else {}
        conditions = {**taken.report["conditions"], "before": first.report["conditions"]["before"]}
        told = {"runs_ns": best.plain(), "conditions": conditions, **noisy}
        return replace(taken, report={**taken.report, **told})

    def _push(self, files: Files) -> None:
        folder = self.lease.folder
        files.put(f"{folder}/program", self.job.program.read_bytes(), executable=True)
        for name, data in self.job.inputs.items():
            files.put(f"{folder}/data/{name}", data)

    def _measure(self, files: Files) -> tuple[Outcome, Runs, str]:
        """The outcome, its runs (none where it is not a measurement), and why the board was not
        at its full speed meanwhile (nothing where it was)."""
        before = self._conditions()
        cpu, wrong = choose_cpu(before, self.board.core)
        if wrong:
            raise BoardProblem(f"the host {wrong} ({self.board.name})")
        outcome = self._run(files, cpu)
        try:
            runs = Runs() if outcome.error else self._read(outcome)
        except ValueError as e:
            return Outcome(error=str(e), seconds=outcome.seconds), Runs(), ""
        if not runs.trials:
            return outcome, runs, ""
        after = self._conditions()
        told = outcome.report.get("cpu")
        cpu = told if isinstance(told, int) and told >= 0 else cpu
        conditions = {"before": before.of_cpu(cpu), "after": after.of_cpu(cpu)}
        report = {**outcome.report, "conditions": conditions}
        return replace(outcome, report=report), runs, why_throttled(before, after, cpu)

    def _read(self, outcome: Outcome) -> Runs:
        return read_runs(outcome.report, self.limits.width, self.limits.drift)

    def _conditions(self) -> Conditions:
        done = run(self.client, posix(READ), self.limits.connect_s, limit=_MOST_OUTPUT)
        return parse_conditions(done.stdout.decode(errors="replace"))

    def _run(self, files: Files, cpu: int | None) -> Outcome:
        job, folder = self.job, self.lease.folder
        env = {"LC_ALL": "C", **({} if cpu is None else {"CODEGEN_CPU": str(cpu)}), **job.env}
        words = (*(f"{k}={v}" for k, v in env.items()), "../program", *job.args)
        start = time.monotonic()
        done = run(self.client, posix(_RUN, folder, *words), job.timeout_s, b"", _MOST_OUTPUT,
                   self.lease.check)  # fmt: skip
        seconds = time.monotonic() - start
        got = {n: files.get(f"{folder}/data/{n}") for n in (() if done.code else job.outputs)}
        present = {n: data for n, data in got.items() if data is not None}
        out, err = (s.decode(errors="replace") for s in (done.stdout, done.stderr))
        return finish(done.code, out, err, present, job.outputs, seconds)


def _unsuitable(job: Job) -> str:
    """Why a job cannot go to a board."""
    if job.root is not None:
        return "a program that brings its own root folder cannot be run over ssh"
    names = (*job.inputs, *job.outputs)
    bad = next((n for n in names if n in ("", ".", "..") or "/" in n or "\0" in n), None)
    if bad is not None:
        return f"{bad!r} is not a plain file name"
    bad = next((k for k in job.env if not re.fullmatch(r"[A-Za-z_]\w*", k, re.ASCII)), None)
    if bad is not None:
        return f"{bad!r} is not the name of an environment variable"
    if not job.program.is_file():
        return f"there is no program {job.program}"
    return "" if not any("\0" in a for a in job.args) else "an argument holds a NUL"
