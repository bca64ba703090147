"""What a long run is at, on the terminal's stderr."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    SpinnerColumn,
    TextColumn,
    TimeElapsedColumn,
)


@contextmanager
def progress(quiet: bool) -> Iterator[Callable[[str], None]]:
    """Gives a function that is told each stage ("compiling"); the line shows it with its elapsed
    time, and goes at the end. Nothing is shown where stderr is not a terminal."""
    show = Console(stderr=True)
    if quiet or not show.is_terminal:
        yield lambda text: None
        return
    columns = SpinnerColumn(), TextColumn("{task.description}"), TimeElapsedColumn()
    with Progress(*columns, console=show, transient=True) as bar:

        def stage(text: str) -> None:
            for task in bar.task_ids:
                bar.remove_task(task)
            bar.add_task(text, total=None)

        yield stage


@contextmanager
def counted(quiet: bool, text: str) -> Iterator[Callable[[int, int], None]]:
    """Gives a function that is told how many are done, and of how many; the line shows both as a
    bar after `text`, and goes at the end. Nothing is shown where stderr is not a terminal."""
    show = Console(stderr=True)
    columns = TextColumn(text), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn()
    hidden = quiet or not show.is_terminal
    with Progress(*columns, console=show, transient=True, disable=hidden) as bar:
        task = bar.add_task("", total=None)
        yield lambda done, of: bar.update(task, completed=done, total=of)
