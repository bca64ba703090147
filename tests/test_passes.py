"""Passes that clean up, channel shuffles, images of one pixel, and all passes on a block."""

import numpy as np
import pytest

from codegen.graph import Activation
from codegen.passes import PASSES, optimise
from codegen.passes.cleanup import drop_dead, drop_moves, merge_equal
from codegen.passes.points import dense_points
from codegen.passes.shuffle import recognise_shuffles
from tests.pass_cases import CONV, THIRDS, X, batch_norm, node, ops, pad, run, weights

# ---- cleaning up --------------------------------------------------------------------------------


def test_dead_nodes():
    nodes = [node("Relu", "x", "y"), node("Mul", "x k", "a"), node("Tanh", "a", "b")]
    assert ops(run(drop_dead, nodes, k=weights(1))) == ["Relu"]


def test_output_in_the_middle():
    nodes = [node("Relu", "x", "m"), node("Tanh", "m", "y")]
    assert ops(run(PASSES, nodes, outputs="y m")) == ["Relu", "Tanh"]


def test_equal_nodes():
    nodes = [node("Relu", "x", "a"), node("Relu", "x", "b"), node("Tanh", "a", "c"),
             node("Tanh", "b", "d"), node("Add", "c d", "y")]  # fmt: skip
    assert ops(run(merge_equal, nodes)) == ["Relu", "Tanh", "Add2"]


def test_equal_constants():
    nodes = [node("Mul", "x k", "a"), node("Mul", "x k2", "b"), node("Sub", "a b", "y")]
    k = weights(4, 1, 1)
    graph = run((merge_equal, drop_dead), nodes, k=k, k2=k.copy())
    assert ops(graph) == ["Mul2", "Sub2"]


@pytest.mark.parametrize("k2", [weights(4, 1, 1), CONV["b"].reshape(1, 4, 1)])
def test_unequal_constants(k2):
    """Other values, or the same bytes in another shape."""
    nodes = [node("Mul", "x k", "a"), node("Mul", "x k2", "b"), node("Sub", "a b", "y")]
    graph = run(merge_equal, nodes, shape=(1, 4, 4, 4), k=CONV["b"].reshape(4, 1, 1), k2=k2)
    assert ops(graph) == ["Mul2", "Mul2", "Sub2"]


def test_unequal_attributes():
    nodes = [node("LeakyRelu", "x", "a", alpha=0.1), node("LeakyRelu", "x", "b", alpha=0.2),
             node("Sub", "a b", "y")]  # fmt: skip
    assert ops(run(merge_equal, nodes)) == ["LeakyRelu", "LeakyRelu", "Sub2"]


def test_equal_outputs_are_both_computed():
    nodes = [node("Relu", "x", "y"), node("Relu", "x", "z")]
    assert ops(run(PASSES, nodes, outputs="y z")) == ["Relu", "Relu"]


def test_reshape_of_reshape():
    nodes = [node("Reshape", "x s", "a"), node("Flatten", "a", "b"), node("Relu", "b", "y")]
    graph = run(drop_moves, nodes, s=np.array([1, 4, 36]))
    assert ops(graph) == ["Reshape", "Relu"]
    assert graph.nodes[0].inputs == ("x",)


def test_reshape_and_back():
    nodes = [node("Reshape", "x s", "a"), node("Reshape", "a t", "b"), node("Relu", "b", "y")]
    graph = run(drop_moves, nodes, s=np.array([4, 36]), t=np.array(X))
    assert ops(graph) == ["Relu"]


def test_transpose_of_transpose():
    nodes = [node("Transpose", "x", "a", perm=[0, 2, 3, 1]),
             node("Transpose", "a", "b", perm=[2, 0, 1, 3]), node("Relu", "b", "y")]  # fmt: skip
    graph = run(drop_moves, nodes, shape=(2, 3, 4, 5))
    assert ops(graph) == ["Transpose", "Relu"]


def test_transpose_and_back():
    nodes = [node("Transpose", "x", "a", perm=[0, 2, 3, 1]),
             node("Transpose", "a", "b", perm=[0, 3, 1, 2]), node("Relu", "b", "y")]  # fmt: skip
    assert ops(run(drop_moves, nodes, shape=(2, 3, 4, 5))) == ["Relu"]


def test_moves_between_which_something_happens_stay():
    nodes = [node("Transpose", "x", "a", perm=[0, 2, 3, 1]), node("Softmax", "a", "s", axis=1),
             node("Transpose", "s", "y", perm=[0, 3, 1, 2])]  # fmt: skip
    assert ops(run(drop_moves, nodes)) == ["Transpose", "SoftmaxAxis", "Transpose"]


def test_moves_that_are_outputs_stay():
    nodes = [node("Reshape", "x s", "y"), node("Reshape", "y t", "z")]
    graph = run(drop_moves, nodes, outputs="y z", s=np.array([4, 36]), t=np.array(X))
    assert ops(graph) == ["Reshape", "Reshape"]


# ---- names of outputs, and everything together --------------------------------------------------


