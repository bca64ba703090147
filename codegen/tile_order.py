"""In which order a matrix-product tile issues its instructions on a dual-issue in-order core.

The tile adds w[k][column] * x[row][k] to sums in registers. On Cortex-A53 nothing arithmetic
issues beside a vector load, so that a 128-bit load costs two cycles of multiplying. It costs one
when it is taken apart: `ldr d` brings the low half, `ldr x` the high half into a general register
beside some FMLA, and `ins` moves it over beside the `ldr d` of another load. All loads of four k
are spread evenly, in the order in which they are needed, each into a register whose last value is
done with; so the FMLAs wait for nothing.

A register of x holds two k of two rows (row 2j in the low half), one of w four columns of one k.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from itertools import product
from typing import Any

UNROLL = 4  # k per pass
_REGISTERS = 32
_LOAD, _INSERT = 4, 3  # cycles until the result of `ldr d` and of `ins` can be read

Step = dict[str, Any]


@dataclass(frozen=True)
class Order:
    """One pass through four k as steps for the template; `begin` comes before the first pass,
    `last` is a pass that loads nothing for another one. `vector_registers` hold w and x,
    `temporaries` counts the general registers for high halves.

    Steps: "sum" sets the sums of (row, vector) to the bias, "fmla" adds to them, "low" loads the
    low half of `register` from the place `of`, "next" the high half into `temporary`, "high" moves
    it over; "count" counts passes down; "touch" loads a word for the sake of its cache line, and
    "ahead" moves on to the next. Places are "w" or the number of a row; `k` is the first of the two
    that a load of a row brings, counted from the pass in which it is made.
    """

    begin: tuple[Step, ...]
    body: tuple[Step, ...]
    last: tuple[Step, ...]
    vector_registers: int
    temporaries: int


@dataclass(frozen=True)
class _Value:
    """What one load brings: register, the places of its halves ("" for none), the first k of a
    row's, positions of its first and last FMLA in a pass."""

    register: int
    low: str
    high: str
    k: int
    first: int
    last: int


@dataclass(frozen=True)
class _Plan:
    """A valid order: all loads of a pass in the order of need, of which the first `ahead` are made
    in the pass before; high halves follow `lag` loads later."""

    values: list[_Value]
    ahead: int
    lag: int
    slack: int


@lru_cache(maxsize=64)
def tile_order(rows: int, vectors: int) -> Order:
    """The order for a tile of `rows` x 4 `vectors` sums, which take at most 24 registers."""

    def quality(plan: _Plan) -> tuple[int, int]:
        return min(plan.slack, _INSERT + 1), -max(v.register for v in plan.values)

    return _write(rows, vectors, max(_plans(rows, vectors), key=quality))


def multiplies(rows: int, vectors: int) -> list[tuple[int, int, int]]:
    """(row, vector, k) of the FMLAs of one pass. Pairs of rows take turns at both ends of two k, so
    that a register of x is free some FMLAs before its next value is needed."""
    out = []
    for k in range(UNROLL):
        alone = vectors - 1 if k % 2 == 0 else 0
        single = [(i, alone, k) for i in range(rows)] if vectors > 1 else []
        many = [v for v in range(vectors) if v != alone] or [alone]
        pairs = [range(j, min(j + 2, rows)) for j in range(0, rows, 2)]
        mixed = [(i, v, k) for pair in pairs for v in many for i in pair]
        out += mixed + single if k % 2 == 0 else single + mixed
    return out


