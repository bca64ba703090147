"""Phase 3: the whole network, generated, compiled, checked and run; kept in the store, so that a
plan that was measured once is not run again.

A network is a row of the store like a layer: its signature is the hash of the generated sources,
its "layout" says which figure it is (`whole`, `step 3`).
"""

import hashlib
import json
import tempfile
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

from codegen.accuracy.gauge import Gauge, judge, native, run_plan
from codegen.accuracy.metrics import parse_metrics
from codegen.accuracy.scores import Outputs
from codegen.board import Board
from codegen.build import Binary, compile_library
from codegen.footprint import sections
from codegen.interpret import evaluate
from codegen.measured import Unsuitable, modelled, timed
from codegen.pipeline import Generated, Shapes
from codegen.pricing.context import context_of
from codegen.program import Program
from codegen.reference import Interpreted, Reference, random_inputs
from codegen.report import layers as layer_rows
from codegen.run import Job, Runner
from codegen.run.local import LocalRunner
from codegen.signature import NETWORK, Signature
from codegen.sources import write
from codegen.store import Key, Measurement, Store
from codegen.store.records import conditions_of, conditions_text
from codegen.toolchain import Toolchain
from codegen.types import DType
from codegen.verify import Case, Interface, check_case, check_layers

_WHOLE = "whole"
_ERROR = "max_rel_error"  # beside the figures of the whole


@dataclass(frozen=True)
class EndToEnd:
    """A network as measured: `cost` and that of each step, in execution order, in cycles or, where
    none are counted, nanoseconds; its true arena, flash (code, constants and data of the library)
    and error. `failed` names the step whose result was wrong first, if any was. `max_rel_error` is
    of its worst output against onnxruntime (of a plan in int8, against integer arithmetic), None
    where that was not looked at. `scores`: means on `samples` of the user's data."""

    cost: float
    steps: tuple[float, ...]
    arena_bytes: int
    flash_bytes: int
    error: str = ""
    failed: str = ""
    max_rel_error: float | None = None
    scores: Mapping[str, float] | None = None
    samples: int = 0


@dataclass(frozen=True)
class Bench:
    """What whole networks are measured with. `checker` runs the check against onnxruntime, where
    the measuring runner would take long for it; None: no check. `exactness`: what the store knows
    of a network without its max_rel_error is not enough. `gauge`: data on which networks are
    judged, which the checker runs, too; `objects`: a folder for kernels compiled for that."""

    model: Path
    shapes: Shapes
    board: Board
    runner: Runner
    checker: Runner | None
    toolchain: Toolchain
    store: Store
    timeout_s: float = 1800.0
    exactness: bool = False
    gauge: Gauge | None = None
    objects: Path | None = None


def measure_network(generated: Generated, bench: Bench) -> EndToEnd:
    """What a plan really costs; a failure is a value. From the store, if it was measured before."""
    keys = _keys(generated, bench)
    arena = generated.schedule.arena_bytes
    known = bench.store.get(keys)
    rows = list(map(known.__getitem__, keys)) if len(known) == len(keys) else []
    if rows:
        found = _of(rows, arena, bench)
        exact = found.max_rel_error is not None or not bench.exactness
        if exact and (found.scores is not None or bench.gauge is None):
            return found
    with tempfile.TemporaryDirectory(prefix="codegen-tune-") as name, ThreadPoolExecutor(1) as pool:
        here = native(generated, bench.checker) if bench.gauge else None
        judged = pool.submit(_judge_here, generated, bench, here) if here else None
        write(generated.sources, Path(name))
        binary = compile_library(generated.sources, Path(name), bench.toolchain)
        if binary.error:
            return EndToEnd(float("inf"), (), arena, 0, f"does not compile: {binary.error}")
        flash = sections([binary.library]).rom
        wrong, failed, off = _check(generated, binary, bench)
        if wrong:
            return EndToEnd(float("inf"), (), arena, flash, wrong, failed)
        told = conditions_of(rows[0]) if rows else {}
        measured = rows or _run(generated, binary, bench)
        outputs = judged.result() if judged else _judge_there(generated, binary, bench)
    scores = _scores(outputs, bench)
    for failure in (measured, scores):
        if isinstance(failure, str):
            return EndToEnd(float("inf"), (), arena, flash, failure)
    now = datetime.now(UTC).isoformat(timespec="seconds")
    rows = [replace(m, date=now) for m in measured]
    told |= {} if off is None else {_ERROR: off}
    told |= {} if scores is None else {bench.gauge.digest: scores}
    said = conditions_text(told)
    rows[0] = replace(rows[0], code_bytes=flash, scratch_bytes=arena, conditions=said)
    bench.store.put(zip(keys, rows, strict=True))
    return _of(rows, arena, bench)


