"""How the runner ssh gets to a board: what goes wrong on the way, keys, jumps, ~/.ssh/config."""

import re
import shutil
import socket
import subprocess
import threading
import time
from pathlib import Path

import pytest

from codegen.errors import CodegenError
from codegen.run import Job, pick_runner
from codegen.run.ssh.address import find_address, split_host
from tests.ssh_board import A57, Relay, go, keygen, needs_sshd

# ---- boards that fail ----


@needs_sshd
@pytest.mark.parametrize("sftp", [True, False], ids=["sftp", "cat"])
def test_full_disk(ssh_board, ssh_program, sftp):
    refuse = "" if sftp else "case $SSH_ORIGINAL_COMMAND in *sftp*) exit 1;; esac"
    ssh_board.quirks(f"trap '' XFSZ; ulimit -f 100\n{refuse}")
    outcome = go(Job(ssh_program, ("copy", "a", "b")))
    assert "is its disk full?" in outcome.error
    assert "bytes cannot be written" in outcome.error


@pytest.fixture
def small_disk(ssh_board):
    """The board's /tmp as a file system of its own, of so many KiB."""
    mounted = []

    def mount(kib: int) -> None:
        if not shutil.which("mount"):
            pytest.skip("no mount on this machine")
        where = ssh_board.folder / "tmp"
        command = ("mount", "-t", "tmpfs", "-o", f"size={kib}k", "tmpfs", where)
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode:
            pytest.skip(f"no file system can be mounted here: {done.stderr.strip()}")
        mounted.append(where)

    yield mount
    settled = ssh_board.settles()
    for where in mounted:
        subprocess.run(("umount", where), check=True)
    assert settled


