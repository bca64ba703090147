"""What a build tells: report.json, and the same on the terminal."""

from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Console
from rich.table import Table

from codegen import __version__
from codegen.board import Board
from codegen.build import Binary
from codegen.footprint import foreign_symbols, sections
from codegen.ops import OPS
from codegen.pipeline import Generated, Shapes
from codegen.sources import Call
from codegen.steps import Step
from codegen.toolchain import Toolchain
from codegen.types import DType
from codegen.verify import CaseResult, Interface

_NARROW = {DType.F16.value: "float16", DType.I8.value: "int8"}
_MOVES = ("Convert", "Copy", "Transpose")
_MOST_NAMES = 3  # of layers, where not all are asked for


def make_report(
    generated: Generated,
    binary: Binary,
    board: Board,
    toolchain: Toolchain,
    model: str,
    shapes: Shapes,
    results: Sequence[CaseResult],
    runner: str,
    why_not: str,
) -> dict[str, Any]:
    """The content of report.json; sizes in bytes."""
    schedule, sources, plan = generated.schedule, generated.sources, generated.plan
    sizes = sections(binary.objects)
    diffs = [d for r in results for d in r.outputs.values()]
    weights = sum(w.array.nbytes for w in schedule.program.weights)
    return {
        "schema": 1,
        "codegen": __version__,
        "name": sources.name,
        "model": model,
        "model_sha256": plan.model_sha256,
        "shapes": {k: list(v) for k, v in shapes.items()},
        "board": board.name,
        "core": board.core,
        "plan_sha256": plan.sha256,
        "threads": plan.threads,
        "dtype": plan.dtype,
        "toolchain": toolchain.version,
        "arena_bytes": schedule.arena_bytes,
        "arena_lower_bound_bytes": schedule.lower_bound,
        "io_bytes": sum(p.tensor.bytes for p in (*sources.inputs, *sources.outputs)),
        "weights_bytes": weights,
        "text_bytes": sizes.text,
        "rodata_bytes": sizes.rodata,
        "data_bytes": sizes.data,
        "bss_bytes": sizes.bss,
        "stack_bytes": binary.stack_bytes,
        "foreign_symbols": sorted(foreign_symbols(binary.objects)),
        "macs": sum(_macs(s) for s in schedule.program.steps),
        "verified": bool(results) and all(r.passed for r in results),
        "runner": runner,
        "not_verified_because": why_not,
        "errors": [r.error for r in results if r.error],
        "max_abs_error": max((d.max_abs for d in diffs), default=None),
        "max_rel_error": max((d.max_rel for d in diffs), default=None),
        "cosine": min((d.cosine for d in diffs), default=None),
        "single_layers": _single_layers(generated),
        "layers": layers(generated),
        "buffers": [
            {"name": b.name, "offset": b.offset, "bytes": b.bytes, "first": b.first, "last": b.last}
            for b in schedule.buffers
        ],
        "interface": Interface.of(sources, schedule).to_dict(),
    }


def _single_layers(generated: Generated) -> list[str]:
    """The layers of a network in float16 that are computed in float32, for which no kernel is; of
    one in int8 the products that are, by plan or because a range is missing."""
    steps, dtype = generated.schedule.program.steps, generated.plan.dtype
    if dtype == DType.I8.value:
        products = (s for s in steps if s.op in OPS and OPS[s.op].macs)
        return [s.name for s in products if dtype not in s.kernel.dtype]
    values = generated.schedule.program.values
    return [
        s.name
        for s in steps
        if dtype == DType.F16.value
        and s.op not in _MOVES
        and {values[k].tensor.dtype for k in (*s.reads, *s.outputs)} == {DType.F32}
    ]


def _macs(step: Step) -> int:
    op = OPS.get(step.op)
    return int(op.macs(step.dims)) if op and op.macs else 0


