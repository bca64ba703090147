"""In which order a depthwise convolution of int8 issues its instructions on a dual-issue in-order
core.

A block is some windows beside one another, 16 or 8 channels of each. Products of as many taps as
fit in 16 bits (SMULL, SMLAL) are added to sums in 32 bits (SADDW), windows in turn, so that nothing
waits for the instruction before; so are real values when they are scaled, rounded and narrowed.
Vectors are loaded as block_order.py says.

Pointers: x0 to x4 to lines, x5 to x7 to results, x8 to weights, x11 to biases, x12 to scales; they
move to the next channels, or by x13 and x19 to x21 to the next windows. x14 counts blocks, x15
those of some windows, of which there are x23; where no more come, x13 becomes x22: back to the
first channels, so that nothing is read that is not there. x9, x10 and x17 are on their way to
vectors, x16 is a step.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from itertools import product

from codegen.block_order import Load, Op, coloured, lag, lifetimes, placed, uses

ZERO, LOW, HIGH = 29, 30, 31  # vectors of the results' zero point (16 bits) and bounds
_REGISTERS = 29  # others
_HALF = 8  # bytes
_POINTERS = {"w": "x8", "b": "x11", "scale": "x12"}
_HALVES = ("x9", "x10", "x17")
_RESULTS = 5  # the first register that points to them
_TURNS = 6  # sums in 16 bits that take turns at most
_GAPS, _MARGINS = (3, 2, 1), (14, 11, 8)  # instructions between loads; from a load to its use


@dataclass(frozen=True)
class Windows:
    """`outputs` windows of `kh` x `kw` taps, `step` and `dilation` bytes from one to the next, `n`
    channels of each; products of `group` taps fit in 16 bits."""

    kh: int
    kw: int
    outputs: int
    step: int
    dilation: int
    n: int
    group: int


@dataclass(frozen=True)
class DepthwiseOrder:
    """Assembly: `begin` once, then `body` for each block."""

    begin: tuple[str, ...]
    body: tuple[str, ...]


@lru_cache(maxsize=64)
def depthwise_order(windows: Windows) -> DepthwiseOrder:
    """An order in which as much as possible is in flight: registers decide."""
    lanes = windows.outputs * windows.n // 8
    for parts, gap, margin in product(range(-(-lanes // _TURNS), lanes + 1), _GAPS, _MARGINS):
        code = _code(windows, -(-lanes // parts))
        loads = _placed(code, windows, gap, margin)
        registers = loads and _registers(code, loads)
        if loads and registers:
            return _written(code, windows, loads, registers, lag(gap))
    raise AssertionError(f"no order for {windows}")


def _code(s: Windows, turns: int) -> list[Op]:
    """All arithmetic of a block, `turns` sums of 16 bits at a time."""
    out: list[Op] = []
    lanes = [(o, h) for o in range(s.outputs) for h in range(s.n // 8)]
    taps = list(product(range(s.kh), range(s.kw)))
    for g in range(0, len(taps), s.group):
        for c in range(0, len(lanes), turns):
            some = lanes[c : c + turns]
            for t, (i, j) in enumerate(taps[g : g + s.group]):
                for o, h in some:
                    sort, width = ("smlal" if t else "smull") + "2" * h, "16b" if h else "8b"
                    x = f"x{i} {o * s.step + j * s.dilation}"
                    text = f"{sort} {{0}}.8h, {{1}}.{width}, {{2}}.{width}"
                    out.append((text, f"pairs {g} {o} {h}", (x, f"w {s.n * (g + t)}")))
            for q, (o, h) in product(range(2), some):
                a, wide = f"sum {o} {2 * h + q}", "8h" if q else "4h"
                old = a if g else f"b {16 * (2 * h + q)}"
                text = f"saddw{'2' * q} {{0}}.4s, {{1}}.4s, {{2}}.{wide}"
                out.append((text, a, (old, f"pairs {g} {o} {h}")))
    parts = list(product(range(s.n // 4), range(s.outputs)))
    sums = [f"sum {o} {p}" for p, o in parts]
    out += [("scvtf {0}.4s, {1}.4s", a, (a,)) for a in sums]
    for (p, _), a in zip(parts, sums, strict=True):
        out.append(("fmul {0}.4s, {1}.4s, {2}.4s", a, (a, f"scale {16 * p}")))
    out += [("fcvtns {0}.4s, {1}.4s", a, (a,)) for a in sums]
    return out + list(_codes(s))


def _codes(s: Windows) -> Iterator[Op]:
    """Rounded values to codes, in the registers of the first ones of each window."""
    parts = [(o, p) for p in range(0, s.n // 4, 2) for o in range(s.outputs)]
    even, odd = [f"sum {o} {p}" for o, p in parts], [f"sum {o} {p + 1}" for o, p in parts]
    first, width = even[: s.outputs], f"{s.n}b"
    yield from (("sqxtn {0}.4h, {1}.4s", a, (a,)) for a in even)
    for a, b in zip(even, odd, strict=True):
        yield "sqxtn2 {0}.8h, {2}.4s", a, (a, b)
    yield from ((f"sqadd {{0}}.8h, {{1}}.8h, v{ZERO}.8h", a, (a,)) for a in even)
    yield from (("sqxtn {0}.8b, {1}.8h", a, (a,)) for a in first)
    for a, b in zip(first, even[s.outputs :], strict=False):
        yield "sqxtn2 {0}.16b, {2}.8h", a, (a, b)
    yield from ((f"smax {{0}}.{width}, {{1}}.{width}, v{LOW}.{width}", a, (a,)) for a in first)
    yield from ((f"smin {{0}}.{width}, {{1}}.{width}, v{HIGH}.{width}", a, (a,)) for a in first)
    for o, a in enumerate(first):
        yield f"st1 {{{{{{0}}.{width}}}}}, [x{_RESULTS + o}], x16", "", (a,)


def _placed(code: list[Op], s: Windows, gap: int, margin: int) -> list[Load] | None:
    """Loads of all values that are neither sums nor pairs."""
    values = {n: u for n, u in uses(code).items() if n.split()[0] not in ("sum", "pairs")}
    return placed(values, len(code), gap, lambda n: values[n][0] - margin, len(_moves(s)))


def _registers(code: list[Op], loads: list[Load]) -> dict[str, int] | None:
    """One for each value."""
    spans = lifetimes(loads)
    for name, (first, last) in uses(code).items():
        spans.setdefault(name, (2 * first + 1, 2 * last + 1))
    return coloured(spans, 2 * len(code), _REGISTERS)


def _moves(s: Windows) -> list[str]:
    """What moves the pointers to the next block."""
    out = [f"mov x16, #{s.n}", "csel x16, x16, x13, ne"]
    out += [f"add x{i}, x{i}, x16" for i in range(s.kh)]
    out += [f"mov x16, #{s.n * s.kh * s.kw}", "csel x16, x16, x19, ne", "add x8, x8, x16"]
    out += [f"mov x16, #{4 * s.n}", "csel x16, x16, x20, ne", "add x11, x11, x16"]
    return [*out, "add x12, x12, x16", f"mov x16, #{s.n}", "csel x16, x16, x21, ne"]


_COUNT = (
    "subs x14, x14, #1",
    "csel x13, x22, x13, eq",
    "subs x15, x15, #1",
    "csel x15, x23, x15, eq",
)


def _written(
    code: list[Op], s: Windows, loads: list[Load], registers: dict[str, int], late: int
) -> DepthwiseOrder:
    """Loads whose place is negative come in the block before, and before the first one."""
    size = len(code)
    before: list[list[str]] = [[] for _ in code]
    beside: dict[int, tuple[str]] = {}
    begin: list[str] = []
    ends: list[str] = []
    for k, v in enumerate(loads):
        place, offset = v.name.split()
        pointer = _POINTERS.get(place, place)
        half = _HALVES[late if k == len(loads) - 1 and k % late == 0 else k % late]
        low = f"ldr d{registers[v.name]}, [{pointer}, #{offset}]"
        next_ = f"ldr {half}, [{pointer}, #{int(offset) + _HALF}]"
        high = f"ins v{registers[v.name]}.d[1], {half}"
        wide = s.n > _HALF or place in ("b", "scale")
        before[v.low % size].insert(0, low)
        if wide:
            beside[v.low % size] = (next_,)
            before[v.high % size].append(high)
        if v.low < 0:
            begin += [low, *ends[k - late : k - late + 1] * (k >= late), *[next_] * wide]
            ends.append(high if wide and v.high < 0 else "")
    begin += ends[-late:]
    free = (p for p in range(size) if p not in beside)
    beside |= {p: (t,) for t, p in list(zip(_COUNT, free, strict=False))}
    beside |= {p: (t,) for p, t in enumerate(_moves(s), loads[-1].low + 1)}
    body = []
    for p, (text, result, operands) in enumerate(code):
        places = [f"v{registers[n]}" for n in (result, *operands) if n]
        body += [*before[p], text.format(*places), *beside.get(p, ())]
    return DepthwiseOrder(tuple(t for t in begin if t), tuple(body))
