"""Networks that come quantised, in float32, so that each of their layers may be computed in either
type.

    Dequantize -> op -> Quantize, or its integers   =>   op within the bounds of the codes

What is left of a Quantize is where its codes end, for quantisers drop a Relu or Clip that begins or
ends there: its bounds join the kernel before it. What is rounded is not rounded any more.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace

import numpy as np

from codegen.graph import Activation, Graph, Node
from codegen.ops import OPS
from codegen.ops.quantised import CODES, HIGH, LOW, TYPES
from codegen.passes.borders import Borders
from codegen.passes.cleanup import drop_dead
from codegen.passes.edit import Edit
from codegen.passes.integer_forms import FORMS
from codegen.passes.integers import BORDERS, scales_in
from codegen.passes.quantise import PRODUCTS
from codegen.passes.scales import BOUNDS, HIGHEST, LOWEST, MOVES, Scale, Span
from codegen.passes.sparse import mark_sparse
from codegen.types import DType

_FLOATS = {coded: real for real, coded in PRODUCTS.items()}
_SOME = np.linspace(-32.0, 32.0, 1025)  # values of which functions are asked


@dataclass(frozen=True)
class Twin:
    """A quantised network in float32: `graph`. `forms` are its nodes as they came, by name, in
    terms of the tensors of `graph` and of the file's `constants`; `scales` are of its tensors."""

    graph: Graph
    forms: Mapping[str, Node]
    constants: Mapping[str, np.ndarray]
    scales: Mapping[str, Scale]

    def quantised(self, names: Collection[str] | None = None) -> Graph:
        """The network with these nodes as they came, default all, and the others in float32."""
        run = _Restoring(self, self.forms if names is None else names)
        for node in self.graph.nodes:
            run.node(node)
        return run.network()


class _Restoring(Borders):
    """What came as integers becomes integers again."""

    def __init__(self, twin: Twin, names: Collection[str]):
        super().__init__(twin.graph, twin.scales, inverse=False)
        self.twin, self.names = twin, names

    def node(self, node: Node) -> None:
        form = self.twin.forms.get(node.name)
        if form is None or not self.asked(form):
            self.real_node(node)
            return
        inputs = tuple(map(self.read, form.inputs))
        outputs = tuple(map(self.coded, form.outputs))
        self.nodes.append(replace(form, inputs=inputs, outputs=outputs))

    def asked(self, form: Node) -> bool:
        """Views follow what they are a view of."""
        if OPS[form.op].view:
            return form.inputs[0] in self.codes
        return form.name in self.names

    def read(self, name: str) -> str:
        value = self.twin.constants.get(name)
        return self.code(name) if value is None else self.edit.constant(name, value)


class _CannotError(Exception):
    pass


def dequantise(imported: Graph, graph: Graph) -> Twin | str:
    """The twin of the network `imported`, which the passes made into `graph`; or why there is
    none."""
    try:
        return _twin(drop_dead(imported), graph)
    except _CannotError as e:
        return str(e)


def is_quantised(graph: Graph) -> bool:
    """Does a network, after the passes, compute with integers as it came?"""
    return any(n.op in _FLOATS for n in graph.nodes)


def _twin(imported: Graph, graph: Graph) -> Twin:
    run = _Loosening(imported, graph)
    for node in graph.nodes:
        run.node(node)
    return run.twin()


