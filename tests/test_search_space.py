"""The space of plans: what a walk says a plan costs is what the plan costs when it is lowered."""

import random
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from codegen.graph import Graph
from codegen.groups import regroup
from codegen.models.architectures import build
from codegen.onnx_import import translate
from codegen.passes import optimise
from codegen.plan import Plan, check_plan
from codegen.pricing import plan_parts
from codegen.schedule import lower
from codegen.signature import CONVERT
from codegen.types import DType
from rl.assignment import choices_of, cost_of, plan_of, repaired, steps_of
from rl.exact import optimum
from rl.space import Space
from rl.walk import Walk
from tests.random_graphs import networks
from tests.search_cases import BOARD, invented, kws_space, mixed, wander

SHA = "0" * 64
QUICK = settings(deadline=None, max_examples=150, derandomize=True, database=None)


def graph_for(space: Space, plan: Plan) -> Graph:
    """The network that a plan is for."""
    return space.codes.graph_for(plan.bits) if space.codes else space.graph


def lowered_cost(space: Space, plan: Plan) -> float:
    """By the steps that the plan becomes, without copies to outputs."""
    graph = regroup(graph_for(space, plan), plan.groups)
    program = lower(graph, plan, BOARD)
    total = 0.0
    for part in plan_parts(graph, plan, program):
        key, c = part.signature.key, part.candidate
        if part.signature.op == CONVERT:
            total += space.table.conversion(key).cost
        elif not part.step.endswith(" to output"):
            total += part.share * space.table.price(key, c.kernel, c.come, c.layout).cost
    return total


def check_costs(space: Space, seed: int) -> None:
    walk, rng = Walk(space), random.Random(seed)
    for _ in range(5):
        choices = wander(walk, rng)
        plan = plan_of(space, choices, SHA)
        check_plan(plan, graph_for(space, plan), BOARD, SHA)
        assert cost_of(walk, choices) == pytest.approx(lowered_cost(space, plan))
        steps = steps_of(walk, choices)
        assert sum(s.layer + s.conversion for s in steps) == pytest.approx(cost_of(walk, choices))
        assert choices_of(space, plan) == choices
        assert repaired(walk, choices) == choices


@QUICK
@given(networks(), st.integers(0, 999), st.booleans())
def test_costs_of_random_networks(graph, seed, fused):
    check_costs(invented(optimise(graph) if fused else graph, seed), seed)


@QUICK
@given(networks(), st.integers(0, 999))
def test_costs_of_random_networks_in_mixed_types(graph, seed):
    check_costs(mixed(optimise(graph), seed), seed)


@pytest.mark.parametrize("name", ["light_squeezenet", "mobilenet_v3", "light_resnet50"])
def test_costs_of_real_networks_in_mixed_types(name):
    space = mixed(optimise(translate(build(name), Path(name), name)))
    check_costs(space, 1)
    found = plan_of(space, wander(Walk(space), random.Random(2)), SHA)
    assert found.dtype == "i8"
    assert 0 < len(found.bits) < len(found.nodes)


@pytest.mark.parametrize("name", ["light_inception_v1", "mobilenet_v3", "light_shufflenet"])
def test_costs_of_real_networks(name):
    check_costs(invented(optimise(translate(build(name), Path(name), name))), 1)


def test_a_plan_says_in_which_type_its_network_is_computed():
    """A network with float16 tensors is one in half precision, and so is read back."""
    space = kws_space()
    choices = optimum(Walk(space)).choices
    assert plan_of(space, choices, "0" * 64).dtype == "f32"
    name = space.graph.outputs[0]
    tensors = {**space.graph.tensors, name: replace(space.graph.tensors[name], dtype=DType.F16)}
    half = replace(space, graph=replace(space.graph, tensors=tensors))
    assert plan_of(half, choices, "0" * 64).dtype == "f16"
