"""The exact optimum against every plan there is, on networks small enough to try them all."""

import itertools
import random
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from codegen.passes import optimise
from codegen.pipeline import load_graph
from rl.agents import Problem
from rl.agents.plans import plan_value
from rl.assignment import cost_of, steps_of
from rl.exact import optimum, optimum_within
from rl.limits import loss_of
from rl.reward import LATENCY, Goal, reward
from rl.space import Space, Stage, in_floats
from rl.walk import Walk
from tests.random_graphs import networks
from tests.search_cases import KWS, invented, kws_space, mixed, wander

QUICK = settings(deadline=None, max_examples=60, derandomize=True, database=None)
_MOST_ACTIONS = 3


def thinned(space: Space) -> Space:
    """A few candidates of each layout, groups among them."""
    stages = []
    for s in space.stages:
        groups = [a for a in s.actions if a.group][:1]
        alone = [a for a in s.actions if not a.group]
        few = [*alone[:1], *alone[-1:]] if len(alone) > 1 else alone
        stages.append(Stage(s.node, (*few, *groups)[:_MOST_ACTIONS]))
    return replace(space, stages=tuple(stages))


def every_plan(walk: Walk, stage: int = 0, state: int = 0):
    """All choices, by walking in all ways."""
    if stage == len(walk.stages):
        yield ()
        return
    for action in walk.actions(stage, state):
        after = walk.move(stage, state, action).next
        for rest in every_plan(walk, stage + 1, after):
            yield (action, *rest)


@QUICK
@given(networks(largest=8), st.integers(0, 999))
def test_nothing_is_better(graph, seed):
    walk = Walk(thinned(invented(optimise(graph), seed)))
    plans = list(itertools.islice(every_plan(walk, 0, walk.start), 20_000))
    best = optimum(walk)
    assert best.proven
    assert best.value == pytest.approx(cost_of(walk, best.choices))
    assert best.value == pytest.approx(min(cost_of(walk, p) for p in plans)) or (
        len(plans) == 20_000 and best.value <= min(cost_of(walk, p) for p in plans)
    )


@QUICK
@given(networks(largest=6), st.integers(0, 999), st.floats(0.2, 1.0))
def test_limits_of_memory_and_prices_of_flash(graph, seed, part):
    walk = Walk(thinned(invented(optimise(graph), seed)))
    plans = list(itertools.islice(every_plan(walk, 0, walk.start), 20_000))
    needs = [max(s.held + s.scratch for s in steps_of(walk, p)) for p in plans]
    goal = Goal(0.5, max(1, int(part * max(needs))))
    best = optimum(walk, goal)
    values = [plan_value(Problem(walk, goal), p) for p in plans]
    assert (best is None) == (min(values) == float("inf"))
    if best:
        assert best.value == pytest.approx(min(values))
        assert max(s.held + s.scratch for s in steps_of(walk, best.choices)) <= goal.max_held


def test_dropping_states_is_told():
    walk = Walk(kws_space())
    exact, few = optimum(walk), optimum(walk, most_states=1)
    assert exact.proven
    assert not few.proven
    assert few.value == pytest.approx(cost_of(walk, few.choices))
    assert few.value >= exact.value


def test_no_random_plan_of_a_network_is_better():
    walk, rng = Walk(kws_space(3)), random.Random(0)
    best = optimum(walk)
    assert all(cost_of(walk, wander(walk, rng)) >= best.value for _ in range(300))


def test_a_penalty_that_is_finite_lets_limits_be_exceeded():
    walk = Walk(kws_space())
    assert optimum(walk, Goal(max_held=1)) is None
    soft = optimum(walk, Goal(max_held=1, over=1.0))
    assert soft.value > optimum(walk).value


def test_rewards():
    assert reward(30.0, 60.0) == -0.5
    assert reward(0.0, 60.0) == 0.0


@QUICK
@given(networks(largest=6), st.integers(0, 999), st.floats(0.0, 1.0))
def test_within_losses_nothing_is_better(graph, seed, part):
    """Of all plans that lose no more, by trying them; also where no price of losses finds it."""
    walk = Walk(thinned(mixed(optimise(graph), seed)))
    every = [(loss_of(walk, c), cost_of(walk, c)) for c in every_plan(walk, 0, walk.start)]
    limit = part * max(loss for loss, _ in every)
    found = optimum_within(walk, LATENCY, limit)
    least = min(cost for loss, cost in every if loss <= limit)
    assert found.proven
    assert found.value == pytest.approx(least)
    assert cost_of(walk, found.choices) == pytest.approx(least)
    assert loss_of(walk, found.choices) <= limit


def test_ways_that_were_thinned_out_are_told():
    walk = Walk(mixed(load_graph(KWS)))
    best, thin = (optimum_within(walk, LATENCY, 0.05, most) for most in (20_000, 20))
    assert best.proven
    assert not thin.proven
    assert best.value <= thin.value <= optimum(Walk(in_floats(walk.space))).value
    assert loss_of(walk, thin.choices) <= 0.05
