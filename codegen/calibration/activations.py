"""The activations of the optimised graph, from onnxruntime on the user's own file.

A pass may leave a tensor its name and give it another meaning: where a batch norm is folded into
the convolution before it, the convolution's result is what was the batch norm's. So each tensor is
looked for by its value on one sample, as our interpreter computes it, and its name only says where
to look first.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from codegen.graph import Graph, Node
from codegen.interpret import Values, evaluate, evaluate_node
from codegen.layer import layer_of
from codegen.onnx_file import made_tensors
from codegen.ops import OPS
from codegen.reference import Reference
from codegen.types import DType

# Of the largest magnitude; far above the rounding of sums, far below what a folded scale changes.
_TOLERANCE = {DType.F32: 1e-3, DType.F16: 5e-2}
# Multiply-adds per sample that the interpreter may do: a fifth of a second.
_MOST_WORK = 100_000_000

Inputs = Mapping[str, np.ndarray]
Shapes = Mapping[str, Sequence[int]]


@dataclass(frozen=True)
class Sources:
    """Where the activations of a graph come from: graph tensor -> tensor of the file; the nodes
    that our interpreter computes; and tensors that neither gives, with the reason."""

    file: Mapping[str, str]
    computed: tuple[Node, ...]
    missing: Mapping[str, str]


def activation_names(graph: Graph) -> tuple[str, ...]:
    """The floating point tensors (float32, float16) that kernels read and write, inputs first."""
    made = dict.fromkeys((*graph.inputs, *(o for n in graph.nodes for o in n.outputs if o)))
    return tuple(
        t for t in made if graph.tensors[t].dtype in _TOLERANCE and t not in graph.constants
    )


class Activations:
    """Runs a network and gives all activations of its optimised graph, by their names there.
    `sample`, one run's inputs, is what the tensors are recognised with."""

    def __init__(self, model: Path, shapes: Shapes | None, graph: Graph, sample: Inputs):
        self.sources = find_sources(model, shapes, graph, sample)
        self.names = tuple(t for t in activation_names(graph) if t not in self.sources.missing)
        self._graph = graph
        self._reference = Reference(model, shapes, sorted({*self.sources.file.values()}))
        self._read = {t for node in self.sources.computed for t in node.reads}

    def run(self, inputs: Inputs) -> dict[str, np.ndarray]:
        """The activations for one run's inputs, float32 or float16 (float64 where our interpreter
        computes them)."""
        found = self._reference.run(inputs)
        values: Values = {t: np.asarray(inputs[t]) for t in self._graph.inputs}
        for name, source in self.sources.file.items():
            values[name] = found[source].reshape(self._graph.tensors[name].shape)
        values |= self._computed(values)
        return {name: values[name] for name in self.names}

    def _computed(self, values: Values) -> Values:
        given = {t: v for t, v in {**self._graph.constants, **values}.items() if t in self._read}
        out = {t: v.astype(np.float64) if v.dtype.kind == "f" else v for t, v in given.items()}
        with np.errstate(all="ignore"):
            for node in self.sources.computed:
                evaluate_node(self._graph, node, out)
        return {t: v for t, v in out.items() if t not in given}


def find_sources(model: Path, shapes: Shapes | None, graph: Graph, sample: Inputs) -> Sources:
    """Recognise every tensor by its value on one sample."""
    sample = {name: _telling(value) for name, value in sample.items()}
    wanted = [o for n in graph.nodes for o in n.outputs if o and o not in graph.constants]
    theirs = Reference(model, shapes, wanted).run(sample)  # first: it may refuse the values
    ours = evaluate(graph, sample)
    file = {t: t for t in wanted if t in theirs and _same(graph, t, theirs[t], ours[t])}
    if len(file) < len(wanted):
        everything = Reference(model, shapes, made_tensors(model)).run(sample)
        for t in wanted:
            if t not in file and ours[t].size and np.ptp(ours[t].astype(np.float64)):
                twin = next((k for k, v in everything.items() if _same(graph, t, v, ours[t])), "")
                file |= {t: twin} if twin else {}
    return _rest(graph, file)


def _telling(value: np.ndarray) -> np.ndarray:
    """Noise instead of floats that are all equal, of which too many tensors would look alike."""
    if value.dtype.kind != "f" or value.size < 2 or np.ptp(value):
        return value
    return np.random.default_rng(0).standard_normal(value.shape).astype(value.dtype)


def _same(graph: Graph, name: str, theirs: np.ndarray, ours: np.ndarray) -> bool:
    """Equal to rounding, whatever the shapes."""
    if not isinstance(theirs, np.ndarray) or theirs.size != ours.size:
        return False
    if theirs.dtype != graph.tensors[name].dtype.numpy:
        return False
    a, b = theirs.reshape(-1), ours.reshape(-1)
    tolerance = _TOLERANCE.get(graph.tensors[name].dtype, 0.0)
    if not tolerance:
        return bool(np.array_equal(a, b))
    finite = np.isfinite(b)
    if not np.array_equal(np.isfinite(a), finite):
        return False
    scale = np.abs(b[finite]).max(initial=0.0)
    return bool(np.abs(a[finite] - b[finite]).max(initial=0.0) <= tolerance * scale)


def _rest(graph: Graph, file: Mapping[str, str]) -> Sources:
    """What the file does not have is computed as long as it is little work."""
    known = {*file, *graph.inputs, *graph.constants}
    computed, missing, spent = [], {}, 0
    for node in graph.nodes:
        lacking = [o for o in node.outputs if o and o not in known]
        if not lacking:
            continue
        unknown = next((t for t in node.reads if t not in known), "")
        work = _work(graph, node)
        if unknown:
            why = f"the ONNX file has no such tensor, and it depends on {unknown!r}"
        elif spent + work > _MOST_WORK:
            why = f"the ONNX file has no such tensor, and it takes {work / 1e6:.0f} MMAC per sample"
        else:
            computed.append(node)
            known |= {o for o in node.outputs if o}
            spent += work
            continue
        missing |= dict.fromkeys(lacking, why)
    wanted = set(activation_names(graph))
    return Sources(file, tuple(computed), {t: why for t, why in missing.items() if t in wanted})


def _work(graph: Graph, node: Node) -> int:
    """Multiply-adds, or elements."""
    macs = OPS[node.op].macs
    if macs:
        return macs(layer_of(graph, node, "nchw").dims)
    return sum(graph.tensors[o].size for o in node.outputs if o)
