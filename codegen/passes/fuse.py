"""Additions and activations move into the store of the kernel before them."""

from dataclasses import replace

from codegen.graph import Activation, Graph, Node
from codegen.ops import OPS
from codegen.ops.elementwise import args_of
from codegen.passes.cleanup import drop_dead
from codegen.passes.edit import Edit, per_channel
from codegen.types import DType

# Unary operators that have a vector form in runtime_c/cg_neon.h, so that every kernel can apply
# them in its store.
FUSABLE = (
    "Relu",
    "Clip",
    "Sigmoid",
    "Silu",
    "HardSigmoid",
    "HardSwish",
    "LeakyRelu",
    "Elu",
    "Tanh",
)


def fuse_residual(graph: Graph) -> Graph:
    """Add(conv(x), r) -> conv with residual r. Of two candidates the later one takes the sum."""
    edit = Edit(graph)
    for name in [n.name for n in graph.nodes if n.op == "Add2"]:
        add = next(n for n in edit.nodes if n.name == name)
        a, b = add.inputs
        if edit.tensors[a].shape != edit.tensors[b].shape or add.activation:
            continue
        makers = [
            (m, t, o)
            for t, o in ((a, b), (b, a))
            if (m := edit.producer(t)) is not None
            and _takes(m, "residual")
            and not m.residual
            and not m.activation
            and edit.only_user(t)
            and a != b
            and o not in edit.constants
        ]
        if not makers:
            continue
        maker, _, other = max(makers, key=lambda m: edit.nodes.index(m[0]))
        edit.replace(add, replace(maker, outputs=add.outputs, residual=other))
        edit.remove(maker)
    return drop_dead(edit.graph())


def _takes(node: Node, what: str) -> bool:
    return what in OPS[node.op].fuses


def fuse_activation(graph: Graph) -> Graph:
    """act(op(x)) -> op with an epilogue, for activations that every kernel of the operator can
    apply."""
    edit = Edit(graph)
    for name in [n.name for n in graph.nodes if n.op in FUSABLE or n.op == "PRelu2"]:
        node = next(n for n in edit.nodes if n.name == name)
        x = node.inputs[0]
        maker = edit.producer(x)
        if (
            maker is None
            or not _takes(maker, "activation")
            or maker.activation
            or not edit.only_user(x)
        ):
            continue
        if edit.tensors[x].dtype != DType.F32:
            continue
        activation = _activation(edit, node, maker)
        if activation:
            edit.replace(maker, replace(maker, outputs=node.outputs, activation=activation))
            edit.remove(node)
    return drop_dead(edit.graph())


def _activation(edit: Edit, node: Node, maker: Node) -> Activation | None:
    if node.op != "PRelu2":
        return Activation(node.op, args_of(OPS[node.op], node.attrs))
    slope = per_channel(edit.constants, node.inputs[1], edit.tensors[node.inputs[0]].shape)
    if slope is None or not _takes(maker, "residual"):
        return None
    return Activation("PRelu2", (), edit.constant(f"{node.name}/slope", slope))
