"""Fronts: plans of which none is better than another in everything that counts.

The table gives candidates for the front (the exact optimum at many prices of flash and limits of
memory); each is lowered and, for its arena, allocated. Latency is by the table, until plans are
measured whole.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import islice

from codegen.errors import CodegenError
from rl.assignment import Choices, cost_of
from rl.exact import optimum
from rl.limits import flash_of, loss_of, tightened
from rl.reward import LATENCY
from rl.walk import Walk

AXES = ("latency", "arena", "flash", "error", "accuracy")
_PRICES = 9  # of flash, or of losses of accuracy, a decade apart
_LIMITS, _STEP = 40, 0.02  # of memory: how many, and by how much each is smaller


@dataclass(frozen=True)
class Point:
    """A plan and what it needs: `latency` in the table's unit, bytes; its max_rel_error, of which
    the table knows nothing; by how much worse the outputs are (`accuracy`): by the table the energy
    that they lose by layers in int8, as measured 1 - cosine."""

    choices: Choices
    latency: float
    arena: float
    flash: float
    error: float = 0.0
    accuracy: float = 0.0

    def values(self, axes: Sequence[str]) -> tuple[float, ...]:
        """Its figures along the axes."""
        return tuple(getattr(self, a) for a in axes)


def parse_axes(text: str) -> tuple[str, ...]:
    """`latency,arena`; CodegenError otherwise."""
    axes = tuple(a.strip() for a in text.split(","))
    if len(axes) < 2 or len(set(axes)) < len(axes) or not set(axes) <= set(AXES):
        raise CodegenError(
            "--pareto", f"{text!r}", f"two or more of {', '.join(AXES)}, each once",
            "write e.g. --pareto latency,arena,flash",
        )  # fmt: skip
    return axes


def front(walk: Walk, axes: Sequence[str], arena: Callable[[Choices], int]) -> list[Point]:
    """The plans found that no other beats along all axes, the fastest first. `arena` gives the true
    arena of choices."""
    known: dict[Choices, Point] = {}
    for choices in _candidates(walk, axes):
        if choices not in known:
            known[choices] = Point(
                choices, cost_of(walk, choices), arena(choices), flash_of(walk, choices),
                accuracy=loss_of(walk, choices),
            )  # fmt: skip
    return undominated(list(known.values()), axes)


def undominated(points: Sequence[Point], axes: Sequence[str]) -> list[Point]:
    """Those that no other point beats, sorted by the first axis; of equal ones the first."""
    kept: list[Point] = []
    for p in sorted(points, key=lambda p: p.values(axes)):
        mine = p.values(axes)
        if not any(all(a <= b for a, b in zip(q.values(axes), mine, strict=True)) for q in kept):
            kept.append(p)
    return kept


def hypervolume(points: Sequence[Point], axes: Sequence[str], worst: Sequence[float]) -> float:
    """The part of the box from 0 to `worst` that the points dominate (1: all of it), by slicing it
    along the last axis."""
    scaled = [
        tuple(min(1.0, v / w) if w else 0.0 for v, w in zip(p.values(axes), worst, strict=True))
        for p in points
    ]
    return _volume(scaled)


def _volume(points: list[tuple[float, ...]]) -> float:
    """Volume of the union of boxes from each point to (1, ..., 1)."""
    if not points:
        return 0.0
    if len(points[0]) == 1:
        return 1.0 - min(p[0] for p in points)
    ordered = sorted(points, key=lambda p: p[-1])
    edges = [p[-1] for p in ordered] + [1.0]
    total = 0.0
    for i in range(len(ordered)):
        depth = edges[i + 1] - edges[i]
        if depth > 0:
            total += depth * _volume([p[:-1] for p in ordered[: i + 1]])
    return total


def _candidates(walk: Walk, axes: Sequence[str]) -> Iterator[Choices]:
    """Plans to look at: the best ones at prices of flash, and under limits of memory."""
    best = optimum(walk)
    if best is None:
        return
    unit = best.value / max(1, flash_of(walk, best.choices))
    goals = [LATENCY]
    if "flash" in axes:
        goals += [replace(LATENCY, flash_price=unit * 10.0 ** (i - 4)) for i in range(_PRICES)]
    if "accuracy" in axes:
        goals += [replace(LATENCY, loss_price=best.value * 10.0 ** (i - 1)) for i in range(_PRICES)]
    for goal in goals:
        if "arena" in axes:
            for _, choices in islice(tightened(walk, goal, _STEP), _LIMITS):
                yield choices
        else:
            found = optimum(walk, goal)
            if found:
                yield found.choices
