"""Over SSH to a board with a kernel, a /proc and a /sys of its own. Slow: it boots, and its
packages may have to be fetched; skipped, with the reason, where they cannot be had."""

import json
import shutil
from pathlib import Path

import pytest

from codegen.board import load_board
from codegen.cli import main
from codegen.errors import CodegenError
from codegen.run import Job
from tests.ssh_board import A57, keygen, runner
from tests.system_board import SystemBoard

MNIST = Path(__file__).resolve().parent.parent / "examples" / "models" / "mnist8.onnx"
_ABSENT = [n for n in ("aarch64-linux-gnu-gcc", "ssh-keygen") if not shutil.which(n)]
pytestmark = [pytest.mark.slow,
              pytest.mark.skipif(bool(_ABSENT), reason=f"no {', '.join(_ABSENT)}")]  # fmt: skip


@pytest.fixture(scope="module")
def booted(tmp_path_factory):
    folder = tmp_path_factory.mktemp("system")
    public = keygen(folder / "key")
    try:
        board = SystemBoard(folder, public)
    except CodegenError as e:
        pytest.skip(str(e))
    yield board, folder / "key"
    board.stop()


@pytest.fixture
def board(booted, home) -> SystemBoard:
    home.write(booted[0].ssh_config("board", booted[1]), "")
    return booted[0]


def codegen(*args: object) -> int:
    with pytest.raises(SystemExit) as ended:
        main([str(a) for a in args])
    return ended.value.code


def test_a_library_is_verified_on_a_kernel_of_its_own(board, home, tmp_path, capsys):
    built = tmp_path / "mnist"
    assert codegen("build", MNIST, "--board", A57.name, "--out", built, "-q") == 0
    assert codegen("verify", MNIST, built, "--host", "board") == 1
    assert "--accept-host-key" in capsys.readouterr().err
    for more in (("--accept-host-key",), ()):
        code = codegen("verify", MNIST, built, "--host", "board", "--json", *more)
        found = json.loads(capsys.readouterr().out)
        assert ([c["error"] for c in found], code) == (["", ""], 0), board.log()
    assert f"[127.0.0.1]:{board.port}" in (home.ssh / "known_hosts").read_text()


def test_the_board_is_asked_which_core_it_has_and_left_as_it_was(board, tmp_path):
    script = tmp_path / "look"
    script.write_text('#!/bin/sh\necho "{\\"part\\": \\"$(sed -n "s/^CPU part.*: //p" '
                      '/proc/cpuinfo)\\", \\"kernel\\": \\"$(uname -rm)\\", '
                      '\\"folders\\": $(ls -d /tmp/*/ | wc -l)}"\n')  # fmt: skip
    for _ in range(2):
        outcome = runner("board", accept=True).run(Job(script, ()), A57)
        assert outcome.error == ""
        assert outcome.report["part"] == "0xd07"
        assert outcome.report["kernel"].endswith("aarch64")
        assert outcome.report["folders"] == 1  # its own: those of earlier jobs are gone
    other = runner("board").run(Job(script, ()), load_board("raspberry-pi-4"))
    assert "cortex-a72" in other.error


def test_a_board_that_loses_power_is_an_error(board, tmp_path):
    script = tmp_path / "cut"
    script.write_text("#!/bin/sh\npoweroff -f\nsleep 600\n")
    outcome = runner("board", accept=True).run(Job(script, ()), A57)
    assert "the board is silent" in outcome.error or "broke" in outcome.error, outcome.error
    assert outcome.lost
    assert board.process.wait(30) is not None
