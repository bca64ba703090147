"""How many threads a library may be generated for."""

from typing import Any

from codegen.board import Board
from codegen.errors import CodegenError

_MOST = 64  # where a board file does not tell its cores


def check_threads(threads: Any, board: Board, where: str) -> None:
    """CodegenError unless `threads` is a number of cores of the board."""
    most = board.cores or _MOST
    if type(threads) is not int or not 1 <= threads <= most:
        cores = f"board {board.name} has {board.cores} cores" if board.cores else "whole numbers"
        raise CodegenError(
            where, f"{threads!r} threads", f"{cores}: 1 to {most}", "name a number in this range"
        )


def check_one_thread(threads: int, where: str) -> None:
    """CodegenError for a library of several threads on the virtual board."""
    if threads > 1:
        raise CodegenError(
            where,
            f"{threads} threads on the virtual board, which counts the cycles of one core",
            "1 thread; or a clock: --runner ssh or local",
            "leave the threads away or name another runner",
        )
