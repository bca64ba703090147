"""What the rows of benchmarks/search/results.json say, in sentences with numbers."""

import statistics
from collections.abc import Mapping, Sequence
from typing import Any

Row = Mapping[str, Any]
_NEAR, _MUCH = 0.01, 0.05
_HEAVY_BYTES = 32 << 10


def title(row: Row) -> str:
    """Network and board."""
    return f"{row['model']}, {row['board']}"


def percent(part: float) -> str:
    """0.0123 -> 1.23 %"""
    return f"{100 * part:.2f} %"


def chosen_of(row: Row) -> Mapping[str, Any]:
    """The finalist that was taken."""
    return next(f for f in row["finalists"] if f["names"] == row["chosen"])


def ms_by_name(row: Row) -> dict[str, float | None]:
    """Milliseconds of each finalist by who proposed it."""
    return {n: f["ms"] for f in row["finalists"] for n in f["names"]}


def against_uniform(row: Row) -> float | None:
    """By which part the chosen plan is faster than the best uniform plan that was run."""
    known = [ms for ms in row.get("whole", {}).values() if ms]
    return 1 - chosen_of(row)["ms"] / min(known) if known else None


def found(rows: Sequence[Row]) -> str:
    """Q-learning and greedy on the tables."""
    if not rows:
        return ""
    q = [r["agents"]["qlearning"] for r in rows]
    good, seeds = sum(a["within_1_percent"] for a in q), sum(a["seeds"] for a in q)
    pairs = list(zip(q, rows, strict=True))
    better = sum(a["gap_most"] < r["long_random"] for a, r in pairs)
    level = sum(a["gap_most"] <= r["fixed"]["greedy"] + 1e-9 for a, r in pairs)
    return f"""\
**Q-learning** is within 1 % of the optimum in {good} of {seeds} searches after 1,000 episodes; a
search takes {max(a["seconds"] for a in q):.1f} s at most. Its worst seed beats random search with
ten times the episodes on {better} of {len(rows)} tables, and is not worse than greedy on {level}.

{_greedy(rows)}
"""


def _greedy(rows: Sequence[Row]) -> str:
    off = {title(r): r["fixed"]["greedy"] for r in rows if r["fixed"]["greedy"] > 1e-6}
    worst = max(off, key=lambda n: off[n], default="")
    said = f" At worst it is {percent(off[worst])} above ({worst})." if off else ""
    fastest = percent(max(r["fixed"]["fastest"] for r in rows))
    return f"""\
**Greedy**, in execution order the cheapest row given what was chosen before, its own changes of
layout included, is the optimum itself on {len(rows) - len(off)} of {len(rows)}
tables.{said}
Nearly all fast rows want channels last, so that one change of layout at the input, where there are
few channels, settles the rest, and what is left is a choice for each layer by itself. On
mlperf_vww_mbv1_025, where it loses, it takes groups of three layers (compared plan by plan on
raspberry-pi-4), of which the last is where another group would begin.
`lookahead` also counts what a choice makes the layers up to the next choice pay. Taking the fastest
row of each layer as if layouts were free is {fastest} above the optimum at worst."""


def against_rules(rows: Sequence[Row]) -> str:
    """Per board, where a search is worth most, measured whole."""
    lines: list[str] = []
    for board in dict.fromkeys(r["board"] for r in rows):
        known = [r for r in rows if r["board"] == board and against_uniform(r) is not None]
        if not known:
            continue
        best = max(known, key=lambda r: against_uniform(r) or 0.0)
        greedy = ms_by_name(best).get("greedy")
        less = 1 - chosen_of(best)["ms"] / greedy if greedy else 0.0
        lines.append(
            f"- {board}: {best['model']}, {percent(against_uniform(best) or 0.0)} less than the "
            f"best uniform plan, {percent(less)} less than greedy."
        )
    if not lines:
        return ""
    listed = "\n".join(lines)
    return f"""
Where the plan found gains most over the best uniform plan, measured end to end:

{listed}

{_over_greedy(rows)}
"""


def _over_greedy(rows: Sequence[Row]) -> str:
    gains = {title(r): 1 - chosen_of(r)["ms"] / ms for r in rows
             if (ms := ms_by_name(r).get("greedy"))}  # fmt: skip
    if not gains:
        return ""
    most = max(gains, key=lambda n: gains[n])
    many = sum(g >= _MUCH for g in gains.values())
    return (
        f"Over greedy the plan found gains {percent(gains[most])} at most ({most}), and 5 % or "
        f"more on {many} of {len(gains)}: on the table greedy is optimal or nearly so, for the "
        "reason above; the rest shows only where finalists are compared whole.\n"
    )


