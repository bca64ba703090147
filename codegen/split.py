"""Program -> the same with its long steps in parts that threads can compute at the same time."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from codegen.derive import DERIVED
from codegen.ops import OPS
from codegen.ranges import SPLITS, Part
from codegen.regions import aligned
from codegen.steps import Program, Step

# A part must take longer than it takes to hand it over and to wait for it, some 2,000 cycles.
_LEAST_CYCLES = 10_000


def split(program: Program, threads: int, core: str) -> Program:
    """Each step in at most `threads` parts; short ones and those whose kernel has no `split` stay
    whole. Scratch of a step becomes that of all its parts."""
    if threads == 1:
        return program
    steps = tuple(_split(s, _cycles(program, s, core), threads) for s in program.steps)
    return replace(program, steps=steps)


def _cycles(program: Program, step: Step, core: str) -> float:
    """What the whole step takes at its kernel's nominal rate."""
    op = OPS.get(step.op)
    size = sum(program.values[k].tensor.size for k in step.outputs)
    return (op.macs(step.dims) if op and op.macs else size) / step.kernel.rate(core)


def _split(step: Step, cycles: float, threads: int) -> Step:
    parts = min(threads, int(cycles / _LEAST_CYCLES))
    if parts < 2 or not step.kernel.split:
        return step
    found, scratch = [], 0
    for part in SPLITS[step.kernel.split](step.dims, step.kernel.params, parts):
        dims = _sizes(step, part)
        size = step.kernel.scratch.size * dims.get("scratch_floats", 0)
        args = (*part.args, *(0,) * len(step.args))[: len(step.args)]
        found.append(replace(part, dims=dims, args=args, scratch=scratch, scratch_bytes=size))
        scratch += aligned(size)
    return replace(step, parts=tuple(found), scratch_bytes=scratch) if len(found) > 1 else step


def _sizes(step: Step, part: Part) -> Mapping[str, Any]:
    """All sizes of a part: block sizes and scratch follow from its own."""
    dims = {**step.dims, **part.dims}
    row = step.kernel
    return {**dims, **DERIVED[row.derive](dims, row.params)} if row.derive else dims
