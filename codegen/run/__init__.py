"""Binary + Board -> Measurement. A board describes silicon; a runner says how a binary gets
executed for it."""

from codegen.board import RUNNERS as NAMES
from codegen.board import Board
from codegen.cpus import check_emulator
from codegen.errors import CodegenError
from codegen.run.base import Job, Outcome, Runner
from codegen.run.local import LocalRunner
from codegen.run.qemu import QemuRunner
from codegen.run.virtual import VirtualRunner
from codegen.toolchain import find_qemu

# Those that need nothing but this machine. The fourth, ssh, needs a host.
RUNNERS: dict[str, type] = {r.name: r for r in (LocalRunner, QemuRunner, VirtualRunner)}


def pick_runner(
    board: Board, name: str = "", host: str = "", accept_host_key: bool = False
) -> Runner | None:
    """The named runner, or the first of the board's list that works here; None where there is
    none. A `host` (an ssh-config alias or user@host[:port]) means the runner ssh, which nothing
    chooses by itself; an unknown host key is refused unless `accept_host_key`. CodegenError for a
    runner that the board has not, and for a `qemu_cpu` that qemu has not."""
    name = name or ("ssh" if host else "")
    if not name:
        return _default(board)
    if name not in NAMES:
        raise CodegenError(
            "--runner", f"{name!r}", f"runners: {', '.join(NAMES)}", "name one of them"
        )
    if name not in board.runners:
        raise CodegenError(
            "--runner",
            f"{name!r} cannot run code for board {board.name}",
            f"its runners: {', '.join(board.runners)}",
            "name one of them",
        )
    if name == "ssh":
        from codegen.run.ssh import SshRunner  # paramiko is slow to import

        return SshRunner(host, accept_host_key)
    if host:
        raise CodegenError(
            "--host",
            f"{host!r} with runner {name}",
            "a host goes with runner ssh",
            "leave one of them away",
        )
    return _here(name, board)


def _default(board: Board) -> Runner | None:
    for candidate in board.runners:
        if candidate == "local" or (candidate == "qemu" and find_qemu()):
            return _here(candidate, board)
    return None


def _here(name: str, board: Board) -> Runner:
    """One that needs no host. An emulator that is not installed says so itself when it runs."""
    qemu = find_qemu()
    if name != "local" and qemu:
        check_emulator(qemu, board)
    return RUNNERS[name]()


__all__ = ["Job", "Outcome", "Runner", "pick_runner", "RUNNERS"]
