"""What a plan is worth: a pure function of prices.

A step costs its layer and the changes of layout before it, in the table's unit (cycles, or ns).
Flash is additive and may be given a price per byte. Memory in use is a maximum: a limit on it is a
limit on each step, and a step above it costs `over` times its excess in relation to the limit, or
is forbidden. A reward is the negative of the cost, in relation to a scale, so that agents see
numbers of about one whatever the network.
"""

from dataclasses import dataclass

from rl.space import Stage
from rl.walk import Move


@dataclass(frozen=True)
class Goal:
    """`flash_price`: units of latency per byte of code and weights. `loss_price`: units per unit of
    what the outputs lose by layers in int8 (rl/codes.py). `max_held`: bytes of
    activations and scratch that a step may use (0: any). `over`: what exceeding it by its own size
    costs; infinite forbids it, a finite number lets an agent learn where the limit lies."""

    flash_price: float = 0.0
    max_held: int = 0
    over: float = float("inf")
    loss_price: float = 0.0

    def value(self, stage: Stage, action: int, move: Move) -> float:
        """Cost of one step, penalties included; never negative."""
        scratch, flash, layer, loss = 0, 0, 0.0, 0.0
        if action >= 0:
            chosen = stage.actions[action]
            price, loss = chosen.prices[move.come], chosen.loss
            scratch, flash, layer = price.scratch_bytes, price.flash_bytes, price.cost
        cost = move.share * layer + move.extra + self.flash_price * flash
        if self.loss_price and loss:
            cost += self.loss_price * loss
        excess = move.held + scratch - self.max_held
        if self.max_held and excess > 0:
            cost += self.over * excess / self.max_held
        return cost


LATENCY = Goal()  # nothing else counts


def reward(cost: float, scale: float) -> float:
    """The reward of a step that costs so much, where a whole plan costs about `scale`."""
    return -cost / scale
