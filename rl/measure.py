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
from rl.active import select
from rl.codes import Codes, networks
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
    codes: Codes | None = None,
) -> Priced:
    """The price table of a network: every promising candidate of every layer, group and change of
    layout, of what may be in int8, and `more` rows. What the store lacks is measured, at most
    `most` candidates (0: all, below: none), and stored program by program, so that an interrupt or
    kill loses at most one. Raises as codegen.pricing.price_signatures."""
    names: dict[Signature, list[str]] = {}
    for part in networks(graph, codes):
        names = {**layer_names(part), **names}
    rows = wanted(graph, board, list(names), selection, codes)
    for signature, kernels in (more or {}).items():
        found = rows.setdefault(signature, [])
        found[:0] = sorted(set(kernels) - set(found))
    known = known_prices(list(rows), board, runner, store, settings)
    board_of = _Board(board, runner, store, settings, progress, known)
    weights = "warm" if settings.warm else "cold"
    unit = "cycles" if runner.name == "virtual" else "ns"

    def table() -> Table:
        return table_of(board_of.known, board.name, weights, unit)

    if selection.how == "active":
        left = most if most else 10**9
        board_of.measure(more or {}, left)
        done = select(graph, board, formula_table(graph, board, codes), table(),
                      lambda m: board_of.measure(m, left) or table(), codes=codes)  # fmt: skip
    else:
        board_of.measure(_first(rows, known, board, max(0, most)) if most else rows, 10**9)
        done = table()
    if most or selection.how == "active":
        # what was left out may still be chosen, and is then measured in the whole network
        done = filled(done, formula_table(graph, board, codes))
    count = sum(map(len, board_of.known.values()))
    return Priced(done, count, board_of.measured, failures(done, names))


class _Board:
    """What is `known` of a network's layers, and how many candidates had to be `measured`."""

    def __init__(
        self, board: Board, runner: Runner, store: Store, settings: Settings,
        progress: Callable[[int, int], None], known: Prices,
    ):  # fmt: skip
        self._place = board, runner, store
        self._settings, self._progress = settings, progress
        self.known: Prices = {s: dict(found) for s, found in known.items()}
        self.measured = 0

    def measure(self, rows: Rows, most: int) -> None:
        """Price these rows, as long as fewer than `most` candidates were measured."""
        if not rows or self.measured >= most:
            return
        board, runner, store = self._place
        before, new = self.measured, 0

        def count(done: int, of: int) -> None:
            nonlocal new
            new = max(new, of)
            self._progress(before + done, before + of)

        prices = price_signatures(list(rows), board, runner, store, rows, count, self._settings)
        self.measured = before + new
        for signature, found in prices.items():
            self.known.setdefault(signature, {}).update(found)


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
