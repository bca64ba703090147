"""benchmarks/search/results.json -> docs/SEARCH.md and docs/search-*.svg."""

import json
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from codegen.models.fetch import write_atomically
from rl.report.charts import Line, lines_svg

ROOT = Path(__file__).resolve().parent.parent.parent
FILE = ROOT / "benchmarks" / "search" / "results.json"
DOCS = ROOT / "docs"
_HEAD = """# The search, in numbers

Written by `python -m benchmarks.search` from benchmarks/search/results.json; not edited by hand.
All figures are from the virtual boards (docs/VALIDATION.md says how far they can be believed).

`codegen tune MODEL --board B` prices candidates in micro-benchmarks, searches the price table, then
builds and runs the finalists whole. Latency on the table is additive, so the **exact optimum** is
known (dynamic programming over the layouts of live tensors, rl/exact.py), and every agent is judged
by its gap to it.

- **States and rewards.** A state is the layer and where its live tensors lie; an action is a kernel
  row in a layout, or a group of nodes that one kernel computes; the reward is the negative regret
  of the layer, changes of layout included (potential-based shaping).
- **Q-learning** is tabular with experience replay, as in QS-DNN (arXiv 1811.07315). Its
  hyper-parameters are the defaults of rl/agents/qlearning.py; the sweep is below.
- **Rules** stand for how libraries choose without measuring (rl/agents/rules.py), with our kernels.
"""


def load() -> dict[str, Any]:
    """What was measured so far."""
    return json.loads(FILE.read_text()) if FILE.is_file() else {}


def draw(rows: Mapping[str, Any], docs: Path = DOCS) -> None:
    """Write the page and its pictures anew."""
    docs.mkdir(exist_ok=True)
    found = [rows[k] for k in sorted(rows)]
    for r in found:
        write_atomically(docs / _picture(r), curves(r).encode())
    write_atomically(docs / "SEARCH.md", markdown(found).encode())


def markdown(rows: Sequence[Mapping[str, Any]]) -> str:
    """The page."""
    parts = [_HEAD, "## Against the exact optimum of the price table\n", _gaps(rows), _found(rows)]
    parts += ["## Measured whole\n", _whole(rows)]
    parts += ["## Sweep of the hyper-parameters\n", _sweep(rows)]
    parts += ["## Curves\n", *(f"![{_title(r)}]({_picture(r)})\n" for r in rows)]
    return "\n".join(parts)


def curves(row: Mapping[str, Any]) -> str:
    """Gap over episodes, means over seeds with the band from the best seed to the worst."""
    lines = []
    for name, a in row["agents"].items():
        points = [(e, 100 * mean) for e, mean, _, _ in a["curve"]]
        band = [(e, 100 * low, 100 * high) for e, _, low, high in a["curve"]]
        lines.append(Line(name, points, band))
    ends = (1, row["agents"]["qlearning"]["curve"][-1][0])
    for name, gap in {**row["fixed"], "ncnn": row["rules"]["ncnn"]}.items():
        lines.append(Line(name, [(e, 100 * gap) for e in ends], dash=True))
    return lines_svg(lines, "episodes", "% above the optimum", log=True)


def _gaps(rows: Sequence[Mapping[str, Any]]) -> str:
    learners = list(rows[0]["agents"]) if rows else []
    head = ["network", "layers", "plans", "optimum, ms", *learners, "random, 10,000 episodes",
            "greedy", "fastest rows", "seconds of Q-learning"]  # fmt: skip
    body = []
    for r in rows:
        gaps = [_percent(r["agents"][n]["gap_mean"]) for n in learners]
        body.append([_title(r), r["layers"], f"{r['plans']:.2g}", f"{r['optimum_ms']:.3f}", *gaps,
                     _percent(r["long_random"]), *map(_percent, r["fixed"].values()),
                     r["agents"]["qlearning"]["seconds"]])  # fmt: skip
    return _table(head, body) + "\nGaps of learners are means over seeds after 1,000 episodes.\n"


