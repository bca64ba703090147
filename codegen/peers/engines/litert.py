"""LiteRT (TensorFlow Lite) with its XNNPACK delegate, which is its default on Arm."""

import json
import os
import sys
from pathlib import Path

import numpy as np

from codegen.board import Board
from codegen.peers import tflite_ranges
from codegen.peers.base import Engine, Network, Prepared, run_tool
from codegen.peers.sizes import library_bytes
from codegen.peers.tflite_int8 import quantise
from codegen.peers.tflite_operators import write_tflite
from codegen.peers.wheels import LITERT, NUMPY, host_wheel


def _prepare(network: Network, board: Board, dtype: str, folder: Path) -> Prepared:
    data = write_tflite(network.graph)
    if dtype == "i8":
        data = quantise(data, _ranges(data, network, folder))
    size = len(data) + library_bytes(LITERT, "ai_edge_litert/libLiteRt.so")
    return Prepared(
        {"model.tflite": data}, script="litert.py", wheels=(LITERT, NUMPY), channels_last=True,
        binary_bytes=size,
    )  # fmt: skip


def _ranges(model: bytes, network: Network, folder: Path) -> dict[int, tuple[float, float]]:
    """Of every tensor over the calibration samples, by LiteRT on this machine."""
    (folder / "float.tflite").write_bytes(model)
    arrays = {
        f"{i}_{k}": a.transpose(0, 2, 3, 1) if a.ndim == 4 else a
        for i, sample in enumerate(network.samples[1:])
        for k, a in enumerate(sample[t.name] for t in network.inputs)
    }
    np.savez(folder / "samples.npz", **arrays)
    env = {**os.environ, "PYTHONPATH": str(host_wheel(LITERT))}
    command = (sys.executable, tflite_ranges.__file__, "float.tflite", "samples.npz")
    said = run_tool(command, folder, env, "LiteRT's calibration")
    return {int(k): tuple(v) for k, v in json.loads(said.strip().splitlines()[-1]).items()}


ENGINE = Engine("litert", LITERT.version, ("f32", "i8"), _prepare)
