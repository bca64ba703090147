"""A float flatbuffer -> int8, after LiteRT's quantisation specification: activations per tensor and
asymmetric, weights per channel and symmetric, biases 32-bit; inputs and outputs stay float32."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from codegen.peers.tflite_writer import schema

# The specification wants one scale for what these read and write.
_TIED = ("MAX_POOL_2D", "AVERAGE_POOL_2D", "RESHAPE", "TRANSPOSE", "CONCATENATION", "PAD", "PADV2")
# Outputs whose scale and zero point it fixes.
_FIXED = {"SOFTMAX": (1 / 256, -128), "LOGISTIC": (1 / 256, -128), "TANH": (1 / 128, 0),
          "LOG_SOFTMAX": (16 / 256, 127)}  # fmt: skip
_WEIGHT_AXIS = {"CONV_2D": 0, "DEPTHWISE_CONV_2D": 3, "FULLY_CONNECTED": 0}


def quantise(model: bytes, ranges: Mapping[int, tuple[float, float]]) -> bytes:
    """`ranges`: least and greatest value of every float tensor by its number."""
    return _Quantiser(model, ranges).model()


def affine(low: float, high: float) -> tuple[float, int]:
    """Scale and zero point of int8 for a range, which is widened to hold zero."""
    low, high = min(low, 0.0), max(high, 0.0)
    scale = (high - low) / 255 or 1.0
    return scale, int(np.clip(round(-128 - low / scale), -128, 127))


class _Quantiser:
    def __init__(self, model: bytes, ranges: Mapping[int, tuple[float, float]]):
        self.s = schema()
        self.m = self.s.ModelT.InitFromPackedBuf(model, 0)
        self.graph = self.m.subgraphs[0]
        self.ranges = ranges
        numbers = {v: k for k, v in vars(self.s.BuiltinOperator).items() if isinstance(v, int)}
        self.names = [numbers[c.builtinCode] for c in self.m.operatorCodes]
        self.params: dict[int, tuple[float, int]] = {}

    def model(self) -> bytes:
        import flatbuffers

        self.choose()
        for op in self.graph.operators:
            self.constants(op)
        for t, (scale, zero) in self.params.items():
            self.mark(t, self.s.TensorType.INT8, [scale], [zero])
        self.ports()
        builder = flatbuffers.Builder(1 << 20)
        builder.Finish(self.m.Pack(builder), b"TFL3")
        return bytes(builder.Output())

    def name(self, op: Any) -> str:
        return self.names[op.opcodeIndex]

    def is_value(self, t: int) -> bool:
        """A float tensor that is computed."""
        tensor = self.graph.tensors[t]
        return t >= 0 and tensor.type == self.s.TensorType.FLOAT32 and tensor.buffer == 0

    def choose(self) -> None:
        """Scale and zero point of every value; tied ones share those of their common range."""
        group = {t: t for t in range(len(self.graph.tensors))}

        def root(t: int) -> int:
            while group[t] != t:
                t = group[t]
            return t

        fixed = {}
        for op in self.graph.operators:
            name, out = self.name(op), op.outputs[0]
            if name in _TIED:
                for t in op.inputs:
                    if self.is_value(t):
                        group[root(t)] = root(out)
            if name in _FIXED:
                fixed[out] = _FIXED[name]
        members: dict[int, list[int]] = {}
        for t in group:
            if self.is_value(t):
                members.setdefault(root(t), []).append(t)
        for ts in members.values():
            low, high = (f(self.ranges[t][i] for t in ts) for i, f in ((0, min), (1, max)))
            chosen = next((fixed[t] for t in ts if t in fixed), affine(low, high))
            self.params |= dict.fromkeys(ts, chosen)

    def data(self, t: int) -> np.ndarray:
        tensor = self.graph.tensors[t]
        raw = np.asarray(self.m.buffers[tensor.buffer].data, np.uint8).tobytes()
        return np.frombuffer(raw, np.float32).reshape(tensor.shape)

    def constants(self, op: Any) -> None:
        name = self.name(op)
        axis = _WEIGHT_AXIS.get(name)
        for i, t in enumerate(op.inputs):
            tensor = self.graph.tensors[t]
            if t < 0 or tensor.buffer == 0 or tensor.type != self.s.TensorType.FLOAT32:
                continue
            if axis is not None and i == 1:
                scales = self.weights(t, axis)
            elif axis is not None and i == 2:
                self.bias(t, self.params[op.inputs[0]][0] * scales)
            elif name == "PADV2":
                scale, zero = self.params[op.inputs[0]]
                self.store(t, self.data(t) / scale + zero, [scale], [zero])
            else:
                value = self.data(t)
                scale, zero = affine(float(value.min()), float(value.max()))
                self.store(t, value / scale + zero, [scale], [zero])

    def weights(self, t: int, axis: int) -> np.ndarray:
        """Symmetric per channel; the scales."""
        w = self.data(t)
        others = tuple(a for a in range(w.ndim) if a != axis)
        scales = np.maximum(np.abs(w).max(axis=others), 1e-12) / 127
        shape = [-1 if a == axis else 1 for a in range(w.ndim)]
        self.store(t, w / scales.reshape(shape), scales, np.zeros(scales.size, int), axis)
        return scales.astype(np.float64)

    def bias(self, t: int, scales: np.ndarray) -> None:
        whole = np.clip(np.round(self.data(t) / scales), -(2**31), 2**31 - 1).astype(np.int32)
        self.put(t, whole)
        self.mark(t, self.s.TensorType.INT32, scales, np.zeros(scales.size, int))

    def store(self, t: int, values: np.ndarray, scales: Any, zeros: Any, axis: int = 0) -> None:
        self.put(t, np.clip(np.round(values), -128, 127).astype(np.int8))
        self.mark(t, self.s.TensorType.INT8, scales, zeros, axis)

    def put(self, t: int, array: np.ndarray) -> None:
        self.m.buffers[self.graph.tensors[t].buffer].data = np.frombuffer(
            np.ascontiguousarray(array).tobytes(), np.uint8
        )

    def mark(self, t: int, kind: int, scales: Any, zeros: Any, axis: int = 0) -> None:
        q = self.s.QuantizationParametersT()
        q.scale, q.zeroPoint = [float(v) for v in scales], [int(v) for v in zeros]
        q.quantizedDimension = axis
        self.graph.tensors[t].type, self.graph.tensors[t].quantization = kind, q

    def ports(self) -> None:
        """Float32 inputs and outputs, converted by operators of their own."""
        first = [self.convert("QUANTIZE", t, False) for t in self.graph.inputs]
        last = [self.convert("DEQUANTIZE", t, True) for t in self.graph.outputs]
        self.graph.operators = [op for _, op in first] + self.graph.operators
        self.graph.operators += [op for _, op in last]
        self.graph.inputs, self.graph.outputs = ([t for t, _ in x] for x in (first, last))

    def convert(self, code: str, t: int, out: bool) -> tuple[int, Any]:
        s, tensor = self.s, self.graph.tensors[t]
        self.graph.tensors.append(s.TensorT(tensor.shape, s.TensorType.FLOAT32, 0, f"{code}{t}"))
        port = len(self.graph.tensors) - 1
        number = getattr(s.BuiltinOperator, code)
        if code not in self.names:
            self.m.operatorCodes.append(s.OperatorCodeT(number, None, 1, number))
            self.names.append(code)
        ends = ([t], [port]) if out else ([port], [t])
        op = s.OperatorT(self.names.index(code), *ends)
        kind = "DequantizeOptions" if out else "QuantizeOptions"
        op.builtinOptionsType = getattr(s.BuiltinOptions, kind)
        op.builtinOptions = getattr(s, f"{kind}T")()
        return port, op
