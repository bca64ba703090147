"""Price tables without measuring, and small spaces to search."""

import dataclasses
import hashlib
import random
from dataclasses import dataclass

import pytest

from codegen.board import load_board
from codegen.calibration.record import METHODS, Calibration, DataRecord, Range
from codegen.graph import Graph
from codegen.groups import regroup
from codegen.passes.integer_forms import FORMS
from codegen.passes.quantise import PRODUCTS
from codegen.pipeline import load_graph
from codegen.plan import Plan, check_plan
from codegen.pricing import plan_parts
from codegen.resources import examples_dir
from codegen.schedule import lower
from codegen.signature import CONVERT
from codegen.types import WIDTHS, DType
from rl.agents import Problem
from rl.agents.plans import start_choices
from rl.assignment import choices_of, cost_of, plan_of, repaired, steps_of
from rl.codes import codes_of
from rl.space import Space, Stage, build_space
from rl.table import Price, Table
from rl.walk import Walk

SHA = "0" * 64
BOARD = load_board("jetson-nano-cpu")
KWS = examples_dir() / "models" / "mlperf_kws_dscnn.onnx"
RESNET = examples_dir() / "models" / "mlperf_ic_resnet8.onnx"
VWW = examples_dir() / "models" / "mlperf_vww_mbv1_025.onnx"


@dataclass(frozen=True)
class Invented(Table):
    """A price for every candidate there may be, 1 to 1000, drawn from its names and a seed."""

    seed: int = 0

    def price(self, layer: str, kernel: str, come: str, layout: str) -> Price:
        return self._draw(layer, kernel, come, layout)

    def conversion(self, layer: str) -> Price:
        return self._draw(layer)

    def _draw(self, *names: str) -> Price:
        text = " ".join((str(self.seed), *names))
        value = int.from_bytes(hashlib.sha256(text.encode()).digest()[:4], "little")
        return Price(1.0 + value % 1000, value % 77, value % 991)


def invented(graph: Graph, seed: int = 0) -> Space:
    """The space of a network at invented prices."""
    return build_space(graph, BOARD, Invented(BOARD.name, "cycles", "cold", {}, seed))


def unranged(graph: Graph) -> Calibration:
    """A calibration that gives every float tensor a range, and every layer a loss."""
    tensors = {
        t.name: dict.fromkeys(METHODS, Range(-4.0, 4.0)) for t in graph.tensors.values()
        if t.dtype == DType.F32 and t.name not in graph.constants
    }  # fmt: skip
    losses = {
        n.name: {bits: 0.001 * 4.0 ** (8 - bits) for bits in (WIDTHS if n.op in PRODUCTS else (8,))}
        for n in graph.nodes if n.op in (*PRODUCTS, *FORMS)
    }  # fmt: skip
    data = DataRecord((), 1, 0, None, "", "")
    return Calibration("0" * 64, "minmax", 99.99, data, tensors, {}, losses)


def mixed(graph: Graph, seed: int = 0) -> Space:
    """The space at invented prices with every layer that can be in int8."""
    table = Invented(BOARD.name, "cycles", "cold", {}, seed)
    return build_space(graph, BOARD, table, codes_of(graph, BOARD, unranged(graph)))


def wander(walk: Walk, rng: random.Random) -> tuple[int, ...]:
    """Any valid choices."""
    return start_choices(Problem(walk), rng, greedy=False)


def kws_space(seed: int = 0) -> Space:
    return invented(load_graph(KWS), seed)


def thinned(space: Space, most: int) -> Space:
    """The same with at most so many candidates for each layer, from all of its list, and no
    groups."""

    def some(stage: Stage) -> Stage:
        alone = [a for a in stage.actions if not a.group]
        kept = tuple(alone[:: max(1, len(stage.actions) // most)][:most])
        return dataclasses.replace(stage, actions=kept)

    return dataclasses.replace(space, stages=tuple(map(some, space.stages)))


def graph_for(space: Space, plan: Plan) -> Graph:
    """The network that a plan is for."""
    return space.codes.graph_for(plan.bits) if space.codes else space.graph


def lowered_cost(space: Space, plan: Plan) -> float:
    """By the steps that the plan becomes, without copies to outputs."""
    graph = regroup(graph_for(space, plan), plan.groups)
    program = lower(graph, plan, BOARD)
    total = 0.0
    for part in plan_parts(graph, plan, program):
        key, c = part.signature.key, part.candidate
        if part.signature.op == CONVERT:
            total += space.table.conversion(key).cost
        elif not part.step.endswith(" to output"):
            total += part.share * space.table.price(key, c.kernel, c.come, c.layout).cost
    return total


def check_costs(space: Space, seed: int) -> None:
    walk, rng = Walk(space), random.Random(seed)
    for _ in range(5):
        choices = wander(walk, rng)
        plan = plan_of(space, choices, SHA)
        check_plan(plan, graph_for(space, plan), BOARD, SHA)
        assert cost_of(walk, choices) == pytest.approx(lowered_cost(space, plan))
        steps = steps_of(walk, choices)
        assert sum(s.layer + s.conversion for s in steps) == pytest.approx(cost_of(walk, choices))
        assert choices_of(space, plan) == choices
        assert repaired(walk, choices) == choices
