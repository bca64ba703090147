"""What this machine has for building and running code, each found tool tried on a tiny program."""

import importlib
import re
import subprocess
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib import metadata, util
from pathlib import Path

from codegen.board import Board, load_board
from codegen.errors import CodegenError
from codegen.resources import runtime_dir
from codegen.toolchain import (
    CROSS,
    Toolchain,
    find_host_cc,
    find_llvm,
    find_qemu,
    find_toolchain,
    ziglang_toolchain,
)

_TIMEOUT_S = 300  # zig builds its C library for a new core first, which takes half a minute
_APT = "apt-get install "
# llvm-mca's tables differ between versions; the cycle model was checked with this one.
LLVM_CHECKED = 19


@dataclass(frozen=True)
class Check:
    """One thing looked for. `ok` means that it was tried and works; `problem` says what does not,
    `install` is the line that mends it. Both are empty where all is well."""

    name: str
    ok: bool
    version: str = ""
    problem: str = ""
    install: str = ""


@dataclass(frozen=True)
class BoardCheck:
    """What would happen with one board: `runner` is a runner's name, "compile only" or "none"."""

    name: str
    ok: bool
    runner: str
    compiler: str
    problem: str = ""


def check_tools() -> tuple[Check, ...]:
    """Every check, in the order in which a user would mend them. Takes a few seconds."""
    return tuple(check() for check in CHECKS)


def check_board(board: Board, runner_of: Callable[[Board], str | None]) -> BoardCheck:
    """Compile and, where a runner is found, run a tiny program for the board.

    `runner_of` tells the default runner's name; `ok` is False unless a program was made and run.
    """
    try:
        toolchain = find_toolchain(board)
        name = runner_of(board)
    except CodegenError as e:
        return BoardCheck(board.name, False, "none", "", f"{e.what}; {e.todo}")
    emulator = (str(find_qemu()), "-cpu", board.qemu_cpu) if name in ("qemu", "virtual") else ()
    runs_here = bool(name) and name != "ssh"
    problem = try_toolchain(toolchain, emulator if runs_here else None)
    runner = "none" if problem else name or "compile only"
    if not name and not problem:
        problem = "no runner is found on this machine"
    return BoardCheck(board.name, runs_here and not problem, runner, toolchain.version, problem)


def try_toolchain(toolchain: Toolchain, emulator: Sequence[str] | None = ()) -> str:
    """Compile runtime_c/doctor.c into an archive and a static program, and run it behind `emulator`
    (None: only compile). Returns what went wrong, or an empty string."""
    with tempfile.TemporaryDirectory(prefix="codegen-doctor-") as folder:
        path = Path(folder)
        source = runtime_dir() / "doctor.c"
        cc, flags = toolchain.cc, (*toolchain.flags, "-std=c11")
        steps = [(*cc, *flags, "-I", str(runtime_dir()), "-c", str(source), "-o", "doctor.o"),
                 (*toolchain.ar, "rcsD", "libdoctor.a", "doctor.o"),
                 (*cc, *flags, "-static", "doctor.o", "-lm", "-o", "doctor")]
        if emulator is not None:
            steps.append((*emulator, str(path / "doctor")))
        said = ""
        for step in steps:
            said, problem = _run(step, path)
            if problem:
                return problem
    return "" if emulator is None or said.strip() == "6" else f"2 * 2 + 2 gave {said.strip()!r}"


def _run(command: Sequence[str], folder: Path, stdin: str = "") -> tuple[str, str]:
    """What a command printed, and why it failed (empty where it did not)."""
    try:
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, input=stdin,
                              timeout=_TIMEOUT_S)
    except OSError as e:
        return "", f"{command[0]} does not start ({e.strerror})"
    except subprocess.TimeoutExpired:
        return "", f"{command[0]} did not end within {_TIMEOUT_S} s"
    if done.returncode:
        lines = done.stderr.strip().splitlines() or [f"exit code {done.returncode}"]
        telling = (line for line in lines if "error" in line or "cannot" in line)
        return done.stdout, next(telling, lines[-1])[:200]
    return done.stdout, ""


def check_python() -> Check:
    """The packages that codegen's metadata asks for: present, new enough, importable."""
    try:
        wanted = metadata.requires("codegen") or []
    except metadata.PackageNotFoundError:
        return Check("python packages", False, "", "codegen is not installed", "pip install .")
    core = [r for r in wanted if "extra ==" not in r]
    bad = {name: why for name, why in ((_name(r), _package_problem(r)) for r in core) if why}
    problem = ", ".join(f"{name} {why}" for name, why in bad.items())
    names = " ".join(f"'{r}'" for r in core if _name(r) in bad)
    return Check("python packages", not bad, f"{len(core) - len(bad)} of {len(core)}", problem,
                 f"pip install {names}" if bad else "")


def _name(requirement: str) -> str:
    return re.split(r"[^\w.-]", requirement, maxsplit=1)[0]


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(n) for n in re.findall(r"\d+", version)[:3])


def _package_problem(requirement: str) -> str:
    """Why a requirement such as "onnx>=1.17" is not met, or nothing."""
    name = _name(requirement)
    least = re.search(r">=\s*([\d.]+)", requirement)
    try:
        files = metadata.distribution(name)
    except metadata.PackageNotFoundError:
        return "is missing"
    if least and _numbers(files.version) < _numbers(least[1]):
        return f"{files.version} is older than {least[1]}"
    module = next((f.parts[0] for f in files.files or () if f.parts[1:] == ("__init__.py",)), "")
    try:
        importlib.import_module(module or name.replace("-", "_"))
    except Exception as e:  # a broken binary wheel raises whatever it likes
        return f"does not import ({type(e).__name__}: {e})"
    return ""


