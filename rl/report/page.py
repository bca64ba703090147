"""report.html: one self-contained page about a search."""

from collections.abc import Sequence
from html import escape
from typing import Any

from codegen.memory_map import svg as memory_svg
from codegen.report import layers as layer_rows
from rl.agents import LIGHT, Problem, make_agent
from rl.finalists import Finalist
from rl.network import EndToEnd
from rl.report.charts import Line, bars_svg, lines_svg, points_svg
from rl.report.network import algorithm, colour, network_svg
from rl.result import summary, verdict
from rl.tune import Request, Tuned, milliseconds
from rl.walk import Walk

_CURVES = ("qlearning", "random", "annealing", "evolution")
_STYLE = """
body { font: 15px/1.5 Helvetica, Arial, sans-serif; margin: 2em auto; max-width: 1100px; }
table { border-collapse: collapse }
td, th { padding: 3px 10px; text-align: right; border-bottom: 1px solid #ddd }
td:first-child, th:first-child { text-align: left }
svg { max-width: 100%; height: auto }
.key { display: inline-block; padding: 1px 8px; margin: 2px; border: 1px solid #888; }
.wide { overflow-x: auto }
"""


def page(request: Request, tuned: Tuned, rows: Sequence[dict[str, Any]]) -> str:
    """The page; `rows` are those of rl/explain.py."""
    told = summary(request, tuned)
    title = f"{told['model']} on {told['board']}"
    parts = [
        f"<h1>{escape(title)}</h1>", _lead(told), _finalists(told),
        "<h2>The network</h2>", _network(tuned),
        "<h2>Learning</h2>", _curves(tuned),
        "<h2>Before and after</h2>", _waterfall(tuned),
        "<h2>Why</h2>", _explanations(rows),
        "<h2>Plans built and run</h2>", _front(tuned), _sizes(tuned),
        "<h2>Memory</h2>", f'<div class="wide">{_memory(tuned.chosen)}</div>',
    ]  # fmt: skip
    head = f'<meta charset="utf-8"/><title>{escape(title)}</title><style>{_STYLE}</style>'
    return (
        f'<!DOCTYPE html>\n<html lang="en"><head>{head}</head><body>\n'
        + "\n".join(parts)
        + "\n</body></html>\n"
    )


def _lead(told: dict[str, Any]) -> str:
    chosen = told["chosen"]
    figures = ("not run" if chosen["measured_ms"] is None
               else f"{chosen['measured_ms']:.3f} ms")  # fmt: skip
    text = (
        f"{figures}; {chosen['arena_bytes']:,} bytes of arena, {chosen['flash_bytes']:,} of flash. "
        f"{told['plans']:.3g} plans of {told['candidates']} candidates; {verdict(told)}. "
        f"{told['why']}"
    )
    return f"<p>{escape(text)}</p>"


def _finalists(told: dict[str, Any]) -> str:
    rows = []
    for f in told["finalists"]:
        cost = "failed" if "error" in f else f"{f['measured_ms']:.3f}"
        said = "" if f["predicted_ms"] is None else f"{f['predicted_ms']:.3f}"
        off = "" if f["max_rel_error"] is None else f"{f['max_rel_error']:.1e}"
        cells = (", ".join(f["names"]), cost, said, f"{f['arena_bytes']:,}",
                 f"{f['flash_bytes']:,}", off)  # fmt: skip
        rows.append("".join(f"<td>{escape(c)}</td>" for c in cells))
    return _table(("plan", "ms", "predicted ms", "arena", "flash", "error"), rows)


def _table(names: Sequence[str], rows: Sequence[str]) -> str:
    head = "".join(f"<th>{n}</th>" for n in names)
    return f"<table><tr>{head}</tr>" + "".join(f"<tr>{r}</tr>" for r in rows) + "</table>"


def _network(tuned: Tuned) -> str:
    g = tuned.chosen.generated
    kernels = {n: c.kernel for n, c in g.plan.nodes.items()}
    names = sorted({algorithm(k) for k in kernels.values()})
    key = "".join(
        f'<span class="key" style="background:{colour(n)}">{escape(n)}</span>' for n in names
    )
    drawn = network_svg(g.graph, kernels, _step_ms(tuned, tuned.chosen))
    return f'<p>{key}</p><div class="wide">{drawn}</div>'


