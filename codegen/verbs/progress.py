"""What a long run is at, on the terminal's stderr."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn


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
