"""What the outputs of a network lose when one layer alone is computed in int8.

Errors of layers are nearly independent of each other, so that their energies add up: the sum of
these losses is what a search expects of a plan, before it measures the plan itself (as the error
term of Q. Wu et al. and of HAWQ's perturbations; Dong et al. 2019, arXiv:1905.03696).
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from codegen.calibration.corrections import NONE, Corrections
from codegen.calibration.data import Data
from codegen.calibration.record import Calibration
from codegen.graph import Graph, Node
from codegen.interpret import evaluate, evaluate_node, wide
from codegen.ops.quantised import BITS
from codegen.passes.integer_forms import FORMS
from codegen.passes.quantise import PRODUCTS, quantise
from codegen.passes.scales import Span
from codegen.types import WIDTHS

Inputs = Mapping[str, np.ndarray]
Losses = dict[str, dict[int, float]]  # by node and width of its weights


@dataclass(frozen=True)
class _Variant:
    """The network with one node in int8: what must be computed again, in order."""

    name: str
    bits: int
    graph: Graph
    nodes: tuple[Node, ...]


def with_sensitivity(
    calibration: Calibration,
    graph: Graph,
    data: Data,
    count: int,
    progress: Callable[[int, int], None] = lambda done, of: None,
    widths: Iterable[int] = WIDTHS,
) -> Calibration:
    """The calibration of this graph with the losses of its layers, over `count` samples drawn from
    the data that it was made of, with weights of so many bits."""
    batches = data.batches(data.choose(count, calibration.data.seed))
    samples = [b.inputs for b in batches]
    losses = sensitivities(
        graph, calibration.spans, samples, widths, progress, calibration.corrections
    )
    return replace(calibration, sensitivity=losses)


def sensitivities(
    graph: Graph,
    spans: Mapping[str, Span],
    samples: Sequence[Inputs],
    widths: Iterable[int],
    progress: Callable[[int, int], None] = lambda done, of: None,
    corrections: Corrections = NONE,
) -> Losses:
    """Per layer that can be in int8 and does more than move codes, and width of its weights in bits
    (8 where it has none): the energy of the error of the float outputs in relation to their own,
    mean over the samples. Computed with the numpy references, in float64 but for the layer."""
    variants = [
        v for node in graph.nodes if node.op in (*PRODUCTS, *FORMS)
        for bits in (widths if node.op in PRODUCTS else (BITS,))
        if (v := _variant(graph, spans, node.name, bits, corrections))
    ]  # fmt: skip
    sums = dict.fromkeys(((v.name, v.bits) for v in variants), 0.0)
    for k, inputs in enumerate(samples):
        values = evaluate(graph, inputs)
        for i, variant in enumerate(variants):
            sums[variant.name, variant.bits] += _loss(variant, values) / len(samples)
            progress(k * len(variants) + i + 1, len(samples) * len(variants))
    out: Losses = {}
    for (name, bits), loss in sums.items():
        out.setdefault(name, {})[bits] = loss
    return out


def _variant(
    graph: Graph, spans: Mapping[str, Span], name: str, bits: int,
    corrections: Corrections,
) -> _Variant | None:  # fmt: skip
    """None where the node stays float."""
    made = quantise(graph, spans, lambda _graph, _node: True, {name: bits}, corrections)
    old = {id(n) for n in graph.nodes}
    changed: set[str] = set()
    again = []
    for node in made.nodes:
        if id(node) not in old or changed.intersection(node.reads):
            again.append(node)
            changed.update(node.outputs)
    return _Variant(name, bits, made, tuple(again)) if again else None


def _loss(variant: _Variant, floats: Mapping[str, np.ndarray]) -> float:
    graph = variant.graph
    values = {**floats, **{t: wide(v) for t, v in graph.constants.items() if t not in floats}}
    with np.errstate(all="ignore"):
        for node in variant.nodes:
            evaluate_node(graph, node, values)
    error = energy = 0.0
    for name in graph.outputs:
        if graph.tensors[name].dtype.numpy.kind == "f":
            error += float(np.square(values[name] - floats[name]).sum())
            energy += float(np.square(floats[name]).sum())
    return error / energy if energy else error
