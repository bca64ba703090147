"""Options that several verbs share."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
from rich.console import Console
from rich.table import Table

from codegen.errors import CodegenError

_PIPE_WIDTH = 1000  # nothing is as wide


def parse_shapes(values: tuple[str, ...]) -> dict[str, tuple[int, ...]]:
    """input=1x3x224x224 -> {"input": (1, 3, 224, 224)}."""
    out: dict[str, tuple[int, ...]] = {}
    for value in values:
        name, equals, dims = value.rpartition("=")
        if not equals or not name or not re.fullmatch(r"[1-9]\d*(x[1-9]\d*)*", dims):
            raise CodegenError(
                "--shape",
                f"{value!r}",
                "NAME=DxDxD with positive dimensions",
                "write e.g. --shape input=1x3x224x224",
            )
        if name in out:
            raise CodegenError(
                "--shape", f"{name!r} is given twice", "once per input", "remove one"
            )
        out[name] = tuple(int(d) for d in dims.split("x"))
    return out


def _path(**kw: Any) -> click.Path:
    return click.Path(path_type=Path, **kw)


MODEL = click.argument("model", type=_path())
BOARD = click.option(
    "--board", required=True, help="Board name (see `codegen boards`) or a board TOML file."
)
SHAPE = click.option(
    "--shape",
    "shapes",
    multiple=True,
    metavar="NAME=DxDxD",
    help="Fix the shape of an input; needed where the model leaves dimensions open. Repeatable.",
)
PLAN = click.option(
    "--plan", "plan_file", type=_path(), help="Use this plan.json instead of making one."
)
THREADS = click.option(
    "--threads",
    type=int,
    help="Divide long layers among so many threads, at most the board's cores. Default: what the "
    "plan says, else 1.",
)
DTYPE = click.option(
    "--dtype",
    default="",
    metavar="f32|f16|i8",
    help="Element type in which the network is computed; f16 needs a core with fp16, i8 a "
    "--calibration. Inputs and outputs stay as the model has them. Default: what the plan says, "
    "else the model's own.",
)
CALIBRATION = click.option(
    "--calibration",
    type=click.Path(path_type=Path),
    help="Compute in int8 with the ranges of tensors in this file, which `codegen calibrate` made.",
)
RUNNER = click.option(
    "--runner",
    default="",
    help="How to run the binary: local, qemu, virtual or ssh. Default: the first of the "
    "board's runners that works here.",
)
HOST = click.option(
    "--host",
    default="",
    metavar="ALIAS",
    help="The board itself, over SSH: an alias of ~/.ssh/config, or user@host[:port].",
)
HOSTS = click.option(
    "--host",
    "hosts",
    multiple=True,
    metavar="ALIAS",
    help="The board itself, over SSH: an alias of ~/.ssh/config, or user@host[:port]. Repeatable: "
    "several boards of this kind share the work (extra [fleet]).",
)
ACCEPT_HOST_KEY = click.option(
    "--accept-host-key",
    is_flag=True,
    help="Trust a host that ~/.ssh/known_hosts does not name, and add its key there. A key that "
    "has changed is refused all the same.",
)
STORE = click.option(
    "--store",
    "store_file",
    type=_path(dir_okay=False),
    help="File of measurements. Default: $CODEGEN_STORE, else measurements.sqlite in the cache.",
)
MEASURER = click.option(
    "--runner",
    default="",
    help="What measures: virtual, local or ssh. Default: virtual where the board has it, ssh with "
    "--host.",
)
WEIGHTS = click.option(
    "--weights",
    type=click.Choice(["auto", "cold", "warm"]),
    default="auto",
    show_default=True,
    help="Where weights lie before a layer is measured: cold in memory or warm in L2. auto: warm "
    "where the whole network fits in L2.",
)
JOBS = click.option(
    "--jobs",
    default=0,
    help="Programs measured at once. Default: one per core of this machine on the virtual board, "
    "one per real board.",
)
JSON = click.option(
    "--json", "as_json", is_flag=True, help="Print the report as JSON on stdout, nothing else."
)


def verbosity(command: Callable) -> Callable:
    """-q and -v."""
    command = click.option("-q", "--quiet", is_flag=True, help="Print only errors.")(command)
    return click.option("-v", "--verbose", is_flag=True, help="Print every layer.")(command)


def console(quiet: bool) -> Console:
    """Where people read; JSON goes to stdout, this to stderr."""
    return Console(stderr=True, quiet=quiet, highlight=False, soft_wrap=True)


def print_rows(rows: list[dict[str, Any]]) -> None:
    """A table on stdout; names stay whole, and in a pipe no line is broken."""
    if not rows:
        return
    show = Console(highlight=False)
    if not show.is_terminal:
        show = Console(highlight=False, width=_PIPE_WIDTH)
    table = Table(box=None, pad_edge=False)
    for i, key in enumerate(rows[0]):
        table.add_column(key, no_wrap=i == 0, overflow="fold")
    for row in rows:
        table.add_row(*(str(v) for v in row.values()))
    show.print(table)
