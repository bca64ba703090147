"""Why a plan is as it is: for each layer the choice, what else there was, and what that would have
cost the whole network, all other choices being the same."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from codegen.errors import CodegenError
from codegen.plan import Plan
from rl.assignment import Choices, Step, repaired, steps_of
from rl.space import Action
from rl.walk import Walk

_ALTERNATIVES = 3
FILE = "explain.json"


def explain(walk: Walk, choices: Choices, ms: float) -> list[dict[str, Any]]:
    """One entry per decision; `ms` is what one unit of the table is in milliseconds. An
    alternative's `layer_ms` is its own cost, `conversions_ms` what changes of layout cost more (or
    less) than in the plan, and `plan_ms` by how much the whole plan would be slower."""
    base = steps_of(walk, choices)
    out = []
    for i, stage in enumerate(walk.stages):
        if choices[i] < 0:
            continue
        chosen = stage.actions[choices[i]]
        rows = []
        for k, action in enumerate(stage.actions):
            if k != choices[i]:
                changed = repaired(walk, (*choices[:i], k, *choices[i + 1 :]))
                if changed[i] == k:
                    rows.append(_alternative(base, steps_of(walk, changed), i, action, ms))
        rows.sort(key=lambda r: (r["plan_ms"], r["kernel"]))
        best = min(rows, key=lambda r: (r["layer_ms"], r["kernel"]), default=None)
        out.append({
            "node": stage.name,
            "op": stage.node.op,
            "kernel": chosen.kernel,
            "layout": chosen.layout,
            "group": list(chosen.group),
            **_type(chosen),
            "layer_ms": _round(base[i].layer * ms),
            "conversions_ms": _round(base[i].conversion * ms),
            "scratch_bytes": base[i].scratch,
            "flash_bytes": base[i].flash,
            "guessed": chosen.price.guessed,
            "alternatives": rows[:_ALTERNATIVES],
            "why": _why(base[i].layer * ms, best),
        })  # fmt: skip
    return out


def _alternative(
    base: Sequence[Step], changed: Sequence[Step], i: int, action: Action, ms: float
) -> dict[str, Any]:
    """What the network would be with another action at stage `i`. Where that begins or ends a
    group, the layers of the group are part of its own cost."""
    layer = sum(s.layer for s in changed) - sum(s.layer for s in base) + base[i].layer
    moved = sum(s.conversion for s in changed) - sum(s.conversion for s in base)
    slower = layer - base[i].layer + moved
    return {
        "kernel": action.kernel,
        "layout": action.layout,
        "group": list(action.group),
        **_type(action),
        "layer_ms": _round(layer * ms),
        "conversions_ms": _round(moved * ms),
        "plan_ms": _round(slower * ms),
        "scratch_bytes": changed[i].scratch,
        "flash_bytes": changed[i].flash,
    }


def _type(action: Action) -> dict[str, Any]:
    """Of a layer in int8: the width of its weights, and what the outputs lose by it."""
    loss = action.loss if action.loss < float("inf") else None
    return {"bits": action.bits, "loss": loss} if action.bits else {}


def _why(own: float, best: Mapping[str, Any] | None) -> str:
    """A sentence about the row that is the cheapest by itself."""
    if best is None:
        return "the only candidate"
    if best["layer_ms"] >= _round(own):
        return "the fastest row"
    if best["plan_ms"] < 0:
        return (
            f"{best['kernel']} {best['layout']} would save {-best['plan_ms']:.4f} ms by the table; "
            "measured whole, or within the limits, this plan is better"
        )
    return (
        f"{best['kernel']} {best['layout']} takes {best['layer_ms']:.4f} ms but "
        f"{best['conversions_ms']:.4f} ms more of changes of layout and type"
    )


def _round(ms: float) -> float:
    return round(ms, 6)


def to_text(plan: Plan, board: str, rows: Sequence[Mapping[str, Any]]) -> str:
    """explain.json."""
    head = {"schema": 1, "plan_sha256": plan.sha256, "board": board}
    lines = [f" {json.dumps(k)}: {json.dumps(v)}," for k, v in head.items()]
    body = ",\n".join(f"  {json.dumps(r)}" for r in rows)
    return "{\n" + "\n".join(lines) + '\n "layers": [\n' + body + "\n ]\n}\n"


def read_explanation(plan: Plan, path: Path) -> list[dict[str, Any]]:
    """The entries of the file beside a plan; CodegenError where it is not there or about another
    plan."""
    try:
        raw = json.loads(path.read_text())
        same, rows = raw["plan_sha256"] == plan.sha256, raw["layers"]
    except (OSError, ValueError, KeyError, TypeError):
        same, rows = False, []
    if not same:
        raise CodegenError(
            str(path),
            "no explanation of this plan",
            f"{FILE} as `codegen tune` writes it beside the plan",
            "name the folder that tune wrote, or tune again",
        )
    return rows
