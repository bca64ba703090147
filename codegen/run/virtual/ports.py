"""Where the cycles of a trace go on a core that issues out of order, by llvm-mca: the limit is a
unit, the front end, or a chain of instructions that wait for each other."""

import json
import re
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from codegen.run.virtual.chains import Chain, chains
from codegen.run.virtual.errors import AnalysisError
from codegen.run.virtual.explain import Explanation, Note, cycles_text
from codegen.run.virtual.instruction import parse
from codegen.run.virtual.outoforder import ITERATIONS, Listing, cycles, split_stores

_LIMIT = 0.9  # of the cycles of a pass: what takes so many explains them
_EQUAL = 0.97  # units that are as busy as the busiest, about
_MOST_CHAINS = 8  # that are timed
_TIMEOUT_S = 300
# Units of LLVM's tables (A57's serve the A72 too): letters for the margin, and what they are.
_UNITS = {
    "A57UnitB": ("B", "branch"),
    "A57UnitI": ("I", "integer"),
    "A57UnitM": ("M", "integer multiply"),
    "A57UnitL": ("L", "load"),
    "A57UnitS": ("S", "store"),
    "A57UnitW": ("W", "FP/ASIMD"),
    "A57UnitX": ("X", "FP/ASIMD"),
    "N1UnitB": ("B", "branch"),
    "N1UnitS": ("S", "integer"),
    "N1UnitM": ("M", "integer multiply"),
    "N1UnitL": ("L", "load/store"),
    "N1UnitD": ("D", "store data"),
    "N1UnitV0": ("V0", "FP/ASIMD"),
    "N1UnitV1": ("V1", "FP/ASIMD"),
}


@dataclass(frozen=True)
class _View:
    """What llvm-mca says of a pass: cycles, micro-ops, cycles that each unit is busy in all and by
    instruction, latencies."""

    cycles: float
    micro_ops: float
    width: int
    busy: Mapping[str, float]
    units: Sequence[Mapping[str, float]]
    latency: Sequence[int]


def explain(listing: Sequence[str], cpu: str, llvm_mca: str) -> Explanation:
    """One pass in a steady state. AnalysisError where llvm-mca fails."""
    text = split_stores(listing)
    view = _view(text, cpu, llvm_mca)
    use = tuple(sorted(view.busy.items(), key=lambda x: (-x[1], x[0])))
    limit, chain = _throughput(view), None
    if not limit:
        chain, alone = _slowest(text, view, cpu, llvm_mca)
        limit = _latency(view, text, chain, alone)
        chain = chain if alone >= _LIMIT * view.cycles else None
    return Explanation(limit, use, _notes(listing, view, chain))


def _view(text: Listing, cpu: str, llvm_mca: str) -> _View:
    found = _mca(text, cpu, llvm_mca)
    region, names = found["CodeRegions"][0], _unit_names(found["TargetInfo"]["Resources"])
    table: list[dict[str, float]] = [{} for _ in range(len(text) + 1)]  # the last one: all
    for x in region["ResourcePressureView"]["ResourcePressureInfo"]:
        table[x["InstructionIndex"]][names[x["ResourceIndex"]]] = x["ResourceUsage"]
    summary = region["SummaryView"]
    return _View(
        summary["TotalCycles"] / ITERATIONS,
        summary["TotaluOps"] / ITERATIONS,
        summary["DispatchWidth"],
        table[-1],
        table[:-1],
        [x["Latency"] for x in region["InstructionInfoView"]["InstructionList"]],
    )


def _mca(text: Listing, cpu: str, llvm_mca: str) -> dict[str, Any]:
    command = (
        llvm_mca, "-mtriple=aarch64", f"-mcpu={cpu}", f"-iterations={ITERATIONS}",
        "-call-latency=0", "-skip-unsupported-instructions=lack-sched", "-json",
    )  # fmt: skip
    try:
        done = subprocess.run(
            command, input="\n".join(text) + "\n", capture_output=True, text=True,
            timeout=_TIMEOUT_S,
        )  # fmt: skip
    except (OSError, subprocess.TimeoutExpired) as e:
        raise AnalysisError(f"llvm-mca failed: {e}") from None
    if done.returncode:
        raise AnalysisError(f"llvm-mca failed: {done.stderr.strip()[:300]}")
    return json.loads(done.stdout)


