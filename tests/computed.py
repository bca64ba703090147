"""What the compiled C code of a hand-made graph computes."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from codegen.board import Board
from codegen.build import compile_library
from codegen.graph import Graph
from codegen.pipeline import finish
from codegen.plan import Choice, Plan
from codegen.run import Runner
from codegen.sources import write
from codegen.toolchain import find_toolchain
from codegen.verify import Interface, infer


def computed(
    graph: Graph, nodes: Mapping[str, Choice], board: Board, runner: Runner,
    inputs: Mapping[str, np.ndarray], folder: Path,
) -> Mapping[str, np.ndarray]:  # fmt: skip
    """The outputs by name; `nodes`: the plan."""
    generated = finish(graph, Plan(board.name, "0" * 64, dict(nodes)), board, "net")
    write(generated.sources, folder)
    binary = compile_library(generated.sources, folder, find_toolchain(board))
    assert not binary.error, binary.error
    interface = Interface.of(generated.sources, generated.schedule)
    return infer(interface, binary.verify, runner, board, [inputs])[0]
