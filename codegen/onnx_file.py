"""ONNX files: read, checked, with external data inlined and every dimension known."""

import heapq
import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
import onnx
import onnx.inliner
from google.protobuf.message import DecodeError
from onnx import AttributeProto, ModelProto, NodeProto, ValueInfoProto, numpy_helper

from codegen.errors import CodegenError
from codegen.types import DType

MIN_OPSET = 7
_NO_RANK = "of unknown rank"


def read_model(path: Path) -> ModelProto:
    """Parse and check a model with its external data inlined; CodegenError where it is broken."""
    where = str(path)
    if not path.is_file():
        raise CodegenError(where, "no such file", "an ONNX model is needed", "check the path")
    try:
        # as a protobuf whatever its extension, from which onnx would guess JSON or text
        model = onnx.load(path, format="protobuf", load_external_data=False)
    except (DecodeError, ValueError, RuntimeError) as e:
        raise CodegenError(
            where,
            f"not an ONNX model ({e})",
            "an ONNX protobuf is needed",
            "export or download it again; the file may be truncated",
        ) from None
    if not model.HasField("graph") or not model.opset_import:
        raise CodegenError(
            where,
            "not an ONNX model (no graph or no opset)",
            "an ONNX protobuf is needed",
            "export or download it again",
        )
    _check_opset(model, where)
    _load_external(model, path)
    _check_wiring(model, where)
    _check_rules(model, where)
    return _inlined(model, where) if model.functions else model


def _check_rules(model: ModelProto, where: str) -> None:
    """What onnx.checker asks for, but that inputs and outputs have a shape: it can be pinned or
    inferred."""
    tensors = [i.type.tensor_type for i in (*model.graph.input, *model.graph.output)
               if i.type.HasField("tensor_type")]  # fmt: skip
    bare = [t for t in tensors if not t.HasField("shape")]
    for tensor in bare:
        tensor.shape.SetInParent()
    try:
        onnx.checker.check_model(model, full_check=False)
    except (onnx.checker.ValidationError, ValueError, RuntimeError) as e:
        # models over 2 GB cannot be serialised for the checker; everything else is a broken model
        if "exceeds" not in str(e) and "too large" not in str(e).lower():
            raise CodegenError(
                where,
                f"the ONNX checker rejects it ({first_line(e)})",
                "a valid model is needed",
                "export it again with a current exporter",
            ) from None
    for tensor in bare:
        tensor.ClearField("shape")


def _inlined(model: ModelProto, where: str) -> ModelProto:
    """The model with its functions expanded, in topological order again."""
    try:
        return onnx.inliner.inline_local_functions(model)
    except RuntimeError as e:
        raise CodegenError(
            where,
            f"its functions cannot be inlined ({first_line(e)})",
            "functions may not call themselves",
            "export the model without functions",
        ) from None


def first_line(e: Exception) -> str:
    """The first line of a message, which onnx follows up with a dump of the node."""
    return str(e).strip().partition("\n")[0]


def _check_opset(model: ModelProto, where: str) -> None:
    opset = opset_of(model)
    newest = onnx.defs.onnx_opset_version()
    if not MIN_OPSET <= opset <= newest:
        raise CodegenError(
            where,
            f"opset {opset}",
            f"opsets {MIN_OPSET} to {newest} are read",
            "convert it with onnx.version_converter",
        )


def opset_of(model: ModelProto) -> int:
    """Version of the default operator set that the model uses."""
    return max(
        (o.version for o in model.opset_import if o.domain in ("", "ai.onnx")), default=MIN_OPSET
    )


def _load_external(model: ModelProto, path: Path) -> None:
    """Inline external tensors; each must lie inside the model's folder."""
    folder = path.resolve().parent
    external = [t for t in _all_tensors(model) if t.data_location == onnx.TensorProto.EXTERNAL]
    for tensor in external:
        location = {e.key: e.value for e in tensor.external_data}.get("location", "")
        target = (folder / location).resolve()
        if not location or not target.is_relative_to(folder):
            raise CodegenError(
                str(path),
                f"external data of {tensor.name!r} at {location!r} is outside the folder",
                "external data must lie beside the model",
                "move the data file and fix its location",
            )
        if not target.is_file():
            raise CodegenError(
                str(path),
                f"external data file {location!r} of {tensor.name!r} is missing",
                "it must lie beside the model",
                "copy it there",
            )
    if not external:
        return
    try:
        onnx.load_external_data_for_model(model, str(folder))
    except Exception as e:  # onnx raises several unrelated types here, all about the data file
        raise CodegenError(
            str(path),
            f"external data cannot be read ({e})",
            "offset and length must fit the file",
            "export the model again",
        ) from None
    for tensor in external:
        expected = _bytes_of(tensor)
        if expected is not None and len(tensor.raw_data) != expected:
            raise CodegenError(
                str(path),
                f"external data of {tensor.name!r} has {len(tensor.raw_data)} bytes",
                f"{expected} are needed",
                "export the model again; the data file may be truncated",
            )


