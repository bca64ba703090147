"""Products whose weights are mostly blocks of zeros say so, by the attribute `nonzero`: how many
blocks (codegen/sparsity.py) are not. Others are left as they are."""

from dataclasses import replace

import numpy as np

from codegen.graph import Graph, Node
from codegen.ops.conv import is_pointwise
from codegen.sparsity import count_nonzero, is_sparse
from codegen.types import DType


def mark_sparse(graph: Graph) -> Graph:
    """1x1 convolutions and matrix products with few blocks that are not zeros get `nonzero`."""
    return replace(graph, nodes=tuple(_marked(graph, n) for n in graph.nodes))


def _marked(graph: Graph, node: Node) -> Node:
    w = _matrix(graph, node)
    if w is None or w.dtype != DType.F32.numpy or not is_sparse(w):
        return node
    return replace(node, attrs={**node.attrs, "nonzero": count_nonzero(w)})


def _matrix(graph: Graph, node: Node) -> np.ndarray | None:
    """The weights [k][n] of a product that a kernel for sparse ones can compute."""
    w = graph.constants.get(node.inputs[1]) if node.op in ("Conv", "Dense") else None
    if w is None or node.op == "Dense":
        return w
    return w.reshape(w.shape[:2]).T if is_pointwise(node.attrs) else None
