"""codegen size: where the bytes of a built library are."""

import csv
import io
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import click
from rich.console import Console
from rich.table import Table

from codegen.attribution import VIEWS, Footprint, Share, changes, read_footprint
from codegen.errors import CodegenError
from codegen.footprint import KINDS, Sections
from codegen.memory_map import svg
from codegen.verbs.options import JSON

_BAR = 16  # characters
_EIGHTHS = " ▏▎▍▌▋▊▉"
_PIPE_WIDTH = 160  # a pipe gets wider lines than a narrow terminal, as in every verb


@click.command()
@click.argument(
    "paths", nargs=-1, required=True, type=click.Path(path_type=Path), metavar="DIR | FILE..."
)
@click.option(
    "--by",
    type=click.Choice(list(VIEWS)),
    help="What a row is. Default: layer for a build folder, symbol for files.",
)
@click.option("--diff", is_flag=True, help="Compare two builds: codegen size --diff OLD NEW.")
@click.option(
    "--map",
    "map_file",
    type=click.Path(path_type=Path),
    metavar="FILE.svg",
    help="Also draw the arena over time. SVG only: browsers, and most converters to PNG, read it.",
)
@JSON
@click.option("--csv", "as_csv", is_flag=True, help="Print the rows as CSV on stdout.")
def size(
    paths: tuple[Path, ...],
    by: str | None,
    diff: bool,
    map_file: Path | None,
    as_json: bool,
    as_csv: bool,
) -> None:
    """Show how many bytes of ROM and RAM a library takes, and which layers, kernels or symbols
    take them.

    DIR is the output folder of `codegen build`. FILES are objects (.o), archives (.a) or linked
    programs: these have sections and symbols only.
    """
    if as_json and as_csv:
        raise CodegenError("codegen size", "--json and --csv together", "one of them", "drop one")
    if diff and len(paths) != 2:
        raise CodegenError(
            "codegen size --diff", f"{len(paths)} paths", "two: OLD and NEW", "name two builds"
        )
    found = [read_footprint([p]) for p in paths] if diff else [read_footprint(paths)]
    view = by or ("symbol" if any(f.arena_bytes is None for f in found) else "layer")
    _check_request(found, paths, view, map_file)
    rows = [VIEWS[view](f) for f in found]
    if map_file:
        _draw(found[0], map_file)
    if as_json:
        data = _diff_json(found, rows, view) if diff else _json(found[0])
        click.echo(json.dumps(data, indent=1))
    elif as_csv:
        click.echo(
            _csv(_diff_rows(rows) if diff else [_record(r, view) for r in rows[0]]), nl=False
        )
    elif diff:
        _print_diff(found, rows, view)
    else:
        _print(found[0], rows[0], view)


def _check_request(
    found: Sequence[Footprint], paths: Sequence[Path], view: str, map_file: Path | None
) -> None:
    if view != "symbol":
        for one, path in zip(found, paths, strict=False):
            if one.arena_bytes is None:
                raise CodegenError(
                    f"codegen size --by {view}",
                    f"{path} is not a build folder",
                    "files have sections and symbols only",
                    "name the output folder of `codegen build`, or use --by symbol",
                )
    if map_file and (len(found) > 1 or found[0].arena_bytes is None):
        raise CodegenError(
            "codegen size --map",
            "--diff, or no build folder",
            "the picture is of one build folder",
            "name one output folder of `codegen build`",
        )
    if map_file and map_file.suffix.lower() != ".svg":
        raise CodegenError(
            "codegen size --map",
            f"{map_file} does not end in .svg",
            "SVG is written",
            "name it .svg and convert it with a tool of your own",
        )


def _draw(found: Footprint, path: Path) -> None:
    names = [layer.name for layer in found.layers]
    bound = found.arena_lower_bound_bytes
    try:
        path.write_text(svg(found.buffers, len(names), found.arena_bytes or 0, bound, names))
    except OSError as e:
        raise CodegenError(
            "codegen size --map",
            f"cannot write {path} ({e.strerror})",
            "a writable folder",
            "name another file",
        ) from None


def _totals(found: Footprint) -> dict[str, int | None]:
    """Bytes by what a linker script or a budget asks for."""
    total = {kind: getattr(found.sections, kind) for kind in KINDS}
    total["bss"] = found.bss
    if found.arena_bytes is not None:
        total |= dict(arena=found.arena_bytes, stack=found.stack_bytes, io=found.io_bytes)
    return {**total, "ROM": found.sections.rom, "RAM": found.ram}


def _record(row: Share, view: str) -> dict[str, Any]:
    sizes = {f"{k}_bytes": getattr(row.sections, k) for k in KINDS}
    if view == "symbol":
        return {"symbol": row.name, "object": row.note, **sizes}
    use = {"op": row.op, "kernel": row.kernel} if view == "layer" else {"layers": row.count}
    rest = {"rom_bytes": row.sections.rom, "macs": row.macs, "arena_live_bytes": row.live_bytes}
    return {view: row.name, **use, **sizes, **rest, "note": row.note}


def _json(found: Footprint) -> dict[str, Any]:
    views = ["symbol"] if found.arena_bytes is None else list(VIEWS)
    return {
        "name": found.name,
        "board": found.board,
        "totals": {f"{k.lower()}_bytes": v for k, v in _totals(found).items()},
        **{f"{v}s": [_record(r, v) for r in VIEWS[v](found)] for v in views},
    }


