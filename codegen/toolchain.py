"""TEMPORARY stub."""
from dataclasses import dataclass
import shutil
@dataclass(frozen=True)
class Toolchain:
    cc: tuple; ar: tuple; version: str; flags: tuple; kind: str
def find_toolchain(board):
    if board.triple == "native":
        import simde_py
        return Toolchain(("gcc",), ("ar",), "gcc", (*board.cflags, "-isystem", simde_py.get_include()), "native")
    return Toolchain(("aarch64-linux-gnu-gcc",), ("aarch64-linux-gnu-ar",), "gcc", board.cflags, "gcc")
def find_qemu(): return shutil.which("qemu-aarch64")
