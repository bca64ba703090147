"""Lifetimes -> arena offsets: in-place results, then packing of whole buffers at byte offsets."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from codegen.order import order_as, order_steps
from codegen.regions import overlap, region
from codegen.schedule import Program, Step, View

ALIGN = 64  # one cache line on every Cortex-A; also what aligned NEON loads and stores like
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
    total = max((b.offset + _align(b.bytes) for b in buffers), default=0)
    scratch = {s.name: offsets[_scratch_name(s)] for s in steps if s.scratch_bytes}
    return Schedule(
        program, _places(program, offsets), buffers, scratch, total, lower_bound(buffers)
    )


def _in_place(program: Program) -> Program:
    """Let a step write over an input that dies there, where its kernel allows it."""
    views = dict(program.views)
    for i, step in enumerate(program.steps):
        if not step.kernel.inplace or len(step.outputs) != 1:
            continue
        now = replace(program, views=views)
        wanted = (step.residual,) if step.kernel.inplace == "residual" else step.args
        for source in dict.fromkeys(a for a in wanted if a and not a.startswith("&")):
            if _may_overwrite(now, i, step, source):
                views[step.outputs[0]] = View(source)
                break
    return replace(program, views=views)


def _may_overwrite(program: Program, i: int, step: Step, source: str) -> bool:
    """May step i leave its result where it finds `source`?"""
    out = step.outputs[0]
    x, y = program.values[source].tensor, program.values[out].tensor
    if (x.size, x.dtype.size) != (y.size, y.dtype.size):
        return False
    root, _, pitch = program.root(source)
    fixed = {*program.inputs, *(program.root(o)[0] for o in program.outputs)}
    if pitch or out in program.views or out in fixed or root in fixed:
        return False
    place = region(program, source)
    later = [region(program, r) for s in program.steps[i + 1 :] for r in s.reads]
    # a convolution may lie on its residual, but not where that is its own input as well
    others = step.args if step.kernel.inplace == "residual" else set(step.args) - {source}
    others = [region(program, r) for r in others if not r.startswith("&")]
    return not any(overlap(place, r) for r in later + others)


def _scratch_name(step: Step) -> str:
    return f"{step.name} (scratch)"


def _live_ranges(program: Program) -> list[Buffer]:
    outside = {*program.inputs, *(program.root(o)[0] for o in program.outputs)}
    spans: dict[str, list[int]] = {}
    for i, step in enumerate(program.steps):
        for key in (*step.reads, *step.outputs):
            root = program.root(key)[0]
            if root not in outside:
                spans.setdefault(root, [i, i])[1] = i
    out = [Buffer(root, program.values[root].bytes, a, b) for root, (a, b) in spans.items()]
    out += [
        Buffer(_scratch_name(s), s.scratch_bytes, i, i)
        for i, s in enumerate(program.steps)
        if s.scratch_bytes
    ]
    return out


def _align(n: int) -> int:
    return -(-n // ALIGN) * ALIGN


def lower_bound(buffers: Sequence[Buffer]) -> int:
    """Largest sum of buffers (each rounded up to the alignment) that are live at the same step,
    in bytes."""
    last = max((b.last for b in buffers), default=-1)
    return max(
        (sum(_align(b.bytes) for b in buffers if b.first <= t <= b.last) for t in range(last + 1)),
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
            total = max(b.offset + _align(b.bytes) for b in placed)
            if best is None or total < best[0]:
                best = total, placed
            if total <= target:
                break
            tries += 1
            top = [b.name for b in placed if b.offset + _align(b.bytes) == total]
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
            if offset + _align(b.bytes) <= p.offset:
                break
            offset = max(offset, p.offset + _align(p.bytes))
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
