"""Ranges by what the outputs of the network lose, instead of by the values of a tensor alone.

How much of a range may be clipped depends on what follows: the rare large values of one tensor
decide the answer, those of another are noise. So each tensor, alone in 8 bits, is tried with
several ranges, and the network behind it tells which is best. Errors of tensors are nearly
independent (calibration/sensitivity.py), so that each is chosen by itself. The same measure, over
all tensors at once, is the loss-aware search of Nahshan et al., Loss Aware Post-training
Quantization, 2019 (arXiv:1911.07190).
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from codegen.calibration.cuts import Cut, Cuts, Shapes
from codegen.calibration.data import Data
from codegen.calibration.record import METHODS, OUTPUT, Calibration, Range
from codegen.graph import Graph
from codegen.layer import layer_of
from codegen.ops import OPS
from codegen.passes.scales import MOVES, groups_of, scale_of

_SHARES = (1.0, 0.85, 0.72, 0.61, 0.52, 0.44, 0.37)  # of everything that was seen
_USUAL = "mse"  # also where the network cannot be cut
# Samples: as many as make so many multiply-adds, within limits.
_WORK, _LEAST, _MOST = 25_000_000_000, 24, 256
# After so many runs narrower ranges that are so much worse than the best are given up.
_EARLY, _WORSE = 8, 2.0

Progress = Callable[[int, int], None]
Losses = dict[Range, list[float]]  # of every run


@dataclass(frozen=True)
class _Group:
    """Tensors that share a range; the others are copies of the `roots`."""

    tensors: tuple[str, ...]
    roots: tuple[str, ...]


def with_output_ranges(
    calibration: Calibration,
    model: Path,
    graph: Graph,
    data: Data,
    shapes: Shapes | None = None,
    progress: Progress = lambda done, of: None,
) -> Calibration:
    """The calibration of this graph, made of this data, with the ranges by method "output", which
    becomes the chosen one. Tensors of which the file has no twin, and those that nothing reads,
    keep the range of method "mse"."""
    samples = min(_samples(graph), calibration.data.samples)
    batches = data.batches(data.choose(samples, calibration.data.seed))
    runs = [b.inputs for b in batches]
    # samples of one photograph lie together, and the first ones decide what is given up
    runs = [runs[i] for i in np.random.default_rng(calibration.data.seed).permutation(len(runs))]
    cuts = Cuts(model, shapes, graph, runs[0])
    groups = _groups(calibration, cuts)
    best = {t: ranges[_USUAL] for t, ranges in calibration.tensors.items()}
    for i, group in enumerate(groups):
        best |= dict.fromkeys(group.tensors, _best(calibration, cuts, group, runs))
        progress(i + 1, len(groups))
    tensors = {t: {**ranges, OUTPUT: best[t]} for t, ranges in calibration.tensors.items()}
    return replace(calibration, tensors=tensors, method=OUTPUT)


def _samples(graph: Graph) -> int:
    products = [(n, macs) for n in graph.nodes if (macs := OPS[n.op].macs)]
    macs = sum(macs(layer_of(graph, n, "nchw").dims) for n, macs in products)
    return min(max(_WORK // max(macs, 1), _LEAST), _MOST)


def _groups(calibration: Calibration, cuts: Cuts) -> list[_Group]:
    """Those whose range can matter: a kernel reads codes of them."""
    graph = cuts.graph
    copies = {o for n in graph.nodes if n.op in MOVES or OPS[n.op].view for o in n.outputs}
    read = {t for n in graph.nodes for t in n.reads}
    out = []
    for tensors in groups_of(graph, calibration.tensors):
        roots = [t for t in tensors if t not in copies]
        whole = roots and read.issuperset(roots) and cuts.can((), roots)
        if whole and any(calibration.tensors[t]["minmax"] != Range(0.0, 0.0) for t in roots):
            out.append(_Group(tuple(tensors), tuple(roots)))
    return out


def _candidates(calibration: Calibration, group: _Group) -> list[Range]:
    """The range of method "mse", those of the others, and shares of everything that was seen."""

    def joined(method: str) -> Range:
        ranges = [calibration.tensors[t][method] for t in group.tensors]
        return Range(min(r.low for r in ranges), max(r.high for r in ranges))

    full = joined("minmax")
    shares = [Range.around(full.low * s, full.high * s) for s in _SHARES]
    return list(dict.fromkeys((joined(_USUAL), *map(joined, METHODS), *shares)))


def _best(
    calibration: Calibration, cuts: Cuts, group: _Group, runs: Sequence[Mapping[str, np.ndarray]]
) -> Range:
    """The range with which the outputs lose least."""
    ranges = _candidates(calibration, group)
    usual, losses = ranges[0], {span: list[float]() for span in ranges}
    cut = Cut(cuts, (), group.roots)
    for inputs in runs:
        sample = cut.sample(inputs)
        for span, found in losses.items():
            made = {t: _coded(sample.values[t], span) for t in group.roots}
            found.append(cut.loss(sample, made))
        losses = _kept(losses, usual)
    return min(losses, key=lambda span: _gain(losses, span, usual))


def _kept(losses: Losses, usual: Range) -> Losses:
    """Without ranges that clip too much. Those wider than the best are kept: rounding costs about
    the same in every run, but what is clipped may be in one that is still to come."""
    if len(losses[usual]) < _EARLY:
        return losses
    best = min(losses, key=lambda span: sum(losses[span]))
    most = _WORSE * sum(losses[best])
    return {
        span: found for span, found in losses.items()
        if span == usual or _width(span) >= _width(best) or sum(found) <= most
    }  # fmt: skip


def _width(span: Range) -> float:
    return span.high - span.low


def _gain(losses: Losses, span: Range, usual: Range) -> float:
    """What a range loses more than the usual one, less where that is sure: the mean of the
    differences and its standard error."""
    more = np.subtract(losses[span], losses[usual])
    if span == usual or len(more) < 2:
        return 0.0 if span == usual else np.inf
    return float(np.mean(more) + np.std(more, ddof=1) / np.sqrt(len(more)))


def _coded(value: np.ndarray, span: Range) -> np.ndarray:
    """What codes of 8 bits leave of a tensor."""
    at = scale_of(span.low, span.high)
    codes = np.clip(np.rint(value / np.float32(at.scale)) + at.zero, -128, 127)
    return ((codes - at.zero) * np.float32(at.scale)).astype(value.dtype)
