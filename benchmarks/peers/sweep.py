"""Which networks and boards are measured, and the loop over them."""

import argparse
import time
from collections.abc import Sequence
from functools import lru_cache
from itertools import product

from benchmarks.networks import path_of
from benchmarks.peers import results
from benchmarks.peers.counted import Qemu, Virtual
from codegen.board import load_board
from codegen.layer import layer_of
from codegen.ops import OPS
from codegen.peers.base import Engine, Network
from codegen.peers.measure import Row, measure
from codegen.peers.network import load_network

MODELS = (
    "mnist8",
    "fashion_dscnn",
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
SCALAR, MOST_SCALAR_MACS = ("emx", "onnx2c"), 1_000_000_000
BOARDS = {"a53": "raspberry-pi-3b-plus", "a57": "jetson-nano-cpu", "a72": "raspberry-pi-4"}


def sweep(options: argparse.Namespace, engines: Sequence[Engine]) -> None:
    """Measure what is missing, or named, and keep each row as soon as it is there."""
    scale = results.scale()
    names = (x.split(",") for x in (options.model, options.core, options.dtype))
    for model, core, dtype in product(*names):
        for engine in engines:
            if dtype in engine.dtypes:
                _row(engine, model, core, dtype, scale, engine.name in options.again)


def _row(engine: Engine, model: str, core: str, dtype: str, scale: str, again: bool) -> None:
    """Measure and store one, unless it is there."""
    board = load_board(BOARDS[core])
    code = engine.code(_network(model), board, dtype) if engine.code else ""
    if results.find(core, engine, model, dtype, scale, code) and not again:
        return
    start = time.monotonic()
    too_long = _too_long(engine, model)
    if too_long:
        row = Row(engine.name, engine.version, model, core, dtype, error=too_long)
    else:
        row = measure(engine, _network(model), board, dtype, Virtual(), qemu=Qemu())
    results.store(row, scale, code)
    said = row.error or f"{row.ms:.2f} ms, {row.cycles:,} cycles"
    print(f"{model} {core} {engine.name} {dtype}: {said} ({time.monotonic() - start:.0f} s)",
          flush=True)  # fmt: skip


def _too_long(engine: Engine, model: str) -> str:
    """Why an engine is not worth hours of counting on a network, if it is not: scalar code takes
    some twenty times our cycles whatever the network."""
    if engine.name not in SCALAR:
        return ""
    graph = _network(model).graph
    macs = sum(
        count(layer_of(graph, n, "nchw").dims) for n in graph.nodes if (count := OPS[n.op].macs)
    )
    if macs <= MOST_SCALAR_MACS:
        return ""
    return (f"not measured: scalar code for {macs / 1e9:.1f} billion multiply-adds; networks of at "
            f"most {MOST_SCALAR_MACS / 1e9:g} billion are")  # fmt: skip


@lru_cache(maxsize=1)
def _network(model: str) -> Network:
    return load_network(path_of(model), name=model)
