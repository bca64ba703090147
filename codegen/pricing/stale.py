"""Which measurements nothing can use any more, because what was measured has changed since."""

from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from functools import lru_cache

from codegen.board import Board, board_names, load_board
from codegen.errors import CodegenError
from codegen.pricing.context import context_of
from codegen.pricing.trials import trials
from codegen.signature import NETWORK, Signature
from codegen.store import Context, Key, Measurement
from codegen.toolchain import find_toolchain

Row = tuple[Key, Measurement]


def reasons(rows: Iterable[Row], days: int | None = None) -> list[tuple[Row, str]]:
    """Rows to drop, each with why. Those of boards that do not come with codegen are judged by
    their age alone."""
    out = []
    codes = lru_cache(maxsize=None)(_codes)
    contexts = lru_cache(maxsize=None)(_context_reason)
    for row in rows:
        why = _age(row[1], days) or contexts(row[0].context) or _code_reason(row[0], codes)
        if why:
            out.append((row, why))
    return out


def _age(measured: Measurement, days: int | None) -> str:
    if days is None:
        return ""
    try:
        then = datetime.fromisoformat(measured.date)
    except ValueError:
        return "it has no date"
    old = datetime.now(UTC) - then.astimezone(UTC) > timedelta(days=days)
    return f"older than {days} days" if old else ""


def _context_reason(context: Context) -> str:
    if context.board not in board_names():
        return ""
    board = load_board(context.board)
    try:
        now = context_of(board, context.runner, find_toolchain(board))
    except CodegenError:  # no compiler here: nothing is known
        return ""
    if now.board_sha256 != context.board_sha256:
        return "the board's figures have changed"
    if now.version != context.version:
        return "what measures has changed"
    if now.toolchain != context.toolchain:
        return "the compiler or its flags have changed"
    return ""


def _code_reason(key: Key, codes) -> str:
    # the code of a network is a hash of its sources, which are not here
    if key.context.board not in board_names() or key.layer.op == NETWORK:
        return ""
    current = codes(key.layer, load_board(key.context.board))
    if (key.kernel, key.layout) not in current:
        return "no such candidate any more"
    if current[key.kernel, key.layout] != key.code:
        return "the kernel's code has changed"
    return ""


def _codes(signature: Signature, board: Board) -> dict[tuple[str, str], str]:
    """Code hash of every candidate; none where the layer itself is unknown to this codegen."""
    try:
        found = trials(signature, board)
    except (KeyError, ValueError, TypeError):
        return {}
    return {(t.candidate.kernel, t.candidate.layouts): t.code for t in found}
