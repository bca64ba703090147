"""The scale and zero point of every tensor whose range is known."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np

from codegen.graph import Graph, Node

Span = tuple[float, float]

LOWEST, HIGHEST = -128, 127
_TINY = float(np.finfo(np.float32).tiny)
BOUNDS = ("Relu", "Clip")  # activations that are bounds of the codes
# What only moves values, or chooses among them; the first inputs are the values.
MOVES = ("Concat", "MaxPool", "Reshape", "SliceDims", "Transpose")


@dataclass(frozen=True)
class Scale:
    """real = scale * (code - zero)."""

    scale: float
    zero: int

    def code(self, real: float) -> int:
        """The nearest code."""
        return int(np.clip(np.rint(real / self.scale) + self.zero, LOWEST, HIGHEST))


def scale_of(low: float, high: float) -> Scale:
    """Codes that cover [low, high] and have one for 0, which padding needs. What lies nearer to 0
    than float32 has normal numbers for is 0."""
    low, high = min(low, 0.0), max(high, 0.0)
    scale = float(np.float32((high - low) / (HIGHEST - LOWEST)))
    scale = scale if scale >= _TINY else 1.0
    return Scale(scale, int(np.clip(np.rint(LOWEST - low / scale), LOWEST, HIGHEST)))


Scales = Mapping[str, Scale]


def moved_values(node: Node) -> tuple[str, ...]:
    """Of an operator that moves values, those of its inputs that are these."""
    return node.inputs if node.op == "Concat" else node.inputs[:1]


def groups_of(graph: Graph, names: Iterable[str]) -> list[list[str]]:
    """Those of these tensors that the graph has, by the scale that they share: tensors among which
    values move."""
    leader = {t: t for t in names if t in graph.tensors}

    def find(t: str) -> str:
        while leader[t] != t:
            t = leader[t]
        return t

    for node in graph.nodes:
        if node.op in MOVES or node.attrs.get("fn") == "max":
            known = [t for t in (*moved_values(node), *node.outputs) if t in leader]
            for t in known[1:]:
                leader[find(t)] = find(known[0])
    groups: dict[str, list[str]] = {}
    for t in leader:
        groups.setdefault(find(t), []).append(t)
    return list(groups.values())


def scales_of(graph: Graph, spans: Mapping[str, Span]) -> dict[str, Scale]:
    """The scale of each tensor whose values are known, which covers all that share it."""
    out = {}
    for group in groups_of(graph, spans):
        lows, highs = zip(*(spans[t] for t in group), strict=True)
        out |= dict.fromkeys(group, scale_of(min(lows), max(highs)))
    return out
