"""benchmarks/accuracy/results.json -> docs/ACCURACY.md."""

import json
import math
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.accuracy.experiment import AGREEMENT, COSINE, DROP, MANY
from benchmarks.accuracy.samples import SOURCES
from benchmarks.peers.results import load as peers_of
from codegen.models.fetch import write_atomically

ROOT = Path(__file__).resolve().parent.parent.parent
FILE = ROOT / "benchmarks" / "accuracy" / "results.json"
METHODS_FILE = FILE.with_name("methods.json")
PAGE = ROOT / "docs" / "ACCURACY.md"
CORES = {"jetson-nano-cpu": "a57", "raspberry-pi-4": "a72", "raspberry-pi-3b-plus": "a53"}
_OURS = ("codegen", "codegen-compact", "blas")
_HEAD = f"""# What int8 costs and brings

Written by `python -m benchmarks.accuracy` from benchmarks/accuracy/results.json; not edited by
hand. Latencies are from the virtual boards, one thread; docs/VALIDATION.md says how far they can be
believed: for ncnn in int8 they came out at 0.70 (A57), 0.80 (A72) and 0.83 (A53) of what was
published. Accuracy is that of the generated C, as the developer's machine runs it with SIMDe in
place of NEON's intrinsics; integers come out the same as under qemu (tests/test_accuracy.py).

Each network is calibrated (`codegen calibrate --method output --round-weights --half 0
--sensitivity`) on one half of its data, and everything below is measured on the other half; views
and crops of one photograph are in one half. `codegen tune --calibration` then decides for each
layer whether it is in int8, within a cosine of {COSINE} to the float model and, where there are
{MANY} labelled samples or more, {DROP:.1%} of top-1 lost, elsewhere the float model's answer for
{AGREEMENT:.0%} of the samples. Plans were chosen by the samples of the table at the end, or by some
of them: on others one that just keeps a limit here may just break it. **float32** is our own
fastest float plan (the search measures it, too), **int8** what `codegen build --calibration` makes
without a search, **chosen** what the search took, **greedy** the cheapest row of each layer in
execution order, own conversions and casts included, whatever it loses. Where there are two ratios
they are those of **int8** and **chosen**, where there are three sizes those of **float32**,
**int8** and **chosen**; beside our arena stands what the program with OpenBLAS has at its peak,
heap, arena and weights. Figures in brackets are 95 % confidence intervals; views of one photograph
count as one sample. Where there are none, they were not computed.
"""


def load(path: Path = FILE) -> dict[str, Any]:
    """What was measured so far, by `NETWORK BOARD`; of methods by network."""
    return json.loads(path.read_text()) if path.is_file() else {}


def draw(rows: Mapping[str, Any], methods: Mapping[str, Any]) -> None:
    """Write the page."""
    write_atomically(PAGE, text_of(rows, methods).encode())


def text_of(rows: Mapping[str, Any], methods: Mapping[str, Any]) -> str:
    """The page."""
    parts = [_HEAD]
    for board, core in CORES.items():
        here = {k.split()[0]: r for k, r in rows.items() if k.split()[1] == board}
        if here:
            parts += [f"## {board}\n", _speed(here, core), _summary(here, core)]
    names = {*(key.split()[0] for key in rows), *methods}
    parts += ["## Accuracy\n", _accuracy(rows), _ranges(methods), _data(names)]
    return "\n".join(parts)


def _speed(rows: Mapping[str, Any], core: str) -> str:
    lines = []
    for name, row in sorted(rows.items()):
        single, coded, chosen = (row["plans"].get(k) for k in ("float32", "int8", "chosen"))
        peer, blas = best_peer(core, name), blas_of(core, name)
        lines.append((
            name, *(f"{p['ms']:.3f}" if p else "" for p in (single, coded, chosen)),
            f"{chosen['int8_layers']} of {chosen['layers']}"
            + (f", {chosen['narrow']} narrow" if chosen["narrow"] else ""),
            _ratios(single, coded, chosen), _greedy(row, chosen),
            f"{peer[1]:.3f} ({peer[0]})" if peer else "",
            _ratios({"ms": peer[1]}, coded, chosen) if peer else "",
            _ratios(blas, coded, chosen) if blas else "",
            _sizes("arena_bytes", single, coded, chosen),
            f"{blas['peak_bytes'] / 1024:,.0f}" if blas else "",
            _sizes("weights_bytes", single, coded, chosen),
        ))  # fmt: skip
    head = ("network", "float32, ms", "int8, ms", "chosen, ms", "layers in int8", "over float32",
            "over greedy", "best int8 peer, ms", "over it", "over im2col + OpenBLAS", "arena, KiB",
            "OpenBLAS, KiB", "weights, KiB")  # fmt: skip
    return _table(head, lines)


def _ratios(other: Mapping[str, Any], *plans: Mapping[str, Any] | None) -> str:
    """By how much the plans are faster."""
    return " / ".join(f"{other['ms'] / p['ms']:.2f}x" if p else "?" for p in plans)


def _sizes(key: str, *plans: Mapping[str, Any] | None) -> str:
    return " / ".join(f"{p[key] / 1024:,.0f}" if p else "?" for p in plans)


def _greedy(row: Mapping[str, Any], chosen: Mapping[str, Any]) -> str:
    """Greedy as in docs/SEARCH.md; it knows nothing of losses, so that it may have more of them."""
    return f"{row['greedy']['ms'] / chosen['ms']:.2f}x" if row.get("greedy") else ""