def _plans(rows: int, vectors: int) -> Iterator[_Plan]:
    """Every way of using registers and loading ahead that keeps values until they are used."""
    pairs, n = -(-rows // 2), UNROLL * rows * vectors
    divisors = [d for d in range(1, 4 * vectors + 1) if 4 * vectors % d == 0]
    for deep, nw, early in product((1, 2), divisors, (0, 3, rows)):
        if deep * pairs + nw > _REGISTERS - rows * vectors:
            continue
        values = _values(rows, vectors, deep, nw, early)
        if not _disjoint(values):
            continue
        lag = -(-_LOAD * len(values) // (n + len(values)))
        for ahead in range(len(values)):
            slack = _slack(values, n, ahead, lag)
            if slack is not None:
                yield _Plan(values, ahead, lag, slack)


def _values(rows: int, vectors: int, deep: int, nw: int, early: int) -> list[_Value]:
    """All loads of a pass in the order of need, w as if it were needed `early` FMLAs before that;
    `deep` registers per pair of rows, nw for w."""
    uses = multiplies(rows, vectors)
    nx = deep * -(-rows // 2)
    out = []
    for j in range(0, rows, 2):
        for h in range(2):
            at = [p for p, (i, _, k) in enumerate(uses) if i // 2 == j // 2 and k // 2 == h]
            high = str(j + 1) if j + 1 < rows else ""
            out.append(_Value(deep * (j // 2) + h % deep, str(j), high, 2 * h, at[0], at[-1]))
    for s in range(UNROLL * vectors):
        at = [p for p, (_, v, k) in enumerate(uses) if k * vectors + v == s]
        out.append(_Value(nx + s % nw, "w", "w", 0, at[0], at[-1]))
    return sorted(out, key=lambda v: v.first - early * (v.low == "w"))


def _disjoint(values: list[_Value]) -> bool:
    """Is no value needed while another one is in its register?"""
    return not any(
        a is not b and a.register == b.register and a.first <= b.first <= a.last
        for a in values
        for b in values
    )


def _free(value: _Value, values: list[_Value], n: int) -> int:
    """The last FMLA of the value that its register held before: of this pass, or of the one before
    (negative)."""
    lasts = [v.last for v in values if v.register == value.register]
    return max(p if p < value.first else p - n for p in lasts)


def _slack(values: list[_Value], n: int, ahead: int, lag: int) -> int | None:
    """The least number of FMLAs between the insert and the first use of a value; None where a
    register is not free in time."""
    count, least = len(values), n
    for e in range(count):
        value, shift = values[(e + ahead) % count], n * ((e + ahead) // count)
        if _position(e, n, count) <= _free(value, values, n) + shift:
            return None
        least = min(least, value.first + shift - _position(e + lag, n, count))
    return least if least >= 0 else None


def _position(e: int, n: int, count: int) -> int:
    """The FMLA before which the e-th of `count` loads starts."""
    return e * n // count


def _write(rows: int, vectors: int, plan: _Plan) -> Order:
    count, first = len(plan.values), len(plan.values) - plan.ahead
    fmla = [_fmla(m, vectors, plan.values) for m in multiplies(rows, vectors)]
    sums: list[Step] = [{"op": "none"}] * (len(fmla) - (rows - 1) * vectors)
    sums += [{"op": "sum", "row": i, "vector": v} for i in range(1, rows) for v in range(vectors)]
    # What a pass begins late has its high half moved early in the next one.
    late = [e + plan.lag >= count for e in range(count)]
    ahead = [e >= first for e in range(count)]
    early = [a and not b for a, b in zip(ahead, late, strict=True)]
    begin = _one_pass(sums, plan, ahead, early, -UNROLL)  # loads for the first pass, not the next
    body = _one_pass(fmla, plan, [True] * count, [True] * count)
    low = [not a for a in ahead]
    last = _one_pass(fmla, plan, low, [a or b for a, b in zip(low, late, strict=True)])
    registers = max(v.register for v in plan.values) + 1
    return Order(
        tuple(begin),
        _beside(body, ("count", "touch", "ahead")),
        _beside(last, ("touch",)),
        registers,
        _temporaries(plan),
    )


def _beside(body: Iterator[Step], more: tuple[str, ...]) -> tuple[Step, ...]:
    """With more steps, each beside an FMLA that has nothing else beside it; at the end where there
    are not enough of those."""
    out: list[Step] = []
    left = [{"op": op} for op in more]
    for step in body:
        if left and step["op"] == "fmla" and out and out[-1]["op"] == "fmla":
            out.append(left.pop(0))
        out.append(step)
    return (*out, *left)


def _temporaries(plan: _Plan) -> int:
    """As many general registers as high halves are on their way, and a divisor of the loads, so
    that every pass uses them alike."""
    count = len(plan.values)
    return next(t for t in range(plan.lag + 1, count + plan.lag + 1) if count % t == 0)


def _fmla(m: tuple[int, int, int], vectors: int, values: list[_Value]) -> Step:
    row, vector, k = m
    x = [v for v in values if str(row) in (v.low, v.high)][k // 2]
    w = [v for v in values if v.low == "w"][k * vectors + vector]
    lane = 2 * (row % 2) + k % 2
    return {
        "op": "fmla", "row": row, "vector": vector, "w": w.register, "x": x.register, "lane": lane,
    }  # fmt: skip


def _one_pass(
    work: list[Step], plan: _Plan, low: list[bool], high: list[bool], k0: int = 0
) -> Iterator[Step]:
    """`work` with loads between it: those with low[e] start, those with high[e] are finished. Loads
    for the next pass are `UNROLL` + `k0` further on."""
    count, temporaries = len(plan.values), _temporaries(plan)
    at = [_position(e, len(work), count) for e in range(count)]
    for p, step in enumerate(work):
        beside: list[Step] = []
        for e in (e for e in range(count) if at[e] == p):
            yield from beside
            value = plan.values[(e + plan.ahead) % count]
            k = value.k + ((UNROLL + k0) if e + plan.ahead >= count else 0)
            beside = []
            if low[e]:
                yield {"op": "low", "register": value.register, "of": value.low, "k": k}
                if value.high:
                    beside = [
                        {"op": "next", "temporary": e % temporaries, "of": value.high, "k": k}
                    ]
            done = (e - plan.lag) % count
            value = plan.values[(done + plan.ahead) % count]
            if value.high and high[done]:
                yield {
                    "op": "high", "register": value.register, "temporary": done % temporaries,
                }  # fmt: skip
        if step["op"] != "none":
            yield step
        yield from beside