def layers(generated: Generated) -> list[dict[str, Any]]:
    """One entry per kernel call, in execution order."""
    schedule, values = generated.schedule, generated.schedule.program.values
    out = []
    for call in generated.sources.calls:
        step = call.step
        keys = [k for k in (*step.reads, *step.outputs) if schedule.places[k].kind == "arena"]
        out.append(
            {
                "name": step.name,
                "op": step.op,
                "kernel": step.kernel.name,
                "function": call.function,
                "functions": _functions(call),
                "macs": _macs(step),
                "output_shape": list(values[step.outputs[0]].tensor.shape),
                "weights": [
                    a for a, arg in zip(call.args, step.args, strict=False) if arg.startswith("&")
                ],
                "arena": [
                    {"tensor": k, "offset": schedule.places[k].offset, "bytes": values[k].bytes}
                    for k in dict.fromkeys(keys)
                ],
                "scratch": {"offset": schedule.scratch[step.name], "bytes": step.scratch_bytes}
                if step.scratch_bytes
                else None,
            }
        )
    return out


def _functions(call: Call) -> list[str]:
    """All C functions of a kernel call: one, or those of its parts and what calls them."""
    task = [call.task] if call.task else []
    return list(dict.fromkeys([*(p.function for p in call.pieces), *task]))


def kib(n: int | None) -> str:
    """Bytes for people."""
    return "?" if n is None else f"{n / 1024:,.1f} KiB" if n >= 10240 else f"{n:,} B"


def print_report(report: Mapping[str, Any], console: Console, verbose: bool) -> None:
    """Sizes and the verdict; with `verbose` also every layer."""
    if verbose:
        table = Table("layer", "op", "kernel", "MMAC", box=None, pad_edge=False)
        for layer in report["layers"]:
            table.add_row(
                layer["name"],
                layer["op"],
                layer["kernel"],
                f"{layer['macs'] / 1e6:.3f}" if layer["macs"] else "",
            )
        console.print(table)
        console.print()
    table = Table(box=None, show_header=False, pad_edge=False)
    rom = report["text_bytes"] + report["rodata_bytes"] + report["data_bytes"]
    table.add_row(
        "ROM", kib(rom), f"code {kib(report['text_bytes'])}, weights {kib(report['weights_bytes'])}"
    )
    ram = report["arena_bytes"] + (report["stack_bytes"] or 0)
    bound = report["arena_lower_bound_bytes"]
    table.add_row(
        "RAM",
        kib(ram),
        f"arena {kib(report['arena_bytes'])} (largest live set {kib(bound)}), "
        f"stack {kib(report['stack_bytes'])}; caller's tensors {kib(report['io_bytes'])}",
    )
    table.add_row(
        "work",
        f"{report['macs'] / 1e6:,.2f} MMAC",
        f"{len(report['layers'])} kernel calls"
        + (f" on {report['threads']} threads" if report["threads"] > 1 else ""),
    )
    if report["dtype"] in _NARROW:
        single = _single_text(report["single_layers"], verbose)
        table.add_row(_NARROW[report["dtype"]], "", single)
    if report.get("careful"):
        off = report["fastest_plan_was_off_by"]
        table.add_row("careful", "", _careful_text(report["careful"], off))
    console.print(table)
    console.print(verdict(report), highlight=False)


def _careful_text(careful: int, off: float | None) -> str:
    why = f"; the fastest plan was off by {off:.1e} of the largest output" if off else ""
    which = ("that lose most digits (Winograd F(6x6) and 7x7, Strassen)",
             "that lose digits (Winograd beyond F(2x2), Strassen)")  # fmt: skip
    return f"without kernels {which[careful - 1]}{why}"


def _single_text(names: Sequence[str], verbose: bool) -> str:
    shown = names if verbose else names[:_MOST_NAMES]
    more = ", ..." if len(names) > len(shown) else ""
    return f"in float32: {', '.join(shown) or 'nothing'}{more}"


def verdict(report: Mapping[str, Any]) -> str:
    """One line: verified, not verified and why, or wrong."""
    if report["errors"]:
        return f"FAILED on {report['runner']}: {report['errors'][0]}"
    if report["max_rel_error"] is None:
        return f"not verified: {report['not_verified_because']}"
    error = f"max error {report['max_abs_error']:.2e} (relative {report['max_rel_error']:.2e})"
    cosine = report.get("cosine_to_float")
    if report["verified"] and cosine is not None:
        like = f"cosine to what onnxruntime computes of the model on these inputs {cosine:.4f}"
        return f"verified against integer arithmetic on runner {report['runner']}: {error}; {like}"
    if report["verified"]:
        return f"verified against onnxruntime on runner {report['runner']}: {error}"
    return f"WRONG on runner {report['runner']}: {error}; see `codegen verify --layers`"
