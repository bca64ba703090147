"""In which order the products of Winograd's method in integers are made on a dual-issue in-order
core.

At each of 36 positions a plane of sums, of some tiles x `columns` channels, gets the products of
transformed inputs and weights of 16 bits (SMLAL by element). A pass adds those of 8 input channels.
Four sums take turns where there are as many: 8 channels of two tiles. They get all products of the
pass before the next four begin, so that their stores come beside products of others, of the next
plane where they are the last ones. A plane's first products are SMULL, for which no sum need be
zero. Vectors are loaded as block_order.py says, those of the next plane too.

Pointers: x0 to inputs and x8 to weights of a pass; x15 and x17 move them on to the next plane, but
not after the last one: then they read again what is there. x13 points to the sums of this plane,
x16 to those of the one before, of which some are stored late; where there is none, to the first
plane, which is stored later. x9 and x14 count passes and planes; x10 to x12 are on their way to
vectors.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from itertools import product

from codegen.block_order import LATENCY, Load, Op, Span, coloured, lifetimes, placed, uses

PLANES = 36
_CHANNELS = 8  # inputs of a pass, outputs of a vector of weights
_SUMS = 16  # the first register of sums; those below it can be multiplied by element
_LOW, _INSERT, _PRODUCT, _BESIDE = range(4)  # what comes in turn at each product
_CAPS = 4  # so many instructions apart are the last places for loads that are tried
_POINTERS = {"x": "x0", "half": "x0", "w": "x8"}
_HALVES = ("x10", "x11", "x12")
_STORED = 4  # cycles from a product to the store of its sum
_LANES = 4  # of a vector of sums
_VALUE, _SUM, _HALF, _VECTOR = 2, 4, 8, 16  # bytes
# instructions between loads; from the load of inputs, of weights, to its use
_GAPS, _INPUTS, _WEIGHTS = (4, 3, 2, 1), (36, 28, 20, 14, 11, 8, 5, 2), (14, 11, 8, 5, 2)
_NEXT_PLANE = (
    "subs x14, x14, #1",
    "csel x15, x15, xzr, ne",
    "csel x17, x17, xzr, ne",
    "add x0, x0, x15",
    "add x8, x8, x17",
)


@dataclass(frozen=True)
class WinogradOrder:
    """Assembly: `begin` once, then for each plane `first`, so many `times` `body`, and `last`,
    which is all where a plane has one pass; `end` once."""

    begin: tuple[str, ...]
    first: tuple[str, ...]
    body: tuple[str, ...]
    times: int
    last: tuple[str, ...]
    end: tuple[str, ...]


@dataclass(frozen=True)
class _Plan:
    """The products of a pass, its loads, the registers of all values and of high halves; `sums` are
    the first and last product of each."""

    code: list[Op]
    loads: list[Load]
    registers: dict[str, int]
    halves: dict[str, int]
    sums: dict[str, Span]

    @property
    def size(self) -> int:
        return len(self.code)

    @property
    def lost(self) -> int:
        """Cycles, about: of inserts that are beside no load, and of waiting for loads."""
        beside = {v.low % self.size for v in self.loads}
        alone = sum(v.high % self.size not in beside for v in self.loads if _whole(v))
        return alone + sum(_waits(v) for v in self.loads)

    @property
    def between(self) -> int:
        """Where pointers move: after the last load of a pass, before those of the next."""
        return self.loads[-1].low + 1


@lru_cache(maxsize=64)
def winograd_order(rows: int, columns: int, pitch: int, passes: int) -> WinogradOrder:
    """The order for sums of `rows` tiles x `columns` channels, of `passes` passes; in memory inputs
    of 8 channels of `pitch` tiles lie together, and sums of all planes of a tile."""
    plan = _plan(rows, columns)
    onward = (f"add x0, x0, #{_VECTOR * pitch}", f"add x8, x8, #{_VECTOR * columns}")
    next_pass = dict(enumerate(onward, plan.between))
    next_plane = dict(enumerate(_NEXT_PLANE, plan.between))
    inside, late, after = _stores(plan, columns, {*next_plane})
    next_sums = ("mov x16, x13", f"add x13, x13, #{_SUM * columns}")
    ending = {**next_plane, **inside, **(late if passes == 1 else {})}
    last = _pass(plan, ending, passes == 1)
    return WinogradOrder(
        tuple(text for at, _, text in sorted(_steps(plan)) if at < 0),
        _pass(plan, {**next_pass, **late}, True) if passes > 1 else (),
        _pass(plan, next_pass, False) if passes > 2 else (),
        max(passes - 2, 0),
        (*last, *after, *next_sums),
        tuple(late.values()),
    )


def _code(rows: int, columns: int) -> list[Op]:
    """The products of a pass. One pair of tiles reads its inputs to the end: they come as `half`
    vectors, for there to be time for the next."""
    out: list[Op] = []
    inputs, width = ("half", 4) if rows <= 2 else ("x", _CHANNELS)
    for part, i in product(range(columns // _CHANNELS), range(0, rows, 2)):
        for lane, row, high in product(range(_CHANNELS), range(i, min(i + 2, rows)), range(2)):
            text = "smlal2 {0}.4s, {1}.8h, " if high else "smlal {0}.4s, {1}.4h, "
            x = f"{inputs} {_CHANNELS * row + lane // width * width}"
            operands = (f"w {columns * lane + _CHANNELS * part}", x)
            text += f"{{2}}.h[{lane % width}]"
            out.append((text, f"sum {row} {2 * part + high}", operands))
    return out


@lru_cache(maxsize=32)
def _plan(rows: int, columns: int) -> _Plan:
    """That in which least is lost, of those for which there are registers."""
    code = _code(rows, columns)
    spans, size = uses(code), len(code)
    sums = {n: s for n, s in spans.items() if n.startswith("sum")}
    values = {n: s for n, s in spans.items() if n not in sums}
    best: _Plan | None = None
    for gap, x, w, cap in product(_GAPS, _INPUTS, _WEIGHTS, range(size // 4, size, _CAPS)):
        needs = {n: min(s[0] - (w if n[0] == "w" else x), cap) for n, s in values.items()}
        loads = placed(values, size, gap, needs.__getitem__, len(_NEXT_PLANE))
        if not loads or loads[0].low < -size or not 0 <= loads[-1].low < size - len(_NEXT_PLANE):
            continue
        registers = coloured(lifetimes(loads), 2 * size, _SUMS)
        ways = {v.name: (2 * v.low + 1, 2 * v.high) for v in loads}
        halves = coloured(ways, 2 * size, len(_HALVES))
        if registers and halves is not None:
            registers |= {n: _SUMS + k for k, n in enumerate(sums)}
            plan = _Plan(code, loads, registers, halves, sums)
            best = plan if best is None or plan.lost < best.lost else best
            if best.lost == 0:
                break
    if best is None:
        raise AssertionError(f"no order for {rows} x {columns}")
    return best


def _stores(
    plan: _Plan, columns: int, taken: set[int]
) -> tuple[dict[int, str], dict[int, str], list[str]]:
    """Stores beside products of the last pass, beside those of the next plane's first one, and
    after the last pass: of sums for which there is no place before they begin again. A store takes
    the memory port for two cycles."""
    busy = taken | {v.low % plan.size for v in plan.loads}
    inside: dict[int, str] = {}
    late: dict[int, str] = {}
    after: list[str] = []
    for name, (first, last) in plan.sums.items():
        _, row, vector = name.split()
        address = _SUM * (PLANES * columns * int(row) + _LANES * int(vector))
        text = f"str q{plan.registers[name]}, [{{}}, #{address}]"
        for p in range(last + _STORED, plan.size + first):
            cycles = {p % plan.size, (p + 1) % plan.size}
            if not cycles & busy:
                busy |= cycles
                if p < plan.size:
                    inside[p] = text.format("x13")
                else:
                    late[p - plan.size] = text.format("x16")
                break
        else:
            after.append(text.format("x13"))
    return inside, late, after


def _whole(v: Load) -> bool:
    """Does it load two halves?"""
    return not v.name.startswith("half")


def _waits(v: Load) -> int:
    """Cycles, about, for which it is waited for."""
    if not _whole(v):
        return max(0, v.low + LATENCY + 1 - v.first)
    return max(0, v.low + LATENCY - v.high) + max(0, v.high + LATENCY - v.first)


def _steps(plan: _Plan) -> Iterator[tuple[int, int, str]]:
    """What loads all values: (product, before or beside it, text)."""
    for v in plan.loads:
        place, offset = v.name.split()
        pointer, at = _POINTERS[place], _VALUE * int(offset)
        register, half = plan.registers[v.name], _HALVES[plan.halves[v.name]]
        yield v.low, _LOW, f"ldr d{register}, [{pointer}, #{at}]"
        if _whole(v):
            yield v.low, _BESIDE, f"ldr {half}, [{pointer}, #{at + _HALF}]"
            yield v.high, _INSERT, f"ins v{register}.d[1], {half}"


def _pass(plan: _Plan, more: Mapping[int, str], begins: bool) -> tuple[str, ...]:
    """All of a pass, with `more` beside products; sums begin there or go on."""
    steps = [(at % plan.size, turn, text) for at, turn, text in _steps(plan)]
    steps += [(at, _BESIDE, text) for at, text in more.items()]
    for p, (text, result, operands) in enumerate(plan.code):
        if begins and plan.sums[result][0] == p:
            text = text.replace("smlal", "smull")
        places = [f"v{plan.registers[n]}" for n in (result, *operands)]
        steps.append((p, _PRODUCT, text.format(*places)))
    return tuple(text for _, _, text in sorted(steps))
