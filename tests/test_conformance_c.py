"""The ONNX backend node suite through the whole compiler: generated C, compiled and run here.

Many cases share one library: each is a part of one graph with inputs and outputs of its own.
"""

from collections import Counter
from dataclasses import replace
from typing import Any

import numpy as np

from codegen.board import load_board
from codegen.build import compile_library
from codegen.errors import CodegenError
from codegen.graph import Activation, Graph, Node, Tensor
from codegen.heuristic import default_plan
from codegen.passes import optimise
from codegen.pipeline import finish
from codegen.run import pick_runner
from codegen.sources import write
from codegen.toolchain import find_toolchain
from codegen.verify import Interface, infer
from tests.test_conformance import DEVIATIONS, cases, difference_of, import_case

BATCH = 60
BOARD = load_board("local")


def _renamed(graph: Graph, prefix: str) -> Graph:
    """The graph with `prefix` before every name."""

    def name(t: str) -> str:
        return f"{prefix}/{t}" if t else ""

    def node(n: Node) -> Node:
        act = n.activation
        if act:
            act = Activation(act.op, act.args, name(act.slope))
        return Node(
            name(n.name), n.op, tuple(map(name, n.inputs)), tuple(map(name, n.outputs)), n.attrs,
            name(n.residual), act,
        )  # fmt: skip

    return Graph(
        prefix,
        tuple(map(name, graph.inputs)),
        tuple(map(name, graph.outputs)),
        tuple(map(node, graph.nodes)),
        {name(k): Tensor(name(k), t.shape, t.dtype) for k, t in graph.tensors.items()},
        {name(k): v for k, v in graph.constants.items()},
    )


def _joined(graphs: list[Graph]) -> Graph:
    """One graph with all of them side by side."""
    first = graphs[0]
    return replace(
        first,
        name="suite",
        inputs=tuple(t for g in graphs for t in g.inputs),
        outputs=tuple(t for g in graphs for t in g.outputs),
        nodes=tuple(n for g in graphs for n in g.nodes),
        tensors={k: v for g in graphs for k, v in g.tensors.items()},
        constants={k: v for g in graphs for k, v in g.constants.items()},
    )


def _usable() -> tuple[list[tuple[Any, Graph, dict[str, np.ndarray]]], Counter]:
    """Cases that can be imported and have kernels for all their nodes; why the others do not."""
    usable, refused = [], Counter()
    for case in cases():
        if case.name in DEVIATIONS:
            continue
        try:
            graph, arrays, _ = import_case(case)
        except CodegenError:
            continue  # listed, with reasons, by test_conformance.py
        if any(graph.tensors[t].size == 0 for t in (*graph.inputs, *graph.outputs)):
            refused["a tensor without elements"] += 1
            continue
        graph = _renamed(optimise(graph), case.name)
        try:
            default_plan(graph, BOARD, "0" * 64)
        except CodegenError as e:
            refused[e.what] += 1
            continue
        usable.append((case, graph, {f"{case.name}/{k}": v for k, v in arrays.items()}))
    return usable, refused


def _run(batch: list[tuple[Any, Graph, dict[str, np.ndarray]]], folder) -> list[str]:
    """What is wrong with each case of a batch."""
    graph = _joined([g for _, g, _ in batch])
    generated = finish(graph, default_plan(graph, BOARD, "0" * 64), BOARD, "suite")
    write(generated.sources, folder)
    binary = compile_library(generated.sources, folder, find_toolchain(BOARD))
    assert not binary.error, binary.error
    interface = Interface.of(generated.sources, generated.schedule)
    inputs = {k: v for _, _, arrays in batch for k, v in arrays.items()}
    got = infer(interface, binary.verify, pick_runner(BOARD), BOARD, [inputs])[0]
    out = []
    for case, part, _ in batch:
        wrong = difference_of(case, [got[t] for t in part.outputs])
        if wrong:
            out.append(f"{case.name}: {wrong}")
    return out


def test_every_case_in_c(tmp_path, capsys):
    usable, refused = _usable()
    wrong = []
    for i in range(0, len(usable), BATCH):
        wrong += _run(usable[i : i + BATCH], tmp_path / str(i))
    with capsys.disabled():
        print(f"\n{len(usable)} cases compiled and run; no kernel for {refused.total()}:")
        for reason, count in refused.most_common():
            print(f"  {count:4} {reason}")
    assert not wrong, "\n".join(wrong)
    assert len(usable) >= 750
