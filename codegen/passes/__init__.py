"""Graph -> Graph, each pass a pure function that leaves the outputs as they were (to rounding)."""

from collections.abc import Callable

from codegen.graph import Graph
from codegen.passes.affine import fold_affine
from codegen.passes.cleanup import drop_dead, drop_moves, merge_equal
from codegen.passes.fuse import fuse_activation, fuse_residual
from codegen.passes.integers import integer_products
from codegen.passes.pads import fold_pads
from codegen.passes.patterns import recognise_activations
from codegen.passes.points import dense_points
from codegen.passes.shuffle import recognise_shuffles
from codegen.passes.sparse import mark_sparse

PASSES: tuple[Callable[[Graph], Graph], ...] = (
    drop_dead,
    integer_products,
    merge_equal,
    drop_moves,
    recognise_activations,
    recognise_shuffles,
    fold_pads,
    fold_affine,
    fuse_residual,
    fuse_activation,
    dense_points,
    drop_moves,
    drop_dead,
    mark_sparse,
)


def optimise(graph: Graph) -> Graph:
    """All passes, in order."""
    for run in PASSES:
        graph = run(graph)
    return graph
