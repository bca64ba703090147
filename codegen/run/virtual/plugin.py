"""The qemu plugin: compiled on first use with this machine's C compiler, kept in the cache."""

import hashlib
import os
import subprocess
import tempfile
from pathlib import Path

from codegen.board import Board
from codegen.cycle_model import LINE_BYTES
from codegen.models.archive import cache_dir
from codegen.resources import runtime_dir
from codegen.toolchain import find_host_cc

_TIMEOUT_S = 120


class PluginError(Exception):
    """The plugin cannot be had; the text says what to install."""


def plugin_path(qemu: str) -> Path:
    """The compiled plugin for this qemu; PluginError where it cannot be compiled."""
    folder = runtime_dir() / "vboard"
    version = _output((qemu, "--version"), "qemu-aarch64 does not start")
    sources = b"".join(p.read_bytes() for p in sorted(folder.glob("*.[ch]")))
    key = hashlib.sha256(sources + version.encode()).hexdigest()[:16]
    path = cache_dir() / "virtual" / f"vboard-{key}.so"
    if not path.is_file():
        _compile(folder / "plugin.c", path)
    return path


def plugin_arguments(board: Board, out: str) -> tuple[str, ...]:
    """The plugin's key=value arguments for a board that has a cycle model."""
    caches = board.cycle_model.caches
    values = {
        "out": out,
        "l1_sets": board.l1d_bytes // LINE_BYTES // caches.l1d_ways,
        "l1_ways": caches.l1d_ways,
        "l2_sets": board.l2_bytes // LINE_BYTES // caches.l2_ways,
        "l2_ways": caches.l2_ways,
        "line_shift": LINE_BYTES.bit_length() - 1,
        "streams": caches.streams,
        "ahead": caches.lines_ahead,
        "history": board.cycle_model.core.history,
    }
    return tuple(f"{key}={value}" for key, value in values.items())


def _compile(source: Path, path: Path) -> None:
    cc = find_host_cc()
    if not cc:
        raise PluginError("this machine has no C compiler for qemu's plugin (package gcc)")
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=path.parent, prefix=".partial-") as folder:
        made = Path(folder) / "plugin.so"
        command = (cc, "-std=c11", "-D_GNU_SOURCE", "-shared", "-fPIC", "-O2")
        _output((*command, str(source), "-o", str(made)), "qemu's plugin does not compile")
        os.replace(made, path)


def _output(command: tuple[str, ...], problem: str) -> str:
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=_TIMEOUT_S)
    except (OSError, subprocess.TimeoutExpired) as e:
        raise PluginError(f"{problem}: {e}") from None
    if done.returncode:
        raise PluginError(f"{problem}: {done.stderr.strip()[:500]}")
    return done.stdout