@pytest.mark.parametrize("outputs", ["y z", "z y", "z x2", "z"])
def test_outputs_with_several_names(outputs):
    """Identities of an output, of the input and of each other."""
    nodes = [node("Relu", "x", "y"), node("Identity", "y", "z"), node("Identity", "x", "x2")]
    graph = run(PASSES, nodes, outputs=outputs)
    assert graph.outputs == tuple(outputs.split())


def test_output_that_is_the_input():
    graph = run(PASSES, [node("Relu", "x", "y")], outputs="y x")
    assert sorted(ops(graph)) == ["Copy", "Relu"]


def test_constant_output():
    nodes = [node("Relu", "x", "y"), node("Neg", "k", "z")]
    graph = run(PASSES, nodes, outputs="y z", k=weights(3))
    assert sorted(ops(graph)) == ["Copy", "Relu"]


def test_optimise_a_block():
    """Pad, convolution, batch norm, HardSwish, convolution, batch norm, sum, Relu."""
    first, pads = pad()
    pads["pads"] = np.array([0, 0, 1, 1, 0, 0, 1, 1])
    bn1, more = batch_norm("c1", "n1")
    bn2, more2 = batch_norm("c2", "n2")
    nodes = [
        first, node("Conv", "p w", "c1"), bn1, node("Add", "n1 three", "a"),
        node("Clip", "a zero six", "c"), node("Mul", "n1 c", "d"), node("Div", "d six", "h"),
        node("Conv", "h w b", "c2", pads=[1] * 4), bn2, node("Add", "n2 x", "s"),
        node("Relu", "s", "y"),
    ]  # fmt: skip
    used = {k: v for k, v in THIRDS.items() if k != "sixth"}
    graph = run(optimise, nodes, **CONV, **used, **pads, **more, **more2)
    assert [(n.op, n.residual, n.activation) for n in graph.nodes] == [
        ("Conv", "", Activation("HardSwish")), ("Conv", "x", Activation("Relu")),
    ]  # fmt: skip


# ---- channel shuffles, images of one pixel ------------------------------------------------------


def shuffle(split, perm, joined):
    shapes = dict(split=np.array(split, np.int64), joined=np.array(joined, np.int64))
    nodes = [node("Relu", "x", "r"), node("Reshape", "r split", "a"),
             node("Transpose", "a", "b", perm=perm), node("Reshape", "b joined", "c"),
             node("Relu", "c", "y")]  # fmt: skip
    return nodes, shapes


@pytest.mark.parametrize("split", [(1, 2, 2, 6, 6), (0, 2, 2, 36), (1, 1, 4, 6, 6)])
def test_channel_shuffle(split):
    nodes, shapes = shuffle(split, [0, 2, 1, *range(3, len(split))], X)
    graph = run(recognise_shuffles, nodes, **shapes)
    assert ops(graph) == ["Relu", "ShuffleChannels", "Relu"]
    assert graph.nodes[1].attrs["groups"] == split[1]


@pytest.mark.parametrize(
    ("split", "perm", "joined"),
    [
        ((1, 2, 2, 6, 6), [0, 2, 1, 4, 3], X),  # pixels move, too
        ((1, 4, 2, 3, 6), [0, 2, 1, 3, 4], X),  # part of the rows changes places with channels
        ((1, 2, 2, 6, 6), [0, 2, 1, 3, 4], (1, 4, 36)),
        ((2, 2, 1, 6, 6), [0, 2, 1, 3, 4], X),
    ],
)
def test_nearly_a_shuffle(split, perm, joined):
    nodes, shapes = shuffle(split, perm, joined)
    assert "ShuffleChannels" not in ops(run(recognise_shuffles, nodes, **shapes))


def test_conv_of_one_pixel_is_dense():
    """The second of two keeps the reshapes apart no longer; the sum goes with it."""
    nodes = [
        node("GlobalAveragePool", "x", "p"), node("Conv", "p w b", "a"), node("Relu", "a", "r"),
        node("Conv", "r w", "c"), node("Add", "c p", "s"), node("Mul", "x s", "y"),
    ]  # fmt: skip
    graph = run(optimise, nodes, w=weights(4, 4, 1, 1), b=weights(4))
    assert [o for o in ops(graph) if o != "Reshape"] == ["ReduceAxes", "Dense", "Dense", "Mul2"]
    first, second = (n for n in graph.nodes if n.op == "Dense")
    assert second.inputs[0] == first.outputs[0]
    assert second.residual
    assert first.activation == Activation("Relu")


@pytest.mark.parametrize(
    ("shape", "kernel", "how"),
    [(X, (4, 4, 1, 1), {}), ((1, 4, 1, 1), (4, 2, 1, 1), {"group": 2}),
     ((1, 4, 1, 1), (4, 4, 3, 3), {"pads": [1, 1, 1, 1]}),
     ((1, 4, 1, 1), (4, 4, 1, 1), {"pads": [0, 0, 1, 1]}),
     ((1, 4, 3, 3), (4, 4, 1, 1), {"strides": [3, 3]})],
)  # fmt: skip
def test_conv_of_more_pixels_stays(shape, kernel, how):
    nodes = [node("Conv", "x w", "y", **how)]
    assert ops(run(dense_points, nodes, shape=shape, w=weights(*kernel))) == ["Conv"]
