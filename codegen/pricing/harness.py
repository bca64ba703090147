"""What measures a candidate, as a text: where two texts are equal, measurements mean the same.

It tells what the measuring program does, not how codegen comes to write it, so that measurements
outlive a rearranged or renamed part of this package. The program is written for two fixed layers,
one with weights and one that works in place; with it go how it is compiled and called, and what is
read from its answer.
"""

import re
from dataclasses import astuple, replace

import numpy as np

from codegen.board import load_board
from codegen.graph import Graph, Node, Tensor
from codegen.pricing.program import NAME, microbench
from codegen.pricing.run import APART, GCC_APART, arguments, figures
from codegen.pricing.trials import Trial, trials
from codegen.run import Outcome
from codegen.signature import signature_of
from codegen.store.records import PARTS
from codegen.types import DType

# Any board: its figures are a part of the key by themselves.
_BOARD = "jetson-nano-cpu"
_COMMENT = re.compile(r"/\*.*?\*/", re.S)
_KERNEL = re.compile(rf"\b{NAME}_\w+_1\(")
_ANSWER = {
    "runs_ns": [[5, 3, 4, 9]], "noisy": [""],
    "regions": {"1": {"cycles": 1000, **{part: i for i, part in enumerate(PARTS)}}},
}  # fmt: skip


def harness_text(runner: str) -> str:
    """The program's C without comments and kernels, how it is made and called, and figures that
    are read from an answer."""
    board = load_board(_BOARD)
    files = microbench(_probes(), board).sources.files
    code = "".join(_text(files[f"src/{n}"]) for n in ("microbench.c", "cg_measure.h"))
    words = re.sub(r"\s+", " ", _KERNEL.sub("kernel(", _COMMENT.sub(" ", code)))
    read = replace(figures(Outcome(_ANSWER), 0, runner, board), date="")
    calls = [arguments(runner, warm, 100) for warm in (False, True)]
    return "\n".join(map(str, (words, APART, GCC_APART, calls, astuple(read))))


def _probes() -> list[Trial]:
    """The portable row of a layer with weights, and that of one without."""
    shapes = {"x": (1, 64), "w": (64, 12), "b": (12,), "y": (1, 12), "z": (1, 64)}
    tensors = {name: Tensor(name, shape, DType.F32) for name, shape in shapes.items()}
    constants = {name: np.zeros(shapes[name], np.float32) for name in "wb"}
    nodes = (Node("dense", "Dense", ("x", "w", "b"), ("y",)), Node("relu", "Relu", ("x",), ("z",)))
    graph = Graph("probe", ("x",), ("y", "z"), nodes, tensors, constants)
    board = load_board(_BOARD)
    return [trials(signature_of(graph, n), board)[0] for n in nodes]


def _text(file: str | bytes) -> str:
    return file if isinstance(file, str) else file.decode()
