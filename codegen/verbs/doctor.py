"""`codegen doctor`: what this machine can build and run, and what to install for the rest."""

import json
from dataclasses import asdict

import click
from rich.console import Console
from rich.table import Table

from codegen.board import Board, board_names, load_board
from codegen.health import BoardCheck, Check, check_board, check_tools
from codegen.run import pick_runner


@click.command()
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object instead of tables.")
@click.option(
    "--board",
    "only",
    metavar="BOARD",
    default="",
    help="Try this board alone; the exit status is then about it.",
)
@click.pass_context
def doctor(ctx: click.Context, as_json: bool, only: str) -> None:
    """Say what works here, what is missing and how to install it.

    Every tool that is found also compiles or runs a tiny program. The exit status is 0 if programs
    for board `local` (or for --board) can be built and run, else 1.
    """
    tools = () if only else check_tools()
    names = (only,) if only else board_names()
    boards = tuple(check_board(load_board(name), _default_runner) for name in names)
    judged = load_board(only).name if only else "local"
    ok = any(b.ok for b in boards if b.name == judged)
    if as_json:
        report = {"ok": ok, "checks": list(map(asdict, tools)), "boards": list(map(asdict, boards))}
        click.echo(json.dumps(report, indent=2))
    else:
        _show(tools, boards)
    ctx.exit(0 if ok else 1)


def _default_runner(board: Board) -> str | None:
    runner = pick_runner(board)
    return runner.name if runner else None


def _show(tools: tuple[Check, ...], boards: tuple[BoardCheck, ...]) -> None:
    console = Console(highlight=False)
    if tools:
        console.print(_tool_table(tools))
    console.print(_board_table(boards))
    lines = dict.fromkeys(t.install for t in tools if t.install)
    if lines:
        console.print("To install what is missing:")
    for line in lines:  # as it is to be typed: no markup, no line breaks
        click.echo(f"  {line}")


def _tool_table(tools: tuple[Check, ...]) -> Table:
    table = Table("tool", "", "version", "problem", title="Tools", title_justify="left")
    for t in tools:
        table.add_row(t.name, _mark(t.ok), t.version, t.problem)
    return table


def _board_table(boards: tuple[BoardCheck, ...]) -> Table:
    table = Table(
        "board", "", "runner", "compiler", "problem", title="Boards", title_justify="left"
    )
    for b in boards:
        table.add_row(b.name, _mark(b.ok), b.runner, b.compiler, b.problem)
    return table


def _mark(ok: bool) -> str:
    return "[green]works[/]" if ok else "[red]no[/]"
