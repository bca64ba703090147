"""Models that parse but do not make sense, node by node: one CodegenError that names the node."""

import re
import subprocess
import sys

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper

from codegen.builder import Builder
from codegen.errors import CodegenError
from codegen.onnx_import import import_onnx
from codegen.ops.base import Unsupported
from codegen.resources import examples_dir

MNIST = examples_dir() / "models" / "mnist8.onnx"


def value(name: str, shape=(1, 4), element: int = TensorProto.FLOAT):
    return helper.make_tensor_value_info(name, element, shape)


def op(kind: str, inputs: str, output: str, **attrs):
    """`inputs` and `output` are names separated by blanks; "-" is an absent one."""
    names = [[n.strip("-") for n in text.split()] for text in (inputs, output)]
    return helper.make_node(kind, *names, name=f"n_{output.split()[-1]}", **attrs)


def model(nodes, inputs=("x",), outputs=("y",), constants=None, **more):
    """`inputs` are names or ValueInfos, `constants` arrays or TensorProtos."""
    graph = helper.make_graph(
        nodes,
        "net",
        [value(i) if isinstance(i, str) else i for i in inputs],
        [value(o, None) for o in outputs],
        [
            v if isinstance(v, TensorProto) else numpy_helper.from_array(np.asarray(v), k)
            for k, v in (constants or {}).items()
        ],
    )
    ids = [helper.make_opsetid("", 17), helper.make_opsetid("mine", 1)]
    return helper.make_model(graph, opset_imports=ids, ir_version=8, **more)


@pytest.fixture
def read(tmp_path):
    def run(made, shapes=None, name="net.onnx"):
        path = tmp_path / name
        path.write_bytes(made if isinstance(made, bytes) else made.SerializeToString())
        return import_onnx(path, shapes)

    return run


@pytest.fixture
def refuse(read):
    """Import what must be refused; returns the message."""

    def run(made, said: str, **kw) -> str:
        with pytest.raises(CodegenError) as caught:
            read(made, **kw)
        e = caught.value
        assert all((e.where, e.what, e.allowed, e.todo))
        assert re.search(said, str(e)), str(e)
        return str(e)

    return run


@pytest.mark.parametrize("name", ["net.json", "net.onnxtxt", "net.textproto", "net"])
@pytest.mark.parametrize("data", [b"", b"hello\n", b"{}", b"\xff\xfe\x00", b"PK\x03\x04"], ids=repr)
def test_the_extension_says_nothing(refuse, data, name):
    refuse(data, "not an ONNX model", name=name)


def test_model_with_another_extension(read):
    assert read(model([op("Relu", "x", "y")]), name="net.json").outputs == ("y",)


def test_no_opset(refuse):
    made = model([op("Relu", "x", "y")])
    del made.opset_import[:]
    refuse(made, "no graph or no opset")


def test_node_that_reads_itself(refuse):
    refuse(model([op("Add", "x y", "y")]), "the nodes 'n_y' form a cycle")


def test_two_nodes_write_one_tensor(refuse):
    refuse(model([op("Relu", "x", "y"), op("Tanh", "x", "y")]), "the ONNX checker rejects it")


def test_attribute_that_the_operator_has_not(refuse):
    refuse(model([op("Relu", "x", "y", slope=0.5)]), "the ONNX checker rejects it .*slope")


def test_function_that_calls_itself(refuse):
    body = [helper.make_node("Twice", ["a"], ["b"], domain="mine")]
    ids = [helper.make_opsetid("", 17), helper.make_opsetid("mine", 1)]
    function = helper.make_function("mine", "Twice", ["a"], ["b"], body, ids)
    made = model([op("Twice", "x", "y", domain="mine")], functions=[function])
    refuse(made, "its functions cannot be inlined|checker rejects")


# ---- inputs and constants -----------------------------------------------------------------------

OPEN = value("x", ("N", 4, None, 6))


@pytest.mark.parametrize(
    ("shape", "said"),
    [
        (("N", 4, None, 6), r"x is Nx4x\?x6; every dimension must be fixed; .* x=1x4x1x6$"),
        (("N",), r"x is N; .* --shape x=1$"),
        (("x", "ax1", 3), r"x is _xa_1x3; .* --shape x=1x1x3$"),
        (None, r"x is of unknown rank; .* --shape x=1x3x224x224$"),
        ((0, 4), r"x is \?x4"),
    ],
)
def test_open_shape(refuse, shape, said):
    refuse(model([op("Relu", "x", "y")], inputs=(value("x", shape),)), said)


@pytest.mark.parametrize("shape", [(1, 4, 5), (1, 5, 5, 6), (1, 4, 0, 6), (1, 4, -1, 6)])
def test_wrong_shape(refuse, shape):
    said = rf"x={'x'.join(map(str, shape))} does not fit Nx4x\?x6 in net\.onnx"
    refuse(model([op("Relu", "x", "y")], inputs=(OPEN,)), said, shapes={"x": shape})


