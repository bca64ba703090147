"""The candidates of a layer as programs: what the build would call for each of them."""

import hashlib
import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from functools import lru_cache

import numpy as np

from codegen.board import Board
from codegen.emit import Emitter
from codegen.graph import Graph, Node
from codegen.groups import find_groups, regroup
from codegen.kernels import candidates
from codegen.layer import layer_of
from codegen.layout import LAYOUTS, same_memory
from codegen.memory import Place, Schedule
from codegen.ops import OPS
from codegen.plan import Choice, Plan, needs_kernel
from codegen.resources import runtime_dir
from codegen.schedule import lower_conversion, lower_node
from codegen.signature import CONVERT, Signature, conversion_signature, graph_of, signature_of
from codegen.steps import Program, Weight
from codegen.types import DType

# Contents of these types are data, whose values do not matter; those of others may be indices, for
# which 0 is always right.
NUMBERS = (DType.F32, DType.F64, DType.F16, DType.I8, DType.U8, DType.BOOL)


@dataclass(frozen=True, order=True)
class Candidate:
    """One way to compute a layer: a kernel row, the layout `come` in which the layer's inputs lie
    and `layout` in which its output will; they differ only where a layer moves data, or a row reads
    another layout than it writes."""

    kernel: str
    layout: str
    come: str

    @property
    def layouts(self) -> str:
        """As the store has it: `nhwc`, or `nchw>nhwc`."""
        return self.layout if self.come == self.layout else f"{self.come}>{self.layout}"

    def __str__(self) -> str:
        return f"{self.kernel} {self.layouts}"


@dataclass(frozen=True)
class Trial:
    """A candidate of a layer, ready to be run: its kernel calls, and a hash of their C code.
    Without steps it is only another name for its input and costs nothing."""

    signature: Signature
    candidate: Candidate
    program: Program = field(compare=False)
    code: str

    @property
    def scratch_bytes(self) -> int:
        return max((s.scratch_bytes for s in self.program.steps), default=0)

    @property
    def weights_bytes(self) -> int:
        return sum(w.array.nbytes for w in self.program.weights)


def node_signatures(graph: Graph, nodes: Iterable[Node]) -> list[Signature]:
    """The distinct layers among nodes, in their order; nodes that need no kernel are none."""
    return list(dict.fromkeys(signature_of(graph, n) for n in nodes if needs_kernel(n)))


def layer_names(graph: Graph) -> dict[Signature, list[str]]:
    """The distinct layers that a plan for this network may have to pay for, with the names of those
    alike: nodes, groups of nodes that one kernel may compute, and changes of layout."""
    out: dict[Signature, list[str]] = {}
    for node in graph.nodes:
        if needs_kernel(node):
            out.setdefault(signature_of(graph, node), []).append(node.name)
    for group in find_groups(graph):
        whole = regroup(graph, {group.name: group.names})
        node = next(n for n in whole.nodes if n.name == group.name)
        out.setdefault(signature_of(whole, node), []).append(" + ".join(group.names))
    for tensor in graph.tensors.values():
        if tensor.name in graph.constants or len(tensor.shape) < 3:
            continue
        for come, go in zip(LAYOUTS, LAYOUTS[::-1], strict=True):
            if not same_memory(tensor.shape, come, go):
                signature = conversion_signature(tensor, come, go)
                out.setdefault(signature, []).append(f"{tensor.name} to {go}")
    return out


def macs(signature: Signature) -> int:
    """Multiply-adds of a layer; 0 where it has none."""
    if signature.op == CONVERT or OPS[signature.op].macs is None:
        return 0
    graph = graph_of(signature)
    return int(OPS[signature.op].macs(layer_of(graph, graph.nodes[0], "nchw").dims))


def trials(signature: Signature, board: Board) -> list[Trial]:
    """Every candidate of a layer on a board, the portable row first."""
    if signature.op == CONVERT:
        return [_conversion(signature, board)]
    graph = graph_of(signature)
    out = []
    for come, layout in _layouts(graph):
        for row in candidates(layer_of(graph, graph.nodes[0], layout, come), board):
            if row.layout in ("any", layout):
                lies = row.come(come)
                program = _thin(lower_node(graph, Choice(row.name, layout), lies, board))
                candidate = Candidate(row.name, layout, lies)
                out.append(Trial(signature, candidate, program, code_hash(program)))
    return out


def is_data(weight: Weight) -> bool:
    """Whether only the size of a weight matters."""
    return DType.of(weight.array.dtype) in NUMBERS


def _thin(program: Program) -> Program:
    """Weights without their memory: those of all candidates of a network would fill this
    machine's."""

    def thin(w: Weight) -> Weight:
        zeros = np.broadcast_to(np.zeros((), w.array.dtype), w.array.shape)
        return replace(w, array=zeros) if is_data(w) else w

    return replace(program, weights=tuple(map(thin, program.weights)))


def is_flat(graph: Graph, node: Node) -> bool:
    """Whether layouts mean nothing to a node: all its tensors have less than three dimensions."""
    return all(len(graph.tensors[t].shape) < 3 for t in (*node.reads, *node.outputs) if t)


def _layouts(graph: Graph) -> Iterator[tuple[str, str]]:
    """(layout of the inputs, layout of the outputs) that a plan may ask for."""
    node = graph.nodes[0]
    if is_flat(graph, node):
        yield "nchw", "nchw"
        return
    for come in LAYOUTS:
        yield from ((come, go) for go in (LAYOUTS if node.op == "Transpose" else (come,)))


def _conversion(signature: Signature, board: Board) -> Trial:
    """A change of layout has one kernel, which lowering chooses."""
    graph, attrs = graph_of(signature), signature.fields["attrs"]
    program = lower_conversion(graph.tensors["t0"], attrs["from"], attrs["to"], board)
    kernel = program.steps[0].kernel.name if program.steps else ""
    return Trial(
        signature, Candidate(kernel, attrs["to"], attrs["from"]), program, code_hash(program)
    )


def code_hash(program: Program) -> str:
    """What determines a candidate's cost on a given core and compiler: the text of its functions
    with the headers they use, how they are called, and the form of its weights. So a changed
    comment in a packer, or a row added beside it, leaves measurements valid; a changed block size
    does not."""
    emitter = emitter_of(schedule_of(program))
    facts = {
        "functions": [emitter.render(s.kernel, "@", emitter.scope(s, s.dims))
                      for s in program.steps],
        "calls": [(s.args, s.residual, s.outputs, s.offset, s.scratch_bytes)
                  for s in program.steps],
        "weights": [(w.symbol, w.array.shape, str(w.array.dtype)) for w in program.weights],
        "headers": _headers(),
    }  # fmt: skip
    return hashlib.sha256(json.dumps(facts).encode()).hexdigest()[:16]


@lru_cache(maxsize=1)
def _headers() -> str:
    text = b"".join((runtime_dir() / h).read_bytes() for h in ("cg_math.h", "cg_neon.h"))
    return hashlib.sha256(text).hexdigest()


def schedule_of(program: Program) -> Schedule:
    """A schedule with every value at offset 0: for texts, not for running."""
    places = {key: Place("arena", key, 0) for key in program.values}
    return Schedule(program, places, (), {}, 0, 0)


def emitter_of(schedule: Schedule) -> Emitter:
    """Functions get the prefix `bench_`."""
    inside = replace(schedule.program, inputs=(), outputs=())
    return Emitter(replace(schedule, program=inside), Plan("", "", {}), None, "bench", "")
