"""Agents that need the extra [rl]. `make test-rl` installs it; without it they are skipped."""

import importlib.util

import pytest

from codegen.errors import CodegenError
from rl.agents import LEARNED, Budget, Problem, make_agent
from rl.agents.walkers import RandomSearch
from rl.assignment import cost_of
from rl.env import PlanEnv
from rl.exact import optimum
from rl.walk import Walk
from tests.search_cases import kws_space, thinned

pytestmark = pytest.mark.rl
HERE = importlib.util.find_spec("stable_baselines3") and importlib.util.find_spec("sb3_contrib")
needs_extra = pytest.mark.skipif(not HERE, reason="the extra [rl] is not installed (make test-rl)")


@pytest.fixture(scope="module")
def walk() -> Walk:
    return Walk(kws_space(5))


@needs_extra
@pytest.mark.parametrize("name", LEARNED)
def test_it_finds_a_valid_plan(name, walk):
    found = make_agent(name).search(Problem(walk, seed=1, budget=Budget(episodes=25)))
    assert found.value == pytest.approx(cost_of(walk, found.choices))
    assert found.value >= optimum(walk).value * (1 - 1e-9)
    assert len(found.curve) == 25
    assert list(found.curve) == sorted(found.curve, reverse=True)


@needs_extra
@pytest.mark.parametrize("name", LEARNED)
def test_it_finds_a_good_plan_in_a_small_table(name):
    """Three candidates a layer: chance is 15 % above the optimum after as many episodes."""
    walk = Walk(thinned(kws_space(5), 3))
    best = optimum(walk).value
    budget = Budget(episodes=300)
    found = make_agent(name).search(Problem(walk, seed=0, budget=budget))
    chance = [RandomSearch().search(Problem(walk, seed=s, budget=budget)).value for s in range(5)]
    assert found.value < sum(chance) / len(chance)
    assert found.value <= 1.1 * best


@needs_extra
def test_stable_baselines_has_nothing_to_say(walk):
    from stable_baselines3.common.env_checker import check_env

    check_env(PlanEnv(walk))


@needs_extra
def test_the_seed_decides(walk):
    budget = Budget(episodes=10)
    first, again = (
        make_agent("maskable_ppo").search(Problem(walk, seed=2, budget=budget)) for _ in range(2)
    )
    assert first == again


@pytest.mark.skipif(bool(HERE), reason="the extra [rl] is installed")
def test_without_the_extra_it_says_what_to_install(walk):
    with pytest.raises(CodegenError, match=r"needs what is not installed.*pip install"):
        make_agent("ppo").search(Problem(walk))
