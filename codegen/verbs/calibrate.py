"""codegen calibrate: the range of every activation over a user's data, for int8."""

import os
from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory

import click
import numpy as np

from codegen.calibration.collect import FEW, Settings, check_settings
from codegen.calibration.collect import calibrate as run
from codegen.calibration.data import open_data
from codegen.calibration.record import (
    CHOICES,
    METHODS,
    OUTPUT,
    Calibration,
    Range,
    read_calibration,
)
from codegen.calibration.rounding import Gains, with_rounding
from codegen.calibration.sensitivity import with_sensitivity
from codegen.compare import difference
from codegen.errors import CodegenError
from codegen.models.fetch import write_atomically
from codegen.onnx_equalise import Equalised, equalised
from codegen.pipeline import Shapes, load_graph, model_hash
from codegen.reference import Reference
from codegen.verbs.options import (
    JSON,
    MODEL,
    SHAPE,
    console,
    parse_shapes,
    print_rows,
    verbosity,
)
from codegen.verbs.progress import counted

_SAME = 1e-3  # of the largest output: weights are rounded to float32 again


@click.command()
@MODEL
@click.option(
    "--data",
    "paths",
    multiple=True,
    type=click.Path(path_type=Path),
    help="Samples: a .npz (an array per input, or one), a .npy, an image, or a folder of these. "
    "Repeatable.",
)
@click.option(
    "--method",
    default="mse",
    show_default=True,
    metavar="|".join(CHOICES),
    help="Which of the ranges a build takes. output tries several for each tensor and takes those "
    "by which the outputs lose least: it loses least and takes minutes. The others are of a "
    "tensor's values alone, and all in the file.",
)
@click.option(
    "--percentile",
    default=99.99,
    show_default=True,
    help="How much of a tensor method percentile keeps, at either end.",
)
@click.option(
    "--preprocess",
    default="",
    metavar="SPEC",
    help="What is done to images and arrays, in this order, e.g. resize=256,crop=224,scale=1/255,"
    "mean=0.485:0.456:0.406,std=0.229:0.224:0.225,bgr.",
)
@click.option(
    "--samples",
    type=int,
    default=1000,
    show_default=True,
    help="Use at most so many samples, drawn at random.",
)
@click.option("--seed", default=0, type=click.IntRange(0), show_default=True, help="Of the draw.")
@click.option(
    "--half",
    type=int,
    help="Use only half 0 or 1 of the data, so that the other is left to test on. Samples with the "
    "same `group` in a .npz are in the same half.",
)
@click.option(
    "--equalise",
    type=click.Path(path_type=Path, dir_okay=False),
    metavar="FILE",
    help="First make the channels of layers that follow each other alike in range; write that "
    "network, which computes the same, to FILE (.onnx) and calibrate it in place of MODEL.",
)
@click.option(
    "--round-weights",
    is_flag=True,
    help="Also round weights of fewer than 8 bits, not to the nearest, but so that what each layer "
    "computes over the samples changes least (GPTQ); builds, searches and --sensitivity take that.",
)
@click.option(
    "--sensitivity",
    type=click.IntRange(0),
    default=0,
    metavar="N",
    help="Also measure, over N of the samples, what the outputs lose when one layer alone is in "
    "int8, with weights of 8 to 4 bits: what `codegen tune` needs to keep within a loss.",
)
@SHAPE
@click.option(
    "--out",
    type=click.Path(path_type=Path, dir_okay=False),
    default=Path("calibration.json"),
    show_default=True,
    help="Write the ranges to this file, wholly or not at all.",
)
@JSON
@verbosity
def calibrate(
    model: Path,
    paths: tuple[Path, ...],
    method: str,
    percentile: float,
    preprocess: str,
    samples: int,
    seed: int,
    half: int | None,
    equalise: Path | None,
    round_weights: bool,
    sensitivity: int,
    shapes: tuple[str, ...],
    out: Path,
    as_json: bool,
    quiet: bool,
    verbose: bool,
) -> int:
    """Run MODEL in float32 over samples of what it will see, and record which values each
    activation takes: what int8 kernels need to know. docs/QUANTISATION.md says more.

    Equal data and seed give the same file.
    """
    settings = Settings(method, percentile, samples, seed)
    check_settings(settings)
    pinned = parse_shapes(shapes)
    graph = load_graph(model, pinned)
    data = open_data(paths, [graph.tensors[t] for t in graph.inputs], preprocess, half)
    _check_out(out, "--out")
    made: Equalised | None = None
    if equalise:
        _check_apart(equalise, model, out, *paths)
        sample = next(data.batches([0])).inputs
        made = _equalise(model, pinned, equalise, sample)
        model, pinned = equalise, {}  # its shapes are in the file
        graph = load_graph(model)
    lost = _lost(out, model_hash(model, pinned), round_weights, bool(sensitivity))
    with counted(quiet, "calibrating") as progress:
        found = run(model, graph, data, settings, pinned, progress)
    gains: Gains = {}
    if round_weights:
        with counted(quiet, "rounding weights") as progress:
            found, gains = with_rounding(found, model, graph, data, pinned, progress)
    if sensitivity:
        with counted(quiet, "layers one by one") as progress:
            found = with_sensitivity(found, model, graph, data, sensitivity, pinned, progress)
    _write(out, found.to_json().encode(), "--out")
    show = console(quiet)
    if found.data.samples < FEW:
        show.print(
            f"warning: {found.data.samples} sample(s) say little about a range; "
            f"{FEW} are few, some hundred are usual"
        )
    for name in graph.inputs:
        if found.tensors.get(name, {}).get("minmax") == Range(0.0, 0.0):
            show.print(f"warning: input {name} is 0 in all samples", markup=False)
    if lost:
        show.print(f"note: {out} had {lost}", markup=False)
    for tensor, why in found.not_calibrated.items():
        show.print(f"not calibrated: {tensor}: {why}", markup=False)
    if as_json:
        click.echo(found.to_json(), nl=False)
        return 0
    if verbose:
        print_rows(_pairs(made))
        print_rows(_rows(found))
        print_rows(_gained(gains))
        print_rows(_losses(found))
    if made:
        show.print(f"{len(made.pairs)} pair(s) of layers equalised in {equalise}: build, tune and "
                   "judge that file", markup=False)  # fmt: skip
    rounded = f", weights of {len(found.rounding)} layer(s) rounded" if round_weights else ""
    show.print(
        f"{model.name}: {len(found.tensors)} tensors over {found.data.samples} sample(s), "
        f"method {method}{rounded}, in {out}", markup=False,
    )  # fmt: skip
    return 0


