"""qemu user mode: correctness of the board's own code on any machine; it knows nothing of
cycles."""

from codegen.board import Board
from codegen.run.base import Job, Outcome
from codegen.run.local import run_process
from codegen.toolchain import find_qemu


class QemuRunner:
    """The binary runs under qemu-aarch64 with the board's `qemu_cpu`."""

    name = "qemu"

    def run(self, job: Job, board: Board) -> Outcome:
        qemu = find_qemu()
        if qemu is None:
            return Outcome(error="qemu-aarch64 is not installed (package qemu-user)")
        return run_process((str(qemu), "-cpu", board.qemu_cpu, *qemu_root(job)), job)


def qemu_root(job: Job) -> tuple[str, ...]:
    """qemu's options for a job's root and environment."""
    prefix = ("-L", str(job.root.resolve())) if job.root else ()
    return (*prefix, *(x for k, v in sorted(job.env.items()) for x in ("-E", f"{k}={v}")))
