"""Phase 1: the prices of what is worth measuring, from the store and from the board."""

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass

from codegen.board import Board
from codegen.graph import Graph
from codegen.pricing import Settings, known_prices, layer_names, price_signatures
from codegen.pricing.price import Prices
from codegen.pricing.trials import trials
from codegen.run import Runner
from codegen.signature import Signature
from codegen.store import Store
from rl.formula import formula_table
from rl.guess import filled
from rl.promising import Selection, wanted
from rl.table import Table, failures, table_of

_DEFAULT = Selection()
Rows = Mapping[Signature, Collection[str]]


@dataclass(frozen=True)
class Priced:
    """A table, how many candidates it has, those that had to be measured for it, and those that
    failed."""

    table: Table
    candidates: int
    measured: int
    failures: list[dict[str, str]]


def price_network(
    graph: Graph,
    board: Board,
    runner: Runner,
    store: Store,
    settings: Settings,
    selection: Selection = _DEFAULT,
    progress: Callable[[int, int], None] = lambda done, of: None,
    more: Rows | None = None,
    most: int = 0,
) -> Priced:
    """The price table of a network: every promising candidate of every layer, group and change of
    layout, and `more` rows. What the store lacks is measured, at most `most` candidates (0: all,
    below: none), and stored program by program, so that an interrupt or kill loses at most one.
    Raises as codegen.pricing.price_signatures."""
    names = layer_names(graph)
    rows = wanted(graph, board, list(names), selection)
    for signature, kernels in (more or {}).items():
        found = rows.setdefault(signature, [])
        found[:0] = sorted(set(kernels) - set(found))
    known = known_prices(list(rows), board, runner, store, settings)
    if most:
        rows = _first(rows, known, board, max(0, most))
    measured = 0

    def count(done: int, of: int) -> None:
        nonlocal measured
        measured = max(measured, of)
        progress(done, of)

    prices = price_signatures(list(rows), board, runner, store, rows, count, settings)
    for signature, found in known.items():  # also what an earlier search measured
        prices[signature] = {**found, **prices[signature]}
    unit = "cycles" if runner.name == "virtual" else "ns"
    table = table_of(prices, board.name, "warm" if settings.warm else "cold", unit)
    if most:  # what was left out may still be chosen, and is then measured in the whole network
        table = filled(table, formula_table(graph, board))
    return Priced(table, sum(map(len, prices.values())), measured, failures(table, names))


def _first(
    rows: Mapping[Signature, list[str]], known: Prices, board: Board, most: int
) -> dict[Signature, list[str]]:
    """As many rows as there are measurements for: the most promising of each layer before the
    second of any."""
    out: dict[Signature, list[str]] = {s: [] for s in rows}
    lacking = {
        s: {t.candidate.kernel for t in trials(s, board) if t.candidate not in known[s]}
        for s in rows
    }
    for rank in range(max(map(len, rows.values()), default=0)):
        for signature, kernels in rows.items():
            if rank >= len(kernels):
                continue
            new = kernels[rank] in lacking[signature]
            if not new or most > 0:
                out[signature].append(kernels[rank])
                most -= new
    return out
