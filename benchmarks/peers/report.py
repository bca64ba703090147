"""benchmarks/results/*.json -> docs/BENCHMARKS.md and docs/benchmarks.svg."""

import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.peers import missing, results, text
from benchmarks.peers.chart import svg
from benchmarks.peers.sweep import MODELS
from benchmarks.peers.text import CORES, NAMES
from codegen.peers.measure import from_dict, remark

DOCS = Path(__file__).resolve().parent.parent.parent / "docs"
OURS, COMPACT = "codegen", "codegen-compact"
MIB = 1 << 20

Rows = Sequence[Mapping[str, Any]]


def draw(
    folder: Path | None = None, docs: Path | None = None, planned: Sequence[str] = MODELS
) -> None:
    """Write both files anew from what was measured; `planned`: networks that ought to be there."""
    rows = [r for core in CORES for r in results.load(core, folder)]
    docs = docs or DOCS
    docs.mkdir(exist_ok=True)
    (docs / "BENCHMARKS.md").write_text(markdown(rows, planned))
    (docs / "benchmarks.svg").write_text(svg(speeds(rows), models(rows), CORES, NAMES))


def models(rows: Rows) -> list[str]:
    """Networks, the quickest first."""
    time = {r["model"]: r["ms"] for r in rows if r["engine"] == OURS and r["ms"]}
    return sorted({r["model"] for r in rows}, key=lambda m: (time.get(m, math.inf), m))


def find(rows: Rows, **wanted: Any) -> Mapping[str, Any] | None:
    """The one row with these values."""
    return next((r for r in rows if all(r[k] == v for k, v in wanted.items())), None)


def speeds(rows: Rows) -> dict[tuple[str, str, str], float]:
    """(core, model, engine) -> speed as a multiple of ours, float32."""
    out = {}
    for r in rows:
        mine = find(rows, engine=OURS, model=r["model"], core=r["core"], dtype="f32")
        if r["dtype"] == "f32" and r["ms"] and mine and mine["ms"]:
            out[r["core"], r["model"], r["engine"]] = mine["ms"] / r["ms"]
    return out


def geomean(values: Iterable[float]) -> float | None:
    """None where there are none."""
    logs = [math.log(v) for v in values]
    return math.exp(sum(logs) / len(logs)) if logs else None


def markdown(rows: Rows, planned: Sequence[str] = ()) -> str:
    """The whole document."""
    networks = list(dict.fromkeys([*models(rows), *planned]))
    parts = [text.INTRO]
    if len({r["scale"] for r in rows}) > 1:
        parts.append(text.MIXED)
    for core, title in CORES.items():
        parts += [f"## {title}", "", _latency([r for r in rows if r["core"] == core], "f32"), ""]
    parts += [text.MEMORY, _table(rows, "peak_bytes", "a57"), ""]
    parts += [text.WORKING, working_table(rows), ""]
    parts += [text.WEIGHTS, weights_table(rows), ""]
    parts += [text.BINARY, _table(rows, "binary_bytes", "a57"), ""]
    if any(r["dtype"] == "i8" for r in rows):
        parts.append(text.INT8)
        for core, title in CORES.items():
            some = [r for r in rows if r["core"] == core]
            parts += [f"### {title}", "", _latency(some, "i8"), ""]
    parts += [_engines(rows), *missing.lines(rows, networks), text.LIMITS]
    return "\n".join(parts).rstrip() + "\n"


def _latency(rows: Rows, dtype: str) -> str:
    """Milliseconds, and the multiple of our time in the same element type; under other types than
    float32 our own time in that, too."""

    def cell(engine: str, model: str, of: str = dtype) -> tuple[str, float | None]:
        r = find(rows, engine=engine, model=model, dtype=of)
        mine = find(rows, engine=OURS, model=model, dtype=dtype)
        if not r or not r["ms"]:
            return "–", None
        if not mine or not mine["ms"]:
            return _ms(r["ms"]), None
        ratio = r["ms"] / mine["ms"]
        return (f"**{_ms(r['ms'])}**" if r is mine else f"{_ms(r['ms'])} ({ratio:.2f}x)"), ratio

    table = _grid(rows, cell, dtype, "geometric mean")
    if dtype != "f32":
        single = _line("codegen, float32", [cell(OURS, m, "f32") for m in models(rows)])
        table = f"{table}\n{single}"
    return table + _remarks(rows, dtype)


