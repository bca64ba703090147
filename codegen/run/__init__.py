"""Binary + Board -> Measurement. A board describes silicon; a runner says how a binary gets
executed for it."""

from codegen.board import Board
from codegen.errors import CodegenError
from codegen.run.base import Job, Outcome, Runner
from codegen.run.local import LocalRunner
from codegen.run.qemu import QemuRunner
from codegen.run.virtual import VirtualRunner
from codegen.toolchain import find_qemu

RUNNERS: dict[str, type] = {r.name: r for r in (LocalRunner, QemuRunner, VirtualRunner)}


def pick_runner(board: Board, name: str = "") -> Runner | None:
    """The named runner, or the first of the board's list that works here; None where there is
    none."""
    if name:
        if name not in RUNNERS:
            raise CodegenError(
                "--runner", f"{name!r}", f"runners: {', '.join(RUNNERS)}", "name one of them"
            )
        if name not in board.runners:
            raise CodegenError(
                "--runner",
                f"{name!r} cannot run code for board {board.name}",
                f"its runners: {', '.join(board.runners)}",
                "name one of them",
            )
        return RUNNERS[name]()
    for candidate in board.runners:
        if candidate == "local" or (candidate == "qemu" and find_qemu()):
            return RUNNERS[candidate]()
    return None


__all__ = ["Job", "Outcome", "Runner", "pick_runner", "RUNNERS"]