def _summary(rows: Mapping[str, Any], core: str) -> str:
    means = "; ".join(f"**{p}** {_means(rows, core, p)}" for p in ("int8", "chosen"))
    broken = [n for n, r in rows.items() if not _kept(r, "int8")]
    beyond = f" Beyond the limits are **int8** of {', '.join(broken)}." if broken else ""
    absent = [n for n in SOURCES if n not in rows]
    missing = f" Not measured: {', '.join(absent)}." if absent else ""
    return f"Geometric means: {means}.{beyond}{missing}\n"


def _kept(row: Mapping[str, Any], plan: str) -> bool:
    """Does a plan keep the limits on accuracy?"""
    if plan not in row["plans"]:
        return True
    found = row["plans"][plan]["scores"]
    alike = found["agreement"]["value"] >= AGREEMENT
    if row.get("labelled", 0) >= MANY:
        alike = found["top1 lost"]["value"] <= DROP
    return alike and found["cosine"]["value"] >= COSINE


def _means(rows: Mapping[str, Any], core: str, plan: str) -> str:
    found = {n: r["plans"] for n, r in rows.items() if plan in r["plans"]}
    gains = [p["float32"]["ms"] / p[plan]["ms"] for p in found.values()]
    leads = [best[1] / p[plan]["ms"] for n, p in found.items() if (best := best_peer(core, n))]
    blas = [b["ms"] / p[plan]["ms"] for n, p in found.items() if (b := blas_of(core, n))]
    said = [f"{_mean(gains):.2f}x our float32"]
    said += [f"{_mean(leads):.2f}x the best int8 peer"] if leads else []
    if blas:
        said.append(f"{_mean(blas):.2f}x im2col + OpenBLAS in float32 (at most {max(blas):.2f}x)")
    return ", ".join(said)


def _accuracy(rows: Mapping[str, Any]) -> str:
    lines = []
    for key, row in sorted(rows.items()):
        plans = {"float model": row, **row["plans"]}
        for plan, found in plans.items():
            scores = found["scores"]
            lines.append((
                *key.split(), plan, str(row["samples"]), str(row["independent"]),
                str(row.get("labelled", row["samples"])) if "top1" in scores else "",
                *(_score(scores.get(m), p) for m, p in (
                    ("top1", True), ("top1 lost", True), ("agreement", True), ("cosine", False))),
            ))  # fmt: skip
    head = ("network", "board", "plan", "samples", "independent", "labelled", "top-1", "top-1 lost",
            "agreement", "cosine")  # fmt: skip
    return _table(head, lines)


def _ranges(methods: Mapping[str, Any]) -> str:
    """Networks across, methods down."""
    kinds = list(dict.fromkeys(kind for found in methods.values() for kind in found))
    lines = [
        (kind, *(f"{s['cosine']:.4f}, {100 * s['agreement']:.1f} %" if (s := m.get(kind)) else ""
                 for m in methods.values()))
        for kind in kinds
    ]  # fmt: skip
    return _RANGES + _table(("", *methods), lines) if methods else ""


_RANGES = """## Ranges

What `codegen calibrate --method` makes of a network wholly in int8, with weights of 8 and of 7 bits
(`python -m benchmarks.accuracy --methods --samples 300`): cosine to the float model and agreement
with it, on the half that was not calibrated on. The integers are the same on any board; these were
computed on the developer's machine. "equalised" is with `--equalise`, "rounded" with
`--round-weights`; last, what onnxruntime's static quantisation makes of the same network and data,
with scales per channel.

"""


def _data(names: Collection[str]) -> str:
    """Of the networks that were measured."""
    used = "\n".join(f"- {n}: {s.what}" for n, s in SOURCES.items() if n in names)
    return f"## Data\n\n{used}\n\n{_WITHOUT}"


_WITHOUT = """The keyword spotter, the speech embedding and the anomaly detector have no public
data in a package, so that nothing is said of them here. Networks with seeded weights have no
accuracy.
"""


def best_peer(core: str, model: str) -> tuple[str, float] | None:
    """The fastest of the other engines in int8 whose result is right, and its ms."""
    rows = [r for r in peers_of(core) if r["model"] == model and r["dtype"] == "i8"
            and r["engine"] not in _OURS and r["ms"] and not r["error"]]  # fmt: skip
    best = min(rows, key=lambda r: r["ms"], default=None)
    return (best["engine"], best["ms"]) if best else None


def blas_of(core: str, model: str) -> dict[str, Any] | None:
    """im2col + OpenBLAS in float32."""
    return next((r for r in peers_of(core) if r["model"] == model and r["engine"] == "blas"
                 and r["ms"]), None)  # fmt: skip


def _score(score: Mapping[str, float | None] | None, percent: bool) -> str:
    if not score:
        return ""
    form = (lambda v: f"{100 * v:.2f}") if percent else (lambda v: f"{v:.5f}")
    value = form(score["value"]) + (" %" if percent else "")
    if score["low"] is None:
        return value
    return f"{value} [{form(score['low'])}, {form(score['high'])}]"


def _mean(values: Sequence[float]) -> float:
    return math.exp(sum(map(math.log, values)) / len(values))


def _table(head: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    rows = [head, ["---"] * len(head), *lines]
    return "\n".join(f"| {' | '.join(r)} |" for r in rows) + "\n"
