"""Which compiler makes code for a board, and where the emulator and LLVM's tools are."""

import importlib.util
import os
import platform
import re
import shlex
import shutil
import subprocess
import sys
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

from codegen.board import Board
from codegen.cpus import check_compiler
from codegen.errors import CodegenError

ENV_CC = "CODEGEN_CC_AARCH64"
CROSS = "aarch64-linux-gnu-"
_TIMEOUT_S = 60
# gcc's -mcpu modifiers under the names that LLVM, and so zig, gives them; others are spelt alike.
_ZIG_FEATURES = {"fp16": "fullfp16", "simd": "neon", "fp": "fp_armv8", "crypto": "aes+sha2"}


@dataclass(frozen=True)
class Toolchain:
    """Commands and flags for one board; an ELF linked with `-static` is what runners run.

    `cc` and `ar` are argument vectors without flags. `version` is the first line of the compiler's
    `--version`, part of the key of every measurement. `flags` go to every compilation and link.
    """

    cc: tuple[str, ...]
    ar: tuple[str, ...]
    version: str
    flags: tuple[str, ...]
    kind: Literal["gcc", "zig", "native"]


def find_toolchain(board: Board) -> Toolchain:
    """The compiler for a board. For aarch64, in this order: $CODEGEN_CC_AARCH64,
    aarch64-linux-gnu-gcc with its C library, this machine's own compiler where it is an AArch64
    Linux, the Python package ziglang.

    CodegenError, which names what to install, where there is none, and where it does not know the
    board's core.
    """
    found = _choose(board)
    check_compiler(found.cc, found.flags, board)
    return found


def _choose(board: Board) -> Toolchain:
    if board.triple == "native":
        return _native(board)
    override = os.environ.get(ENV_CC, "").strip()
    if override:
        return _override(override, board)
    gcc = f"{CROSS}gcc"
    if shutil.which(gcc) and _has_libc(gcc):
        return Toolchain((gcc,), (f"{CROSS}ar",), _version((gcc,)), board.cflags, "gcc")
    host = find_host_cc()
    if host and (platform.system(), platform.machine()) == ("Linux", "aarch64"):
        return Toolchain((host,), ("ar",), _version((host,)), board.cflags, "gcc")
    if importlib.util.find_spec("ziglang"):
        return ziglang_toolchain(board)
    half = f"{gcc} is here without its C library" if shutil.which(gcc) else f"no {gcc}, no ziglang"
    raise CodegenError(
        f"board {board.name}", f"no compiler for {board.triple} ({half})",
        f"a gcc with its C library, ziglang, or a command in ${ENV_CC}",
        "apt-get install gcc-aarch64-linux-gnu libc6-dev-arm64-cross, or pip install ziglang, "
        "or build for board local",
    )


def ziglang_toolchain(board: Board) -> Toolchain:
    """zig from the Python package ziglang, which must be installed."""
    return _zig((sys.executable, "-m", "ziglang"), board)


def find_qemu() -> str | None:
    """Path of qemu's AArch64 user-mode emulator (package qemu-user), or None."""
    return shutil.which("qemu-aarch64") or shutil.which("qemu-aarch64-static")


def find_llvm(tool: str) -> str | None:
    """Path of the newest `tool` of LLVM, e.g. "llvm-mca" (Debian says llvm-mca-19), or None."""
    for major in range(40, 12, -1):
        path = shutil.which(f"{tool}-{major}")
        if path:
            return path
    return shutil.which(tool)


# Tuning comes with -mcpu in zig; clang has no scheduler before register allocation to turn off.
_GCC_ONLY = ("-mtune=", "-fno-schedule-insns")


def zig_flags(cflags: tuple[str, ...], where: str) -> tuple[str, ...]:
    """gcc's AArch64 flags for `zig cc`: -mcpu=cortex-a76+fp16 is cortex_a76+fullfp16 there.

    Adds the target, and `-g0` because zig else writes this machine's paths into objects.
    CodegenError for -march, which zig cannot take from gcc.
    """
    flags = ["-target", "aarch64-linux-musl", "-g0"]
    for flag in cflags:
        if flag.startswith("-march="):
            raise CodegenError(where, f"cflags has {flag!r}, and the compiler is zig",
                               "zig cc takes -mcpu only", "write it as -mcpu=<core>+<features>")
        if flag.startswith("-mcpu="):
            core, *features = flag.removeprefix("-mcpu=").split("+")
            flags.append(f"-mcpu={core.replace('-', '_')}" + "".join(map(_zig_feature, features)))
        elif not flag.startswith(_GCC_ONLY):
            flags.append(flag)
    return tuple(flags)


