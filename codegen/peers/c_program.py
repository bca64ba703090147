"""Engines that are C: compiled for the board with the memory counter linked in."""

import subprocess
from collections.abc import Sequence
from pathlib import Path

from codegen.board import Board
from codegen.peers import heap
from codegen.peers.base import Network, PeerError
from codegen.resources import runtime_dir
from codegen.toolchain import find_toolchain

_COUNTED = ("malloc", "calloc", "realloc", "free", "aligned_alloc", "posix_memalign", "memalign",
            "mmap", "mmap64", "munmap")  # fmt: skip
_TIMEOUT_S = 1800


def peer_source(name: str) -> Path:
    """A C file of runtime_c/peers."""
    return runtime_dir() / "peers" / name


def compile_object(source: Path, out: Path, board: Board, flags: Sequence[str] = ()) -> Path:
    """One object for the board, at -O3; PeerError where it does not compile."""
    toolchain = find_toolchain(board)
    _run((*toolchain.cc, *toolchain.flags, "-O3", "-std=gnu11", "-ffunction-sections",
          "-fdata-sections", "-I", str(runtime_dir() / "peers"), *flags, "-c", str(source), "-o",
          str(out)), source.name)  # fmt: skip
    return out


def link(objects: Sequence[Path], out: Path, board: Board, libraries: Sequence[str] = ()) -> Path:
    """A static program in which the memory counter sees every allocation."""
    toolchain = find_toolchain(board)
    counter = compile_object(heap.source(), out.with_suffix(".heap.o"), board, ("-DCG_WRAP",))
    wraps = [f"-Wl,--wrap={name}" for name in _COUNTED]
    _run((*toolchain.cc, *toolchain.flags, "-static", "-Wl,--gc-sections", *wraps,
          *map(str, (*objects, counter)), *libraries, "-lm", "-o", str(out)), out.name)  # fmt: skip
    return out


def link_network(
    made: Path, network: Network, board: Board, folder: Path, load: bool = False
) -> Path:
    """The program of a generated network, whose function is `model`; with `load`, its weights are
    in model.bin."""
    graph = network.graph
    ports = (",".join(str(graph.tensors[t].size) for t in names)
             for names in (graph.inputs, graph.outputs))  # fmt: skip
    flags = [f"-D{n}={v}" for n, v in zip(("CG_IN", "CG_OUT"), ports, strict=True)]
    flags += ["-DCG_LOAD"] if load else []
    main = compile_object(peer_source("generated_main.c"), folder / "main.o", board, flags)
    return link([made, main], folder / "network", board)


def _run(command: Sequence[str], what: str) -> None:
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=_TIMEOUT_S,
                              stdin=subprocess.DEVNULL)  # fmt: skip
    except (OSError, subprocess.TimeoutExpired) as e:
        raise PeerError(f"{what}: {e}") from None
    if done.returncode:
        lines = [x for x in done.stderr.splitlines() if "error" in x or "undefined" in x]
        raise PeerError(f"{what} does not compile: {(lines or ['no message'])[0][:300]}")
