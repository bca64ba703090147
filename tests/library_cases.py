"""Layers for the tests of whole libraries, taken from those of the kernels."""

from codegen.kernels import load_kernels
from codegen.ops import OPS
from tests.kernel_cases import Trial, trials


def one_trial_per_operator() -> list[Trial]:
    """The first layer of every operator that any kernel row can compute."""
    found: dict[str, Trial] = {}
    for row in load_kernels().values():
        if {op.name for op in OPS.values() if op.family == row.family} <= set(found):
            continue
        for trial in trials(row):
            found.setdefault(trial.op, trial)
    return list(found.values())
