"""One-node ONNX models from the Cases of an OpDef, and how to run them elsewhere."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper
from onnx.defs import OpSchema
from onnx.reference import ReferenceEvaluator

from codegen.onnx_file import MIN_OPSET
from codegen.ops import OPS
from codegen.ops.base import Case, OpDef
from codegen.types import DType

# What onnxruntime runs; newer versions of an operator are covered by the conformance suite.
NEWEST = 26
_PREFERRED = ("tensor(float)", "tensor(bool)", "tensor(int64)")
_NUMPY = {"tensor(float)": np.float32, "tensor(bool)": np.bool_, "tensor(int64)": np.int64}


@dataclass(frozen=True)
class OneNode:
    """A model of one node at one opset, and values for its inputs."""

    id: str
    model: onnx.ModelProto
    inputs: dict[str, np.ndarray]


def schema_at(name: str, opset: int) -> OpSchema | None:
    try:
        return onnx.defs.get_schema(name, opset)
    except onnx.defs.SchemaError:
        return None


def one_node_models() -> Iterator[OneNode]:
    """Every Case of every ONNX operator, at each opset that changed it and can express the Case."""
    for op in OPS.values():
        versions = {
            s.since_version
            for v in range(MIN_OPSET, NEWEST + 1)
            if (s := schema_at(op.name, v)) and not s.deprecated
        }
        for version in sorted(versions):
            opset = max(version, MIN_OPSET)
            for i, case in enumerate(op.cases):
                built = _build(op, case, opset, f"{op.name}-{opset}-{i}")
                if built:
                    yield built


def _build(op: OpDef, case: Case, opset: int, name: str) -> OneNode | None:
    schema, rng = schema_at(op.name, opset), np.random.default_rng(sum(map(ord, name)))
    formal = [i.name for i in schema.inputs]
    types = {t.type_param_str: t.allowed_type_strs for t in schema.type_constraints}
    arrays: list[np.ndarray | None] = [
        value(spec, rng, types, schema, i) for i, spec in enumerate(case.inputs)
    ]
    attrs = dict(case.attrs)
    if op.name == "Cast":
        attrs["to"] = helper.np_dtype_to_tensor_dtype(DType(attrs["to"]).numpy)
    constants = set(case.constants)
    places = _places(op, opset)
    for key in list(attrs):
        if key in schema.attributes:
            continue
        if key not in places or places[key] >= len(formal):
            return None
        arrays += [None] * (places[key] + 1 - len(arrays))
        arrays[places[key]] = _parameter(
            attrs.pop(key),
            types.get(schema.inputs[places[key]].type_str, ()),
        )
        constants.add(places[key])
    if op.name == "Resize" and opset == 11:  # the one version in which roi and scales are required
        empty = [i for i in (1, 2) if arrays[i] is None]
        arrays = [np.zeros(0, np.float32) if i in empty else a for i, a in enumerate(arrays)]
        constants |= set(empty)
    if any(schema.attributes[a].required and a not in attrs for a in schema.attributes):
        return None
    required = sum(1 for i in schema.inputs if i.option == OpSchema.FormalParameterOption.Single)
    if len(arrays) < required:
        return None
    count = (
        attrs.get("num_outputs")
        or len(case.attrs.get("split", ()))
        or (2 if op.name == "Split" else 1)
    )
    return OneNode(
        name,
        _model(op.name, arrays, attrs, constants, opset, count),
        {f"x{i}": a for i, a in enumerate(arrays) if a is not None and i not in constants},
    )


def _places(op: OpDef, opset: int) -> dict[str, int]:
    """Which input carries a parameter; Resize moved its scales once."""
    if op.name == "Resize" and opset < 11:
        return {"scales": 1}
    return {attr: i for i, attr in op.const_inputs.items()}


def value(spec, rng: np.random.Generator, types, schema: OpSchema, index: int) -> np.ndarray:
    """An input: as given, or random quarters, so that ties and exact halves occur."""
    if isinstance(spec, np.ndarray):
        return spec
    formal = schema.inputs[min(index, len(schema.inputs) - 1)].type_str
    allowed = types.get(formal, (formal,))
    dtype = next(_NUMPY[t] for t in _PREFERRED if t in allowed)
    if dtype is np.bool_:
        return np.asarray(rng.random(spec) < 0.5)
    return np.asarray(np.round(rng.normal(size=spec) * 6) / 4).astype(dtype)


def _parameter(given, allowed) -> np.ndarray:
    scalar = not isinstance(given, tuple)
    whole = all(isinstance(v, int) for v in np.ravel(np.asarray(given, object)))
    integers = "tensor(int64)" in allowed or not allowed
    whole = whole and integers and not (scalar and isinstance(given, float))
    dtype = np.int64 if whole else np.float32
    return np.asarray(given, dtype)


def _model(
    op: str, arrays, attrs, constants: set[int], opset: int, outputs: int
) -> onnx.ModelProto:
    names = [f"x{i}" if a is not None else "" for i, a in enumerate(arrays)]
    outs = [f"y{i}" for i in range(outputs)]
    node = helper.make_node(op, names, outs, "node", **attrs)
    element = helper.np_dtype_to_tensor_dtype
    infos = [
        helper.make_tensor_value_info(f"x{i}", element(a.dtype), a.shape)
        for i, a in enumerate(arrays)
        if a is not None and i not in constants
    ]
    init = [
        numpy_helper.from_array(a, f"x{i}")
        for i, a in enumerate(arrays)
        if a is not None and i in constants
    ]
    results = [helper.make_tensor_value_info(o, TensorProto.UNDEFINED, None) for o in outs]
    graph = helper.make_graph([node], "g", infos, results, init)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)
    return onnx.shape_inference.infer_shapes(model)


def reference_outputs(case: OneNode) -> list[np.ndarray]:
    """onnxruntime, and onnx.reference where it takes less than the standard (some types)."""
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 4
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    try:
        session = ort.InferenceSession(
            case.model.SerializeToString(), options, providers=["CPUExecutionProvider"]
        )
        return session.run(None, case.inputs)
    except Exception:
        return ReferenceEvaluator(case.model).run(None, case.inputs)
