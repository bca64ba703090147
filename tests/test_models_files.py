"""Files of other frameworks that are not what they should be."""

import json
import pickle
import sys
from importlib import import_module
from io import BytesIO

import numpy as np
import onnx
import pytest

from codegen.errors import CodegenError
from codegen.models import catalog, onnx_file, squeezenet, tflite, tflite_file, torch_pth
from codegen.models.architectures import build


def test_pickles_may_not_call_anything():
    harmful = pickle.dumps(print)
    with pytest.raises(pickle.UnpicklingError, match="blocked class"):
        squeezenet.ArrayUnpickler(BytesIO(harmful)).load()
    with pytest.raises(CodegenError, match="not a plain state dictionary .blocked class"):
        torch_pth.load(harmful, "weights.pth")


def test_array_unpickler_reads_arrays():
    array = np.arange(6, dtype=np.float32).reshape(2, 3)
    loaded = squeezenet.ArrayUnpickler(BytesIO(pickle.dumps({"w": [array]}, protocol=3))).load()
    np.testing.assert_array_equal(loaded["w"][0], array)


def test_state_dictionary_with_another_magic_number():
    with pytest.raises(CodegenError, match="magic number 1;"):
        torch_pth.load(pickle.dumps(1) * 3, "weights.pth")


def test_tflite_identifier():
    with pytest.raises(CodegenError, match="file identifier b'abcd'"):
        tflite_file.read(b"1234abcd", "model.tflite")


@pytest.mark.parametrize(
    ("layer", "message"),
    [
        ({"class_name": "LSTM", "config": {}}, "Keras layer LSTM is not supported"),
        (
            {"class_name": "Activation", "config": {"activation": "gelu"}},
            "activation 'gelu' is not supported",
        ),
        (
            {"class_name": "ReLU", "config": {"max_value": 3.0}},
            "ReLU with max_value 3.0 is not supported",
        ),
    ],
)
def test_unsupported_keras(layer, message):
    with pytest.raises(CodegenError, match=message):
        import_module("codegen.models.keras_h5").convert(
            keras_file(layer), catalog.model("mlperf_ic_resnet8")
        )


def keras_file(layer: dict) -> bytes:
    """An .h5 model of an input and one layer."""
    h5py = pytest.importorskip("h5py")
    source = {"class_name": "InputLayer", "name": "in", "config": {}, "inbound_nodes": []}
    layers = [source, {"name": "it", "inbound_nodes": [[["in", 0, 0, {}]]], **layer}]
    config = {
        "class_name": "Functional",
        "config": {"layers": layers, "output_layers": [["it", 0, 0]]},
    }
    stream = BytesIO()
    with h5py.File(stream, "w") as file:
        file.attrs["model_config"] = json.dumps(config)
        file.create_group("model_weights")
    return stream.getvalue()


def test_missing_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "h5py", None)
    with pytest.raises(CodegenError, match=r"package 'h5py' is not installed.*codegen\[models\]"):
        import_module("codegen.models.keras_h5").convert(b"", catalog.model("mlperf_ic_resnet8"))


class FakeTable:
    """A flatbuffer table that has these numbers in its fields."""

    def __init__(self, fields: dict[int, int]):
        self.fields = fields

    def scalar(self, field: int, _kind: str, default: int = 0) -> int:
        return self.fields.get(field, default)

    def text(self, _field: int) -> str:
        return "it"


def test_unsupported_tflite():
    with pytest.raises(CodegenError, match="operator number 200; supported: ADD, "):
        tflite_file._operator_kind(FakeTable({0: 127, 3: 200}), "model.tflite")
    with pytest.raises(CodegenError, match="element type number 9 of tensor 'it'"):
        tflite_file._tensor(FakeTable({1: 9}), [], "model.tflite")
    op = tflite_file.Operator("ADD", (), (0,), FakeTable({}))
    graph = tflite_file.TfliteGraph((tflite_file.Tensor("sum", (1,), None),), (), (), (op,))
    with pytest.raises(CodegenError, match="operator ADD 'sum': fused activation number 5"):
        tflite._Conversion(graph).put(op, "sum", 5)


def test_network_with_two_inputs():
    values = [onnx.helper.make_tensor_value_info(n, onnx.TensorProto.FLOAT, [1]) for n in "abc"]
    add = onnx.helper.make_node("Add", ["a", "b"], ["c"])
    model = onnx.helper.make_model(onnx.helper.make_graph([add], "add", values[:2], values[2:]))
    with pytest.raises(CodegenError, match="model mnist8: 2 inputs"):
        onnx_file.convert(model.SerializeToString(), catalog.model("mnist8"))


def test_simplifier_that_changes_the_result(monkeypatch):
    monkeypatch.setattr(onnx_file.onnxsim, "simplify", lambda model, **_: (model, False))
    with pytest.raises(CodegenError, match="onnxsim changed its result"):
        onnx_file.simplify(build("light_squeezenet"))
