"""The way through the house, model file to C text, as one function."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from codegen.board import Board
from codegen.calibration.record import Calibration, check_calibration, read_calibration
from codegen.emit import emit
from codegen.errors import CodegenError
from codegen.graph import Graph
from codegen.groups import regroup
from codegen.heuristic import default_plan
from codegen.memory import Schedule, allocate
from codegen.onnx_import import import_onnx
from codegen.order import node_of
from codegen.packed_size import weights_limit
from codegen.passes import optimise
from codegen.passes.dequantise import Twin, dequantise, is_quantised
from codegen.passes.quantise import bits_of
from codegen.plan import Plan, check_plan, read_plan
from codegen.precision import check_dtype, compute_in, own_dtype
from codegen.schedule import lower
from codegen.sources import Sources
from codegen.split import split
from codegen.threads import check_threads
from codegen.types import DType

Shapes = Mapping[str, Sequence[int]]


@dataclass(frozen=True)
class Generated:
    """Everything that is known about a library before it is compiled."""

    graph: Graph
    plan: Plan
    schedule: Schedule
    sources: Sources


def model_hash(path: Path, shapes: Shapes | None = None) -> str:
    """SHA-256 of the file and of the shapes it was pinned to."""
    digest = hashlib.sha256(path.read_bytes())
    for name, shape in sorted((shapes or {}).items()):
        digest.update(f"{name}={'x'.join(map(str, shape))}".encode())
    return digest.hexdigest()


def load_graph(model: Path, shapes: Shapes | None = None, name: str = "") -> Graph:
    """Import and optimise."""
    return optimise(import_onnx(model, shapes, name))


def generate(
    model: Path,
    board: Board,
    plan_file: Path | None = None,
    shapes: Shapes | None = None,
    name: str = "",
    threads: int | None = None,
    dtype: str = "",
    max_weights: str = "",
    careful: int = 0,
    calibration: Path | None = None,
) -> Generated:
    """Model file -> C sources. The plan is read from `plan_file`, or made by the default
    heuristic, with packed weights of at most `max_weights` (bytes, or "1.1x" the network's);
    `threads` goes before what the plan says. `dtype`: compute in f32 or f16; default: what the plan
    says, or else the model's own type. `careful`: how exact a default plan must be
    (codegen/exactness.py). `calibration`: ranges of tensors, for int8, which it implies."""
    if threads is not None:
        check_threads(threads, board, "--threads")
    given = read_plan(plan_file) if plan_file else None
    asked = _asked(dtype, given, str(plan_file))
    where = str(plan_file) if given else "--dtype"
    bits = given.bits if given else None
    graph, chosen = computed_graph(model, board, shapes, name, asked, where, calibration, bits)
    sha = model_hash(model, shapes)
    if given and max_weights:
        raise CodegenError(
            "--max-weights",
            f"{max_weights} beside --plan {plan_file}",
            "a plan that is given decides how weights are packed",
            "leave out one of them",
        )
    if given and careful:
        raise CodegenError(
            "--careful",
            f"beside --plan {plan_file}",
            "a plan that is given names the kernels",
            "leave out one of them",
        )
    limit = weights_limit(max_weights, graph) if max_weights else None
    if given:
        check_plan(given, graph, board, sha, str(plan_file))
    if calibration and not given and not bits_of(graph):
        raise CodegenError(
            str(calibration), "nothing of this network can be in int8 by it",
            "ranges of what convolutions and dense layers in float32 read and write",
            "calibrate again, or build without --calibration",
        )  # fmt: skip
    plan = replace(given or default_plan(graph, board, sha, limit, careful), dtype=chosen)
    plan = plan if threads is None else replace(plan, threads=threads)
    return finish(graph, plan, board, model.name)


def computed_graph(
    model: Path,
    board: Board,
    shapes: Shapes | None = None,
    name: str = "",
    dtype: str = "",
    where: str = "--dtype",
    calibration: Path | None = None,
    bits: Mapping[str, int] | None = None,
) -> tuple[Graph, str]:
    """The optimised graph in the element type in which it is computed, and that type: `dtype`, of
    which `where` tells, or int8 with a `calibration`, or the model's own; `bits`: which nodes are
    in int8 (passes/quantise.py; of a network that came quantised passes/dequantise.py).
    CodegenError for a type that the board does not compute, and for int8 without a calibration of
    this model, which did not come quantised either."""
    imported = import_onnx(model, shapes, name)
    chosen = dtype or (DType.I8.value if calibration else own_dtype(imported))
    check_dtype(chosen, board, where if dtype else str(model))
    if chosen == DType.I8.value and calibration is None:
        return _as_it_came(imported, bits, where), chosen
    known = _ranges(calibration, chosen, model_hash(model, shapes))
    ranged = (known.spans, bits, known.corrections) if known else ()
    return compute_in(imported, chosen, board, optimise, *ranged), chosen


def twin_of(imported: Graph) -> Twin | str | None:
    """Of a network that came quantised the one in float32, or why there is none; None for others
    (passes/dequantise.py)."""
    if own_dtype(imported) != DType.F32.value:
        return None
    graph = optimise(imported)
    return dequantise(imported, graph) if is_quantised(graph) else None


def _as_it_came(imported: Graph, bits: Mapping[str, int] | None, where: str) -> Graph:
    """A network that came quantised, of which all nodes, or those with `bits`, are in integers."""
    twin = twin_of(imported)
    if isinstance(twin, Twin):
        return twin.quantised(bits)
    if twin is None:
        raise CodegenError(
            where, "i8 without --calibration", "int8 needs the ranges of tensors",
            "make them with `codegen calibrate MODEL --data PATH`",
        )  # fmt: skip
    raise CodegenError(
        where, f"i8 layer by layer, but {twin}",
        "a network that came quantised is computed as the file has it", "leave --dtype away",
    )  # fmt: skip


def _ranges(path: Path | None, dtype: str, sha: str) -> Calibration | None:
    if path is None:
        return None
    if dtype == DType.I8.value:
        return calibration_of(path, sha)
    raise CodegenError(
        "--calibration", f"{path} beside {dtype}", "ranges are for int8", "leave out one of them"
    )


def calibration_of(path: Path, sha: str) -> Calibration:
    """The file's content; CodegenError for a calibration of another model."""
    found = read_calibration(path)
    check_calibration(found, sha, str(path))
    return found


def _asked(dtype: str, plan: Plan | None, where: str) -> str:
    if plan is None or dtype in ("", plan.dtype):
        return plan.dtype if plan else dtype
    raise CodegenError(
        "--dtype", f"{dtype}, but {where} is a plan for {plan.dtype}", plan.dtype,
        "leave --dtype away, or make another plan",
    )  # fmt: skip


def finish(graph: Graph, plan: Plan, board: Board, model_name: str) -> Generated:
    """Graph and decisions -> C sources; the plan comes back with its order, conversions and
    arena filled in, and names the rows that were taken: a transposition that cannot move the layout
    in which its input comes gives way to one that can."""
    graph = regroup(graph, plan.groups)
    program = split(lower(graph, plan, board), plan.threads, board.core)
    schedule = allocate(program, plan.order)
    named = map(node_of, schedule.program.steps)
    order = tuple(dict.fromkeys(n for n in named if n in plan.nodes))
    order += tuple(n for n in plan.nodes if n not in order)  # nodes that became views cost no step
    moved = {s.name: s.kernel.name for s in program.steps if s.op == "Transpose"}
    bits = bits_of(graph) if plan.dtype == DType.I8.value else {}
    nodes = {
        n: replace(c, kernel=moved.get(n, c.kernel), bits=bits.get(n, 0))
        for n, c in plan.nodes.items()
    }
    plan = replace(
        plan,
        nodes=nodes,
        order=order,
        conversions=schedule.program.conversions,
        predicted={"cycles": None, "arena_bytes": schedule.arena_bytes},
    )
    return Generated(graph, plan, schedule, emit(schedule, plan, board, graph.name, model_name))
