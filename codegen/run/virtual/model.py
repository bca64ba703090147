"""Counts -> cycles: the sum of core, branches, L2 and memory.

    core   = hot traces, each (cycles of a pass) x (how often it ran), scaled to all instructions
    branch = mispredicted conditional branches x cost of one
    L2     = events x penalties of the board's cycle model
    memory = demand misses x penalties, and for each line that moves what the bus needs for it
             beyond the time that the core is busy meanwhile

Not seen: prfm, dc zva, TLB, L1I, banks, the order of requests in DRAM.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from codegen.cycle_model import CycleModel
from codegen.run.virtual import inorder, outoforder
from codegen.run.virtual.counts import NAMED_EVENTS, SPACING_STEP, SPACINGS, Counts
from codegen.run.virtual.disassemble import disassemble
from codegen.run.virtual.errors import AnalysisError
from codegen.run.virtual.traces import Code, Trace, trace_region


@dataclass(frozen=True)
class Work:
    """What one region did, before anything of memory is priced: cycles of the core alone,
    instructions, and events (counts.EVENTS)."""

    core: float
    instructions: int
    events: Mapping[str, int]


@dataclass(frozen=True)
class Timed:
    """A trace as assembly, and the cycles of one pass through it."""

    listing: tuple[str, ...]
    cycles: float


@dataclass(frozen=True)
class Cost:
    """Cycles of one region, by cause, and what it executed."""

    core: float
    branch: float
    l2: float
    memory: float
    instructions: int
    events: Mapping[str, int]

    @property
    def cycles(self) -> int:
        return round(self.core + self.branch + self.l2 + self.memory)


def price(counts: Counts, model: CycleModel, llvm_mc: str, llvm_mca: str) -> dict[int, Cost]:
    """Cost of every region; AnalysisError where hot code has an instruction without a timing."""
    return {n: charge(w, model) for n, w in works(counts, model, llvm_mc, llvm_mca).items()}


def works(counts: Counts, model: CycleModel, llvm_mc: str, llvm_mca: str) -> dict[int, Work]:
    """What every region did, with its hot traces timed; errors as in `price`."""
    traced = {n: trace_region(r, counts.blocks) for n, r in counts.regions.items()}
    traces = (t for x in traced.values() for t in x.traces)
    times = time_traces(traces, model, llvm_mc, llvm_mca)
    return {
        n: Work(
            sum(t.times * times[t.code].cycles for t in traced[n].traces) * traced[n].scale,
            counts.instructions(region),
            region.events,
        )
        for n, region in counts.regions.items()
    }


def time_traces(
    traces: Iterable[Trace], model: CycleModel, llvm_mc: str, llvm_mca: str
) -> dict[Code, Timed]:
    """Text and time of traces, by what they consist of; errors as in `price`."""
    codes = list(dict.fromkeys(t.code for t in traces))
    words = {w for code, _ in codes for w in code}
    text = disassemble(words, llvm_mc)
    unknown = sorted(words - set(text))
    if unknown:
        raise AnalysisError(f"hot code has the unknown instruction 0x{unknown[0]:08x}")
    listings = [tuple(text[w] for w in code) for code, _ in codes]
    cpu = model.core.llvm_cpu
    if model.core.in_order:
        loops = (loop for _, loop in codes)
        passes = inorder.cycles(list(zip(listings, loops, strict=True)), cpu)
    else:
        passes = outoforder.cycles(listings, cpu, llvm_mca)
    return {c: Timed(x, t) for c, x, t in zip(codes, listings, passes, strict=True)}


def charge(work: Work, model: CycleModel) -> Cost:
    """The cost of that work under a board's penalties."""
    e, l2, memory = work.events, model.l2, model.memory
    return Cost(
        work.core,
        e["mispredicted"] * model.core.branch,
        e["load_l2"] * l2.load + e["store_l2"] * l2.store
        + e["first_load_l2"] * l2.first_load + e["first_store_l2"] * l2.first_store,
        e["load_memory"] * memory.load + e["store_memory"] * memory.store
        + _bus(work, memory.line),
        work.instructions,
        {name: e[name] for name in NAMED_EVENTS},
    )  # fmt: skip


def _bus(work: Work, line: int) -> float:
    """Cycles in which the core waits for the bus, which needs `line` cycles per line."""
    per_instruction = work.core / max(work.instructions, 1)
    middle = (SPACING_STEP - 1) / 2  # of the spacings that are counted together
    return sum(
        work.events[name] * max(0.0, line - (i * SPACING_STEP + middle) * per_instruction)
        for i, name in enumerate(SPACINGS)
    )