def _diff_rows(rows: Sequence[Sequence[Share]]) -> list[dict[str, Any]]:
    out = []
    for change in changes(*rows):
        old, new = (s.sections if s else Sections() for s in (change.old, change.new))
        sizes = {
            f"{kind}_{side}": getattr(s, kind)
            for kind in KINDS
            for side, s in (("old", old), ("new", new))
        }
        out.append({"name": change.name, "status": change.status, **sizes})
    return out


def _diff_json(found: Sequence[Footprint], rows: Any, view: str) -> dict[str, Any]:
    old, new = (_totals(f) for f in found)
    totals = {
        f"{k.lower()}_bytes": {"old": old.get(k), "new": new.get(k)}
        for k in dict.fromkeys([*new, *old])
    }
    return {"by": view, "totals": totals, "rows": _diff_rows(rows)}


def _csv(records: Sequence[dict[str, Any]]) -> str:
    out = io.StringIO()
    if records:
        writer = csv.DictWriter(out, list(records[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(records)
    return out.getvalue()


def _console() -> Console:
    show = Console(highlight=False, markup=False, emoji=False)
    return (
        show
        if show.is_terminal
        else Console(highlight=False, markup=False, emoji=False, width=_PIPE_WIDTH)
    )


def _table(name: str, *columns: str) -> Table:
    table = Table(box=None, pad_edge=False)
    table.add_column(name, overflow="fold")
    for column in columns:
        right = not column.startswith("-")
        table.add_column(
            column.lstrip("-"), no_wrap=right, overflow="fold", justify="right" if right else "left"
        )
    return table


def _n(value: int | None) -> str:
    return "?" if value is None else f"{value:,}"


def _signed(value: int) -> str:
    return f"{value:+,}" if value else "0"


def _bars(values: Sequence[int], show: Console) -> list[str]:
    """One bar per value, the longest _BAR characters; plain # where blocks cannot be printed."""
    top = max(values, default=0) or 1
    if not show.encoding.startswith("utf"):
        return ["#" * round(_BAR * v / top) for v in values]
    eighths = [round(8 * _BAR * v / top) for v in values]
    return ["█" * (n // 8) + _EIGHTHS[n % 8].strip() for n in eighths]


def _print(found: Footprint, rows: Sequence[Share], view: str) -> None:
    show = _console()
    show.print(f"{found.name} for {found.board}" if found.board else found.name)
    show.print()
    show.print(_totals_table(_totals(found)))
    if found.stack_bytes is None and found.arena_bytes is not None:
        show.print("The compiler did not tell the stack; RAM is without it.")
    show.print()
    show.print(_rows_table(rows, view, show))
    if any(r.note for r in rows) and view == "layer":
        show.print("Functions and weights that layers share are split between them equally.")


def _totals_table(total: dict[str, int | None]) -> Table:
    parts = [k for k in total if k not in ("ROM", "RAM")]
    table = _table("bytes", *parts, "total")
    for memory, inside in (("ROM", ("text", "rodata", "data")), ("RAM", parts[2:])):
        table.add_row(
            memory, *(_n(total[k]) if k in inside else "" for k in parts), _n(total[memory])
        )
    return table


def _rows_table(rows: Sequence[Share], view: str, show: Console) -> Table:
    """Kinds of section that no row has are left out; the bar is of all bytes but the arena's."""
    kinds = [k for k in KINDS if any(getattr(r.sections, k) for r in rows)]
    extra: dict[str, Callable[[Share], str]] = {
        "layer": {"arena in use": lambda r: _n(r.live_bytes) if r.count else ""},
        "kernel": {"layers": lambda r: _n(r.count) if r.count else "",
                   "MMAC": lambda r: f"{r.macs / 1e6:,.3f}" if r.macs else ""},
        "symbol": {},
    }[view]  # fmt: skip
    flash = [r.sections.rom for r in rows]
    table = _table(view, *kinds, *extra, "-ROM")
    for row, bar in zip(rows, _bars(flash, show), strict=True):
        sizes = (getattr(row.sections, k) for k in kinds)
        table.add_row(row.name, *(_n(s) if s else "" for s in sizes),
                      *(text(row) for text in extra.values()), bar)  # fmt: skip
    return table


def _print_diff(found: Sequence[Footprint], rows: Sequence[Sequence[Share]], view: str) -> None:
    show = _console()
    old, new = (_totals(f) for f in found)
    table = _table("bytes", "old", "new", "difference", "%")
    for key in dict.fromkeys([*old, *new]):
        before, after = old.get(key), new.get(key)
        step = (after or 0) - (before or 0)
        table.add_row(key, _n(before), _n(after), _signed(step),
                      f"{100 * step / before:+.1f}" if before and step else "")  # fmt: skip
    show.print(table)
    show.print()
    every = changes(*rows)
    moved = [c for c in every if c.status or c.difference != Sections()]
    kinds = [k for k in KINDS if any(getattr(c.difference, k) for c in moved)]
    table = _table(view, *kinds, "-")
    for change in moved:
        steps = (getattr(change.difference, k) for k in kinds)
        table.add_row(change.name, *(_signed(s) if s else "" for s in steps), change.status)
    if moved:
        show.print(table)
    show.print(f"{len(every) - len(moved)} of {len(every)} {view}s unchanged")