def _zig_feature(name: str) -> str:
    """`+name` in zig's list; gcc's `+nocrypto` is `-aes-sha2` there."""
    sign, name = ("-", name[2:]) if name.startswith("no") else ("+", name)
    return sign + _ZIG_FEATURES.get(name, name).replace("+", sign)


def _zig(zig: tuple[str, ...], board: Board) -> Toolchain:
    flags = zig_flags(board.cflags, f"board {board.name}")
    version = f"zig {_version(zig, 'version')}, {_version((*zig, 'cc'))}"
    return Toolchain((*zig, "cc"), (*zig, "ar"), version, flags, "zig")


def _override(command: str, board: Board) -> Toolchain:
    """The user's own compiler: a gcc or clang with flags, `zig cc` or `python -m ziglang cc`."""
    cc = tuple(shlex.split(command))
    if not shutil.which(cc[0]):
        raise CodegenError(f"${ENV_CC}", f"there is no command {cc[0]!r}",
                           f"an aarch64 compiler, e.g. {CROSS}gcc-13 or 'zig cc'",
                           "correct or unset the variable")
    if cc[-1] == "cc" and ("ziglang" in cc or os.path.basename(cc[0]) == "zig"):
        return _zig(cc[:-1], board)
    sibling = re.sub(r"(gcc|clang|cc)(-[\d.]+)?$", "ar", cc[0])
    archivers = (sibling, f"{CROSS}ar", "llvm-ar", "ar")
    ar = next((a for a in archivers if a != cc[0] and shutil.which(a)), "ar")
    return Toolchain(cc, (ar,), _version(cc), board.cflags, "gcc")


def _native(board: Board) -> Toolchain:
    cc = find_host_cc()
    if not cc:
        raise CodegenError(f"board {board.name}", "this machine has no C compiler (cc, gcc, clang)",
                           "gcc or clang", "apt-get install gcc libc6-dev")
    flags = (*board.cflags, *_host_cpu_flags(cc))
    if platform.machine() not in ("aarch64", "arm64"):  # there arm_neon.h is the compiler's own
        flags = (*flags, "-isystem", _simde_include(board))
    return Toolchain((cc,), ("ar",), _version((cc,)), flags, "native")


def _simde_include(board: Board) -> str:
    try:
        import simde_py
    except ImportError:
        raise CodegenError(f"board {board.name}", "the SIMDe headers are not installed",
                           "NEON off AArch64 needs the Python package simde-py",
                           "pip install simde-py") from None
    return simde_py.get_include()


def find_host_cc() -> str | None:
    """The command of this machine's own C compiler, or None."""
    return next((c for c in ("cc", "gcc", "clang") if shutil.which(c)), None)


@lru_cache
def _host_cpu_flags(cc: str) -> tuple[str, ...]:
    """FMA and AVX2 where this CPU has them: without FMA, SIMDe's vfmaq rounds twice and is slower.

    Not -march=native: AVX-512 makes 128-bit code no faster, and the flags are a part of a report.
    """
    macros = _output((cc, "-march=native", "-dM", "-E", "-x", "c", os.devnull)) or ""
    wanted = (("__FMA__", "-mfma"), ("__AVX2__", "-mavx2"))
    return tuple(flag for macro, flag in wanted if f"#define {macro} 1" in macros)


@lru_cache
def _has_libc(gcc: str) -> bool:
    """Whether a static C library is there; gcc prints the bare name of a file that it lacks."""
    return os.path.isabs((_output((gcc, "-print-file-name=libc.a")) or "").strip())


@lru_cache
def _version(command: tuple[str, ...], option: str = "--version") -> str:
    text = _output((*command, option))
    if not text or not text.strip():
        raise CodegenError(" ".join(command), f"does not answer {option}",
                           "a compiler that starts", "install it again or choose another")
    return text.strip().splitlines()[0]


def _output(command: tuple[str, ...]) -> str | None:
    """What a command prints, None where it cannot be started, fails or hangs."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=_TIMEOUT_S,
                              stdin=subprocess.DEVNULL)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout if done.returncode == 0 else None