def _check_apart(out: Path, *others: Path) -> None:
    """Before the work: what is written replaces nothing else of it."""
    _check_out(out, "--equalise")
    for other in others:
        if out.resolve() == other.resolve():
            raise CodegenError(
                "--equalise", f"{out} is another file of this command, too",
                "a file of its own", "choose another name",
            )  # fmt: skip


def _equalise(
    model: Path, shapes: Shapes, out: Path, sample: Mapping[str, np.ndarray]
) -> Equalised:
    """Write the network with its channels alike, if that computes the same of a sample."""
    made = equalised(model, shapes)
    with TemporaryDirectory(prefix="codegen-equalise-") as folder:
        path = Path(folder) / out.name
        path.write_bytes(made.model.SerializeToString())
        before, after = (Reference(m, s).run(sample) for m, s in ((model, shapes), (path, {})))
    off = max((difference(after[t], before[t]).max_rel for t, y in before.items()
               if y.dtype.kind == "f"), default=0.0)  # fmt: skip
    if off > _SAME:
        raise CodegenError(
            str(model), f"equalised it would compute something else (off by {off:.3g})",
            f"results alike to {_SAME:g}", "calibrate without --equalise, and report this",
        )  # fmt: skip
    _write(out, made.model.SerializeToString(), "--equalise")
    return made


def _check_out(out: Path, option: str) -> None:
    """Before the work."""
    folder = next(p for p in out.absolute().parents if p.exists())
    if not (folder.is_dir() and os.access(folder, os.W_OK)):
        raise CodegenError(
            option, f"{out} cannot be written ({folder} is no folder that can be written to)",
            "a file in a writable folder", "choose another",
        )  # fmt: skip


def _lost(out: Path, sha256: str, rounding: bool, sensitivity: bool) -> str:
    """What a calibration that is there has and the new one will not."""
    try:
        before = read_calibration(out)
    except CodegenError:
        return ""
    if before.model_sha256 != sha256:
        return "the calibration of another model, which is gone"
    had = [("rounded weights", before.rounding and not rounding),
           ("losses of layers", before.sensitivity and not sensitivity)]  # fmt: skip
    lost = " and ".join(n for n, gone in had if gone)
    return lost and f"{lost} of this model, which are gone: not asked for"


def _write(out: Path, data: bytes, option: str) -> None:
    try:
        write_atomically(out, data)
    except OSError as e:
        raise CodegenError(
            option, f"{out} cannot be written ({e.strerror})", "a file in a writable folder",
            "choose another",
        ) from None  # fmt: skip


def _pairs(made: Equalised | None) -> list[dict[str, str]]:
    """Which products were equalised, and why others were not."""
    if made is None:
        return []
    ranges = [{"equalised": f"{p.first} and {p.second}",
               "largest channel / smallest": f"{p.before:.3g} -> {p.after:.3g}"}
              for p in made.pairs]  # fmt: skip
    return [*ranges, *({"equalised": f"not {name}", "largest channel / smallest": why}
                       for name, why in made.left.items())]  # fmt: skip


def _gained(gains: Gains) -> list[dict[str, str]]:
    """What rounding to the nearest costs a layer's outputs, and what the chosen one does."""
    return [
        {"layer": name, **{f"{b} bits": f"{a:.2e} -> {z:.2e}" for b, (a, z) in at.items()}}
        for name, at in gains.items()
    ]


def _losses(found: Calibration) -> list[dict[str, str]]:
    """What the outputs lose by each layer, the most sensitive first."""
    worst = sorted(found.sensitivity.items(), key=lambda p: -max(p[1].values()))
    return [
        {"layer": name, **{f"{b} bits": f"{v:.2e}" for b, v in at.items()}} for name, at in worst
    ]


def _rows(found: Calibration) -> list[dict[str, str]]:
    """The ranges of every method that was used, the chosen one first."""
    known = CHOICES if found.method == OUTPUT else METHODS
    methods = sorted(known, key=lambda m: m != found.method)
    return [
        {"tensor": name, **{m: f"{ranges[m].low:.4g} .. {ranges[m].high:.4g}" for m in methods}}
        for name, ranges in found.tensors.items()
    ]
