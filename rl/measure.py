"""Phase 1: the prices of what is worth measuring, from the store and from the board."""

from collections.abc import Callable
from dataclasses import dataclass

from codegen.board import Board
from codegen.graph import Graph
from codegen.pricing import Settings, layer_names, price_signatures
from codegen.run import Runner
from codegen.store import Store
from rl.promising import Selection, wanted
from rl.table import Table, failures, table_of

_DEFAULT = Selection()


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
) -> Priced:
    """The price table of a network: every promising candidate of every layer, group and change of
    layout. What the store lacks is measured and stored program by program, so that an interrupt or
    kill loses at most one. Raises as codegen.pricing.price_signatures."""
    names = layer_names(graph)
    rows = wanted(graph, board, list(names), selection)
    most = 0

    def count(done: int, of: int) -> None:
        nonlocal most
        most = max(most, of)
        progress(done, of)

    prices = price_signatures(list(names), board, runner, store, rows, count, settings)
    table = table_of(prices, board.name, "warm" if settings.warm else "cold")
    return Priced(table, sum(map(len, prices.values())), most, failures(table, names))
