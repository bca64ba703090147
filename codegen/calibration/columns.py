"""What single outputs of convolutions and dense layers read, over a user's data: columns drawn at
random, as many as memory allows."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

import numpy as np

from codegen.calibration.activations import Activations
from codegen.calibration.data import Data
from codegen.graph import Graph, Node
from codegen.ops import OPS
from codegen.passes.quantise import operands

_PER_ROW, _LEAST, _MOST = 4, 512, 4096  # columns of a layer
_MEMORY = 1 << 27  # floats that all columns may take, about: 512 MiB
_HELD_OUT = 4


@dataclass(frozen=True)
class Columns:
    """[groups, rows, columns] in float32: a row per input of one output, as weights [M, ...] have
    them. One run in four is `held_out`, to judge on what was made of the others."""

    made_of: np.ndarray
    held_out: np.ndarray


def rows_of(graph: Graph, node: Node) -> int:
    """How many inputs one output of a product has."""
    weights, _ = operands(graph, node)
    return weights.size // len(weights)


def draw_columns(
    model: Path,
    graph: Graph,
    data: Data,
    chosen: Sequence[int],
    nodes: Sequence[Node],
    seed: int,
    shapes: Mapping[str, Sequence[int]] | None = None,
    progress: Callable[[int], None] = lambda done: None,
) -> list[Columns]:
    """Of each of these products of `graph`, over the `chosen` samples. Which columns of a node are
    drawn depends on `seed` and its place among the nodes. `progress` is told the samples done."""
    heights = [rows_of(graph, n) for n in nodes]
    wanted = [min(max(_PER_ROW * h, _LEAST), _MOST) for h in heights]
    groups = [n.attrs.get("group", 1) for n in nodes]
    floats = sum(g * h * w for g, h, w in zip(groups, heights, wanted, strict=True))
    share = min(1.0, _MEMORY / max(floats, 1)) / len(chosen)
    rngs = [np.random.default_rng((seed, i)) for i in range(len(nodes))]
    found: list[tuple[list[np.ndarray], list[np.ndarray]]] = [([], []) for _ in nodes]
    batches = data.batches(chosen)
    first = next(batches)
    activations = Activations(model, shapes, graph, first.inputs)
    done = 0
    for run, batch in enumerate(chain([first], batches)):
        values = activations.run(batch.inputs)
        for node, rng, columns, into in zip(nodes, rngs, wanted, found, strict=True):
            # as many as falls to this run, rounded up or down by chance
            count = int(columns * share * len(batch.samples) + rng.random())
            drawn = _drawn(graph, node, values[node.inputs[0]], count, rng)
            into[run % _HELD_OUT == _HELD_OUT - 1].append(drawn)
        done += len(batch.samples)
        progress(done)
    return [Columns(*(_joined(part) for part in parts)) for parts in found]


def _joined(parts: list[np.ndarray]) -> np.ndarray:
    return np.concatenate(parts, -1) if parts else np.empty((1, 0, 0), np.float32)


def _drawn(
    graph: Graph, node: Node, x: np.ndarray, count: int, rng: np.random.Generator
) -> np.ndarray:
    """[groups, rows, columns]: what some outputs read, or all where there are no more."""
    x = x.astype(np.float32, copy=False)
    if node.op == "Dense":
        return x[rng.choice(len(x), min(count, len(x)), replace=False)].T[None]
    tensors = [graph.tensors[t] for t in (*node.inputs[:2], node.outputs[0])]
    *ins, out = [t.shape for t in tensors]
    d = OPS[node.op].dims(node.attrs, ins, [out])
    outputs = d["n"], d["oh"], d["ow"]
    at = rng.choice(np.prod(outputs), min(count, np.prod(outputs)), replace=False)
    image, oy, ox = (i[:, None, None] for i in np.unravel_index(at, outputs))
    y = oy * d["sh"] + np.arange(d["kh"])[:, None] * d["dh"]
    x_at = ox * d["sw"] + np.arange(d["kw"]) * d["dw"]
    padded = np.pad(
        x.reshape(d["n"], d["c"], d["h"], d["w"]),
        ((0, 0), (0, 0), (d["pt"], d["pb"]), (d["pl"], d["pr"])),
    )
    windows = padded[image, :, y, x_at]  # columns, kh, kw, c
    rows = windows.transpose(3, 1, 2, 0)
    return rows.reshape(d["groups"], rows_of(graph, node), len(at))
