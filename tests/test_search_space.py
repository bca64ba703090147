"""The space of plans: what a walk says a plan costs is what the plan costs when it is lowered."""

import random
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from codegen.models.architectures import build
from codegen.onnx_import import translate
from codegen.passes import optimise
from codegen.types import DType
from rl.assignment import plan_of
from rl.exact import optimum
from rl.walk import Walk
from tests.random_graphs import networks
from tests.search_cases import check_costs, invented, kws_space, mixed, wander

SHA = "0" * 64
QUICK = settings(deadline=None, max_examples=150, derandomize=True, database=None)


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
