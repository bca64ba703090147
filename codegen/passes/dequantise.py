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
from codegen.ops.integer import LEAST
from codegen.ops.quantised import CODES, HIGH, LOW, TYPES
from codegen.passes.borders import Borders
from codegen.passes.cleanup import drop_dead
from codegen.passes.edit import Edit
from codegen.passes.integer_forms import FORMS, operands_of
from codegen.passes.integers import BORDERS, scales_in
from codegen.passes.quantise import PRODUCTS
from codegen.passes.scales import BOUNDS, HIGHEST, LOWEST, MOVES, Scale, Span, moved_values
from codegen.passes.sparse import mark_sparse
from codegen.types import DType

_FLOATS = {coded: real for real, coded in PRODUCTS.items()}
_MADE = ("QAdd", "QMul", "QAveragePool", "QMap", "QSoftmax")  # of FORMS, by integer_forms.py
_SAME = "two inputs or outputs of the network are the same tensor"
_SOME = np.linspace(-32.0, 32.0, 1025)  # values of which functions are asked


@dataclass(frozen=True)
class Twin:
    """A quantised network in float32: `graph`. `forms` are its nodes as they came, by name, in
    terms of the tensors of `graph` and of the file's `constants`; those that are `fixed` are no
    others in `graph`, for they are nothing else in float32. `scales` are of its tensors; `ports`
    its inputs and outputs that are codes in the file, and their names there."""

    graph: Graph
    forms: Mapping[str, Node]
    fixed: frozenset[str]
    constants: Mapping[str, np.ndarray]
    scales: Mapping[str, Scale]
    ports: Mapping[str, str]

    def quantised(self, names: Collection[str] | None = None) -> Graph:
        """The network with these nodes as they came, default all, and the others in float32, as
        far as they can be."""
        run = _Restoring(self, self.forms if names is None else names)
        for node in self.graph.nodes:
            run.node(node)
        return run.network()


