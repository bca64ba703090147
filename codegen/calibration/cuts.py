"""A network cut at some of its tensors: what they are, and what the outputs lose where they are
something else. onnxruntime computes both, on the user's own file."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from codegen.calibration.activations import find_sources
from codegen.graph import Graph
from codegen.reference import Reference

Values = Mapping[str, np.ndarray]
Shapes = Mapping[str, Sequence[int]]


@dataclass(frozen=True)
class Sample:
    """One run: its inputs, tensors of the graph, and what the file has."""

    inputs: Values
    values: Values
    known: Values


class Cuts:
    """Where the tensors of a graph are in its file, found with one run's inputs."""

    def __init__(self, model: Path, shapes: Shapes | None, graph: Graph, sample: Values):
        self.model, self.shapes, self.graph = model, shapes, graph
        found = find_sources(model, shapes, graph, sample).file
        self.file = {**{t: t for t in graph.inputs}, **found}

    def can(self, reads: Sequence[str], makes: Sequence[str]) -> bool:
        """Are these tensors in the file, and those to be made no outputs?"""
        return all(t in self.file for t in (*reads, *makes)) and not any(
            t in self.graph.outputs for t in makes
        )


class Cut:
    """Two sessions: to the tensors `reads` and `makes`, which `cuts.can` be had, and from `makes`
    on."""

    def __init__(self, cuts: Cuts, reads: Sequence[str], makes: Sequence[str]):
        self._file, self._tensors = cuts.file, cuts.graph.tensors
        self._names = tuple(dict.fromkeys((*reads, *makes)))
        inside = [t for t in self._names if t not in cuts.graph.inputs]
        types = {self._file[t]: self._tensors[t].dtype for t in makes if t in inside}
        self._head = Reference(cuts.model, cuts.shapes, [self._file[t] for t in inside])
        self._tail = Reference(cuts.model, cuts.shapes, (), types)

    def sample(self, inputs: Values) -> Sample:
        """Run the network."""
        known = {**inputs, **self._head.run(inputs)}
        values = {
            t: known[self._file[t]].reshape(self._tensors[t].shape) for t in self._names
        }  # fmt: skip
        return Sample(inputs, values, known)

    def loss(self, sample: Sample, made: Values) -> float:
        """The energy of the error of the float outputs in relation to their own, where the cut
        takes other values."""
        given = {}
        for t, value in made.items():
            twin = sample.known[self._file[t]]
            given[self._file[t]] = value.reshape(twin.shape).astype(twin.dtype)
        found = self._tail.run({**sample.inputs, **given})
        floats = [o for o in self._tail.outputs if found[o].dtype.kind == "f"]
        error = sum(_energy(found[o] - sample.known[o]) for o in floats)
        energy = sum(_energy(sample.known[o]) for o in floats)
        return error / energy if energy else error


def _energy(value: np.ndarray) -> float:
    return float(np.square(value, dtype=np.float64).sum())
