"""Broken and unusual models: one clear error, or a right import; never another exception."""

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper

from codegen.errors import CodegenError
from codegen.interpret import interpret
from codegen.onnx_file import read_tensor
from codegen.onnx_import import import_onnx
from codegen.reference import Reference, random_inputs
from codegen.resources import examples_dir

MNIST = examples_dir() / "models" / "mnist8.onnx"
F = TensorProto.FLOAT


def info(name, *shape, dtype=F):
    return helper.make_tensor_value_info(name, dtype, shape)


def model(nodes, inputs, outputs, constants=None, opset=17, functions=()):
    initializers = [numpy_helper.from_array(v, k) for k, v in (constants or {}).items()]
    graph = helper.make_graph(nodes, "g", inputs, outputs, initializers)
    opsets = [helper.make_opsetid("", opset), helper.make_opsetid("local", 1)]
    return helper.make_model(
        graph, opset_imports=opsets[: 2 if functions else 1], functions=functions, ir_version=8
    )


def save(folder, proto):
    path = folder / "m.onnx"
    path.write_bytes(proto.SerializeToString())
    return path


def relu(x="x", y="y", **kw):
    return helper.make_node("Relu", [x], [y], **kw)


def refused(folder, proto, *said, shapes=None):
    path = proto if hasattr(proto, "is_file") else save(folder, proto)
    with pytest.raises(CodegenError) as e:
        import_onnx(path, shapes)
    for text in said:
        assert text in str(e.value), str(e.value)
    return str(e.value)


def agrees(folder, proto, shapes=None):
    """The import computes what onnxruntime computes."""
    path = save(folder, proto)
    graph = import_onnx(path, shapes)
    x = random_inputs(graph, 0)
    got, want = interpret(graph, x), Reference(path, shapes).run(x)
    for mine, theirs in zip(graph.outputs, want.values(), strict=True):
        np.testing.assert_allclose(got[mine], theirs, rtol=1e-4, atol=1e-5)
    return graph


# --- files that are not models ---


def test_missing_file(tmp_path):
    refused(tmp_path, tmp_path / "none.onnx", "no such file")


@pytest.mark.parametrize("content", [b"", b"hello, this is not a model\n", b"\x00" * 64])
def test_not_onnx(content, tmp_path):
    (tmp_path / "m.onnx").write_bytes(content)
    refused(tmp_path, tmp_path / "m.onnx", "not an ONNX model")


