"""front.json: plans to choose from, each with what it needs as measured whole."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from codegen.board import Board
from codegen.errors import CodegenError
from rl.finalists import Finalist
from rl.limits import Limits
from rl.network import EndToEnd
from rl.pareto import Point, hypervolume, undominated

FILE = "front.json"
_BEYOND = 1.1
_FIGURES = ("latency_ms", "arena_bytes", "flash_bytes", "max_rel_error")


def to_text(finalists: Sequence[Finalist], axes: Sequence[str], board: Board, ms: float) -> str:
    """The measured plans that none beats along the axes, the fastest first, and their hypervolume
    in relation to a point 10 % beyond the worst figures that any had; `ms` is a unit of cost in
    milliseconds."""
    sound = [f for f in finalists if not f.measured.error]
    points = {
        Point((i,), m.cost * ms, m.arena_bytes, m.flash_bytes, m.max_rel_error or 0.0,
              1.0 - m.scores["cosine"] if m.scores else 0.0): f
        for i, f in enumerate(sound)
        if (m := f.measured)
    }
    kept = undominated(list(points), axes)
    worst = [_BEYOND * max(getattr(p, a) for p in points) for a in axes]
    rows = [
        {
            "latency_ms": round(p.latency, 6), "arena_bytes": p.arena, "flash_bytes": p.flash,
            "max_rel_error": points[p].measured.max_rel_error,
            **scores_of(points[p].measured), "plan": json.loads(points[p].plan.to_json()),
        }
        for p in kept
    ]  # fmt: skip
    head = {
        "schema": 1, "board": board.name, "axes": list(axes),
        "hypervolume": round(hypervolume(kept, axes, worst), 6),
        "reference": [round(w, 6) for w in worst],
    }  # fmt: skip
    lines = [f" {json.dumps(k)}: {json.dumps(v)}," for k, v in head.items()]
    body = ",\n".join(f"  {json.dumps(r)}" for r in rows)
    return "{\n" + "\n".join(lines) + '\n "points": [\n' + body + "\n ]\n}\n"


def scores_of(measured: EndToEnd) -> dict[str, float]:
    """What was measured on the user's data, under names for files, and of how many samples; empty
    where there were none."""
    samples = {"samples": measured.samples} if measured.samples else {}
    scores = (measured.scores or {}).items()
    return {**{k.replace(" ", "_"): round(v, 9) for k, v in scores}, **samples}


def pick(path: Path, limits: Limits) -> dict[str, Any]:
    """The fastest point within the limits; CodegenError where the file is none, or has none."""
    try:
        points = json.loads(path.read_text())["points"]
        known = [{**p, "plan": dict(p["plan"])} for p in map(_complete, points)]
    except (OSError, ValueError, KeyError, TypeError) as e:
        raise CodegenError(
            str(path),
            f"cannot be read as a front ({type(e).__name__}: {e})",
            f"{FILE} as `codegen tune --pareto` writes it",
            "check the path",
        ) from None
    most = (limits.latency_ms, limits.arena, limits.flash, limits.error)
    kept = [
        p for p in known
        if all(not m or p[f] <= m for f, m in zip(_FIGURES, most, strict=True))
        and (limits.drop is None or p.get("top1_lost", float("inf")) <= limits.drop)
        and p.get("cosine", 0.0) >= limits.cosine
        and p.get("agreement", 0.0) >= limits.agreement
    ]  # fmt: skip
    if not kept:
        least = ", ".join(
            f"{name} {min((p[name] for p in known), default=0):g}" for name in _FIGURES
        )
        raise CodegenError(
            str(path),
            f"none of {len(known)} plans keeps the limits",
            f"the least that there is, each in a plan of its own: {least}",
            "allow more, or tune again with limits",
        )
    best = min(kept, key=lambda p: p["latency_ms"])
    off = best["max_rel_error"]
    return {**best, "max_rel_error": off if off < float("inf") else None}


def _complete(point: dict[str, Any]) -> dict[str, Any]:
    """A point with a number for each figure; an error that was not measured is above any limit."""
    off = point.get("max_rel_error")
    whole = {**point, "max_rel_error": float("inf") if off is None else off}
    if not all(whole[f] >= 0 for f in _FIGURES):
        raise ValueError("a figure below 0")
    return whole
