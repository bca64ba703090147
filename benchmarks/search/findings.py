"""What the rows of benchmarks/search/results.json say, in sentences with numbers."""

import statistics
from collections.abc import Mapping, Sequence
from typing import Any

Row = Mapping[str, Any]
_NEAR, _MUCH = 0.01, 0.05


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
    said = (
        f"More than 5 % off: {'; '.join(far)}. Prices are for weights in memory where a network "
        "does not fit in L2. Looked at step by step on one of them (mlperf_vww_mbv1_025, "
        "raspberry-pi-4), the layers with many weights take 0.9 of their prices and less: a part "
        "of the weights seems to be in L2 from the run before. The change of the input's layout "
        "takes more than its price, for the caller's input is not in L2. The other networks were "
        "not looked at in this way."
        if far else "None is more than 5 % off."
    )  # fmt: skip
    return (
        f"Over all {len(off)} finalists the whole network differs from the table's sum by "
        f"{percent(statistics.mean(e for e, _ in off))} in the mean and {percent(max(off)[0])} at "
        f"most ({max(off)[1]}). {said}\n"
    )


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
        "smallest that was found. What limits is what a layer reads and writes, where no candidate "
        "computes it together with its neighbours. In MobileNetV2, whose fastest plan has kernels "
        "that compute chains of layers band by band, that is the image in channels-last order "
        "beside the first block's result of 112x112x16, which no chain contains (784 KiB, by "
        "itself more than half of the fastest plan's arena); in SqueezeNet the first convolution's "
        "result beside the pool's. The search for the smallest lowers the limit on the estimated "
        "memory in steps of 2 %, 40 times at most.\n"
    )
