"""Under which conditions a measurement holds: the board's silicon, the runner, the compiler."""

import hashlib
import json
import subprocess
from dataclasses import asdict
from functools import lru_cache
from pathlib import Path

from codegen.board import Board
from codegen.errors import CodegenError
from codegen.pricing.harness import harness_text
from codegen.resources import runtime_dir
from codegen.store import Context
from codegen.toolchain import Toolchain, find_llvm, find_qemu

MEASURES = ("virtual", "local", "ssh")  # runners that give figures
# Keys of a board that are no silicon, or are part of the toolchain.
_NOT_SILICON = ("name", "title", "runners", "cflags", "triple", "flash_bytes", "ram_bytes", "cores")


def context_of(board: Board, runner: str, toolchain: Toolchain) -> Context:
    """The context of measurements made now; CodegenError for a runner that cannot measure."""
    if runner not in MEASURES:
        raise CodegenError(
            "--runner",
            f"{runner!r} measures nothing",
            f"runners that do: {', '.join(m for m in MEASURES if m in board.runners)}",
            "name one of them",
        )
    facts = {k: v for k, v in asdict(board).items() if k not in _NOT_SILICON}
    model = facts.pop("cycle_model")
    if runner == "virtual":
        model["core"].pop("basis")
        facts["cycle_model"] = model
    return Context(
        board.name,
        _hash(json.dumps(facts, sort_keys=True)),
        runner,
        _version(runner),
        " ".join((toolchain.version, *toolchain.flags)),
    )


def _hash(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:16]


@lru_cache
def _version(runner: str) -> str:
    """The measuring program; for `virtual` also all that counts and times, and for `local` the
    processor, which no board file names."""
    parts, files, words = [harness_text(runner)], [], []
    if runner == "virtual":
        files += sorted((runtime_dir() / "vboard").glob("*.[ch]"))
        files += sorted((Path(__file__).parent.parent / "run" / "virtual").glob("*.py"))
        words = [_says(find_qemu()), _says(find_llvm("llvm-mca"))]
    elif runner == "local":
        words = [_processor()]
    parts += [f.read_text() for f in files]
    return " ".join((_hash("".join(parts)), *words))


def _says(tool: str | None) -> str:
    """The version of qemu or of an LLVM tool: the first line that has a number."""
    if tool is None:
        return "none"
    text = subprocess.run((tool, "--version"), capture_output=True, text=True, timeout=60).stdout
    return next((x.strip() for x in text.splitlines() if any(map(str.isdigit, x))), "unknown")


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    wanted = ("model name", "CPU implementer", "CPU part")
    found = [x.partition(":")[2].strip() for x in lines if x.startswith(wanted)]
    return " ".join(dict.fromkeys(found)) or "unknown"
