"""Lifetimes -> arena offsets: in-place results, then packing of whole buffers at byte offsets."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from codegen.order import order_as, order_steps
from codegen.regions import aligned, outside, overlap, overwritable, region
from codegen.steps import Program, Step, View

_TRIES = 400  # packing orders tried before the best one so far is taken


@dataclass(frozen=True)
class Buffer:
    """A live range in the arena: `first`..`last` are step numbers, both included; offset and
    size in bytes."""

    name: str
    bytes: int
    first: int
    last: int
    offset: int = 0


@dataclass(frozen=True)
class Place:
    """Where a value lies: in the arena, or in the caller's `input` / `output`; offset in bytes."""

    kind: str
    name: str
    offset: int
    pitch: int = 0


@dataclass(frozen=True)
class Schedule:
    """Program in execution order with every value placed. `lower_bound` is the largest live set
    in bytes."""

    program: Program
    places: Mapping[str, Place]
    buffers: tuple[Buffer, ...]
    scratch: Mapping[str, int]
    arena_bytes: int
    lower_bound: int


def allocate(program: Program, order: Sequence[str] = ()) -> Schedule:
    """Order the steps (or take `order`, names of nodes), decide what is written in place, pack
    the arena."""
    steps = order_as(program, order) if order else order_steps(program)
    program = replace(program, steps=steps)
    program = _in_place(program)
    buffers = pack(_live_ranges(program))
    offsets = {b.name: b.offset for b in buffers}
    total = max((b.offset + aligned(b.bytes) for b in buffers), default=0)
    scratch = {s.name: offsets[_scratch_name(s)] for s in steps if s.scratch_bytes}
    return Schedule(
        program, _places(program, offsets), buffers, scratch, total, lower_bound(buffers)
    )


def _in_place(program: Program) -> Program:
    """Let a step write over an input that dies there, where its kernel allows it."""
    views = dict(program.views)
    for i, step in enumerate(program.steps):
        now = replace(program, views=views)
        later = program.steps[i + 1 :]
        for source in overwritable(now, step):
            place = region(now, source)
            if not any(overlap(place, region(now, r)) for s in later for r in s.reads):
                views[step.outputs[0]] = View(source)
                break
    return replace(program, views=views)


def _scratch_name(step: Step) -> str:
    return f"{step.name} (scratch)"


def _live_ranges(program: Program) -> list[Buffer]:
    fixed = outside(program)
    spans: dict[str, list[int]] = {}
    for i, step in enumerate(program.steps):
        for key in (*step.reads, *step.outputs):
            root = program.root(key)[0]
            if root not in fixed:
                spans.setdefault(root, [i, i])[1] = i
    out = [Buffer(root, program.values[root].bytes, a, b) for root, (a, b) in spans.items()]
    out += [
        Buffer(_scratch_name(s), s.scratch_bytes, i, i)
        for i, s in enumerate(program.steps)
        if s.scratch_bytes
    ]
    return out


def lower_bound(buffers: Sequence[Buffer]) -> int:
    """Largest sum of buffers (each rounded up to the alignment) that are live at the same step,
    in bytes."""
    last = max((b.last for b in buffers), default=-1)
    return max(
        (sum(aligned(b.bytes) for b in buffers if b.first <= t <= b.last) for t in range(last + 1)),
        default=0,
    )


def pack(buffers: Sequence[Buffer]) -> tuple[Buffer, ...]:
    """Offsets such that buffers that live together do not overlap; best of several orders of
    placement.

    Each order places buffers one by one at the lowest gap that fits (best-fit on offsets).
    Orders that end above the largest live set are improved by moving the buffers that stick out
    to the front; deterministic.
    """
    if not buffers:
        return ()
    target = lower_bound(buffers)
    orders = [
        sorted(buffers, key=lambda b: (-b.bytes, b.first, b.name)),
        sorted(buffers, key=lambda b: (-(b.last - b.first), -b.bytes, b.name)),
        sorted(buffers, key=lambda b: (-b.bytes * (b.last - b.first + 1), b.name)),
        sorted(buffers, key=lambda b: (b.first, -b.bytes, b.name)),
    ]
    best: tuple[int, tuple[Buffer, ...]] | None = None
    tries = 0
    for order in orders:
        order = list(order)
        for _ in range(_TRIES // len(orders)):
            placed = _place(order)
            total = max(b.offset + aligned(b.bytes) for b in placed)
            if best is None or total < best[0]:
                best = total, placed
            if total <= target:
                break
            tries += 1
            top = [b.name for b in placed if b.offset + aligned(b.bytes) == total]
            front = [b for b in order if b.name in top]
            rest = [b for b in order if b.name not in top]
            if order[: len(front)] == front:  # already first: rotate, so that another order is seen
                order = rest[:1] + front + rest[1:] if tries % 2 else rest[-1:] + front + rest[:-1]
            else:
                order = front + rest
        if best[0] <= target:
            break
    return tuple(sorted(best[1], key=lambda b: (b.first, b.offset)))


def _place(order: Sequence[Buffer]) -> tuple[Buffer, ...]:
    placed: list[Buffer] = []
    for b in order:
        clash = sorted(
            (p for p in placed if p.first <= b.last and b.first <= p.last), key=lambda p: p.offset
        )
        offset = 0
        for p in clash:
            if offset + aligned(b.bytes) <= p.offset:
                break
            offset = max(offset, p.offset + aligned(p.bytes))
        placed.append(replace(b, offset=offset))
    return tuple(placed)


def _places(program: Program, offsets: Mapping[str, int]) -> dict[str, Place]:
    finals = {program.root(o)[0]: o for o in program.outputs}
    out = {}
    for key, value in program.values.items():
        root, offset, pitch = program.root(key)
        offset *= value.tensor.dtype.size
        if root in program.inputs:
            out[key] = Place("input", root, offset, pitch)
        elif root in finals:
            out[key] = Place("output", finals[root], offset, pitch)
        elif root in offsets:
            out[key] = Place("arena", root, offsets[root] + offset, pitch)
    return out
