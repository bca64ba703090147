"""Bytes of a node's constants in the form in which a row's kernel reads them, before anything is
packed: what packers in weights.py will make, from sizes alone."""

import re
from collections.abc import Callable, Mapping
from typing import Any

from codegen.derive import DERIVED
from codegen.errors import CodegenError
from codegen.graph import Graph, Node
from codegen.kernels import Kernel, Layer
from codegen.sparsity import HEIGHT, blocks_high
from codegen.types import DType

# Sizes and parameters of a layer -> (elements of weights, length of a vector of biases).
_Sizes = tuple[int, int]


def packed_bytes(graph: Graph, node: Node, layer: Layer, row: Kernel) -> int:
    """Bytes of weights, biases and slopes of `node` as `row` packs them; without a packer, the
    constants as they are."""
    slope = node.activation.slope if node.activation else ""
    if not row.pack:
        names = (t for t in (*node.inputs, slope) if t in graph.constants)
        return sum(graph.constants[t].nbytes for t in names)
    derived = DERIVED[row.derive](layer.dims, row.params) if row.derive else {}
    weights, vector = _SIZES[row.pack](layer.dims, {**row.params, **derived})
    elements = weights + vector * (2 if slope in graph.constants else 1)
    return DType(layer.dtype).size * elements


def weights_limit(text: str, graph: Graph) -> int:
    """Bytes: "1500000", "1500k", "12M", or "1.1x" the bytes of the network's constants."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?)([kKmMx]?)", text)
    if not match:
        raise CodegenError(
            "--max-weights",
            repr(text),
            "bytes (1500000, 1500k, 12M), or a multiple of the network's own weights (1.1x)",
            "write e.g. --max-weights 1.1x",
        )
    units = {"": 1, "k": 1 << 10, "m": 1 << 20, "x": graph.weights_bytes}
    return int(float(match[1]) * units[match[2].lower()])


def _up(n: int, unit: int) -> int:
    return -(-n // unit) * unit


def _taps(d: Mapping[str, Any]) -> int:
    return d["kh"] * d["kw"]


def _groups(d: Mapping[str, Any], unit: int) -> _Sizes:
    """Column or row panels of each group."""
    channels = d["groups"] * _up(d["m"] // d["groups"], unit)
    return channels * _taps(d) * d["c"] // d["groups"], channels


def _narrow(d: Mapping[str, Any], p: Mapping[str, Any]) -> _Sizes:
    return _up(_taps(d) * d["c"], 4) * _up(d["m"], 4), _up(d["m"], 4)


def _planes(d: Mapping[str, Any], p: Mapping[str, Any]) -> _Sizes:
    channels = _up(d["m"], p["nr"])
    return _up(_taps(d) * d["c"], 4) * channels, channels


def _half(d: Mapping[str, Any], p: Mapping[str, Any]) -> _Sizes:
    return _taps(d) * d["c"] * _up(d["m"], 8), _up(d["m"], 8)


def _strassen(d: Mapping[str, Any], p: Mapping[str, Any]) -> _Sizes:
    return p["products"] * d["c"] // 2 * _up(d["m"] // 2, 4), _up(d["m"], 4)


def _depthwise(d: Mapping[str, Any], p: Mapping[str, Any]) -> _Sizes:
    return d["m"] * _taps(d), d["m"]


def _winograd(d: Mapping[str, Any], p: Mapping[str, Any]) -> _Sizes:
    channels = _up(d["m"], p.get("last", p["nr"]))
    return p["planes"] * p["depth"] * channels, channels


def _chain(d: Mapping[str, Any], p: Mapping[str, Any]) -> _Sizes:
    """All stages; the vector is the last stage's, which has the slopes."""
    nr, e = p["nr"], d["e"]
    first = d["ekh"] * d["ekw"] * d["c"]
    window = (0, first, _up(first, 4))[d["expand"]]
    sizes = _up(e, nr) * (window + 1) if window else 0
    sizes += e * _taps(d)
    if not d["project"]:
        return sizes, _up(e, 4)
    return sizes + _up(e, 4) + _up(d["m"], nr) * e, _up(d["m"], nr)


