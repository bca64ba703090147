"""Which networks and boards are measured, and the loop over them."""

import argparse
import time
from collections.abc import Sequence

from benchmarks.peers import results
from benchmarks.peers.counted import Qemu, Virtual
from codegen.board import load_board
from codegen.models.fetch import fetch
from codegen.peers.base import Engine
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


def sweep(options: argparse.Namespace, engines: Sequence[Engine]) -> None:
    """Measure what is missing, or named, and keep each row as soon as it is there."""
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
