"""The exact optimum of the table as an agent, so that it can be asked for like the others."""

from dataclasses import dataclass

from codegen.errors import CodegenError
from rl.agents.base import Found, Problem
from rl.exact import optimum


@dataclass(frozen=True)
class Exact:
    """Dynamic programming (rl/exact.py)."""

    name: str = "exact"

    def search(self, problem: Problem) -> Found:
        """One plan. CodegenError where the goal's limits allow none."""
        best = optimum(problem.walk, problem.goal)
        if best is None:
            raise CodegenError(
                "--max-arena",
                f"{problem.goal.max_held} bytes are not enough for any plan",
                "what the largest layer needs",
                "allow more",
            )
        return Found(best.choices, best.value, (best.value,))
