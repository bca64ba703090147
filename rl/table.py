"""The price table: what every candidate of every layer costs. Searches read it and nothing else, so
that they are tested, repeated and compared without a board. It is a JSON file."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from codegen.errors import CodegenError
from codegen.pricing.price import Prices
from codegen.pricing.trials import Candidate
from codegen.signature import Signature
from codegen.store import Measurement

SCHEMA = 1


@dataclass(frozen=True)
class Price:
    """What one candidate costs: `cost` in the table's unit, memory it needs while it runs, and what
    it adds to flash (code and packed weights). With `error` it cannot be chosen. `guessed`: not
    measured but predicted."""

    cost: float
    scratch_bytes: int = 0
    flash_bytes: int = 0
    error: str = ""
    guessed: bool = False


@dataclass(frozen=True)
class Table:
    """Prices by layer (the key of its signature) and candidate (`kernel layout`, as
    `codegen.pricing.Candidate` writes itself). `unit`: cycles, or ns where a board counts none.
    `weights`: cold in memory, or warm in L2."""

    board: str
    unit: str
    weights: str
    layers: Mapping[str, Mapping[str, Price]]

    def price(self, layer: str, kernel: str, come: str, layout: str) -> Price | None:
        """The price of a candidate; None where it was not priced."""
        return self.layers.get(layer, {}).get(str(Candidate(kernel, layout, come)))

    def conversion(self, layer: str) -> Price | None:
        """The price of a change of layout, for which there is one kernel."""
        return next(iter(self.layers.get(layer, {}).values()), None)

    def to_json(self) -> str:
        """One line per layer, sorted, so that two tables can be compared with diff."""
        head = {"schema": SCHEMA, "board": self.board, "unit": self.unit, "weights": self.weights}
        lines = [f"{json.dumps(k)}: {json.dumps(v)}," for k, v in head.items()]
        rows = []
        for key in sorted(self.layers):
            found = {name: _plain(p) for name, p in sorted(self.layers[key].items())}
            rows.append(f"{json.dumps(key)}: {json.dumps(found, separators=(',', ':'))}")
        return "{\n" + "\n".join(lines) + '\n"layers": {\n' + ",\n".join(rows) + "\n}}\n"


def table_of(prices: Prices, board: str, weights: str, unit: str = "cycles") -> Table:
    """What was measured, as a table; `unit` where nothing was."""
    layers = {s.key: {str(c): price_of(m) for c, m in found.items()} for s, found in prices.items()}
    measured = [m for found in prices.values() for m in found.values() if not m.error]
    if measured:
        unit = "cycles" if all(m.cycles is not None for m in measured) else "ns"
    return Table(board, unit, weights, layers)


def price_of(measured: Measurement) -> Price:
    """A measurement as the search sees it; a failed one costs nothing and can not be chosen."""
    if measured.error:
        return Price(0.0, error=measured.error.splitlines()[0])
    flash = measured.code_bytes + measured.weights_bytes
    return Price(measured.cost, measured.scratch_bytes, flash)


def failures(table: Table, names: Mapping[Signature, list[str]]) -> list[dict[str, str]]:
    """Candidates that failed, for the report: layer, candidate, error."""
    return [
        {"layer": names[s][0], "candidate": candidate, "error": p.error}
        for s in names
        for candidate, p in sorted(table.layers.get(s.key, {}).items())
        if p.error
    ]


def read_table(path: Path) -> Table:
    """Parse a table file; CodegenError where it is not one."""
    try:
        raw = json.loads(path.read_text())
        if raw["schema"] != SCHEMA:
            raise ValueError(f"schema {raw['schema']!r}")
        layers = {
            key: {name: Price(**p) for name, p in found.items()}
            for key, found in raw["layers"].items()
        }
        return Table(raw["board"], raw["unit"], raw["weights"], layers)
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as e:
        raise CodegenError(
            str(path),
            f"cannot be read as a price table ({type(e).__name__}: {e})",
            f"JSON of schema {SCHEMA}, written by `codegen tune`",
            "check the path, or tune again",
        ) from None


def _plain(price: Price) -> dict[str, Any]:
    """Only what is not the default."""
    return {k: v for k, v in asdict(price).items() if k == "cost" or v}
