"""What a plan should cost by the prices of its layers: the sum over the steps that it becomes."""

from collections.abc import Mapping
from dataclasses import dataclass, replace

from codegen.board import Board
from codegen.graph import Graph, Node
from codegen.memory import Schedule
from codegen.order import node_of
from codegen.plan import Plan
from codegen.pricing.price import Prices
from codegen.pricing.trials import Candidate, is_flat
from codegen.signature import CONVERT, Signature, conversion_signature, signature_of
from codegen.steps import Program, Step
from codegen.store import Measurement


@dataclass(frozen=True)
class Part:
    """A step of a plan as the price table knows it; `share` of what the layer costs, where one
    step is only a part of it (a concatenation copies the operands that were not written in
    place)."""

    step: str
    signature: Signature
    candidate: Candidate
    share: float = 1.0


def plan_parts(graph: Graph, plan: Plan, program: Program) -> list[Part]:
    """The layers that a plan pays for, in execution order. `graph` has the plan's groups as nodes;
    `program` is what it was lowered to."""
    nodes = {n.name: n for n in graph.nodes}
    return [_part(graph, plan, program, step, nodes) for step in program.steps]


def plan_cost(parts: list[Part], prices: Prices) -> list[tuple[Part, Measurement]]:
    """Each part with its price; KeyError for a candidate that is not in the table."""
    return [(p, prices[p.signature][p.candidate]) for p in parts]


def total_cost(priced: list[tuple[Part, Measurement]]) -> float:
    """Cycles, or nanoseconds where there are no cycles; infinite where a candidate failed."""
    return sum(p.share * m.cost for p, m in priced)


def warm_weights(schedule: Schedule, board: Board) -> bool:
    """Whether a network that runs again and again finds its weights in L2: all of it fits."""
    program = schedule.program
    weights = sum(w.array.nbytes for w in program.weights)
    ports = {*program.inputs, *(program.root(o)[0] for o in program.outputs)}
    data = schedule.arena_bytes + sum(program.values[k].bytes for k in ports)
    return weights + data <= board.l2_bytes


def _part(
    graph: Graph, plan: Plan, program: Program, step: Step, nodes: Mapping[str, Node]
) -> Part:
    go, tensor = program.values[step.outputs[0]].layout, program.values[step.outputs[0]].tensor
    come = program.values[step.reads[0]].layout if step.reads else go
    kernel = step.kernel.name
    if step.op == CONVERT:
        return Part(step.name, conversion_signature(tensor, come, go), Candidate(kernel, go, come))
    node = nodes.get(node_of(step))
    if node is None:  # an output that is a copy of something else
        return _copy(graph, program, step)
    layout = plan.nodes[node.name].layout
    if is_flat(graph, node):
        come = layout = "nchw"
    elif node.op != "Transpose":
        come = step.kernel.come(layout)
    share = 1.0
    if node.op == "Concat":
        share = _size(program, step.args[0]) / tensor.size
    return Part(step.name, signature_of(graph, node), Candidate(kernel, layout, come), share)


def _size(program: Program, argument: str) -> int:
    """Elements of a value or of weights."""
    if not argument.startswith("&"):
        return program.values[argument].tensor.size
    return next(w.array.size for w in program.weights if f"&{w.symbol}" == argument)


def _copy(graph: Graph, program: Program, step: Step) -> Part:
    source = program.values[step.reads[0]].tensor
    node = Node("copy", "Copy", (source.name,), ("copy",))
    whole = replace(graph, tensors={**graph.tensors, "copy": replace(source, name="copy")})
    layout = "nchw"  # outputs are in ONNX order
    signature = signature_of(whole, node)
    return Part(step.name, signature, Candidate(step.kernel.name, layout, layout))
