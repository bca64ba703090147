"""codegen store: look at, move and tidy the file of measurements."""

import json
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TextIO

import click

from codegen.errors import CodegenError
from codegen.models.fetch import write_atomically
from codegen.pricing.stale import reasons
from codegen.store import Key, Measurement, Store, read_lines, store_path, write_lines
from codegen.store.records import conditions_of, to_dict
from codegen.store.store import matches
from codegen.verbs.options import JSON, STORE, print_rows

_FILTERS = {
    "board": "Only measurements on this board.",
    "runner": "Only those of this runner.",
    "op": "Only layers of this operator, e.g. Conv.",
    "kernel": "Only kernels whose name has this in it.",
    "layer": "Only the layers whose key begins so.",
}


def _filters(command: Callable) -> Callable:
    for name, text in reversed(_FILTERS.items()):
        command = click.option(f"--{name}", default="", help=text)(command)
    return command


@click.group()
def store() -> None:
    """List, export, import, merge and tidy the measurements that pricing has kept."""


@store.command()
@STORE
def path(store_file: Path | None) -> None:
    """Print where the file is."""
    click.echo(store_path(store_file))


@store.command()
@_filters
@STORE
@JSON
def ls(store_file: Path | None, as_json: bool, **wanted: str) -> None:
    """Show measurements: layer, kernel, cost, and where they come from."""
    found = list(_rows(store_file, wanted))
    if as_json:
        rows = [{"key": k.layer.key, **to_dict(k, m)} for k, m in found]
        click.echo(json.dumps(rows, indent=1))
        return
    print_rows([_line(k, m) for k, m in found])
    click.echo(f"{len(found)} measurements in {store_path(store_file)}")


@store.command()
@_filters
@click.option(
    "--out",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Write to this file, wholly or not at all. Default: stdout.",
)
@STORE
def export(store_file: Path | None, out: Path | None, **wanted: str) -> None:
    """Write measurements as JSON lines, in an order that depends on nothing but them."""
    text = "".join(write_lines(_rows(store_file, wanted)))
    if out is None:
        click.echo(text, nl=False)
        return
    try:
        write_atomically(out, text.encode())
    except OSError as e:
        raise CodegenError(
            "--out", f"{out} cannot be written ({e.strerror})", "a file in a writable folder",
            "choose another",
        ) from None  # fmt: skip


@store.command("import")
@click.argument("file", type=click.File("r", encoding="utf-8"))
@STORE
def import_command(file: TextIO, store_file: Path | None) -> None:
    """Add the measurements of FILE (JSON lines; - for stdin), unless newer ones are there. All of
    them or none."""
    added = Store(store_path(store_file)).add(read_lines(file, file.name))
    click.echo(f"{added} measurements added")


@store.command()
@click.argument("other", type=click.Path(path_type=Path))
@STORE
def merge(other: Path, store_file: Path | None) -> None:
    """Add the measurements of another store, unless newer ones are there."""
    if not other.is_file():
        raise CodegenError("codegen store merge", f"no file {other}", "another store", "check it")
    added = Store(store_path(store_file)).add(Store(other).rows())
    click.echo(f"{added} measurements added")


@store.command()
@click.option("--days", type=click.IntRange(0), help="Drop also what is older than this.")
@click.option("--dry-run", is_flag=True, help="Only show what would go.")
@STORE
def gc(days: int | None, dry_run: bool, store_file: Path | None) -> None:
    """Drop measurements that nothing can use any more: the kernel, the board's figures, the
    compiler or what counts the cycles is no longer the same."""
    kept = Store(store_path(store_file))
    gone = reasons(kept.rows(), days)
    print_rows([{**_line(k, m), "why": why} for (k, m), why in gone])
    if not dry_run:
        kept.delete(k for (k, _), _ in gone)
    click.echo(f"{len(gone)} measurements {'would go' if dry_run else 'dropped'}")


def _rows(
    store_file: Path | None, wanted: Mapping[str, str]
) -> Iterator[tuple[Key, Measurement]]:
    only = {k: v for k, v in wanted.items() if v}
    return (r for r in Store(store_path(store_file)).rows() if matches(r[0], only))


def _line(key: Key, measured: Measurement) -> dict[str, str]:
    return {
        "layer": key.layer.key,
        "what": str(key.layer),
        "kernel": key.kernel,
        "layout": key.layout,
        "weights": key.weights,
        "cost": _cost(measured),
        "board": key.context.board,
        "runner": key.context.runner,
        "date": measured.date,
        "conditions": _state(measured),
    }


def _cost(measured: Measurement) -> str:
    if measured.error:
        return f"failed: {measured.error.splitlines()[0][:80]}"
    return f"{measured.cycles:,}" if measured.cycles is not None else f"{measured.ns:,.0f} ns"


def _state(measured: Measurement) -> str:
    """The board's clock and heat after the run."""
    after = conditions_of(measured).get("after", {})
    clock, heat = after.get("cur_freq_hz"), after.get("temperature_c")
    words = (
        after.get("governor"),
        None if clock is None else f"{clock / 1e9:.2f} GHz",
        None if heat is None else f"{heat:.0f} °C",
    )
    return ", ".join(w for w in words if w)
