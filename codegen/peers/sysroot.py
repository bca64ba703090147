"""A file system for AArch64 programs: Debian's arm64 Python and libraries, and aarch64 wheels,
unpacked into the cache without root. It is qemu's prefix (`-L`), or what is pushed to a board."""

import hashlib
import os
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path

from codegen.board import Board
from codegen.errors import CodegenError
from codegen.models.catalog import Package
from codegen.peers.wheels import board_wheel, made

# Python to drive the engines, the libraries their wheels want, OpenBLAS to link with.
DEBIAN = ("python3-minimal", "libpython3-stdlib", "libstdc++6", "libgomp1",
          "libopenblas-serial-dev")  # fmt: skip
_TIMEOUT_S = 900
# What engines read to choose their kernels: /proc/cpuinfo's "CPU part" (Arm's MIDR part numbers).
_PARTS = {"cortex-a53": 0xD03, "cortex-a55": 0xD05, "cortex-a57": 0xD07, "cortex-a72": 0xD08,
          "cortex-a76": 0xD0B}  # fmt: skip


def sysroot(board: Board, wheels: Sequence[Package] = ()) -> Path:
    """A folder that stands for `/` on a board with these wheels in `/opt`; made where it is not
    there yet.

    CodegenError where Debian's tools or the packages cannot be had.
    """
    base = _debian()
    links = {p.name: p for p in base.iterdir()}
    opt = {w.name: board_wheel(w, python_version(base)) for w in wheels}
    files = _cpu_files(board)
    text = repr((base.name, sorted((n, p.name) for n, p in opt.items()), sorted(files.items())))
    key = hashlib.sha256(text.encode()).hexdigest()[:16]

    def fill(folder: Path) -> None:
        for name, target in links.items():
            (folder / name).symlink_to(target)
        (folder / "opt").mkdir()
        for name, target in opt.items():
            (folder / "opt" / name).symlink_to(target)
        for name, content in files.items():
            path = folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(content)

    return made(f"board-{key}", fill)


def python(root: Path) -> Path:
    """The interpreter of a sysroot."""
    return next(p for p in sorted((root / "usr" / "bin").glob("python3.*")) if p.name[8:].isdigit())


def python_version(root: Path) -> str:
    """Of a sysroot, e.g. "3.11"."""
    return python(root).name.removeprefix("python")


def library_path(wheels: Sequence[Package]) -> tuple[str, ...]:
    """sys.path entries, as the guest names them."""
    return tuple(f"/opt/{w.name}" for w in wheels)


def _debian() -> Path:
    """DEBIAN and what they depend on, for arm64, of the release that this machine's apt knows."""
    key = hashlib.sha256(" ".join((_release(), *DEBIAN)).encode()).hexdigest()[:16]
    return made(f"debian-{key}", _unpack_debian)


@lru_cache(maxsize=1)
def _release() -> str:
    """VERSION_ID of this machine's Debian, e.g. "12"."""
    for tool in ("apt-get", "dpkg-deb"):
        if shutil.which(tool) is None:
            raise CodegenError(
                "peers",
                f"{tool} is not on this machine",
                "the arm64 libraries that the engines need come as Debian packages",
                "run this on Debian or a relative",
            )
    lines = Path("/etc/os-release").read_text().splitlines()
    return next((x.partition("=")[2].strip('"') for x in lines if x.startswith("VERSION_ID=")), "")


def unpacked(packages: Sequence[str], architecture: str) -> Path:
    """Packages of that release and what they depend on; made where they are not there yet.

    CodegenError as for `sysroot`.
    """
    key = hashlib.sha256(" ".join((_release(), *packages)).encode()).hexdigest()[:16]
    return made(f"debian-{architecture}-{key}",
                lambda folder: _unpack_debian(folder, packages, architecture))  # fmt: skip