def _found(rows: Sequence[Mapping[str, Any]]) -> str:
    """What the table says, in sentences with numbers."""
    if not rows:
        return ""
    q = [r["agents"]["qlearning"] for r in rows]
    good, seeds = sum(a["within_1_percent"] for a in q), sum(a["seeds"] for a in q)
    better = sum(a["gap_most"] < r["long_random"] for a, r in zip(q, rows, strict=True))
    optimal = [_title(r) for r in rows if r["fixed"]["greedy"] < 1e-6]
    worst = _percent(max(r["fixed"]["fastest"] for r in rows))
    return f"""\
Q-learning is within 1 % of the optimum in {good} of {seeds} searches, and its worst seed beats
random search with ten times the episodes on {better} of {len(rows)} tables.

Greedy choice, which sees the changes of layout that its next step needs, is the optimum itself on
{len(optimal)} of {len(rows)} tables: where nearly all fast rows want channels last, one change of
layout at the input settles the rest. Choosing the fastest row of each layer as if layouts were free
is not: it is {worst} above the optimum at worst.
"""


def _whole(rows: Sequence[Mapping[str, Any]]) -> str:
    names = ["default", "greedy", "exact"]
    rules = list(rows[0]["rules"]) if rows else []
    head = ["network", "chosen, ms", "table says", *names, *rules, "against the best uniform plan"]
    body = []
    for r in rows:
        chosen = next(f for f in r["finalists"] if f["names"] == r["chosen"])
        of = {n: f["ms"] for f in r["finalists"] for n in f["names"]}
        whole = r.get("whole", {})
        known = [v for v in whole.values() if v]
        least = _percent(1 - chosen["ms"] / min(known)) + " less" if known else ""
        body.append([_title(r), _ms(chosen["ms"]), _ms(chosen["predicted_ms"]),
                     *(_ms(of.get(n)) for n in names), *(_ms(whole.get(n)) for n in rules),
                     least])  # fmt: skip
    errors = [abs(f["ms"] / f["predicted_ms"] - 1) for r in rows for f in r["finalists"]
              if f["ms"] and f["predicted_ms"]]  # fmt: skip
    off = (f"\nOver all {len(errors)} finalists the whole network differs from the table's sum by "
           f"{_percent(statistics.mean(errors))} in the mean and {_percent(max(errors))} at most.\n"
           if errors else "")  # fmt: skip
    return _table(head, body) + off


def _sweep(rows: Sequence[Mapping[str, Any]]) -> str:
    """Mean and worst gap over the networks where it was made, and their seeds."""
    rows = [r for r in rows if "sweep" in r]
    head = ["changed from the defaults", "mean gap", "worst gap", "seconds"]
    body = []
    for i, first in enumerate(rows[0]["sweep"] if rows else []):
        runs = [r["sweep"][i] for r in rows]
        names = [k for k in first if k not in rows[0]["agents"]["qlearning"]]
        changed = ", ".join(f"{k.replace('_', ' ')} {first[k]:g}" for k in names) or "nothing"
        body.append([changed, _percent(statistics.mean(x["gap_mean"] for x in runs)),
                     _percent(max(x["gap_most"] for x in runs)),
                     f"{statistics.mean(x['seconds'] for x in runs):.2f}"])  # fmt: skip
    return _table(head, body)


def _table(head: Sequence[str], body: Sequence[Sequence[Any]]) -> str:
    lines = ["| " + " | ".join(map(str, row)) + " |" for row in (head, ["---"] * len(head), *body)]
    return "\n".join(lines) + "\n"


def _title(row: Mapping[str, Any]) -> str:
    return f"{row['model']}, {row['board']}"


def _picture(row: Mapping[str, Any]) -> str:
    return f"search-{row['model']}-{row['board']}.svg"


def _percent(part: float) -> str:
    return f"{100 * part:.2f} %"


def _ms(value: float | None) -> str:
    return "" if value is None else f"{value:.3f}"