def test_scalar_may_be_pinned(read):
    made = model([op("Relu", "x", "y")], inputs=(value("x", ()),))
    assert read(made, {"x": ()}).tensors["y"].shape == ()


def test_batch_may_be_changed(read):
    assert read(model([op("Relu", "x", "y")]), {"x": (3, 4)}).tensors["y"].shape == (3, 4)


def test_shape_that_a_later_node_contradicts(refuse):
    made = model([op("Reshape", "x s", "y")], constants={"s": np.array([1, 4])})
    said = r"Reshape 'n_y': cannot reshape \(2, 4\) to \(1, 4\)"
    refuse(made, said, shapes={"x": (2, 4)})


@pytest.mark.parametrize("size", [0, 12, 20])
def test_constant_of_another_size(refuse, size):
    bad = TensorProto(name="w", data_type=1, dims=[1, 4], raw_data=bytes(size))
    refuse(model([op("Mul", "x w", "y")], constants={"w": bad}), "initializer 'w'|checker")


@pytest.mark.parametrize("dims", [[-1], [1, -4], [2**40, 2**40], [2**62]])
def test_constant_of_impossible_shape(refuse, dims):
    bad = TensorProto(name="w", data_type=1, dims=dims, raw_data=bytes(16))
    refuse(model([op("Mul", "x w", "y")], constants={"w": bad}), "initializer 'w'|checker")


@pytest.mark.parametrize(
    "entries", [dict(offset="a"), dict(length=-4), dict(offset=-4), dict(offset=100)], ids=str
)
def test_external_data_with_bad_entries(refuse, tmp_path, entries):
    (tmp_path / "w.bin").write_bytes(bytes(16))
    w = TensorProto(name="w", data_type=1, dims=[1, 4], data_location=TensorProto.EXTERNAL)
    for key, text in {"location": "w.bin", **entries}.items():
        w.external_data.add(key=key, value=str(text))
    refuse(model([op("Mul", "x w", "y")], constants={"w": w}), "external data")


@pytest.mark.parametrize("element", [TensorProto.UNDEFINED, TensorProto.BFLOAT16])
def test_external_data_of_a_type_that_is_not_read(refuse, tmp_path, element):
    (tmp_path / "w.bin").write_bytes(bytes(16))
    w = TensorProto(name="w", data_type=element, dims=[1, 4], data_location=TensorProto.EXTERNAL)
    w.external_data.add(key="location", value="w.bin")
    refuse(model([op("Mul", "x w", "y")], constants={"w": w}), "external data|initializer|checker")


# ---- operators ----------------------------------------------------------------------------------


def test_all_unsupported_nodes_at_once(refuse):
    """Each cause once: what only reads a result of unknown shape is not to blame."""
    nodes = [
        op("Magic", "x", "a", domain="mine"), op("Det", "m", "d"), op("Tanh", "a", "c"),
        op("Wand", "c", "y", domain="mine"), op("Tanh", "d", "z"),
    ]  # fmt: skip
    made = model(nodes, inputs=("x", value("m", (3, 3))), outputs=("y", "z"))
    lines = refuse(made, r"3 unsupported node\(s\):").splitlines()[1:]
    assert [line.strip().split(":")[0] for line in lines] == [
        "mine.Magic 'n_a'", "Det 'n_d'", "mine.Wand 'n_y'",
    ]  # fmt: skip
    assert all("replace it by supported operators before export" in line for line in lines)


def test_an_absent_output_does_not_hide_other_problems(refuse):
    """An unsupported node with an unused output; another one with an absent input."""
    nodes = [op("LSTM", "s w w", "- y", hidden_size=1), op("Clip", "x - high", "z")]
    inputs = ("x", value("high", ()), value("s", (1, 1, 1)))
    w = np.zeros((1, 4, 1), np.float32)
    text = refuse(model(nodes, inputs, ("y", "z"), {"w": w}), r"2 unsupported node")
    assert "LSTM 'n_y'" in text
    assert "Clip 'n_z'" in text


def test_optional_output_that_is_not_computed(refuse):
    nodes = [op("Dropout", "x", "d m"), op("Not", "m", "y")]
    refuse(model(nodes), "Not 'n_y': it reads 'm', an optional output")
    refuse(model(nodes[:1], outputs=("d", "m")), "output 'm': an optional output of its node")


def test_control_flow(refuse):
    branch = helper.make_graph([op("Relu", "x", "r")], "branch", [], [value("r")])
    node = op("If", "c", "y", then_branch=branch, else_branch=branch)
    made = model([node], inputs=("x", value("c", (), TensorProto.BOOL)))
    refuse(made, r"1 unsupported node\(s\):\n  If 'n_y': no such operator here")


