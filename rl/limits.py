"""Plans within limits: the goal whose best plan just keeps them.

The table knows memory in use only as an estimate (rl/walk.py: no results in place, no packing), so
the limit on the estimate is moved until the true arena, which is computed without running
anything, keeps the user's. Flash is a sum: its price is raised until the best plan is small enough
(Lagrangian relaxation: plans between two on the convex hull are not found).
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from itertools import islice

from codegen.errors import CodegenError
from rl.assignment import Choices, steps_of
from rl.exact import optimum
from rl.reward import LATENCY, Goal
from rl.walk import Walk

_STEP, _TRIES = 0.01, 200  # by how much the limit on the estimate falls, and how often
_STEPS = 40  # halvings of the price of flash, or of losses
_LOSS = 0.02  # of the energy of the outputs
# Of the price of a loss of 1: the highest, in plans; the lowest and the precision, as ratios.
_DEAREST, _CHEAPEST, _NEAR = 1e9, 1e-12, 1.01


@dataclass(frozen=True)
class Limits:
    """What a plan may need: bytes of arena and of flash, milliseconds, max_rel_error of the whole
    network; 0 is no limit. `drop`: by how much smaller a part of the samples may be right than with
    the float model (0.01 = 1 percentage point; None: any). `cosine`: the least mean cosine of the
    outputs to the float model's. `agreement`: the least part of the samples whose largest output is
    that of the float model."""

    arena: int = 0
    flash: int = 0
    latency_ms: float = 0.0
    error: float = 0.0
    drop: float | None = None
    cosine: float = 0.0
    agreement: float = 0.0

    @property
    def judged(self) -> bool:
        """Whether plans are measured on data."""
        return self.drop is not None or bool(self.cosine or self.agreement)

    @property
    def loss(self) -> float:
        """What the outputs may lose by layers in int8, to begin with: unit vectors of cosine c are
        2 (1 - c) apart, squared; without that limit as much as seldom changes an argmax."""
        return 2.0 * (1.0 - self.cosine) if self.cosine else _LOSS


Arena = Callable[[Choices], int]


def goal_for(
    walk: Walk, limits: Limits, arena: Arena, overhead: int = 0, loss: float = float("inf")
) -> Goal:
    """The goal for an agent; LATENCY where nothing is limited. `arena` gives the true arena of
    choices; `overhead` is flash that no layer pays for; `loss` is what the outputs may lose by
    layers in int8. CodegenError where no plan keeps the limits."""
    goal = LATENCY
    if limits.arena:
        goal = _within_arena(walk, limits.arena, arena)
    if limits.flash:
        goal = _within_flash(walk, goal, limits.flash - overhead, limits.flash)
    return within_loss(walk, goal, loss)


def flash_of(walk: Walk, choices: Choices) -> int:
    """Bytes of code and weights by the table; functions that layers share count for each."""
    return sum(s.flash for s in steps_of(walk, choices))


def tightened(
    walk: Walk, goal: Goal = LATENCY, step: float = 0.0
) -> Iterator[tuple[Goal, Choices]]:
    """The best plans under ever smaller limits of memory in use, until there is none: each limit is
    below what the plan before needs, by the part `step` of it or by a byte (the epsilon-constraint
    method, exact for the estimate)."""
    while True:
        best = optimum(walk, goal)
        if best is None:
            return
        yield goal, best.choices
        peak = peak_of(walk, best.choices)
        goal = replace(goal, max_held=max(1, min(peak - 1, int(peak * (1 - step)))))


def peak_of(walk: Walk, choices: Choices) -> int:
    """Estimated bytes of activations and scratch at the step that needs most."""
    return max((s.held + s.scratch for s in steps_of(walk, choices)), default=0)


def _within_arena(walk: Walk, limit: int, arena: Arena) -> Goal:
    least = 0
    for goal, choices in islice(tightened(walk, step=_STEP), _TRIES):
        size = arena(choices)
        if size <= limit:
            return goal
        least = min(least or size, size)
    raise CodegenError(
        "--max-arena",
        f"{limit} bytes are not enough; the smallest plan found needs {least}",
        "an arena that some plan fits in",
        "allow more",
    )


def loss_of(walk: Walk, choices: Choices) -> float:
    """What the outputs are expected to lose by layers in int8."""
    actions = zip(walk.stages, choices, strict=True)
    return sum(stage.actions[a].loss for stage, a in actions if a >= 0)


def within_loss(walk: Walk, goal: Goal, limit: float) -> Goal:
    """The goal with a price on losses, the lowest at which the best plan keeps the limit. A plan
    without int8 loses nothing, so that there is one."""
    best = optimum(walk, goal)
    if best is None or loss_of(walk, best.choices) <= limit:
        return goal
    low, high = 0.0, best.value * _DEAREST
    for _ in range(_STEPS):
        price = (low * high) ** 0.5 if low else high * _CHEAPEST
        found = optimum(walk, replace(goal, loss_price=price))
        if found and loss_of(walk, found.choices) <= limit:
            high = price
        else:
            low = price
        if low and high / low < _NEAR:
            break
    return replace(goal, loss_price=high)


def _within_flash(walk: Walk, goal: Goal, limit: int, said: int) -> Goal:
    best = optimum(walk, goal)
    if best is None or flash_of(walk, best.choices) <= limit:
        return goal
    high = best.value / max(1, flash_of(walk, best.choices)) * 1e4
    smallest = optimum(walk, replace(goal, flash_price=high))
    if smallest is None or flash_of(walk, smallest.choices) > limit:
        size = flash_of(walk, smallest.choices) if smallest else 0
        raise CodegenError(
            "--max-flash",
            f"{said} bytes are not enough; the smallest plan's layers need {size}",
            "flash that some plan fits in",
            "allow more",
        )
    low = 0.0
    for _ in range(_STEPS):
        price = (low + high) / 2
        found = optimum(walk, replace(goal, flash_price=price))
        if found and flash_of(walk, found.choices) <= limit:
            high = price
        else:
            low = price
    return replace(goal, flash_price=high)
