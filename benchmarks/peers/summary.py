"""benchmarks/results/*.json -> the table of README.md: how fast other engines are, in one look."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.peers import results
from benchmarks.peers.report import OURS, find, geomean
from benchmarks.peers.text import CORES, NAMES

README = Path(__file__).resolve().parent.parent.parent / "README.md"
BEGIN, END = "<!-- by python -m benchmarks.peers -->\n", "<!-- end -->\n"
DTYPES = {"f32": "float32", "i8": "int8"}

Rows = Sequence[Mapping[str, Any]]


def table(rows: Rows) -> str:
    """By engine, element type and core the geometric mean of times as multiples of ours, over the
    networks that both compute."""
    heads = [f"{name}, {core.upper()}" for name in DTYPES.values() for core in CORES]
    lines = [f"| engine | {' | '.join(heads)} |", "|---" + "|---:" * len(heads) + "|"]
    for engine in (n for n in NAMES if not n.startswith(OURS)):
        means = [_mean(rows, engine, core, dtype) for dtype in DTYPES for core in CORES]
        if any(means):
            cells = (f"{m:.2f}x" if m else "–" for m in means)
            lines.append(f"| {NAMES[engine]} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def _mean(rows: Rows, engine: str, core: str, dtype: str) -> float | None:
    ratios = []
    for r in rows:
        if (r["engine"], r["core"], r["dtype"]) == (engine, core, dtype) and r["ms"]:
            mine = find(rows, engine=OURS, model=r["model"], core=core, dtype=dtype)
            if mine and mine["ms"]:
                ratios.append(r["ms"] / mine["ms"])
    return geomean(ratios)


def draw() -> None:
    """Write the table into README.md anew."""
    rows = [r for core in CORES for r in results.load(core)]
    README.write_text(redrawn(README.read_text(), rows))


def redrawn(text: str, rows: Rows) -> str:
    """A text with the table anew, between the two marks."""
    before, rest = text.split(BEGIN)
    _, after = rest.split(END)
    return f"{before}{BEGIN}\n{table(rows)}\n{END}{after}"
