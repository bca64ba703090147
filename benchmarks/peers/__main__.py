"""Every engine on every network and core: `python -m benchmarks.peers [--help]`.

Rows that are there already are kept, where the engine's version, the virtual board and for codegen
the generated code are the same: the sweep can be interrupted at any time. Then docs/BENCHMARKS.md,
its chart and the table in README.md are drawn again.
"""

import argparse
import sys

from benchmarks.peers import report, summary
from benchmarks.peers.sweep import BOARDS, MODELS, sweep
from codegen.errors import CodegenError
from codegen.peers.engines import ENGINES, pick_engines


def main() -> None:
    """Measure what is missing, then draw."""
    options = _options()
    try:
        engines = pick_engines(options.engine)
        if not options.draw:
            sweep(options, engines)
        report.draw()
        summary.draw()
    except CodegenError as e:
        sys.exit(f"error: {e}")


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.peers", description=__doc__)
    parser.add_argument("--engine", default=",".join(ENGINES), metavar="A,B",
                        help="engines; those named here are measured again")  # fmt: skip
    parser.add_argument("--model", default=",".join(MODELS), metavar="A,B")
    parser.add_argument("--core", default=",".join(BOARDS), metavar="A,B")
    parser.add_argument("--dtype", default="f32,i8", metavar="A,B")
    parser.add_argument("--missing", action="store_true",
                        help="measure only what is missing, also of engines that are named")
    parser.add_argument("--draw", action="store_true", help="only draw the report again")
    options = parser.parse_args()
    named = "--engine" in " ".join(sys.argv[1:]) and not options.missing
    options.again = set(options.engine.split(",")) if named else set()
    return options


if __name__ == "__main__":
    main()
