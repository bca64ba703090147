"""Bundled networks, each compiled once per session and board; a board to reach over SSH; layers to
be priced, and a store for the prices."""

import pytest

from codegen.board import load_board
from codegen.errors import CodegenError
from codegen.graph import Graph
from codegen.run import pick_runner
from codegen.signature import Signature
from codegen.store import Store
from codegen.toolchain import find_toolchain
from tests.library import Library, bundled
from tests.pricing_cases import dense_layer, kws_graph
from tests.ssh_board import Home, SshBoard, compile_program


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


@pytest.fixture(scope="session")
def ssh_program(tmp_path_factory):
    """tests/c/board_program.c for AArch64."""
    return compile_program(tmp_path_factory.mktemp("program"))


@pytest.fixture(scope="session")
def ssh_server(tmp_path_factory):
    board = SshBoard(tmp_path_factory.mktemp("board"))
    yield board
    board.die()


@pytest.fixture
def home(tmp_path, monkeypatch) -> Home:
    """The user's home is empty, without keys and agent."""
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("SSH_AUTH_SOCK", raising=False)
    return Home(tmp_path)


@pytest.fixture
def ssh_board(ssh_server, home):
    """Known to the user as `board`; nothing of a job may be left on it."""
    ssh_server.reset()
    home.write(ssh_server.ssh_config("board"), ssh_server.known_host())
    yield ssh_server
    assert ssh_server.settles(), (ssh_server.left_behind(), ssh_server.log())


@pytest.fixture
def store(tmp_path) -> Store:
    return Store(tmp_path / "store.sqlite")


@pytest.fixture
def kws() -> Graph:
    return kws_graph()


@pytest.fixture
def dense() -> Signature:
    return dense_layer()
