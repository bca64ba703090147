"""codegen explain: why a plan is as it is."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click
from rich.console import Console
from rich.table import Table

from codegen.plan import read_plan
from codegen.verbs.options import JSON
from rl.explain import FILE, read_explanation


@click.command()
@click.argument("plan_file", metavar="PLAN", type=click.Path(path_type=Path))
@click.option("--node", default="", metavar="NAME", help="Only nodes whose name has this in it.")
@JSON
def explain(plan_file: Path, node: str, as_json: bool) -> None:
    """For each layer of a plan.json that `codegen tune` wrote: the choice, the three best
    alternatives, and what they would have cost, changes of layout and type included."""
    plan = read_plan(plan_file)
    rows = read_explanation(plan, plan_file.with_name(FILE))
    rows = [r for r in rows if node in r["node"]]
    if as_json:
        click.echo(json.dumps(rows, indent=1))
        return
    show = Console(highlight=False)
    if not show.is_terminal:
        show = Console(highlight=False, width=180)
    for row in rows:
        show.print(_heading(row), markup=False)
        if row["alternatives"]:
            show.print(_alternatives(row))


def _heading(row: Mapping[str, Any]) -> str:
    group = f" with {', '.join(row['group'][1:])}" if row["group"] else ""
    moved = f" + {row['conversions_ms']:.4f} ms of changes" if row["conversions_ms"] else ""
    return (
        f"{row['node']}{group}: {row['kernel']} {row['layout']}{_type(row)}, "
        f"{row['layer_ms']:.4f} ms{moved} ({row['why']})"
    )


def _type(row: Mapping[str, Any]) -> str:
    """Of a layer in int8: the width of its weights, and what the outputs lose by it."""
    if not row.get("bits"):
        return ""
    lost = "" if not row["loss"] else f", loss {row['loss']:.1e}"
    return f" ({row['bits']}-bit weights{lost})"


def _alternatives(row: Mapping[str, Any]) -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, 2))
    table.add_column("", width=2)
    table.add_column("alternative", overflow="fold")
    for name in ("ms", "changes", "plan", "scratch", "flash"):
        table.add_column(name, justify="right", no_wrap=True)
    for a in row["alternatives"]:
        group = f" with {len(a['group']) - 1} more" if a["group"] else ""
        table.add_row(
            "", f"{a['kernel']} {a['layout']}{_type(a)}{group}", f"{a['layer_ms']:.4f}",
            f"{a['conversions_ms']:+.4f}", f"{a['plan_ms']:+.4f}", f"{a['scratch_bytes']:,}",
            f"{a['flash_bytes']:,}",
        )  # fmt: skip
    return table
