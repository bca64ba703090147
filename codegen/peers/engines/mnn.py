"""MNN: converted by its own converter."""

import hashlib
import os
import sys
from pathlib import Path

from codegen.board import Board
from codegen.peers.base import Engine, Network, PeerError, Prepared, run_tool
from codegen.peers.sizes import library_bytes
from codegen.peers.wheels import MNN, NUMPY, host_wheel, made

# The package's command line reports each use to its makers; the module below it does not.
_TOOL = "import sys, _tools; _tools.mnnconvert(sys.argv)"


def _prepare(network: Network, board: Board, dtype: str, folder: Path) -> Prepared:
    # kept, because the converter puts random numbers into its files
    key = hashlib.sha256(network.model).hexdigest()[:32]
    made_in = made(f"mnn-{MNN.version}-{key}", lambda f: _convert(network.model, f))
    data = (made_in / "model.mnn").read_bytes()
    size = len(data) + library_bytes(MNN, "_mnncengine*.so")
    return Prepared({"model.mnn": data}, script="mnn.py", wheels=(MNN, NUMPY), binary_bytes=size)


def _convert(model: bytes, folder: Path) -> None:
    source = folder / "model.onnx"
    source.write_bytes(model)
    env = {**os.environ, "PYTHONPATH": str(host_wheel(MNN))}
    said = run_tool(
        (sys.executable, "-c", _TOOL, "-f", "ONNX", "--modelFile", "model.onnx",
         "--MNNModel", "model.mnn", "--bizCode", "codegen"), folder, env, "mnnconvert",
    )  # fmt: skip
    source.unlink()
    if not (folder / "model.mnn").is_file():
        raise PeerError(f"mnnconvert made no model: {said.strip().splitlines()[-1:]}")


_NO_INT8 = "not set up for this engine"
ENGINE = Engine("mnn", MNN.version, ("f32",), _prepare, {"i8": _NO_INT8})
