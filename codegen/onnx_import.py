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
from codegen.onnx_file import first_line, model_inputs, opset_of, pin_shapes, read_model
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
    try:
        return _import(path, shapes or {}, name)
    except UnicodeDecodeError as e:  # raised by protobuf wherever a broken name is looked at
        raise CodegenError(
            str(path), f"a name in it is not UTF-8 ({e})", "an intact ONNX file",
            "export or download it again",
        ) from None  # fmt: skip


def _import(path: Path, shapes: Mapping[str, Sequence[int]], name: str) -> Graph:
    graph = translate(read_simplified(path, shapes), path, name or path.stem)
    if not graph.outputs:
        raise CodegenError(
            str(path), "the model has no outputs", "a network needs one", "export it again"
        )
    return graph


def read_simplified(path: Path, shapes: Mapping[str, Sequence[int]]) -> ModelProto:
    """The model as it is translated, with `shapes`."""
    return _simplify(pin_shapes(read_model(path), path, shapes), path)


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
            broken |= set(filter(None, node.output))
            if not _known(node):
                problems.append(_problem(node, _UNKNOWN))
            continue
        try:
            absent = sorted(missing & set(node.input))
            if absent:
                raise Unsupported(
                    f"it reads {absent[0]!r}, an optional output that is not computed"
                )
            missing |= _node(b, node, opset)
        except Unsupported as e:
            broken |= set(filter(None, node.output))
            problems.append(_problem(node, e))
    problems += [
        f"  output {o.name!r}: an optional output of its node that is not computed"
        for o in model.graph.output
        if o.name in missing
    ]
    if problems:
        listing = "\n".join(problems)
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
            f"input {info.name!r} has element type {_type_name(tensor.elem_type)}",
            "numeric tensors and bool",
            "export the model with numeric inputs",
        ) from None
    b.input(Tensor(info.name, tuple(d.dim_value for d in tensor.shape.dim), dtype))


def _type_name(element: int) -> str:
    return dict(map(reversed, onnx.TensorProto.DataType.items())).get(element, str(element))


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


_UNKNOWN = Unsupported("no such operator here", "replace it by supported operators before export")


def _known(node: NodeProto) -> bool:
    domain = "" if node.domain == "ai.onnx" else node.domain
    return node.op_type in OPS and OPS[node.op_type].domain == domain


def _problem(node: NodeProto, e: Unsupported) -> str:
    """One line of the list of what is not supported."""
    domain = f"{node.domain}." if node.domain else ""
    name = node.name or next(filter(None, node.output), "")
    return f"  {domain}{node.op_type} {name!r}: {e.reason}; {e.todo}"


def _node(b: Builder, node: NodeProto, opset: int) -> set[str]:
    """Append one node; returns those of its outputs that nothing computes."""
    if not _known(node):
        raise _UNKNOWN
    _check_types(b, node, opset)
    outputs = list(node.output)
    try:
        attrs = {a.name: _attribute(a) for a in node.attribute}
        b.add(node.op_type, node.input, attrs, node.name or outputs[0], outputs, opset)
    except Unsupported:
        raise
    except Exception as e:
        wrong = f"{e}" if OPS[node.op_type].domain else _complaint(b, node, opset)
        if not wrong:
            raise  # ONNX sees nothing wrong with the node: this is a bug of ours
        raise Unsupported(f"it is not valid ({wrong})", "export the model again") from e
    return {o for o in outputs if o and b.resolve(o) not in b.tensors}


def _check_types(b: Builder, node: NodeProto, opset: int) -> None:
    """Inputs of one type where ONNX asks for one, which neither its checker nor a kernel would
    notice."""
    if OPS[node.op_type].domain:
        return  # of which ONNX knows nothing
    formal = onnx.defs.get_schema(node.op_type, opset).inputs
    bound: dict[str, tuple[str, DType]] = {}
    for i, name in enumerate(node.input):
        if not name or not formal[min(i, len(formal) - 1)].is_homogeneous:
            continue
        dtype = b.tensors[b.resolve(name)].dtype
        other, wanted = bound.setdefault(formal[min(i, len(formal) - 1)].type_str, (name, dtype))
        if dtype != wanted:
            raise Unsupported(
                f"its inputs {other!r} and {name!r} are {wanted.value} and {dtype.value}",
                "cast one of them, they must have one type",
            )


def _complaint(b: Builder, node: NodeProto, opset: int) -> str:
    """What ONNX says against a node with inputs of these shapes and types; "" for nothing."""
    names = [b.resolve(t) for t in dict.fromkeys(node.input) if t]
    element = onnx.helper.np_dtype_to_tensor_dtype
    made = onnx.helper.make_model(
        onnx.helper.make_graph(
            [node],
            "node",
            [
                onnx.helper.make_tensor_value_info(
                    given, element(b.tensors[t].dtype.numpy), b.tensors[t].shape
                )
                for given, t in zip(filter(None, dict.fromkeys(node.input)), names, strict=True)
            ],
            [onnx.helper.make_empty_tensor_value_info(t) for t in node.output if t],
            [
                numpy_helper.from_array(b.constants[t], given)
                for given, t in zip(filter(None, dict.fromkeys(node.input)), names, strict=True)
                if t in b.constants
            ],
        ),
        opset_imports=[onnx.helper.make_opsetid("", opset)],
    )
    try:
        onnx.shape_inference.infer_shapes(made, check_type=True, strict_mode=True, data_prop=True)
    except Exception as e:  # of several unrelated types, all about the node
        return first_line(e)
    return ""


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