def test_truncated_anywhere(tmp_path):
    data = MNIST.read_bytes()
    path = tmp_path / "m.onnx"
    refusals, cuts = 0, range(1, len(data), max(len(data) // 60, 1))
    for cut in cuts:
        path.write_bytes(data[:cut])
        try:  # what follows the graph in the file is only documentation
            assert import_onnx(path).nodes == import_onnx(MNIST).nodes
        except CodegenError:
            refusals += 1
    assert refusals > 0.9 * len(cuts)


def test_flipped_bytes_never_crash(tmp_path):
    data, rng = bytearray(MNIST.read_bytes()), np.random.default_rng(0)
    path = tmp_path / "m.onnx"
    refusals = 0
    for _ in range(80):
        broken = bytearray(data)
        for at in rng.integers(0, len(data), 3):
            broken[at] ^= 1 << int(rng.integers(8))
        for at in rng.integers(0, 2000, 2):  # the part with the structure
            broken[at] = int(rng.integers(256))
        path.write_bytes(broken)
        try:
            import_onnx(path)
        except CodegenError:
            refusals += 1
    assert refusals > 20


# --- wiring ---


def test_cycle(tmp_path):
    nodes = [helper.make_node("Add", ["x", "b"], ["a"], "n1"), relu("a", "b", name="n2")]
    refused(tmp_path, model(nodes, [info("x", 2)], [info("b", 2)]), "cycle", "n1", "n2")


def test_missing_initializer(tmp_path):
    node = helper.make_node("Add", ["x", "weights"], ["y"], "n")
    refused(tmp_path, model([node], [info("x", 2)], [info("y", 2)]), "'weights'", "nothing defines")


def test_output_that_nothing_computes(tmp_path):
    refused(tmp_path, model([relu()], [info("x", 2)], [info("z", 2)]), "'z'", "never computed")


def test_no_outputs(tmp_path):
    refused(tmp_path, model([relu()], [info("x", 2)], []), "no outputs")


def test_nodes_in_any_order(tmp_path):
    nodes = [relu("a", "y"), helper.make_node("Neg", ["x"], ["a"])]
    agrees(tmp_path, model(nodes, [info("x", 5)], [info("y", 5)]))


# --- shapes ---


def dynamic(*shape):
    return model([relu()], [info("x", *shape)], [info("y", *shape)])


def test_open_dimension_is_named_with_advice(tmp_path):
    refused(tmp_path, dynamic("N", 3, 4), "x is Nx3x4", "--shape x=1x3x4")


def test_open_dimension_is_pinned(tmp_path):
    graph = agrees(tmp_path, dynamic("N", 3, "W"), {"x": (2, 3, 7)})
    assert graph.tensors["y"].shape == (2, 3, 7)


def test_shape_for_an_unknown_input(tmp_path):
    refused(tmp_path, dynamic("N", 3), "'nope'", "inputs: x", shapes={"nope": (1, 3)})


@pytest.mark.parametrize("shape", [(1, 4), (1, 3, 1)])
def test_shape_that_contradicts_the_model(shape, tmp_path):
    refused(tmp_path, dynamic("N", 3), "does not fit Nx3", shapes={"x": shape})


def test_input_that_is_a_sequence(tmp_path):
    x = helper.make_tensor_sequence_value_info("x", F, [2])
    node = helper.make_node("SequenceAt", ["x", "i"], ["y"])
    constants = {"i": np.array(0, np.int64)}
    refused(tmp_path, model([node], [x], [info("y", 2)], constants), "not a tensor")


def test_input_of_strings(tmp_path):
    text = TensorProto.STRING
    node = helper.make_node("Identity", ["x"], ["y"])
    proto = model([node], [info("x", 2, dtype=text)], [info("y", 2, dtype=text)])
    refused(tmp_path, proto, "'x' has element type STRING")


def test_initializer_of_strings(tmp_path):
    proto = model([relu()], [info("x", 2)], [info("y", 2)])
    proto.graph.initializer.append(helper.make_tensor("s", TensorProto.STRING, [1], [b"a"]))
    proto.graph.node.append(helper.make_node("Identity", ["s"], ["t"]))
    proto.graph.output.append(info("t", 1, dtype=TensorProto.STRING))
    refused(tmp_path, proto, "cannot be read")


# --- operators and opsets ---


def test_opset_too_old(tmp_path):
    refused(tmp_path, model([relu()], [info("x", 2)], [info("y", 2)], opset=6), "opset 6")


def test_opset_too_new(tmp_path):
    refused(tmp_path, model([relu()], [info("x", 2)], [info("y", 2)], opset=99), "opset 99")


def test_all_unsupported_nodes_at_once(tmp_path):
    nodes = [
        helper.make_node("Det", ["x"], ["a"], "first"),
        helper.make_node("Relu", ["a"], ["b"], "innocent"),
        helper.make_node("NonZero", ["x"], ["c"], "second"),
    ]
    out = [info("b", 1), info("c", "r", "n", dtype=TensorProto.INT64)]
    text = refused(tmp_path, model(nodes, [info("x", 1, 3, 3)], out), "2 unsupported node(s)")
    assert "Det 'first'" in text
    assert "NonZero 'second'" in text
    assert "innocent" not in text


def test_parameter_computed_at_run_time(tmp_path):
    shape = info("s", 2, dtype=TensorProto.INT64)
    node = helper.make_node("Reshape", ["x", "s"], ["y"], "r")
    proto = model([node], [info("x", 2, 3), shape], [info("y", "a", "b")])
    refused(tmp_path, proto, "Reshape 'r'", "computed at run time")


def test_operator_of_a_foreign_domain(tmp_path):
    node = helper.make_node("Magic", ["x"], ["y"], "m", domain="com.example")
    proto = model([node], [info("x", 2)], [info("y", 2)])
    proto.opset_import.append(helper.make_opsetid("com.example", 1))
    refused(tmp_path, proto, "com.example", "Magic")


# --- external data ---


def external(folder, location, length=24, offset=None):
    """x + w with w in a file beside the model."""
    proto = model(
        [helper.make_node("Add", ["x", "w"], ["y"])],
        [info("x", 2, 3)], [info("y", 2, 3)], {"w": np.ones((2, 3), np.float32)},
    )  # fmt: skip
    w = proto.graph.initializer[0]
    w.ClearField("raw_data")
    w.data_location = TensorProto.EXTERNAL
    entries = {"location": location, "length": str(length)} | (
        {"offset": str(offset)} if offset is not None else {}
    )
    for key, value in entries.items():
        w.external_data.add(key=key, value=value)
    return save(folder, proto)


def test_external_data(tmp_path):
    path = external(tmp_path, "w.bin")
    (tmp_path / "w.bin").write_bytes(np.arange(6, dtype=np.float32).tobytes())
    graph = import_onnx(path)
    x = random_inputs(graph, 0)
    np.testing.assert_allclose(interpret(graph, x)["y"], x["x"] + np.arange(6).reshape(2, 3))


def test_external_data_is_missing(tmp_path):
    refused(tmp_path, external(tmp_path, "w.bin"), "'w.bin'", "missing")


@pytest.mark.parametrize("location", ["../w.bin", "/etc/hostname", "", "sub/../../w.bin"])
def test_external_data_outside(location, tmp_path):
    (tmp_path / "w.bin").write_bytes(bytes(24))
    (tmp_path / "model").mkdir()
    refused(tmp_path, external(tmp_path / "model", location), "outside the folder")


def test_external_data_behind_a_link(tmp_path):
    (tmp_path / "w.bin").write_bytes(bytes(24))
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "link.bin").symlink_to(tmp_path / "w.bin")
    refused(tmp_path, external(tmp_path / "model", "link.bin"), "outside the folder")


@pytest.mark.parametrize(("size", "length", "offset"), [(10, 24, 0), (24, 24, 20), (24, 12, 0)])
def test_external_data_is_too_short(size, length, offset, tmp_path):
    (tmp_path / "w.bin").write_bytes(bytes(size))
    refused(tmp_path, external(tmp_path, "w.bin", length, offset), "external data")


def test_tensor_file_that_is_none(tmp_path):
    (tmp_path / "t.pb").write_bytes(b"\xff\xff")
    with pytest.raises(CodegenError, match="not an ONNX tensor"):
        read_tensor(tmp_path / "t.pb")


# --- unusual, and right ---


def test_initialisers_listed_as_inputs(tmp_path):
    w = np.ones(3, np.float32)
    node = helper.make_node("Add", ["x", "w"], ["y"])
    graph = agrees(tmp_path, model([node], [info("x", 3), info("w", 3)], [info("y", 3)], {"w": w}))
    assert graph.inputs == ("x",)


def test_several_inputs_and_outputs(tmp_path):
    nodes = [
        helper.make_node("Add", ["a", "b"], ["s"]),
        helper.make_node("Mul", ["s", "c"], ["p"]),
    ]
    inputs = [info("a", 2, 3), info("b", 3), info("c", 1)]
    graph = agrees(tmp_path, model(nodes, inputs, [info("p", 2, 3), info("s", 2, 3)]))
    assert graph.inputs == ("a", "b", "c")
    assert graph.outputs == ("p", "s")


def test_image_with_channels_last(tmp_path):
    nodes = [
        helper.make_node("Transpose", ["x"], ["t"], perm=[0, 3, 1, 2]),
        helper.make_node("Conv", ["t", "w"], ["y"]),
    ]
    w = np.random.default_rng(0).standard_normal((4, 3, 3, 3)).astype(np.float32)
    agrees(tmp_path, model(nodes, [info("x", 1, 6, 7, 3)], [info("y", 1, 4, 4, 5)], {"w": w}))


def test_functions_are_inlined(tmp_path):
    body = [helper.make_node("Relu", ["a"], ["b"]), helper.make_node("Neg", ["b"], ["c"])]
    function = helper.make_function(
        "local", "Twice", ["a"], ["c"], body, [helper.make_opsetid("", 17)]
    )
    node = helper.make_node("Twice", ["x"], ["y"], domain="local")
    agrees(tmp_path, model([node], [info("x", 4)], [info("y", 4)], functions=[function]))


def test_equal_and_missing_node_names(tmp_path):
    nodes = [
        relu("x", "a", name="same"),
        helper.make_node("Neg", ["a"], ["b"], "same"),
        helper.make_node("Exp", ["b"], ["y"]),
    ]
    graph = agrees(tmp_path, model(nodes, [info("x", 4)], [info("y", 4)]))
    assert len({n.name for n in graph.nodes}) == len(graph.nodes)


def test_output_that_is_an_input(tmp_path):
    node = helper.make_node("Identity", ["x"], ["y"])
    agrees(tmp_path, model([node], [info("x", 3)], [info("y", 3)]))


def test_output_that_is_a_constant(tmp_path):
    nodes = [helper.make_node("Identity", ["c"], ["y"]), relu("x", "z")]
    constants = {"c": np.arange(3, dtype=np.float32)}
    agrees(tmp_path, model(nodes, [info("x", 2)], [info("y", 3), info("z", 2)], constants))


def test_output_that_is_the_input_itself(tmp_path):
    nodes = [relu("x", "z")]
    agrees(tmp_path, model(nodes, [info("x", 2)], [info("x", 2), info("z", 2)]))


def test_two_outputs_of_one_tensor(tmp_path):
    nodes = [relu("x", "y"), helper.make_node("Identity", ["y"], ["z"])]
    agrees(tmp_path, model(nodes, [info("x", 2)], [info("y", 2), info("z", 2)]))


@pytest.mark.parametrize("opset", [7, 9, 11, 13, 17, 21])
def test_every_opset(opset, tmp_path):
    axes = {"axes": [1]} if opset < 18 else {}
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["c"], pads=[1, 1, 1, 1]),
        relu("c", "r"),
        helper.make_node("ReduceMean", ["r", *(["axes"] if opset >= 18 else [])], ["y"], **axes),
    ]
    constants = {"w": np.ones((2, 3, 3, 3), np.float32), "axes": np.array([1], np.int64)}
    inputs, outputs = [info("x", 1, 3, 5, 5)], [info("y", 1, 1, 5, 5)]
    agrees(tmp_path, model(nodes, inputs, outputs, constants, opset=opset))
