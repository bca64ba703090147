"""What measures for a verb: the virtual board, this machine, a real board, or a fleet of them."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import click

from codegen.board import Board
from codegen.run import Runner, pick_runner


@contextmanager
def measuring_runner(
    board: Board, name: str, hosts: Sequence[str], accept_host_key: bool
) -> Iterator[Runner]:
    """The named runner; without a name `virtual` where the board has it, else `local`, and `ssh`
    where hosts are given. Several hosts are a fleet, whose lost boards are told on stderr at the
    end. CodegenError as pick_runner, and where the extra for fleets is not installed."""
    if not name and not hosts:
        name = "virtual" if "virtual" in board.runners else "local"
    one = pick_runner(board, name, next(iter(hosts), ""), accept_host_key)
    if len(hosts) < 2:
        yield one
        return
    from codegen.fleet import Fleet  # Dask is slow to import

    with Fleet(hosts, board, accept_host_key) as fleet:
        yield fleet
        for host, why in fleet.lost.items():
            click.echo(f"warning: {host} was given up: {why}", err=True)
