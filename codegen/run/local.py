"""Run a binary as a process of this machine, directly or under an emulator."""

import os
import subprocess
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from codegen.board import Board
from codegen.run.base import Job, Outcome, finish


def run_process(prefix: Sequence[str], job: Job) -> Outcome:
    """Execute in a private temporary folder, which is removed afterwards."""
    with tempfile.TemporaryDirectory(prefix="codegen-run-") as folder:
        for name, data in job.inputs.items():
            (Path(folder) / name).write_bytes(data)
        start = time.monotonic()
        try:
            done = subprocess.run(
                [*prefix, str(job.program.resolve()), *job.args],
                cwd=folder,
                capture_output=True,
                timeout=job.timeout_s,
                stdin=subprocess.DEVNULL,
                env={"PATH": os.environ.get("PATH", "/usr/bin:/bin"), "LC_ALL": "C"},
            )
        except subprocess.TimeoutExpired:
            return Outcome(
                error=f"the program did not end within {job.timeout_s:g} s", seconds=job.timeout_s
            )
        except OSError as e:
            return Outcome(error=f"the program cannot be started: {e}")
        seconds = time.monotonic() - start
        files = {
            n: (Path(folder) / n).read_bytes() for n in job.outputs if (Path(folder) / n).is_file()
        }
    return finish(
        done.returncode,
        done.stdout.decode(errors="replace"),
        done.stderr.decode(errors="replace"),
        files,
        job.outputs,
        seconds,
    )


class LocalRunner:
    """This machine is the board."""

    name = "local"

    def run(self, job: Job, board: Board) -> Outcome:
        return run_process((), job)
