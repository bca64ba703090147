"""ncnn: converted by pnnx, its own converter; int8 as its tool ncnn2int8 would write it, which no
package has."""

import json
import os
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
from onnx import helper, numpy_helper

from codegen.board import Board
from codegen.peers import ncnn_int8, ncnn_ranges
from codegen.peers.base import Engine, Network, PeerError, Prepared, run_tool
from codegen.peers.sizes import library_bytes
from codegen.peers.wheels import NCNN, NUMPY, PNNX, host_wheel


def _with_linear_gemm(data: bytes) -> bytes:
    """The model with constant Gemm weights transposed and their bias a vector: pnnx knows no other
    form as a linear layer."""
    model = onnx.load_from_string(data)
    constants = {t.name: t for t in model.graph.initializer}

    def constant(node: onnx.NodeProto, index: int, change: Callable) -> None:
        old = node.input[index]
        node.input[index] = f"{node.output[0]}/linear{index}"
        array = np.ascontiguousarray(change(numpy_helper.to_array(constants[old])))
        model.graph.initializer.append(numpy_helper.from_array(array, node.input[index]))

    for node in model.graph.node:
        if node.op_type != "Gemm" or node.input[1] not in constants:
            continue
        attrs = {a.name: a for a in node.attribute}
        if "transB" not in attrs or not attrs["transB"].i:
            constant(node, 1, np.transpose)
            if "transB" in attrs:
                node.attribute.remove(attrs["transB"])
            node.attribute.append(helper.make_attribute("transB", 1))
        if len(node.input) > 2 and node.input[2] in constants:
            constant(node, 2, np.ravel)
    return model.SerializeToString(deterministic=True)


def _prepare(network: Network, board: Board, dtype: str, folder: Path) -> Prepared:
    if any(t.shape[0] != 1 for t in network.inputs):
        raise PeerError("ncnn's tensors have no batch dimension")
    (folder / "model.onnx").write_bytes(_with_linear_gemm(network.model))
    pnnx = folder / "pnnx"  # the wheel unpacked has no execute permission
    pnnx.write_bytes((host_wheel(PNNX) / "pnnx" / "pnnx").read_bytes())
    pnnx.chmod(0o755)
    run_tool((str(pnnx), "model.onnx", "fp16=0", "device=cpu"), folder, dict(os.environ), "pnnx")
    param, weights = folder / "model.ncnn.param", folder / "model.ncnn.bin"
    if not param.is_file():
        raise PeerError("pnnx made no ncnn model")
    # what pnnx cannot translate keeps its own name, such as F.linear or pnnx.Expression
    left = sorted({line.split()[0] for line in param.read_text().splitlines()[2:]
                   if "." in line.split()[0]})  # fmt: skip
    if left:
        raise PeerError(f"pnnx finds no ncnn layer for {', '.join(left)}")
    data = param.read_bytes(), weights.read_bytes()
    if dtype == "i8":
        data = _quantised(network, *data, folder)
    files = dict(zip(("model.param", "model.bin"), data, strict=True))
    size = sum(map(len, data)) + library_bytes(NCNN, "ncnn/ncnn*.so")
    return Prepared(files, script="ncnn_net.py", wheels=(NCNN, NUMPY), binary_bytes=size)


def _quantised(
    network: Network, param: bytes, weights: bytes, folder: Path
) -> tuple[bytes, bytes]:
    """Param file and weights, calibrated on the samples but the first by ncnn on this machine."""
    blobs = ncnn_int8.calibrated(ncnn_int8.read_param(param.decode()))
    arrays = {f"{i}_{k}": sample[t.name] for i, sample in enumerate(network.samples[1:])
              for k, t in enumerate(network.inputs)}  # fmt: skip
    np.savez(folder / "samples.npz", **arrays)
    env = {**os.environ, "PYTHONPATH": str(host_wheel(NCNN))}
    said = run_tool((sys.executable, ncnn_ranges.__file__, "model.ncnn.param", "model.ncnn.bin",
                     "samples.npz", *blobs), folder, env, "ncnn's calibration")  # fmt: skip
    return ncnn_int8.quantise(param.decode(), weights, json.loads(said.strip().splitlines()[-1]))


ENGINE = Engine("ncnn", NCNN.version, ("f32", "i8"), _prepare)
