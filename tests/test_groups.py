"""Groups: nodes that one kernel computes together, named in a plan."""

import json
from dataclasses import replace

import numpy as np
import pytest

from codegen.board import load_board
from codegen.errors import CodegenError
from codegen.graph import Activation
from codegen.groups import find_groups, regroup
from codegen.heuristic import _apart, default_plan
from codegen.interpret import interpret
from codegen.pipeline import load_graph
from codegen.plan import Choice, check_plan, read_plan
from codegen.reference import random_inputs
from codegen.resources import examples_dir

BOARD = load_board("jetson-nano-cpu")
SHA = "0" * 64


@pytest.fixture(scope="module")
def graph():
    return load_graph(examples_dir() / "models" / "mlperf_vww_mbv1_025.onnx")


def _edit(graph, name, **changes):
    nodes = tuple(replace(n, **changes) if n.name == name else n for n in graph.nodes)
    return replace(graph, nodes=nodes)


def test_every_group_computes_what_its_nodes_do(graph):
    inputs = random_inputs(graph, 3)
    expected = interpret(graph, inputs)
    groups = find_groups(graph)
    assert {len(g.names) for g in groups} == {2, 3, 4, 5}
    for size in (2, 3, 4, 5):
        taken: dict[str, tuple[str, ...]] = {}
        for g in groups:
            if len(g.names) == size and not set(g.names) & {n for t in taken.values() for n in t}:
                taken[g.name] = g.names
        whole = regroup(graph, taken)
        op, least = ("ConvChain", 6) if size < 4 else ("ConvChainPair", 1)
        assert sum(n.op == op for n in whole.nodes) == len(taken) >= least
        for name, value in interpret(whole, inputs).items():
            np.testing.assert_allclose(value, expected[name], rtol=1e-6)


def test_regrouping_twice_changes_nothing(graph):
    group = find_groups(graph)[0]
    once = regroup(graph, {group.name: group.names})
    assert regroup(once, {group.name: group.names}) is once


def test_pairs_are_where_memory_is_to_be_gained(graph):
    """What lies between two chains is larger than what goes in and what comes out."""
    ends = {n.name: n for n in graph.nodes}
    pairs = [g.names for g in find_groups(graph) if len(g.names) > 3]
    assert pairs
    for names in pairs:
        nodes = [ends[n] for n in names]
        second = [i for i, n in enumerate(nodes) if n.attrs["group"] > 1][1]
        cuts = {second, second - (nodes[second - 1].attrs["group"] == 1)}
        between = [graph.tensors[nodes[i].inputs[0]].bytes for i in cuts]
        first, last = nodes[0].inputs[0], nodes[-1].outputs[0]
        assert max(between) > max(graph.tensors[t].bytes for t in (first, last))


def test_a_pair_hides_nothing_that_others_read(graph):
    names = max((g.names for g in find_groups(graph)), key=len)
    for name in names[:-1]:
        tensor = next(n for n in graph.nodes if n.name == name).outputs[0]
        seen = replace(graph, outputs=(*graph.outputs, tensor))
        assert names not in [g.names for g in find_groups(seen)]


def _depthwise(graph):
    return next(g for g in find_groups(graph) if len(g.names) == 3).names


def test_what_others_read_is_not_hidden(graph):
    _, middle, last = _depthwise(graph)
    between = next(n for n in graph.nodes if n.name == middle).outputs[0]
    seen = replace(graph, outputs=(*graph.outputs, between))
    assert not any({middle, last} <= set(g.names) for g in find_groups(seen))


def test_slopes_and_sums_have_no_place_inside(graph):
    first, middle, last = _depthwise(graph)
    tensor = next(n for n in graph.nodes if n.name == middle).outputs[0]
    for change in ({"residual": tensor}, {"activation": Activation("PRelu2", (), "slope")}):
        found = find_groups(_edit(graph, middle, **change))
        assert not any({middle, last} <= set(g.names) for g in found)
        assert any({first, middle} == set(g.names) for g in found)


def test_plan_file_keeps_groups(graph, tmp_path):
    plan = default_plan(graph, BOARD, SHA)
    assert plan.groups, "the default plan of a MobileNet has groups"
    path = tmp_path / "plan.json"
    path.write_text(plan.to_json())
    again = read_plan(path)
    assert again.groups == plan.groups
    assert again.sha256 == plan.sha256
    name = next(iter(plan.groups))
    apart = {**plan.nodes, name: replace(plan.nodes[name], group=())}
    assert replace(plan, nodes=apart).sha256 != plan.sha256


def test_a_pair_is_not_taken_where_its_chains_save_more_apart():
    first, second = ("a", "b"), ("c", "d", "e")
    saved = [(5.0, first), (4.0, second), (3.0, ("a",)), (8.0, first + second)]
    assert _apart(first + second, saved) == 9.0
    assert _apart(second, saved) == 0.0


@pytest.mark.parametrize("change", [lambda g: g[::-1], lambda g: g[:1], lambda g: (*g[:2], "no")])
def test_wrong_group(graph, change):
    plan = default_plan(graph, BOARD, SHA)
    name, group = next(iter(plan.groups.items()))
    nodes = {**plan.nodes, name: replace(plan.nodes[name], group=change(group))}
    said = r"cannot be one kernel; \[Conv,\] depthwise Conv.* e\.g\. .*; remove the key `group`"
    with pytest.raises(CodegenError, match=said):
        check_plan(replace(plan, nodes=nodes), graph, BOARD, SHA)


def test_overlapping_groups(graph):
    three = _depthwise(graph)
    groups = {three[0]: three, three[1]: three[1:]}
    with pytest.raises(CodegenError, match="cannot be one kernel"):
        regroup(graph, groups)


def test_group_must_be_a_list_of_names(tmp_path):
    path = tmp_path / "plan.json"
    head = {"schema": 1, "model_sha256": SHA, "board": BOARD.name, "threads": 1}
    for group in ("a", [1]):
        entry = {**Choice("k", "nhwc").to_dict(), "group": group}
        path.write_text(json.dumps({**head, "nodes": {"n": entry}}))
        with pytest.raises(CodegenError, match='may have {"group"'):
            read_plan(path)
