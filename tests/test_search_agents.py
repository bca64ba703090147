"""Agents: valid plans, honest values, the same for the same seed; Q-learning finds the optimum."""

from pathlib import Path

import pytest

from codegen.errors import CodegenError
from codegen.models.architectures import build
from codegen.onnx_import import translate
from codegen.passes import optimise
from codegen.pipeline import load_graph
from rl.agents import LIGHT, Budget, Problem, make_agent, parse_budget
from rl.agents.plans import plan_value
from rl.agents.qlearning import QLearning
from rl.agents.walkers import RandomSearch
from rl.assignment import cost_of
from rl.exact import optimum
from rl.formula import formula_table
from rl.limits import tightened
from rl.reward import Goal
from rl.space import build_space
from rl.walk import Walk
from tests.search_cases import BOARD, RESNET, kws_space

FEW = Budget(episodes=60)


@pytest.fixture(scope="module")
def walk() -> Walk:
    return Walk(kws_space(5))


def network(name: str) -> Walk:
    graph = optimise(translate(build(name), Path(name), name))
    return Walk(build_space(graph, BOARD, formula_table(graph, BOARD)))


@pytest.mark.parametrize("name", LIGHT)
def test_an_agent_returns_a_valid_plan_and_its_value(name, walk):
    found = make_agent(name).search(Problem(walk, seed=1, budget=FEW))
    assert found.value == pytest.approx(cost_of(walk, found.choices))
    assert found.value == pytest.approx(found.curve[-1])
    assert list(found.curve) == sorted(found.curve, reverse=True)
    assert found.value >= optimum(walk).value * (1 - 1e-9)


@pytest.mark.parametrize("name", LIGHT)
def test_the_seed_decides(name, walk):
    again = [make_agent(name).search(Problem(walk, seed=3, budget=FEW)) for _ in range(2)]
    assert again[0] == again[1]


@pytest.mark.parametrize("name", ["qlearning", "random", "annealing", "evolution"])
def test_stopping_at_once_still_gives_a_plan(name, walk):
    found = make_agent(name).search(Problem(walk, stopped=lambda: True))
    assert found.value == pytest.approx(cost_of(walk, found.choices))


@pytest.mark.parametrize("name", ["qlearning", "random", "annealing", "evolution"])
def test_time_is_a_budget(name, walk):
    found = make_agent(name).search(Problem(walk, budget=Budget(seconds=0.05)))
    assert len(found.curve) > 1


@pytest.mark.parametrize("name", ["mobilenet_v2", "light_squeezenet"])
def test_q_learning_finds_the_optimum(name):
    """Within 1 % after 1,000 episodes, and better than ten times as many random plans."""
    walk = network(name)
    best = optimum(walk).value
    found = QLearning().search(Problem(walk, seed=7))
    chance = RandomSearch().search(Problem(walk, seed=7, budget=Budget(episodes=10_000)))
    greedy = make_agent("greedy").search(Problem(walk))
    assert found.value <= 1.01 * best
    assert found.value < chance.value
    assert found.value <= greedy.value * (1 + 1e-9)


@pytest.mark.slow
@pytest.mark.parametrize(
    "name", ["mobilenet_v3", "resnet18", "light_resnet50", "light_inception_v1"]
)
def test_q_learning_finds_the_optimum_from_every_seed(name):
    walk = network(name)
    best = optimum(walk).value
    values = [QLearning().search(Problem(walk, seed=s)).value for s in range(10)]
    assert max(values) <= 1.01 * best


def test_greedy_takes_the_cheapest_row_in_execution_order():
    """Changes of layout that a row needs itself are counted, those it makes others need are not."""
    found, ahead = [], []
    for seed in range(6):
        walk = Walk(kws_space(seed))
        choices = make_agent("greedy").search(Problem(walk)).choices
        state = walk.start
        for i, stage in enumerate(walk.stages):
            alone = [a for a in walk.actions(i, state) if a < 0 or not stage.actions[a].group]
            if choices[i] in alone:
                costs = [walk.cost(i, state, a) for a in alone]
                assert walk.cost(i, state, choices[i]) == min(costs)
            state = walk.move(i, state, choices[i]).next
        found.append(cost_of(walk, choices))
        ahead.append(make_agent("lookahead").search(Problem(walk)).value)
    assert found != ahead


def test_epsilon_falls_in_steps():
    agent = QLearning(explore=0.5, epsilon_steps=5, epsilon_end=0.0)
    seen = [agent.epsilon(i / 100) for i in range(101)]
    assert seen[:50] == [1.0] * 50
    assert seen[50:] == sorted(seen[50:], reverse=True)
    assert len(set(seen)) == 6
    assert seen[-1] == 0.0


def test_what_was_learnt_helps_the_next_search(walk):
    first = QLearning().search(Problem(walk, seed=1))
    cold = QLearning().search(Problem(walk, seed=2, budget=Budget(episodes=1)))
    warm = QLearning(explore=0.0).search(
        Problem(walk, seed=2, budget=Budget(episodes=1), prior=first.learnt)
    )
    assert first.learnt
    assert warm.value < cold.value
    assert warm.value == pytest.approx(first.value, rel=0.02)


def test_goals_other_than_latency(walk):
    free = make_agent("exact").search(Problem(walk))
    goal = Goal(flash_price=3.0)
    small = make_agent("qlearning").search(Problem(walk, goal, seed=1))
    assert small.value == pytest.approx(plan_value(Problem(walk, goal), small.choices))
    assert small.value <= plan_value(Problem(walk, goal), free.choices)


def test_limits_that_no_plan_keeps(walk):
    with pytest.raises(CodegenError, match="--max-arena: 1 bytes are not enough for any plan"):
        make_agent("exact").search(Problem(walk, Goal(max_held=1)))


@pytest.mark.parametrize("seed", [0, 1])
def test_q_learning_where_few_plans_keep_the_limit(seed):
    """There a plan's regret is more than the optimum itself, and less than what is forbidden."""
    graph = load_graph(RESNET)
    walk = Walk(build_space(graph, BOARD, formula_table(graph, BOARD)))
    for goal, _ in list(tightened(walk, step=0.02))[-3:]:
        least = optimum(walk, goal).value
        assert least > 2 * optimum(walk).value
        found = make_agent("qlearning").search(Problem(walk, goal, seed, Budget(episodes=300)))
        assert found.value == pytest.approx(least, rel=0.01)


def test_an_agent_that_is_not_there():
    with pytest.raises(CodegenError, match="--agent: 'sarsa'; agents: qlearning, exact"):
        make_agent("sarsa")


@pytest.mark.parametrize(
    ("text", "budget"),
    [
        ("", Budget()),
        ("500ep", Budget(episodes=500)),
        ("5m", Budget(seconds=300.0)),
        ("1.5h", Budget(seconds=5400.0)),
        ("200meas, 90s", Budget(seconds=90.0, measurements=200)),
    ],
)
def test_budgets(text, budget):
    assert parse_budget(text) == budget


@pytest.mark.parametrize("text", ["5", "ep", "-3ep", "0ep", "1.5ep", "5m,5s", "5x"])
def test_budgets_that_are_none(text):
    with pytest.raises(CodegenError, match="--budget: '.*'; a positive number of episodes"):
        parse_budget(text)


def test_random_plans_differ(walk):
    one = Budget(episodes=1)
    values = {RandomSearch().search(Problem(walk, seed=s, budget=one)).value for s in range(5)}
    assert len(values) > 1