@needs_sshd
@pytest.mark.parametrize("sftp", [True, False], ids=["sftp", "cat"])
def test_disk_that_is_really_full(ssh_board, ssh_program, small_disk, sftp):
    """There is room for the program or for its input; the next job has room again."""
    if not sftp:
        ssh_board.quirks("case $SSH_ORIGINAL_COMMAND in *sftp*) exit 1;; esac")
    small_disk(ssh_program.stat().st_size // 1024 + 500)
    outcome = go(Job(ssh_program, ("copy", "a", "b"), {"a": bytes(1 << 20)}))
    assert re.fullmatch(r"board: 1048576 bytes cannot be written \(.*\); is its disk full\?",
                        outcome.error)  # fmt: skip
    assert ssh_board.settles()
    assert go(Job(ssh_program, ("copy", "a", "b"), {"a": b"x"}, ("b",))).outputs == {"b": b"x"}


@needs_sshd
def test_program_that_fills_the_disk(ssh_board, ssh_program, small_disk):
    small_disk(ssh_program.stat().st_size // 1024 + 500)
    outcome = go(Job(ssh_program, ("fill", "out.bin"), outputs=("out.bin",)))
    assert outcome.error == "the program ended with exit code 1: No space left on device"
    assert not outcome.outputs
    assert ssh_board.settles()
    assert go(Job(ssh_program, ("copy", "a", "b"), {"a": b"x"}, ("b",))).outputs == {"b": b"x"}


@needs_sshd
@pytest.mark.parametrize("sftp", [True, False], ids=["sftp", "cat"])
def test_cut_in_mid_push(ssh_board, home, ssh_program, sftp):
    if not sftp:
        ssh_board.quirks("case $SSH_ORIGINAL_COMMAND in *sftp*) exit 1;; esac")
    relay = Relay(ssh_board.port, 300_000)
    home.write(ssh_board.ssh_config("board", Port=relay.port), ssh_board.known_host(relay.port))
    outcome = go(Job(ssh_program, ("copy", "a", "b"), {"a": bytes(2 << 20)}))
    assert outcome.error.startswith("board: the ")
    assert outcome.lost


@needs_sshd
def test_board_dies_while_a_program_runs(ssh_board, home, ssh_program, tmp_path):
    """The server's processes are killed as soon as the program runs; the board still cleans up."""
    ssh_board.quirks(f"case $SSH_ORIGINAL_COMMAND in *./program*) : >{tmp_path}/runs;; esac")
    def kill_when_it_runs():
        while not (tmp_path / "runs").exists():
            time.sleep(0.01)
        ssh_board.cut()

    killer = threading.Thread(target=kill_when_it_runs)
    killer.start()
    outcome = go(Job(ssh_program, ("hang",)))
    killer.join()
    assert outcome.lost
    assert outcome.error.startswith("board: ")


@needs_sshd
def test_nobody_listens(ssh_board, home, ssh_program):
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    home.write(ssh_board.ssh_config("board", Port=port), "")
    outcome = go(Job(ssh_program))
    assert "cannot connect" in outcome.error
    assert "is sshd running there?" in outcome.error
    assert outcome.lost


@needs_sshd
def test_host_that_never_answers(ssh_board, home, ssh_program):
    with socket.create_server(("127.0.0.1", 0)) as silent:
        home.write(ssh_board.ssh_config("board", Port=silent.getsockname()[1]), "")
        outcome = go(Job(ssh_program), connect_s=0.3)
    assert outcome.error.startswith("board (")
    assert outcome.lost


def test_no_such_host(home):
    home.write("Host board\n  HostName no-such-host.invalid\n", "")
    outcome = go(Job(Path(__file__)))
    assert "no such host" in outcome.error
    assert outcome.lost


# ---- keys ----


@needs_sshd
def test_wrong_key(ssh_board, home, tmp_path, ssh_program):
    keygen(tmp_path / "other")
    config = ssh_board.ssh_config("board", IdentityFile=tmp_path / "other")
    home.write(config, ssh_board.known_host())
    outcome = go(Job(ssh_program))
    assert "login refused" in outcome.error
    assert "authorized_keys" in outcome.error


@needs_sshd
def test_unknown_host_key(ssh_board, home, ssh_program):
    home.write(ssh_board.ssh_config("board"), "")
    outcome = go(Job(ssh_program, ("env", "A")))
    assert "host key ssh-ed25519 SHA256:" in outcome.error
    assert "is not known" in outcome.error
    assert "--accept-host-key" in outcome.error
    # Accepted once, it is known; what the file had stays.
    (home.ssh / "known_hosts").write_text("# mine\nexample.org ssh-ed25519 AAAA")
    assert go(Job(ssh_program, ("env", "A")), accept=True).error == ""
    assert go(Job(ssh_program, ("env", "A"))).error == ""
    text = (home.ssh / "known_hosts").read_text()
    assert text.startswith("# mine\nexample.org ssh-ed25519 AAAA\n[127.0.0.1]:")


@needs_sshd
@pytest.mark.parametrize("accept", [False, True], ids=["refuse", "accept"])
def test_changed_host_key(ssh_board, home, tmp_path, ssh_program, accept):
    other = keygen(tmp_path / "other_host")
    home.write(ssh_board.ssh_config("board"), f"[127.0.0.1]:{ssh_board.port} {other}")
    outcome = go(Job(ssh_program), accept=accept)
    assert "its host key has CHANGED" in outcome.error
    assert "ssh-keygen -R" in outcome.error
    assert ssh_board.known_host() not in (home.ssh / "known_hosts").read_text()


@needs_sshd
def test_key_with_a_passphrase(ssh_board, home, tmp_path, ssh_program):
    keygen(tmp_path / "locked")
    subprocess.run(("ssh-keygen", "-q", "-p", "-N", "secret", "-P", "", "-f", tmp_path / "locked"),
                   check=True, stdout=subprocess.DEVNULL)  # fmt: skip
    config = ssh_board.ssh_config("board", IdentityFile=tmp_path / "locked")
    home.write(config, ssh_board.known_host())
    assert "ssh-add" in go(Job(ssh_program)).error


@needs_sshd
def test_agent(ssh_board, home, ssh_program, monkeypatch, tmp_path):
    agent = subprocess.Popen(("ssh-agent", "-D", "-a", tmp_path / "agent"),
                             stdout=subprocess.PIPE)  # fmt: skip
    agent.stdout.readline()  # it listens
    monkeypatch.setenv("SSH_AUTH_SOCK", str(tmp_path / "agent"))
    subprocess.run(("ssh-add", "-q", ssh_board.folder / "key"), check=True)
    home.write(ssh_board.ssh_config("board", IdentityFile="/no/such/key"), ssh_board.known_host())
    try:
        assert go(Job(ssh_program, ("env", "A"))).error == ""
    finally:
        agent.terminate()
        agent.wait()


@needs_sshd
@pytest.mark.parametrize("how", ["ProxyJump", "ProxyCommand"])
def test_through_another_host(ssh_board, home, ssh_program, how):
    """The far board knows itself as `inner`, a name that only known_hosts has."""
    far = ssh_board.ssh_config("far", HostKeyAlias="inner", **{
        "ProxyJump": {"ProxyJump": "board"},
        "ProxyCommand": {"ProxyCommand": f"ssh -F {home.ssh}/config -W %h:%p "
                         f"-o UserKnownHostsFile={home.ssh}/known_hosts board"},
    }[how])  # fmt: skip
    inner = ssh_board.known_host().replace(f"[127.0.0.1]:{ssh_board.port}", "inner")
    (home.ssh / "more").write_text(far)
    home.write(f"Include more\n{ssh_board.ssh_config('board')}", ssh_board.known_host() + inner)
    assert go(Job(ssh_program, ("env", "A")), alias="far").error == ""


def test_jump_that_leads_back(home):
    home.write("Host a\n ProxyJump b\nHost b\n ProxyJump a\n", "")
    assert "leads back to itself" in go(Job(Path(__file__)), alias="a").error


# ---- what the user writes ----


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("board", ("", "board", None)),
        ("pi@192.0.2.7:2222", ("pi", "192.0.2.7", 2222)),
        ("root@[fe80::1%eth0]:22", ("root", "fe80::1%eth0", 22)),
    ],
)
def test_host(text, found):
    assert split_host(text) == found


