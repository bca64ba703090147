"""What the price table got wrong, learnt from whole networks.

In a network a layer finds other things in the caches than in its micro-benchmark, branches are
predicted by what ran before, and its inputs may be older. A candidate that was measured in a
network costs what it cost there; candidates of the same layer that were not are expected to be off
by the same ratio, for most of what differs (inputs, neighbours) is the layer's and not the row's.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from codegen.pipeline import Generated
from codegen.pricing import plan_parts
from codegen.pricing.sums import Part
from rl.table import Price, Table

_LEAST, _MOST = 0.5, 2.0  # a ratio beyond is noise, or a layer of no weight


@dataclass(frozen=True)
class Observation:
    """A step of a network that was measured: what it costs, beside what the table says."""

    part: Part
    cost: float


def observe(generated: Generated, steps: Sequence[float]) -> list[Observation]:
    """The steps of a measured network."""
    parts = plan_parts(generated.graph, generated.plan, generated.schedule.program)
    return [Observation(p, c) for p, c in zip(parts, steps, strict=True)]


def predicted(generated: Generated, table: Table) -> float | None:
    """What the table says of a plan, by the steps it becomes; None where a price is missing."""
    total = 0.0
    for part in plan_parts(generated.graph, generated.plan, generated.schedule.program):
        price = _price(table, part)
        if price is None or price.error:
            return None
        total += part.share * price.cost
    return total


def corrected(table: Table, seen: Iterable[Observation]) -> Table:
    """The table as the observations would have it."""
    ratios: dict[str, dict[str, list[float]]] = {}
    for o in seen:
        price = _price(table, o.part)
        expected = price.cost * o.part.share if price else 0.0
        if expected > 0:
            ratio = min(_MOST, max(_LEAST, o.cost / expected))
            names = ratios.setdefault(o.part.signature.key, {})
            names.setdefault(str(o.part.candidate), []).append(ratio)
    layers = dict(table.layers)
    for key, by_name in ratios.items():
        layers[key] = _scaled(layers[key], {n: _mean(r) for n, r in by_name.items()})
    return replace(table, layers=layers)


def without(table: Table, part: Part, error: str) -> Table:
    """The table where a candidate that computed something wrong has failed."""
    found = dict(table.layers[part.signature.key])
    found[str(part.candidate)] = Price(0.0, error=error)
    return replace(table, layers={**table.layers, part.signature.key: found})


def _price(table: Table, part: Part) -> Price | None:
    return table.layers.get(part.signature.key, {}).get(str(part.candidate))


def _scaled(prices: Mapping[str, Price], ratios: Mapping[str, float]) -> dict[str, Price]:
    """Measured candidates by their own ratio, the others by the mean."""
    other = _mean(list(ratios.values()))
    return {n: replace(p, cost=p.cost * ratios.get(n, other)) for n, p in prices.items()}


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)
