"""Bytes of a built library by layer, by kernel row and by symbol, and the difference of two builds.

A kernel's function is named in report.json; its helpers and the compiler's clones carry its name
and a suffix. What several layers share (a function, a weight) is split into equal shares, the odd
bytes going to the first ones, so that the rows of every table add up to the sections of the
library. What belongs to no layer is in rows of its own, with the reason as their name.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from codegen.errors import CodegenError
from codegen.footprint import Sections, Symbol, sections, symbols
from codegen.memory import Buffer
from codegen.regions import ALIGN

RUN, ARENA, OTHER, UNNAMED = (
    "(run functions)", "(static arena)", "(other symbols)", "(literals, unwinding)",
)  # fmt: skip


@dataclass(frozen=True)
class Layer:
    """One kernel call of the report; `live_bytes` of the arena are in use while it runs."""

    name: str
    op: str
    kernel: str
    functions: tuple[str, ...]
    weights: tuple[str, ...]
    macs: int
    live_bytes: int


@dataclass(frozen=True)
class Footprint:
    """What was measured and, for a build folder, what its report says; sizes in bytes.

    `arena_bytes` is None for plain object files; `stack_bytes` where the compiler did not tell.
    """

    name: str
    sections: Sections
    symbols: tuple[Symbol, ...]
    board: str = ""
    layers: tuple[Layer, ...] = ()
    buffers: tuple[Buffer, ...] = ()
    arena_bytes: int | None = None
    arena_lower_bound_bytes: int = 0
    stack_bytes: int | None = None
    io_bytes: int = 0

    @property
    def bss(self) -> int:
        """Zeroed variables without the library's static arena, which `arena_bytes` counts."""
        return self.sections.bss - sum(s.bytes for s in self.symbols if _is_arena(s, self))

    @property
    def ram(self) -> int:
        """data + bss + arena + stack + the caller's inputs and outputs."""
        used = (self.arena_bytes, self.stack_bytes, self.io_bytes)
        return self.sections.data + self.bss + sum(n or 0 for n in used)


@dataclass(frozen=True)
class Share:
    """One row of a table. `count` layers use it; `note` says what the name does not."""

    name: str
    sections: Sections
    op: str = ""
    kernel: str = ""
    macs: int = 0
    live_bytes: int = 0
    count: int = 0
    note: str = ""


@dataclass(frozen=True)
class Change:
    """A row in two builds; None where a build has no such row."""

    name: str
    old: Share | None
    new: Share | None

    @property
    def difference(self) -> Sections:
        """New minus old."""
        return _sections(self.new) - _sections(self.old)

    @property
    def status(self) -> str:
        """added, removed, the change of kernel, or ""."""
        if not self.old or not self.new:
            return "added" if self.new else "removed"
        if self.old.kernel != self.new.kernel:
            return f"{self.old.kernel} -> {self.new.kernel}"
        return ""


def read_footprint(paths: Sequence[Path]) -> Footprint:
    """A build folder, or object files, archives and programs together. CodegenError otherwise."""
    folders = [p for p in paths if p.is_dir()]
    if not folders:
        name = paths[0].name if len(paths) == 1 else f"{len(paths)} files"
        return Footprint(name, sections(paths), tuple(symbols(paths)))
    if len(paths) > 1:
        raise CodegenError(
            str(folders[0]),
            f"a folder among {len(paths)} paths",
            "one build folder, or any number of files",
            "name it alone, or compare two with --diff",
        )
    return _read_folder(folders[0])


def _read_folder(folder: Path) -> Footprint:
    path = folder / "report.json"
    try:
        report = json.loads(path.read_text())
        library = folder / "build" / f"lib{report['name']}.a"
        if library.is_file():
            return _footprint(report, library)
    except OSError as e:
        raise CodegenError(
            str(path), e.strerror or str(e), "a folder that `codegen build` made", "check the path"
        ) from None
    except (ValueError, LookupError, TypeError, AttributeError) as e:
        raise CodegenError(
            str(path),
            f"not the report of a build ({type(e).__name__}: {e})",
            "report.json as `codegen build` writes it",
            "build again",
        ) from None
    raise CodegenError(
        str(library), "no such file", "the archive that `codegen build` makes", "build again"
    )


def _footprint(report: Mapping[str, Any], library: Path) -> Footprint:
    buffers = tuple(Buffer(**b) for b in report["buffers"])
    layers = tuple(
        Layer(
            entry["name"], entry["op"], entry["kernel"],
            tuple(entry.get("functions", [entry["function"]])), tuple(entry["weights"]),
            entry["macs"], _live(buffers, step),
        )
        for step, entry in enumerate(report["layers"])
    )  # fmt: skip
    return Footprint(
        report["name"],
        sections([library]),
        tuple(symbols([library])),
        report["board"],
        layers,
        buffers,
        int(report["arena_bytes"]),
        int(report["arena_lower_bound_bytes"]),
        report["stack_bytes"],
        int(report["io_bytes"]),
    )


