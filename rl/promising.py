"""Which candidates are worth measuring: those that the cost formula, or an earlier measurement of
the same layer, expects to be near the best."""

from collections.abc import Iterator
from dataclasses import dataclass

from codegen.board import Board
from codegen.cost import cycles
from codegen.graph import Graph, Node
from codegen.groups import find_groups, regroup
from codegen.kernels import Kernel, candidates
from codegen.layer import layer_of
from codegen.layout import LAYOUTS
from codegen.plan import needs_kernel
from codegen.pricing.trials import trials
from codegen.recorded import load_recorded
from codegen.signature import CONVERT, Signature, signature_of
from rl.codes import Codes, networks
from rl.space import layouts_of


@dataclass(frozen=True)
class Selection:
    """Candidates that are expected to take `factor` times what the best one in their layout does,
    or less, and of those at most `most`; `rest` in the layout that is expected to be the slower.
    `how`: `promising` measures those, `active` what may still change the plan (rl/active.py),
    `all` everything."""

    factor: float = 1.5
    most: int = 4
    rest: int = 2
    how: str = "promising"

    @property
    def everything(self) -> bool:
        """No selection."""
        return self.how == "all"


_DEFAULT = Selection()
READS = ("", "nchw")  # of kernel rows


def places(graph: Graph) -> Iterator[tuple[Graph, Node]]:
    """Every node that needs a kernel, and every group as the node that it becomes, with the network
    in which it is one."""
    yield from ((graph, n) for n in graph.nodes if needs_kernel(n))
    for group in find_groups(graph):
        whole = regroup(graph, {group.name: group.names})
        yield whole, next(n for n in whole.nodes if n.name == group.name)


def wanted(
    graph: Graph,
    board: Board,
    layers: list[Signature],
    selection: Selection = _DEFAULT,
    codes: Codes | None = None,
) -> dict[Signature, list[str]]:
    """The kernels to measure for each of `layers` (codegen.pricing.layer_names of the network and
    of its layers in int8), the most promising first."""
    out: dict[Signature, list[str]] = {s: [] for s in layers}
    if not selection.everything:
        known = load_recorded(board.core)
        for whole, node in (p for g in networks(graph, codes) for p in places(g)):
            signature = signature_of(whole, node)
            if not out[signature]:
                best = sorted(known.get(signature.key, {}).values(), key=lambda b: b[1])
                rows = [row for row, _ in best] + _promising_rows(whole, node, board, selection)
                out[signature] = list(dict.fromkeys(rows))
    for signature, rows in out.items():
        if selection.everything or signature.op == CONVERT:
            rows += dict.fromkeys(t.candidate.kernel for t in trials(signature, board))
    for signature, rows in (codes.rows() if codes else {}).items():
        out[signature] = [r for r in out[signature] if r in rows] or sorted(rows)
    return out


def promising(
    graph: Graph, node: Node, board: Board, layout: str, factor: float, most: int, reads: str = ""
) -> list[tuple[float, Kernel]]:
    """Rows for one layout with the cycles they are expected to take, the fastest first; `reads`:
    those that read that layout and write the other."""
    layer = layer_of(graph, node, layout)
    rows = [r for r in candidates(layer, board) if r.layout in ("any", layout)]
    rows = [r for r in rows if r.reads == reads]
    ranked = sorted((cycles(graph, node, layer, r, board), r.name, r) for r in rows)
    return [(cost, r) for cost, _, r in ranked[:most] if cost <= factor * ranked[0][0]]


def _promising_rows(graph: Graph, node: Node, board: Board, selection: Selection) -> list[str]:
    ranked = [
        promising(graph, node, board, layout, selection.factor, selection.most, reads)
        for layout in layouts_of(graph, node)
        for reads in READS
    ]
    ranked = [r for r in ranked if r]
    least = min((r[0][0] for r in ranked), default=0.0)
    chosen = [
        pair for rows in ranked
        for pair in rows[: selection.most if rows[0][0] == least else selection.rest]
    ]  # fmt: skip
    out = [r.name for _, r in sorted(chosen, key=lambda p: (p[0], p[1].name))]
    if node.op == "Transpose":  # its rows depend on where the input lies, too
        out += [
            r.name for come in LAYOUTS for go in LAYOUTS
            for r in candidates(layer_of(graph, node, go, come), board)
        ]  # fmt: skip
    return out
