"""What a search is asked for."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from codegen.board import Board
from codegen.calibration.data import Data
from codegen.pipeline import Shapes
from rl.agents import Budget
from rl.limits import Limits
from rl.promising import Selection


@dataclass(frozen=True)
class Request:
    """What is asked for. `weights`: auto, cold or warm, as in `codegen price`."""

    model: Path
    board: Board
    shapes: Shapes = field(default_factory=dict)
    agent: str = "qlearning"
    budget: Budget = Budget()
    seed: int = 0
    limits: Limits = Limits()
    weights: str = "auto"
    jobs: int = 0
    selection: Selection = Selection()
    timeout_s: float = 1800.0
    pareto: tuple[str, ...] = ()  # axes of the front that is wanted, too
    prior: Mapping[str, float] = field(default_factory=dict)  # rl/transfer.py
    dtype: str = ""  # f32 or f16; default: the model's own
    calibration: Path | None = None  # layers may be in int8
    data: Data | None = None  # on which finalists are judged
    samples: int | None = None  # of the data, at most

    @property
    def exactness(self) -> bool:
        """Whether it matters how exact a plan is, as long as it passes."""
        return bool(self.limits.error) or "error" in self.pareto
