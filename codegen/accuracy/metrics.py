"""Which scores are computed, by the names that a user gives them."""

import importlib
import importlib.util
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

from codegen.accuracy.gauge import Gauge
from codegen.accuracy.scores import Outputs, Score, agreement, cosine, drop, mse, top1
from codegen.errors import CodegenError

Measure = Callable[[Outputs, Gauge], Score]


@dataclass(frozen=True)
class Metric:
    """A score of outputs. `relative`: in comparison with the float model's, which has none."""

    name: str
    measure: Measure
    relative: bool = False


_LABELLED = (
    Metric("top1", lambda o, g: top1(o, g.labels, g.independent)),
    Metric("top1 lost", lambda o, g: drop(o, g.floats, g.labels, g.independent), True),
)
_ALWAYS = (
    Metric("agreement", lambda o, g: agreement(o, g.floats, g.independent), True),
    Metric("cosine", lambda o, g: cosine(o, g.floats, g.groups), True),
    Metric("mse", lambda o, g: mse(o, g.floats, g.groups), True),
)
NAMES = ("top1", *(m.name for m in _ALWAYS))


def parse_metrics(names: Sequence[str], labelled: bool) -> list[Metric]:
    """The metrics of these names, or all that the data allow. CodegenError for a name that is none,
    and for one that needs labels where there are none."""
    if not names:
        return [*(_LABELLED if labelled else ()), *_ALWAYS]
    found: list[Metric] = []
    for name in names:
        if name == "top1" and not labelled:
            raise CodegenError(
                "--metric", "top1 of data without labels", "an array `y` or `labels` in the .npz",
                "give labels, or use --metric agreement",
            )  # fmt: skip
        found += _LABELLED if name == "top1" else _named(name, {m.name for m in found})
    return found


def need_classes(metrics: Sequence[Metric]) -> bool:
    """Do any of them take labels as classes?"""
    return any(m in _LABELLED for m in metrics)


def _named(name: str, taken: set[str]) -> list[Metric]:
    """A function goes by its own name, where nothing else does."""
    built_in = [m for m in _ALWAYS if m.name == name]
    short = name.rpartition(":")[2]
    shown = name if short in {*taken, *NAMES, "top1 lost"} else short
    return built_in or [Metric(shown, partial(_call, _function(name), name))]


def _function(name: str) -> Callable[..., Any]:
    """`FILE.py:NAME` or `MODULE:NAME`."""
    place, _, function = name.rpartition(":")
    try:
        if not place:
            raise AttributeError("no such metric")
        found = getattr(_module(place), function)
    except (Exception, SystemExit) as e:  # of the user's code, whatever it is
        raise CodegenError(
            "--metric", f"{name!r} ({type(e).__name__}: {e})",
            f"{', '.join(NAMES)}, FILE.py:NAME or MODULE:NAME", "name one",
        ) from None  # fmt: skip
    return found


def _module(place: str) -> Any:
    if not place.endswith(".py"):
        sys.path.append(str(Path.cwd()))  # where `python -m` looks, too
        try:
            return importlib.import_module(place)
        finally:
            sys.path.pop()
    spec = importlib.util.spec_from_file_location(Path(place).stem, place)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def _call(function: Callable[..., Any], name: str, outputs: Outputs, gauge: Gauge) -> Score:
    try:
        return Score(float(function(outputs.first, gauge.labels)))
    except Exception as e:
        raise CodegenError(
            f"--metric {name}", f"it failed ({type(e).__name__}: {e})",
            "a function of outputs [n, elements] and labels [n] that returns a number", "mend it",
        ) from None  # fmt: skip


def table_of(
    outputs: Mapping[str, Outputs], gauge: Gauge, metrics: Sequence[Metric]
) -> dict[str, dict[str, dict[str, float | None] | None]]:
    """By name of the plan and of the metric; None for the float model beside itself."""
    return {
        name: {
            m.name: None if m.relative and o is gauge.floats else asdict(m.measure(o, gauge))
            for m in metrics
        }
        for name, o in outputs.items()
    }
