"""The space of plans: for each node, in execution order, the candidates that may compute it.

A candidate ("action") names a kernel row, the layout of the node's tensors and, where one kernel
computes several nodes, the group. Choosing a group for its first node decides the others too.
What a layer costs depends on its action alone; changes of layout depend on neighbours
(rl/walk.py).
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace

from codegen.board import Board
from codegen.errors import CodegenError
from codegen.exactness import LIMITS, errors_of
from codegen.graph import Graph, Node, Tensor
from codegen.groups import Group, find_groups, regroup
from codegen.kernels import Kernel, candidates, refusal
from codegen.layer import layer_of
from codegen.layout import LAYOUTS, same_memory
from codegen.ops import OPS
from codegen.plan import needs_kernel
from codegen.pricing.trials import is_flat
from codegen.signature import conversion_signature, signature_of
from rl.codes import Codes, Variant, coded
from rl.table import Price, Table

Read = tuple[str, str]  # a tensor, and the layout in which a kernel wants it
Way = tuple[str, str, str]  # a tensor that a cast makes, and the layouts before and after it


@dataclass(frozen=True)
class Action:
    """One way to compute a node. `prices` by the layout in which the input lies (one, but for
    nodes that move data). `reads`: what must lie where, of the group's last node in `later`.
    `pitch`: it can write into a concatenation. `inplace`: as in the kernel's row. `errors`:
    rounding errors as multiples of a direct computation's. `bits`: the node is computed in int8,
    with weights of that width, which makes the outputs lose `loss` (rl/codes.py);
    with `reals` what it writes are no codes."""

    kernel: str
    layout: str
    prices: Mapping[str, Price] = field(compare=False)
    reads: tuple[Read, ...] = ()
    later: tuple[Read, ...] = ()
    group: tuple[str, ...] = ()
    pitch: bool = False
    inplace: str = ""
    errors: float = field(default=1.0, compare=False)
    bits: int = 0
    reals: bool = False
    loss: float = field(default=0.0, compare=False)

    def form(self, tensor: str) -> str:
        """The name of a tensor as this action reads it."""
        return coded(tensor) if self.bits else tensor

    def made(self, tensor: str) -> str:
        """The name of a tensor as this action writes it."""
        return coded(tensor) if self.bits and not self.reals else tensor

    @property
    def price(self) -> Price:
        """The cheapest, over layouts in which the input may lie."""
        return min(self.prices.values(), key=lambda p: p.cost)

    def __str__(self) -> str:
        """For people."""
        width = f" {self.bits} bits" if self.bits else ""
        return f"{self.kernel} {self.layout}{width}"


@dataclass(frozen=True)
class Cast:
    """The cheapest kernel that makes codes of a tensor, or a tensor of codes, one way."""

    kernel: str
    cost: float


@dataclass(frozen=True)
class Stage:
    """A node in execution order. Nodes without actions are views: another name for their input."""

    node: Node
    actions: tuple[Action, ...]

    @property
    def name(self) -> str:
        return self.node.name


@dataclass(frozen=True)
class Space:
    """All plans of a network on a board at the prices of a table. `conversions`: cost of bringing a
    tensor from its layout to the other one, by (tensor, from); absent where nothing moves. With
    `codes`, nodes may be in int8: `casts` make a tensor, or its codes, out of the other."""

    graph: Graph
    board: Board
    table: Table
    stages: tuple[Stage, ...]
    conversions: Mapping[Read, float]
    codes: Codes | None = None
    casts: Mapping[Way, Cast] = field(default_factory=dict)

    @property
    def tensors(self) -> Mapping[str, Tensor]:
        """All tensors, codes included."""
        return {**self.graph.tensors, **self.codes.tensors} if self.codes else self.graph.tensors

    @property
    def plans(self) -> float:
        """How many plans there are, groups left out."""
        out = 1.0
        for stage in self.stages:
            out *= max(1, sum(not a.group for a in stage.actions))
        return out


def build_space(graph: Graph, board: Board, table: Table, codes: Codes | None = None) -> Space:
    """The space of a network after the passes, with what may be in int8. Candidates that failed or
    were not priced are left out; CodegenError for a node that keeps none."""
    groups: dict[str, list[Group]] = {}
    for group in find_groups(graph):
        groups.setdefault(group.name, []).append(group)
    stages = []
    for node in graph.nodes:
        actions: list[Action] = []
        if needs_kernel(node):
            fixed = codes is not None and node.name in codes.fixed
            actions = [] if fixed else list(_actions(graph, node, board, table))
            if not (actions or fixed):
                raise _nothing(graph, node, board, table)
            for group in groups.get(node.name, ()):
                actions += _group_actions(graph, group, board, table)
            for variant in codes.variants.get(node.name, ()) if codes else ():
                actions += _coded_actions(graph, node, variant, board, table)
            if not actions:
                raise _nothing(graph, node, board, table)
        stages.append(Stage(node, tuple(actions)))
    tensors = [t for t in graph.tensors.values() if t.name not in graph.constants]
    conversions = _conversions(tensors, table)
    if codes is None:
        return Space(graph, board, table, tuple(stages), conversions)
    conversions |= _conversions(codes.tensors.values(), table)
    return Space(graph, board, table, tuple(stages), conversions, codes, _casts(codes, table))


def careful(space: Space, level: int) -> Space:
    """The same without candidates that lose digits (codegen/exactness.py); where nothing else was
    priced, they stay."""
    stages = []
    for stage in space.stages:
        kept = tuple(a for a in stage.actions if a.errors <= LIMITS[level])
        alone = any(not a.group for a in kept)
        stages.append(replace(stage, actions=kept) if alone else stage)
    return replace(space, stages=tuple(stages))


def in_floats(space: Space) -> Space:
    """The same without int8, but for what is nothing else."""
    stages = []
    for stage in space.stages:
        floats = tuple(a for a in stage.actions if not a.bits)
        stages.append(replace(stage, actions=floats or stage.actions))
    return replace(space, stages=tuple(stages))


def _nothing(graph: Graph, node: Node, board: Board, table: Table) -> CodegenError:
    """Why no candidate is left; the first failure, if there is one, says most."""
    found = table.layers.get(signature_of(graph, node).key, {})
    errors = [f"{name}: {p.error}" for name, p in found.items() if p.error]
    what = f"all {len(errors)} candidates failed, e.g. {errors[0]}" if errors else "none was priced"
    return CodegenError(
        f"node {node.name!r} ({node.op}) on {board.name}",
        f"no candidate is left ({what})",
        "at least one kernel that compiles and runs",
        "see `codegen price --layer` for it",
    )


def layouts_of(graph: Graph, node: Node) -> tuple[str, ...]:
    """Layouts that a plan may give a node."""
    return LAYOUTS[:1] if is_flat(graph, node) else LAYOUTS


def _actions(graph: Graph, node: Node, board: Board, table: Table) -> Iterator[Action]:
    key = signature_of(graph, node).key
    for layout in layouts_of(graph, node):
        comes = LAYOUTS if node.op == "Transpose" else (layout,)
        rows: dict[str, Kernel] = {}
        for come in comes:
            layer = layer_of(graph, node, layout, come)
            found = candidates(layer, board)
            rows |= {r.name: r for r in found if r.layout in ("any", layout)}
        for row in rows.values():
            lies = (row.reads,) if row.reads else comes
            prices = {
                come: p for come in lies
                if (p := _price(graph, node, board, table, key, row, come, layout))
            }  # fmt: skip
            if len(prices) == len(lies):
                yield Action(row.name, layout, prices, _reads(graph, node, row, layout),
                             pitch=row.pitch, inplace=row.inplace,
                             errors=errors_of(row))  # fmt: skip


def _price(
    graph: Graph, node: Node, board: Board, table: Table, key: str, row: Kernel, come: str, go: str
) -> Price | None:
    """None where it was not priced or failed. A row that moves data and does not fit the layout of
    its input gives way to the fastest that does, as in codegen/schedule.py."""
    if node.op == "Transpose":
        layer = layer_of(graph, node, go, come)
        if refusal(row, layer, tuple(board.isa)):
            row = max(candidates(layer, board), key=lambda r: r.rate(board.core))
    price = table.price(key, row.name, come, go)
    return None if price is None or price.error else price


def _group_actions(graph: Graph, group: Group, board: Board, table: Table) -> Iterator[Action]:
    whole = regroup(graph, {group.name: group.names})
    node = next(n for n in whole.nodes if n.name == group.name)
    for action in _actions(whole, node, board, table):
        first = tuple(r for r in action.reads if r[0] == node.inputs[0])
        later = tuple(r for r in action.reads if r not in first)
        yield Action(
            action.kernel, action.layout, action.prices, first, later, group.names, action.pitch,
            errors=action.errors,
        )  # fmt: skip


def _coded_actions(
    graph: Graph, node: Node, variant: Variant, board: Board, table: Table
) -> Iterator[Action]:
    """The node in int8, in terms of the codes of the tensors that it reads."""
    mine, theirs = _variable(graph, node), _variable(variant.graph, variant.node)
    name = {q: coded(t) for t, q in zip(mine, theirs, strict=True)}
    for action in _actions(variant.graph, variant.node, board, table):
        if action.kernel in variant.rows:
            reads = tuple((name[t], layout) for t, layout in action.reads)
            yield replace(action, reads=reads, bits=variant.bits, loss=variant.loss,
                          reals=bool(variant.node.attrs.get("reals")))  # fmt: skip


def _variable(graph: Graph, node: Node) -> list[str]:
    """What a node reads besides constants, in order."""
    return [t for t in (*node.inputs, node.residual) if t and t not in graph.constants]


def _reads(graph: Graph, node: Node, row: Kernel, layout: str) -> tuple[Read, ...]:
    """What a kernel reads, and in which layout, as codegen/schedule.py has it."""
    if node.op in ("Transpose", "Concat"):
        return ()  # depends on where their inputs lie
    rest = "nchw" if OPS[node.op].spatial else layout
    inputs = node.inputs[:1] if row.pack else node.inputs
    reads = [(t, row.come(layout) if i == 0 else rest) for i, t in enumerate(inputs)]
    reads.append((node.residual, layout))
    wanted = [r for r in reads if r[0] and r[0] not in graph.constants]
    return tuple(dict.fromkeys(wanted))


def _conversions(tensors: Iterable[Tensor], table: Table) -> dict[Read, float]:
    """Infinite where a conversion was not priced or failed: then a plan cannot need it."""
    out: dict[Read, float] = {}
    for tensor in tensors:
        if len(tensor.shape) < 3:
            continue
        for come, go in zip(LAYOUTS, LAYOUTS[::-1], strict=True):
            if not same_memory(tensor.shape, come, go):
                price = table.conversion(conversion_signature(tensor, come, go).key)
                known = price is not None and not price.error
                out[tensor.name, come] = price.cost if known else float("inf")
    return out


def _casts(codes: Codes, table: Table) -> dict[Way, Cast]:
    """The cheapest of each way; absent where none was priced."""
    out: dict[Way, Cast] = {}
    board = codes.board
    for node in codes.casts.nodes:
        for action in _actions(codes.casts, node, board, table):
            for come, price in action.prices.items():
                key = node.outputs[0], come, action.layout
                if key not in out or price.cost < out[key].cost:
                    out[key] = Cast(action.kernel, price.cost)
    return out
