"""Trials -> one C program that runs each of them by itself, with memory as a network leaves it."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from codegen import __version__
from codegen.board import Board
from codegen.c_text import comment
from codegen.emit import HEADERS, Emitter, render
from codegen.memory import Place, Schedule
from codegen.pricing.trials import NUMBERS, Trial, emitter_of, is_data
from codegen.regions import aligned, overwritable
from codegen.resources import runtime_dir
from codegen.sources import Call, Sources
from codegen.steps import Program, View, Weight
from codegen.types import DType

NAME = "bench"
_UNKNOWN_L2_BYTES = 16 << 20  # where a board's file does not know the caches


@dataclass(frozen=True)
class Block:
    """Bytes of the arena that are written before a run, and with what (microbench.c.j2, `fill`)."""

    offset: int
    bytes: int
    fill: str


@dataclass(frozen=True)
class Entry:
    """A trial in the program's table: `first`..`end` are its blocks, `weights` its bytes of
    weights."""

    comment: str
    calls: tuple[Call, ...]
    first: int
    end: int
    weights: int


@dataclass(frozen=True)
class Bench:
    """The program's text, and for each trial the names of the C functions that it calls."""

    sources: Sources
    functions: tuple[tuple[str, ...], ...]


def microbench(trials: Sequence[Trial], board: Board) -> Bench:
    """One program for all trials; each uses the same memory, so that none depends on the others.
    Trial i is region i + 1."""
    placed = [_place(_renamed(t.program, f"{i}:")) for i, t in enumerate(trials)]
    merged = _merged(placed)
    emitter = emitter_of(merged)
    real = tuple(w for w in merged.program.weights if not is_data(w))
    offsets = {symbol: at for p in placed for symbol, at in p.weights.items()}
    for w in filter(is_data, merged.program.weights):
        at = f"(const void *)(weights + {offsets[w.symbol]})"
        emitter.weight_names[w.symbol] = f"(const {DType.of(w.array.dtype).c} *){at}"
    entries, blocks = [], []
    for trial, place in zip(trials, placed, strict=True):
        calls = tuple(emitter.call(s) for s in place.schedule.program.steps)
        first = len(blocks)
        blocks += place.blocks
        words = comment(f"{trial.signature}: {trial.candidate}")
        entries.append(Entry(words, calls, first, len(blocks), place.weights_bytes))
    largest = max(p.weights_bytes for p in placed)
    sources = _sources(emitter, board, entries, blocks, largest, real)
    return Bench(sources, tuple(tuple(c.function for c in e.calls) for e in entries))


@dataclass(frozen=True)
class _Placed:
    """A trial with memory: `blocks` in the order in which a network writes them, offsets of weights
    in their own memory by symbol."""

    schedule: Schedule
    blocks: tuple[Block, ...]
    weights: Mapping[str, int]
    weights_bytes: int


def _renamed(program: Program, prefix: str) -> Program:
    """The same under names that no other trial uses."""

    def new(key: str) -> str:
        return f"&{prefix}{key[1:]}" if key.startswith("&") else f"{prefix}{key}" if key else ""

    steps = tuple(
        replace(
            s, name=new(s.name), args=tuple(map(new, s.args)), residual=new(s.residual),
            outputs=tuple(map(new, s.outputs)),
        )
        for s in program.steps
    )  # fmt: skip
    return Program(
        steps,
        {new(k): replace(v, key=new(k)) for k, v in program.values.items()},
        {new(k): replace(v, of=new(v.of)) for k, v in program.views.items()},
        (),
        (),
        tuple(replace(w, symbol=prefix + w.symbol) for w in program.weights),
    )