def off_the_table(rows: Sequence[Row]) -> str:
    """How far whole networks are from the sum of their layers."""
    off = [(abs(f["ms"] / f["predicted_ms"] - 1), title(r)) for r in rows for f in r["finalists"]
           if f["ms"] and f["predicted_ms"]]  # fmt: skip
    if not off:
        return ""
    far = sorted({name for e, name in off if e > _MUCH})
    said = f"More than 5 % off: {'; '.join(far)}." if far else "None is more than 5 % off."
    return (
        f"Over all {len(off)} finalists the whole network differs from the table's sum by "
        f"{percent(statistics.mean(e for e, _ in off))} in the mean and {percent(max(off)[0])} at "
        f"most ({max(off)[1]}). {said}\n\n{step_by_step(rows)}"
    )


def step_by_step(rows: Sequence[Row]) -> str:
    """Where the table and the whole part: of chosen plans that were looked at step by step."""
    known = [r for r in rows if r.get("steps")]
    if not known:
        return ""
    lines = [
        "Where the chosen plan and the table part, by step: a network that is run again and again "
        "finds the caller's input no longer in L2, while a price is for inputs in L2; and what "
        "remains of its weights there differs.",
        "",
        "| network | all, ms | table | steps that read the input | table | steps with weights "
        "beyond 32 KiB | table | other steps | table |",
        "| --- " * 9 + "|",
    ]
    for r in known:
        sums = [(sum(s["ms"] for s in some), sum(s["table_ms"] for s in some))
                for some in (r["steps"], *kinds_of(r["steps"]))]  # fmt: skip
        figures = " | ".join(f"{whole:.3f} | {table:.3f}" for whole, table in sums)
        lines.append(f"| {title(r)} | {figures} |")
    return "\n".join(lines) + "\n"


def kinds_of(steps: Sequence[Row]) -> tuple[list[Row], list[Row], list[Row]]:
    """Steps that read the caller's input, of the others those with many weights, and the rest."""
    first = [s for s in steps if s["reads_input"]]
    heavy = [s for s in steps if not s["reads_input"] and s["weights_bytes"] > _HEAVY_BYTES]
    return first, heavy, [s for s in steps if s not in first and s not in heavy]


def limited(rows: Sequence[Row]) -> str:
    """Agents under the smallest arena as a limit."""
    known = [r for r in rows if "limited" in r.get("arena", {})]
    if not known:
        return ""
    of = {n: [r["arena"]["limited"][n] for r in known] for n in ("greedy", "qlearning")}
    none = sum(g is None for g in of["greedy"])
    good = sum(g is not None and g <= _NEAR for g in of["qlearning"])
    worst = max((g for g in of["greedy"] if g is not None), default=0.0)
    return (
        f"With the smallest arena as the limit (`--max-arena`) greedy finds no plan on {none} of "
        f"{len(known)} tables and is {percent(worst)} above the best plan within the limit at "
        f"worst on the others; Q-learning is within 1 % of it on {good}.\n"
    )


def smallest(rows: Sequence[Row]) -> str:
    """Whether half the arena of the fastest plan can be had."""
    known = [r for r in rows if "arena" in r]
    if not known:
        return ""
    part = {title(r): r["arena"]["points"][-1][1] / r["arena"]["points"][0][1] for r in known}
    half = [n for n, p in part.items() if p <= 0.5]
    same = [n for n, p in part.items() if p >= 1.0]
    return (
        f"Half the arena of the fastest plan is to be had on {len(half)} of {len(known)} tables"
        f"{': ' + '; '.join(half) if half else ''}. On {len(same)} the fastest plan is the "
        f"smallest that was found.{_against_apart(known)} What limits is what a layer reads and "
        "writes, where no candidate computes it together with its neighbours: in SqueezeNet the "
        "first convolution's result beside the pool's. The search for the smallest lowers the "
        "limit on the estimated memory in steps of 2 %, 40 times at most.\n"
    )


def _against_apart(known: Sequence[Row]) -> str:
    """The smallest plan beside the fastest one in which no kernel computes several nodes."""
    rows = [r for r in known if "apart" in r["arena"]]
    if not rows:
        return ""
    part = {title(r): r["arena"]["points"][-1][1] / r["arena"]["apart"][1] for r in rows}
    least = min(rows, key=lambda r: part[title(r)])
    small, fast = least["arena"]["points"][-1], least["arena"]["points"][0]
    half = sum(p <= 0.5 for p in part.values())
    return (
        " Chains of layers that are computed band by band, and first layers that read the caller's "
        "image as it is, gain memory and time alike: beside the fastest plan with one kernel per "
        f"node, half the arena is to be had on {half} of {len(rows)} tables. At best "
        f"({title(least)}) {small[1] / 1024:,.1f} KiB are enough instead of "
        f"{least['arena']['apart'][1] / 1024:,.1f}; the plan takes {small[0]:.3f} ms, the fastest "
        f"of all {fast[0]:.3f} ({fast[1] / 1024:,.1f} KiB), the one with one kernel per node "
        f"{least['arena']['apart'][0]:.3f}."
    )