class _Loosening:
    """The network in float32 so far: tensors of `graph` that have another name there, those that
    are codes in `graph` with their scales, and the nodes that make them as they came."""

    def __init__(self, imported: Graph, graph: Graph):
        self.graph, self.edit = graph, Edit(graph)
        self.edit.nodes = []
        self.imported = {n.name: n for n in imported.nodes}
        self.users = graph.consumers()
        ports = {*graph.inputs, *graph.outputs}
        self.known = {t: at for t, at in scales_in(imported).items() if t not in ports}
        self.names: dict[str, str] = {}
        self.scales: dict[str, Scale] = {}
        self.forms: dict[str, Node] = {}

    def node(self, node: Node) -> None:
        if node.op in BORDERS:
            self.border(node)
        elif any(self.is_code(t) for t in (*node.reads, *node.outputs)):
            self.form(node)
        else:
            self.edit.nodes.append(self.renamed(node, self.names))

    def is_code(self, name: str) -> bool:
        """Is it a tensor of codes, not a constant?"""
        coded = bool(name) and self.graph.tensors[name].dtype in CODES
        return coded and name not in self.graph.constants

    @staticmethod
    def renamed(node: Node, names: Mapping[str, str]) -> Node:
        """The node, of tensors by other names."""
        inputs, outputs = (tuple(names.get(t, t) for t in ts) for ts in (node.inputs, node.outputs))
        residual = names.get(node.residual, node.residual)
        return replace(node, inputs=inputs, outputs=outputs, residual=residual)

    def border(self, node: Node) -> None:
        """Between codes with one scale and reals nothing stays but bounds; what else is rounded
        to codes (of uint8, of several scales, of the network's inputs) stays rounded."""
        source, made = node.inputs[0], node.outputs[0]
        code = made if node.op == "Quantize" else source
        x = self.names.get(source, source)
        if code not in self.known:
            self.edit.nodes.append(self.renamed(node, self.names))
            return
        self.names[made] = x
        self.scale(x, self.known[code])
        if node.op == "Quantize":
            self.bound_real(source, x, self.known[code])

    def scale(self, name: str, at: Scale) -> None:
        if self.scales.setdefault(name, at) != at:
            raise _CannotError(f"tensor {name!r} is rounded to codes of two scales")

    def bound_real(self, name: str, x: str, at: Scale) -> None:
        """Bounds of codes that are made of a real tensor, for who makes this."""
        i = next((i for i, n in enumerate(self.edit.nodes) if x in n.outputs), None)
        if i is None or name in self.names:
            return  # an input of the network has no Relu; codes of codes have bounds
        alone = len(self.users[name]) == 1 and name not in self.graph.outputs
        self.edit.nodes[i] = self.bounded(self.edit.nodes[i], _span(at), alone)

    def form(self, node: Node) -> None:
        """A node of codes: as it came, and in float32."""
        here = self.renamed(node, self.names)
        values = [t for t in here.inputs if t and t not in self.graph.constants]
        self.learn(node)
        if any(t not in self.scales for t in values) or any(
            t not in self.known for t in node.outputs
        ):
            raise _CannotError(f"node {node.name!r} ({node.op}) has codes without one scale")
        self.forms[node.name] = here
        for t in node.outputs:
            self.edit.tensors[t] = replace(self.edit.tensors[t], dtype=DType.F32)
            self.scale(t, self.known[t])
        if node.op in MOVES:
            if {self.scales[t] for t in (*values, *here.outputs)} != {self.scales[values[0]]}:
                raise _CannotError(f"node {node.name!r} ({node.op}) moves codes of two scales")
            self.edit.nodes.append(here)
            return
        real = self.product(here) if node.op in _FLOATS else self.other(here, values)
        self.edit.nodes.append(self.bounded(real, self.bounds(here)))

    def learn(self, node: Node) -> None:
        """What moves codes makes codes of the same scale."""
        source = self.names.get(node.inputs[0], node.inputs[0])
        if node.op in MOVES and source in self.scales:
            for t in set(node.outputs) - {*self.graph.outputs}:
                self.known.setdefault(t, self.scales[source])

    def product(self, node: Node) -> Node:
        codes, bias, by = (self.graph.constants[t] for t in node.inputs[1:4])
        real = by.astype(np.float64) * self.scales[node.outputs[0]].scale  # of a sum
        channel = real / self.scales[node.inputs[0]].scale
        shape = (1, -1) if node.op == "QDense" else (-1, *(1,) * (codes.ndim - 1))
        names = [
            self.edit.constant(f"{node.name}_weights", codes * channel.reshape(shape)),
            *([self.edit.constant(f"{node.name}_biases", bias * real)] if bias.any() else []),
        ]
        attrs = {k: v for k, v in node.attrs.items() if k not in TYPES}
        return replace(node, op=_FLOATS[node.op], inputs=(node.inputs[0], *names), attrs=attrs)

    def other(self, node: Node, values: list[str]) -> Node:
        """What a sum, mean or function of codes was in the file."""
        asked = self.imported.get(node.name)
        if asked is None or asked.op not in FORMS:
            raise _CannotError(f"node {node.name!r} ({node.op}) is nothing else in float32")
        return replace(node, op=asked.op, inputs=tuple(values), attrs=asked.attrs)

    def bounds(self, node: Node) -> Span:
        """Between what the results of a node of codes lie."""
        at = self.scales[node.outputs[0]]
        if node.op == "QMap":
            return _span(at)
        zeros = self.graph.constants[node.inputs[-2]]
        return _span(at, int(zeros[LOW]), int(zeros[HIGH]))

    def bounded(self, node: Node, span: Span, alone: bool = True) -> Node:
        """The node with bounds on its results, which nobody else must read without. Where its
        kernels have none, those that a Relu may have left must hold without."""
        before = node.activation
        if alone and "activation" in OPS[node.op].fuses and (not before or before.op in BOUNDS):
            low, high = (before.args or (0.0, np.inf)) if before else (-np.inf, np.inf)
            both = max(low, span[0]), min(high, span[1])
            return replace(node, activation=Activation("Clip", both))
        if span[0] == 0.0 and self.may_be_negative(node):
            raise _CannotError(f"node {node.name!r} ({node.op}) has a bound that its kernels lack")
        return node

    def may_be_negative(self, node: Node) -> bool:
        """For all that is known of what it reads."""
        last = node.activation
        op = OPS[last.op if last else node.op]
        if op.family == "unary":
            attrs = dict(zip(op.attrs, last.args, strict=True)) if last else node.attrs
            return bool(np.nanmin(op.reference(attrs, _SOME)) < 0.0)
        if node.op == "SoftmaxAxis":
            return bool(node.attrs["log"])
        values = [t for t in node.inputs if t and t not in self.edit.constants]
        return any(t not in self.scales or _span(self.scales[t])[0] < 0.0 for t in values)

    def twin(self) -> Twin:
        """The whole. Outputs of the network have their names."""
        ends = {self.names[t]: t for t in self.graph.outputs if t in self.names}
        given = {*self.graph.inputs, *self.graph.outputs}
        if given & set(ends) or len(ends) != len(set(self.graph.outputs) & set(self.names)):
            raise _CannotError("two inputs or outputs of the network are the same tensor")
        self.edit.nodes = [self.renamed(n, ends) for n in self.edit.nodes]
        for t, end in ends.items():
            self.edit.tensors[end] = replace(self.edit.tensors[t], name=end)
        graph = mark_sparse(drop_dead(self.edit.graph()))
        forms = {n.name: self.renamed(self.forms[n.name], ends) for n in graph.nodes
                 if n.name in self.forms}  # fmt: skip
        scales = {ends.get(t, t): at for t, at in self.scales.items()}
        return Twin(graph, forms, self.graph.constants, scales)


def _span(at: Scale, low: int = LOWEST, high: int = HIGHEST) -> Span:
    """What codes stand for."""
    return at.scale * (low - at.zero), at.scale * (high - at.zero)