# x is (1, 4), z (3, 5); i holds 7, 3, 9 and r nothing
DO_NOT_FIT = {
    "Add": ("x z", {}), "Concat": ("x z", dict(axis=0)), "Gemm": ("x z", {}),
    "MatMul": ("x z", {}), "Conv": ("x z", {}), "ConvTranspose": ("x z", {}),
    "Transpose": ("x", dict(perm=[0, 0])), "Flatten": ("x", dict(axis=7)),
    "MaxPool": ("x", dict(kernel_shape=[2, 2])), "AveragePool": ("x", dict(kernel_shape=[2])),
    "Where": ("b z x", {}), "PRelu": ("x z", {}), "Sum": ("x z x", {}), "Max": ("x z", {}),
    "Softmax": ("x", dict(axis=3)), "ReduceMean": ("x", dict(axes=[4])),
    "ArgMax": ("x", dict(axis=5)),
    "DepthToSpace": ("x", dict(blocksize=2)), "SpaceToDepth": ("x", dict(blocksize=2)),
    "Split": ("x", dict(axis=3)), "Gather": ("x i", dict(axis=3)), "Tile": ("x i", {}),
    "Expand": ("z i", {}), "Squeeze": ("x i", {}), "Unsqueeze": ("x i", {}), "Pad": ("x i", {}),
    "Slice": ("x i j", {}), "BatchNormalization": ("x z z z z", {}),
    "LayerNormalization": ("x z", {}), "InstanceNormalization": ("x z z", {}),
    "Resize": ("x r i", {}), "Trilu": ("v", {}),
}  # fmt: skip


@pytest.mark.parametrize("kind", DO_NOT_FIT)
def test_shapes_that_do_not_fit(refuse, kind):
    inputs, attrs = DO_NOT_FIT[kind]
    infos = ("x", value("z", (3, 5)), value("b", (1, 4), TensorProto.BOOL), value("v", (3,)))
    constants = {"i": np.array([7, 3, 9]), "j": np.array([1]), "r": np.zeros(0, np.float32)}
    refuse(model([op(kind, inputs, "y", **attrs)], infos, constants=constants), f"{kind} 'n_y': ")


def test_types_that_do_not_fit(refuse):
    infos = ("x", value("z", (1, 4), TensorProto.INT32))
    refuse(
        model([op("Add", "x z", "y")], infos), "Add 'n_y': its inputs 'x' and 'z' are f32 and i32"
    )
    refuse(
        model([op("Concat", "x x z", "y", axis=0)], infos), "Concat 'n_y': its inputs 'x' and 'z'"
    )


def test_types_that_may_differ(read):
    infos = ("x", value("b", (1, 4), TensorProto.BOOL), value("i", (), TensorProto.INT64))
    nodes = [op("Where", "b x x", "w"), op("Gather", "w i", "y", axis=1)]
    assert read(model(nodes, infos)).tensors["y"].shape == (1,)


def test_shapes_of_outputs_may_be_missing(read):
    made = model([op("Relu", "x", "y")])
    assert not made.graph.output[0].type.tensor_type.HasField("shape")
    assert read(made).tensors["y"].shape == (1, 4)


def test_a_bug_is_not_taken_for_a_wrong_model(read, monkeypatch):
    """What ONNX finds right and we do not expect keeps its traceback."""

    def broken(*args):
        raise KeyError("a bug")

    monkeypatch.setattr(Builder, "add", broken)
    with pytest.raises(KeyError, match="a bug"):
        read(model([op("Relu", "x", "y")]))


def test_what_is_not_covered_is_said_as_given(refuse, monkeypatch):
    def not_covered(*args):
        raise Unsupported("because", "so what")

    monkeypatch.setattr(Builder, "add", not_covered)
    refuse(model([op("Relu", "x", "y")]), "Relu 'n_y': because; so what")


# ---- noise --------------------------------------------------------------------------------------

FUZZ = """
import sys
from pathlib import Path
import numpy as np
from codegen.errors import CodegenError
from codegen.onnx_import import import_onnx
data = np.frombuffer(Path(sys.argv[1]).read_bytes(), np.uint8)
path = Path(sys.argv[2])
refused = 0
for seed in range(int(sys.argv[3]), int(sys.argv[4])):
    rng = np.random.default_rng(seed)
    bad = data.copy()
    # both ends of the file, where its structure is; the middle is numbers
    where = rng.integers(0, 800, 3) if seed % 2 else rng.integers(len(bad) - 2500, len(bad), 3)
    bad[where] ^= (1 << rng.integers(0, 8, 3)).astype(np.uint8)
    path.write_bytes(bad.tobytes())
    try:
        import_onnx(path)
    except CodegenError:
        refused += 1
    except BaseException as e:
        raise AssertionError(f"seed {seed}") from e
print("refused", refused)
"""


def test_flipped_bits(tmp_path):
    """In a process of its own: the libraries below could take it down."""
    done = subprocess.run(
        [sys.executable, "-c", FUZZ, str(MNIST), str(tmp_path / "bad.onnx"), "0", "150"],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert 20 < int(done.stdout.split()[1]) < 150
