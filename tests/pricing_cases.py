"""Layers to be priced, and boards on which something goes wrong."""

import dataclasses
import shutil
from functools import lru_cache
from pathlib import Path

import pytest

from codegen.board import load_board
from codegen.footprint import functions
from codegen.graph import Graph, Node
from codegen.pipeline import load_graph
from codegen.pricing import Settings
from codegen.run import Job, Outcome
from codegen.run.local import LocalRunner
from codegen.signature import Signature, signature_of
from codegen.toolchain import find_host_cc

MODELS = Path(__file__).resolve().parent.parent / "examples" / "models"
LOCAL, A57 = load_board("local"), load_board("jetson-nano-cpu")
ONE = Settings(jobs=1, ms=1)
EVERYTHING = "main"  # a function that every program contains
needs_cc = pytest.mark.skipif(not find_host_cc(), reason="no C compiler on this machine")
needs_cross = pytest.mark.skipif(
    not shutil.which("aarch64-linux-gnu-gcc"), reason="no aarch64-linux-gnu-gcc on this machine"
)


@lru_cache
def kws_graph() -> Graph:
    return load_graph(MODELS / "mlperf_kws_dscnn.onnx")


def first(graph: Graph, op: str) -> Node:
    return next(n for n in graph.nodes if n.op == op)


def dense_layer() -> Signature:
    """A small layer with few candidates."""
    return signature_of(kws_graph(), first(kws_graph(), "Dense"))


class Faulty(LocalRunner):
    """A board on which programs that contain a certain function end with `outcome`."""

    def __init__(self, function: str, outcome: Outcome):
        self.function, self.outcome = function, outcome

    def run(self, job: Job, board) -> Outcome:
        if any(self.function in f.name for f in functions(job.program)):
            return self.outcome
        return super().run(job, board)


class Judging(LocalRunner):
    """A board that tells its conditions, and calls every list of runs noisy for which there is a
    reason in `said`."""

    name = "ssh"
    conditions = {"before": {"temperature_c": 40.0}, "after": {"temperature_c": 41.5}}

    def __init__(self, *said: str):
        self.said = said

    def run(self, job: Job, board) -> Outcome:
        outcome = super().run(job, board)
        runs = [[7.0] * 8 for _ in outcome.report["runs_ns"]]
        more = {"runs_ns": runs, "noisy": list(self.said), "conditions": self.conditions}
        return dataclasses.replace(outcome, report={**outcome.report, **more})
