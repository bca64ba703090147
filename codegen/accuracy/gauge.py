"""Samples that a network is judged by: what the float model makes of them, and what generated C
does."""

import hashlib
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from codegen.accuracy.scores import Outputs, group_numbers
from codegen.board import Board, load_board
from codegen.build import compile_verify
from codegen.calibration.data import Data
from codegen.calibration.record import SEEN, Calibration, run_hash
from codegen.errors import CodegenError
from codegen.pipeline import Generated
from codegen.reference import Reference
from codegen.run import Runner
from codegen.sources import write
from codegen.toolchain import find_toolchain
from codegen.verify import Interface, infer

_CHUNK = 32 << 20  # bytes of inputs that one run gets
_DOUBLES = 0.01  # of the samples may be in the data twice
_RUNS = 2  # at once, where the board is this machine's emulator


@dataclass(frozen=True)
class Gauge:
    """`chosen` samples of `data`, which are read again for each plan. `seen`: the beginning of each
    one's hash; `labels` [n] or None; `groups` [n]: numbers of what is not independent of each
    other; `floats`: what onnxruntime computes of them; `digest`: identity of all that."""

    data: Data
    chosen: tuple[int, ...]
    seen: tuple[str, ...]
    labels: np.ndarray | None
    groups: np.ndarray
    floats: Outputs
    digest: str

    def __len__(self) -> int:
        return len(self.chosen)

    @property
    def independent(self) -> int:
        """How many of the samples are independent of each other."""
        return len(set(self.groups.tolist()))

    def inputs(self, part: slice = slice(None)) -> Iterator[Mapping[str, np.ndarray]]:
        """What the runs over a part of the samples read."""
        return (b.inputs for b in self.data.batches(self.chosen[part]))


def gauge_of(
    model: Path, shapes: Mapping[str, Sequence[int]], data: Data, samples: int | None, seed: int
) -> Gauge:
    """Run the float model over at most so many samples, drawn at random by the seed. CodegenError
    for a network that takes several samples at once."""
    if data.ports[0].batch > 1:
        raise CodegenError(
            str(model), f"a batch of {data.ports[0].batch}", "one sample per run",
            "pin the batch to 1 with --shape",
        )  # fmt: skip
    chosen = data.choose(samples, seed)
    reference, results, seen = Reference(model, shapes), [], []
    digest = hashlib.sha256()
    for batch in data.batches(chosen):
        results.append(reference.run(batch.inputs))
        seen.append(run_hash(batch.inputs)[:SEEN])
        for name, value in sorted(batch.inputs.items()):
            digest.update(name.encode() + np.ascontiguousarray(value).tobytes())
    floats = outputs_of(results)
    digest.update(floats.whole.tobytes())
    labels = None if data.labels is None else data.labels[list(chosen)]
    digest.update(b"" if labels is None else labels.tobytes())
    groups = group_numbers([data.rows[i].group for i in chosen])
    return Gauge(data, chosen, tuple(seen), labels, groups, floats, digest.hexdigest()[:16])


def check_classes(gauge: Gauge, where: str) -> None:
    """CodegenError for labels that are no classes of the first output."""
    classes, labels = gauge.floats.first.shape[1], gauge.labels
    if labels is None:
        return
    numbers = labels.dtype.kind in "iuf"
    wrong = [v for v in labels.tolist() if not (numbers and v == int(v) and 0 <= v < classes)]
    if wrong:
        raise CodegenError(
            where, f"{len(wrong)} of {len(labels)} labels are no class, e.g. {wrong[0]!r}",
            f"whole numbers from 0 to {classes - 1}, one for each element of the first output",
            "mend the labels, or name a --metric that needs none",
        )  # fmt: skip


def outputs_of(results: Sequence[Mapping[str, np.ndarray]]) -> Outputs:
    """A row per sample."""
    first, whole = [], []
    for result in results:
        values = [np.asarray(v).reshape(1, -1) for v in result.values()]
        first.append(values[0])
        whole.append(np.concatenate([v for v in values if v.dtype.kind == "f"] or values, axis=1))
    return Outputs(np.concatenate(first), np.concatenate(whole))


def run_plan(
    gauge: Gauge, interface: Interface, program: Path, runner: Runner, board: Board,
    timeout_s: float,
) -> Outputs | str:  # fmt: skip
    """What the compiled library computes; why it cannot be run, where it cannot."""
    one = sum(t.bytes for t in interface.inputs)
    step = max(1, _CHUNK // max(1, one))
    chunks = [slice(i, i + step) for i in range(0, len(gauge), step)]

    def run(chunk: slice) -> list[dict[str, np.ndarray]]:
        return infer(interface, program, runner, board, list(gauge.inputs(chunk)), timeout_s)

    try:
        with ThreadPoolExecutor(1 if runner.name == "ssh" else _RUNS) as pool:
            return outputs_of([r for found in pool.map(run, chunks) for r in found])
    except RuntimeError as e:
        return str(e)


def judge(
    generated: Generated, gauge: Gauge, board: Board, runner: Runner, timeout_s: float,
    objects: Path | None = None,
) -> Outputs | str:  # fmt: skip
    """Compile a plan's C code and run it on the samples; why it cannot be, where it cannot. Kernels
    that another plan had, too, are taken from the folder `objects`."""
    with tempfile.TemporaryDirectory(prefix="codegen-accuracy-") as name:
        folder, sources = Path(name), generated.sources
        write(sources, folder)
        kept = objects or folder / "objects"
        program = compile_verify(sources, folder, find_toolchain(board), kept)
        if isinstance(program, str):
            return f"does not compile: {program}"
        interface = Interface.of(sources, generated.schedule)
        return run_plan(gauge, interface, program, runner, board, timeout_s)


def native(generated: Generated, runner: Runner) -> Board | None:
    """This machine as the board for a plan's C code, which is many times faster than an emulator:
    where that is what would run it, and SIMDe has all intrinsics that its rows use. Integers come
    out the same; None where there is no such way."""
    here = load_board("local")
    used = {s.kernel.isa for s in generated.schedule.program.steps}
    if runner.name != "qemu" or not used <= {"c", *here.isa}:
        return None
    try:
        find_toolchain(here)
    except CodegenError:
        return None
    return here


def not_known(calibration: Calibration | None) -> str:
    """What to tell where it cannot be known of which samples the ranges were made; else empty."""
    if calibration is None or calibration.data.seen:
        return ""
    return ("note: the calibration does not say on which samples it was made, so that they may be "
            "among these data; calibrate again to have that checked")  # fmt: skip


def check_unseen(gauge: Gauge, calibration: Calibration, where: str) -> None:
    """CodegenError for samples of which the ranges were made: what a network loses is measured on
    others. A file of old has no hashes of them: not_known tells."""
    seen = set(calibration.data.seen)
    known = sum(s in seen for s in gauge.seen)
    if known > _DOUBLES * len(gauge):
        raise CodegenError(
            where,
            f"{known} of {len(gauge)} samples were calibrated on",
            "data that the calibration has not seen",
            "calibrate with --half 0 and measure with --half 1, or give other data",
        )
