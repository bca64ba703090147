"""Build a Graph node by node: constant parameters become attributes, composites expand,
constants fold.

The importer and the passes that create nodes both go through here, so a node exists in one
canonical form only.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from codegen.graph import Graph, Node, Tensor
from codegen.ops import OPS
from codegen.ops.base import REQUIRED, OpDef, Unsupported
from codegen.types import DType

# A constant expression may not unfold into more than this (a 1 GB ConstantOfShape is a mistake, not
# a weight).
MAX_FOLDED_BYTES = 512 << 20


class Builder:
    """The one mutable thing in the front end; `graph()` freezes it."""

    def __init__(self, name: str):
        self.name = name
        self.tensors: dict[str, Tensor] = {}
        self.constants: dict[str, np.ndarray] = {}
        self.nodes: list[Node] = []
        self.aliases: dict[str, str] = {}
        self._node_names: set[str] = set()
        self._reserved: set[str] = set()

    def reserve(self, names: Iterable[str]) -> None:
        """Names that later nodes will define, so that no intermediate tensor takes them."""
        self._reserved |= set(names)

    def input(self, tensor: Tensor) -> None:
        self.tensors[tensor.name] = tensor

    def constant(self, name: str, value: np.ndarray) -> str:
        """Register a constant under a name of its own; returns that name."""
        name = self.unique(name)
        self._store(name, value)
        return name

    def unique(self, name: str) -> str:
        """`name`, or `name_2`... where a tensor of that name exists."""
        out, i = name, 1
        while out in self.tensors or out in self.aliases or out in self._reserved:
            i += 1
            out = f"{name}_{i}"
        return out

    def alias(self, source: str, name: str) -> None:
        """`name` is another name of tensor `source` (Identity, Dropout)."""
        self.aliases[name] = self.resolve(source)

    def resolve(self, name: str) -> str:
        return self.aliases.get(name, name)

    def add(
        self,
        op_name: str,
        inputs: Sequence[str],
        attrs: Mapping[str, Any],
        name: str,
        outputs: Sequence[str] | None = None,
        opset: int = 1 << 30,
    ) -> tuple[str, ...]:
        """Append one operator (expanded and folded as needed); returns the names of its outputs.

        Raises Unsupported where the attributes, shapes or types are not covered.
        """
        op = OPS[op_name]
        names = [self.resolve(t) if t else "" for t in inputs]
        names, values = self._parameters(op, names, attrs)
        ins = [self.tensors[t] if t else None for t in names]
        if op.normalise:
            values = {**values, **op.normalise(values, ins, opset)}
        if op.fold:
            outputs = self._outputs(outputs, name, 1)
            self._store(outputs[0], op.fold(values, ins))
            return tuple(outputs)
        inferred = op.infer(values, ins)
        outputs = self._outputs(outputs, name, len(inferred))
        node = Node(self._node_name(name, op), op_name, tuple(names), tuple(outputs), values)
        if op.expand:
            self.reserve(outputs)
            op.expand(self, node)
            return tuple(self.resolve(t) for t in outputs)
        outputs = outputs[: len(inferred)]  # e.g. the mask of a Dropout is never computed
        node = replace(node, outputs=tuple(outputs))
        constant = names and all(t in self.constants for t in names if t)
        if constant and op.reference and op.folds:
            self._fold(op, node)
            return tuple(outputs)
        if all(0 in shape for shape, _ in inferred):  # nothing to compute
            for out, (shape, dtype) in zip(outputs, inferred, strict=False):
                self._store(out, np.zeros(shape, dtype.numpy))
            return tuple(outputs)
        for out, (shape, dtype) in zip(outputs, inferred, strict=False):
            if out:
                self.tensors[out] = Tensor(out, tuple(int(e) for e in shape), dtype)
        self._node_names.add(node.name)
        self.nodes.append(node)
        return tuple(outputs)

    def graph(self, inputs: Sequence[str], outputs: Sequence[str]) -> Graph:
        """The finished graph. An output that is a constant, an input, or another output's tensor
        gets a Copy node."""
        taken: set[str] = set()
        finals = []
        for name in outputs:
            if name in self.constants:
                self._set_aside(name)
            source = self.resolve(name)
            if source in self.constants or source in inputs or source in taken:
                source = self._copy(source, name)
            elif source != name and name not in self.tensors:
                self._rename(source, name)
                source = name
            taken.add(source)
            finals.append(source)
        return Graph(
            self.name,
            tuple(inputs),
            tuple(finals),
            tuple(self.nodes),
            dict(self.tensors),
            dict(self.constants),
        )

    def _set_aside(self, name: str) -> None:
        """A constant that is an output gives its name to the copy that the output becomes."""
        value = self.constants.pop(name)
        del self.tensors[name]
        kept = self.unique(f"{name}/value")
        self._store(kept, value)
        self.aliases = {k: kept if v == name else v for k, v in self.aliases.items()}
        self.aliases[name] = kept
        self.nodes = [_reading(n, name, kept) for n in self.nodes]

    def _copy(self, source: str, name: str) -> str:
        out = name if name not in self.tensors else self.unique(f"{name}/copy")
        self.aliases.pop(out, None)
        t = self.tensors[source]
        self.tensors[out] = Tensor(out, t.shape, t.dtype)
        self.nodes.append(
            Node(self._node_name(f"{out}/copy", OPS["Copy"]), "Copy", (source,), (out,))
        )
        return out

    def _rename(self, old: str, new: str) -> None:
        """A network output keeps the name the user gave it, also when an Identity stood before
        it."""
        self.aliases.pop(new, None)
        self.aliases = {k: new if v == old else v for k, v in self.aliases.items()}
        self.aliases[old] = new
        self.nodes = [_reading(n, old, new) for n in self.nodes]
        t = self.tensors.pop(old)
        self.tensors[new] = Tensor(new, t.shape, t.dtype)

    def _parameters(
        self, op: OpDef, names: list[str], attrs: Mapping[str, Any]
    ) -> tuple[list[str], dict[str, Any]]:
        unknown = set(attrs) - set(op.attrs) - set(op.ignored)
        if unknown:
            raise Unsupported(f"attribute {sorted(unknown)[0]!r} of {op.name} is not supported")
        values = {k: attrs.get(k, d) for k, d in op.attrs.items()}
        for index, attr in op.const_inputs.items():
            if index < len(names) and names[index]:
                if names[index] not in self.constants:
                    raise Unsupported(
                        f"input {index} ({attr}) of {op.name} is computed at run time",
                        "make it a constant: simplify the model, or pin dimensions with --shape",
                    )
                values[attr] = tuple(self.constants[names[index]].reshape(-1).tolist())
        names = [t for i, t in enumerate(names) if i not in op.const_inputs]
        while names and not names[-1]:
            names.pop()
        for key, value in values.items():
            if value is REQUIRED:
                raise Unsupported(f"attribute or input {key!r} of {op.name} is missing")
        return names, values

    def _outputs(self, outputs: Sequence[str] | None, name: str, count: int) -> list[str]:
        if outputs is None:
            return [self.unique(name if count == 1 else f"{name}/{i}") for i in range(count)]
        return list(outputs)

    def _node_name(self, name: str, op: OpDef) -> str:
        base = name or op.name.lower()
        out, i = base, 1
        while out in self._node_names:
            i += 1
            out = f"{base}_{i}"
        return out

    def _fold(self, op: OpDef, node: Node) -> None:
        """Evaluate in float64, store in the type of the result."""
        ins = [self.tensors[t] if t else None for t in node.inputs]
        inferred = op.infer(node.attrs, ins)
        if sum(int(np.prod(s, dtype=np.int64)) * d.size for s, d in inferred) > MAX_FOLDED_BYTES:
            raise Unsupported(f"constant expression of more than {MAX_FOLDED_BYTES} bytes")
        arrays = [self.constants[t] if t else None for t in node.inputs]
        wide = [
            a.astype(np.float64) if a is not None and a.dtype.kind == "f" else a for a in arrays
        ]
        result = op.reference(node.attrs, *wide)
        results = result if isinstance(result, tuple) else (result,)
        for name, value, (shape, dtype) in zip(node.outputs, results, inferred, strict=False):
            if name:
                self._store(name, np.asarray(value).astype(dtype.numpy).reshape(shape))

    def _store(self, name: str, value: np.ndarray) -> None:
        value = np.asarray(value, order="C")
        try:
            dtype = DType.of(value.dtype)
        except KeyError:
            raise Unsupported(f"constant {name!r} has element type {value.dtype}") from None
        self.constants[name] = value
        self.tensors[name] = Tensor(name, tuple(value.shape), dtype)


def _reading(node: Node, old: str, new: str) -> Node:
    """The node with a tensor under its new name."""
    inputs, outputs = (
        tuple(new if t == old else t for t in names) for names in (node.inputs, node.outputs)
    )
    return replace(node, inputs=inputs, outputs=outputs)
