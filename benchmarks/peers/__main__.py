"""Every engine on every network and core: `python -m benchmarks.peers [--help]`.

Rows that are there already are kept, where the engine's version and the virtual board are the same:
the sweep can be interrupted at any time. Then docs/BENCHMARKS.md and its chart are drawn again.
"""

import argparse
import sys
import time

from benchmarks.peers import report, results
from benchmarks.peers.counted import Qemu, Virtual
from codegen.board import load_board
from codegen.errors import CodegenError
from codegen.models.fetch import fetch
from codegen.peers.engines import ENGINES, pick_engines
from codegen.peers.measure import measure
from codegen.peers.network import load_network

MODELS = (
    "mlperf_kws_dscnn",
    "mlperf_vww_mbv1_025",
    "mlperf_ic_resnet8",
    "squeezenet1_1",
    "dog_mobilenetv2_160",
    "mobilenet_v2",
    "efficientnet_lite0",
    "mobilenet_v1",
    "mobilenet_v3",
    "resnet18",
    "light_resnet50",
)
BOARDS = {"a53": "raspberry-pi-3b-plus", "a57": "jetson-nano-cpu", "a72": "raspberry-pi-4"}


def main() -> None:
    """Measure what is missing, then draw."""
    options = _options()
    try:
        engines = pick_engines(options.engine)
        if not options.draw:
            _sweep(options, engines)
        report.draw()
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


def _sweep(options: argparse.Namespace, engines: tuple) -> None:
    scale = results.scale()
    for name in options.model.split(","):
        network = None
        for core in options.core.split(","):
            board = load_board(BOARDS[core])
            for engine in engines:
                for dtype in options.dtype.split(","):
                    if dtype not in engine.dtypes:
                        continue
                    old = results.find(core, engine, name, dtype, scale)
                    if old and engine.name not in options.again:
                        continue
                    network = network or load_network(fetch(name), name=name)
                    start = time.monotonic()
                    row = measure(engine, network, board, dtype, Virtual(), qemu=Qemu())
                    results.store(row, scale)
                    said = row.error or f"{row.ms:.2f} ms, {row.cycles:,} cycles"
                    print(f"{name} {core} {engine.name} {dtype}: {said} "
                          f"({time.monotonic() - start:.0f} s)", flush=True)  # fmt: skip


if __name__ == "__main__":
    main()
