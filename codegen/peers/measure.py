"""One engine on one network on one board -> one row of figures, or why there are none."""

import json
import math
import statistics
import tempfile
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from codegen.board import Board
from codegen.compare import TOLERANCE, Difference, difference
from codegen.peers.base import Engine, Network, PeerError, Prepared
from codegen.peers.heap import preload
from codegen.peers.portable import portable
from codegen.peers.sysroot import library_path, python, sysroot
from codegen.run import Job, Outcome, Runner
from codegen.run.qemu import QemuRunner

GUEST = Path(__file__).parent / "guest"
RUNS = 200  # at most, by the clock of a real board
MEMORY = -1  # instead of a number of runs: count bytes
# A result beyond our own limit must at least vary as the right one does: outputs that are nearly
# all alike are near to anything.
_CORRELATION = 0.99
# What int8 may lose: it is judged by the direction of the output, not by its largest error.
COSINE = 0.95
WRONG = "wrong result"
_PYTHON = {"PYTHONHOME": "/usr", "PYTHONHASHSEED": "0", "PYTHONDONTWRITEBYTECODE": "1"}


@dataclass(frozen=True)
class Row:
    """`cycles` and `ms` of one inference (ms at the board's clock, or by it), `peak_bytes` of
    heap, arena and weights, `binary_bytes` of engine and model, `weights_bytes` of the
    network's constants, and `packed_bytes` of them as packed, where that is known; `careful`:
    how careful its plan is (codegen/exactness.py). `error` says why a figure is missing.
    `max_rel_error`: of the outputs, also where it is the reason."""

    engine: str
    version: str
    model: str
    core: str
    dtype: str
    threads: int = 1
    cycles: int | None = None
    ms: float | None = None
    peak_bytes: int | None = None
    binary_bytes: int | None = None
    weights_bytes: int | None = None
    packed_bytes: int | None = None
    max_rel_error: float | None = None
    error: str = ""
    careful: int = 0

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


def core_of(board: Board) -> str:
    """cortex-a57 -> a57."""
    return board.core.removeprefix("cortex-")


def measure(
    engine: Engine, network: Network, board: Board, dtype: str, runner: Runner,
    timeout_s: float = 3600.0, qemu: Runner | None = None,
) -> Row:  # fmt: skip
    """Prepare, run, compare the outputs with onnxruntime's, count memory. Never raises for what
    an engine or its converter does. Beside a virtual board, `qemu` does what needs no cycles."""
    row = Row(engine.name, engine.version, network.name, core_of(board), dtype)
    if dtype not in engine.dtypes:
        reason = engine.lacks.get(dtype, f"{dtype} is not set up for this engine")
        return replace(row, error=reason)
    with tempfile.TemporaryDirectory(prefix="codegen-peer-") as folder:
        try:
            prepared = engine.prepare(network, board, dtype, Path(folder))
            plain = (qemu or QemuRunner()) if runner.name == "virtual" else runner
            row = _figures(row, prepared, network, board, runner, timeout_s, plain,
                           engine.tolerance)  # fmt: skip
        except PeerError as e:
            row = replace(row, error=str(e))
    if engine.careful and dtype == "f32" and row.error.startswith(WRONG):
        row = measure(engine.careful, network, board, dtype, runner, timeout_s, qemu)
        return replace(row, careful=row.careful + 1)
    return row


def _figures(
    row: Row, prepared: Prepared, network: Network, board: Board, runner: Runner,
    timeout_s: float, plain: Runner, tolerance: float,
) -> Row:  # fmt: skip
    virtual = runner.name == "virtual"
    job = job_of(prepared, network, board, 0 if virtual else RUNS, timeout_s)
    outcome = _run(runner, job, board)
    cycles, ms = outcome.report.get("cycles"), outcome.report.get("ms")
    if not virtual:
        ms = statistics.median(outcome.report["runs_ns"]) / 1e6
        cycles = round(statistics.median(cycles)) if cycles else None
    worst, wrong = 0.0, ""
    for sample, expected in enumerate((network.expected, *network.also)):
        checked = outcome
        if prepared.checker:
            job = job_of(prepared, network, board, 0, timeout_s, sample)
            checked = _run(
                plain,
                replace(job, program=prepared.checker, args=("in.bin", "out.bin"),
                        outputs=("out.bin",)), board,
            )  # fmt: skip
        elif sample:
            break
        error, wrong = _compare(
            checked.outputs["out.bin"], prepared, expected, row.dtype, tolerance
        )
        worst = max(worst, error)
        if wrong:
            break
    row = replace(row, max_rel_error=worst if math.isfinite(worst) else None)
    if wrong:
        return replace(row, error=wrong)
    peak = prepared.peak_bytes
    if peak is None:
        peak = _run(plain, job_of(prepared, network, board, MEMORY, timeout_s), board).report[
            "peak_bytes"
        ] + prepared.resident_bytes
    return replace(
        row, cycles=cycles, ms=round(ms, 4), peak_bytes=peak,
        binary_bytes=prepared.binary_bytes, packed_bytes=prepared.packed_bytes,
        weights_bytes=network.weights_bytes,
    )  # fmt: skip


