"""Networks that come quantised: what their Quantize and Dequantize nodes surround becomes integer
arithmetic, where that means the same.

    Dequantize -> Conv or Dense [-> Relu or Clip] -> Quantize    =>   QConv or QDense
    Dequantize -> Add, AveragePool, Sigmoid ... -> Quantize      =>   QAdd ... (integer_forms.py)
    Dequantize -> MaxPool, Concat ... -> Quantize, scales alike  =>   the same of codes

Scales and zero points are the file's. Codes of uint8 inside the network become int8 ones: the same
numbers with another zero point. What stays float32 reads constants that are no longer quantised.
"""

from dataclasses import replace

import numpy as np

from codegen.graph import Activation, Graph, Node
from codegen.interpret import evaluate_node, wide
from codegen.ops.quantised import BITS
from codegen.passes.cleanup import drop_dead
from codegen.passes.edit import Edit
from codegen.passes.integer_forms import FORMS, integer_form
from codegen.passes.quantise import PRODUCTS, product_constants, sums_fit
from codegen.passes.scales import BOUNDS, MOVES, Scale, Span, moved_values
from codegen.types import DType

BORDERS = ("Quantize", "Dequantize")
_SUMS = ("Add", "Add2")
_MOVED = ("Dequantize", "Reshape", "Transpose")  # between a constant and who reads it
_CENTRE = 128  # of the codes of uint8


def integer_products(graph: Graph) -> Graph:
    """The whole of it; a graph without Dequantize nodes is returned as it is."""
    if not any(n.op == "Dequantize" for n in graph.nodes):
        return graph
    edit = Edit(graph)
    _sign(edit)
    _cancel(edit)
    for node in [n for n in edit.nodes if n.op in PRODUCTS]:
        _product(edit, node)
    for node in [n for n in edit.nodes if n.op in FORMS or n.op in MOVES]:
        _form(edit, node)
    _cancel(edit)
    _fold(edit)
    return edit.graph()


def scales_in(graph: Graph) -> dict[str, Scale]:
    """Of a network as it was read, the scale of what stands between its Quantize and Dequantize
    nodes, by tensor: those with one scale, and int8 as `integer_products` has them."""
    edit = Edit(drop_dead(graph))
    found: dict[str, set[Scale | None]] = {}
    _sign(edit)
    for node in edit.nodes:
        if node.op in BORDERS:
            code = node.outputs[0] if node.op == "Quantize" else node.inputs[0]
            found.setdefault(code, set()).add(_scale(edit, node, node.op))
    return {t: at for t, (at, *more) in found.items() if at and not more}


def _sign(edit: Edit) -> None:
    """int8 for uint8 between a Quantize and the Dequantize nodes that read it, perhaps moved."""
    for node in [n for n in edit.nodes if n.op == "Quantize"]:
        codes, ends = [node.outputs[0]], [node]
        for code in codes:
            users = edit.users(code)
            moves = [u for u in users if u.op in MOVES and len(u.reads) == 1]
            codes += [t for u in moves for t in u.outputs if t]
            ends += [u for u in users if u not in moves]
        zeros = [edit.constants.get(n.inputs[-1]) for n in ends]
        if (
            set(codes) & set(edit.source.outputs)
            or any(n.op != "Dequantize" for n in ends[1:])
            or any(zero is None or zero.dtype != np.uint8 for zero in zeros)
        ):
            continue
        for n, zero in zip(ends, zeros, strict=True):
            name = edit.constant(f"{n.inputs[2]}_i8", (zero.astype(int) - _CENTRE).astype(np.int8))
            edit.replace(n, replace(n, inputs=(*n.inputs[:2], name)))
        for code in codes:
            edit.tensors[code] = replace(edit.tensors[code], dtype=DType.I8)


def _scale(edit: Edit, node: Node | None, op: str) -> Scale | None:
    """The scale and zero point of a node between reals and int8, one for the whole tensor; None
    for anything else."""
    if node is None or node.op != op or op not in BORDERS:
        return None
    scale, zero = (edit.constants.get(t) for t in node.inputs[1:])
    if scale is None or zero is None or scale.size * zero.size != 1 or zero.dtype != np.int8:
        return None
    at = Scale(float(scale.reshape(-1)[0]), int(zero.reshape(-1)[0]))
    return at if 0.0 < at.scale < np.inf else None


def _cancel(edit: Edit) -> None:
    """Codes -> reals -> the same codes is nothing."""
    for node in [n for n in edit.nodes if n.op == "Quantize"]:
        before = edit.producer(node.inputs[0])
        at = _scale(edit, node, "Quantize")
        same = at is not None and at == _scale(edit, before, "Dequantize")
        if same and edit.redirect(node.outputs[0], before.inputs[0]):
            edit.remove(node)


