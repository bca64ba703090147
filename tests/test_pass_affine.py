"""Batch norms and arithmetic with constants become part of convolutions, where they may."""

import numpy as np
import pytest

from codegen.passes.affine import fold_affine
from tests.pass_cases import CONV, SMALL, batch_norm, node, ops, run, weights


@pytest.mark.parametrize("bias", ["", " b"])
def test_batch_norm_into_conv(bias):
    bn, more = batch_norm("c", "y")
    constants = {k: v for k, v in CONV.items() if k in "w" + bias}
    graph = run(
        fold_affine, [node("Conv", "x w" + bias, "c", pads=[1] * 4), bn], **constants, **more
    )
    assert ops(graph) == ["Conv"]
    assert len(graph.nodes[0].inputs) == 3


@pytest.mark.parametrize("group", [1, 2, 4])
def test_batch_norm_into_grouped_conv(group):
    bn, more = batch_norm("c", "y", 8)
    conv = node("Conv", "x w", "c", group=group)
    assert ops(run(fold_affine, [conv, bn], w=weights(8, 4 // group, 3, 3), **more)) == ["Conv"]


@pytest.mark.parametrize("group", [1, 2, 4])
def test_batch_norm_into_conv_transpose(group):
    bn, more = batch_norm("c", "y", 8)
    conv = node("ConvTranspose", "x w b", "c", group=group, strides=[2, 2])
    graph = run(fold_affine, [conv, bn], w=weights(4, 8 // group, 2, 2), b=weights(8), **more)
    assert ops(graph) == ["ConvTranspose"]


def test_batch_norm_into_gemm():
    bn, more = batch_norm("c", "y", 5)
    gemm = node("Gemm", "x w b", "c", transB=1)
    graph = run(fold_affine, [gemm, bn], shape=(3, 7), w=weights(5, 7), b=weights(5), **more)
    assert ops(graph) == ["Dense"]


def test_conv_with_two_readers_keeps_its_weights():
    bn, more = batch_norm("c", "n")
    graph = run(
        fold_affine,
        [node("Conv", "x w", "c"), bn, node("Add", "c n", "y")],
        **SMALL,
        **more,
    )
    assert ops(graph) == ["Conv", "Affine", "Add2"]


def test_conv_that_is_an_output_keeps_its_weights():
    bn, more = batch_norm("c", "y")
    graph = run(fold_affine, [node("Conv", "x w", "c"), bn], outputs="y c", **SMALL, **more)
    assert ops(graph) == ["Conv", "Affine"]


def test_shared_weights_are_scaled_once_each():
    first, more = batch_norm("c", "d")
    nodes = [node("Conv", "x w", "c"), first, node("Conv", "d w", "y")]
    graph = run(fold_affine, nodes, **SMALL, **more)
    assert ops(graph) == ["Conv", "Conv"]


def _concat(second: str):
    bn, more = batch_norm("c", "y", 8)
    nodes = [node("Conv", "x w", "a"), node(*second.split("|")), node("Concat", "a b", "c", axis=1)]
    return [*nodes, bn], more


def test_batch_norm_through_concat():
    nodes, more = _concat("Conv|x w2|b")
    graph = run(fold_affine, nodes, **SMALL, w2=weights(4, 4, 1, 1), **more)
    assert ops(graph) == ["Conv", "Conv", "Concat"]


def test_batch_norm_after_concat_of_other_things():
    nodes, more = _concat("Relu|x|b")
    assert ops(run(fold_affine, nodes, **SMALL, **more)) == ["Conv", "Relu", "Concat", "Affine"]


@pytest.mark.parametrize("case", ["twice", "axis", "read"])
def test_batch_norm_stays_after_concat(case):
    """The same convolution twice; another axis; a part that is read elsewhere."""
    bn, more = batch_norm("c", "y", 4 if case == "axis" else 8)
    parts = "a a" if case == "twice" else "a b"
    nodes = [node("Conv", "x w", "a"), node("Conv", "x w2", "b")]
    nodes += [node("Concat", parts, "c", axis=2 if case == "axis" else 1), bn]
    nodes = [n for n in nodes if case != "twice" or n.name != "b"]
    graph = run(
        fold_affine,
        nodes,
        outputs="y b" if case == "read" else "y",
        w2=weights(4, 4, 1, 1),
        **SMALL,
        **more,
    ) if case != "twice" else run(fold_affine, nodes, **SMALL, **more)  # fmt: skip
    assert ops(graph)[-2:] == ["Concat", "Affine"]


def test_batch_norm_forward_into_unpadded_conv():
    bn, more = batch_norm("l", "n")
    nodes = [node("LeakyRelu", "x", "l"), bn, node("Conv", "n w b", "y")]
    assert ops(run(fold_affine, nodes, **CONV, **more)) == ["LeakyRelu", "Conv"]


@pytest.mark.parametrize("group", [1, 2, 4])
def test_batch_norm_forward_into_grouped_conv(group):
    bn, more = batch_norm("x", "n")
    nodes = [bn, node("Conv", "n w", "y", group=group)]
    assert ops(run(fold_affine, nodes, w=weights(8, 4 // group, 2, 3), **more)) == ["Conv"]


def test_shift_stays_in_front_of_padding():
    bn, more = batch_norm("x", "n")
    nodes = [bn, node("Conv", "n w b", "y", pads=[1] * 4)]
    assert ops(run(fold_affine, nodes, **CONV, **more)) == ["Affine", "Conv"]


def test_scale_alone_passes_padding():
    nodes = [node("Mul", "x s", "n"), node("Conv", "n w b", "y", pads=[1] * 4)]
    assert ops(run(fold_affine, nodes, s=weights(4, 1, 1), **CONV)) == ["Conv"]


def test_batch_norm_forward_into_gemm():
    bn, more = batch_norm("x", "n", 7)
    nodes = [bn, node("Gemm", "n w b", "y")]
    graph = run(fold_affine, nodes, shape=(3, 7), w=weights(7, 5), b=weights(5), **more)
    assert ops(graph) == ["Dense"]


def test_batch_norm_with_two_readers_stays():
    bn, more = batch_norm("x", "n")
    nodes = [bn, node("Conv", "n w", "a"), node("Add", "a n", "y")]
    assert ops(run(fold_affine, nodes, **SMALL, **more)) == ["Affine", "Conv", "Add2"]


CHAIN = {
    "Mul": ("c", "k"), "Div": ("c", "k"), "Sub": ("c", "k"), "Add": ("c", "k"),
    "Sub first": ("k", "c"), "Mul first": ("k", "c"), "Add first": ("k", "c"),
}  # fmt: skip


@pytest.mark.parametrize("how", CHAIN)
@pytest.mark.parametrize("constant", [np.float32(0.75), weights(4, 1, 1), weights(1, 4, 1, 1)])
def test_arithmetic_with_constants_into_conv(how, constant):
    inputs = " ".join(CHAIN[how])
    nodes = [node("Conv", "x w b", "c"), node(how.split()[0], inputs, "y")]
    assert ops(run(fold_affine, nodes, k=constant, **CONV)) == ["Conv"]


def test_division_of_a_constant_stays():
    nodes = [node("Conv", "x w b", "c"), node("Div", "k c", "y")]
    far_from_zero = np.full(4, 200, np.float32)
    graph = run(fold_affine, nodes, k=np.float32(2), w=CONV["w"], b=far_from_zero)
    assert ops(graph) == ["Conv", "Div2"]


def test_chain_that_is_read_in_the_middle_stays():
    nodes = [node("Mul", "x k", "a"), node("Add", "a k", "y")]
    assert ops(run(fold_affine, nodes, outputs="y a", k=weights(4, 1, 1))) == ["Mul2", "Add2"]


def test_chain_becomes_one_affine():
    nodes = [
        node("Sub", "k x", "a"), node("Mul", "a m", "b"), node("Div", "b k", "c"),
        node("Add", "c m", "d"), node("Relu", "d", "y"),
    ]  # fmt: skip
    graph = run(fold_affine, nodes, k=np.float32(2), m=weights(4, 1, 1))
    assert ops(graph) == ["Affine", "Relu"]


@pytest.mark.parametrize(
    "constant", [weights(1, 1, 6), weights(1, 4, 6, 1), weights(2, 1, 1, 1, 1)]
)
def test_constants_that_vary_otherwise_stay(constant):
    nodes = [node("Conv", "x w", "c"), node("Mul", "c k", "y")]
    assert "Mul2" in ops(run(fold_affine, nodes, k=constant, **SMALL))


def test_doubles_and_integers_stay():
    """The constants of Affine are float32."""
    for dtype in (np.float64, np.int32):
        nodes = [node("Mul", "x k", "a"), node("Add", "a k", "y")]
        graph = run(fold_affine, nodes, dtype=dtype, k=np.asarray(3, dtype))
        assert ops(graph) == ["Mul2", "Add2"]


def test_division_by_zero_stays():
    nodes = [node("Conv", "x w", "c"), node("Div", "c k", "d"), node("Relu", "x", "y")]
    graph = run(fold_affine, nodes, outputs="y d", k=np.zeros((4, 1, 1), np.float32), **SMALL)
    assert "Div2" in ops(graph)
