"""benchmarks/search/results.json -> docs/SEARCH.md and docs/search-*.svg."""

import json
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.search.findings import (
    against_rules,
    against_uniform,
    chosen_of,
    found,
    limited,
    ms_by_name,
    off_the_table,
    percent,
    smallest,
    title,
)  # fmt: skip
from codegen.models.fetch import write_atomically
from rl.report.charts import Line, lines_svg

ROOT = Path(__file__).resolve().parent.parent.parent
FILE = ROOT / "benchmarks" / "search" / "results.json"
DOCS = ROOT / "docs"
_FIXED = ("greedy", "lookahead", "fastest")
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
    parts = [_HEAD, "## Against the exact optimum of the price table\n", _gaps(rows), found(rows)]
    parts += ["## Measured whole\n", _whole(rows), against_rules(rows), off_the_table(rows)]
    parts += ["## Memory\n", _arenas(rows), limited(rows), smallest(rows)]
    parts += ["## Time of a search\n", _times(rows)]
    parts += ["## Sweep of the hyper-parameters\n", _sweep(rows)]
    parts += ["## Curves\n", *(f"![{title(r)}]({_picture(r)})\n" for r in rows)]
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
            "greedy", "lookahead", "fastest rows", "seconds of Q-learning"]  # fmt: skip
    body = []
    for r in rows:
        gaps = [percent(r["agents"][n]["gap_mean"]) for n in learners]
        fixed = [percent(r["fixed"][n]) if n in r["fixed"] else "" for n in _FIXED]
        body.append([title(r), r["layers"], f"{r['plans']:.2g}", f"{r['optimum_ms']:.3f}", *gaps,
                     percent(r["long_random"]), *fixed,
                     r["agents"]["qlearning"]["seconds"]])  # fmt: skip
    return _table(head, body) + "\nGaps of learners are means over seeds after 1,000 episodes.\n"


def _whole(rows: Sequence[Mapping[str, Any]]) -> str:
    names = ["default", "greedy", "exact"]
    rules = list(rows[0]["rules"]) if rows else []
    head = ["network", "chosen, ms", "table says", *names, *rules, "against the best uniform plan"]
    body = []
    for r in rows:
        chosen, of, whole = chosen_of(r), ms_by_name(r), r.get("whole", {})
        ratio = against_uniform(r)
        body.append([title(r), _ms(chosen["ms"]), _ms(chosen["predicted_ms"]),
                     *(_ms(of.get(n)) for n in names), *(_ms(whole.get(n)) for n in rules),
                     "" if ratio is None else percent(ratio) + " less"])  # fmt: skip
    return _table(head, body)


def _arenas(rows: Sequence[Mapping[str, Any]]) -> str:
    """Fastest and smallest plan by the table, with true arenas."""
    head = ["network", "fastest, ms", "its arena, KiB", "smallest, ms", "its arena, KiB",
            "price in latency", "one kernel per node, ms", "its arena, KiB",
            "what limits the smallest: held + scratch, KiB"]  # fmt: skip
    body = []
    for r in rows:
        if "arena" not in r:
            continue
        a, peak = r["arena"], r["arena"]["peak"]
        (fast, large), (slow, small) = a["points"][0], a["points"][-1]
        apart = [_ms(a["apart"][0]), _kib(a["apart"][1])] if "apart" in a else ["", ""]
        limit = f"{peak['layer']}: {_kib(peak['held'])} + {_kib(peak['scratch'])}"
        body.append([title(r), _ms(fast), _kib(large), _ms(slow), _kib(small),
                     percent(slow / fast - 1), *apart, limit])  # fmt: skip
    return _table(head, body)


def _times(rows: Sequence[Mapping[str, Any]]) -> str:
    """Seconds of `codegen tune`."""
    names = ("cold_s", "cold_cpu_s", "warm_s", "warm_cpu_s")
    body = [[title(r), *(f"{r[n]:.0f}" for n in names)] for r in rows if "cold_s" in r]
    head = ["network", "from an empty store, s", "of processors", "again, s", "of processors"]
    said = "On two cores, which had other work besides.\n\n" if body else ""
    return said + _table(head, body) if body else "Not measured (`--time`).\n"


def _sweep(rows: Sequence[Mapping[str, Any]]) -> str:
    """Mean and worst gap over the networks where it was made, and their seeds."""
    rows = [r for r in rows if "sweep" in r]
    head = ["changed from the defaults", "mean gap", "worst gap", "seconds"]
    body = []
    for i, first in enumerate(rows[0]["sweep"] if rows else []):
        runs = [r["sweep"][i] for r in rows]
        names = [k for k in first if k not in rows[0]["agents"]["qlearning"]]
        changed = ", ".join(f"{k.replace('_', ' ')} {first[k]:g}" for k in names) or "nothing"
        body.append([changed, percent(statistics.mean(x["gap_mean"] for x in runs)),
                     percent(max(x["gap_most"] for x in runs)),
                     f"{statistics.mean(x['seconds'] for x in runs):.2f}"])  # fmt: skip
    return _table(head, body)


def _table(head: Sequence[str], body: Sequence[Sequence[Any]]) -> str:
    lines = ["| " + " | ".join(map(str, row)) + " |" for row in (head, ["---"] * len(head), *body)]
    return "\n".join(lines) + "\n"


def _picture(row: Mapping[str, Any]) -> str:
    return f"search-{row['model']}-{row['board']}.svg"


def _ms(value: float | None) -> str:
    return "" if value is None else f"{value:.3f}"


def _kib(size: float) -> str:
    return f"{size / 1024:,.1f}"