def _product(edit: Edit, node: Node) -> None:
    """A convolution or matrix product, with its bias and bounds, between codes."""
    chain, bias = [node], None
    if len(node.inputs) > 2 and node.inputs[2]:
        bias = _real(edit, node.inputs[2])
        if bias is None:
            return
    follower = _only(edit, node)
    if bias is None and node.op == "Dense" and follower and follower.op in _SUMS:
        other = next(t for t in follower.inputs if t != node.outputs[0])
        bias = _real(edit, other)  # a Gemm's, quantised
        if bias is None or bias.shape[-1:] != edit.tensors[node.outputs[0]].shape[-1:]:
            return
        chain.append(follower)
        follower = _only(edit, follower)
    bounds, follower = _bounds(edit, follower, chain)
    before = edit.producer(node.inputs[0])
    x, y = _scale(edit, before, "Dequantize"), _scale(edit, follower, "Quantize")
    weights = _weights(edit, node)
    if x is None or y is None or weights is None or node.residual:
        return
    constants = product_constants(*weights, bias, x, y, bounds)
    if not sums_fit(constants["i8"], constants["bias"], int(node.op == "Dense")):
        return
    names = [edit.constant(f"{node.name}_{k}", v) for k, v in constants.items()]
    made = replace(node, op=PRODUCTS[node.op], inputs=(before.inputs[0], *names),
                   outputs=follower.outputs, attrs={**node.attrs, "bits": BITS})  # fmt: skip
    edit.replace(follower, made)
    for old in chain:
        edit.remove(old)


def _bounds(
    edit: Edit, follower: Node | None, chain: list[Node]
) -> tuple[Span | None, Node | None]:
    """The bounds that a Relu or Clip sets, which joins the chain, and who comes after it."""
    if follower is None or follower.op not in BOUNDS:
        return None, follower
    chain.append(follower)
    bounds = follower.attrs.get("min", 0.0), follower.attrs.get("max", np.inf)
    return bounds, _only(edit, follower)


def _form(edit: Edit, node: Node) -> None:
    """What else there is between codes, or moves them."""
    chain, values = [node], moved_values(node) if node.op in MOVES else node.inputs
    before = [edit.producer(t) for t in values]
    bounds, after = _bounds(edit, _only(edit, node), chain)
    scales = {t: _scale(edit, b, "Dequantize") for t, b in zip(values, before, strict=True)}
    y = _scale(edit, after, "Quantize")
    if y is None or None in scales.values() or node.activation:
        return
    if node.op in MOVES:
        if bounds or set(scales.values()) != {y}:
            return
        made = replace(node, inputs=(*(b.inputs[0] for b in before), *node.inputs[len(values) :]))
    else:
        bounded = replace(node, activation=Activation("Clip", bounds) if bounds else None)
        form = integer_form(edit.source, bounded, {**scales, node.outputs[0]: y})
        if form is None:
            return
        names = [edit.constant(f"{node.name}_{k}", v) for k, v in form.constants.items()]
        made = replace(node, op=form.op, attrs=form.attrs,
                       inputs=(*(b.inputs[0] for b in before), *names))  # fmt: skip
    edit.replace(after, replace(made, outputs=after.outputs))
    for old in chain:
        edit.remove(old)


def _only(edit: Edit, node: Node) -> Node | None:
    """The one node that reads a node's result, if it reads nothing else of it."""
    users = edit.users(node.outputs[0])
    return users[0] if edit.only_user(node.outputs[0]) else None


def _weights(edit: Edit, node: Node) -> tuple[np.ndarray, np.ndarray] | None:
    """Codes of int8 without -128 (two products must fit in 16 bits), and a scale per output; None
    where weights are something else."""
    made = edit.producer(node.inputs[1])
    turned = made is not None and made.op == "Transpose"  # of a Gemm, which has [n][k]
    made = edit.producer(made.inputs[0]) if turned else made
    if made is None or made.op != "Dequantize" or any(t not in edit.constants for t in made.inputs):
        return None
    values, scale, zero = (edit.constants[t] for t in made.inputs)
    channels = int(node.op == "Dense" and not turned)
    if scale.size > 1 and made.attrs["axis"] != channels:
        return None
    offset = zero.astype(np.int64).reshape(-1, *(1,) * (values.ndim - 1 - channels))
    codes = values.astype(np.int64) - (offset if zero.size > 1 else offset.reshape(()))
    if np.abs(codes).max(initial=0) > 127:
        return None
    by = np.broadcast_to(scale.reshape(-1).astype(np.float32), (values.shape[channels],))
    codes = codes.astype(np.int8)
    return (codes.T if turned else codes), by


def _real(edit: Edit, name: str) -> np.ndarray | None:
    """A constant, or one that is dequantised and moved, in float64; else None."""
    if name in edit.constants:
        return wide(edit.constants[name])
    made = edit.producer(name)
    if made is None or made.op not in _MOVED:
        return None
    values = {t: _real(edit, t) for t in made.reads}
    if any(v is None for v in values.values()):
        return None
    evaluate_node(edit.source, made, values)
    return values[name]


def _fold(edit: Edit) -> None:
    """Constants that stay quantised for nobody become reals, and what is computed from them."""
    for node in list(edit.nodes):
        known = node.inputs and all(t in edit.constants for t in node.reads)
        if not known or set(node.outputs) & set(edit.source.outputs):
            continue
        values = {t: wide(edit.constants[t]) for t in node.reads}
        evaluate_node(edit.source, node, values)
        for t in node.outputs:
            edit.constants[t] = values[t].astype(edit.tensors[t].dtype.numpy)
        edit.remove(node)