def _remarks(rows: Rows, dtype: str) -> str:
    """Notes under a table, about figures of results that are less exact than ours must be."""
    some = [r for r in map(from_dict, rows) if r.dtype == dtype and remark(r)]
    return "".join(f"\n\n{NAMES[r.engine]}, {r.model}: {remark(r)}." for r in some)


def _ms(value: float) -> str:
    return f"{value:.2f}" if value < 10 else f"{value:.1f}"


def _table(rows: Rows, key: str, core: str) -> str:
    """MiB of one core."""
    rows = [r for r in rows if r["core"] == core]

    def cell(engine: str, model: str) -> tuple[str, float | None]:
        r = find(rows, engine=engine, model=model, dtype="f32")
        mine = find(rows, engine=OURS, model=model, dtype="f32")
        if not r or not r[key]:
            return "–", None
        ratio = r[key] / mine[key] if mine and mine[key] else None
        return f"{r[key] / MIB:.2f}", ratio

    return _grid(rows, cell, "f32", "geometric mean, x ours")


def working_table(rows: Rows, core: str = "a57") -> str:
    """MiB beyond weights, ours and im2col + OpenBLAS'."""
    lines = ["| network | codegen | im2col + OpenBLAS | |", "|---|---:|---:|---:|"]
    for model in models(rows):
        mine, blas = (find(rows, engine=e, model=model, core=core, dtype="f32")
                      for e in (OURS, "blas"))  # fmt: skip
        if mine and mine.get("packed_bytes") and blas and blas["peak_bytes"]:
            a = mine["peak_bytes"] - mine["packed_bytes"]
            b = blas["peak_bytes"] - mine["weights_bytes"]
            lines.append(f"| {model} | {a / MIB:.2f} | {b / MIB:.2f} | {b / a:.2f}x |")
    return "\n".join(lines)


def weights_table(rows: Rows) -> str:
    """MiB of packed weights by network and core, by the default plan and by the compact one."""
    heads = [f"{c.upper()}, {plan}" for c in CORES for plan in ("default", "small")]
    lines = [
        f"| network | its own | {' | '.join(heads)} |",
        "|---|---:" + "|---:" * len(heads) + "|",
    ]
    for model in models(rows):
        pairs = [_pair(rows, model, c) for c in CORES]
        own = next((f"{p[0]['weights_bytes'] / MIB:.2f}" for p in pairs if p[0]), "–")
        cells = [text for pair in pairs for text in _packed(*pair)]
        lines.append(f"| {model} | {own} | {' | '.join(cells)} |")
    return "\n".join(lines)


def _pair(rows: Rows, model: str, core: str) -> list[Mapping[str, Any] | None]:
    """The rows of the default and of the compact plan, where they tell of weights."""
    pair = (find(rows, engine=e, model=model, core=core, dtype="f32") for e in (OURS, COMPACT))
    return [r if r and r.get("packed_bytes") else None for r in pair]


def _packed(default: Mapping[str, Any] | None, small: Mapping[str, Any] | None) -> tuple[str, str]:
    sizes = [f"{r['packed_bytes'] / MIB:.2f}" if r else "–" for r in (default, small)]
    slower = f" ({small['ms'] / default['ms']:.2f}x)" if default and small else ""
    return sizes[0], sizes[1] + slower


def _grid(rows: Rows, cell: Any, dtype: str, last: str) -> str:
    columns = models(rows)
    lines = [f"| engine | {' | '.join(columns)} | {last} |",
             "|---" + "|---:" * (len(columns) + 1) + "|"]  # fmt: skip
    for engine in NAMES:
        if not any(r["engine"] == engine and r["dtype"] == dtype and r["ms"] for r in rows):
            continue
        lines.append(_line(NAMES[engine], [cell(engine, m) for m in columns]))
    return "\n".join(lines)


def _line(name: str, cells: Sequence[tuple[str, float | None]]) -> str:
    mean = geomean(c[1] for c in cells if c[1])
    mean_text = f"{mean:.2f}x" if mean else "–"
    return f"| {name} | {' | '.join(c[0] for c in cells)} | {mean_text} |"


def _engines(rows: Rows) -> str:
    lines = ["## Engines", "", "| engine | version | how it is run |", "|---|---|---|"]
    for engine in NAMES:
        versions = sorted({r["version"] for r in rows if r["engine"] == engine})
        if versions:
            lines.append(f"| {NAMES[engine]} | {', '.join(versions)} | {text.HOW[engine]} |")
    return "\n".join(lines) + "\n"
