"""Whether compiler and emulator know the core for which a board's file asks them: they are asked,
for their lists differ from version to version."""

import difflib
import os
import re
import subprocess
from collections.abc import Sequence
from functools import lru_cache

from codegen.board import Board
from codegen.errors import CodegenError

_TIMEOUT_S = 60


def check_compiler(cc: Sequence[str], flags: Sequence[str], board: Board) -> None:
    """CodegenError where the compiler refuses the board's -mcpu, -march or -mtune."""
    asked = [f for f in flags if f.startswith(("-mcpu=", "-march=", "-mtune="))]
    said = _refusal((*cc, *flags, "-E", "-x", "c", os.devnull)) if asked else ""
    # What else it may dislike is told when it compiles.
    flag = next((f for f in asked if f.partition("=")[2].split("+")[0] in said), "")
    if not said or not flag:
        return
    found = re.search(r"valid arguments are: ([^;\n]*)", said)
    known = found[1].split() if found else []
    raise CodegenError(
        f"board {board.name}",
        f"cflags has {flag!r}, which {cc[0]} refuses ({_first_error(said)})",
        _examples(flag.partition("=")[2], known) or "what this compiler takes",
        "correct cflags in the board's file, or use a newer compiler",
    )


def check_emulator(qemu: str, board: Board) -> None:
    """CodegenError where qemu does not have the board's `qemu_cpu`."""
    known, wanted = _emulated(qemu), board.qemu_cpu.partition(",")[0]
    if known and wanted not in known:
        raise CodegenError(
            f"board {board.name}",
            f"qemu_cpu = {board.qemu_cpu!r} is not known to {os.path.basename(qemu)}",
            f"its cpus: {', '.join(known)}",
            "correct qemu_cpu in the board's file, or use a newer qemu",
        )


def _examples(wanted: str, known: Sequence[str]) -> str:
    near = difflib.get_close_matches(wanted, known, 5, 0.4)
    return f"{len(known)} values, e.g. {', '.join(near or known[:5])}" if known else ""


def _first_error(said: str) -> str:
    lines = [x.strip() for x in said.splitlines() if x.strip()]
    line = next((x for x in lines if "error:" in x), lines[0])
    return line.partition("error:")[2].strip() or line


@lru_cache
def _refusal(command: tuple[str, ...]) -> str:
    """What a compiler says where it fails; nothing where it does not, or cannot be asked."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=_TIMEOUT_S,
                              env={**os.environ, "LC_ALL": "C"}, stdin=subprocess.DEVNULL)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stderr if done.returncode else ""


@lru_cache
def _emulated(qemu: str) -> tuple[str, ...]:
    """The names that `qemu-aarch64 -cpu help` lists; none where it cannot be asked."""
    try:
        done = subprocess.run((qemu, "-cpu", "help"), capture_output=True, text=True,
                              timeout=_TIMEOUT_S, stdin=subprocess.DEVNULL)
    except (OSError, subprocess.TimeoutExpired):
        return ()
    return tuple(re.findall(r"^ +(\S+)", done.stdout, re.MULTILINE))
