"""Every pass on small networks that trigger it, and on their neighbours that must not.

The networks are translated without onnxsim, which would do some of the work first. `run` checks
that the graph computes the same before and after, and what onnxruntime computes.
"""

from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import TensorProto, helper, numpy_helper

from codegen.graph import Activation, Graph
from codegen.interpret import interpret
from codegen.onnx_import import translate
from codegen.passes import PASSES, optimise
from codegen.passes.affine import fold_affine
from codegen.passes.cleanup import drop_dead, drop_moves, merge_equal
from codegen.passes.fuse import FUSABLE, fuse_activation, fuse_residual
from codegen.passes.pads import fold_pads
from codegen.passes.patterns import recognise_activations
from codegen.passes.points import dense_points
from codegen.passes.shuffle import recognise_shuffles

X = (1, 4, 6, 6)
RNG = np.random.default_rng(3)


def weights(*shape: int) -> np.ndarray:
    return RNG.normal(size=shape).astype(np.float32)


def node(op: str, inputs: str, output: str, **attrs):
    """`inputs` and `output` are names separated by blanks; "-" is an absent input."""
    names = ["" if n == "-" else n for n in inputs.split()]
    return helper.make_node(op, names, output.split(), name=output.split()[0], **attrs)


def batch_norm(x: str, y: str, channels: int = 4):
    """The node and its constants."""
    names = [f"{y}_{part}" for part in ("scale", "bias", "mean", "var")]
    values = [weights(channels), weights(channels), weights(channels), weights(channels) ** 2 + 0.5]
    return node("BatchNormalization", " ".join([x, *names]), y), dict(
        zip(names, values, strict=True)
    )


def _output(name: str, element: int, shape):
    """Types are inferred, but not that of an input."""
    known = (element, shape) if name == "x" else (TensorProto.UNDEFINED, None)
    return helper.make_tensor_value_info(name, *known)


def model(nodes, outputs="y", shape=X, dtype=np.float32, **constants) -> onnx.ModelProto:
    """A model with the input x."""
    element = helper.np_dtype_to_tensor_dtype(np.dtype(dtype))
    graph = helper.make_graph(
        nodes,
        "net",
        [helper.make_tensor_value_info("x", element, shape)],
        [_output(o, element, shape) for o in outputs.split()],
        [numpy_helper.from_array(np.asarray(v), k) for k, v in constants.items()],
    )
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    made = onnx.shape_inference.infer_shapes(made, strict_mode=True)
    onnx.checker.check_model(made)
    return made


def run(passes, nodes, outputs="y", shape=X, dtype=np.float32, **constants) -> Graph:
    """The graph after `passes`; its values are compared with those before and with onnxruntime."""
    made = model(nodes, outputs, shape, dtype, **constants)
    before = after = translate(made, Path("net.onnx"), "net")
    for one in passes if isinstance(passes, tuple) else (passes,):
        after = one(after)
    x = (np.random.default_rng(5).normal(size=shape) * 4).astype(dtype)
    session = ort.InferenceSession(made.SerializeToString(), providers=["CPUExecutionProvider"])
    expected = session.run(None, {"x": x})
    for graph in (before, after):
        values = interpret(graph, {"x": x})
        for name, y in zip(graph.outputs, expected, strict=True):
            assert values[name].dtype == y.dtype
            np.testing.assert_allclose(values[name], y, rtol=1e-4, atol=1e-4)
    assert after.outputs == before.outputs
    read = {t for n in after.nodes for t in n.reads}
    assert set(after.constants) <= read, "constants that nobody reads"
    return after


def ops(graph: Graph) -> list[str]:
    return [n.op for n in graph.nodes]


CONV = dict(w=weights(4, 4, 3, 3), b=weights(4))
SMALL = dict(w=weights(4, 4, 1, 1))


# ---- scale and shift ----------------------------------------------------------------------------


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


# ---- pads ---------------------------------------------------------------------------------------

PADS = np.array([0, 0, 1, 0, 0, 0, 2, 1])


def pad(value: float = 0.0, x: str = "x", **attrs):
    return node("Pad", f"{x} pads v", "p", **attrs), dict(pads=PADS, v=np.float32(value))


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


# ---- activations written as several nodes -------------------------------------------------------

THIRDS = dict(three=np.float32(3), zero=np.float32(0), six=np.float32(6), sixth=np.float32(1 / 6))
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