@pytest.mark.parametrize("text", ["", "-oProxyCommand=id", "a b", "a;id", "pi@", "x:0", "x:99999",
                                  "a@b@c", "x\n"])  # fmt: skip
def test_host_that_is_none(text):
    with pytest.raises(CodegenError, match="--host: "):
        split_host(text)


def test_command_line_wins_over_the_config(home):
    home.write("Host *\n User other\n Port 7\n IdentityFile ~/.ssh/k\n IdentitiesOnly yes\n", "")
    found = find_address("me@board:8")
    assert (found.user, found.port, found.only_keys) == ("me", 8, True)
    assert found.keys == (str(home.ssh / "k"),)
    assert find_address("board").user == "other"


def test_config_that_cannot_be_understood(home):
    home.write("Host board\n Port many\n", "")
    with pytest.raises(CodegenError, match="cannot be understood"):
        find_address("board")


@pytest.mark.parametrize(
    ("name", "host", "said"),
    [
        ("ssh", "", "no host is given for runner ssh"),
        ("qemu", "pi@x", "a host goes with runner ssh"),
        ("ssh", "a b", "an alias of ~/.ssh/config"),
    ],
)
def test_pick_runner(name, host, said):
    with pytest.raises(CodegenError, match=said):
        pick_runner(A57, name, host)


def test_a_host_means_ssh():
    assert pick_runner(A57, host="pi@192.0.2.7").name == "ssh"


def test_paramiko_is_quiet(home, capfd):
    """A failure is told once, by us."""
    home.write("Host board\n  HostName 127.0.0.1\n  Port 1\n", "")
    assert go(Job(Path(__file__))).lost
    assert capfd.readouterr() == ("", "")
