"""What a row of the store says: who was measured where, and what came out."""

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields
from functools import cached_property
from typing import Any

from codegen.signature import Signature

WEIGHTS = ("cold", "warm")


@dataclass(frozen=True)
class Context:
    """Where and how a candidate was measured. `board` is a name for people; `board_sha256` is of
    what the board's file says of the silicon. `version` is that of the runner: for the virtual
    board everything that counts and times, for others the measuring program. `toolchain` is the
    compiler's own version line and its flags."""

    board: str
    board_sha256: str
    runner: str
    version: str
    toolchain: str

    @cached_property
    def key(self) -> str:
        """16 hexadecimal digits over everything but the board's name."""
        facts = [self.board_sha256, self.runner, self.version, self.toolchain]
        return hashlib.sha256(json.dumps(facts).encode()).hexdigest()[:16]


@dataclass(frozen=True)
class Key:
    """One candidate of one layer in one context. `layout` is that of the layer's tensors, or
    `come>go` where input and output differ. `code` is a hash of the C code that the candidate's
    template gives for this layer, and of the form of its packed weights: it changes with whatever
    may change the cost, and with nothing else. `weights`: "cold" in memory, or "warm" in L2."""

    layer: Signature
    kernel: str
    layout: str
    code: str
    weights: str
    context: Context

    @property
    def columns(self) -> tuple[str, ...]:
        """The primary key as the database has it."""
        return (self.layer.key, self.kernel, self.layout, self.code, self.weights, self.context.key)


@dataclass(frozen=True)
class Measurement:
    """What a candidate costs. `cycles` is counted or modelled, None where neither; core, branch, l2
    and memory are its causes. `ns` is the median, `ns_min` the least of the runs. `date` is UTC,
    ISO 8601. `conditions` is canonical JSON of what a real board's clock and heat were before and
    after, empty where the runner tells nothing. With `error` (it did not compile or run) there are
    no figures; `passing` says that the error may be gone in another try, so the store does not
    keep it."""

    cycles: int | None = None
    ns: float | None = None
    ns_min: float | None = None
    core: int | None = None
    branch: int | None = None
    l2: int | None = None
    memory: int | None = None
    scratch_bytes: int = 0
    code_bytes: int = 0
    weights_bytes: int = 0
    error: str = ""
    date: str = ""
    conditions: str = ""
    passing: bool = False

    @property
    def cost(self) -> float:
        """What ranks candidates in one context: cycles where they are known, else nanoseconds;
        infinite for an error."""
        if self.error:
            return float("inf")
        value = self.cycles if self.cycles is not None else self.ns
        return float("inf") if value is None else float(value)


PARTS = ("core", "branch", "l2", "memory")
MEASURED = tuple(f.name for f in fields(Measurement) if f.name != "passing")
_TEXTS = ("error", "date", "conditions")


def total(parts: Iterable[Measurement]) -> Measurement:
    """The sum of measurements of one context; the first error where there is one."""
    parts = list(parts)
    failed = next((p for p in parts if p.error), None)
    if failed:
        return failed
    return Measurement(**{name: _sum([getattr(p, name) for p in parts]) for name in _SUMMED})


_SUMMED = tuple(n for n in MEASURED if n not in (*_TEXTS, "scratch_bytes"))


def _sum(values: list[Any]) -> Any:
    return None if None in values else sum(values)


def conditions_text(told: Mapping[str, Any] | None) -> str:
    """What a runner reports, as a measurement has it."""
    return json.dumps(told, sort_keys=True, separators=(",", ":"), allow_nan=False) if told else ""


def conditions_of(measured: Measurement) -> dict[str, Any]:
    """The inverse of `conditions_text`; empty where nothing is known."""
    return json.loads(measured.conditions or "{}")


def to_dict(key: Key, measured: Measurement) -> dict[str, Any]:
    """A row as plain values, without what is not known."""
    values = {n: getattr(measured, n) for n in MEASURED}
    values["conditions"] = conditions_of(measured) or None
    return {
        "layer": key.layer.fields,
        "kernel": key.kernel,
        "layout": key.layout,
        "code": key.code,
        "weights": key.weights,
        "context": {f.name: getattr(key.context, f.name) for f in fields(Context)},
        "measurement": {n: v for n, v in values.items() if v not in (None, "")},
    }


def from_dict(row: Mapping[str, Any]) -> tuple[Key, Measurement]:
    """The inverse of `to_dict`. ValueError, TypeError or KeyError for anything else."""
    if set(row) != {"layer", "kernel", "layout", "code", "weights", "context", "measurement"}:
        raise ValueError(f"keys {', '.join(sorted(row))}")
    if row["weights"] not in WEIGHTS:
        raise ValueError(f"weights {row['weights']!r}")
    text = json.dumps(row["layer"], sort_keys=True, separators=(",", ":"), allow_nan=False)
    names = (row["kernel"], row["layout"], row["code"], *row["context"].values())
    if not all(isinstance(n, str) for n in names) or not isinstance(row["layer"]["op"], str):
        raise ValueError("a name that is no text")
    key = Key(Signature(text), row["kernel"], row["layout"], row["code"], row["weights"],
              Context(**row["context"]))  # fmt: skip
    return key, _measurement(row["measurement"])


def _measurement(row: Mapping[str, Any]) -> Measurement:
    if not set(row) <= set(MEASURED) or not isinstance(row.get("conditions", {}), dict):
        raise ValueError(f"measurement {row!r}")
    measured = Measurement(**{**row, "conditions": conditions_text(row.get("conditions"))})
    for name in MEASURED:
        value = getattr(measured, name)
        wanted = str if name in _TEXTS else (int, float, type(None))
        if isinstance(value, bool) or not isinstance(value, wanted):
            raise ValueError(f"{name} = {value!r}")
    return measured
