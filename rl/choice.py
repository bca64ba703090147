"""Which finalist is taken: the fastest that keeps the limits as it was measured."""

from collections.abc import Callable
from dataclasses import replace
from math import inf

from codegen.board import Board
from codegen.errors import CodegenError
from rl.finalists import Contest, Finalist
from rl.limits import Limits
from rl.network import EndToEnd

Judge = Callable[[Finalist], EndToEnd]


def choose(
    contest: Contest, limits: Limits, board: Board, unit: str, judge: Judge | None = None
) -> Finalist:
    """The fastest finalist within the limits; of the first, where several are alike. `judge`
    measures one on more samples, for it to keep them there, too: of many plans that are judged on
    some the best is in part a lucky one. CodegenError where none runs, or none keeps the limits."""
    sound = contest.sound()
    if not sound:
        first = next(iter(contest.finalists.values()))
        raise CodegenError(
            str(contest.bench.model),
            f"no plan works on {board.name}: {first.measured.error}",
            "a plan that compiles, runs and computes what it should",
            "see `codegen build` and `codegen verify`",
        )
    kept = [f for f in sound if not objection(f, limits, board, unit)]
    if not kept:
        nearest = min(sound, key=lambda f: f.measured.cost)
        m, least = nearest.measured, [f.measured.max_rel_error for f in sound]
        exact = min((e for e in least if e is not None), default=None)
        off = f"; the most exact one found is off by {exact:.3g}" if limits.error and exact else ""
        raise CodegenError(
            "limits",
            f"the fastest plan found takes {milliseconds(m.cost, unit, board):.3f} "
            f"ms, {m.arena_bytes} bytes of arena and {m.flash_bytes} of flash{off}",
            "plans within --max-latency, --max-arena, --max-flash, --max-error, "
            "--max-accuracy-drop, --min-cosine and --min-agreement together",
            "allow more",
        )
    for f in sorted(kept, key=lambda f: f.measured.cost):
        if f.plan.sha256 in contest.rejected:
            continue
        if judge is None:
            return f
        whole = judge(f)
        measured = replace(f.measured, scores=whole.scores, samples=whole.samples)
        said = whole.error or inaccurate(measured, limits)
        if not said:
            return replace(f, measured=measured)
        contest.rejected[f.plan.sha256] = f"on all of the data {said}"
    raise CodegenError(
        "limits",
        f"{len(kept)} plans keep them on the samples that plans were judged on, none on all data",
        "limits that a plan keeps on all of the data",
        "judge plans on more with --samples, or allow more",
    )


def objection(finalist: Finalist, limits: Limits, board: Board, unit: str) -> str:
    """The first limit that a plan as measured exceeds, and by what; empty where it keeps all."""
    m = finalist.measured
    ms = milliseconds(m.cost, unit, board)
    if limits.arena and m.arena_bytes > limits.arena:
        return f"its arena of {m.arena_bytes} bytes is above --max-arena {limits.arena}"
    if limits.flash and m.flash_bytes > limits.flash:
        return f"its {m.flash_bytes} bytes of flash are above --max-flash {limits.flash}"
    if limits.latency_ms and ms > limits.latency_ms:
        return f"its {ms:.3f} ms are above --max-latency {limits.latency_ms:g}"
    if limits.error and (m.max_rel_error is None or m.max_rel_error > limits.error):
        off = "unknown" if m.max_rel_error is None else f"{m.max_rel_error:.3g}"
        return f"its max_rel_error of {off} is above --max-error {limits.error:g}"
    return inaccurate(m, limits) if limits.judged else ""


def inaccurate(m: EndToEnd, limits: Limits) -> str:
    """The first limit on accuracy that a plan exceeds, and by what; empty where it keeps them."""
    if m.scores is None:
        return "its accuracy is unknown"
    if limits.drop is not None and m.scores["top1 lost"] > limits.drop:
        lost = m.scores["top1 lost"]
        return f"it loses {lost:.2%} of top-1, above --max-accuracy-drop {limits.drop:.2%}"
    if limits.cosine and not m.scores["cosine"] >= limits.cosine:  # nor where it is no number
        return f"its cosine of {m.scores['cosine']:.6f} is below --min-cosine {limits.cosine:g}"
    if limits.agreement and m.scores["agreement"] < limits.agreement:
        same, least = m.scores["agreement"], limits.agreement
        return f"it agrees on {same:.2%} of the samples, below --min-agreement {least:.2%}"
    return ""


def used(m: EndToEnd, limits: Limits) -> float:
    """How much of what may be lost a plan loses, as energy of the error: above 1 it breaks a limit.
    Answers change with the square root of that energy, cosines fall with it."""
    scores = m.scores
    if scores is None:
        return inf
    shares = [_share(1.0 - scores["cosine"], 1.0 - limits.cosine)] if limits.cosine else []
    if limits.agreement:
        shares.append(_share(1.0 - scores["agreement"], 1.0 - limits.agreement) ** 2)
    if limits.drop is not None:
        shares.append(_share(max(scores["top1 lost"], 0.0), limits.drop) ** 2)
    return max(shares, default=0.0)


def _share(lost: float, of: float) -> float:
    return lost / of if of > 0 else inf if lost > 0 else 0.0


def milliseconds(cost: float, unit: str, board: Board) -> float:
    """The table's unit as time at the board's clock."""
    return cost / 1e6 if unit == "ns" else 1e3 * cost / board.clock_hz
