"""Why a trace takes the cycles it takes: the same words for both kinds of core."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Note:
    """What stands in the margin of one instruction. `cycles`: on a core that issues in order, how
    many pass before it issues, counted from the instruction before it (0: both issue together); on
    one out of order, its latency. `units` are those that it occupies, `why` what it waits for."""

    cycles: float
    units: str = ""
    why: str = ""


@dataclass(frozen=True)
class Explanation:
    """One pass of a trace. `use` names what cycles are spent on, the largest first: on a core that
    issues in order, the reasons for which it does not issue more (they add up to the cycles of the
    pass); on one out of order, how long each unit is busy."""

    bottleneck: str
    use: tuple[tuple[str, float], ...]
    notes: tuple[Note, ...]


def cycles_text(value: float) -> str:
    """16 for 16.0, 16.3 for 16.25."""
    return f"{value:.1f}".removesuffix(".0")
