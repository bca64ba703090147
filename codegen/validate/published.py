"""What was published: ncnn's benchmark networks and their latencies on real boards."""

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

USES = ("fit", "check", "extra", "transfer", "int8")


@dataclass(frozen=True)
class Network:
    """One of ncnn's benchmark definitions, `<name>.param` with that checksum. `use`: its figures
    fit the cycle model, check it, check it beyond the eight networks of the target, or check it on
    int8 arithmetic; on a board for which nothing is fitted all of float32 are "transfer"."""

    name: str
    title: str
    mmacs: int
    use: str
    sha256: str

    @property
    def file(self) -> str:
        return f"{self.name}.param"


@dataclass(frozen=True)
class Figures:
    """One published run of ncnn's benchmark on a board, one thread: `ms` by network. Only runs with
    role "reference" are compared with; the others show how far apart published figures lie."""

    board: str
    role: str
    ncnn: str
    date: str
    source: str
    ms: Mapping[str, float]


@lru_cache(maxsize=1)
def _tables() -> Mapping[str, list]:
    return tomllib.loads((Path(__file__).parent / "published.toml").read_text())


def networks() -> tuple[Network, ...]:
    """In the order of the table: the eight of the target by size, then the extra ones."""
    return tuple(Network(**row) for row in _tables()["network"])


def figures(role: str = "reference") -> tuple[Figures, ...]:
    """The published runs of one role."""
    return tuple(Figures(**row) for row in _tables()["figures"] if row["role"] == role)


def reference(board: str) -> Figures | None:
    """The run that a board's predictions are compared with."""
    return next((f for f in figures() if f.board == board), None)
