"""A job that brings a root folder -> one that needs nothing on the board: the program unpacks the
part of the root that is needed beside its data and starts it with its own dynamic linker."""

import hashlib
import struct
from collections.abc import Iterator, Sequence
from dataclasses import replace
from fnmatch import fnmatch
from pathlib import Path

from codegen.board import Board
from codegen.peers.c_program import compile_object, link, peer_source
from codegen.peers.wheels import made
from codegen.run import Job
from codegen.toolchain import find_toolchain

ARCHIVE, ROOT = "root.pack", "root"
_LIBRARIES = ("lib/aarch64-linux-gnu", "usr/lib/aarch64-linux-gnu")
_LINKER = "lib/aarch64-linux-gnu/ld-linux-aarch64.so.1"
# What no engine needs while it runs, by far the largest of them.
_UNUSED = ("*/tests/*", "*/test/*", "*.pyi", "*.h", "*.a", "*.pyc", "*/_tools.*", "*/vendors/*",
           "*/libLiteRtWebGpu*", "*.dist-info/*", "*/idlelib/*", "*/ensurepip/*")  # fmt: skip
_FILE, _EXECUTABLE, _LINK = 1, 2, 3


def portable(job: Job, board: Board, start: Sequence[str] = ()) -> Job:
    """The same job without a root. `start`: a command that runs AArch64 programs, for boards that
    are none."""
    root = job.root
    env = {k: v.replace("/usr", f"./{ROOT}/usr") if k == "PYTHONHOME" else v
           for k, v in job.env.items()}  # fmt: skip
    env["PYTHONPATH"] = env.get("PYTHONPATH", "").replace("/opt/", f"./{ROOT}/opt/")
    preload = env.pop("LD_PRELOAD", "")
    libraries = ":".join(f"{ROOT}/{folder}" for folder in _LIBRARIES)
    linker = (f"{ROOT}/{_LINKER}", "--library-path", libraries,
              *(("--preload", preload) if preload else ()))  # fmt: skip
    args = (ARCHIVE, *start, *linker, f"{ROOT}/{job.program.relative_to(root)}", *job.args)
    return replace(job, program=launcher(board), args=args, root=None, env=env,
                   inputs={**job.inputs, ARCHIVE: pack(root)})  # fmt: skip


def launcher(board: Board) -> Path:
    """launch.c for the board, compiled on first use; PeerError where it does not compile."""
    source = peer_source("launch.c")
    text = source.read_bytes() + repr(find_toolchain(board)).encode()
    key = hashlib.sha256(text).hexdigest()[:16]

    def build(folder: Path) -> None:
        link([compile_object(source, folder / "launch.o", board)], folder / "launch", board)

    return made(f"launch-{key}", build) / "launch"


def pack(root: Path) -> bytes:
    """The archive of a sysroot's Python, shared libraries and packages."""
    return b"".join(_entry(f"{ROOT}/{name}", path) for name, path in sorted(_needed(root)))


def _needed(root: Path) -> Iterator[tuple[str, Path]]:
    for folder in _LIBRARIES:
        for path in (root / folder).iterdir():
            if ".so" in path.name:
                yield f"{folder}/{path.name}", path
    for path in (root / "usr" / "bin").glob("python3*"):
        yield f"usr/bin/{path.name}", path
    trees = [(root / "usr" / "lib").glob("python3*"), (root / "opt").iterdir()]
    for tree in (t for group in trees for t in group):
        inside = tree.resolve()
        for path in inside.rglob("*"):
            name = f"{tree.relative_to(root)}/{path.relative_to(inside)}"
            keep = path.is_symlink() or path.is_file()
            if keep and not any(fnmatch(name, pattern) for pattern in _UNUSED):
                yield name, path


def _entry(name: str, path: Path) -> bytes:
    """Links whose target is elsewhere or absolute go as the file that they lead to."""
    target = path.readlink() if path.is_symlink() else None
    if target is not None and not target.is_absolute() and len(target.parts) == 1:
        kind, data = _LINK, str(target).encode()
    elif not path.is_file():
        return b""  # a link that leads nowhere
    else:
        kind = _EXECUTABLE if path.stat().st_mode & 0o100 else _FILE
        data = path.read_bytes()
    return struct.pack("<3I", len(name.encode()), kind, len(data)) + name.encode() + data
