"""The environment: what Gymnasium and Stable-Baselines3 ask of one, and that it prices plans as the
walk does."""

import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env

from rl.assignment import cost_of
from rl.env import PlanEnv
from rl.reward import LATENCY
from rl.walk import Walk
from tests.search_cases import kws_space


@pytest.fixture
def env() -> PlanEnv:
    return PlanEnv(Walk(kws_space()))


def test_gymnasium_has_nothing_to_say(env):
    check_env(env, skip_render_check=True)


def test_an_episode_is_a_plan(env):
    rng = np.random.default_rng(0)
    env.reset(seed=0)
    got, over = 0.0, False
    while not over:
        allowed = np.flatnonzero(env.action_masks())
        _, reward, over, _, info = env.step(rng.choice(allowed))
        got += reward
    assert info["cost"] == pytest.approx(cost_of(env.walk, info["choices"]))
    regret = -got * env.decisions.scale
    assert env.decisions.value(regret) == pytest.approx(info["cost"])


def test_what_the_mask_forbids_is_punished_and_replaced(env):
    to_a_mask(env)
    allowed = env.action_masks()
    _, bad, _, _, _ = env.step(np.flatnonzero(~allowed)[0])
    rewards = []
    for k in np.flatnonzero(allowed):
        to_a_mask(env)
        rewards.append(env.step(k)[1])
    assert bad == pytest.approx(min(rewards) - 1.0)


def to_a_mask(env: PlanEnv) -> None:
    """Go to the first place where something is forbidden."""
    env.reset()
    while env.action_masks().all():
        env.step(0)


def test_the_observation_tells_layouts_apart(env):
    """Two first choices in different layouts are seen by the next layer."""
    seen = set()
    for k in range(len(env.decisions.begin.actions)):
        env.reset()
        observation, *_ = env.step(k)
        seen.add(tuple(observation))
    assert len(seen) > 1
    assert env.goal is LATENCY
