"""How long generating and compiling a network takes: `python benchmarks/generate.py [NAME]`.

Targets for light_resnet50 on 2 cores: generating under 15 s and 2 GB, compiling under 60 s.
"""

import resource
import sys
import tempfile
import time
from pathlib import Path

from codegen.board import load_board
from codegen.build import compile_library
from codegen.models.fetch import fetch
from codegen.pipeline import generate
from codegen.sources import write
from codegen.toolchain import find_toolchain

BOARD = "jetson-nano-cpu"


def main() -> None:
    """Print seconds, and the peak memory of this process (not of the compiler)."""
    name = sys.argv[1] if len(sys.argv) > 1 else "light_resnet50"
    model, board = fetch(name), load_board(BOARD)
    with tempfile.TemporaryDirectory() as folder:
        start = time.monotonic()
        generated = generate(model, board)
        write(generated.sources, Path(folder))
        seconds = time.monotonic() - start
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        print(f"{name}: generated in {seconds:.1f} s, peak memory {peak:,.0f} MiB")
        start = time.monotonic()
        binary = compile_library(generated.sources, Path(folder), find_toolchain(board))
        if binary.error:
            raise SystemExit(binary.error)
        print(f"{name}: compiled in {time.monotonic() - start:.1f} s (library, verify and bench)")


if __name__ == "__main__":
    main()
