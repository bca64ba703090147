"""Ctrl-C in the middle of a search."""

from collections.abc import Iterator
from contextlib import contextmanager


class Interrupts:
    """Ctrl-C ends a phase, not the program."""

    def __init__(self) -> None:
        self._seen = False

    def stopped(self) -> bool:
        """Whether the user wants it to end."""
        return self._seen

    def check(self) -> None:
        """KeyboardInterrupt where it was pressed before."""
        if self._seen:
            raise KeyboardInterrupt

    @contextmanager
    def caught(self) -> Iterator[None]:
        """Go on behind the block when it is interrupted."""
        try:
            yield
        except KeyboardInterrupt:
            self._seen = True
