"""A float32 network of ncnn -> int8, in the form that its tool ncnn2int8 gives: convolutions and
linear layers with 8-bit weights, a scale for each output channel (or group) and one for the input;
a convolution that only convolutions read hands on 8-bit values."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from codegen.peers.base import PeerError

_MAGIC = "7767517"
_FLOAT, _INT8 = 0, 0x000D4B38  # the tags before weights
_CONVOLUTIONS = ("Convolution", "ConvolutionDepthWise")
# Parameters by number: how many scales the weights have, and how many weights there are.
_WEIGHTS = {"Convolution": (0, 6), "ConvolutionDepthWise": (7, 6), "InnerProduct": (0, 2)}
_BIAS = {"Convolution": 5, "ConvolutionDepthWise": 5, "InnerProduct": 1}
_OUTPUTS, _INT8_TERM, _DYNAMIC = 0, 8, 19
_REQUANTISED = 100  # is added to the term
# ncnn's 3x3 convolutions by Winograd's method have room for 6-bit weights only, and its own
# calibration gives them no more: width and height of kernel, dilation and stride.
_WINOGRAD = {1: 3, 11: 3, 2: 1, 12: 1, 3: 1, 13: 1}


@dataclass(frozen=True)
class Layer:
    """One line of a param file; `params` by number, as text."""

    kind: str
    name: str
    bottoms: tuple[str, ...]
    tops: tuple[str, ...]
    params: Mapping[int, str]

    def number(self, key: int) -> int:
        return int(self.params.get(key, 0))

    @property
    def quantised(self) -> bool:
        return self.kind in _WEIGHTS and not self.number(_DYNAMIC)

    def line(self) -> str:
        ends = (self.kind, self.name, len(self.bottoms), len(self.tops), *self.bottoms, *self.tops)
        return " ".join(map(str, (*ends, *(f"{k}={v}" for k, v in self.params.items()))))


def read_param(text: str) -> list[Layer]:
    """The layers of a param file."""
    magic, _, *lines = text.splitlines()
    if magic.strip() != _MAGIC:
        raise PeerError("the ncnn model is not a text param file")
    return [_layer(line.split()) for line in lines if line.strip()]


def _layer(words: Sequence[str]) -> Layer:
    kind, name, inputs, outputs = words[0], words[1], int(words[2]), int(words[3])
    ends, pairs = words[4 : 4 + inputs + outputs], words[4 + inputs + outputs :]
    params = {int(k): v for k, _, v in (p.partition("=") for p in pairs)}
    return Layer(kind, name, tuple(ends[:inputs]), tuple(ends[inputs:]), params)


def calibrated(layers: Sequence[Layer]) -> tuple[str, ...]:
    """Blobs whose largest magnitude `quantise` wants."""
    return tuple(dict.fromkeys(x.bottoms[0] for x in layers if x.quantised))


def quantise(param: str, weights: bytes, largest: Mapping[str, float]) -> tuple[bytes, bytes]:
    """Param file and weights in int8. `largest`: magnitude of the blobs that `calibrated` names."""
    layers = read_param(param)
    scales = {blob: 127 / value if value else 1.0 for blob, value in largest.items()}
    lines, parts, at = [], [], 0
    for layer in layers:
        if layer.quantised:
            top = _handed_on(layer, layers)
            at, data = _weights(layer, weights, at)
            term = (1 if layer.kind == "ConvolutionDepthWise" else 2) + _REQUANTISED * bool(top)
            layer = Layer(layer.kind, layer.name, layer.bottoms, layer.tops,
                          {**layer.params, _INT8_TERM: str(term)})  # fmt: skip
            after = [scales[layer.bottoms[0]], *([scales[top]] if top else [])]
            parts += [*data, np.float32(after).tobytes()]
        lines.append(layer.line())
    if at != len(weights):
        raise PeerError("the ncnn model has weights in layers whose form is not known here")
    head = param.splitlines()[:2]
    return "\n".join([*head, *lines, ""]).encode(), b"".join(parts)


def _handed_on(layer: Layer, layers: Sequence[Layer]) -> str:
    """The blob by whose scale a convolution's output becomes 8-bit: where all its readers, behind
    a split or not, are convolutions; else nothing."""
    if layer.kind not in _CONVOLUTIONS:
        return ""
    readers = [x for x in layers if layer.tops[0] in x.bottoms]
    if [x.kind for x in readers] == ["Split"]:
        readers = [x for x in layers if set(readers[0].tops) & set(x.bottoms)]
    good = readers and all(x.kind in _CONVOLUTIONS and x.quantised for x in readers)
    return readers[0].bottoms[0] if good else ""


def _weights(layer: Layer, data: bytes, at: int) -> tuple[int, tuple[bytes, ...]]:
    """Where the next layer's begin; tag and weights, bias, scales of the weights."""
    rows, size = (layer.number(k) for k in _WEIGHTS[layer.kind])
    bias = layer.number(_OUTPUTS) if layer.number(_BIAS[layer.kind]) else 0
    tag = int.from_bytes(data[at : at + 4], "little")
    floats = np.frombuffer(data, np.float32, offset=at + 4)[: size + bias]
    if tag != _FLOAT or floats.size != size + bias:
        raise PeerError(f"the weights of {layer.name} in the ncnn model are not plain float32")
    w = floats[:size].reshape(rows, -1)
    largest = np.abs(w).max(axis=1)
    most = 31 if _is_winograd(layer) else 127
    scales = np.where(largest > 0, most / np.where(largest > 0, largest, 1), 0).astype(np.float32)
    values = np.clip(np.round(w * scales[:, None]), -127, 127).astype(np.int8).tobytes()
    tagged = _INT8.to_bytes(4, "little") + values + bytes(-len(values) % 4)
    return at + 4 + floats.nbytes, (tagged, floats[size:].tobytes(), scales.tobytes())


def _is_winograd(layer: Layer) -> bool:
    p = layer.params  # what is 1x-th is the height, by default the width
    found = {k: int(p.get(k, p.get(k - 10, 1))) for k in _WINOGRAD}
    return layer.kind == "Convolution" and found == _WINOGRAD
