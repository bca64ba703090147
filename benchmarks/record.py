"""Measure the layers of common networks for the default plan: `python -m benchmarks.record`.

For each core, prices on the virtual board the candidates that the cost formula finds promising,
for every layer that multiplies and every group of the networks, and writes the fastest row per
layout to codegen/recorded/<core>.json. Measurements are kept in the store, so that a second run, or
a new row, measures only what is new. A group of nodes is recorded where it beats its nodes one by
one.
"""

import argparse
import json
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from benchmarks.peers.__main__ import BOARDS, MODELS
from codegen.board import Board, load_board
from codegen.errors import CodegenError
from codegen.graph import Graph, Node
from codegen.groups import Group, find_groups, regroup
from codegen.kernels import candidates
from codegen.layer import layer_of
from codegen.layout import LAYOUTS
from codegen.models.fetch import fetch, write_atomically
from codegen.ops import OPS
from codegen.pipeline import generate, load_graph
from codegen.plan import needs_kernel
from codegen.pricing import Settings, price_signatures, warm_weights
from codegen.recorded import FOLDER, Recorded, load_recorded, read_recorded
from codegen.run import pick_runner
from codegen.signature import Signature, signature_of
from codegen.store import Store, store_path
from rl.promising import READS, promising

NETWORKS = (*MODELS, "mnist8", "mlperf_ad_ae", "ppocr_cls", "blazeface_back", "oww_embedding")
# Candidates that are expected to take so many times what the best one does, or fewer than so many.
_PROMISING, _MOST = 1.6, 7

Best = dict[str, tuple[str, float]]


def main() -> None:
    """Measure, network by network; the file is written after each."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.record", description=__doc__)
    parser.add_argument("--core", default=",".join(BOARDS), metavar="A,B")
    parser.add_argument("--model", default=",".join(NETWORKS), metavar="A,B")
    parser.add_argument("--rows", default="", metavar="TEXT",
                        help="only layers that a kernel row computes whose name has this")
    parser.add_argument("--jobs", type=int, default=0, help="programs at once; 0: one per core")
    options = parser.parse_args()
    try:
        for core in options.core.split(","):
            board = load_board(BOARDS[core])
            for name in options.model.split(","):
                start = time.monotonic()
                found = _network(name, board, options.jobs, options.rows)
                facts = {"core": board.core, "board": board.name, "runner": "virtual"}
                add_recorded(board.core, found, facts)
                print(f"{core} {name}: {len(found)} layers ({time.monotonic() - start:.0f} s)",
                      flush=True)  # fmt: skip
    except CodegenError as e:
        sys.exit(f"error: {e}")


def add_recorded(
    core: str, found: Recorded, facts: Mapping[str, Any], folder: Path = FOLDER
) -> None:
    """Add layers to a core's own; one line per layer, in order, beneath `facts` about how they were
    measured."""
    layers = {**read_recorded(core, folder), **found}
    lines = [f"{json.dumps(k)}:{json.dumps(layers[k], sort_keys=True)}" for k in sorted(layers)]
    head = "".join(f"{json.dumps(k)}:{json.dumps(v)},\n" for k, v in facts.items())
    text = "{" + head + '"layers":{\n' + ",\n".join(lines) + "\n}}\n"
    write_atomically(folder / f"{core}.json", text.encode())
    load_recorded.cache_clear()


def _network(name: str, board: Board, jobs: int, rows: str = "") -> Recorded:
    path = Path(name) if name.endswith(".onnx") else fetch(name)
    graph = load_graph(path)
    settings = Settings(warm_weights(generate(path, board).schedule, board), jobs=jobs)
    alone = {n.name: (graph, n) for n in graph.nodes if _is_wanted(n)}
    grouped = {g.names: _group(graph, g) for g in find_groups(graph)}
    if rows:
        grouped = {names: p for names, p in grouped.items() if _has_row(p, board, rows)}
        inside = {n for names in grouped for n in names}
        alone = {n: p for n, p in alone.items() if n in inside or _has_row(p, board, rows)}
    best = _best([*alone.values(), *grouped.values()], board, settings)
    out = {signature_of(*place).key: best[signature_of(*place)] for place in alone.values()}
    least = {n: min(c for _, c in best[signature_of(*p)].values()) for n, p in alone.items()}
    for names, place in grouped.items():
        limit = sum(least[n] for n in names)
        paying = {x: b for x, b in best[signature_of(*place)].items() if b[1] < limit}
        if paying:
            out[signature_of(*place).key] = paying
    return out


def _is_wanted(node: Node) -> bool:
    return needs_kernel(node) and OPS[node.op].macs is not None


def _has_row(place: tuple[Graph, Node], board: Board, name: str) -> bool:
    """Can a row whose name has `name` compute it?"""
    return any(name in r.name for x in LAYOUTS for r in candidates(layer_of(*place, x), board))


def _group(graph: Graph, group: Group) -> tuple[Graph, Node]:
    whole = regroup(graph, {group.name: group.names})
    return whole, next(n for n in whole.nodes if n.name == group.name)


def _best(places: list[tuple[Graph, Node]], board: Board, settings: Settings) -> dict:
    """Signature -> the fastest row per layout, with thousands of cycles."""
    rows = {
        signature_of(g, n): {
            r.name for x in LAYOUTS for reads in READS
            for _, r in promising(g, n, board, x, _PROMISING, _MOST, reads)
        }
        for g, n in places
    }
    prices = price_signatures(
        list(rows), board, pick_runner(board, "virtual"), Store(store_path()), rows,
        settings=settings,
    )  # fmt: skip
    best: dict[Signature, Best] = {s: {} for s in rows}
    for s, candidates_of in prices.items():
        for c, m in sorted(candidates_of.items(), key=lambda p: (p[1].cost, p[0])):
            reads = s.op != "Transpose"  # whose input may lie anywhere
            if (reads or c.come == c.layout) and not m.error:
                best[s].setdefault(c.layouts, (c.kernel, round(m.cost / 1e3, 1)))
    return best


if __name__ == "__main__":
    main()
