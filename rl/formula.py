"""A price table that nothing was measured for: what the cost formula expects (codegen/cost.py). For
trying searches, and as the prior of what is worth measuring."""

from codegen.board import Board
from codegen.cost import cycles
from codegen.derive import DERIVED
from codegen.graph import Graph, Tensor
from codegen.kernels import Kernel, Layer, candidates
from codegen.layer import layer_of
from codegen.layout import LAYOUTS, same_memory, transposition
from codegen.ops.shape import transpose_dims
from codegen.pricing.trials import Candidate
from codegen.signature import conversion_signature, signature_of
from rl.codes import Codes, networks
from rl.promising import places
from rl.space import layouts_of
from rl.table import Price, Table


def formula_table(graph: Graph, board: Board, codes: Codes | None = None) -> Table:
    """Guessed prices of every candidate of every layer, groups, changes of layout and what may be
    in int8 included. Bytes of flash are those of the constants as the network has them."""
    layers: dict[str, dict[str, Price]] = {}
    for part in networks(graph, codes):
        _add(layers, part, board)
    return Table(board.name, "cycles", "cold", layers)


def _add(layers: dict[str, dict[str, Price]], graph: Graph, board: Board) -> None:
    for whole, node in places(graph):
        found = layers.setdefault(signature_of(whole, node).key, {})
        flash = sum(whole.tensors[t].bytes for t in node.reads if t in whole.constants)
        for come in LAYOUTS if node.op == "Transpose" else ("",):
            for layout in layouts_of(whole, node):
                layer = layer_of(whole, node, layout, come)
                for row in candidates(layer, board):
                    if row.layout in ("any", layout):
                        name = str(Candidate(row.name, layout, come or row.come(layout)))
                        cost = cycles(whole, node, layer, row, board)
                        derived = DERIVED[row.derive](layer.dims, row.params) if row.derive else {}
                        scratch = 4 * derived.get("scratch_floats", 0)
                        found[name] = Price(cost, scratch, flash, guessed=True)
    for tensor in graph.tensors.values():
        if tensor.name not in graph.constants and len(tensor.shape) > 2:
            for come, go in zip(LAYOUTS, LAYOUTS[::-1], strict=True):
                if not same_memory(tensor.shape, come, go):
                    row, price = _conversion(tensor, come, go, board)
                    key = conversion_signature(tensor, come, go).key
                    layers[key] = {str(Candidate(row.name, go, come)): price}


def _conversion(tensor: Tensor, come: str, go: str, board: Board) -> tuple[Kernel, Price]:
    """The transposition that lowering takes: the one with the highest rate."""
    identity = tuple(range(len(tensor.shape)))
    before, after, perm = transposition(tensor.shape, identity, come, go)
    layer = Layer("transpose", transpose_dims({"perm": perm}, [before], [after]),
                  tensor.dtype.value)  # fmt: skip
    row = max(candidates(layer, board), key=lambda r: r.rate(board.core))
    return row, Price(2 * tensor.size / row.rate(board.core), guessed=True)
