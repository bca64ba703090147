"""What a Dask worker does: one job on the board that it stands for. It may run on another machine,
so the program travels with it."""

import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from distributed import get_worker

from codegen.board import Board
from codegen.run import Job, Outcome
from codegen.run.ssh import Limits, SshRunner


@dataclass(frozen=True)
class Task:
    """A job with its program's bytes. `hosts` are the hosts of workers whose name is not one."""

    job: Job
    program: bytes
    board: Board
    hosts: Mapping[object, str]
    accept_host_key: bool
    limits: Limits


def measure(task: Task) -> tuple[str, Outcome]:
    """The host that had the job, and what came of it."""
    name = get_worker().name
    host = task.hosts.get(name, str(name))
    with tempfile.TemporaryDirectory(prefix="codegen-fleet-") as folder:
        program = Path(folder) / task.job.program.name
        program.write_bytes(task.program)
        runner = SshRunner(host, task.accept_host_key, task.limits)
        return host, runner.run(replace(task.job, program=program), task.board)
