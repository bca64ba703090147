"""A convolution of an image of one pixel is a product of a matrix and a vector."""

from dataclasses import replace

from codegen.graph import Graph, Node
from codegen.passes.edit import Edit


def dense_points(graph: Graph) -> Graph:
    """Conv 1x1 on 1x1 pixels -> Dense, its tensors renamed to matrices: the kernels of Dense stream
    the weights, those of Conv hope to use them for more than one pixel."""
    edit = Edit(graph)
    for node in graph.nodes:
        if node.op == "Conv" and _is_point(edit, node):
            edit.replace(node, *_dense(edit, node))
    return edit.graph()


def _is_point(edit: Edit, node: Node) -> bool:
    shapes = [edit.tensors[t].shape for t in (node.inputs[0], node.outputs[0])]
    weights = edit.constants.get(node.inputs[1])
    return (
        node.attrs["group"] == 1
        and weights is not None
        and {*weights.shape[2:]} == {1}
        and all({*s[2:]} == {1} for s in shapes)
        and not any(node.attrs["pads"])
    )


def _dense(edit: Edit, node: Node) -> list[Node]:
    """Reshapes of x and of the residual, the product, the reshape of its result."""
    out, weights = node.outputs[0], edit.constants[node.inputs[1]]
    nodes: list[Node] = []

    def matrix(tensor: str, name: str) -> str:
        shape = edit.tensors[tensor].shape[:2]
        new = edit.tensor(name, shape, edit.tensors[tensor].dtype)
        nodes.append(_reshape(name, tensor, new, shape))
        return new

    x = matrix(node.inputs[0], f"{node.name}/vector")
    residual = matrix(node.residual, f"{node.name}/residual") if node.residual else ""
    w = edit.constant(f"{node.inputs[1]}/matrix", weights.reshape(weights.shape[:2]).T)
    shape = edit.tensors[out].shape
    y = edit.tensor(f"{node.name}/product", shape[:2], edit.tensors[out].dtype)
    inputs = (x, w, *node.inputs[2:])
    product = replace(node, op="Dense", inputs=inputs, outputs=(y,), attrs={}, residual=residual)
    return [*nodes, product, _reshape(f"{node.name}/image", y, out, shape)]


def _reshape(name: str, source: str, target: str, shape: tuple[int, ...]) -> Node:
    return Node(name, "Reshape", (source,), (target,), {"shape": shape, "allowzero": 1})