def _unit_names(resources: Sequence[str]) -> list[str]:
    """LLVM numbers equal units with a byte behind a dot: `N1UnitL.` 0 becomes load/store L0."""
    out = []
    for name in resources:
        unit, dot, number = name.partition(".")
        letter, kind = _UNITS.get(unit, (unit, ""))
        out.append(f"{kind} {letter}{ord(number) if dot and number else ''}".strip())
    return out


def _throughput(view: _View) -> str:
    """The units, or the front end, that work nearly all the time, or nothing."""
    front = view.micro_ops / view.width
    most = max(view.busy.values(), default=0.0)
    if most >= max(_LIMIT * view.cycles, front):
        names = [u for u, n in view.busy.items() if n >= _EQUAL * most]
        return f"throughput of the {_pipes(names)}: {_part(most, view)}"
    if front >= _LIMIT * view.cycles:
        return (
            f"front end: {cycles_text(view.micro_ops)} micro-ops at {view.width} a cycle take "
            f"{_part(front, view)}"
        )
    return ""


def _slowest(text: Listing, view: _View, cpu: str, llvm_mca: str) -> tuple[Chain | None, float]:
    """The chain that takes longest when nothing else runs, and its cycles per pass."""
    found = sorted(
        chains([parse(t) for t in text]),
        key=lambda c: (-sum(view.latency[n] for n in c.places), c.places),
    )[:_MOST_CHAINS]
    alone = cycles([tuple(text[n] for n in c.places) for c in found], cpu, llvm_mca)
    return max(zip(found, alone, strict=True), key=lambda x: x[1], default=(None, 0.0))


def _latency(view: _View, text: Listing, chain: Chain | None, alone: float) -> str:
    if chain and alone >= _LIMIT * view.cycles:
        return f"latency chain through {_path(chain, text)}: {_part(alone, view)}"
    unit = max(view.busy, key=lambda u: (view.busy[u], u), default="")
    nearest = [(view.busy[unit], f"the {_pipes([unit])}")] if unit else []
    nearest.append((view.micro_ops / view.width, "the front end"))
    if chain:
        nearest.append((alone, f"the chain through {_path(chain, text)}"))
    nearest.sort(key=lambda x: -x[0])
    return "no single one; " + ", ".join(f"{name} takes {_part(n, view)}" for n, name in nearest)


def _path(chain: Chain, text: Listing) -> str:
    """`v16: fmla -> fmla`; runs of one opcode as `fmla x 8`, at most six of them."""
    runs: list[tuple[str, int]] = []
    codes = [text[n].split()[0] for n in chain.places]
    for code in [*codes, codes[0]]:
        if runs and runs[-1][0] == code:
            runs[-1] = (code, runs[-1][1] + 1)
        else:
            runs.append((code, 1))
    words = [f"{c} x {n}" if n > 2 else " -> ".join([c] * n) for c, n in runs]
    if len(words) > 6:
        words = [*words[:5], "..."]
    return f"{', '.join(chain.registers[:4])}: {' -> '.join(words)}"


def _notes(listing: Sequence[str], view: _View, chain: Chain | None) -> tuple[Note, ...]:
    """Per instruction as it was before stores were split."""
    waits = set(chain.places) if chain else set()
    out, at = [], 0
    for text in listing:
        parts = range(at, at + len(split_stores([text])))
        at = parts.stop
        used = dict.fromkeys(u for k in parts for u, n in view.units[k].items() if n >= 0.01)
        why = "in the chain" if waits.intersection(parts) else ""
        out.append(Note(max(view.latency[k] for k in parts), _letters(used), why))
    return tuple(out)


def _letters(used: Sequence[str]) -> str:
    """Names of the units without their kind and number, each once."""
    return " ".join(dict.fromkeys(re.sub(r"(?<=[A-Z])\d$", "", u.split()[-1]) for u in used))


def _pipes(names: Sequence[str]) -> str:
    kinds: dict[str, list[str]] = {}
    for name in names:
        kind, _, letter = name.rpartition(" ")
        kinds.setdefault(kind, []).append(letter)
    words = [f"{kind} {' and '.join(letters)}".strip() for kind, letters in kinds.items()]
    return ", ".join(words) + (" pipes" if len(names) > 1 else " pipe")


def _part(some: float, view: _View) -> str:
    return f"{cycles_text(some)} of {cycles_text(view.cycles)} cycles"
