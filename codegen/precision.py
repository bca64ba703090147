"""The element type in which a network is computed: float32, float16 where a board and its kernels
can, or int8 where ranges of its tensors are known."""

from collections.abc import Callable, Mapping
from dataclasses import replace

from codegen.board import Board
from codegen.calibration.corrections import NONE, Corrections
from codegen.errors import CodegenError
from codegen.graph import Graph, Node
from codegen.kernels import candidates
from codegen.layer import layer_of
from codegen.layout import LAYOUTS
from codegen.ops import OPS
from codegen.passes.halve import COMPUTES, FOLLOWS, halve
from codegen.passes.quantise import int8_of, quantise
from codegen.passes.scales import Span
from codegen.passes.widen import has_half, widen
from codegen.types import DType

DTYPES = ("f32", "f16", "i8")
_ISA = "fp16"


def own_dtype(graph: Graph) -> str:
    """The type in which a network as its file has it is computed."""
    return DType.F16.value if has_half(graph) else DType.F32.value


def check_dtype(dtype: str, board: Board, where: str) -> None:
    """CodegenError for a type that is not computed, or not on this board."""
    if dtype not in DTYPES:
        raise CodegenError(where, f"{dtype!r}", f"{', '.join(DTYPES)}", "name one of them")
    if dtype == DType.F16.value and _ISA not in board.isa:
        raise CodegenError(
            where,
            f"float16 arithmetic on board {board.name}, whose core ({board.core}) has no {_ISA}",
            f"float16 needs isa {_ISA!r} in the board's file (cores from Cortex-A55 and A75 on); "
            f"this one has {', '.join(board.isa)}",
            "use --dtype f32, or another board",
        )


def compute_in(
    graph: Graph, dtype: str, board: Board, optimise: Callable[[Graph], Graph],
    spans: Mapping[str, Span] | None = None, bits: Mapping[str, int] | None = None,
    corrections: Corrections = NONE,
) -> Graph:  # fmt: skip
    """The optimised graph, computed in `dtype`; inputs and outputs keep the types of the file.
    `spans`, for int8: the ranges of tensors; `bits` and `corrections`: as in passes/quantise.py."""
    if dtype == DType.F32.value and not has_half(graph):
        return optimise(graph)
    if dtype == DType.I8.value:
        return quantise(optimise(widen(graph)), spans or {}, int8_rows(board), bits, corrections)
    ports = {
        t: DType.F16 for t in (*graph.inputs, *graph.outputs)
        if graph.tensors[t].dtype == DType.F16
    }  # fmt: skip
    wide = optimise(widen(graph))
    able = half_rows(board) if dtype == DType.F16.value else lambda _graph, _node: ""
    return halve(wide, able, ports)


def int8_rows(board: Board) -> Callable[[Graph, Node], bool]:
    """Is there a row that computes a node in int8 on this board? A view needs none. Of rows that
    write real values it must be one as fast as those of codes are said to be."""

    def best(graph: Graph, node: Node) -> float:
        asked = int8_of(graph, node)
        rows = [r for x in LAYOUTS for r in candidates(layer_of(asked, node, x), board)]
        coded = [r for r in rows if {DType.I8.value, "any"} & set(r.dtype)]
        return max((r.rate(board.core) for r in coded), default=0.0)

    def able(graph: Graph, node: Node) -> bool:
        if OPS[node.op].view:
            return True
        least = best(graph, replace(node, attrs={**node.attrs, "reals": 0}))
        return least > 0 and (not node.attrs.get("reals") or best(graph, node) >= least)

    return able


def half_rows(board: Board) -> Callable[[Graph, Node], str]:
    """What a node does in float16 on this board: its rows say so."""

    def able(graph: Graph, node: Node) -> str:
        if OPS[node.op].view:
            return FOLLOWS
        layers = [replace(layer_of(graph, node, x), dtype=DType.F16.value) for x in LAYOUTS]
        rows = [r for layer in layers for r in candidates(layer, board)]
        if any(DType.F16.value in r.dtype for r in rows):
            return COMPUTES
        return FOLLOWS if rows else ""

    return able
