"""Pads become part of convolutions and pools, where they may."""

import numpy as np
import pytest

from codegen.passes.pads import fold_pads
from tests.pass_cases import CONV, node, ops, pad, run, weights


def test_pad_into_conv():
    first, constants = pad()
    graph = run(
        fold_pads, [first, node("Conv", "p w b", "y", pads=[1, 0, 0, 1])], **CONV, **constants
    )
    assert ops(graph) == ["Conv"]
    assert graph.nodes[0].attrs["pads"] == (2, 0, 2, 2)


@pytest.mark.parametrize(
    "case",
    [dict(value=1.0), dict(mode="edge"), dict(mode="reflect"), "channels", "batch"],
    ids=str,
)
def test_other_pads_stay_before_conv(case):
    first, constants = pad(**(case if isinstance(case, dict) else {}))
    w = CONV["w"]
    if case == "channels":
        constants["pads"], w = np.array([0, 1, 0, 0, 0, 0, 0, 0]), weights(4, 5, 3, 3)
    if case == "batch":
        constants["pads"] = np.array([1, 0, 0, 0, 0, 0, 0, 0])
    graph = run(fold_pads, [first, node("Conv", "p w", "y")], w=w, **constants)
    assert ops(graph) == ["PadDims", "Conv"]


def test_pad_with_another_reader_stays_for_that():
    first, constants = pad()
    nodes = [first, node("Conv", "p w", "y"), node("Relu", "p", "z")]
    graph = run(fold_pads, nodes, outputs="y z", w=CONV["w"], **constants)
    assert ops(graph) == ["PadDims", "Conv", "Relu"]
    assert graph.nodes[1].inputs[0] == "x"


NOT_NEGATIVE = {
    "Relu": {}, "Sigmoid": {}, "HardSigmoid": {}, "Abs": {}, "Exp": {}, "Softmax": dict(axis=1),
}  # fmt: skip
MAX = dict(kernel_shape=[3, 3], strides=[2, 2])


@pytest.mark.parametrize("op", NOT_NEGATIVE)
@pytest.mark.parametrize("own", [0, 1])
def test_pad_into_max_pool_where_nothing_is_negative(op, own):
    """The pool's own padding, which never wins, may stand beside it."""
    first, constants = pad(x="r")
    constants["pads"] = np.array([0, 0, 1, 0, 0, 0, 1, 1])
    nodes = [node(op, "x", "r", **NOT_NEGATIVE[op]), first]
    graph = run(
        fold_pads, [*nodes, node("MaxPool", "p", "y", pads=[0, own, 0, 0], **MAX)], **constants
    )
    assert "PadDims" not in ops(graph)
    assert graph.nodes[-1].attrs["pads"] == (1, own, 1, 1)


@pytest.mark.parametrize(("low", "stays"), [(0.0, False), (0.5, False), (-0.5, True)])
def test_pad_into_max_pool_after_clip(low, stays):
    first, constants = pad(x="r")
    nodes = [node("Clip", "x low", "r"), first, node("MaxPool", "p", "y", **MAX)]
    graph = run(fold_pads, nodes, low=np.float32(low), **constants)
    assert ("PadDims" in ops(graph)) == stays


@pytest.mark.parametrize(
    ("before", "how"),
    [
        ("Tanh", {}),
        ("LogSoftmax", {}),
        ("Relu", dict(ceil_mode=1)),
        ("Relu", dict(dilations=[2, 2])),
        ("Relu", dict(kernel_shape=[2, 2])),  # two rows of zeros: a window of nothing else
    ],
    ids=str,
)
def test_pad_stays_before_max_pool(before, how):
    first, constants = pad(x="r")
    nodes = [node(before, "x", "r"), first, node("MaxPool", "p", "y", **{**MAX, **how})]
    assert "PadDims" in ops(run(fold_pads, nodes, **constants))


def test_pad_of_an_input_stays_before_max_pool():
    first, constants = pad()
    assert (
        ops(run(fold_pads, [first, node("MaxPool", "p", "y", **MAX)], **constants))[0] == "PadDims"
    )


@pytest.mark.parametrize(
    ("how", "stays"),
    [
        (dict(), False),
        (dict(count_include_pad=1), False),
        (dict(count_include_pad=1, pads=[0, 1, 0, 0]), False),
        (dict(pads=[0, 1, 0, 0]), True),
        (dict(ceil_mode=1), True),
    ],
    ids=str,
)
def test_pad_into_average_pool(how, stays):
    first, constants = pad()
    graph = run(fold_pads, [first, node("AveragePool", "p", "y", **MAX, **how)], **constants)
    assert ("PadDims" in ops(graph)) == stays
    assert stays or graph.nodes[-1].attrs["count_include_pad"] == 1
