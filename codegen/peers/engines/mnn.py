"""MNN: converted by its own converter; int8 by its own offline quantisation."""

import hashlib
import json
import os
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np

from codegen.board import Board
from codegen.peers.base import Engine, Network, PeerError, Prepared, run_tool
from codegen.peers.sizes import library_bytes
from codegen.peers.wheels import MNN, NUMPY, host_wheel, made

# The package's command lines report each use to its makers; the module below them does not.
_CONVERT = "import sys, _tools; _tools.mnnconvert(sys.argv)"
_QUANTISE = "import sys, _tools; _tools.mnnquant(sys.argv)"
# ADMM: of the tool's methods the one that its documentation gives for a few samples.
_METHOD = {"feature_quantize_method": "ADMM", "weight_quantize_method": "MAX_ABS",
           "feature_clamp_value": 127, "weight_clamp_value": 127, "quant_bits": 8,
           "input_type": "sequence"}  # fmt: skip


def _prepare(network: Network, board: Board, dtype: str, folder: Path) -> Prepared:
    data = _kept(network.model, lambda f: _convert(network.model, f))
    if dtype == "i8":
        data = _quantised(network, data)
    size = len(data) + library_bytes(MNN, "_mnncengine*.so")
    return Prepared({"model.mnn": data}, script="mnn.py", wheels=(MNN, NUMPY), binary_bytes=size)


def _kept(text: bytes, make: Callable[[Path], None]) -> bytes:
    """The model that `make` writes, kept: the converter puts random numbers into its files."""
    key = hashlib.sha256(text).hexdigest()[:32]
    return (made(f"mnn-{MNN.version}-{key}", make) / "model.mnn").read_bytes()


def _convert(model: bytes, folder: Path) -> None:
    source = folder / "model.onnx"
    source.write_bytes(model)
    _tool("mnnconvert", _CONVERT, folder, "-f", "ONNX", "--modelFile", "model.onnx",
          "--MNNModel", "model.mnn", "--bizCode", "codegen")  # fmt: skip
    source.unlink()


def _quantised(network: Network, model: bytes) -> bytes:
    """Calibrated on the samples but the first."""
    inputs = [{"name": t.name, "shape": list(t.shape)} for t in network.inputs]
    config = {"path": "samples", "used_sample_num": len(network.samples) - 1, **_METHOD}
    shapes, text = json.dumps({"inputs": inputs}), json.dumps({"inputs": inputs, **config})
    arrays = (s[t.name] for s in network.samples[1:] for t in network.inputs)
    digest = hashlib.sha256(b"".join(np.ascontiguousarray(a).tobytes() for a in arrays))

    def make(folder: Path) -> None:
        (folder / "float.mnn").write_bytes(model)
        (folder / "config.json").write_text(text)
        for i, sample in enumerate(network.samples[1:]):
            arrays = {t.name: sample[t.name] for t in network.inputs}
            _write_sample(folder / "samples" / str(i), arrays, shapes)
        _tool("mnnquant", _QUANTISE, folder, "float.mnn", "model.mnn", "config.json")

    return _kept(model + text.encode() + digest.digest(), make)


def _write_sample(folder: Path, arrays: Mapping[str, np.ndarray], shapes: str) -> None:
    """A text file for each input, whose name may hold slashes."""
    folder.mkdir(parents=True)
    (folder / "input.json").write_text(shapes)
    for name, array in arrays.items():
        file = (folder / f"{name}.txt").resolve()
        if not file.is_relative_to(folder.resolve()):
            raise PeerError(f"mnnquant takes no input of the name {name!r}")
        file.parent.mkdir(parents=True, exist_ok=True)
        np.savetxt(file, array.ravel(), fmt="%.9g")


def _tool(name: str, code: str, folder: Path, *args: str) -> None:
    env = {**os.environ, "PYTHONPATH": str(host_wheel(MNN))}
    said = run_tool((sys.executable, "-c", code, *args), folder, env, name)
    if not (folder / "model.mnn").is_file():
        raise PeerError(f"{name} made no model: {said.strip().splitlines()[-1:]}")


ENGINE = Engine("mnn", MNN.version, ("f32", "i8"), _prepare)
