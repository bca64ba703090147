"""What a search leaves behind: plan.json, tune.json, and the lines for the terminal."""

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from codegen.models.fetch import write_atomically
from codegen.plan import Plan
from rl import explain as explanation
from rl import front_file, transfer
from rl.assignment import choices_of
from rl.choice import objection
from rl.explain import explain
from rl.finalists import Finalist
from rl.tune import Request, Tuned, milliseconds
from rl.walk import Walk

_POINTS = 200  # of a learning curve


def plan_with_figures(tuned: Tuned) -> Plan:
    """The chosen plan; `predicted` also has what the table and the whole network say."""
    f = tuned.chosen
    figures = {**f.plan.predicted, **_figures(tuned, f)}
    return replace(f.plan, predicted=figures)


def summary(request: Request, tuned: Tuned) -> dict[str, Any]:
    """tune.json: equal searches give equal bytes."""
    f, unit = tuned.chosen, tuned.priced.table.unit
    return {
        "schema": 1,
        "model": request.model.name,
        "model_sha256": f.plan.model_sha256,
        "board": request.board.name,
        "dtype": f.plan.dtype,
        "agent": request.agent,
        "seed": request.seed,
        "weights": tuned.priced.table.weights,
        "unit": unit,
        "layers": sum(bool(s.actions) for s in tuned.space.stages),
        "plans": tuned.space.plans,
        "candidates": tuned.priced.candidates,
        "measured_candidates": tuned.priced.measured,
        "failed": [*tuned.priced.failures, *tuned.wrong],
        "episodes": len(tuned.found.curve),
        "optimality_gap": None if tuned.gap is None else round(tuned.gap, 9),
        "optimum": {
            "value": tuned.best.value,
            "proven": tuned.best.proven,
            "states": tuned.best.states,
        },
        "rounds": tuned.rounds,
        "stable": tuned.stable,
        "interrupted": tuned.interrupted,
        "chosen": {"names": list(f.names), "plan_sha256": f.plan.sha256, **_figures(tuned, f)},
        "why": why(tuned),
        **({"as_it_came": tuned.as_it_came} if tuned.as_it_came else {}),
        "finalists": [_finalist(tuned, x) for x in tuned.finalists],
        "dropped": _dropped(request, tuned),
        "curve": _thinned(tuned.found.curve),
    }


def _dropped(request: Request, tuned: Tuned) -> list[dict[str, Any]]:
    """Finalists that work but exceed a limit, each with the reason."""
    unit = tuned.priced.table.unit
    return [
        {"names": list(f.names), "reason": said}
        for f in tuned.finalists if not f.measured.error
        if (said := objection(f, request.limits, request.board, unit)
            or tuned.rejected.get(f.plan.sha256))
    ]  # fmt: skip


def why(tuned: Tuned) -> str:
    """Why table and reality differ by more than 5 %, if they do."""
    f = tuned.chosen
    if f.measured.error:
        return f.measured.error
    if not f.predicted:
        return "the table lacks prices of this plan" if f.predicted is None else ""
    ratio = f.measured.cost / f.predicted
    if abs(ratio - 1) <= 0.05:
        return ""
    way = "more" if ratio > 1 else "less"
    return (
        f"the network takes {abs(ratio - 1):.1%} {way} than the sum of its layers: caches and "
        "branch history are not as in the micro-benchmarks; see `rounds` for what was learnt"
    )


def _figures(tuned: Tuned, f: Finalist) -> dict[str, Any]:
    unit, board = tuned.priced.table.unit, tuned.space.board
    m = f.measured
    whole = unit == "cycles" and f.predicted is not None
    out: dict[str, Any] = {
        "cycles": round(f.predicted) if whole else None,
        "arena_bytes": m.arena_bytes,
        "flash_bytes": m.flash_bytes,
        "predicted_ms": None if f.predicted is None else _ms(f.predicted, unit, board),
        "measured_ms": None if m.error else _ms(m.cost, unit, board),
        "max_rel_error": m.max_rel_error,
        **front_file.scores_of(m),
        **({"int8_layers": len(f.plan.bits)} if f.plan.bits else {}),
    }
    if not m.error and f.predicted:
        out["measured_to_predicted"] = round(m.cost / f.predicted, 4)
    return out


def _finalist(tuned: Tuned, f: Finalist) -> dict[str, Any]:
    error = {"error": f.measured.error} if f.measured.error else {}
    return {"names": list(f.names), "plan_sha256": f.plan.sha256, **_figures(tuned, f), **error}


def _offered(tuned: Tuned) -> list[Finalist]:
    """Finalists without those that do not keep the limits on all of the data."""
    chosen = tuned.chosen
    return [chosen if f.plan == chosen.plan else f for f in tuned.finalists
            if f.plan.sha256 not in tuned.rejected]  # fmt: skip


def _ms(cost: float, unit: str, board: Any) -> float:
    return round(milliseconds(cost, unit, board), 6)


def verdict(told: Mapping[str, Any]) -> str:
    """How far the agent is from the optimum, in words."""
    if told["optimality_gap"] is None:
        return f"{told['agent']} did not run; the plan is the optimum of what was priced"
    proof = "" if told["optimum"]["proven"] else " (not proven: states were dropped)"
    return (f"{told['agent']} is {told['optimality_gap']:.2%} above the exact optimum of the price "
            f"table{proof}")  # fmt: skip


def _thinned(curve: tuple[float, ...]) -> list[list[float]]:
    """[episode, best value] where the value changes, at most so many points."""
    if not curve:
        return []
    changes = [(i, v) for i, v in enumerate(curve) if not i or v != curve[i - 1]]
    step = -(-len(changes) // _POINTS) or 1
    kept = changes[::step]
    return [list(p) for p in dict.fromkeys([*kept, (len(curve) - 1, curve[-1])])]


def write_results(folder: Path, request: Request, tuned: Tuned) -> list[dict[str, Any]]:
    """plan.json, explain.json, table.json, front.json where one was asked for, learnt.json of an
    agent that has values, and last tune.json; each whole or not at all. Returns the explanation."""
    board, plan = tuned.space.board, plan_with_figures(tuned)
    ms = milliseconds(1.0, tuned.priced.table.unit, board)
    files = {"plan.json": plan.to_json(), "table.json": tuned.priced.table.to_json()}
    choices = choices_of(tuned.space, plan)
    rows = explain(Walk(tuned.space), choices, ms) if choices else []
    files[explanation.FILE] = explanation.to_text(plan, board.name, rows)
    if request.pareto:
        files[front_file.FILE] = front_file.to_text(_offered(tuned), request.pareto, board, ms)
    if tuned.found.learnt:
        files[transfer.FILE] = transfer.to_text(tuned.found.learnt)
    files["tune.json"] = json.dumps(summary(request, tuned), indent=1) + "\n"
    for name, text in files.items():
        write_atomically(folder / name, text.encode())
    return rows
