"""Packing, and schedules of random networks executed byte by byte."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from codegen.interpret import interpret
from codegen.memory import ALIGN, Buffer, allocate, lower_bound, pack
from codegen.passes import optimise
from codegen.schedule import lower
from tests.random_graphs import networks, plans
from tests.simulate import simulate

QUICK = settings(deadline=None, max_examples=150, derandomize=True, database=None)


@st.composite
def live_ranges(draw) -> list[Buffer]:
    out = []
    for i in range(draw(st.integers(1, 14))):
        first = draw(st.integers(0, 12))
        last = first + draw(st.integers(0, 6))
        out.append(Buffer(f"b{i}", draw(st.integers(1, 900)), first, last))
    return out


@QUICK
@given(live_ranges())
def test_pack(buffers):
    placed = pack(buffers)
    assert sorted((b.name, b.bytes, b.first, b.last) for b in placed) == sorted(
        (b.name, b.bytes, b.first, b.last) for b in buffers
    )
    assert all(b.offset % ALIGN == 0 for b in placed)
    for a in placed:
        for b in placed:
            together = a is not b and a.first <= b.last and b.first <= a.last
            assert not together or a.offset >= b.offset + b.bytes or b.offset >= a.offset + a.bytes
    assert max(b.offset + b.bytes for b in placed) > lower_bound(buffers) - ALIGN


def test_pack_nothing():
    assert pack([]) == ()
    assert lower_bound([]) == 0


def check(graph, plan, seed=0):
    """The schedule leaves what the graph means."""
    rng = np.random.default_rng(seed)
    inputs = {n: rng.normal(size=graph.tensors[n].shape).astype(np.float32) for n in graph.inputs}
    schedule = allocate(lower(graph, plan), plan.order)
    got = simulate(graph, plan, schedule, inputs)
    for name, y in zip(graph.outputs, got, strict=True):
        np.testing.assert_allclose(y, interpret(graph, inputs)[name], rtol=1e-4, atol=1e-4)
    return schedule


@settings(QUICK, max_examples=400)
@given(st.data())
def test_schedule_of_random_network(data):
    graph = data.draw(networks())
    if data.draw(st.booleans()):
        graph = optimise(graph)
    plan = data.draw(plans(graph))
    schedule = check(graph, plan)
    assert schedule.arena_bytes >= schedule.lower_bound