def _live(buffers: Iterable[Buffer], step: int) -> int:
    return sum(-(-b.bytes // ALIGN) * ALIGN for b in buffers if b.first <= step <= b.last)


def by_symbol(footprint: Footprint) -> list[Share]:
    """Symbols, the largest first, and what has no name."""
    rows = [Share(s.name, _as_sections(s), note=s.object) for s in footprint.symbols]
    rows.sort(key=lambda r: (-_bytes(r), r.name))
    return [*rows, *_nonzero([Share(UNNAMED, _unnamed(footprint))])]


def by_layer(footprint: Footprint) -> list[Share]:
    """Layers in execution order, then what belongs to none."""
    owners = _Owners(footprint.layers)
    sums = [Sections() for _ in footprint.layers]
    rest = {RUN: Sections(), ARENA: Sections(), OTHER: Sections(), UNNAMED: _unnamed(footprint)}
    for symbol in footprint.symbols:
        mine = owners.of(symbol.name)
        for nth, layer in enumerate(mine):
            part = symbol.bytes // len(mine) + (nth < symbol.bytes % len(mine))
            sums[layer] += Sections(**{symbol.section: part})
        if not mine:
            rest[_reason(symbol, footprint)] += _as_sections(symbol)
    rows = [
        Share(
            x.name, total, x.op, x.kernel, x.macs, x.live_bytes, 1,
            _sharing(max(len(owners.functions[f]) for f in x.functions)),
        )
        for x, total in zip(footprint.layers, sums, strict=True)
    ]  # fmt: skip
    return rows + _nonzero(Share(name, total) for name, total in rest.items())


def by_kernel(footprint: Footprint) -> list[Share]:
    """Kernel rows in the order of their first use, then what belongs to no layer."""
    rows: dict[str, Share] = {}
    for layer in by_layer(footprint):
        name = layer.kernel or layer.name
        row = rows.get(name, Share(name, Sections(), layer.op))
        rows[name] = replace(
            row,
            sections=row.sections + layer.sections,
            macs=row.macs + layer.macs,
            live_bytes=max(row.live_bytes, layer.live_bytes),
            count=row.count + layer.count,
        )
    return list(rows.values())


VIEWS = {"layer": by_layer, "kernel": by_kernel, "symbol": by_symbol}


def changes(old: Sequence[Share], new: Sequence[Share]) -> list[Change]:
    """Rows of both builds by name, in the order of the new one, then what it no longer has."""
    before, after = _merged(old), _merged(new)
    return [
        Change(name, before.get(name), after.get(name)) for name in dict.fromkeys([*after, *before])
    ]


def _merged(rows: Sequence[Share]) -> dict[str, Share]:
    """By name; static symbols of different objects may share one."""
    out: dict[str, Share] = {}
    for row in rows:
        known = out.get(row.name)
        out[row.name] = replace(row, sections=known.sections + row.sections) if known else row
    return out


@dataclass
class _Owners:
    """Which layers (by index) use a C symbol."""

    layers: Sequence[Layer]
    functions: dict[str, list[int]] = field(default_factory=dict)
    weights: dict[str, list[int]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for i, layer in enumerate(self.layers):
            for function in layer.functions:
                self.functions.setdefault(function, []).append(i)
            for weight in dict.fromkeys(layer.weights):
                self.weights.setdefault(weight, []).append(i)

    def of(self, name: str) -> list[int]:
        if name in self.weights:
            return self.weights[name]
        if name in self.functions:
            return self.functions[name]
        # one kernel's name may begin another's: the longest is the owner of a helper
        stems = [f for f in self.functions if name.startswith((f"{f}_", f"{f}."))]
        return self.functions[max(stems, key=len)] if stems else []


def _sharing(users: int) -> str:
    return f"function shared by {users} layers" if users > 1 else ""


def _sections(share: Share | None) -> Sections:
    return share.sections if share else Sections()


def _is_arena(symbol: Symbol, footprint: Footprint) -> bool:
    named = symbol.name == "arena" and symbol.section == "bss"
    return named and footprint.arena_bytes is not None


def _reason(symbol: Symbol, footprint: Footprint) -> str:
    if _is_arena(symbol, footprint):
        return ARENA
    run, serial = f"{footprint.name}_run", f"{footprint.name}_serial"
    ends = f"{run}_in", f"{run}_parallel", f"{run}."
    return RUN if symbol.name in (run, serial) or symbol.name.startswith(ends) else OTHER


def _as_sections(symbol: Symbol) -> Sections:
    return Sections(**{symbol.section: symbol.bytes})


def _unnamed(footprint: Footprint) -> Sections:
    """What the sections hold beyond the symbols."""
    named = sum((_as_sections(s) for s in footprint.symbols), Sections())
    return footprint.sections - named


def _bytes(row: Share) -> int:
    return row.sections.rom + row.sections.bss


def _nonzero(rows: Iterable[Share]) -> list[Share]:
    return [r for r in rows if _bytes(r)]