class _Restoring(Borders):
    """What came as integers becomes integers again."""

    def __init__(self, twin: Twin, names: Collection[str]):
        super().__init__(twin.graph, twin.scales, False, twin.ports)
        self.twin, self.names = twin, {*names, *twin.fixed}

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
        self.known = scales_in(imported)
        self.names: dict[str, str] = {}
        self.scales: dict[str, Scale] = {}
        self.forms: dict[str, Node] = {}
        self.fixed: set[str] = set()
        self.ports: dict[str, str] = {}
        for code in graph.inputs:
            if self.is_code(code) and code in self.known:
                self.scales[self.port(code)] = self.known[code]

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

    def port(self, code: str) -> str:
        """The tensor of reals of an input or output that is codes."""
        real = self.edit.tensor(f"{code}_real", self.graph.tensors[code].shape, DType.F32)
        self.names[code], self.ports[real] = real, code
        return real

    def border(self, node: Node) -> None:
        """Between codes with one scale and reals nothing stays but bounds; what else is rounded
        to codes (of uint8, of several scales, of the network's inputs) stays rounded."""
        source, made = node.inputs[0], node.outputs[0]
        quantizes = node.op == "Quantize"
        code = made if quantizes else source
        if code not in self.known or code in self.graph.constants:
            self.edit.nodes.append(self.renamed(node, self.names))
            return
        x = self.names.get(source, source)
        if quantizes:
            x = self.rounded(node, x, self.known[code])
        if made in self.graph.outputs and quantizes:
            if x in self.ports or x in (*self.graph.inputs, *self.graph.outputs):
                raise _CannotError(_SAME)
            self.ports[x] = made
        self.names[made] = x
        self.scales[x] = self.known[code]

    def rounded(self, node: Node, x: str, at: Scale) -> str:
        """A real tensor, within the bounds of the codes that are made of it."""
        source = node.inputs[0]
        if self.scales.get(x, at) == at and (source in self.graph.inputs or source in self.names):
            return x  # an input has no Relu before it, and codes of codes have bounds
        i = next((i for i, n in enumerate(self.edit.nodes) if x in n.outputs), None)
        alone = len(self.users[source]) == 1 and source not in self.graph.outputs
        if i is not None and x not in self.scales:
            maker = self.edit.nodes[i]
            if alone and may_be_bounded(maker):
                self.edit.nodes[i] = bounded(maker, _span(at))
                return x
            if self.stays_within(maker, _span(at), at.scale):
                return x
        low, high = _span(at)
        y = self.edit.tensor(f"{x}_bounded", self.edit.tensors[x].shape, DType.F32)
        self.edit.nodes.append(Node(f"{node.name}/bounds", "Clip", (x,), (y,),
                                    {"min": low, "max": high}))  # fmt: skip
        return y

    def stays_within(self, node: Node, span: Span, step: float) -> bool:
        """Is the result of a function, of codes, or of what chooses among values or takes their
        mean between these bounds whatever it reads, to a step?"""
        last = node.activation
        values = moved_values(node)
        op = OPS[last.op if last else node.op]
        if op.family == "unary":
            attrs = dict(zip(op.attrs, last.args, strict=True)) if last else node.attrs
            y = op.reference(attrs, _SOME)
        elif node.op == "SoftmaxAxis" and not node.attrs["log"]:
            y = np.array([0.0, 1.0])
        elif node.op == "Dequantize" and self.edit.constants.keys() >= {*node.inputs[1:]}:
            scale, zero = (self.edit.constants[t].astype(np.float64) for t in node.inputs[1:])
            codes = np.iinfo(self.edit.tensors[node.inputs[2]].dtype.numpy)
            y = np.array([scale * (codes.min - zero), scale * (codes.max - zero)])
        elif not last and _is_among(node) and self.scales.keys() >= {*values}:
            y = np.array([_span(self.scales[t]) for t in values])
        else:
            return False
        return bool(span[0] - step <= y.min() and y.max() <= span[1] + step)

    def form(self, node: Node) -> None:
        """A node of codes: as it came, and in float32, if it is anything there."""
        here = self.renamed(node, self.names)
        values = [t for t in here.inputs if t and t not in self.graph.constants]
        self.learn(node)
        if any(t not in self.scales for t in values) or any(
            t not in self.known for t in node.outputs
        ):
            raise _CannotError(f"node {node.name!r} ({node.op}) has codes without one scale")
        for t in node.outputs:
            if t in self.graph.outputs:
                self.scales[self.port(t)] = self.known[t]
                continue
            self.edit.tensors[t] = replace(self.edit.tensors[t], dtype=DType.F32)
            self.scales[t] = self.known[t]
        self.forms[node.name] = here = self.renamed(here, self.names)
        real = self.real(here, values)
        if real is None and OPS[node.op].view:
            raise _CannotError(f"node {node.name!r} ({node.op}) moves codes of two scales")
        if real is None:
            self.fixed.add(node.name)
        self.edit.nodes.append(real or here)

    def learn(self, node: Node) -> None:
        """What moves codes makes codes of the same scale, if nobody says otherwise."""
        source = self.names.get(node.inputs[0], node.inputs[0])
        if node.op in MOVES and source in self.scales:
            for t in node.outputs:
                self.known.setdefault(t, self.scales[source])

    def real(self, node: Node, values: list[str]) -> Node | None:
        """The node in float32; None where it would be another one, not only without rounding."""
        if node.op in MOVES:
            alike = len({self.scales[t] for t in (*values, *node.outputs)}) == 1
            return node if alike and set(moved_values(node)) <= set(values) else None
        at = self.scales[node.outputs[0]]
        if node.op in _FLOATS:
            return bounded(self.product(node), _span(at, *self.ends(node)))
        asked = self.imported.get(node.name)
        if (
            node.op not in _MADE
            or asked is None
            or asked.op not in FORMS
            or len(values) != operands_of(asked.op)
        ):
            return None
        made = replace(node, op=asked.op, inputs=tuple(values), attrs=asked.attrs)
        if may_be_bounded(made):
            return bounded(made, _span(at, *self.ends(node)))
        return made if self.within(node, made, at) else None

    def ends(self, node: Node) -> tuple[int, int]:
        """The least and largest code that a node makes."""
        zeros = self.graph.constants[node.inputs[-2]]
        return int(zeros[LOW]), int(zeros[HIGH])

    def within(self, node: Node, made: Node, at: Scale) -> bool:
        """Does it stay within the bounds of its codes by itself, so that none can be a Relu or
        Clip?"""
        if node.op == "QMap":
            x = self.scales[made.inputs[0]]
            reals = x.scale * (np.arange(LEAST, LEAST + 256, dtype=np.float64) - x.zero)
            with np.errstate(all="ignore"):
                y = OPS[made.op].reference(made.attrs, reals) / at.scale + at.zero
            table = self.graph.constants[node.inputs[1]].astype(np.float64)
            return bool((np.abs(np.nan_to_num(y, nan=1e9) - table) <= 1.0).all())
        whole = self.ends(node) == (LOWEST, HIGHEST)
        return whole and self.stays_within(made, _span(at), at.scale)

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

    def twin(self) -> Twin:
        """The whole. Outputs of the network have their names."""
        outputs = [t for t in self.graph.outputs if t in self.names and not self.is_code(t)]
        ends = {self.names[t]: t for t in outputs}
        given = {*self.graph.inputs, *self.graph.outputs, *self.ports}
        if given & set(ends) or len(ends) != len(outputs):
            raise _CannotError(_SAME)
        port_of = {code: real for real, code in self.ports.items()}
        ins, outs = (
            tuple(port_of.get(t, t) for t in ts) for ts in (self.graph.inputs, self.graph.outputs)
        )
        self.edit.source = replace(self.graph, inputs=ins, outputs=outs)
        self.edit.nodes = [self.renamed(n, ends) for n in self.edit.nodes]
        for t, end in ends.items():
            self.edit.tensors[end] = replace(self.edit.tensors[t], name=end)
        graph = mark_sparse(drop_dead(self.edit.graph()))
        forms = {n.name: self.renamed(self.forms[n.name], ends) for n in graph.nodes
                 if n.name in self.forms}  # fmt: skip
        scales = {ends.get(t, t): at for t, at in self.scales.items()}
        fixed = frozenset(self.fixed & set(forms))
        return Twin(graph, forms, fixed, self.graph.constants, scales, self.ports)


def _is_among(node: Node) -> bool:
    """Do results lie among the values that a node reads?"""
    return node.op in (*MOVES, "AveragePool") or node.attrs.get("fn") in ("mean", "max", "min")


def may_be_bounded(node: Node) -> bool:
    """Have its kernels bounds, and nothing that bounds would come after?"""
    free = node.activation is None or node.activation.op in BOUNDS
    return free and "activation" in OPS[node.op].fuses


def bounded(node: Node, span: Span) -> Node:
    """The node with bounds on its results, besides its own."""
    before = node.activation
    low, high = (before.args or (0.0, np.inf)) if before else (-np.inf, np.inf)
    both = max(low, span[0]), min(high, span[1])
    return replace(node, activation=Activation("Clip", both))


def _span(at: Scale, low: int = LOWEST, high: int = HIGHEST) -> Span:
    """What codes stand for."""
    return at.scale * (low - at.zero), at.scale * (high - at.zero)