def _step_ms(tuned: Tuned, f: Finalist) -> dict[str, float]:
    """Measured milliseconds by step."""
    unit, board = tuned.priced.table.unit, tuned.space.board
    names = [r["name"] for r in layer_rows(f.generated)]
    return {n: milliseconds(c, unit, board)
            for n, c in zip(names, f.measured.steps, strict=False)}  # fmt: skip


def _curves(tuned: Tuned) -> str:
    """Every agent once on the table, with the exact optimum."""
    unit, board = tuned.priced.table.unit, tuned.space.board
    walk = Walk(tuned.space)
    lines, episodes = [], 1
    for name in _CURVES:
        found = make_agent(name).search(Problem(walk, tuned.goal, seed=0))
        points = [(i + 1.0, milliseconds(v, unit, board)) for i, v in enumerate(found.curve)]
        episodes = max(episodes, len(points))
        kept = [p for i, p in enumerate(points) if not i or p[1] != points[i - 1][1]]
        lines.append(Line(name, [*kept, points[-1]]))
    for name in (n for n in LIGHT if n not in (*_CURVES, "exact", "portable")):
        value = milliseconds(make_agent(name).search(Problem(walk, tuned.goal)).value, unit, board)
        lines.append(Line(name, [(1.0, value), (float(episodes), value)], dash=True))
    best = milliseconds(tuned.best.value, unit, board)
    lines.append(Line("exact optimum", [(1.0, best), (float(episodes), best)]))
    return lines_svg(lines, "episodes", "ms by the table", log=True, top=2.0 * best)


def _waterfall(tuned: Tuned) -> str:
    """Layer by layer, the default plan beside the chosen one."""
    default = next((f for f in tuned.finalists if "default" in f.names), None)
    if default is None or default.measured.error or default.plan == tuned.chosen.plan:
        names = ["this plan"] if default is None or default.measured.error else [
            "this plan, which is the default one"]  # fmt: skip
        return bars_svg([(n, [v]) for n, v in _step_ms(tuned, tuned.chosen).items()], names, "ms")
    before, after = _step_ms(tuned, default), _step_ms(tuned, tuned.chosen)
    rows = [(n, [before.get(n, 0.0), after.get(n, 0.0)]) for n in dict.fromkeys([*before, *after])]
    return bars_svg(rows, ["default plan", "this plan"], "ms")


def _explanations(rows: Sequence[dict[str, Any]]) -> str:
    out = []
    for r in rows:
        best = r["alternatives"][0] if r["alternatives"] else None
        rival = f"{best['kernel']} {best['layout']}: {best['plan_ms']:+.4f} ms" if best else ""
        cells = (r["node"], f"{r['kernel']} {r['layout']}", f"{r['layer_ms']:.4f}", rival, r["why"])
        out.append("".join(f"<td>{escape(c)}</td>" for c in cells))
    return _table(("layer", "choice", "ms", "best alternative", "why"), out)


def _front(tuned: Tuned) -> str:
    groups: dict[str, list[tuple[float, float]]] = {"other finalists": [], "chosen": []}
    for f in tuned.finalists:
        if not f.measured.error:
            name = "chosen" if f.plan == tuned.chosen.plan else "other finalists"
            groups[name].append((f.measured.arena_bytes / 1024, _cost_ms(tuned, f.measured)))
    if not any(groups.values()):
        return ""
    return points_svg(groups, "arena in KiB", "ms measured")


def _cost_ms(tuned: Tuned, measured: EndToEnd) -> float:
    return milliseconds(measured.cost, tuned.priced.table.unit, tuned.space.board)


def _sizes(tuned: Tuned) -> str:
    rows = [
        (", ".join(f.names), [f.measured.arena_bytes / 1024, f.measured.flash_bytes / 1024])
        for f in tuned.finalists if not f.measured.error
    ]  # fmt: skip
    return bars_svg(rows, ["arena", "flash"], "KiB")


def _memory(f: Finalist) -> str:
    schedule = f.generated.schedule
    names = [r["name"] for r in layer_rows(f.generated)]
    text = memory_svg(schedule.buffers, len(names), schedule.arena_bytes, schedule.lower_bound,
                      names)  # fmt: skip
    return text.split("?>\n", 1)[-1]