def _run(runner: Runner, job: Job, board: Board) -> Outcome:
    if runner.name == "ssh" and job.root:
        job = portable(job, board)
    outcome = runner.run(job, board)
    if outcome.error:
        raise PeerError(outcome.error.strip().splitlines()[-1][:300])
    return outcome


def job_of(
    prepared: Prepared, network: Network, board: Board, runs: int, timeout_s: float,
    sample: int = 0,
) -> Job:  # fmt: skip
    """The job that runs what an engine prepared, `runs` times, on one of the samples."""
    arrays = {t.name: network.samples[sample][t.name] for t in network.inputs}
    if prepared.channels_last:
        arrays = {n: _to_nhwc(a) for n, a in arrays.items()}
    files = dict(prepared.inputs)
    outputs = () if prepared.checker else ("out.bin",)
    if not prepared.script:
        files["in.bin"] = b"".join(np.ascontiguousarray(a).tobytes() for a in arrays.values())
        return Job(prepared.program, (str(runs),), files, outputs, timeout_s, env=prepared.env)
    task: dict[str, Any] = {"runs": runs, "outputs": list(network.expected), "inputs": []}
    for i, (name, array) in enumerate(arrays.items()):
        files[f"in{i}.bin"] = np.ascontiguousarray(array).tobytes()
        task["inputs"].append({"name": name, "file": f"in{i}.bin", "dtype": str(array.dtype),
                               "shape": list(array.shape)})  # fmt: skip
    files["task.json"] = json.dumps(task).encode()
    for name in ("board.py", prepared.script):
        files[name] = (GUEST / name).read_bytes()
    root = sysroot(board, prepared.wheels)
    path = ":".join(library_path(prepared.wheels))
    env = {**_PYTHON, "PYTHONPATH": path, **prepared.env}
    if runs == MEMORY:
        counter = preload(board)
        files[counter.name] = counter.read_bytes()
        env["LD_PRELOAD"] = f"./{counter.name}"
    return Job(python(root), (prepared.script,), files, ("out.bin",), timeout_s, root, env)


def _to_nhwc(array: np.ndarray) -> np.ndarray:
    return array.transpose(0, 2, 3, 1) if array.ndim == 4 else array


def _compare(
    data: bytes, prepared: Prepared, expected: Mapping[str, np.ndarray], dtype: str,
    tolerance: float,
) -> tuple[float, str]:  # fmt: skip
    """Largest relative error, and what is wrong with it, if anything."""
    worst, at = 0.0, 0
    for name, value in expected.items():
        wanted = _to_nhwc(value) if prepared.channels_last else value
        got = np.frombuffer(data, np.float32, offset=at)[: wanted.size]
        at += 4 * wanted.size
        if got.size != wanted.size:
            return worst, f"{WRONG}: output {name!r} has too few elements"
        wanted = np.ascontiguousarray(wanted).reshape(-1)
        d = difference(got, wanted)
        worst = max(worst, d.max_rel)
        good = _exact(d, got, wanted, tolerance) if dtype == "f32" else d.cosine >= COSINE
        if not good:
            return worst, (f"{WRONG}: output {name!r} differs from onnxruntime's by "
                           f"{d.max_rel:.2g} (cosine {d.cosine:.4f})")  # fmt: skip
    return worst, ""


def _exact(d: Difference, got: np.ndarray, wanted: np.ndarray, tolerance: float) -> bool:
    """Within our own limit; or within the tolerance, and varying as the right output does."""
    if d.max_rel <= TOLERANCE["f32"] or d.max_rel > tolerance or wanted.size == 1:
        return d.max_rel <= tolerance
    moved = difference(got - got.mean(), wanted - wanted.mean())
    return moved.cosine >= _CORRELATION


def remark(row: Row) -> str:
    """What a reader of the figures must know about the result, if anything."""
    error = row.max_rel_error
    if row.careful and not row.error:
        return "by the plan that `build` makes where the fastest one is not exact enough"
    if row.error or row.dtype != "f32" or error is None or error <= TOLERANCE["f32"]:
        return ""
    return f"the result is off by {error:.1e} of the output's scale"


def from_dict(raw: Mapping[str, Any]) -> Row:
    """A row as it was stored; keys that no longer exist are dropped."""
    return Row(**{k: v for k, v in raw.items() if k in Row.__dataclass_fields__})
