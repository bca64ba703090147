"""Calibrates, searches with int8 and tests on data that neither saw: `python -m
benchmarks.accuracy --model A,B --core a57,a53`.

Writes benchmarks/accuracy/results.json after each network (with --methods methods.json), and
docs/ACCURACY.md. Without a model it redraws the page.
"""

import argparse
import json
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks.accuracy.experiment import Prepared, prepare, run
from benchmarks.accuracy.methods import compare
from benchmarks.accuracy.page import FILE, METHODS_FILE, draw, load
from benchmarks.accuracy.samples import SOURCES, model_of
from benchmarks.search.__main__ import BOARDS
from codegen.board import load_board
from codegen.errors import CodegenError
from codegen.models.fetch import write_atomically


def main() -> None:
    """Measure, network by network."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.accuracy", description=__doc__)
    parser.add_argument("--core", default="a57", metavar="A,B")
    parser.add_argument("--model", default="", metavar="A,B", help=", ".join(SOURCES))
    parser.add_argument("--jobs", type=int, default=0, help="programs at once; 0: one per core")
    parser.add_argument("--samples", type=int, default=5000, help="on which plans are judged")
    parser.add_argument("--methods", action="store_true",
                        help="compare ways of finding ranges instead, on the developer's machine; "
                        "what methods.json has is kept")
    parser.add_argument("--keep", type=Path, metavar="DIR",
                        help="samples and calibrations stay there, and are used again")  # fmt: skip
    options = parser.parse_args()
    try:
        for name in filter(None, options.model.split(",")):
            with tempfile.TemporaryDirectory(prefix="codegen-accuracy-") as new:
                start, folder = time.monotonic(), options.keep / name if options.keep else Path(new)
                folder.mkdir(parents=True, exist_ok=True)
                made = prepare(model_of(name), folder)
                print(f"{name}: calibrated ({time.monotonic() - start:.0f} s)", flush=True)
                if options.methods:
                    start, known = time.monotonic(), load(METHODS_FILE).get(name, {})
                    _record(METHODS_FILE, name, compare(made, options.samples, known))
                    print(f"{name}: methods ({time.monotonic() - start:.0f} s)", flush=True)
                    continue
                for core in options.core.split(","):
                    _measure(made, core, options, Path(new) / "objects")
    except CodegenError as e:
        sys.exit(f"error: {e}")
    draw(load(), load(METHODS_FILE))


def _measure(made: Prepared, core: str, options: argparse.Namespace, objects: Path) -> None:
    board, start = load_board(BOARDS[core]), time.monotonic()
    found = run(made, board, options.jobs, options.samples, objects)
    print(f"{core} {made.model.stem} ({time.monotonic() - start:.0f} s)", flush=True)
    _record(FILE, f"{made.model.stem} {board.name}", found)


def _record(path: Path, key: str, found: Any) -> None:
    """Into a file of results, which is read again: another process may have written."""
    rows = {**load(path), key: found}
    text = ",\n".join(f"{json.dumps(k)}: {json.dumps(rows[k])}" for k in sorted(rows))
    write_atomically(path, ("{\n" + text + "\n}\n").encode())


if __name__ == "__main__":
    main()
