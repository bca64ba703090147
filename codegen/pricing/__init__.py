"""What every candidate kernel of a layer costs on a board: micro-benchmarks, and the store."""

from codegen.pricing.price import (
    PricingError,
    Settings,
    known_prices,
    price_layers,
    price_signatures,
    ready,
)
from codegen.pricing.sums import plan_cost, plan_parts, total_cost, warm_weights
from codegen.pricing.trials import Candidate, layer_names, macs

__all__ = [
    "Candidate", "PricingError", "Settings", "known_prices", "layer_names", "macs", "plan_cost",
    "plan_parts", "price_layers", "price_signatures", "ready", "total_cost", "warm_weights",
]  # fmt: skip
