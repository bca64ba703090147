"""How long pricing takes: `python benchmarks/pricing.py [JOBS]`.

Prices 20 candidates of median MobileNetV2 layers (one layer has fewer) on the virtual A57, with an
empty store and no analysis kept from before; only the plugin is compiled already. Target: under 8 s
on 2 cores.
"""

import os
import resource
import sys
import tempfile
import time
from pathlib import Path

from codegen.board import load_board
from codegen.models.fetch import fetch
from codegen.pipeline import load_graph
from codegen.pricing import Settings, layer_names, macs, price_signatures
from codegen.pricing.trials import trials
from codegen.run import pick_runner
from codegen.run.virtual.plugin import plugin_path
from codegen.store import Store
from codegen.toolchain import find_qemu

BOARD, WANTED = "jetson-nano-cpu", 20


def main() -> None:
    """Print the layers, how many candidates were priced, and seconds."""
    board = load_board(BOARD)
    graph = load_graph(fetch("mobilenet_v2"))
    layers = sorted((s for s in layer_names(graph) if s.op == "Conv"), key=macs)
    middle = len(layers) // 2
    chosen, count = [], 0
    while count < WANTED:  # the median layer, and those that follow
        chosen.append(layers[middle + len(chosen)])
        count += len(trials(chosen[-1], board))
    settings = Settings(jobs=int(sys.argv[1]) if len(sys.argv) > 1 else 0)
    with tempfile.TemporaryDirectory() as folder:
        os.environ["CODEGEN_CACHE"] = folder
        plugin_path(str(find_qemu()))
        store = Store(Path(folder) / "store.sqlite")
        start, before = time.monotonic(), _processor_seconds()
        prices = price_signatures(chosen, board, pick_runner(board, "virtual"), store,
                                  settings=settings)  # fmt: skip
        seconds, busy = time.monotonic() - start, _processor_seconds() - before
    priced = sum(map(len, prices.values()))
    for layer in chosen:
        print(f"{layer}: {macs(layer) / 1e6:.1f} MMAC, {len(prices[layer])} candidates")
    print(f"{priced} candidates in {seconds:.1f} s, {busy:.1f} s of processor time")


def _processor_seconds() -> float:
    """Of this process and of all that it waited for."""
    return sum(sum(resource.getrusage(who)[:2])
               for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))  # fmt: skip


if __name__ == "__main__":
    main()
