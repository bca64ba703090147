"""Do the prices of layers add up to the network? `python benchmarks/price_sum.py MODEL [BOARD]`.

MODEL is a name of `codegen models ls` or an ONNX file. Prices the layers of the default plan on the
virtual board, runs the whole network there, and prints both, layer by layer, in kilocycles.
"""

import sys
import tempfile
from pathlib import Path

from codegen.board import load_board
from codegen.build import compile_library
from codegen.models.fetch import fetch
from codegen.pipeline import Generated, generate
from codegen.pricing import Settings, plan_cost, plan_parts, price_signatures, warm_weights
from codegen.run import Job, pick_runner
from codegen.sources import write
from codegen.store import Store, store_path
from codegen.toolchain import find_toolchain

_TIMEOUT_S = 1800.0


def main() -> None:
    """Print a row per step: priced, in the network, their ratio."""
    name, board = sys.argv[1], load_board((*sys.argv[2:], "jetson-nano-cpu")[0])
    g = generate(Path(name) if name.endswith(".onnx") else fetch(name), board)
    parts = plan_parts(g.graph, g.plan, g.schedule.program)
    warm = warm_weights(g.schedule, board)
    prices = price_signatures(
        list(dict.fromkeys(p.signature for p in parts)), board, pick_runner(board, "virtual"),
        Store(store_path()), {p.candidate.kernel for p in parts}, settings=Settings(warm=warm),
    )  # fmt: skip
    regions = _run(g, board)
    print(f"{'step':30} {'priced':>10} {'network':>10} ratio  kernel")
    total = 0.0
    for i, (part, measured) in enumerate(plan_cost(parts, prices), 1):
        cost = part.share * measured.cost
        total += cost
        _row(part.step, cost, regions[str(i)]["cycles"], part.candidate.kernel)
    _row("total", total, regions["0"]["cycles"], f"weights {'warm' if warm else 'cold'}")


def _run(g: Generated, board) -> dict:
    with tempfile.TemporaryDirectory() as folder:
        write(g.sources, Path(folder))
        binary = compile_library(g.sources, Path(folder), find_toolchain(board))
        if binary.error:
            raise SystemExit(binary.error)
        job = Job(binary.bench, ("0",), timeout_s=_TIMEOUT_S)
        outcome = pick_runner(board, "virtual").run(job, board)
    if outcome.error:
        raise SystemExit(outcome.error)
    return outcome.report["regions"]


def _row(step: str, cost: float, real: int, kernel: str) -> None:
    print(f"{step[:30]:30} {cost / 1e3:10,.0f} {real / 1e3:10,.0f} {cost / real:5.3f}  {kernel}")


if __name__ == "__main__":
    main()
