"""Layers -> costs of all their candidates: from the store, and by measuring what it lacks."""

import os
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass

from codegen.board import Board
from codegen.errors import CodegenError
from codegen.graph import Graph, Node
from codegen.pricing.context import context_of
from codegen.pricing.run import Bed, BoardLost, free, measure
from codegen.pricing.trials import Candidate, Trial, node_signatures, trials
from codegen.run import Runner
from codegen.run.virtual import missing
from codegen.run.virtual.plugin import PluginError, plugin_path
from codegen.signature import Signature
from codegen.store import Context, Key, Measurement, Store
from codegen.toolchain import Toolchain, find_qemu, find_toolchain

Prices = dict[Signature, dict[Candidate, Measurement]]
Progress = Callable[[int, int], None]

# Trials of one program: enough to share its cost, few enough to be lost together.
_MOST_TRIALS = 12
_MOST_BYTES = 256 << 20  # of activations and weights


class PricingError(Exception):
    """The board failed in the middle; what was measured before is in the store."""


@dataclass(frozen=True)
class Settings:
    """`warm`: weights lie in L2 as those of a small network do, not in memory. `again`: measure
    also what the store knows. `jobs`: programs at once (0: as many as there are cores on the
    virtual board, as there are boards else). `ms`: time for the runs of one candidate on a real
    board."""

    warm: bool = False
    again: bool = False
    jobs: int = 0
    ms: int = 100
    timeout_s: float = 300.0


def price_layers(
    graph: Graph,
    nodes: Iterable[Node],
    board: Board,
    runner: Runner,
    store: Store,
    candidates: Collection[str] | None = None,
    progress: Progress | None = None,
    settings: Settings = Settings(),
) -> Prices:
    """Costs of every candidate of the distinct layers among `nodes`; see `price_signatures`."""
    signatures = node_signatures(graph, nodes)
    return price_signatures(signatures, board, runner, store, candidates, progress, settings)


def price_signatures(
    signatures: Sequence[Signature],
    board: Board,
    runner: Runner,
    store: Store,
    candidates: Collection[str] | Mapping[Signature, Collection[str]] | None = None,
    progress: Progress | None = None,
    settings: Settings = Settings(),
) -> Prices:
    """Costs of every candidate (or those whose kernel is in `candidates`, of all layers or of each)
    of each layer.

    What the store lacks is measured and stored, program by program, so that nothing is lost when
    this is interrupted. `progress` is told (measured, to measure). PricingError where the board
    fails; CodegenError for a runner that does not measure, and where there is no compiler.
    """
    toolchain = ready(board, runner, settings)
    context = context_of(board, runner.name, toolchain)
    wanted = [
        t for s in signatures for t in trials(s, board)
        if candidates is None or t.candidate.kernel
        in (candidates[s] if isinstance(candidates, Mapping) else candidates)
    ]  # fmt: skip
    weights = "warm" if settings.warm else "cold"
    keys = {t: _key(t, weights, context) for t in wanted}
    known = {} if settings.again else store.get(keys.values())
    prices = {t: known[k] for t, k in keys.items() if k in known}
    todo = [t for t in wanted if t not in prices]
    nothing = free(todo)
    store.put((keys[t], m) for t, m in nothing.items())
    prices |= nothing
    todo = [t for t in todo if t not in nothing]
    bed = Bed(board, runner, toolchain, settings.warm, settings.ms, settings.timeout_s)

    def keep(measured: Mapping[Trial, Measurement]) -> None:
        store.put((keys[t], m) for t, m in measured.items())
        prices.update(measured)

    _measure_all(todo, bed, _jobs(settings, runner), keep, progress or (lambda done, of: None))
    out: Prices = {s: {} for s in signatures}
    for t in wanted:
        out[t.signature][t.candidate] = prices[t]
    return out


def known_prices(
    signatures: Sequence[Signature],
    board: Board,
    runner: Runner,
    store: Store,
    settings: Settings = Settings(),
) -> Prices:
    """What the store has of the candidates of each layer; nothing is measured. Raises as
    `price_signatures`."""
    context = context_of(board, runner.name, ready(board, runner, settings))
    weights = "warm" if settings.warm else "cold"
    keys = {_key(t, weights, context): t for s in signatures for t in trials(s, board)}
    out: Prices = {s: {} for s in signatures}
    for key, measured in store.get(keys).items():
        out[keys[key].signature][keys[key].candidate] = measured
    return out


def ready(board: Board, runner: Runner, settings: Settings = Settings()) -> Toolchain:
    """The compiler, if everything is here that measuring needs: a missing tool must not look like a
    failure of every candidate. Raises as `price_signatures`, and touches no store."""
    _check_tools(board, runner)
    toolchain = find_toolchain(board)
    context_of(board, runner.name, toolchain)
    _jobs(settings, runner)
    return toolchain


def _check_tools(board: Board, runner: Runner) -> None:
    if runner.name != "virtual":
        return
    problem = missing(board)
    try:
        if not problem:
            plugin_path(str(find_qemu()))
    except PluginError as e:
        problem = str(e)
    if problem:
        raise PricingError(problem)


def _key(trial: Trial, weights: str, context: Context) -> Key:
    c = trial.candidate
    return Key(trial.signature, c.kernel, c.layouts, trial.code, weights, context)


def _jobs(settings: Settings, runner: Runner) -> int:
    if settings.jobs < 0:
        raise CodegenError(
            "--jobs", f"{settings.jobs}", "0 (as many as there are cores) or more", "correct it"
        )
    boards = (os.cpu_count() or 1) if runner.name == "virtual" else getattr(runner, "boards", 1)
    return settings.jobs or max(1, boards)


def _measure_all(
    todo: Sequence[Trial],
    bed: Bed,
    jobs: int,
    keep: Callable[[Mapping[Trial, Measurement]], None],
    progress: Progress,
) -> None:
    """Program by program, each kept as soon as it is measured; candidates whose code comes out the
    same share a measurement."""
    alike: dict[tuple[Signature, str], list[Trial]] = {}
    for t in todo:
        alike.setdefault((t.signature, t.code), []).append(t)
    first = [same[0] for same in alike.values()]
    done = 0
    progress(done, len(todo))
    pool = ThreadPoolExecutor(jobs)
    running = {pool.submit(measure, batch, bed): batch for batch in _batches(first, jobs)}
    try:
        for future in as_completed(running):
            measured = {
                t: m
                for one, m in zip(running[future], future.result(), strict=True)
                for t in alike[one.signature, one.code]
            }
            keep(measured)
            done += len(measured)
            progress(done, len(todo))
    except BoardLost as e:
        raise PricingError(str(e)) from None
    finally:
        bed.stop.set()  # after an interrupt, too
        pool.shutdown(cancel_futures=True)


def _batches(todo: Sequence[Trial], jobs: int) -> list[list[Trial]]:
    """Programs of about the same size; at least one for each job."""
    most = max(1, min(_MOST_TRIALS, -(-len(todo) // jobs)))
    out: list[list[Trial]] = []
    bytes_of: list[int] = []
    for t in todo:
        size = t.weights_bytes + sum(v.bytes for v in t.program.values.values())
        if not out or len(out[-1]) == most or bytes_of[-1] + size > _MOST_BYTES:
            out.append([])
            bytes_of.append(0)
        out[-1].append(t)
        bytes_of[-1] += size
    return out
