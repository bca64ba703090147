"""Counts -> cycles: the sum of core, branches, L2 and memory.

    core   = hot traces, each (cycles of a pass) x (how often it ran), scaled to all instructions
    branch = conditional branches that went the rarer way x cost of a mispredicted one
    L2, memory = events x penalties of the board's cycle model

Not seen: prfm, dc zva, TLB, L1I, banks, DRAM queues, and that a core may hide a miss behind work.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from codegen.cycle_model import CycleModel
from codegen.run.virtual import inorder, outoforder
from codegen.run.virtual.counts import Counts, Region
from codegen.run.virtual.disassemble import disassemble
from codegen.run.virtual.errors import AnalysisError
from codegen.run.virtual.traces import Trace, Traced, trace_region


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
    traced = {n: trace_region(r, counts.blocks) for n, r in counts.regions.items()}
    traces = list(dict.fromkeys(_timing(t) for x in traced.values() for t in x.traces))
    words = {w for code, _ in traces for w in code}
    text = disassemble(words, llvm_mc)
    unknown = sorted(words - set(text))
    if unknown:
        raise AnalysisError(f"hot code has the unknown instruction 0x{unknown[0]:08x}")
    listings = [(tuple(text[w] for w in code), loop) for code, loop in traces]
    cpu = model.core.llvm_cpu
    if model.core.in_order:
        passes = inorder.cycles(listings, cpu)
    else:
        passes = outoforder.cycles([listing for listing, _ in listings], cpu, llvm_mca)
    times = dict(zip(traces, passes, strict=True))
    return {n: _cost(counts, r, traced[n], times, model) for n, r in counts.regions.items()}


def _timing(trace: Trace) -> tuple[tuple[int, ...], bool]:
    return trace.words, trace.loop


def _cost(
    counts: Counts,
    region: Region,
    traced: Traced,
    times: Mapping[tuple[tuple[int, ...], bool], float],
    model: CycleModel,
) -> Cost:
    core = sum(t.times * times[_timing(t)] for t in traced.traces) * traced.scale
    events = region.events
    stalls = {
        level: sum(
            n * events[name]
            for name, n in (
                (f"load_{level}", penalty.load),
                (f"store_{level}", penalty.store),
                (f"first_load_{level}", penalty.first_load),
                (f"first_store_{level}", penalty.first_store),
                (f"write_back_{level}", penalty.write_back),
            )
        )
        for level, penalty in (("l2", model.l2), ("memory", model.memory))
    }
    return Cost(
        core,
        traced.exits * model.core.branch,
        stalls["l2"],
        stalls["memory"],
        counts.instructions(region),
        events,
    )