def _judge_here(generated: Generated, bench: Bench, here: Board) -> Outputs | str:
    """What this machine computes of the user's data, where the checker would have to emulate it; it
    has time for that while the board measures."""
    return judge(generated, bench.gauge, here, LocalRunner(), bench.timeout_s, bench.objects)


def _judge_there(generated: Generated, binary: Binary, bench: Bench) -> Outputs | str | None:
    if bench.gauge is None:
        return None
    interface = Interface.of(generated.sources, generated.schedule)
    place = binary.verify, bench.checker, bench.board
    return run_plan(bench.gauge, interface, *place, bench.timeout_s)


def _scores(outputs: Outputs | str | None, bench: Bench) -> dict[str, float] | str | None:
    """By metric, or an error."""
    if outputs is None or isinstance(outputs, str):
        return outputs
    metrics = parse_metrics((), bench.gauge.labels is not None)
    return {m.name: m.measure(outputs, bench.gauge).value for m in metrics}


def _of(rows: list[Measurement], arena: int, bench: Bench) -> EndToEnd:
    steps = tuple(m.cost for m in rows[1:])
    told = conditions_of(rows[0])
    scores = told.get(bench.gauge.digest) if bench.gauge else None
    return EndToEnd(rows[0].cost, steps, arena, rows[0].code_bytes,
                    max_rel_error=told.get(_ERROR), scores=scores,
                    samples=len(bench.gauge) if scores else 0)  # fmt: skip


def _keys(generated: Generated, bench: Bench) -> list[Key]:
    """One for the whole and one per step."""
    digest = hashlib.sha256()
    for path, data in sorted(generated.sources.files.items()):
        digest.update(f"{path} {len(data)} ".encode())
        digest.update(data)
    code = digest.hexdigest()[:16]
    text = {
        "op": NETWORK, "attrs": {"sources": code}, "tensors": [], "inputs": [], "residual": -1,
        "outputs": [], "activation": None, "threads": generated.plan.threads,
    }  # fmt: skip
    layer = Signature(json.dumps(text, sort_keys=True, separators=(",", ":")))
    context = context_of(bench.board, bench.runner.name, bench.toolchain)
    rows = [("plan", _WHOLE)]
    rows += [(c.step.kernel.name, f"step {i}") for i, c in enumerate(generated.sources.calls)]
    return [Key(layer, kernel, which, code, "cold", context) for kernel, which in rows]


def _check(generated: Generated, binary: Binary, bench: Bench) -> tuple[str, str, float | None]:
    """(what is wrong, the step that was wrong first, max_rel_error); empty where all is well."""
    if bench.checker is None:
        return "", "", None
    interface = Interface.of(generated.sources, generated.schedule)
    case = Case("random 0", random_inputs(generated.graph, 0))
    place = interface, binary.verify, bench.checker, bench.board
    in_codes = generated.plan.dtype == DType.I8.value
    reference = Interpreted(generated.graph) if in_codes else Reference(bench.model, bench.shapes)
    result = check_case(*place, reference, case, bench.timeout_s)
    worst = max((d.max_rel for d in result.outputs.values()), default=None)
    if result.passed or result.error:
        return result.error, "", worst
    # onnxruntime has not all tensors of the optimised network; the float64 reference has
    values = evaluate(generated.graph, case.inputs)
    layers = check_layers(*place, case.inputs, values, bench.timeout_s)
    first = next((r.layer for r in layers if not r.passed), "")
    at = f", first at {first}" if first else ""
    return f"wrong result: max_rel_error {worst:.3g}{at}", first, worst


def _run(generated: Generated, binary: Binary, bench: Bench) -> list[Measurement] | str:
    """The whole and each step, or an error."""
    program = Program(binary.bench, generated.graph.name, tuple(layer_rows(generated)),
                      threads=generated.plan.threads)  # fmt: skip
    virtual = bench.runner.name == "virtual"
    args = ("0",) if virtual else ()  # a warm-up, then one run with every step marked
    outcome = bench.runner.run(Job(binary.bench, args, timeout_s=bench.timeout_s), bench.board)
    if outcome.error:
        return outcome.error
    try:
        result = (modelled(program, outcome, bench.board) if virtual
                  else timed(program, outcome, bench.board, bench.runner.name))  # fmt: skip
    except Unsuitable as e:
        return str(e)
    if len(result["layers"]) != len(program.layers):
        return f"{len(result['layers'])} of {len(program.layers)} steps were measured"
    passing = bool(result.get("noisy"))
    return [_row(r, passing) for r in (result, *result["layers"])]


def _row(figures: Mapping, passing: bool) -> Measurement:
    ns = None if figures["ms"] is None else figures["ms"] * 1e6
    return Measurement(cycles=figures["cycles"], ns=ns, passing=passing)
