"""Packing, and schedules of random networks executed byte by byte."""

import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from codegen.board import load_board
from codegen.builder import Builder
from codegen.graph import Tensor
from codegen.heuristic import default_plan
from codegen.interpret import interpret
from codegen.memory import Buffer, allocate, lower_bound, pack
from codegen.models.architectures import build
from codegen.onnx_import import translate
from codegen.order import order_steps
from codegen.passes import optimise
from codegen.pipeline import load_graph
from codegen.plan import Choice, Plan
from codegen.regions import ALIGN
from codegen.resources import examples_dir
from codegen.schedule import lower
from codegen.types import DType
from tests.random_graphs import networks, plans
from tests.simulate import simulate

BOARD = load_board("jetson-nano-cpu")
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
    schedule = allocate(lower(graph, plan, BOARD), plan.order)
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
    if not plan.order:
        as_written = tuple(n.name for n in graph.nodes)
        assert schedule.lower_bound <= allocate(lower(graph, plan, BOARD), as_written).lower_bound


def network(*nodes, outputs, shape=(1, 4, 3, 3), plan=None):
    """A graph from (op, inputs, attributes, output) and its plan in one layout; "x" is the input,
    "w" 4x4 weights."""
    b = Builder("net")
    b.input(Tensor("x", shape, DType.F32))
    b.constant("w", np.eye(4, dtype=np.float32).reshape(4, 4, 1, 1) / 2)
    for op, inputs, attrs, out in nodes:
        b.add(op, inputs, attrs, out, [out])
    graph = b.graph(["x"], outputs)
    kernels = {"Conv": "conv2d_{}_f32_c", "Concat": "concat_c", "Transpose": "transpose_c",
               "Relu": "unary_f32_c", "Add2": "binary_c", "Copy": "copy_c"}  # fmt: skip
    layouts = {n.name: (plan or {}).get(n.name, "nhwc") for n in graph.nodes}
    chosen = {
        n.name: Choice(kernels[n.op].format(layouts[n.name]), layouts[n.name])
        for n in graph.nodes
        if n.op in kernels
    }
    return graph, Plan("jetson-nano-cpu", "0" * 64, chosen)


def steps(schedule):
    return [s.name for s in schedule.program.steps]


def test_parts_of_a_concatenation_are_written_in_place():
    schedule = check(*network(
        ("Conv", ["x", "w"], {}, "a"), ("Conv", ["x", "w"], {}, "b"),
        ("Concat", ["a", "b"], {"axis": 1}, "c"), ("Relu", ["c"], {}, "y"), outputs=["y"],
    ))  # fmt: skip
    assert steps(schedule) == ["x to nhwc", "a", "b", "y", "y to nchw"]
    assert schedule.places["b"].pitch == 8


@pytest.mark.parametrize("axis", [0, 2, 3])
def test_a_pitch_is_that_of_pixels(axis):
    schedule = check(*network(
        ("Conv", ["x", "w"], {}, "a"), ("Conv", ["x", "w"], {}, "b"),
        ("Concat", ["a", "b"], {"axis": axis}, "c"), ("Relu", ["c"], {}, "y"), outputs=["y"],
        shape=(2, 4, 3, 3),
    ))  # fmt: skip
    assert schedule.places["a"].pitch == 0


def test_part_read_after_the_concatenation_is_copied():
    schedule = check(*network(
        ("Conv", ["x", "w"], {}, "a"), ("Conv", ["x", "w"], {}, "b"),
        ("Concat", ["a", "b"], {"axis": 1}, "c"), ("Relu", ["c"], {}, "y"),
        ("Relu", ["a"], {}, "z"), outputs=["y", "z"],
    ))  # fmt: skip
    assert "c[0]" in steps(schedule)
    assert "c[1]" not in steps(schedule)


def test_part_computed_from_another_part():
    """A copied part depends on a part that lies in the concatenation already: not a cycle."""
    check(*network(
        ("Relu", ["x"], {}, "a"), ("Conv", ["a", "w"], {}, "b"), ("Relu", ["b"], {}, "r"),
        ("Concat", ["a", "b", "r"], {"axis": 1}, "c"), outputs=["c", "b"],
        plan=dict.fromkeys(("a", "b", "r", "c"), "nchw"),
    ))  # fmt: skip


