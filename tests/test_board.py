"""Boards: the files that ship, and one test per way in which a user's own file can be wrong."""

import re

import pytest

from codegen.board import Board, board_names, load_board
from codegen.errors import CodegenError
from codegen.resources import boards_dir

NAMES = (
    "imx8m-mini", "jetson-nano-cpu", "local", "raspberry-pi-3b-plus", "raspberry-pi-4",
    "raspberry-pi-5", "rock-3a", "rock-pi-4-big", "rock-pi-4-little",
)  # fmt: skip


def test_names():
    assert board_names() == NAMES


@pytest.mark.parametrize("name", NAMES)
def test_shipped_board(name):
    board = load_board(name)
    assert isinstance(board, Board)
    assert board.name == name
    assert "-O2" in board.cflags
    if board.triple != "native":
        assert f"-mcpu={board.core}" in board.cflags
        assert min(board.clock_hz, board.cores, board.l1d_bytes, board.l2_bytes) > 0
    hash(board)  # a key of caches


@pytest.mark.parametrize("name", NAMES)
def test_board_file_is_short_and_holds_no_hosts(name):
    text = (boards_dir() / f"{name}.toml").read_text()
    assert len(text.splitlines()) <= 30
    assert not re.search(r"@|ssh_|host\s*=|user\s*=", text)


@pytest.fixture
def broken(tmp_path):
    """Write the Jetson's file with one replacement; returns its path."""

    def write(old: str, new: str):
        text = (boards_dir() / "jetson-nano-cpu.toml").read_text()
        assert old in text
        path = tmp_path / "mine.toml"
        path.write_text(text.replace(old, new))
        return path

    return write


def test_own_file(broken):
    board = load_board(broken("cores = 4", "cores = 2"))
    assert (board.name, board.cores, board.core) == ("mine", 2, "cortex-a57")


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("cflags =", "cflag =", r"unknown key 'cflag' \(did you mean 'cflags'\?\); known keys"),
        ("cores = 4\n", "", r"missing key 'cores'; every board has: cflags, clock_hz"),
        ("cores = 4", 'cores = "4"', r"cores = '4'; cores is a whole number"),
        ("cores = 4", "cores = true", r"cores = True; cores is a whole number"),
        ('core = "cortex-a57"', "core = 57", r"core = 57; core is a string"),
        ('isa = ["neon"]', 'isa = "neon"', r"isa = 'neon'; isa is a list of strings"),
        ('isa = ["neon"]', "isa = [1]", r"isa = \[1\]; isa is a list of strings"),
        ("cores = 4", "cores = -1", r"cores = -1; cores is 0 to 1024"),
        ("clock_hz = 1_4", "clock_hz = 1_000_4", r"clock_hz = \d+; clock_hz is 0 to 10000000000"),
        ('isa = ["neon"]', 'isa = ["neno"]', r"'neno' \(did you mean 'neon'\?\); isa is made of"),
        ('isa = ["neon"]', 'isa = ["neon", "neon"]', r"repeats itself; each word once"),
        ('"ssh"]', '"telnet"]', r"runners has 'telnet'; runners is made of: local"),
        ('"aarch64-linux-gnu"', '"aarch64-linux"', r"triple = 'aarch64-linux' \(did you mean 'aar"),
        ('core = "cortex-a57"', 'core = "Cortex A57"', r"not known \(did you mean 'cortex-a57'"),
        ('core = "cortex-a57"', 'core = "cortex-x9"',
         r"'cortex-x9' is not known \(did you mean 'cortex-x[12]'\?\); core is one of: host, "),
        ('core = "cortex-a57"', 'core = "host"', r"core = 'host' with triple = 'aarch64-linux-gnu"),
        ('"ssh"]', '"local"]', r"runner 'local' with triple = 'aarch64-linux-gnu'; this triple"),
        ('"aarch64-linux-gnu"', '"native"', r"runner 'virtual' with triple = 'native'"),
        ('qemu_cpu = "cortex-a57"', 'qemu_cpu = ""', r"qemu_cpu is empty, but runners has 'qemu'"),
        ("cores = 4", "cores 4", r"is not TOML \("),
    ],
)
def test_wrong_file(broken, old, new, said):
    path = broken(old, new)
    with pytest.raises(CodegenError, match=said) as caught:
        load_board(path)
    assert caught.value.where == str(path)


def test_missing_file(tmp_path):
    with pytest.raises(CodegenError, match="cannot be read"):
        load_board(tmp_path / "none.toml")


def test_file_that_is_not_text(tmp_path):
    (tmp_path / "bad.toml").write_bytes(b"\xff\xfe")
    with pytest.raises(CodegenError, match="is not TOML"):
        load_board(tmp_path / "bad.toml")


def test_unknown_name():
    said = r"board 'raspberry-pi-6': .*did you mean 'raspberry-pi-[45]'"
    with pytest.raises(CodegenError, match=said):
        load_board("raspberry-pi-6")
