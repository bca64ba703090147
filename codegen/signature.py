"""Layer signatures: what a layer is once names and weight values are taken away.

Two layers with one signature cost the same, whatever networks they are from: measurements are kept
by it. It says everything that kernels, packers and templates look at, so that a layer can be built
again from its signature alone, with zeros for weights. Which layout and kernel compute it is the
candidate's business.
"""

import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from codegen.graph import Activation, Graph, Node, Tensor
from codegen.sparsity import typical
from codegen.types import DType

CONVERT = "Convert"  # the operator of a change of layout, which no network has
NETWORK = "Network"  # that of a whole network, measured end to end


@dataclass(frozen=True)
class Signature:
    """`text` is canonical JSON: op, attrs, tensors (shapes in ONNX order after padding was fused,
    element type, constant or not), which of them are inputs, residual and outputs, the fused
    activation, and threads. Equal texts are equal layers."""

    text: str

    @cached_property
    def key(self) -> str:
        """Short name of the layer in the store: 16 hexadecimal digits of SHA-256."""
        return hashlib.sha256(self.text.encode()).hexdigest()[:16]

    @cached_property
    def fields(self) -> Mapping[str, Any]:
        """The parsed text."""
        return json.loads(self.text)

    @property
    def op(self) -> str:
        return self.fields["op"]

    def __str__(self) -> str:
        """For people: `Conv 1x64x56x56 64x64x1x1 Relu`."""
        f = self.fields
        read = dict.fromkeys(i for i in f["inputs"] if i >= 0)
        shapes = ["x".join(map(str, f["tensors"][i]["shape"])) or "scalar" for i in read]
        words = [f["op"], *(shapes[:2] if f["op"] != CONVERT else shapes)]
        if f["op"] == CONVERT:
            words.append(f"{f['attrs']['from']}>{f['attrs']['to']}")
        if f["residual"] >= 0:
            words.append("+residual")
        return " ".join(words + ([f["activation"]["op"]] if f["activation"] else []))


def signature_of(graph: Graph, node: Node) -> Signature:
    """The signature of a node as it is after the passes."""
    slope = node.activation.slope if node.activation else ""
    names = list(dict.fromkeys(t for t in (*node.reads, *node.outputs) if t))
    at = {name: i for i, name in enumerate(names)} | {"": -1}
    fields = {
        "op": node.op,
        "attrs": {k: _plain(v) for k, v in sorted(node.attrs.items())},
        "tensors": [_tensor(graph, n) for n in names],
        "inputs": [at[t] for t in node.inputs],
        "residual": at[node.residual],
        "outputs": [at[t] for t in node.outputs],
        "activation": node.activation and {
            "op": node.activation.op, "args": _plain(node.activation.args), "slope": at[slope],
        },
        "threads": 1,
    }  # fmt: skip
    return Signature(_canonical(fields))


def conversion_signature(tensor: Tensor, come: str, go: str) -> Signature:
    """The signature of a change of layout."""
    shape = {"shape": list(tensor.shape), "dtype": tensor.dtype.value, "constant": False}
    fields = {
        "op": CONVERT, "attrs": {"from": come, "to": go}, "tensors": [shape, shape],
        "inputs": [0], "residual": -1, "outputs": [1], "activation": None, "threads": 1,
    }  # fmt: skip
    return Signature(_canonical(fields))


def graph_of(signature: Signature) -> Graph:
    """A network of this layer alone: node "layer", tensors "t0", "t1" ..., constants of zeros;
    sparse weights with as many blocks that are not."""
    f = signature.fields
    tensors = {
        f"t{i}": Tensor(f"t{i}", tuple(t["shape"]), DType(t["dtype"]))
        for i, t in enumerate(f["tensors"])
    }
    constants = {
        f"t{i}": np.zeros(tensors[f"t{i}"].shape, tensors[f"t{i}"].dtype.numpy)
        for i, t in enumerate(f["tensors"])
        if t["constant"]
    }
    if "nonzero" in f["attrs"]:
        weights = _name(f["inputs"][1])
        constants[weights] = _sparse(tensors[weights].shape, f["op"], f["attrs"]["nonzero"])
    a = f["activation"]
    activation = a and Activation(a["op"], _restored(a["args"]), _name(a["slope"]))
    outputs = tuple(map(_name, f["outputs"]))
    node = Node(
        "layer", f["op"], tuple(map(_name, f["inputs"])), outputs,
        {k: _restored(v) for k, v in f["attrs"].items()}, _name(f["residual"]), activation,
    )  # fmt: skip
    inputs = tuple(t for t in dict.fromkeys(node.reads) if t not in constants)
    return Graph("layer", inputs, tuple(o for o in outputs if o), (node,), tensors, constants)


def _sparse(shape: Sequence[int], op: str, nonzero: int) -> np.ndarray:
    """Weights of a product, [k][n] or [n][k][1][1] of a convolution."""
    if op == "Conv":
        return typical(shape[1], shape[0], nonzero).T.reshape(shape)
    return typical(*shape, nonzero)


def _name(index: int) -> str:
    return f"t{index}" if index >= 0 else ""


def _tensor(graph: Graph, name: str) -> dict[str, Any]:
    t = graph.tensors[name]
    return {"shape": list(t.shape), "dtype": t.dtype.value, "constant": name in graph.constants}


def _canonical(fields: Mapping[str, Any]) -> str:
    return json.dumps(fields, sort_keys=True, separators=(",", ":"), allow_nan=False)


def _plain(value: Any) -> Any:
    """An attribute as JSON; numbers that JSON lacks become {"float": "inf"}."""
    if isinstance(value, float) and not math.isfinite(value):
        return {"float": repr(value)}
    if isinstance(value, Sequence) and not isinstance(value, str):
        return [_plain(v) for v in value]
    return value.item() if isinstance(value, np.generic) else value


def _restored(value: Any) -> Any:
    """The inverse of `_plain`; attributes hold tuples, never lists."""
    if isinstance(value, dict):
        return float(value["float"])
    return tuple(map(_restored, value)) if isinstance(value, list) else value