def _bytes_of(tensor: onnx.TensorProto) -> int | None:
    """Bytes of a tensor by its shape; None for types that are refused later anyway."""
    try:
        return math.prod(tensor.dims) * DType.from_onnx(tensor.data_type).size
    except KeyError:
        return None


def _all_tensors(model: ModelProto):
    yield from model.graph.initializer
    for node in model.graph.node:
        for attr in node.attribute:
            if attr.type == AttributeProto.TENSOR:
                yield attr.t


def _check_wiring(model: ModelProto, where: str) -> None:
    """Every input of every node exists before it; distinguishes a cycle from a missing tensor."""
    known = {t.name for t in model.graph.initializer} | {i.name for i in model.graph.input} | {""}
    known |= {s.values.name for s in model.graph.sparse_initializer}
    nodes = list(model.graph.node)
    ordered, waiting = _sorted(nodes, known)
    made = {o for n in nodes for o in n.output}
    for node in waiting:
        for i in node.input:
            if i not in known and i not in made:
                raise CodegenError(
                    where,
                    f"node {node.name or node.op_type!r} reads {i!r}, which nothing defines",
                    "each input must be a graph input, an initializer or another node's output",
                    "export the model again; an initializer may be missing",
                )
    if waiting:
        names = ", ".join(repr(n.name or n.op_type) for n in waiting[:4])
        raise CodegenError(
            where, f"the nodes {names} form a cycle", "a network must be acyclic", "export it again"
        )
    if any(a is not b for a, b in zip(ordered, nodes, strict=True)):
        del model.graph.node[:]
        model.graph.node.extend(ordered)
    known |= made
    for out in model.graph.output:
        if out.name not in known:
            raise CodegenError(
                where,
                f"output {out.name!r} is never computed",
                "each output needs a producer",
                "export the model again",
            )


def _sorted(nodes: Sequence[NodeProto], known: set[str]) -> tuple[list[NodeProto], list[NodeProto]]:
    """The nodes in an order in which each finds its inputs, in the given one where that will do;
    and those for which there is none."""
    known, ordered = set(known), []
    readers: dict[str, list[int]] = {}
    lacks = []
    for i, node in enumerate(nodes):
        needed = {t for t in node.input if t not in known}
        lacks.append(needed)
        for t in needed:
            readers.setdefault(t, []).append(i)
    ready = [i for i, needed in enumerate(lacks) if not needed]
    while ready:
        i = heapq.heappop(ready)
        ordered.append(nodes[i])
        for t in set(nodes[i].output) - known:
            known.add(t)
            for j in readers.get(t, ()):
                lacks[j].discard(t)
                if not lacks[j]:
                    heapq.heappush(ready, j)
    return ordered, [n for n, needed in zip(nodes, lacks, strict=True) if needed]


def model_inputs(model: ModelProto) -> list[ValueInfoProto]:
    """Graph inputs that are not initialisers listed as inputs."""
    constants = {t.name for t in model.graph.initializer}
    return [i for i in model.graph.input if i.name not in constants]


def pin_shapes(model: ModelProto, path: Path, shapes: Mapping[str, Sequence[int]]) -> ModelProto:
    """Write `shapes` into the model's inputs; every dimension must then be known."""
    inputs = model_inputs(model)
    known = [i.name for i in inputs]
    for name in shapes:
        if name not in known:
            raise CodegenError(
                "--shape",
                f"input {name!r} is not in {path.name}",
                f"inputs: {', '.join(known)}",
                "name one of them",
            )
    open_dims = []
    for info in inputs:
        if not info.type.HasField("tensor_type"):
            raise CodegenError(
                str(path),
                f"input {info.name!r} is not a tensor",
                "inputs must be dense tensors",
                "export the model without sequences or maps",
            )
        dims = info.type.tensor_type.shape.dim
        wanted = shapes.get(info.name)
        if wanted is not None:
            _pin(info, wanted, path)
        elif not info.type.tensor_type.HasField("shape") or any(d.dim_value <= 0 for d in dims):
            open_dims.append((info.name, _shape_text(dims) or _NO_RANK))
    if open_dims:
        what = ", ".join(f"{n} is {t}" for n, t in open_dims)
        hint = " ".join(f"--shape {n}={_suggest(t)}" for n, t in open_dims)
        raise CodegenError(
            str(path),
            f"dynamic input shape left open: {what}",
            "every dimension must be fixed",
            f"give e.g. {hint}",
        )
    if shapes:
        _forget_shapes(model)
    return model


