"""A walk's choices as a plan, a plan's as choices, and what they cost by the table."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from codegen.plan import Choice, Plan
from codegen.precision import own_dtype
from codegen.types import DType
from rl.codes import cast_name
from rl.space import Space, Way
from rl.walk import Walk

Choices = tuple[int, ...]  # an action per stage; -1 where there is nothing to decide


@dataclass(frozen=True)
class Step:
    """One stage of a plan: the cost of the layer and of changes of layout, in the table's unit;
    `held` and `scratch` bytes while it runs; `flash` bytes of code and weights."""

    name: str
    action: int
    layer: float
    conversion: float
    held: int
    scratch: int
    flash: int


def steps_of(walk: Walk, choices: Choices) -> list[Step]:
    """What each stage of a plan costs."""
    state, out = walk.start, []
    for i, stage in enumerate(walk.stages):
        action = choices[i]
        move = walk.move(i, state, action)
        layer, scratch, flash = 0.0, 0, 0
        if action >= 0:
            price = stage.actions[action].prices[move.come]
            layer = move.share * price.cost
            scratch, flash = price.scratch_bytes, price.flash_bytes
        out.append(Step(stage.name, action, layer, move.extra, move.held, scratch, flash))
        state = move.next
    return out


def cost_of(walk: Walk, choices: Sequence[int]) -> float:
    """Latency of a plan by the table, in its unit; infinite where a conversion is missing."""
    state, total = walk.start, 0.0
    for i, action in enumerate(choices):
        total += walk.cost(i, state, action)
        state = walk.move(i, state, action).next
    return total


def repaired(walk: Walk, wanted: Sequence[int]) -> Choices:
    """The nearest valid choices: what is decided by a group begun before is dropped, and where a
    decision is missing, or cannot be, the cheapest action that can is taken."""
    state, out = walk.start, []
    for i in range(len(walk.stages)):
        allowed = walk.actions(i, state)
        action = wanted[i]
        if action not in allowed:
            action = min(allowed, key=lambda a, i=i, s=state: (walk.cost(i, s, a), a))
        out.append(action)
        state = walk.move(i, state, action).next
    return tuple(out)


def plan_of(space: Space, choices: Choices, model_sha256: str, dtype: str = "") -> Plan:
    """The plan that the choices are; `dtype`: in which type it computes, where the network's own
    tensors do not say it. Nodes in int8, or codes of the caller,
    make it a plan of i8."""
    nodes = {}
    for stage, action in zip(space.stages, choices, strict=True):
        if action >= 0:
            a = stage.actions[action]
            nodes[stage.name] = Choice(a.kernel, a.layout, a.group, a.bits)
    if any(c.bits for c in nodes.values()) or (space.codes and space.codes.ports):
        nodes |= {cast_name(t): Choice(space.casts[t, come, at].kernel, at, bits=0)
                  for t, come, at in _casts(Walk(space), choices)}  # fmt: skip
        dtype = DType.I8.value
    return Plan(space.board.name, model_sha256, nodes, dtype=dtype or own_dtype(space.graph))


def _casts(walk: Walk, choices: Choices) -> Iterator[Way]:
    """What becomes codes, or is made of them, and in which layouts."""
    state = walk.start
    for i, action in enumerate(choices):
        move = walk.move(i, state, action)
        yield from move.casts
        state = move.next


def choices_of(space: Space, plan: Plan) -> Choices | None:
    """The choices that a plan is; None where it takes a candidate that the space has not. Casts
    are taken as the table has them."""
    inside = {n for group in plan.groups.values() for n in group[1:]}
    out = []
    for stage in space.stages:
        if not stage.actions or stage.name in inside:
            out.append(-1)
            continue
        c = plan.nodes[stage.name]
        found = [
            i for i, a in enumerate(stage.actions)
            if (a.kernel, a.layout, a.group, a.bits) == (c.kernel, c.layout, c.group, c.bits)
        ]  # fmt: skip
        if not found:
            return None
        out.append(found[0])
    return tuple(out)
