"""What the outputs of a network lose when one layer alone is computed in int8.

Errors of layers are nearly independent of each other, so that their energies add up: the sum of
these losses is what a search expects of a plan, before it measures the plan itself (as the error
term of Q. Wu et al. and of HAWQ's perturbations; Dong et al. 2019, arXiv:1905.03696).
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from itertools import chain, groupby
from pathlib import Path

import numpy as np

from codegen.board import load_board
from codegen.calibration.corrections import NONE, Corrections
from codegen.calibration.cuts import Cut, Cuts, Shapes
from codegen.calibration.data import Data
from codegen.calibration.record import Calibration
from codegen.graph import Graph, Node
from codegen.interpret import Values, evaluate, evaluate_node, wide
from codegen.ops.quantised import BITS
from codegen.passes.integer_forms import FORMS
from codegen.passes.quantise import PRODUCTS, quantise
from codegen.passes.scales import Span
from codegen.precision import int8_rows
from codegen.types import WIDTHS

Inputs = Mapping[str, np.ndarray]
Progress = Callable[[int, int], None]
Losses = dict[str, dict[int, float]]  # by node and width of its weights


@dataclass(frozen=True)
class _Variant:
    """The network with one node in int8: what is `new` in it, and all that must be computed again,
    in order."""

    name: str
    bits: int
    graph: Graph
    new: tuple[Node, ...]
    nodes: tuple[Node, ...]

    @property
    def makes(self) -> tuple[str, ...]:
        """Tensors of the float network that what is new makes."""
        made = dict.fromkeys(t for n in self.new for t in n.outputs if t)
        return tuple(t for t in made if self.graph.tensors[t].dtype.numpy.kind == "f")

    @property
    def reads(self) -> tuple[str, ...]:
        """And those that it reads."""
        made = {t for n in self.new for t in n.outputs}
        read = dict.fromkeys(t for n in self.new for t in n.reads if t not in made)
        return tuple(t for t in read if t not in self.graph.constants)


def with_sensitivity(
    calibration: Calibration,
    model: Path,
    graph: Graph,
    data: Data,
    count: int,
    shapes: Shapes | None = None,
    progress: Progress = lambda done, of: None,
    widths: Iterable[int] = WIDTHS,
) -> Calibration:
    """The calibration of this graph with the losses of its layers, over `count` samples drawn from
    the data that it was made of, with weights of so many bits."""
    batches = data.batches(data.choose(count, calibration.data.seed))
    samples = [b.inputs for b in batches]
    cuts = Cuts(model, shapes, graph, samples[0])
    losses = sensitivities(
        graph, calibration.spans, samples, widths, progress, calibration.corrections, cuts
    )
    return replace(calibration, sensitivity=losses)


def sensitivities(
    graph: Graph,
    spans: Mapping[str, Span],
    samples: Sequence[Inputs],
    widths: Iterable[int],
    progress: Progress = lambda done, of: None,
    corrections: Corrections = NONE,
    cuts: Cuts | None = None,
) -> Losses:
    """Per layer that can be in int8 and does more than move codes, and width of its weights in bits
    (8 where it has none): the energy of the error of the float outputs in relation to their own,
    mean over the samples. The layer is computed with the numpy references, what follows it by
    onnxruntime where there are `cuts`, else in float64."""
    variants = [
        v for node in graph.nodes if node.op in (*PRODUCTS, *FORMS)
        for bits in (widths if node.op in PRODUCTS else (BITS,))
        if (v := _variant(graph, spans, node.name, bits, corrections))
    ]  # fmt: skip
    sums = {(v.name, v.bits): 0.0 for v in variants}
    nodes = list(_by_node(variants, cuts))
    found = chain(
        *(_behind_cut(cuts, at, samples) for can, at in nodes if can and cuts),
        _one_by_one(graph, [v for can, at in nodes if not can for v in at], samples),
    )
    for done, (variant, loss) in enumerate(found):
        sums[variant.name, variant.bits] += loss / len(samples)
        progress(done + 1, len(samples) * len(variants))
    out: Losses = {}
    for (name, bits), loss in sums.items():
        out.setdefault(name, {})[bits] = loss
    return out


def _by_node(
    variants: Sequence[_Variant], cuts: Cuts | None
) -> Iterator[tuple[bool, list[_Variant]]]:
    """The variants of each node, and whether the network can be cut behind it."""
    for _, group in groupby(variants, key=lambda v: v.name):
        found = list(group)
        yield bool(cuts and cuts.can(found[0].reads, found[0].makes)), found


def _behind_cut(
    cuts: Cuts, variants: Sequence[_Variant], samples: Sequence[Inputs]
) -> Iterator[tuple[_Variant, float]]:
    """Losses of the variants of one node, by sample."""
    cut = Cut(cuts, variants[0].reads, variants[0].makes)
    for inputs in samples:
        sample = cut.sample(inputs)
        for variant in variants:
            known = {**variant.graph.constants, **sample.values}
            read = {t for n in variant.new for t in n.reads}.intersection(known)
            values = {t: wide(known[t]) for t in read}
            _evaluate(variant.graph, variant.new, values)
            yield variant, cut.loss(sample, {t: values[t] for t in variant.makes})


def _one_by_one(
    graph: Graph, variants: Sequence[_Variant], samples: Sequence[Inputs]
) -> Iterator[tuple[_Variant, float]]:
    """The same of any variants, wholly with the numpy references."""
    for inputs in samples if variants else ():
        values = evaluate(graph, inputs)
        for variant in variants:
            yield variant, _loss(variant, values)


def _evaluate(graph: Graph, nodes: Iterable[Node], values: Values) -> None:
    with np.errstate(all="ignore"):
        for node in nodes:
            evaluate_node(graph, node, values)


def _variant(
    graph: Graph, spans: Mapping[str, Span], name: str, bits: int,
    corrections: Corrections,
) -> _Variant | None:  # fmt: skip
    """None where the node stays float."""
    made = quantise(graph, spans, _able, {name: bits}, corrections)
    old = {id(n) for n in graph.nodes}
    changed: set[str] = set()
    again = []
    for node in made.nodes:
        if id(node) not in old or changed.intersection(node.reads):
            again.append(node)
            changed.update(node.outputs)
    new = tuple(n for n in again if id(n) not in old)
    return _Variant(name, bits, made, new, tuple(again)) if again else None


def _able(graph: Graph, node: Node) -> bool:
    """Everything could be in int8 on some board; what is not rounded to codes is as on those with
    NEON and no more."""
    return not node.attrs.get("reals") or _neon()(graph, node)


@cache
def _neon() -> Callable[[Graph, Node], bool]:
    return int8_rows(load_board("local"))


def _loss(variant: _Variant, floats: Mapping[str, np.ndarray]) -> float:
    graph = variant.graph
    values = {**floats, **{t: wide(v) for t, v in graph.constants.items() if t not in floats}}
    _evaluate(graph, variant.nodes, values)
    error = energy = 0.0
    for name in graph.outputs:
        if graph.tensors[name].dtype.numpy.kind == "f":
            error += float(np.square(values[name] - floats[name]).sum())
            energy += float(np.square(floats[name]).sum())
    return error / energy if energy else error
