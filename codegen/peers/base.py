"""What an engine is, and what it takes to run one on a board."""

import subprocess
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from codegen.board import Board
from codegen.graph import Graph, Tensor

_TIMEOUT_S = 900


class PeerError(Exception):
    """An engine cannot take a model, or its converter failed; the text is the row's reason."""


@dataclass(frozen=True, eq=False)
class Network:
    """A model that every engine gets: `model` is one ONNX file with all shapes known, `graph` the
    same optimised, `samples` seeded inputs by name (the first is measured, the others calibrate
    int8), `expected` what onnxruntime computes from the first, `also` from the next, on which
    `build` verifies too: what an engine with a checker is held against."""

    name: str
    model: bytes
    graph: Graph
    samples: Sequence[Mapping[str, np.ndarray]]
    expected: Mapping[str, np.ndarray]
    also: tuple[Mapping[str, np.ndarray], ...] = ()

    @property
    def inputs(self) -> tuple[Tensor, ...]:
        return tuple(self.graph.tensors[n] for n in self.graph.inputs)

    @property
    def weights_bytes(self) -> int:
        """Bytes of all constants that nodes read."""
        return self.graph.weights_bytes


@dataclass(frozen=True)
class Prepared:
    """A program for a board. `script` is a file of guest/ that the sysroot's Python runs with
    `wheels`, or `program` an ELF that needs nothing. Arguments, files and environment go with it.

    `channels_last`: 4-d inputs and outputs are NHWC. `binary_bytes`: the engine's stripped library
    and the model. `resident_bytes`: memory that the heap counter does not see; `peak_bytes`: all of
    it, where nothing needs counting; `packed_bytes`: of weights as an engine packs them, where it
    tells. `checker`: an ELF that turns in.bin into out.bin where
    `program` writes no results.
    """

    inputs: Mapping[str, bytes] = field(default_factory=dict)
    script: str = ""
    wheels: tuple = ()
    program: Path | None = None
    env: Mapping[str, str] = field(default_factory=dict)
    channels_last: bool = False
    binary_bytes: int = 0
    resident_bytes: int = 0
    peak_bytes: int | None = None
    packed_bytes: int | None = None
    checker: Path | None = None


@dataclass(frozen=True)
class Engine:
    """`prepare(network, board, dtype, folder)` makes what goes to the board, with `folder` for its
    files; PeerError where the engine cannot take the network. `lacks`: element types that it does
    not do, with the reason. `code(network, board, dtype)`: digest of what an engine generates,
    where that changes without its version. `tolerance`: of the largest float32 output, what a
    result may be off; fast algorithms of other engines may lose more digits than ours may.
    `careful`: what is measured instead where a result is off by more."""

    name: str
    version: str
    dtypes: tuple[str, ...]
    prepare: Callable[[Network, Board, str, Path], Prepared]
    lacks: Mapping[str, str] = field(default_factory=dict)
    code: Callable[[Network, Board, str], str] | None = None
    tolerance: float = 2e-2
    careful: "Engine | None" = None


def run_tool(command: Sequence[str], folder: Path, env: Mapping[str, str], name: str) -> str:
    """Run a converter in `folder`; what it printed. PeerError where it fails."""
    try:
        done = subprocess.run(
            command, cwd=folder, env=env, capture_output=True, text=True, errors="replace",
            timeout=_TIMEOUT_S, stdin=subprocess.DEVNULL,
        )  # fmt: skip
    except (OSError, subprocess.TimeoutExpired) as e:
        raise PeerError(f"{name}: {e}") from None
    if done.returncode:
        said = (done.stderr.strip() or done.stdout.strip()).splitlines()
        raise PeerError(f"{name} failed: {said[-1][:300] if said else done.returncode}")
    return done.stdout
