"""The memory counter: a library that is loaded before an engine and sees its malloc and mmap."""

import hashlib
import subprocess
from pathlib import Path

from codegen.board import Board
from codegen.peers.base import PeerError
from codegen.peers.wheels import made
from codegen.resources import runtime_dir
from codegen.toolchain import find_toolchain

_NAME = "heap.so"


def source() -> Path:
    """The counter's C file."""
    return runtime_dir() / "peers" / "heap.c"


def preload(board: Board) -> Path:
    """The counter as a shared library for LD_PRELOAD, compiled on first use. PeerError where it
    does not compile."""
    toolchain = find_toolchain(board)
    text = source().read_bytes() + repr((toolchain.version, toolchain.cc)).encode()
    key = hashlib.sha256(text).hexdigest()[:16]

    def compile_(folder: Path) -> None:
        command = (*toolchain.cc, "-std=c11", "-O2", "-fPIC", "-shared", str(source()), "-ldl",
                   "-o", str(folder / _NAME))  # fmt: skip
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode:
            raise PeerError(f"the memory counter does not compile: {done.stderr.strip()[:300]}")

    return made(f"heap-{key}", compile_) / _NAME
