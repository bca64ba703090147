"""What the cycle model lets a core reach at most: the roofs of the roofline picture."""

from dataclasses import dataclass

from codegen.cycle_model import LINE_BYTES, CycleModel
from codegen.run.virtual import inorder, outoforder

# A loop that does nothing but load, 16 bytes at a time; it takes two lines in a turn.
_LINES = 2
_LOADS = tuple(f"ldr q{i}, [x0, #{16 * i}]" for i in range(_LINES * LINE_BYTES // 16))
_LOOP = (*_LOADS, f"add x0, x0, #{_LINES * LINE_BYTES}", "subs x1, x1, #1", "b.ne #0")


@dataclass(frozen=True)
class Roofs:
    """FLOP per cycle (a multiply-add is two), and bytes per cycle from L2 and from memory."""

    flops: float
    l2: float
    memory: float


def roofs(model: CycleModel, llvm_mca: str) -> Roofs:
    """From the board's own penalties, as the model adds them up for a stream that the prefetcher
    follows. Per line: the core's time for loading it, which the model of the core tells; from L2
    also the penalty `first_load`; from memory at least the time that the line holds the bus.
    AnalysisError where llvm-mca fails."""
    core = model.core
    if core.in_order:
        (turn,) = inorder.cycles([(_LOOP, True)], core.llvm_cpu)
    else:
        (turn,) = outoforder.cycles([_LOOP], core.llvm_cpu, llvm_mca)
    load = turn / _LINES
    return Roofs(
        2.0 * core.macs_per_cycle,
        LINE_BYTES / (load + model.l2.first_load),
        LINE_BYTES / max(load, model.memory.line),
    )
