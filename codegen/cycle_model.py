"""The part of a board's file that says how the virtual board counts cycles: table [cycle_model].

Where the figures come from: a few penalties of A53, A57 and A72 are fitted on ncnn's published
single-thread times (docs/VALIDATION.md), the others are plausible values from data sheets and
measurements that others published; A55 and A76 were compared with nothing.
"""

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

from codegen.errors import CodegenError

# Cores whose code can be timed: by llvm-mca's tables, and by the project's own in-order model.
OUT_OF_ORDER = ("cortex-a57", "cortex-a72", "neoverse-n1")
IN_ORDER = ("cortex-a53", "cortex-a55")
# fitted: on published times of this board; checked: against such times; guess: neither.
BASES = ("fitted", "checked", "guess")
LINE_BYTES = 64
_MAX = 10_000
_MAX_HISTORY = 20


@dataclass(frozen=True)
class CoreModel:
    """`llvm_cpu` names the timing tables, `branch` is the cost of a mispredicted branch in cycles,
    `history` the number of branches by which it is predicted (runtime_c/vboard/predictor.h),
    `macs_per_cycle` the float32 multiply-adds that the core can start in a cycle."""

    llvm_cpu: str
    macs_per_cycle: int
    branch: int
    history: int
    basis: str

    @property
    def in_order(self) -> bool:
        return self.llvm_cpu in IN_ORDER


@dataclass(frozen=True)
class CacheModel:
    """Associativity, and the prefetcher: streams followed at once, lines fetched ahead."""

    l1d_ways: int
    l2_ways: int
    streams: int
    lines_ahead: int


@dataclass(frozen=True)
class L2Model:
    """Cycles per event of L2: a demand miss of a load or store that it answers, the first use of a
    line that was prefetched from it."""

    load: int
    store: int
    first_load: int
    first_store: int

    @property
    def streamed(self) -> float:
        """Of a line that is written once and read once, for one of the two."""
        return (self.first_load + self.first_store) / 2


@dataclass(frozen=True)
class MemoryModel:
    """Cycles per event of memory: the wait of a load's or store's demand miss, and for how long one
    line holds the bus (the clock x 64 bytes / what one core reads per second)."""

    load: int
    store: int
    line: int

    @property
    def first_load(self) -> int:
        """Of a prefetched line, where the core does nothing else meanwhile."""
        return self.line

    @property
    def streamed(self) -> float:
        """Of a line that is written once and read once, for one of the two."""
        return float(self.line)


@dataclass(frozen=True)
class CycleModel:
    """Everything that the virtual board needs beside `l1d_bytes` and `l2_bytes`."""

    core: CoreModel
    caches: CacheModel
    l2: L2Model
    memory: MemoryModel


_TABLES = {"core": CoreModel, "caches": CacheModel, "l2": L2Model, "memory": MemoryModel}


def read_cycle_model(table: Any, l1d_bytes: int, l2_bytes: int, where: str) -> CycleModel:
    """The model in a parsed TOML table; CodegenError for whatever is wrong in it."""
    where = f"{where} [cycle_model]"
    _check_keys(table, tuple(_TABLES), where)
    parts = {name: _part(kind, table[name], f"{where} {name}") for name, kind in _TABLES.items()}
    model = CycleModel(**parts)
    for size, ways in ((l1d_bytes, model.caches.l1d_ways), (l2_bytes, model.caches.l2_ways)):
        sets = size // LINE_BYTES // ways
        if sets < 1 or sets & (sets - 1) or sets * ways * LINE_BYTES != size:
            raise CodegenError(
                f"{where} caches",
                f"{size} bytes do not make {ways} ways",
                f"ways x a power of two x {LINE_BYTES} bytes per line",
                "correct the ways or the size of the cache",
            )
    return model


def _check_keys(table: Any, known: tuple[str, ...], where: str) -> None:
    keys = set(table) if isinstance(table, Mapping) else set()
    if keys != set(known):
        wrong = sorted(keys ^ set(known))[0]
        kind = "missing" if wrong in known else "unknown"
        raise CodegenError(
            where,
            f"{kind} key {wrong!r}",
            f"this table has: {', '.join(known)}",
            "add it" if kind == "missing" else "rename or remove it",
        )


def _part(kind: type, table: Any, where: str) -> Any:
    _check_keys(table, tuple(f.name for f in fields(kind)), where)
    least = 1 if kind is CacheModel else 0
    for key, value in table.items():
        allowed = {"llvm_cpu": (*OUT_OF_ORDER, *IN_ORDER), "basis": BASES}.get(key)
        number = isinstance(value, int) and not isinstance(value, bool)
        low, high = (1, _MAX_HISTORY) if key == "history" else (least, _MAX)
        if value not in allowed if allowed else not (number and low <= value <= high):
            words = f"one of: {', '.join(allowed)}" if allowed else f"{low} to {high}"
            raise CodegenError(
                where, f"{key} = {value!r}", f"{key} is {words}", "correct the value"
            )
    return kind(**table)
