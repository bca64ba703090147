"""Activations are recognised and become part of kernels, and so do sums."""

import numpy as np
import pytest

from codegen.graph import Activation, Graph
from codegen.passes.fuse import FUSABLE, fuse_activation, fuse_residual
from codegen.passes.patterns import recognise_activations
from tests.pass_cases import CONV, SMALL, THIRDS, X, node, ops, run, weights

HEAD = [node("Add", "x three", "a"), node("Clip", "a zero six", "c")]


def only(wanted: str, nodes, **constants) -> None:
    assert ops(run(recognise_activations, nodes, **constants)) == [wanted]


@pytest.mark.parametrize(
    "tail",
    [
        [node("Div", "c six", "d"), node("Mul", "x d", "y")],
        [node("Div", "c six", "d"), node("Mul", "d x", "y")],
        [node("Mul", "c sixth", "d"), node("Mul", "x d", "y")],
        [node("Mul", "sixth c", "d"), node("Mul", "x d", "y")],
        [node("Mul", "x c", "d"), node("Div", "d six", "y")],
        [node("Mul", "c x", "d"), node("Mul", "d sixth", "y")],
    ],
)
def test_hardswish(tail):
    only("HardSwish", [*HEAD, *tail], **THIRDS)


def test_hardswish_with_the_constant_first():
    nodes = [
        node("Add", "three x", "a"),
        HEAD[1],
        node("Div", "c six", "d"),
        node("Mul", "x d", "y"),
    ]
    only("HardSwish", nodes, **THIRDS)


def test_hardswish_by_hardsigmoid():
    nodes = [node("HardSigmoid", "x", "h", alpha=1 / 6, beta=0.5), node("Mul", "x h", "y")]
    only("HardSwish", nodes)


def test_hardswish_operator():
    only("HardSwish", [node("HardSwish", "x", "y")])


def test_hardsigmoid():
    graph = run(recognise_activations, [*HEAD, node("Div", "c six", "y")], **THIRDS)
    assert ops(graph) == ["HardSigmoid"]
    assert dict(graph.nodes[0].attrs) == {"alpha": 1 / 6, "beta": 0.5}


@pytest.mark.parametrize("inputs", ["x s", "s x"])
def test_silu(inputs):
    only("Silu", [node("Sigmoid", "x", "s"), node("Mul", inputs, "y")])


def test_relu_from_clip():
    only("Relu", [node("Clip", "x zero", "y")], zero=np.float32(0))


NEARLY = [
    [node("Clip", "x zero six", "y")],
    [node("Clip", "x - six", "y")],
    [node("HardSigmoid", "x", "h"), node("Mul", "x h", "y")],
    [node("Sigmoid", "x", "s"), node("Mul", "s s", "y")],
    [node("Sigmoid", "x", "s"), node("Relu", "x", "r"), node("Mul", "s r", "y")],
    [node("Add", "x six", "a"), HEAD[1], node("Div", "c six", "y")],
    [HEAD[0], node("Clip", "a zero three", "c"), node("Div", "c six", "y")],
    [*HEAD, node("Div", "c three", "y")],
    [*HEAD, node("Mul", "a c", "d"), node("Div", "d six", "y")],
    [node("Mul", "x x", "d"), node("Div", "d six", "y")],
    [node("Sub", "x three", "a"), HEAD[1], node("Div", "c six", "y")],
]


@pytest.mark.parametrize("nodes", NEARLY, ids=range(len(NEARLY)))
def test_nearly_an_activation(nodes):
    found = ops(run(recognise_activations, nodes, **THIRDS))
    assert not {"HardSwish", "Silu"} & set(found)
    assert len(found) == len(nodes)


def test_parts_that_are_outputs_are_still_computed():
    nodes = [*HEAD, node("Div", "c six", "d"), node("Mul", "x d", "y")]
    graph = run(recognise_activations, nodes, outputs="y c", **THIRDS)
    assert sorted(ops(graph)) == ["Add2", "Clip", "HardSwish"]


def test_constants_of_higher_rank():
    """The sum gets the rank of the constant; the function starts at the reshaped tensor."""
    constants = {**THIRDS, "three": np.full((1, 1, 1), 3, np.float32)}
    nodes = [*HEAD, node("Div", "c six", "y")]
    graph = run(recognise_activations, nodes, shape=(4,), **constants)
    assert ops(graph) == ["Reshape", "HardSigmoid"]


# ---- fusion -------------------------------------------------------------------------------------

ACTIVATIONS = {
    "Relu": {}, "Sigmoid": {}, "Tanh": {}, "HardSwish": {}, "LeakyRelu": dict(alpha=0.3),
    "Elu": dict(alpha=0.7), "HardSigmoid": dict(alpha=0.3, beta=0.4),
}  # fmt: skip


def conv_and(*nodes, outputs="y", **constants) -> Graph:
    return run(fuse_activation, [node("Conv", "x w b", "c"), *nodes], outputs, **CONV, **constants)


def fused(graph: Graph) -> Activation | None:
    assert ops(graph) == ["Conv"]
    return graph.nodes[0].activation


@pytest.mark.parametrize("op", ACTIVATIONS)
def test_activation_into_conv(op):
    act = fused(conv_and(node(op, "c", "y", **ACTIVATIONS[op])))
    assert act.op == op
    np.testing.assert_allclose(act.args, list(ACTIVATIONS[op].values()))


def test_clip_into_conv():
    act = fused(conv_and(node("Clip", "c low high", "y"), low=np.float32(-1), high=np.float32(2)))
    assert act == Activation("Clip", (-1.0, 2.0))


