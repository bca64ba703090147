"""Agents with neural networks: DQN and PPO of Stable-Baselines3, and the PPO of sb3-contrib that
knows the mask. They need the extra `[rl]`; nothing else of the search does."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import Any

from codegen.errors import CodegenError
from rl.agents.base import Found, Problem
from rl.agents.walkers import Greedy
from rl.env import PlanEnv


def _dqn(env: PlanEnv, seed: int, options: dict[str, Any]) -> Any:
    from stable_baselines3 import DQN

    return DQN("MlpPolicy", env, seed=seed, device="cpu", **options)


def _ppo(env: PlanEnv, seed: int, options: dict[str, Any]) -> Any:
    from stable_baselines3 import PPO

    return PPO("MlpPolicy", env, seed=seed, device="cpu", **options)


def _maskable(env: PlanEnv, seed: int, options: dict[str, Any]) -> Any:
    from sb3_contrib import MaskablePPO

    return MaskablePPO("MlpPolicy", env, seed=seed, device="cpu", **options)


# Beside the library's defaults, which are for millions of steps: a search has some thousands, and
# their rewards count alike whenever they come.
_OPTIONS: dict[str, dict[str, Any]] = {
    "dqn": {
        "learning_rate": 1e-3, "gamma": 1.0, "learning_starts": 100, "train_freq": 2,
        "target_update_interval": 200, "exploration_fraction": 0.5, "exploration_final_eps": 0.02,
    },
    "ppo": {"learning_rate": 3e-3, "gamma": 1.0},
    "maskable_ppo": {"learning_rate": 3e-3, "gamma": 1.0},
}  # fmt: skip
_MODELS: dict[str, Callable[[PlanEnv, int, dict[str, Any]], Any]] = {
    "dqn": _dqn, "ppo": _ppo, "maskable_ppo": _maskable,
}  # fmt: skip


@dataclass(frozen=True)
class Learned:
    """`options` are the library's hyper-parameters, where they are not those of `_OPTIONS`;
    episodes as elsewhere. `tensorboard`: a folder for its logs."""

    name: str = "maskable_ppo"
    episodes: int = 1000
    options: dict[str, Any] = field(default_factory=dict)
    tensorboard: str = ""

    def search(self, problem: Problem) -> Found:
        """Learn for so many episodes; the best plan met on the way, the last policy's included.
        CodegenError where the extra is not installed."""
        env = _Recorded(problem, self.episodes)
        options = {**_OPTIONS[self.name], **self.options}
        if self.name != "dqn":
            options.setdefault("n_steps", max(64, 4 * len(problem.walk.stages)))
        if self.tensorboard:
            options["tensorboard_log"] = self.tensorboard
        try:
            model = _MODELS[self.name](env, problem.seed, options)
            with _one_thread(), suppress(_Enough):
                while True:
                    model.learn(self._steps(problem), reset_num_timesteps=False)
        except ImportError as e:
            raise CodegenError(
                "--agent", f"{self.name!r} needs what is not installed ({e.name})",
                "the extra [rl]", "pip install 'codegen[rl]'",
            ) from None  # fmt: skip
        return env.found()

    def _steps(self, problem: Problem) -> int:
        """As many as all episodes may have: what schedules of exploration are in relation to."""
        decisions = sum(len(s.actions) > 1 for s in problem.walk.stages)
        return (problem.budget.episodes or self.episodes) * max(1, decisions)


@contextmanager
def _one_thread() -> Iterator[None]:
    """The networks are so small that several threads only wait for each other."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


class _Enough(Exception):
    """The budget is used up: the only way out of a library's training loop."""


class _Recorded(PlanEnv):
    """An environment that keeps the best episode and stops when the budget is used up."""

    def __init__(self, problem: Problem, episodes: int):
        super().__init__(problem.walk, problem.goal)
        self._problem = problem
        self._left = problem.episodes(episodes)
        self._best: tuple[float, tuple[int, ...]] | None = None
        self._curve: list[float] = []

    def reset(self, **kw: Any) -> Any:
        """The next episode, if there is one."""
        if next(self._left, None) is None:
            raise _Enough
        return super().reset(**kw)

    def step(self, action: int) -> Any:
        """As the environment does; at the end of an episode its plan is kept if it is better."""
        result = super().step(action)
        info = result[4]
        if "cost" in info:
            if self._best is None or info["cost"] < self._best[0]:
                self._best = info["cost"], info["choices"]
            self._curve.append(self._best[0])
        return result

    def found(self) -> Found:
        """The best episode; the greedy plan where there was none."""
        if self._best is None:
            return Greedy().search(self._problem)
        return Found(self._best[1], self._best[0], tuple(self._curve))
