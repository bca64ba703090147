"""What all agents have in common: the problem they get, the budget, and what they return."""

import re
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Protocol

from codegen.errors import CodegenError
from rl.assignment import Choices
from rl.decisions import Decisions
from rl.reward import LATENCY, Goal
from rl.walk import Walk

_UNITS = {"ep": "episodes", "meas": "measurements", "s": 1, "m": 60, "h": 3600}


@dataclass(frozen=True)
class Budget:
    """What a search may use: so many episodes (whole plans priced by the table), seconds, or new
    measurements; 0 is no limit, and of episodes the agent's own number."""

    episodes: int = 0
    seconds: float = 0.0
    measurements: int = 0


def parse_budget(text: str) -> Budget:
    """`500ep`, `5m` (or s, h), `200meas`; several joined by commas. CodegenError otherwise."""
    found: dict[str, float] = {}
    for word in text.split(",") if text else ():
        match = re.fullmatch(r"(\d+(?:\.\d+)?)(ep|meas|s|m|h)", word.strip())
        unit = _UNITS[match[2]] if match else ""
        name = unit if isinstance(unit, str) else "seconds"
        whole = match and (name == "seconds" or "." not in match[1])
        if not match or not whole or not float(match[1]) or name in found:
            raise CodegenError(
                "--budget",
                f"{word!r}",
                "a positive number of episodes (500ep), of time (90s, 5m, 1h) or of measurements "
                "(200meas), each once",
                "write e.g. --budget 5m or --budget 500ep,200meas",
            )
        found[name] = float(match[1]) * (unit if isinstance(unit, int) else 1)
    return Budget(int(found.get("episodes", 0)), found.get("seconds", 0.0),
                  int(found.get("measurements", 0)))  # fmt: skip


@dataclass(frozen=True)
class Problem:
    """What is searched: the walk, the goal, and a seed that decides every draw. `stopped` tells
    whether to end early with the best so far. `prior`: values learnt on other networks, by what
    `rl.transfer.key_of` calls a decision."""

    walk: Walk
    goal: Goal = LATENCY
    seed: int = 0
    budget: Budget = Budget()
    stopped: Callable[[], bool] = lambda: False
    prior: Mapping[str, float] = field(default_factory=dict)

    def decisions(self) -> Decisions:
        """The places where something is to be decided."""
        return Decisions(self.walk, self.goal)

    def episodes(self, default: int) -> Iterator[int]:
        """Numbers of the episodes that the budget allows, `default` of them where it names none and
        no time."""
        limit = self.budget.episodes or (10**9 if self.budget.seconds else default)
        start = time.monotonic()
        for i in range(limit):
            if self.stopped():
                return
            if self.budget.seconds and time.monotonic() - start > self.budget.seconds:
                return
            yield i


@dataclass(frozen=True)
class Found:
    """The best plan that was met and its value, by the goal; `curve` has the best value after each
    episode; `learnt` what another search may start from."""

    choices: Choices
    value: float
    curve: tuple[float, ...]
    learnt: Mapping[str, float] = field(default_factory=dict)


class Agent(Protocol):
    """A frozen dataclass of hyper-parameters that can search."""

    name: str

    def search(self, problem: Problem) -> Found:
        """At least one plan is returned, however small the budget is."""
        ...
