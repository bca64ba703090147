"""ONNX file -> Graph; the only file that imports onnx and onnxsim."""

import contextlib
import io
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import onnx
import onnx.inliner
from onnx import AttributeProto, ModelProto, NodeProto, ValueInfoProto, numpy_helper

from codegen.builder import Builder
from codegen.errors import CodegenError
from codegen.graph import Graph, Tensor
from codegen.onnx_file import model_inputs, opset_of, pin_shapes, read_model
from codegen.ops import OPS
from codegen.ops.base import Unsupported
from codegen.types import DType


def import_onnx(
    path: Path, shapes: Mapping[str, Sequence[int]] | None = None, name: str = ""
) -> Graph:
    """Read, pin, simplify and translate a model.

    `shapes` pins inputs by name. `name` becomes the prefix of the C library; default: the file's
    stem. Raises CodegenError for anything wrong with the file or not supported, listing all
    unsupported nodes at once.
    """
    model = pin_shapes(read_model(path), path, shapes or {})
    graph = translate(_simplify(model, path), path, name or path.stem)
    if not graph.outputs:
        raise CodegenError(
            str(path), "the model has no outputs", "a network needs one", "export it again"
        )
    return graph


def _simplify(model: ModelProto, path: Path) -> ModelProto:
    """onnxsim, which prints and on some subgraphs raises; the unsimplified model is then as
    good, only longer."""
    import onnxsim

    if model.ByteSize() > 1 << 30:
        return model
    try:
        with _silence():
            simple, _ = onnxsim.simplify(model, check_n=0)
        names = {i.name for i in model_inputs(simple)}
        if {i.name for i in model_inputs(model)} - names or [
            o.name for o in simple.graph.output
        ] != [o.name for o in model.graph.output]:
            return model
        return simple
    except Exception:
        return model


@contextlib.contextmanager
def _silence():
    """onnxsim writes to the C-level stdout; a tool with --json must not."""
    with contextlib.redirect_stdout(io.StringIO()), open(os.devnull, "w") as null:
        saved = os.dup(1), os.dup(2)
        try:
            os.dup2(null.fileno(), 1)
            os.dup2(null.fileno(), 2)
            yield
        finally:
            os.dup2(saved[0], 1)
            os.dup2(saved[1], 2)
            os.close(saved[0])
            os.close(saved[1])


def translate(model: ModelProto, path: Path, name: str) -> Graph:
    """A model in memory, with every input shape known, as a Graph; `path` is only where messages
    point."""
    b = Builder(name)
    problems: list[str] = []
    inputs = [i.name for i in model_inputs(model)]
    for info in model_inputs(model):
        _input(b, info, path)
    for t in model.graph.initializer:
        _initializer(b, t, path)
    opset = opset_of(model)
    b.reserve(o for node in model.graph.node for o in node.output)
    broken: set[str] = set()
    missing: set[str] = set()  # optional results (the mask of a Dropout) that are not computed
    for node in model.graph.node:
        if any(i in broken for i in node.input):  # its shapes are unknown; report the cause only
            broken |= set(node.output)
            _unknown_op(node, problems)
            continue
        try:
            absent = sorted(missing & set(node.input))
            if absent:
                raise Unsupported(
                    f"it reads {absent[0]!r}, an optional output that is not computed"
                )
            missing |= _node(b, node, opset)
        except Unsupported as e:
            broken |= set(node.output)
            problems.append(
                f"  {node.op_type} {node.name or node.output[0]!r}: {e.reason}; {e.todo}"
            )
    problems += [
        f"  output {o.name!r}: an optional output of its node that is not computed"
        for o in model.graph.output
        if o.name in missing
    ]
    if problems:
        listing = "\n".join(dict.fromkeys(problems))
        raise CodegenError(
            str(path),
            f"{len(problems)} unsupported node(s):\n{listing}",
            "`codegen ops` lists what is supported",
            "change the nodes above",
        )
    return b.graph(inputs, [o.name for o in model.graph.output])


def _input(b: Builder, info: ValueInfoProto, path: Path) -> None:
    tensor = info.type.tensor_type
    try:
        dtype = DType.from_onnx(tensor.elem_type)
    except KeyError:
        raise CodegenError(
            str(path),
            f"input {info.name!r} has element type {tensor.elem_type}",
            "numeric tensors and bool",
            "export the model with numeric inputs",
        ) from None
    b.input(Tensor(info.name, tuple(d.dim_value for d in tensor.shape.dim), dtype))


def _initializer(b: Builder, t: onnx.TensorProto, path: Path) -> None:
    try:
        b._store(t.name, numpy_helper.to_array(t))
    except (Unsupported, ValueError, TypeError) as e:
        raise CodegenError(
            str(path),
            f"initializer {t.name!r} cannot be read ({e})",
            "dense numeric tensors",
            "export the model again",
        ) from None


def _unknown_op(node: NodeProto, problems: list[str]) -> bool:
    if node.domain in ("", "ai.onnx") and node.op_type in OPS:
        return False
    domain = f"{node.domain}." if node.domain else ""
    problems.append(
        f"  {domain}{node.op_type} {node.name or node.output[0]!r}: no such operator here; "
        "replace it by supported operators before export"
    )
    return True


def _node(b: Builder, node: NodeProto, opset: int) -> set[str]:
    """Append one node; returns those of its outputs that nothing computes."""
    if node.domain not in ("", "ai.onnx") or node.op_type not in OPS:
        raise Unsupported(
            "no such operator here", "replace it by supported operators before export"
        )
    attrs = {a.name: _attribute(a) for a in node.attribute}
    outputs = list(node.output)
    b.add(node.op_type, node.input, attrs, node.name or node.output[0], outputs, opset)
    return {o for o in outputs if o and b.resolve(o) not in b.tensors}


def _attribute(a: AttributeProto) -> Any:
    if a.type == AttributeProto.STRING:
        return a.s.decode()
    if a.type == AttributeProto.TENSOR:
        return numpy_helper.to_array(a.t)
    if a.type in (AttributeProto.FLOAT, AttributeProto.INT):
        return onnx.helper.get_attribute_value(a)
    if a.type in (AttributeProto.FLOATS, AttributeProto.INTS):
        return tuple(onnx.helper.get_attribute_value(a))
    if a.type == AttributeProto.STRINGS:
        return tuple(s.decode() for s in a.strings)
    raise Unsupported(f"attribute {a.name!r} of type {AttributeProto.AttributeType.Name(a.type)}")
