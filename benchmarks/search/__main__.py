"""Q-learning against random search, greedy, rules of libraries and the exact optimum: `python -m
benchmarks.search [--help]`.

Prices what is missing on the virtual board, runs every agent over seeds on the price tables, builds
and runs the finalists (and, with --whole, the uniform plans), and writes
benchmarks/search/results.json, then docs/SEARCH.md and its curves. Rows that are there already are
kept unless they are named.
"""

import argparse
import json
import sys
import time

from benchmarks.search.experiment import Extent, run
from benchmarks.search.page import FILE, draw, load
from codegen.board import load_board
from codegen.errors import CodegenError
from codegen.models.fetch import fetch, write_atomically

BOARDS = {"a57": "jetson-nano-cpu", "a53": "raspberry-pi-3b-plus", "a72": "raspberry-pi-4"}


def main() -> None:
    """Measure, network by network; the files are written after each."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.search", description=__doc__)
    parser.add_argument("--core", default="a57", metavar="A,B")
    parser.add_argument("--model", default="", metavar="A,B", help="networks of `codegen models`")
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--jobs", type=int, default=0, help="programs at once; 0: one per core")
    parser.add_argument("--whole", action="store_true", help="run uniform plans whole, too")
    parser.add_argument("--sweep", action="store_true", help="also the hyper-parameters")
    parser.add_argument("--time", action="store_true", help="also time a search from nothing")
    options = parser.parse_args()
    extent = Extent(options.seeds, options.whole, options.sweep, options.time)
    rows = load()
    try:
        for core in options.core.split(","):
            board = load_board(BOARDS[core])
            for name in filter(None, options.model.split(",")):
                start = time.monotonic()
                rows[f"{name} {board.name}"] = run(fetch(name), board, options.jobs, extent)
                print(f"{core} {name} ({time.monotonic() - start:.0f} s)", flush=True)
                text = ",\n".join(f"{json.dumps(k)}: {json.dumps(rows[k])}" for k in sorted(rows))
                write_atomically(FILE, ("{\n" + text + "\n}\n").encode())
    except CodegenError as e:
        sys.exit(f"error: {e}")
    draw(rows)


if __name__ == "__main__":
    main()