def _place(program: Program) -> _Placed:
    """Inputs, outputs and scratch one behind the other, in place where the kernel allows it, as a
    network mostly can. What is overwritten was written long ago, and the first input last."""
    program = _in_place(program)
    inputs = [r for r in _roots(program) if not any(r in s.outputs for s in program.steps)]
    outputs = [r for r in _roots(program) if r not in inputs]
    offsets, end = {}, 0
    for root in (*inputs, *outputs):
        offsets[root] = end
        end += aligned(program.values[root].bytes)
    scratch = max((s.scratch_bytes for s in program.steps), default=0)
    places = {}
    for key, value in program.values.items():
        root, offset, pitch = program.root(key)
        if root in offsets:
            at = offsets[root] + offset * value.tensor.dtype.size
            places[key] = Place("arena", root, at, pitch)
    blocks = [Block(end, scratch, "OLD")] if scratch else []
    blocks += [Block(offsets[r], program.values[r].bytes, "OLD") for r in outputs]
    blocks += [
        Block(offsets[r], program.values[r].bytes,
              "NUMBERS" if program.values[r].tensor.dtype in NUMBERS else "ZEROS")
        for r in reversed(inputs)
    ]  # fmt: skip
    weights, at = {}, 0
    for w in filter(is_data, program.weights):
        weights[w.symbol] = at
        at += aligned(w.array.nbytes)
    schedule = Schedule(
        program, places, (), {s.name: end for s in program.steps}, end + aligned(scratch), 0
    )
    return _Placed(schedule, tuple(blocks), weights, at)


def _in_place(program: Program) -> Program:
    if len(program.steps) != 1:
        return program
    source = next(overwritable(program, program.steps[0]), None)
    views = {program.steps[0].outputs[0]: View(source)} if source else {}
    return replace(program, views={**program.views, **views})


def _roots(program: Program) -> Iterator[str]:
    """Owners of the memory that steps use, in the order of their parameters."""
    keys = (k for s in program.steps for k in (*s.reads, *s.outputs))
    return iter(dict.fromkeys(program.root(k)[0] for k in keys))


def _merged(placed: Sequence[_Placed]) -> Schedule:
    programs = [p.schedule.program for p in placed]
    program = Program(
        tuple(s for p in programs for s in p.steps),
        {k: v for p in programs for k, v in p.values.items()},
        {k: v for p in programs for k, v in p.views.items()},
        (),
        (),
        tuple(w for p in programs for w in p.weights),
    )
    return Schedule(
        program,
        {k: v for p in placed for k, v in p.schedule.places.items()},
        (),
        {k: v for p in placed for k, v in p.schedule.scratch.items()},
        max(p.schedule.arena_bytes for p in placed),
        0,
    )


def _sources(
    emitter: Emitter,
    board: Board,
    entries: Sequence[Entry],
    blocks: Sequence[Block],
    weights_bytes: int,
    real: Sequence[Weight],
) -> Sources:
    scope = dict(
        name=NAME,
        NAME=NAME.upper(),
        version=__version__,
        members=emitter.members(),
        prototypes=emitter.prototypes,
        half=any(v.tensor.dtype == DType.F16 for v in emitter.program.values.values()),
        weights=[emitter.weight(w) for w in real],
        weights_bytes=max(weights_bytes, 64),
        l1d_bytes=board.l1d_bytes,
        evict_bytes=2 * (board.l2_bytes or _UNKNOWN_L2_BYTES),
        trials=entries,
        blocks=blocks or [Block(0, 0, "OLD")],
    )
    files = {
        f"src/{NAME}_internal.h": render("microbench.h.j2", scope),
        "src/microbench.c": render("microbench.c.j2", scope),
    }
    library = ["src/microbench.c"]
    for folder, bodies in sorted(emitter.bodies.items()):
        path = f"src/{NAME}_{folder}.c"
        header = emitter.headers[folder]
        files[path] = render(
            "kernels.c.j2", {**scope, "folder": folder, "bodies": bodies, "header": header}
        )
        library.append(path)
    if real:
        files[f"src/{NAME}_weights.c"] = render("weights.c.j2", scope)
        library.append(f"src/{NAME}_weights.c")
    for header in dict.fromkeys((*HEADERS[:2], emitter.header(), "cg_measure.h")):
        files[f"src/{header}"] = (runtime_dir() / header).read_bytes()
    return Sources(NAME, files, (), (), (), tuple(library), ())
