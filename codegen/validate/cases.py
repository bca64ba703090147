"""Boards x networks -> comparisons, and the fit over them."""

import subprocess
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from codegen.board import Board
from codegen.peers.wheels import NCNN
from codegen.run.virtual.model import Work, charge
from codegen.run.virtual.outoforder import llvm_version
from codegen.toolchain import find_llvm, find_qemu
from codegen.validate.fit import Parameter, fit, parameters
from codegen.validate.measure import measure, read_param
from codegen.validate.page import Versions
from codegen.validate.published import Network, reference
from codegen.validate.summary import Comparison


@dataclass(frozen=True)
class Case:
    """One network on one board that has a published figure for it; `work` or an `error`."""

    board: Board
    network: Network
    published_ms: float
    work: Work | None = None
    error: str = ""


def measure_all(
    boards: Sequence[Board], networks: Sequence[Network], params: Path,
    progress: Callable[[Case], None] = lambda case: None,
) -> list[Case]:  # fmt: skip
    """Run (or read from the cache) everything that has a published figure; `progress` is told each
    result. CodegenError where a definition is missing or another one, before anything runs."""
    definitions = {n.name: read_param(params, n) for n in networks}
    out = []
    for board in boards:
        published = reference(board.name)
        for network in networks:
            if network.name in published.ms:
                found = measure(network, definitions[network.name], board)
                out.append(Case(board, network, published.ms[network.name], found.work,
                                found.error))  # fmt: skip
                progress(out[-1])
    return out


def compare(cases: Sequence[Case]) -> list[Comparison]:
    """Predictions of the cases that ran, with the cycle model of their boards."""
    out = []
    for case in cases:
        if case.work is None:
            continue
        cost = charge(case.work, case.board.cycle_model)
        own = case.network.use == "int8" or _free(case.board)
        use = case.network.use if own else "transfer"
        parts = {"core": cost.core, "branch": cost.branch, "l2": cost.l2, "memory": cost.memory}
        out.append(
            Comparison(
                case.board.name, case.network.name, use,
                cost.cycles * 1e3 / case.board.clock_hz, case.published_ms,
                {name: cycles / cost.cycles for name, cycles in parts.items()},
            )
        )  # fmt: skip
    return out


def fitted(cases: Sequence[Case]) -> list[Case]:
    """The same cases with every board's penalties fitted to its "fit" networks."""
    models = {}
    for board in {c.board.name: c.board for c in cases}.values():
        wanted = [
            (c.work, c.published_ms * board.clock_hz / 1e3)
            for c in cases
            if c.board == board and c.network.use == "fit" and c.work is not None
        ]
        free = _free(board)
        models[board.name] = (
            fit(board.cycle_model, wanted, free) if wanted and free else board.cycle_model
        )
    return [replace(c, board=replace(c.board, cycle_model=models[c.board.name])) for c in cases]


def _free(board: Board) -> list[Parameter]:
    return [p for p in parameters() if p.board == board.name]


def tool_versions() -> Versions:
    """Of this machine's tools, which must be there."""
    said = subprocess.run((str(find_qemu()), "--version"), capture_output=True, text=True).stdout
    qemu = said.split("version ")[-1].split()[0] if "version " in said else "?"
    return Versions(NCNN.version, qemu, llvm_version(str(find_llvm("llvm-mca"))))
