"""A cost model learnt from the table: what candidates that were not measured are expected to cost.

The formula (codegen/cost.py) knows a layer's work and traffic; what it gets wrong is mostly the
kernel's own. So a candidate costs what the formula says, times what measured candidates of the same
row took in relation to it: the geometric mean, drawn towards that of all rows where few are known
(a shrinkage estimate, each row's mean counted as if `_PRIOR` layers more had behaved like all
others)."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace

from rl.table import Price, Table

_PRIOR = 2.0
_LEAST_SPREAD = 0.1


@dataclass(frozen=True)
class CostModel:
    """Mean and spread of log(measured / formula) of each row, and of all rows."""

    rows: Mapping[str, tuple[float, float]]
    all: tuple[float, float]

    def expect(self, row: str, formula: float) -> tuple[float, float]:
        """(expected cost, spread of its logarithm)"""
        mean, spread = self.rows.get(row, self.all)
        return formula * math.exp(mean), spread


def learn(measured: Table, formula: Table) -> CostModel:
    """Fit to all that was measured and has a formula."""
    ratios: dict[str, list[float]] = {}
    for key, found in measured.layers.items():
        for name, price in found.items():
            guess = formula.layers.get(key, {}).get(name)
            if guess and guess.cost > 0 and price.cost > 0 and not (price.error or price.guessed):
                ratios.setdefault(row_of(name), []).append(math.log(price.cost / guess.cost))
    every = [r for found in ratios.values() for r in found]
    mean, spread = _fit(every, 0.0, 1.0)
    return CostModel({row: _fit(found, mean, spread) for row, found in ratios.items()},
                     (mean, spread))  # fmt: skip


def filled(measured: Table, formula: Table, doubt: float = 0.0) -> Table:
    """The table with guesses for every candidate that was not measured: what the model expects,
    less `doubt` standard deviations. In another unit than cycles the ratios hold the change of
    unit, too."""
    model = learn(measured, formula)
    layers: dict[str, dict[str, Price]] = {k: dict(v) for k, v in measured.layers.items()}
    for key, found in formula.layers.items():
        here = layers.setdefault(key, {})
        for name, price in found.items():
            if name not in here:
                cost, spread = model.expect(row_of(name), price.cost)
                here[name] = replace(price, cost=cost * math.exp(-doubt * spread), guessed=True)
    return replace(measured, layers=layers)


def row_of(candidate: str) -> str:
    """The kernel of a candidate's name in the table."""
    return candidate.partition(" ")[0]


def _fit(values: list[float], mean: float, spread: float) -> tuple[float, float]:
    """Mean and standard deviation, drawn towards given ones."""
    weight = len(values) + _PRIOR
    centre = (sum(values) + _PRIOR * mean) / weight
    square = (sum((v - centre) ** 2 for v in values) + _PRIOR * spread**2) / weight
    return centre, max(_LEAST_SPREAD, math.sqrt(square))
