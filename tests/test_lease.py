"""One job at a time on one board, whoever starts it and however it ends."""

import os
import shutil
import signal
import subprocess
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest

from codegen.run import Job
from codegen.run.ssh.connection import connect
from codegen.run.ssh.lease import Lease
from codegen.run.ssh.problems import BoardProblem
from tests.ssh_board import A57, SshBoard, needs_sshd, runner

pytestmark = needs_sshd
# Reports whether another of its kind runs at this moment.
ALONE = """#!/bin/sh
mkdir "$TMPDIR/busy" && alone=true || alone=false
sleep 0.1
rmdir "$TMPDIR/busy"
echo "{\\"alone\\": $alone}"
"""
HANG = "#!/bin/sh\n: >../runs\nexec sleep 1000\n"


@pytest.fixture
def board(ssh_board):
    return ssh_board


@pytest.fixture
def script(tmp_path):
    def write(text: str) -> Job:
        path = tmp_path / "script"
        path.write_text(text)
        return Job(path)

    return write


def lease(board: SshBoard, text: str) -> None:
    """What a holder that is gone left."""
    (board.folder / "lease").symlink_to(text)


def test_jobs_take_turns(board, script):
    job = script(ALONE)
    with ThreadPoolExecutor(4) as pool:
        done = list(pool.map(lambda _: runner(lease_s=60).run(job, A57), range(4)))
    assert [d.error for d in done] == [""] * 4
    assert all(d.report["alone"] for d in done)


def test_held_by_another(board, script):
    with connect("board") as client, Lease(client, 1, 8) as held:
        outcome = runner(lease_s=0).run(script(ALONE), A57)
        assert Path(held.folder).is_dir()
    assert outcome.lost
    assert "board: the board is leased by " in outcome.error
    assert f"@{os.uname().nodename} since 20" in outcome.error
    assert not Path(held.folder).exists()
    assert runner(lease_s=0).run(script(ALONE), A57).error == ""


@pytest.mark.parametrize(
    "pid", ["999999999", str(os.getpid())], ids=["pid is gone", "pid is another's"]
)
def test_holder_that_died(board, script, pid):
    lease(board, f"{'0' * 32} {pid} 2024-01-01T00:00:00 ann@desk")
    with ThreadPoolExecutor(4) as pool:  # all find it stale at once
        done = list(pool.map(lambda _: runner(lease_s=60).run(script(ALONE), A57), range(4)))
    assert [(d.error, d.report.get("alone")) for d in done] == [("", True)] * 4


def test_killed_keeper(board, script):
    """The lease of a shell that could not clean up is taken over."""
    with connect("board") as client, Lease(client, 1, 4) as held:
        keeper = int(os.readlink(board.folder / "lease").split()[1])
        os.kill(keeper, signal.SIGKILL)
        assert runner().run(script(ALONE), A57).report == {"alone": True}
        with pytest.raises(BoardProblem, match="the board is lost"):
            held.rest(20)
    subprocess.run(("rm", "-r", held.folder), check=True)  # the one thing that stays


def test_who_is_in_the_way_is_said(board, script):
    (board.folder / "lease").mkdir()
    said = runner(lease_s=0).run(script(ALONE), A57).error
    (board.folder / "lease").rmdir()
    assert "is no lease; remove it" in said

    lease(board, f"{'0' * 32} 999999999 2024-01-01T00:00:00 ann@desk")
    (board.folder / "lease.break").mkdir()
    said = runner(lease_s=0).run(script(ALONE), A57).error
    (board.folder / "lease.break").rmdir()
    (board.folder / "lease").unlink()
    assert "leased by ann@desk since 2024-01-01T00:00:00, who is gone" in said


def test_no_room_for_a_folder(board, script):
    board.quirks("export TMPDIR=/no/such/folder")
    said = runner().run(script(ALONE), A57)
    board.quirks("")
    assert said.lost
    assert said.error == "board: no folder can be made in /no/such/folder; is the disk full?"


def test_silent_client_is_given_up(board, script, monkeypatch):
    """The connection stays, but no sign of life comes: the board ends the job by itself."""
    monkeypatch.setattr(Lease, "_beat", lambda self: None)
    outcome = runner(silence_s=1).run(script(HANG), A57)
    assert outcome.error.startswith("board: ")
    assert board.settles()


def test_silent_board_is_given_up(board, script):
    """All of the board's server freezes while a program runs."""
    frozen = []

    def freeze():
        while not list((board.folder / "tmp").glob("*/runs")):
            time.sleep(0.01)
        for session in board.sessions:
            frozen.extend(_family(session.pid))
        for pid in frozen:
            os.kill(pid, signal.SIGSTOP)

    thread = threading.Thread(target=freeze)
    thread.start()
    outcome = runner(silence_s=2).run(script(HANG), A57)
    thread.join()
    for pid in frozen:
        os.kill(pid, signal.SIGCONT)
    assert outcome.lost
    assert "the board is lost" in outcome.error or "connection broke" in outcome.error


def _family(pid: int) -> list[int]:
    """A process and those that it started."""
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return [pid, *(x for c in children for x in _family(int(c)))]


@pytest.mark.parametrize("shell", ["dash", "bash", "busybox", "mksh"])
def test_any_posix_shell(board, script, shell):
    found = shutil.which(shell)
    if not found:
        pytest.skip(f"no {shell} on this machine")
    (board.folder / "bin" / "sh").symlink_to(found)
    try:
        assert runner().run(script(ALONE), A57).report == {"alone": True}
        late = replace(script(HANG), timeout_s=0.3)
        assert runner().run(late, A57).error == "board: the program did not end within 0.3 s"
        assert board.left_behind() == []
    finally:
        (board.folder / "bin" / "sh").unlink()
