"""Where a block of instructions that repeats loads its vectors, and in which registers, on a
dual-issue in-order core.

Nothing arithmetic issues beside a vector load, which takes a cycle per 64 bits; so a vector comes
in halves: `ldr d`, `ldr x` beside another instruction, `ins` beside the `ldr d` of a later vector.
Loads come as late as they may; what a block needs first is loaded in the one before. Registers are
given out when it is known when each value comes and goes.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

LATENCY = 3  # cycles of `ldr x` and `ins`

Op = tuple[str, str, tuple[str, ...]]  # text with places for registers, result, operands
Span = tuple[int, int]


@dataclass(frozen=True)
class Load:
    """Of a vector that is read from instruction `first` to `last`: `low` is that before which it
    begins, of the block before where negative, and `high` that before which its second half is
    moved over."""

    name: str
    first: int
    last: int
    low: int
    high: int


def uses(code: list[Op]) -> dict[str, Span]:
    """Where a value is first written or read, and where it is last read."""
    out: dict[str, Span] = {}
    for p, (_, result, operands) in enumerate(code):
        for name in (*operands, *[result] * bool(result)):
            out[name] = out.get(name, (p,))[0], p
    return out


def placed(
    values: Mapping[str, Span], size: int, gap: int, latest: Callable[[str], int], moves: int
) -> list[Load] | None:
    """Loads of values that are used from one instruction to another of `size`, at least `gap`
    instructions apart, at `latest` and otherwise as late as may be; None where pointers would have
    no time for so many `moves` between those of two blocks."""
    needs = sorted((latest(name), *span, name) for name, span in values.items())
    lows: list[int] = []
    for need, _, _, _ in reversed(needs):
        lows.append(min(need, lows[-1] - gap if lows else need))
    lows.reverse()
    if lows[0] + size <= lows[-1] + moves:
        return None
    after, late, out = [*lows, *(p + size for p in lows)], lag(gap), []
    for k, (_, first, last, name) in enumerate(needs):
        until = max(first - LATENCY, lows[k] + LATENCY + 1)
        out.append(Load(name, first, last, lows[k], min(after[k + late], until)))
    return out


def lag(gap: int) -> int:
    """Beside which of the next loads a half has arrived: each load, and each instruction, takes a
    cycle."""
    return -(-(LATENCY + 1) // (gap + 1))


def lifetimes(loads: list[Load]) -> dict[str, Span]:
    """From a load to the last use, in half instructions: what is loaded before an instruction may
    not have a register that this still reads."""
    return {v.name: (2 * v.low, 2 * v.last + 1) for v in loads}


def coloured(spans: Mapping[str, Span], size: int, count: int) -> dict[str, int] | None:
    """One of `count` registers for each value, from where it comes to where it goes; blocks of
    `size` follow one another. None where there are too few, or a value is there longer than that.
    """
    if any(b - a > size for a, b in spans.values()):
        return None
    out: dict[str, int] = {}
    held: list[list[Span]] = [[] for _ in range(count)]
    for name in sorted(spans, key=lambda n: spans[n]):
        a, b = spans[name]
        for r, others in enumerate(held):
            if all(a + d >= y or x >= b + d for x, y in others for d in (-size, 0, size)):
                out[name] = r
                others.append((a, b))
                break
        else:
            return None
    return out