def test_nested_concatenations():
    """The second inner one is computed from the first, and both lie in the outer one."""
    schedule = check(*network(
        ("Conv", ["x", "w"], {}, "a"), ("Conv", ["x", "w"], {}, "b"),
        ("Concat", ["a", "b"], {"axis": 1}, "c1"), ("Relu", ["c1"], {}, "r"),
        ("Concat", ["c1", "r"], {"axis": 2}, "c"), ("Relu", ["c"], {}, "y"), outputs=["y"],
    ))  # fmt: skip
    assert schedule.program.root("a")[0] == "c"
    assert schedule.program.root("r")[0] == "c"


def test_same_tensor_twice_among_pixels():
    schedule = check(*network(
        ("Conv", ["x", "w"], {}, "a"), ("Concat", ["a", "a"], {"axis": 1}, "c"), outputs=["c"],
    ))  # fmt: skip
    assert {"c[0]", "c[1]"} <= set(steps(schedule))


def test_same_tensor_twice():
    schedule = check(*network(
        ("Relu", ["x"], {}, "a"), ("Concat", ["a", "a"], {"axis": 1}, "c"), outputs=["c"],
        plan={"a": "nchw", "c": "nchw"},
    ))  # fmt: skip
    assert steps(schedule) == ["a", "c[1]"]


def test_concatenation_of_inputs():
    schedule = check(*network(("Concat", ["x", "x"], {"axis": 1}, "c"), outputs=["c"]))
    assert {"c[0]", "c[1]"} <= set(steps(schedule))


def test_outputs_own_their_memory():
    """Views of an input, of another output and of a part of something larger are copied."""
    schedule = check(*network(
        ("Reshape", ["x"], {"shape": (4, 9)}, "flat"), ("Relu", ["x"], {}, "a"),
        ("Reshape", ["a"], {"shape": (2, 18)}, "b"), ("Relu", ["a"], {}, "p"),
        ("Reshape", ["p"], {"shape": (1, 36)}, "q"),
        ("Concat", ["p", "a"], {"axis": 1}, "c"), ("Relu", ["c"], {}, "y"),
        outputs=["flat", "a", "b", "q", "y"], plan=dict.fromkeys("apcy", "nchw"),
    ))  # fmt: skip
    copies = [n for n in steps(schedule) if n.endswith("to output")]
    assert copies == ["flat to output", "b to output", "q to output"]
    assert schedule.program.root("p")[0] == "c"


def test_residual_that_is_the_input_is_not_overwritten():
    graph, plan = network(
        ("Relu", ["x"], {}, "a"), ("Conv", ["a", "w"], {}, "b"), ("Add", ["b", "a"], {}, "c"),
        ("Relu", ["c"], {}, "d"), ("Conv", ["d", "w"], {}, "y"), outputs=["y"],
        plan=dict.fromkeys("abcdy", "nchw"),
    )  # fmt: skip
    schedule = check(optimise(graph), plan)
    assert [s.name for s in schedule.program.steps if s.residual] == ["b"]
    assert not schedule.program.views


def test_residual_is_overwritten_where_it_dies():
    graph, plan = network(
        ("Relu", ["x"], {}, "a"), ("Conv", ["x", "w"], {}, "b"), ("Add", ["b", "a"], {}, "c"),
        ("Conv", ["c", "w"], {}, "y"), outputs=["y"], plan=dict.fromkeys("abcy", "nchw"),
    )  # fmt: skip
    schedule = check(optimise(graph), plan)
    assert schedule.program.root("c")[0] == "a"


def test_a_conversion_is_made_once():
    schedule = check(*network(
        ("Conv", ["x", "w"], {}, "a"), ("Relu", ["a"], {}, "b"), ("Conv", ["a", "w"], {}, "c"),
        outputs=["b", "c"], plan={"b": "nchw", "c": "nchw"},
    ))  # fmt: skip
    assert steps(schedule).count("a to nchw") == 1
    assert [c["tensor"] for c in schedule.program.conversions] == ["x", "a"]


def test_result_of_another_type_or_size_is_not_in_place():
    """8 booleans take as many bytes as the one double that they are compared with."""
    b = Builder("net")
    b.input(Tensor("x", (1,), DType.F64))
    b.input(Tensor("y", (8,), DType.F64))
    one = b.add("Add", ["x", "x"], {}, "one")[0]
    b.add("Less", ["y", one], {}, "less", ["less"])
    b.add("Not", ["less"], {}, "out", ["out"])
    graph = b.graph(["x", "y"], ["out"])
    kernels = {"out": "binary_logic_c"}
    choices = {n.name: Choice(kernels.get(n.name, "binary_c"), "nchw") for n in graph.nodes
               if n.op != "Reshape"}  # fmt: skip
    plan = Plan("jetson-nano-cpu", "0" * 64, choices)
    schedule = allocate(lower(graph, plan, BOARD))
    x, y = np.array([0.25]), np.linspace(0, 1, 8)
    np.testing.assert_array_equal(simulate(graph, plan, schedule, {"x": x, "y": y})[0], y >= 0.5)


