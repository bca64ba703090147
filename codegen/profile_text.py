"""A layer's profile for people: what `codegen profile` prints on stdout."""

import io
from collections.abc import Mapping
from typing import Any

import click
from rich.console import Console
from rich.table import Table
from rich.text import Text

from codegen.measured import PARTS
from codegen.run.virtual.explain import cycles_text
from codegen.run.virtual.inorder import ISSUE, PIPE

_BAR = 24  # characters of a bar as long as a whole pass
_USES = 6
_WIDTH = 200  # where no terminal tells
# What a full cycle says anyway, beside the figure 1.
_USUAL = {ISSUE, PIPE, ""}
_MEMORY = (
    ("load_l2", "store_l2", "missed, came from L2"),
    ("load_memory", "store_memory", "missed, came from memory"),
    ("first_load_l2", "first_store_l2", "prefetched from L2"),
    ("first_load_memory", "first_store_memory", "prefetched from memory"),
)


def print_profile(result: Mapping[str, Any]) -> None:
    """Head, caches, then trace after trace. A pipe gets whole lines without spaces at their end."""
    show = Console(highlight=False)
    if show.is_terminal:
        _print(show, result)
        return
    text = io.StringIO()
    _print(Console(file=text, highlight=False, width=_WIDTH), result)
    click.echo("\n".join(line.rstrip() for line in text.getvalue().splitlines()))


def _print(show: Console, result: Mapping[str, Any]) -> None:
    _head(show, result)
    for number, trace in enumerate(result["traces"], 1):
        _trace(show, number, trace, result["in_order"])
    others = result["others"]
    if others["traces"]:
        share = others["cycles"] / (result["layer"]["cycles"] or 1)
        show.print(f"\n{others['traces']} more traces take {share:.1%} of the layer")
    show.print(f"[dim]basis: {result['basis']}; {result['limits']}[/dim]")


def _head(show: Console, result: Mapping[str, Any]) -> None:
    layer = result["layer"]
    cycles = layer["cycles"] or 1
    speed = ""
    if layer["macs"]:
        speed = f", {layer['gflops']:.2f} GFLOP/s, {layer['peak_percent']:.0f} % of peak"
    show.print(Text.assemble((layer["name"], "bold"), f"  {layer['kernel']}"))
    show.print(
        f"{result['model']} on {result['board']} ({result['board_core']}): {layer['ms']:.3f} ms, "
        f"{layer['cycles']:,} cycles, {layer['instructions']:,} instructions{speed}"
    )
    parts = ", ".join(f"{p} {layer[p] / cycles:.0%}" for p in PARTS)
    show.print(f"{parts}; mispredicted branches {layer['events']['mispredicted']:,}")
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    table.add_column("lines of 64 bytes")
    for name in ("loads", "stores"):
        table.add_column(name, justify="right")
    for load, store, name in _MEMORY:
        counts = layer["events"][load], layer["events"][store]
        if any(counts):
            table.add_row(name, *(f"{n:,}" for n in counts))
    written = layer["events"]["write_back_l2"], layer["events"]["write_back_memory"]
    table.add_row("written back to L2", "", f"{written[0]:,}")
    if written[1]:
        table.add_row("written back to memory", "", f"{written[1]:,}")
    table.add_row("(accesses)", *(f"{layer['events'][k]:,}" for k in ("loads", "stores")))
    show.print(table)


def _trace(show: Console, number: int, trace: Mapping[str, Any], in_order: bool) -> None:
    what = "loop" if trace["loop"] else "straight"
    passes = cycles_text(trace["cycles_per_iteration"])
    show.print()
    show.print(
        Text.assemble(
            (f"trace {number}: {trace['share']:.1%} of the layer", "bold"),
            f"  {what} of {len(trace['lines'])} instructions, {trace['times']:,.0f} times x "
            f"{passes} cycles, IPC {trace['ipc'] or 0:.2f}",
        )
    )
    show.print(Text.assemble("bottleneck: ", (trace["bottleneck"], "bold yellow")))
    _bars(show, trace)
    _code(show, trace, in_order)


def _bars(show: Console, trace: Mapping[str, Any]) -> None:
    """Cycles of a pass by what they are spent on."""
    table = Table(box=None, pad_edge=False, show_header=False, padding=(0, 2, 0, 2))
    table.add_column()
    table.add_column(justify="right")
    table.add_column()
    for name, cycles in list(trace["use"].items())[:_USES]:
        part = cycles / (trace["cycles_per_iteration"] or 1)
        bar = "█" * round(min(part, 1) * _BAR)
        table.add_row(name, cycles_text(cycles), Text.assemble((bar, "cyan"), f" {part:.0%}"))
    show.print(table)


def _code(show: Console, trace: Mapping[str, Any], in_order: bool) -> None:
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    table.add_column("address", style="dim", justify="right", no_wrap=True)
    table.add_column("cycles" if in_order else "latency", justify="right", no_wrap=True)
    table.add_column("unit", style="cyan", no_wrap=True)
    table.add_column("", no_wrap=True)
    table.add_column("", style="yellow", overflow="fold")
    function = None
    for x in trace["lines"]:
        if x["function"] != function:
            function = x["function"]
            place = f"<{function}+{x['offset']:#x}>" if function else "<no symbol>"
            table.add_row("", "", "", Text(place, style="bold"), "")
        cycles = x["cycles"] if in_order else x["latency"]
        why = "" if cycles <= 1 and x["why"] in _USUAL else x["why"]
        table.add_row(f"{x['address']:x}", _cycles(cycles), x["units"], Text(x["text"]), why)
    show.print(table)


def _cycles(value: float) -> Text:
    """What issues together with the instruction before it gets a dot."""
    if not value:
        return Text("·", style="dim")
    return Text(cycles_text(value), style="" if value <= 1 else "bold")
