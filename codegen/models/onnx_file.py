"""A package's ONNX file -> the same network with the fixed input shape of the catalogue."""

import onnx
import onnxsim

from codegen.errors import CodegenError
from codegen.models.catalog import Model


def convert(data: bytes, row: Model) -> onnx.ModelProto:
    """Parse, fix the shape of the one input, simplify."""
    model = onnx.load_from_string(data)
    constants = {c.name for c in model.graph.initializer}
    inputs = [value for value in model.graph.input if value.name not in constants]
    if len(inputs) != 1:
        raise CodegenError(
            f"model {row.name}",
            f"{len(inputs)} inputs",
            "the catalogue knows the shape of one",
            "choose another model",
        )
    return simplify(model, {inputs[0].name: list(row.input_shape)})


def simplify(model: onnx.ModelProto, shapes: dict[str, list[int]] | None = None) -> onnx.ModelProto:
    """onnxsim: constants folded, batch-norm folded, shapes fixed. CodegenError if the result is not
    equal."""
    simple, equal = onnxsim.simplify(model, overwrite_input_shapes=shapes)
    if not equal:
        raise CodegenError(
            f"model {model.graph.name}",
            "onnxsim changed its result",
            "a simplified network must compute the same",
            "report this with the onnxsim version",
        )
    return simple
