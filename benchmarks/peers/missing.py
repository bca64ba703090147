"""Why a figure is missing: of every engine, network, element type and core that has none."""

from collections.abc import Collection, Mapping, Sequence
from typing import Any

from benchmarks.peers.text import CORES, NAMES
from codegen.peers.engines import ENGINES

DTYPES = ("f32", "i8")
NOT_MEASURED = "not measured yet: run `make peers`"

Cell = tuple[str, str, str]  # network, element type, core


def lines(rows: Sequence[Mapping[str, Any]], networks: Sequence[str]) -> list[str]:
    """The section of the document: each reason once, with the engines and places it holds for."""
    found = _reasons(rows, networks)
    if not found:
        return []
    told: dict[tuple[str, str], list[str]] = {}
    for (engine, reason), cells in found.items():
        told.setdefault((reason, places(cells, networks)), []).append(NAMES[engine])
    entries = sorted(("; ".join(e), where, reason) for (reason, where), e in told.items())
    return ["## Missing figures", "", *(f"- {e} ({w}): {r}" for e, w, r in entries), ""]


def _reasons(
    rows: Sequence[Mapping[str, Any]], networks: Sequence[str]
) -> dict[tuple[str, str], set[Cell]]:
    """(engine, reason) -> where."""
    errors = {(r["engine"], r["model"], r["dtype"], r["core"]): r["error"] for r in rows}
    out: dict[tuple[str, str], set[Cell]] = {}
    for name in NAMES:
        for cell in ((m, d, c) for m in networks for d in DTYPES for c in CORES):
            absent = ENGINES[name].lacks.get(cell[1], NOT_MEASURED)
            reason = errors.get((name, *cell), absent)
            if reason:
                out.setdefault((name, reason), set()).add(cell)
    return out


def places(cells: Collection[Cell], networks: Sequence[str]) -> str:
    """Networks with the same cores together; cores only where they are not all."""
    out = []
    for dtype in DTYPES:
        by_cores: dict[tuple[str, ...], list[str]] = {}
        for model in networks:
            cores = tuple(c for c in CORES if (model, dtype, c) in cells)
            if cores:
                by_cores.setdefault(cores, []).append(model)
        for cores, models in by_cores.items():
            names = "all" if len(models) == len(networks) else ", ".join(models)
            where = "" if len(cores) == len(CORES) else f" on {', '.join(cores)}"
            out.append(f"{names} {dtype}{where}")
    return "; ".join(out)