def _pair(d: Mapping[str, Any], p: Mapping[str, Any]) -> _Sizes:
    first, biases = _chain(d["first"], p)
    second, vector = _chain(d["second"], p)
    return first + biases + second, vector


def _transposed(d: Mapping[str, Any], p: Mapping[str, Any]) -> _Sizes:
    return _up(d["m"], p["nr"]) * _taps(d) * d["c"], _up(d["m"], p["nr"])


def _dense(d: Mapping[str, Any], unit: int) -> _Sizes:
    return d["k"] * _up(d["n"], unit), _up(d["n"], unit)


def _sparse(d: Mapping[str, Any], inputs: int, part: int, outputs: int) -> _Sizes:
    """Blocks and one of zeros, their indices of half an element, where those of 4 outputs begin."""
    blocks, high = d["nonzero"] + 1, blocks_high(outputs)
    return HEIGHT * blocks + (blocks + 1) // 2 + -(-inputs // part) * high + 1, HEIGHT * high


def _codes(d: Mapping[str, Any], weights: int, channels: int) -> _Sizes:
    """Of int8: beside the weights a bias and a scale per channel, five zero points and bounds, and
    two factors where they are needed."""
    return weights, 8 * channels + 20 + (8 if d["act"].fn or d["residual"] else 0)


def _code_panels(d: Mapping[str, Any], p: Mapping[str, Any], depth: int, n: int) -> _Sizes:
    """Panels of 4 channels, perhaps two codes in a byte; in-order tiles read a step more."""
    channels = _up(n, 4)
    weights = _up(depth, p.get("step", 1)) * channels
    weights += 64 * p["chain"] if p.get("in_order") else 0
    return _codes(d, weights // 2 if p["packed"] else weights, channels)


def _code_pairs(d: Mapping[str, Any], depth: int, n: int) -> _Sizes:
    return _codes(d, _up(depth, 8) * _up(n, 8), _up(n, 8))


_SIZES: Mapping[str, Callable[[Mapping[str, Any], Mapping[str, Any]], _Sizes]] = {
    "conv_panels_nhwc": lambda d, p: _groups(d, p["nr"]),
    "conv_panels_nchw": lambda d, p: _groups(d, p["mr"]),
    "conv_panels_narrow": _narrow,
    "conv_panels_planes": _planes,
    "conv_panels_half": _half,
    "conv_panels_strassen": _strassen,
    "conv_taps_nhwc": _depthwise,
    "conv_taps_nchw": _depthwise,
    "conv_taps_c4": _depthwise,
    "conv_taps_c16": _depthwise,
    "conv_taps_c32": _depthwise,
    "winograd_panels": _winograd,
    "winograd_panels_half": _winograd,
    "conv_chain": _chain,
    "conv_chain_pair": _pair,
    "conv_transpose_panels": _transposed,
    "dense_panels": lambda d, p: _dense(d, p["nr"]),
    "dense_panels_narrow": lambda d, p: _dense(d, 4),
    "dense_panels_half": lambda d, p: _dense(d, 8),
    "conv_sparse": lambda d, p: _sparse(d, d["c"], p["part"], d["m"]),
    "dense_sparse": lambda d, p: _sparse(d, d["k"], d["k"], d["n"]),
    "qconv_panels": lambda d, p: _code_panels(d, p, _taps(d) * d["c"], d["m"]),
    "qconv_pairs": lambda d, p: _code_pairs(d, _taps(d) * d["c"], d["m"]),
    "qdense_pairs": lambda d, p: _code_pairs(d, d["k"], d["n"]),
    "qconv_taps": lambda d, p: _codes(d, d["m"] * _taps(d), _up(d["m"], 8)),
    "qconv_columns": lambda d, p: _codes(d, _taps(d) * d["c"] * d["m"], d["m"]),
    "qwinograd_panels": lambda d, p: _codes(d, 9 * d["c"] * d["m"], d["m"]),
    "qdense_panels": lambda d, p: _code_panels(d, p, d["k"], d["n"]),
}
