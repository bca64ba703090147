"""Weights of few bits, rounded so that what each layer computes over a user's data changes least
(calibration/weights.py: round_weights)."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from codegen.calibration.columns import Columns, draw_columns, rows_of
from codegen.calibration.corrections import pack
from codegen.calibration.data import Data
from codegen.calibration.record import Calibration
from codegen.calibration.weights import curvature_of, round_weights
from codegen.graph import Graph, Node
from codegen.kernels import load_kernels
from codegen.ops.quantised import BITS
from codegen.passes.quantise import is_product, operands, weight_codes
from codegen.passes.scales import Scale, scales_of

_ROWS = 4608  # 512 channels of 3x3: the time that a layer takes grows with the third power

# The energy of the error of a layer's outputs in relation to their own, by node and width of its
# weights: with the nearest codes, and with those that were chosen.
Gains = dict[str, dict[int, tuple[float, float]]]


def with_rounding(
    calibration: Calibration,
    model: Path,
    graph: Graph,
    data: Data,
    shapes: Mapping[str, Sequence[int]] | None = None,
    progress: Callable[[int, int], None] = lambda done, of: None,
    widths: Iterable[int] | None = None,
) -> tuple[Calibration, Gains]:
    """The calibration of this graph, made of this data, with how the weights of its layers are
    rounded to so many bits (None: those of `narrow_widths`), and what that gains on samples that
    it was not made of. A layer that gains nothing there keeps the nearest codes, and so does one
    whose outputs have more than 4608 inputs."""
    widths = tuple(narrow_widths() if widths is None else widths)
    scales = scales_of(graph, calibration.spans)
    nodes = [n for n in graph.nodes if is_product(graph, n, scales) and rows_of(graph, n) <= _ROWS]
    seed = calibration.data.seed
    chosen = data.choose(calibration.data.samples, seed)
    of = len(chosen) + len(nodes)
    drawn = draw_columns(model, graph, data, chosen, nodes, seed, shapes, lambda k: progress(k, of))
    rounding: dict[str, dict[int, str]] = {}
    gains: Gains = {}
    for i, (node, columns) in enumerate(zip(nodes, drawn, strict=True)):
        if columns.held_out.size:
            packed, gains[node.name] = _layer(graph, node, scales[node.inputs[0]], columns, widths)
            rounding |= {node.name: packed} if packed else {}
        progress(len(chosen) + i + 1, of)
    return replace(calibration, rounding=rounding), gains


def _layer(
    graph: Graph, node: Node, x: Scale, columns: Columns, widths: Sequence[int]
) -> tuple[dict[int, str], dict[int, tuple[float, float]]]:
    """By width: the differences that gain something, and the errors before and after."""
    weights, bias = operands(graph, node)
    curvature = curvature_of(columns.made_of)
    packed, errors = {}, {}
    for bits in widths:
        nearest, by = weight_codes(weights, bias, x, bits)
        codes = round_weights(weights, by, curvature, bits)
        before, after = (_error(weights, c, by, columns.held_out) for c in (nearest, codes))
        if after < before:
            packed[bits] = pack(codes - nearest)
        errors[bits] = before, min(before, after)
    return packed, errors


def narrow_widths() -> tuple[int, ...]:
    """The widths of weights in bits that kernels are made for, those of 8 aside: with these little
    is gained (docs/QUANTISATION.md)."""
    most = {max(row.when["bits"]) for row in load_kernels().values() if "bits" in row.when}
    return tuple(sorted(most - {BITS}, reverse=True))


def _error(w: np.ndarray, codes: np.ndarray, by: np.ndarray, columns: np.ndarray) -> float:
    """Energy in relation to the outputs', without the mean error, which biases make up for."""
    rows = w.reshape(len(w), -1)
    change = codes.reshape(rows.shape) * by[:, None] - rows
    error, outputs = (
        v.reshape(len(columns), -1, rows.shape[1]) @ columns for v in (change, rows)
    )
    energy = float(np.square(outputs).sum())
    error = float(np.square(error - error.mean(-1, keepdims=True)).sum())
    return error / energy if energy else error