def _unpack_debian(
    folder: Path, packages: Sequence[str] = DEBIAN, architecture: str = "arm64"
) -> None:
    """apt with a state of its own, in which nothing is installed: it needs no root and changes
    nothing of this machine's."""
    with tempfile.TemporaryDirectory(prefix="codegen-apt-") as name:
        state = Path(name)
        for part in ("state/lists/partial", "cache/archives/partial"):
            (state / part).mkdir(parents=True)
        (state / "status").touch()
        options = {
            "Dir::State": state / "state",
            "Dir::State::status": state / "status",
            "Dir::Cache": state / "cache",
            "APT::Architecture": architecture,
            "APT::Architectures::": architecture,
            "APT::Sandbox::User": "",
            "Acquire::Languages": "none",
            "Debug::NoLocking": "1",
        }
        apt = ["apt-get", "-qq", *(x for k, v in options.items() for x in ("-o", f"{k}={v}"))]
        _run([*apt, "update"])
        _run([*apt, "install", "--download-only", "-y", "--no-install-recommends", *packages])
        for package in sorted((state / "cache" / "archives").glob("*.deb")):
            _run(["dpkg-deb", "-x", str(package), str(folder)])


def _run(command: Sequence[str]) -> None:
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=_TIMEOUT_S, stdin=subprocess.DEVNULL,
            env={**os.environ, "LC_ALL": "C"},
        )  # fmt: skip
        said = done.stderr.strip()[-300:] if done.returncode else ""
    except (OSError, subprocess.TimeoutExpired) as e:
        said = str(e)
    if said:
        raise CodegenError(
            "peers",
            f"`{command[0]}` failed: {said}",
            "the arm64 packages of this Debian must be reachable",
            "check the network and /etc/apt/sources.list, then try again",
        )


def _cpu_files(board: Board) -> dict[str, str]:
    """The /proc and /sys files that engines read: of one core, so that they start one thread."""
    part = _PARTS.get(board.core)
    if part is None:
        raise CodegenError(
            "peers",
            f"core {board.core} of board {board.name} has no known part number",
            f"cores: {', '.join(_PARTS)}",
            "choose a board with one of them",
        )
    features = "fp asimd evtstrm crc32 cpuid"
    if "dotprod" in board.isa:
        features = "fp asimd evtstrm crc32 atomics fphp asimdhp cpuid asimdrdm lrcpc asimddp"
    cpu = "sys/devices/system/cpu"
    sizes = (("Data", 1, board.l1d_bytes), ("Instruction", 1, board.l1d_bytes),
             ("Unified", 2, board.l2_bytes))  # fmt: skip
    caches = {}
    for i, (kind, level, size) in enumerate(sizes):
        where = f"{cpu}/cpu0/cache/index{i}"
        caches |= {f"{where}/type": kind, f"{where}/level": str(level),
                   f"{where}/size": f"{size // 1024}K", f"{where}/shared_cpu_map": "1",
                   f"{where}/shared_cpu_list": "0"}  # fmt: skip
    files = {
        "proc/cpuinfo": f"processor\t: 0\nBogoMIPS\t: 38.40\nFeatures\t: {features}\n"
        f"CPU implementer\t: 0x41\nCPU architecture: 8\nCPU variant\t: 0x1\n"
        f"CPU part\t: 0x{part:03x}\nCPU revision\t: 1\n\n",
        **{f"{cpu}/{n}": "0" for n in ("present", "possible", "online", "kernel_max")},
        f"{cpu}/cpu0/cpufreq/cpuinfo_max_freq": str(board.clock_hz // 1000),
        f"{cpu}/cpu0/cpufreq/cpuinfo_min_freq": str(board.clock_hz // 1000),
        f"{cpu}/cpu0/cpufreq/scaling_cur_freq": str(board.clock_hz // 1000),
        f"{cpu}/cpu0/topology/physical_package_id": "0",
        f"{cpu}/cpu0/topology/core_siblings_list": "0",
        **caches,
    }
    return {k: v if v.endswith("\n") else v + "\n" for k, v in files.items()}


def board_package(package: Package) -> Path:
    """The unpacked wheel of a package for the sysroot's Python."""
    return board_wheel(package, python_version(_debian()))
