"""In which order a tile of int8 products issues its instructions on a dual-issue in-order core.

A tile is computed in blocks of `rows` pixels x 4 channels, whose sums are in registers. A step
multiplies up to 16 `chain` codes of a pixel with as many of a channel: SMULL, SMLAL2, SMLAL, ...
add two products at a time to 16 bits, SADALP adds these up in 32. Four sums take turns, each with a
register for its 16 bits, so that no instruction waits for the one before; so do the pixels when a
block is finished. Vectors are loaded in halves as in tile_order.py: `ldr d`, beside another
instruction `ldr x`, and `ins` beside the next `ldr d`. Loads come some time before their use, each
into a register whose last value is done with: those of a block's first step while the block before
is finished, so that the last block of a tile loads a step of weights that nobody needs.
Pixels of a few codes are loaded once and stay in registers.

Pointers: x0 to x3 to the pixels, x4 to x7 to codes of their residuals, x8 to weights, x11 to
biases, x12 to scales, x13 to results, x16 to what all residuals need: 8 times their zero point,
their scale, the factor of results. x9 and x14 count steps and blocks, x10 is on its way to a vector
register, x15 holds the depth.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from functools import lru_cache
from itertools import pairwise, product
from math import gcd
from typing import Literal

COLUMNS = 4
_REGISTERS, _TURNS = 32, 4  # of vectors; sums that take turns
_FACTORS = 2  # of these, the register of what residuals need
_LATENCY = 3  # cycles of `ldr x` and `ins`
_VECTOR, _HALF = 16, 8  # bytes
_MOST_STEPS = 11  # that are laid out
_BLOCKS = 4  # that are laid out, for the second to be like all
_AHEAD = 48  # instructions that a load comes before its use at most

Key = tuple[str | int, ...]
End = Literal["sums", "codes", "residual"]


@dataclass(frozen=True)
class Int8Order:
    """Assembly: `begin` once, then for each block `head`, so many `times` `body` of some `steps`,
    and `tail`."""

    begin: tuple[str, ...]
    head: tuple[str, ...]
    body: tuple[str, ...]
    times: int
    steps: int
    tail: tuple[str, ...]


@dataclass(frozen=True)
class _Value:
    """What comes into a register: by `low` alone, or `beside` brings a half into x10 and `high`
    moves it over; `whole` does all at once."""

    register: int
    low: str
    beside: str = ""
    high: str = ""
    whole: str = ""


@dataclass
class _Phase:
    """A step, or the end of a block: instructions with the loaded values that they read."""

    code: list[tuple[str, tuple[Key, ...]]] = field(default_factory=list)
    loads: dict[Key, _Value] = field(default_factory=dict)
    # registers that take values of the end of a block -> the instruction that last reads a sum
    sums: dict[int, int] = field(default_factory=dict)

    def add(self, text: str, *uses: Key) -> None:
        self.code.append((text, uses))


@dataclass(frozen=True)
class _Load:
    """`low` and `high`: before which instructions (of all, in order) the halves of a load come;
    `back`: what moves the pointer back to the start of a pixel."""

    value: _Value
    first: int
    back: str
    low: int
    high: int

    @property
    def waits(self) -> int:
        """Cycles, about, for which it is waited for: `ins` for `ldr x`, a product for `ins`."""
        if not self.value.high:
            return max(0, self.low + _LATENCY + 1 - self.first)
        return max(0, self.low + _LATENCY - self.high) + max(0, self.high + _LATENCY - self.first)


@dataclass(frozen=True)
class _Shape:
    """Registers: the first _TURNS for sums in 16 bits, then those of `sets` of pixels and of
    `columns` of weights, the last ones for sums."""

    rows: int
    chain: int
    sets: int
    columns: int

    def x(self, step: int, row: int, vector: int) -> int:
        return _TURNS + (step % self.sets * self.chain + vector) * self.rows + row

    def w(self, step: int, column: int, vector: int) -> int:
        at = (step * COLUMNS + column) % self.columns
        return _TURNS + (self.sets * self.rows + at) * self.chain + vector

    def sum(self, row: int, column: int) -> int:
        return _REGISTERS - (self.rows - row) * COLUMNS + column

    @property
    def fits(self) -> bool:
        used = _TURNS + (self.sets * self.rows + self.columns) * self.chain
        return used + self.rows * COLUMNS <= _REGISTERS

    @property
    def period(self) -> int:
        """Steps after which registers are used alike."""
        return max(self.sets, self.columns // gcd(COLUMNS, self.columns))


def widths(depth: int, chain: int) -> list[tuple[int, ...]]:
    """The vectors of each step of `depth` products, a multiple of 8: bytes."""
    full, rest = divmod(depth, _VECTOR * chain)
    tail = (_VECTOR,) * (rest // _VECTOR) + (_HALF,) * (rest % _VECTOR // _HALF)
    return [(_VECTOR,) * chain] * full + [tail] * bool(tail)


@lru_cache(maxsize=64)
def int8_order(rows: int, depth: int, chain: int = 1, end: End = "codes") -> Int8Order:
    """The order for blocks of `rows` x 4 sums of `depth` products, a multiple of 8, of which 2
    `chain` fit in 16 bits: that in which least waits for a load. A block ends with sums in 32 bits,
    64 bytes from one pixel to the next; or with real values rounded to 16 bits, 32 bytes apart,
    `codes` without and `residual` with a residual added."""
    more = max(depth // (_VECTOR * chain) - _MOST_STEPS, 0) // 2 * 2
    if more:  # of these steps there are only more
        order = int8_order(rows, depth - more * _VECTOR * chain, chain, end)
        return replace(order, times=order.times + more // order.steps)
    steps = widths(depth, chain)
    best: tuple[int, list[str], list[_Phase], list[list[_Load]], int] | None = None
    choices = product((0, 12), range(6, 0, -1), (0, 8, 20), (8, 4, 2), (2, 1))
    for idle, gap, early, columns, sets in choices:
        if idle and best:
            break
        shape = _Shape(rows, chain, sets, columns)
        if not shape.fits:
            continue
        stays = len(steps) <= sets  # of pixels all is in registers
        block = [_step(shape, s, step, stays) for s, step in enumerate(steps)]
        block.append(_end(shape, end))
        block[-1].code += [("nop", ())] * idle  # time for loads, where little is computed
        loads = _placed(block * _BLOCKS, len(block), gap, early)
        if loads is None:
            continue
        waits = sum(n.waits for phase in loads[len(block) : 2 * len(block)] for n in phase)
        if best is None or waits < best[0]:
            pixels = [t for s, step in enumerate(steps) for t in _pixels(shape, s, step)] * stays
            best = waits, pixels, block, loads, shape.period
        if best[0] == 0:
            break
    if best is None:
        raise AssertionError(f"no order for {rows} rows of {depth} products, {chain} at a time")
    return _written(*best[1:])


def _step(shape: _Shape, s: int, step: tuple[int, ...], stays: bool) -> _Phase:
    """Products of a step; pixels are loaded in each block, or `stays`."""
    out = _Phase()
    pairs = [(i, j) for j in range(COLUMNS) for i in range(shape.rows)]
    for g in range(0, len(pairs), _TURNS):
        turn = list(enumerate(pairs[g : g + _TURNS]))
        for v, width in enumerate(step):
            for half in range(width // _HALF):
                opcode = ("smlal" if v or half else "smull") + "2" * half
                lanes = "16b" if half else "8b"
                for t, (i, j) in turn:
                    x, w = shape.x(s, i, v), shape.w(s, j, v)
                    text = f"{opcode} v{t}.8h, v{x}.{lanes}, v{w}.{lanes}"
                    out.add(text, ("x", i, v), ("w", j, v))
        for t, (i, j) in turn:
            out.add(f"{'sadalp' if s else 'saddlp'} v{shape.sum(i, j)}.4s, v{t}.8h")
    for (v, width), i in product(enumerate(step), range(0 if stays else shape.rows)):
        out.loads["x", i, v] = _streamed(shape.x(s, i, v), f"x{i}", width)
    for j, (v, width) in product(range(COLUMNS), enumerate(step)):
        out.loads["w", j, v] = _streamed(shape.w(s, j, v), "x8", width)
    return out


def _pixels(shape: _Shape, s: int, step: tuple[int, ...]) -> Iterator[str]:
    """Loads what a step has of all pixels."""
    for (v, width), i in product(enumerate(step), range(shape.rows)):
        value = _streamed(shape.x(s, i, v), f"x{i}", width)
        yield value.whole or value.low


def _streamed(register: int, pointer: str, width: int) -> _Value:
    """The next `width` bytes at a pointer."""
    low = f"ldr d{register}, [{pointer}], #8"
    if width <= _HALF:
        return _Value(register, low)
    high, whole = f"ins v{register}.d[1], x10", f"ldr q{register}, [{pointer}], #16"
    return _Value(register, low, f"ldr x10, [{pointer}], #8", high, whole)


def _end(shape: _Shape, end: End) -> _Phase:
    """Sums of lanes, biases, and what makes reals of them, for all pixels in turn."""
    out, rows = _Phase(), range(shape.rows)
    first = [shape.sum(i, 0) for i in rows]
    for j in (0, 2):
        for i in rows:
            a = shape.sum(i, j)
            out.add(f"addp v{a}.4s, v{a}.4s, v{a + 1}.4s")
            out.sums[a + 1] = len(out.code) - 1
    for r in first:
        out.add(f"addp v{r}.4s, v{r}.4s, v{r + 2}.4s")
    bias, scale = shape.sum(0, 1), shape.sum(0, 3)
    out.loads["b",] = _streamed(bias, "x11", _VECTOR)
    for r in first:
        out.add(f"add v{r}.4s, v{r}.4s, v{bias}.4s", ("b",))
    if end != "sums":
        out.loads["scale",] = _streamed(scale, "x12", _VECTOR)
        for r in first:
            out.add(f"scvtf v{r}.4s, v{r}.4s")
        if end == "residual":
            _residuals(out, first)
        for r in first:
            out.add(f"fmul v{r}.4s, v{r}.4s, v{scale}.4s", ("scale",))
        if end == "residual":
            for r in first:
                out.add(f"fmla v{r}.4s, v{r + 2}.4s, v{_FACTORS}.s[2]", ("factors",))
            for r in first:
                out.add(f"fmul v{r}.4s, v{r}.4s, v{_FACTORS}.s[3]", ("factors",))
        for r in first:
            out.add(f"fcvtns v{r}.4s, v{r}.4s")
        for r in first:
            out.add(f"sqxtn v{r}.4h, v{r}.4s")
    for i, r in enumerate(first):
        out.add(f"str q{r}, [x13, #{64 * i}]" if end == "sums" else f"str d{r}, [x13, #{32 * i}]")
    out.add(f"add x13, x13, #{16 if end == 'sums' else 8}")
    return out


def _residuals(out: _Phase, first: list[int]) -> None:
    """Codes less their zero point as floats, two registers behind the sums `first`. Registers of
    sums in 16 bits, which are done with, take codes of two pixels each."""
    factors = f"ldr d{_FACTORS}, [x16]", "ldr x10, [x16, #8]", f"ins v{_FACTORS}.d[1], x10"
    out.loads["factors",] = _Value(_FACTORS, *factors)
    out.sums |= dict.fromkeys(range(_TURNS), -1)
    for i in range(0, len(first), 2):
        low, code = f"ldr s{i // 2}, [x{4 + i}], #4", i // 2
        two = (f"ldr w10, [x{5 + i}], #4", f"ins v{code}.s[1], w10") if i + 1 < len(first) else ()
        out.loads["r", code] = _Value(code, low, *two)
    for i in range(0, len(first), 2):
        subtract = f"ssubl v{i // 2}.8h, v{i // 2}.8b, v{_FACTORS}.8b"
        out.add(subtract, ("r", i // 2), ("factors",))
    for i, r in enumerate(first):
        widen = f"sshll2 v{r + 2}.4s, v{i // 2}.8h" if i % 2 else f"sshll v{r + 2}.4s, v{i // 2}.4h"
        out.add(f"{widen}, #0")
    for r in first:
        out.add(f"scvtf v{r + 2}.4s, v{r + 2}.4s")


def _placed(phases: list[_Phase], length: int, gap: int, early: int) -> list[list[_Load]] | None:
    """Where all loads of each phase are made, `gap` instructions apart, those of w so much `early`;
    None where one would come too late. Blocks have `length` phases."""
    held: dict[int, int] = {}  # register -> last use of its value
    base, before = 0, -gap
    size = sum(len(p.code) for p in phases[:length])
    at: list[tuple[int, _Load]] = []
    for n, phase in enumerate(phases):
        uses = _uses(phase, base)
        held |= {r: base + p for r, p in phase.sums.items()}
        for key in _in_turn(phase, uses, early):
            value, (first, last) = phase.loads[key], uses[key]
            low = max(before + gap, first - _AHEAD, held.get(value.register, -1) + 1)
            rewind = n % length == 0 and key[0] == "x" and key[2] == 0
            back = f"sub x{key[1]}, x{key[1]}, x15" if rewind else ""
            at.append((n, _Load(value, first, back, low, low)))
            held[value.register], before = last, low
        base += len(phase.code)
    out: list[list[_Load]] = [[] for _ in phases]
    for (n, load), (_, after) in pairwise([*at, (0, replace(at[-1][1], low=base))]):
        high = load.low
        if load.value.high:
            high = min(after.low, max(load.first - _LATENCY, load.low + 1))
        late = high > load.first or (high <= load.low and bool(load.value.high))
        # too late to move the pointer back
        begun = bool(load.back) and load.low >= n // length * size
        if n >= length and (late or begun):
            return None
        out[n].append(replace(load, high=high))
    alike = all(
        (a.low + size, a.high + size) == (b.low, b.high)
        for first, second in zip(out[length : 2 * length], out[2 * length :], strict=False)
        for a, b in zip(first, second, strict=True)
    )
    return out[: 3 * length] if alike else None


def _in_turn(phase: _Phase, uses: dict[Key, tuple[int, int]], early: int) -> list[Key]:
    """Loads in the order of need, w so much `early` and as it lies in memory."""
    need = {k: uses[k][0] for k in phase.loads}
    before = max(need.values())
    for k in reversed([k for k in need if k[0] == "w"]):
        before = min(before, need[k])
        need[k] = before - early
    return sorted(need, key=need.__getitem__)


def _uses(phase: _Phase, base: int) -> dict[Key, tuple[int, int]]:
    """First and last instruction that reads a loaded value."""
    out: dict[Key, tuple[int, int]] = {}
    for p, (_, keys) in enumerate(phase.code):
        for k in keys:
            out[k] = out.get(k, (base + p,))[0], base + p
    return out


def _written(
    begin: list[str], block: list[_Phase], loads: list[list[_Load]], period: int
) -> Int8Order:
    """The second block, with equal steps as one loop; `begin` and what else must be loaded before
    the first."""
    size = sum(len(p.code) for p in block)
    before: dict[int, list[str]] = {}
    beside: dict[int, str] = {}
    for n in (n for phase in loads for n in phase):
        v, inside = n.value, size <= n.low < 2 * size
        needed = size <= n.first < 2 * size  # by the second block
        if needed and n.low < size:
            done = v.high and n.high < size
            begin += [v.whole] if done else [t for t in (v.low, v.beside) if t]
        if inside:
            before.setdefault(n.low, [])[:0] = [t for t in (n.back, v.low) if t]
            if v.beside:
                beside[n.low] = v.beside
        if v.high and size <= n.high < 2 * size:
            before.setdefault(n.high, []).append(v.high)
    parts, at = [], size
    for phase in block:
        parts.append(tuple(_phase(phase, at, before, beside)))
        at += len(phase.code)
    first, times = _loop(parts, period)
    if len(parts) > _MOST_STEPS and not times:
        raise AssertionError(f"{len(parts)} steps without a loop")
    end = first + times * period
    cuts = parts[:first], parts[first : min(first + period, end)], parts[end:]
    head, body, tail = (tuple(t for p in c for t in p) for c in cuts)
    return Int8Order(tuple(begin), head, body, times, period, tail)


def _phase(
    phase: _Phase, at: int, before: dict[int, list[str]], beside: dict[int, str]
) -> Iterator[str]:
    """Its instructions, the first one being number `at`, with loads between them."""
    for p, (text, _) in enumerate(phase.code, at):
        yield from before.get(p, ())
        yield text
        if p in beside:
            yield beside[p]


def _loop(parts: list[tuple[str, ...]], period: int) -> tuple[int, int]:
    """(first, times) of equal `period` parts, wherever a loop saves most."""
    best = (0, 0, 0)
    for a in range(len(parts)):
        n = 1
        while parts[a + n * period : a + (n + 1) * period] == parts[a : a + period]:
            n += 1
        best = max(best, ((n - 1) * period, -a, n if n > 1 else 0))
    return -best[1], best[2]
