"""codegen boards: the boards there are a file for."""

import json
from dataclasses import asdict

import click

from codegen.board import board_names, load_board
from codegen.verbs.options import JSON, print_rows


@click.command()
@JSON
def boards(as_json: bool) -> None:
    """List the boards that `--board` knows. A path to a TOML file of your own works as well."""
    known = [load_board(n) for n in board_names()]
    if as_json:
        click.echo(json.dumps([asdict(b) for b in known], indent=1))
        return
    print_rows(
        [
            {
                "board": b.name,
                "core": b.core,
                "clock": f"{b.clock_hz / 1e9:.2f} GHz" if b.clock_hz else "",
                "isa": " ".join(b.isa),
                "runners": " ".join(b.runners),
                "what it is": b.title,
            }
            for b in known
        ]
    )
