"""Counts of blocks -> hot traces: straight runs and loops of instructions, with how often each ran.

Two blocks are joined where each is the other's usual neighbour (more than half of the times), which
also joins a loop's last block to its first. What remains outside the share COVER of the executed
instructions is timed as if it were like the rest.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from codegen.run.virtual.counts import START, Block, Region

COVER = 0.998
_MAX_WORDS = 4000  # of one trace; longer code is cut in pieces
Code = tuple[tuple[int, ...], bool]  # encodings, and whether they are a loop


@dataclass(frozen=True)
class Trace:
    """Encodings in the order in which they run, how often, and the blocks that they come from. A
    straight trace's ends do not depend on each other, a loop's do."""

    words: tuple[int, ...]
    loop: bool
    times: float
    blocks: tuple[int, ...] = ()

    @property
    def code(self) -> Code:
        """All that its time depends on."""
        return self.words, self.loop


@dataclass(frozen=True)
class Traced:
    """The hot traces of a region; `scale` >= 1 makes up for the instructions that they leave
    out."""

    traces: tuple[Trace, ...]
    scale: float


def trace_region(region: Region, blocks: Mapping[int, Block]) -> Traced:
    """The traces that cover COVER of the region's instructions."""
    counts = region.block_counts()
    length = {b: len(blocks[b].words) for b in counts}
    traces = []
    for path, loop in _paths(region, counts):
        for piece in _pieces(path, length):
            words = tuple(w for b in piece for w in blocks[b].words)
            executed = sum(counts[b] * length[b] for b in piece)
            whole = loop and len(piece) == len(path)
            traces.append((executed, Trace(words, whole, executed / len(words), tuple(piece))))
    traces.sort(key=lambda t: (-t[0], t[1].words))
    total, covered, hot = sum(t[0] for t in traces), 0, []
    for executed, trace in traces:
        if covered >= COVER * total:
            break
        covered += executed
        hot.append(trace)
    return Traced(tuple(hot), total / covered if covered else 1.0)


def _paths(region: Region, counts: Mapping[int, int]) -> list[tuple[list[int], bool]]:
    """Every block in exactly one path; True for a path that closes on itself."""
    after, before = {}, {}
    for (a, b), n in sorted(region.edges.items()):
        if a != START and 2 * n > counts.get(a, 0) and 2 * n > counts[b]:
            after[a], before[b] = b, a
    paths, seen = [], set()
    heads = [b for b in sorted(counts) if b not in before]
    for head in (*heads, *sorted(counts)):  # what no head reaches lies on a loop
        path = []
        while head is not None and head not in seen:
            seen.add(head)
            path.append(head)
            head = after.get(head)
        if path:
            paths.append((path, head is not None))
    return paths


def _pieces(path: list[int], length: Mapping[int, int]) -> Iterable[list[int]]:
    piece: list[int] = []
    words = 0
    for b in path:
        if piece and words + length[b] > _MAX_WORDS:
            yield piece
            piece, words = [], 0
        piece.append(b)
        words += length[b]
    yield piece