def check_host_cc() -> Check:
    """A C compiler for this machine that links static programs."""
    cc = find_host_cc()
    if not cc:
        return Check("host C compiler", False, "", "is missing", _APT + "gcc libc6-dev")
    with tempfile.TemporaryDirectory(prefix="codegen-doctor-") as folder:
        link = (cc, "-x", "c", "-", "-static", "-lm", "-o", "empty")
        problem = _run(link, Path(folder), "int main(void) { return 0; }\n")[1]
    version = _first(_run((cc, "--version"), Path())[0])
    install = _APT + "gcc libc6-dev (elsewhere: gcc and glibc-static)"
    return Check("host C compiler", not problem, version, problem, install if problem else "")


def check_aarch64_gcc() -> Check:
    """aarch64-linux-gnu-gcc, its C library apart."""
    version, problem = _run((f"{CROSS}gcc", "--version"), Path())
    install = _APT + "gcc-aarch64-linux-gnu" if problem else ""
    return Check("aarch64 gcc", not problem, _first(version), problem, install)


def check_aarch64_libc() -> Check:
    """The static C library for that gcc (libc6-dev-arm64-cross)."""
    name, install = "aarch64 C library", _APT + "libc6-dev-arm64-cross"
    path, problem = _run((f"{CROSS}gcc", "-print-file-name=libc.a"), Path())
    if problem or not Path(path.strip()).is_absolute():
        return Check(name, False, "", problem or "libc.a is missing", install)
    problem = try_toolchain(Toolchain((f"{CROSS}gcc",), (f"{CROSS}ar",), "", ("-O2",), "gcc"), None)
    return Check(name, not problem, "", problem, install if problem else "")


def check_qemu() -> Check:
    """qemu-aarch64, with a program compiled for a Cortex-A57 where there is a compiler."""
    qemu = find_qemu()
    if not qemu:
        return Check("qemu-aarch64", False, "", "is missing", _APT + "qemu-user")
    version, problem = _run((qemu, "--version"), Path())
    try:
        board = load_board("jetson-nano-cpu")
        problem = problem or try_toolchain(find_toolchain(board), (qemu, "-cpu", board.qemu_cpu))
    except CodegenError:
        problem = problem or "is here, but nothing to run on it can be compiled"
    return Check("qemu-aarch64", not problem, _first(version), problem)


def check_llvm_mca() -> Check:
    """llvm-mca, which times code for the cycle model."""
    return _llvm("llvm-mca", ("-mtriple=aarch64", "-mcpu=cortex-a57"), "Total Cycles")


def check_llvm_mc() -> Check:
    """llvm-mc, which disassembles for the cycle model."""
    return _llvm("llvm-mc", ("-triple=aarch64", "-mattr=+neon"), "fmla")


def _llvm(tool: str, options: tuple[str, ...], proof: str) -> Check:
    install = f"{_APT}llvm-{LLVM_CHECKED} (or llvm)"
    path = find_llvm(tool)
    if not path:
        return Check(tool, False, "", "is missing (only the virtual runner needs it)", install)
    said, problem = _run((path, *options), Path(), "fmla v0.4s, v1.4s, v2.4s\n")
    if not problem and proof not in said:
        problem = f"did not understand an AArch64 instruction: {said.strip()[:80]!r}"
    version = re.search(r"version ([\d.]+)", _run((path, "--version"), Path())[0])
    found = version[1] if version else ""
    if _numbers(found)[:1] != (LLVM_CHECKED,):
        found += f"; cycles were checked with {LLVM_CHECKED}"
    return Check(tool, not problem, found, problem, install if problem else "")


def check_cmake() -> Check:
    """CMake, for building generated projects as their users do."""
    version, problem = _run(("cmake", "--version"), Path())
    return Check("cmake", not problem, _first(version), problem, _APT + "cmake" if problem else "")


def check_ziglang() -> Check:
    """The cross compiler that needs no system packages."""
    if not util.find_spec("ziglang"):
        return Check("ziglang", False, "", "is missing (only needed without aarch64 gcc)",
                     "pip install ziglang")
    toolchain = ziglang_toolchain(load_board("jetson-nano-cpu"))
    problem = try_toolchain(toolchain, None)
    return Check("ziglang", not problem, toolchain.version, problem)


def check_simde() -> Check:
    """The headers that run NEON code on other CPUs, tried as board local uses them."""
    try:
        problem = try_toolchain(find_toolchain(load_board("local")))
        install = "pip install simde-py" if problem else ""
    except CodegenError as e:
        problem, install = e.what, e.todo
    try:
        version = metadata.version("simde-py")
    except metadata.PackageNotFoundError:
        version = ""
    return Check("SIMDe headers", not problem, version, problem, install)


def _first(text: str) -> str:
    return text.strip().splitlines()[0] if text.strip() else ""


CHECKS: tuple[Callable[[], Check], ...] = (
    check_python, check_host_cc, check_simde, check_aarch64_gcc, check_aarch64_libc, check_qemu,
    check_llvm_mca, check_llvm_mc, check_cmake, check_ziglang,
)
