"""Which instructions of a loop wait for themselves: no core runs it faster than such a chain."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from codegen.run.virtual.instruction import Instruction


@dataclass(frozen=True)
class Chain:
    """Instructions (their places in the loop, ascending) each of which needs, in the end, its own
    result of the turn before; `registers` carry the results."""

    places: tuple[int, ...]
    registers: tuple[str, ...]


def chains(code: Sequence[Instruction]) -> list[Chain]:
    """The strongly connected parts of the graph of what reads what, by first instruction."""
    edges = _edges(code)
    if not edges:
        return []
    writers, readers, _ = zip(*edges, strict=True)
    graph = coo_array((np.ones(len(edges)), (writers, readers)), shape=(len(code), len(code)))
    _, label = connected_components(graph, directed=True, connection="strong")
    inside: dict[int, list[tuple[int, int, str]]] = {}
    for writer, reader, register in edges:
        if label[writer] == label[reader]:
            inside.setdefault(label[writer], []).append((writer, reader, register))
    found = [
        Chain(
            tuple(sorted({n for writer, reader, _ in part for n in (writer, reader)})),
            tuple(dict.fromkeys(register for _, _, register in sorted(part))),
        )
        for part in inside.values()
    ]
    return sorted(found, key=lambda c: c.places)


def _edges(code: Sequence[Instruction]) -> list[tuple[int, int, str]]:
    """(writer, reader, register), within a turn and from one to the next; registers are renamed, so
    nothing waits to write."""
    writer: dict[str, int] = {}
    out = []
    for turn in range(2):
        for n, i in enumerate(code):
            if turn:
                out += [(writer[r], n, r) for r in dict.fromkeys(i.reads) if r in writer]
            writer |= dict.fromkeys((*i.writes, *((i.pointer,) if i.pointer else ())), n)
    return out
