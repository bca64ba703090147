"""Bundled networks, each compiled once per session and board."""

import pytest

from codegen.board import load_board
from codegen.errors import CodegenError
from codegen.run import pick_runner
from codegen.toolchain import find_toolchain
from tests.library import Library, bundled


@pytest.fixture(scope="session")
def build_network(tmp_path_factory):
    """build_network(model, board): skips, with the reason, where the board's code cannot run."""
    made: dict[tuple[str, str], Library] = {}

    def build(model: str, board: str) -> Library:
        try:
            find_toolchain(load_board(board))
        except CodegenError as e:
            pytest.skip(str(e))
        if pick_runner(load_board(board)) is None:
            pytest.skip(f"no runner for {board} on this machine")
        if (model, board) not in made:
            made[model, board] = bundled(model, board, tmp_path_factory.mktemp(f"{model}-{board}"))
        return made[model, board]

    return build
