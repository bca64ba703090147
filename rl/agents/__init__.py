"""Agents by name. Each is a frozen dataclass of hyper-parameters with `search(problem)`."""

from collections.abc import Callable

from codegen.errors import CodegenError
from rl.agents.annealing import Annealing
from rl.agents.base import Agent, Budget, Found, Problem, parse_budget
from rl.agents.evolution import Evolution
from rl.agents.learned import Learned
from rl.agents.optimal import Exact
from rl.agents.qlearning import QLearning
from rl.agents.rules import RULES, Library
from rl.agents.walkers import Fastest, Greedy, Lookahead, RandomSearch

# these need the extra [rl]
LEARNED: dict[str, Callable[[], Agent]] = {
    n: (lambda n=n: Learned(n)) for n in ("dqn", "ppo", "maskable_ppo")
}
_LIBRARIES: dict[str, Callable[[], Agent]] = {n: (lambda n=n: Library(n)) for n in RULES}
LIGHT: dict[str, Callable[[], Agent]] = {
    "qlearning": QLearning,
    "exact": Exact,
    "greedy": Greedy,
    "lookahead": Lookahead,
    "fastest": Fastest,
    "random": RandomSearch,
    "annealing": Annealing,
    "evolution": Evolution,
    **_LIBRARIES,
}
AGENTS = {**LIGHT, **LEARNED}


def make_agent(name: str) -> Agent:
    """The agent of that name; CodegenError for another one."""
    if name not in AGENTS:
        raise CodegenError("--agent", f"{name!r}", f"agents: {', '.join(AGENTS)}", "name one")
    return AGENTS[name]()


__all__ = ["AGENTS", "LEARNED", "LIGHT", "Agent", "Budget", "Found", "Problem", "make_agent",
           "parse_budget"]  # fmt: skip
