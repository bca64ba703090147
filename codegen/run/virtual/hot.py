"""The hot traces of one region with all that a kernel's author wants to see of them."""

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass, replace

from codegen.cycle_model import CycleModel
from codegen.footprint import Function
from codegen.run.virtual import ports, stalls
from codegen.run.virtual.counts import Counts
from codegen.run.virtual.explain import Explanation, Note
from codegen.run.virtual.model import Cost, Timed, charge, time_traces, works
from codegen.run.virtual.traces import Trace, trace_region

_INSTRUCTION = 4  # bytes
_PAGE = 4096


@dataclass(frozen=True)
class Line:
    """One instruction as it stands in memory; `function` is "" where no symbol tells."""

    address: int
    function: str
    offset: int
    text: str
    note: Note


@dataclass(frozen=True)
class HotTrace:
    """`times` passes of `cycles` each."""

    lines: tuple[Line, ...]
    loop: bool
    times: float
    cycles: float
    explanation: Explanation


@dataclass(frozen=True)
class RegionProfile:
    """The cost of a region and its traces, the most expensive first; `others` traces that are not
    shown take `rest` cycles of the core."""

    cost: Cost
    traces: tuple[HotTrace, ...]
    others: int
    rest: float


def profile_region(
    counts: Counts,
    number: int,
    model: CycleModel,
    functions: Sequence[Function],
    tools: tuple[str, str],
    top: int,
) -> RegionProfile:
    """The `top` most expensive traces of the region of that number (KeyError where there is none).
    `functions` in order of address, `tools` are llvm-mc and llvm-mca. AnalysisError as in
    model.price."""
    region = counts.regions[number]
    cost = charge(works(replace(counts, regions={number: region}), model, *tools)[number], model)
    traces = trace_region(region, counts.blocks).traces
    times = time_traces(traces, model, *tools)
    order = sorted(traces, key=lambda t: (-t.times * times[t.code].cycles, t.words))
    hot = tuple(_hot(t, times[t.code], counts, model, functions, tools[1]) for t in order[:top])
    rest = cost.core - sum(t.times * t.cycles for t in hot)
    return RegionProfile(cost, hot, len(order) - len(hot), max(rest, 0.0))


def _hot(
    trace: Trace,
    timed: Timed,
    counts: Counts,
    model: CycleModel,
    functions: Sequence[Function],
    llvm_mca: str,
) -> HotTrace:
    core = model.core
    if core.in_order:
        explanation = stalls.explain(timed.listing, trace.loop, core.llvm_cpu)
    else:
        explanation = ports.explain(timed.listing, core.llvm_cpu, llvm_mca)
    places = (
        counts.blocks[b].address + _INSTRUCTION * i
        for b in trace.blocks
        for i in range(len(counts.blocks[b].words))
    )
    rows = zip(places, trace.words, timed.listing, explanation.notes, strict=True)
    lines = tuple(_line(a, w, text, note, functions) for a, w, text, note in rows)
    return HotTrace(lines, trace.loop, trace.times, timed.cycles, explanation)


def _line(address: int, word: int, text: str, note: Note, functions: Sequence[Function]) -> Line:
    name, offset = _place(address, functions)
    goal = target(word, address)
    if goal is not None:
        there, at = _place(goal, functions)
        where = f" <{there}{f'+{at:#x}' if at else ''}>" if there and there != name else ""
        text = f"{text.removesuffix('#0')}{goal:x}{where}"
    return Line(address, name, offset, text, note)


def _place(address: int, functions: Sequence[Function]) -> tuple[str, int]:
    """The function around an address, and how far it is in."""
    at = bisect_right(functions, address, key=lambda f: f.address) - 1
    if at < 0 or address >= functions[at].address + functions[at].bytes:
        return "", 0
    return functions[at].name, address - functions[at].address


def target(word: int, address: int) -> int | None:
    """Where a direct branch goes, or what ADR and ADRP compute; None for everything else (Arm ARM,
    C4.1: the immediates of B, BL, B.cond, CBZ, CBNZ, TBZ, TBNZ, ADR, ADRP)."""
    if word & 0x7C000000 == 0x14000000:
        return address + _INSTRUCTION * _signed(word, 0, 26)
    if word & 0xFF000010 == 0x54000000 or word & 0x7E000000 == 0x34000000:
        return address + _INSTRUCTION * _signed(word, 5, 19)
    if word & 0x7E000000 == 0x36000000:
        return address + _INSTRUCTION * _signed(word, 5, 14)
    if word & 0x1F000000 == 0x10000000:
        distance = _signed(word, 5, 19) << 2 | word >> 29 & 3
        return address // _PAGE * _PAGE + _PAGE * distance if word >> 31 else address + distance
    return None


def _signed(word: int, low: int, bits: int) -> int:
    value = word >> low & (1 << bits) - 1
    return value - (1 << bits) if value >> bits - 1 else value