def _shape_text(dims) -> str:
    """E.g. Nx3x?x224; "x" in the name of a dimension would look like two."""
    return "x".join(str(d.dim_value or d.dim_param.replace("x", "_") or "?") for d in dims)


def _suggest(text: str) -> str:
    return (
        "1x3x224x224"
        if text == _NO_RANK
        else "x".join(d if d.isdigit() else "1" for d in text.split("x"))
    )


def _pin(info: ValueInfoProto, wanted: Sequence[int], path: Path) -> None:
    tensor = info.type.tensor_type
    have = tensor.shape.dim
    clash = (
        min(wanted, default=1) < 1
        or tensor.HasField("shape")
        and (
            len(have) != len(wanted)
            or any(
                d.dim_value > 0 and d.dim_value != w
                for d, w in list(zip(have, wanted, strict=False))[1:]
            )
        )
    )
    if clash:
        text = _shape_text(have)
        raise CodegenError(
            "--shape",
            f"{info.name}={'x'.join(map(str, wanted))} does not fit {text} in {path.name}",
            "only open dimensions and the batch can be set",
            "change the value",
        )
    del tensor.shape.dim[:]
    for extent in wanted:
        tensor.shape.dim.add().dim_value = extent


def _forget_shapes(model: ModelProto) -> None:
    """Shapes recorded for another batch or size would contradict the pinned ones."""
    del model.graph.value_info[:]
    for out in model.graph.output:
        if out.type.HasField("tensor_type"):
            out.type.tensor_type.ClearField("shape")


def with_inputs(model: ModelProto, given: Mapping[str, DType]) -> None:
    """Make intermediate tensors of these types inputs of `model`, without what only computed
    them."""
    for node in model.graph.node:
        for i, name in enumerate(node.output):
            if name in given:
                node.output[i] = f"{name}/computed"
                kind = onnx.helper.np_dtype_to_tensor_dtype(np.dtype(given[name].numpy))
                model.graph.input.append(onnx.helper.make_tensor_value_info(name, kind, None))
    needed = {o.name for o in model.graph.output}
    kept = []
    for node in reversed(model.graph.node):
        if needed.intersection(node.output):
            kept.append(node)
            needed.update(reads_of(node))
    del model.graph.node[:]
    model.graph.node.extend(reversed(kept))


def reads_of(node: NodeProto) -> Iterator[str]:
    """What a node reads, in its subgraphs, too."""
    yield from node.input
    for attr in node.attribute:
        for graph in (attr.g, *attr.graphs):
            yield from (o.name for o in graph.output)
            for inner in graph.node:
                yield from reads_of(inner)


def with_outputs(model: ModelProto, names: Sequence[str]) -> tuple[str, ...]:
    """Make intermediate tensors outputs of `model`; returns those that it has."""
    made = {o for n in model.graph.node for o in n.output}
    have = {o.name for o in model.graph.output}
    extra = tuple(t for t in dict.fromkeys(names) if t in made and t not in have)
    model.graph.output.extend(onnx.helper.make_empty_tensor_value_info(t) for t in extra)
    return extra


def made_tensors(path: Path) -> tuple[str, ...]:
    """Names of all that the nodes of a model compute, in order."""
    return tuple(dict.fromkeys(o for n in read_model(path).graph.node for o in n.output if o))


def read_tensor(path: Path) -> np.ndarray:
    """A TensorProto file; CodegenError where it is not one."""
    try:
        return numpy_helper.to_array(onnx.load_tensor(path))
    except Exception as e:  # protobuf and numpy_helper raise unrelated types for a broken file
        raise CodegenError(
            str(path), f"not an ONNX tensor ({e})", "a TensorProto", "write it again"
        ) from None


def standard_operators() -> set[str]:
    """Names of all operators of the ONNX standard."""
    return {s.name for s in onnx.defs.get_all_schemas_with_history() if s.domain == ""}
