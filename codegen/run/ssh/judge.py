"""Is what a program measured a figure? One list of runs, or one for each trial of a
micro-benchmark."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from codegen.run.statistics import DRIFT, WIDTH, summarise


@dataclass(frozen=True)
class Runs:
    """What a report's `runs_ns` holds; no trials where nothing was timed. `nested` says that it is
    a list of lists; `width` and `drift` are what statistics.summarise allows."""

    trials: tuple[tuple[float, ...], ...] = ()
    nested: bool = False
    width: float = WIDTH
    drift: float = DRIFT

    @property
    def noisy(self) -> tuple[str, ...]:
        """For each trial why it is no figure, or nothing."""
        return tuple(summarise(t, self.width, self.drift).noisy for t in self.trials)

    def better(self, old: "Runs | None") -> "Runs":
        """Each trial from here unless only the old one was steady."""
        if old is None or len(old.trials) != len(self.trials):
            return self
        rows = zip(self.trials, self.noisy, old.trials, old.noisy, strict=True)
        return replace(self, trials=tuple(b if n and not m else a for a, n, b, m in rows))

    def plain(self) -> list[Any]:
        """As the report has it."""
        lists = [list(t) for t in self.trials]
        return lists if self.nested else lists[0]


def read_runs(
    report: Mapping[str, Any], width: float = WIDTH, drift: float = DRIFT
) -> Runs:
    """ValueError, with the reason, for what no bench program prints."""
    found = report.get("runs_ns") or []
    nested = isinstance(found, list) and bool(found) and isinstance(found[0], list)
    trials = found if nested else [found]
    if not all(isinstance(t, list) and all(map(_is_time, t)) for t in trials):
        raise ValueError("the program's runs_ns is not a list of numbers")
    if not any(trials):
        return Runs()
    if not all(trials):
        raise ValueError("the program's runs_ns has a trial without runs")
    return Runs(tuple(map(tuple, trials)), nested, width, drift)


def _is_time(value: object) -> bool:
    number = isinstance(value, int | float) and not isinstance(value, bool)
    return number and math.isfinite(value) and value >= 0