def test_two_constants_of_one_name_stay_apart():
    """A node's packed bias is called like another node's own constant."""
    b = Builder("net")
    b.input(Tensor("x", (1, 4, 3, 3), DType.F32))
    w = b.constant("w", np.ones((4, 4, 1, 1), np.float32))
    bias = b.constant("bias", np.full(4, 2, np.float32))
    other = b.constant("c_b", np.full((1, 4, 1, 1), 3, np.float32))
    third = b.constant("c_b_2", np.full((1, 4, 1, 1), 4, np.float32))
    b.add("Mul", ["x", other], {}, "m", ["m"])
    b.add("Mul", ["m", third], {}, "m2", ["m2"])
    b.add("Conv", ["m2", w, bias], {}, "c", ["y"])
    graph = b.graph(["x"], ["y"])
    kernels = {"m": "binary_c", "m2": "binary_c", "c": "conv2d_nhwc_f32_neon_gemm_8x8"}
    plan = Plan("b", "0" * 64, {n: Choice(k, "nhwc") for n, k in kernels.items()})
    arrays = {w.symbol: w.array for w in lower(graph, plan, BOARD).weights}
    step = next(s for s in lower(graph, plan, BOARD).steps if s.name == "c")
    assert arrays[step.args[2][1:]].reshape(-1)[:4].tolist() == [2, 2, 2, 2]
    assert sorted(a.reshape(-1)[0] for a in arrays.values()) == [1, 2, 3, 4]


def test_order_of_the_plan_is_taken():
    nodes = [("Relu", ["x"], {}, "a"), ("Conv", ["x", "w"], {}, "b"), ("Add", ["a", "b"], {}, "y")]
    graph, plan = network(*nodes, outputs=["y"], plan=dict.fromkeys("aby", "nchw"))
    for order in (("a", "b", "y"), ("b", "a", "y")):
        assert steps(check(graph, replace(plan, order=order))) == [*order]
    # a result cannot come before what it is made of
    assert steps(check(graph, replace(plan, order=("y", "b", "a")))) == ["b", "a", "y"]


def test_order_saves_memory():
    """Three wide branches that shrink: one after the other, not all wide ones first."""
    wide = np.ones((16, 4, 1, 1), np.float32)
    thin = np.ones((1, 16, 1, 1), np.float32)
    b = Builder("net")
    b.input(Tensor("x", (1, 4, 8, 8), DType.F32))
    for i in range(3):
        b.add("Conv", ["x", b.constant("wide", wide)], {}, f"wide{i}", [f"wide{i}"])
    for i in range(3):
        b.add("Conv", [f"wide{i}", b.constant("thin", thin)], {}, f"thin{i}", [f"thin{i}"])
    b.add("Sum", [f"thin{i}" for i in range(3)], {}, "y", ["y"])
    graph = b.graph(["x"], ["y"])
    kernels = {"Conv": "conv2d_nchw_f32_c", "Add2": "binary_c"}
    plan = Plan("b", "0" * 64, {n.name: Choice(kernels[n.op], "nchw") for n in graph.nodes})
    as_written = tuple(n.name for n in graph.nodes)
    one, all_three = 16 * 64 * 4, 3 * 16 * 64 * 4
    assert check(graph, replace(plan, order=as_written)).arena_bytes >= all_three
    assert check(graph, plan).arena_bytes <= one + 3 * 64 * 4


@pytest.mark.parametrize("name", ["mlperf_ic_resnet8", "mlperf_kws_dscnn", "mnist8"])
def test_arena_is_near_the_largest_live_set(name):
    board = load_board("jetson-nano-cpu")
    graph = load_graph(examples_dir() / "models" / f"{name}.onnx")
    schedule = allocate(lower(graph, default_plan(graph, board, ""), board))
    assert 0 < schedule.arena_bytes <= 1.05 * schedule.lower_bound


def test_order_of_a_deep_network_is_quick():
    board = load_board("jetson-nano-cpu")
    graph = optimise(translate(build("light_densenet121"), Path("densenet"), "densenet"))
    program = lower(graph, default_plan(graph, board, ""), board)
    start = time.process_time()
    order_steps(program)
    assert time.process_time() - start < 2
