"""onnxruntime: takes the ONNX file as it is; int8 by its own static quantisation."""

import os
from pathlib import Path

from codegen.board import Board
from codegen.peers.base import Engine, Network, PeerError, Prepared
from codegen.peers.sizes import library_bytes
from codegen.peers.wheels import NUMPY, ORT

# else onnxruntime reports each use to its makers, from a second thread
_QUIET = {"ORT_DISABLE_TELEMETRY": "1"}


def _prepare(network: Network, board: Board, dtype: str, folder: Path) -> Prepared:
    model = network.model if dtype == "f32" else quantised(network, folder)
    size = len(model) + library_bytes(ORT, "onnxruntime/capi/libonnxruntime.so*")
    return Prepared({"model.onnx": model}, script="ort.py", wheels=(ORT, NUMPY), env=_QUIET,
                    binary_bytes=size)  # fmt: skip


def quantised(network: Network, folder: Path) -> bytes:
    """The model with QuantizeLinear and DequantizeLinear around its operators: int8 per tensor,
    weights per channel, ranges from the calibration samples."""
    os.environ.update(_QUIET)
    from onnxruntime import quantization as q

    class Reader(q.CalibrationDataReader):
        samples = iter(network.samples[1:])

        def get_next(self):
            return next(self.samples, None)

    source, prepared, target = (folder / f"{n}.onnx" for n in ("float", "shaped", "int8"))
    source.write_bytes(network.model)
    try:
        q.shape_inference.quant_pre_process(str(source), str(prepared), skip_symbolic_shape=True)
        q.quantize_static(
            str(prepared), str(target), Reader(), quant_format=q.QuantFormat.QDQ,
            per_channel=True, activation_type=q.QuantType.QInt8, weight_type=q.QuantType.QInt8,
        )  # fmt: skip
    except Exception as e:  # whatever the tool raises, the model is refused
        raise PeerError(f"onnxruntime's quantisation failed: {str(e)[:200]}") from None
    return target.read_bytes()


ENGINE = Engine("ort", ORT.version, ("f32", "i8"), _prepare)
