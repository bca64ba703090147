"""A network over a user's data: the range of every activation."""

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

import numpy as np

from codegen.calibration.activations import Activations
from codegen.calibration.data import Data
from codegen.calibration.histogram import Histogram
from codegen.calibration.methods import all_ranges
from codegen.calibration.outputs import with_output_ranges
from codegen.calibration.record import OUTPUT, SEEN, Calibration, DataRecord, check_method, run_hash
from codegen.errors import CodegenError
from codegen.graph import Graph
from codegen.passes.quantise import PRODUCTS
from codegen.pipeline import model_hash

FEW = 8  # samples; ranges of fewer are a matter of luck
Shapes = Mapping[str, Sequence[int]]
Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class Settings:
    """`samples` are drawn at random by `seed` where there are more (None: all are used);
    `percentile` is that of the method of this name, above 50 and at most 100."""

    method: str = "mse"
    percentile: float = 99.99
    samples: int | None = None
    seed: int = 0


def check_settings(settings: Settings) -> None:
    """CodegenError, in the words of the command line, for what means nothing."""
    check_method(settings.method, "--method")
    if not 50 < settings.percentile <= 100:
        raise CodegenError(
            "--percentile", f"{settings.percentile:g}", "above 50, at most 100", "e.g. 99.99"
        )
    if settings.samples is not None and settings.samples < 1:
        raise CodegenError("--samples", f"{settings.samples}", "1 or more", "choose more")


def calibrate(
    model: Path,
    graph: Graph,
    data: Data,
    settings: Settings,
    shapes: Shapes | None = None,
    progress: Progress = lambda done, of: None,
) -> Calibration:
    """The ranges of all activations of `graph`, which is `codegen.pipeline.load_graph` of `model`
    and `shapes`. Holds the activations of one run at a time. `progress` is told what is done, of
    how much."""
    check_settings(settings)
    chosen = data.choose(settings.samples, settings.seed)
    batches = data.batches(chosen)
    first = next(batches)
    activations = Activations(model, shapes, graph, first.inputs)
    digest, seen = hashlib.sha256(), []
    histograms = dict.fromkeys(activations.names, Histogram())
    read = {n.inputs[0] for n in graph.nodes if n.op in PRODUCTS}.intersection(histograms)
    sums: dict[str, np.ndarray] = {}
    lost = dict(activations.sources.missing)
    done = runs = 0
    of = len(chosen) * (2 if settings.method == OUTPUT else 1)  # the second half is a guess
    for batch in chain([first], batches):
        runs += 1
        seen.append(run_hash(batch.inputs))
        digest.update(seen[-1].encode())
        for name, value in activations.run(batch.inputs).items():
            if not np.isfinite(value).all():
                lost.setdefault(name, f"NaN or infinity for sample {batch.samples[0]}")
            elif name not in lost:
                histograms[name] = histograms[name].add(value)
                if name in read:
                    sums[name] = sums.get(name, 0.0) + _channel_sums(value)
        done += len(batch.samples)
        progress(done, of)
    found = Calibration(
        model_hash(model, shapes),
        settings.method,
        settings.percentile,
        DataRecord(
            data.files, len(chosen), settings.seed, data.half, data.preprocess, digest.hexdigest(),
            tuple(h[:SEEN] for h in seen),
        ),
        {n: all_ranges(h, settings.percentile) for n, h in histograms.items() if n not in lost},
        lost,
        means={
            n: tuple(_short(total * graph.tensors[n].shape[1] / (runs * graph.tensors[n].size)))
            for n, total in sums.items() if n not in lost
        },
    )  # fmt: skip
    if settings.method != OUTPUT:
        return found
    return with_output_ranges(
        found, model, graph, data, shapes, lambda k, groups: progress(done + k * done // groups, of)
    )


def _channel_sums(value: np.ndarray) -> np.ndarray:
    """[C], of a tensor with its channels in dimension 1."""
    return value.sum(axis=(0, *range(2, value.ndim)), dtype=np.float64)


def _short(values: np.ndarray) -> list[float]:
    """To six digits, for the file."""
    return [float(f"{v:.6g}") for v in values]
