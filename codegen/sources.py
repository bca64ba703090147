"""The generated library as text: files, and the calls that they make."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from codegen.steps import Step


@dataclass(frozen=True)
class Piece:
    """A C function and the expressions of its arguments."""

    function: str
    args: tuple[str, ...]


@dataclass(frozen=True)
class Call:
    """One line of `run`: a step, the C function it calls and the argument expressions. A step in
    parts has several `pieces`, of which that is the first, and a C function `task` that calls
    them."""

    step: Step
    function: str
    args: tuple[str, ...]
    comment: str
    pieces: tuple[Piece, ...]
    task: str = ""

    @property
    def words(self) -> set[str]:
        """The names in the arguments."""
        return {w for p in self.pieces for a in p.args for w in re.split(r"\W+", a)}


@dataclass(frozen=True)
class Port:
    """An input or output of the network: C name, C type, shape in ONNX order."""

    name: str
    c_name: str
    c_type: str
    tensor: Any

    @property
    def macro(self) -> str:
        return self.c_name.upper()


@dataclass(frozen=True)
class Function:
    """A kernel: the file of the library that has it, and the text of one that has it alone and
    under the name "@"."""

    name: str
    path: str
    alone: str


@dataclass(frozen=True)
class Sources:
    """Generated files by path, and what was decided while writing them."""

    name: str
    files: Mapping[str, bytes]
    calls: tuple[Call, ...]
    inputs: tuple[Port, ...]
    outputs: tuple[Port, ...]
    library: tuple[str, ...]  # paths of the files to compile into the library
    traces: tuple[str, ...]  # value keys in the order in which the verify program dumps them
    pool: tuple[str, ...] = ()  # files of the threads, which are a library of their own
    functions: tuple[Function, ...] = ()  # all kernels in `library`


def write(sources: Sources, folder: Path) -> None:
    """Put the files on disk; a file that is already right is left alone, so that its object need
    not be rebuilt."""
    for path, data in sources.files.items():
        target = folder / path
        target.parent.mkdir(parents=True, exist_ok=True)
        if not target.is_file() or target.read_bytes() != data:
            target.write_bytes(data)
