"""Penalties of the cycle model that make the predictions of the "fit" networks right.

A few numbers per board, within bounds that come from data sheets (parameters.toml), by least
squares on log(predicted / published), drawn slightly to a first guess.
"""

import tomllib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path

import numpy as np
from scipy.optimize import least_squares

from codegen.cycle_model import CycleModel
from codegen.run.virtual.model import Work, charge

# Weight of a parameter's distance from its guess, as log, against a network's log error.
_PULL = 0.03


@dataclass(frozen=True)
class Parameter:
    """A number of the cycle model (`key`: table.name) that may be fitted for a board, in cycles."""

    board: str
    key: str
    guess: int
    low: int
    high: int
    reason: str

    def get(self, model: CycleModel) -> int:
        """Its value in a model."""
        table, name = self.key.split(".")
        return getattr(getattr(model, table), name)

    def put(self, model: CycleModel, value: float) -> CycleModel:
        """The model with another value."""
        table, name = self.key.split(".")
        return replace(model, **{table: replace(getattr(model, table), **{name: value})})


@lru_cache(maxsize=1)
def parameters() -> tuple[Parameter, ...]:
    """All that may be fitted."""
    text = (Path(__file__).parent / "parameters.toml").read_text()
    return tuple(Parameter(**row) for row in tomllib.loads(text)["parameter"])


def fit(
    model: CycleModel, wanted: Sequence[tuple[Work, float]], free: Sequence[Parameter]
) -> CycleModel:
    """The model with its `free` parameters fitted to `wanted`: work and its cycles on the board.
    Whole numbers, as a board's file has them; they depend on nothing that the fitted parameters
    are in `model`."""
    first = np.array([float(p.guess) for p in free])

    def changed(values: Sequence[float]) -> CycleModel:
        out = model
        for parameter, value in zip(free, values, strict=True):
            out = parameter.put(out, value)
        return out

    def distance(values: np.ndarray) -> np.ndarray:
        now = changed(values)
        off = [np.log(cycles(work, now) / real) for work, real in wanted]
        return np.array([*off, *(_PULL * np.log(np.maximum(values, 0.5) / first))])

    found = least_squares(
        distance, first, bounds=([p.low for p in free], [p.high for p in free]), x_scale=first,
        diff_step=1e-3,
    )  # fmt: skip
    return changed([round(float(v)) for v in found.x])


def cycles(work: Work, model: CycleModel) -> float:
    """Unrounded, so that a small step of a parameter shows."""
    cost = charge(work, model)
    return cost.core + cost.branch + cost.l2 + cost.memory


def toml_lines(model: CycleModel) -> str:
    """The l2 and memory lines of a board's [cycle_model]."""
    out = []
    for table in ("l2", "memory"):
        values = vars(getattr(model, table)).items()
        out.append(f"{table} = {{ {', '.join(f'{k} = {v}' for k, v in values)} }}")
    return "\n".join(out)