def test_silu_into_conv():
    nodes = [node("Conv", "x w b", "c"), node("Sigmoid", "c", "s"), node("Mul", "c s", "y")]
    assert fused(run((recognise_activations, fuse_activation), nodes, **CONV)).op == "Silu"


def test_every_fusable_activation_is_tried():
    assert {*ACTIVATIONS, "Clip", "Silu"} == set(FUSABLE)


@pytest.mark.parametrize("slope", [weights(1), weights(4, 1, 1), weights(1, 4, 1, 1)])
def test_prelu_into_conv(slope):
    graph = conv_and(node("PRelu", "c s", "y"), s=slope)
    assert fused(graph).op == "PRelu2"
    assert graph.constants[fused(graph).slope].shape == (4,)


@pytest.mark.parametrize("slope", [weights(4, 4), weights(4, 4, 1)])
def test_prelu_that_varies_in_space_stays(slope):
    assert ops(conv_and(node("PRelu", "c s", "y"), s=slope)) == ["Conv", "PRelu2"]


def test_prelu_with_computed_slope_stays():
    graph = conv_and(node("Abs", "c", "s"), node("PRelu", "s c", "y"))
    assert ops(graph) == ["Conv", "Abs", "PRelu2"]


def test_prelu_after_a_sum_stays():
    """Kernels of Add have no slopes; other activations they do apply."""
    nodes = [node("Add", "x x", "c"), node("PRelu", "c s", "y")]
    assert ops(run(fuse_activation, nodes, s=weights(4, 1, 1))) == ["Add2", "PRelu2"]
    assert ops(run(fuse_activation, [node("Add", "x x", "c"), node("Relu", "c", "y")])) == ["Add2"]


def test_other_functions_stay():
    assert ops(conv_and(node("Exp", "c", "y"))) == ["Conv", "Exp"]


def test_one_activation_per_kernel():
    graph = conv_and(node("Relu", "c", "r"), node("Sigmoid", "r", "y"))
    assert ops(graph) == ["Conv", "Sigmoid"]
    assert graph.nodes[0].activation.op == "Relu"


def test_activation_of_a_shared_result_stays():
    assert ops(conv_and(node("Relu", "c", "y"), outputs="y c")) == ["Conv", "Relu"]
    graph = conv_and(node("Relu", "c", "r"), node("Add", "c r", "y"))
    assert ops(graph) == ["Conv", "Relu", "Add2"]


def test_integers_are_not_fused():
    nodes = [node("Add", "x x", "a"), node("Relu", "a", "y")]
    assert ops(run(fuse_activation, nodes, dtype=np.int32)) == ["Add2", "Relu"]


TWO = dict(w=CONV["w"], w2=weights(4, 4, 3, 3), b=CONV["b"])
TWO_CONVS = [node("Conv", "x w b", "a"), node("Conv", "x w2", "b2")]


def test_sum_of_two_convs_goes_into_the_later():
    graph = run(fuse_residual, [*TWO_CONVS, node("Add", "b2 a", "y")], **TWO)
    assert [(n.name, n.residual) for n in graph.nodes] == [("a", ""), ("b2", "a")]


def test_residual_comes_before_the_activation():
    nodes = [*TWO_CONVS, node("Add", "a b2", "s"), node("Relu", "s", "y")]
    graph = run((fuse_residual, fuse_activation), nodes, **TWO)
    assert [(n.residual, n.activation) for n in graph.nodes] == [
        ("", None), ("a", Activation("Relu")),
    ]  # fmt: skip


def test_sum_that_has_an_activation_stays():
    nodes = [*TWO_CONVS, node("Add", "a b2", "s"), node("Relu", "s", "y")]
    graph = run((fuse_activation, fuse_residual), nodes, **TWO)
    assert ops(graph) == ["Conv", "Conv", "Add2"]


def test_sum_with_the_input():
    nodes = [node("Conv", "x w", "c"), node("Add", "x c", "y")]
    graph = run(fuse_residual, nodes, **SMALL)
    assert [(n.op, n.residual) for n in graph.nodes] == [("Conv", "x")]


def test_chain_of_sums():
    nodes = [*TWO_CONVS, node("Add", "a b2", "s"), node("Add", "s b2x", "y")]
    nodes.insert(2, node("Conv", "x w", "b2x"))
    graph = run(fuse_residual, nodes, **TWO)
    assert sorted(ops(graph)) == ["Conv", "Conv", "Conv"]
    assert sum(bool(n.residual) for n in graph.nodes) == 2


@pytest.mark.parametrize(
    ("tail", "outputs"),
    [
        ([node("Add", "c x", "y"), node("Relu", "c", "z")], "y z"),  # read elsewhere
        ([node("Add", "c x", "y")], "y c"),  # an output
        ([node("Add", "c c", "y")], "y"),  # with itself
        ([node("Relu", "c", "r"), node("Add", "r x", "y")], "y"),  # not the convolution itself
        ([node("Sub", "c x", "y")], "y"),
        ([node("Add", "c k", "y")], "y"),  # a constant
        ([node("ReduceMean", "x", "m", axes=[2, 3]), node("Add", "c m", "y")], "y"),  # broadcast
    ],
    ids=range(7),
)
def test_sums_that_stay(tail, outputs):
    read = {i for n in tail for i in n.input}
    constants = {**SMALL, **({"k": weights(*X)} if "k" in read else {})}
    graph = run(fuse_residual, [node("Conv", "x w", "c"), *tail], outputs, **constants)
    assert not any(n.residual for n in graph.nodes)
    assert len(graph.nodes) == 1 + len(tail)
