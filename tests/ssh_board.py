"""Boards for the tests: real OpenSSH servers on loopback, without privileges, which execute AArch64
programs under qemu. What their kernel says about clocks and heat is a folder that a test writes."""

import contextlib
import getpass
import math
import os
import shutil
import signal
import socket
import subprocess
import threading
import time
from dataclasses import replace
from pathlib import Path

import pytest

from codegen.board import load_board
from codegen.run import Job, Outcome
from codegen.run.ssh import Limits, SshRunner
from codegen.toolchain import find_qemu

HERE = Path(__file__).parent / "c"
SSHD = shutil.which("sshd") or shutil.which("sshd", path="/usr/sbin:/usr/local/sbin")
CROSS = shutil.which("aarch64-linux-gnu-gcc")
CC = shutil.which("gcc") or shutil.which("cc")
SFTP = next((p for p in ("/usr/lib/openssh/sftp-server", "/usr/libexec/openssh/sftp-server",
                         "/usr/lib/ssh/sftp-server") if Path(p).is_file()), "")  # fmt: skip
_ABSENT = [n for n, f in (("sshd", SSHD), ("ssh-keygen", shutil.which("ssh-keygen")), ("gcc", CC),
                          ("aarch64-linux-gnu-gcc", CROSS), ("qemu-aarch64", find_qemu()))
           if not f]  # fmt: skip
needs_sshd = pytest.mark.skipif(bool(_ABSENT), reason=f"no {', '.join(_ABSENT)} on this machine")
A57 = load_board("jetson-nano-cpu")
QUICK = Limits(connect_s=10.0, lease_s=10.0, silence_s=8.0, settle_s=0.0)
# Where programs are really timed: under an emulator on a machine with other work nothing is steady.
UNSTEADY = replace(QUICK, lease_s=60.0, silence_s=30.0, width=math.inf, drift=math.inf)

_CONFIG = """
HostKey {folder}/host_key
AuthorizedKeysFile {folder}/authorized_keys
ForceCommand {folder}/shell
Subsystem sftp {sftp}
PidFile none
UsePAM no
StrictModes no
PasswordAuthentication no
KbdInteractiveAuthentication no
PermitRootLogin yes
AllowTcpForwarding yes
SetEnv HOME={folder}
LogLevel ERROR
"""

# The board's own /tmp, /sys and /proc/cpuinfo, and programs through qemu. `quirks` is the tests'.
_SHELL = """#!/bin/sh
export TMPDIR={folder}/tmp PATH={folder}/bin:$PATH BOARD_QEMU={qemu}
. {folder}/quirks
case $SSH_ORIGINAL_COMMAND in
    */sftp-server*) exec $SSH_ORIGINAL_COMMAND ;;
esac
command=$(printf %s "$SSH_ORIGINAL_COMMAND" | sed -e 's#/tmp/codegen-lease#{folder}/lease#g' \\
    -e 's#/sys/#{folder}/sys/#g' -e 's#/proc/cpuinfo#{folder}/cpuinfo#g')
export LD_PRELOAD={folder}/foreign_exec.so
exec /bin/sh -c "$command"
"""


def keygen(path: Path) -> str:
    """A new key pair; the public half."""
    subprocess.run(("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", path), check=True)
    return path.with_suffix(".pub").read_text()


class SshBoard:
    """One server. `quirks` are lines of its shell, `system` its files under /sys."""

    def __init__(self, folder: Path):
        self.folder, self.sessions = folder, []
        for name in ("tmp", "bin", "sys"):
            (folder / name).mkdir(parents=True)
        keygen(folder / "host_key")
        (folder / "authorized_keys").write_text(keygen(folder / "key"))
        (folder / "sshd_config").write_text(_CONFIG.format(folder=folder, sftp=SFTP))
        (folder / "shell").write_text(_SHELL.format(folder=folder, qemu=find_qemu()))
        (folder / "shell").chmod(0o755)
        self.reset()
        subprocess.run((CC, "-shared", "-fPIC", HERE / "foreign_exec.c", "-o",
                        folder / "foreign_exec.so", "-ldl"), check=True)  # fmt: skip
        if os.getuid() == 0:  # sshd drops its privileges into this folder
            Path("/run/sshd").mkdir(mode=0o755, exist_ok=True)
        self.start()

    def start(self) -> None:
        """Listen on a free port; each connection gets an sshd of its own."""
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port = self.listener.getsockname()[1]
        threading.Thread(target=self._serve, args=(self.listener,), daemon=True).start()

    def _serve(self, listener: socket.socket) -> None:
        command = (SSHD, "-i", "-e", "-f", str(self.folder / "sshd_config"))
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            with connection, (self.folder / "log").open("ab") as log:
                self.sessions.append(subprocess.Popen(
                    command, stdin=connection, stdout=connection, stderr=log,
                    start_new_session=True))  # fmt: skip

    def die(self) -> None:
        """No more connections, and the present ones break."""
        with contextlib.suppress(OSError):
            self.listener.shutdown(socket.SHUT_RDWR)
        self.listener.close()
        self.cut()

    def cut(self) -> None:
        for session in self.sessions:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(session.pid, signal.SIGKILL)
            session.wait()
        self.sessions.clear()

    def reset(self) -> None:
        """No quirks, and a kernel that tells nothing."""
        self.quirks("")
        self.system()
        (self.folder / "cpuinfo").write_text("")

    def log(self) -> str:
        return (self.folder / "log").read_text()

    def quirks(self, text: str) -> None:
        (self.folder / "quirks").write_text(text)

    def system(self, **files: str) -> None:
        """Files under /sys; `__` stands for a slash."""
        shutil.rmtree(self.folder / "sys")
        for name, text in {"devices__system__cpu__x": "", **files}.items():
            path = self.folder / "sys" / name.replace("__", "/")
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)

    def left_behind(self) -> list[str]:
        """Files, leases and programs that a job left on the board."""
        files = [str(p) for p in (self.folder / "tmp").iterdir()]
        files += [str(p) for p in self.folder.glob("lease*")]
        return files + [f"process {p}" for p in _processes(self.folder)]

    def settles(self, seconds: float = 20.0) -> bool:
        """Whether nothing is left behind, at the latest after so long."""
        end = time.monotonic() + seconds
        while self.left_behind():
            if time.monotonic() > end:
                return False
            time.sleep(0.05)
        return True

    def ssh_config(self, alias: str, **options: object) -> str:
        """A block of ~/.ssh/config for this board."""
        lines = {"HostName": "127.0.0.1", "Port": self.port, "User": getpass.getuser(),
                 "IdentityFile": self.folder / "key", **options}  # fmt: skip
        return f"Host {alias}\n" + "".join(f"    {k} {v}\n" for k, v in lines.items())

    def known_host(self, port: int | None = None) -> str:
        """A line of ~/.ssh/known_hosts for this board."""
        public = (self.folder / "host_key.pub").read_text()
        return f"[127.0.0.1]:{port or self.port} {public}"


def _processes(folder: Path) -> list[str]:
    """Those that work in the board's /tmp, and its keepers."""
    out = []
    for process in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            command = (process / "cmdline").read_bytes().replace(b"\0", b" ").decode()
            where = os.readlink(process / "cwd")
            if where.startswith(f"{folder}/tmp") or f"lock={folder}/lease" in command:
                out.append(process.name)
    return out


class Home:
    """The user's ~/.ssh, which tests point HOME at."""

    def __init__(self, folder: Path):
        self.ssh = folder / ".ssh"
        self.ssh.mkdir()

    def write(self, config: str, known_hosts: str) -> None:
        (self.ssh / "config").write_text(config)
        (self.ssh / "known_hosts").write_text(known_hosts)


def runner(alias: str = "board", accept: bool = False, **limits: float) -> SshRunner:
    return SshRunner(alias, accept, replace(QUICK, **limits))


def go(job: Job, alias: str = "board", **options: object) -> Outcome:
    return runner(alias, **options).run(job, A57)


def compile_program(folder: Path) -> Path:
    """tests/c/board_program.c for AArch64."""
    path = folder / "board_program"
    subprocess.run((CROSS, "-O1", "-static", HERE / "board_program.c", "-o", path), check=True)
    return path


class Relay:
    """A connection that goes through here and breaks after `limit` bytes from the client."""

    def __init__(self, port: int, limit: int):
        self.target, self.limit = port, limit
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port = self.listener.getsockname()[1]
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        client, _ = self.listener.accept()
        server = socket.create_connection(("127.0.0.1", self.target))
        threading.Thread(target=_pump, args=(server, client), daemon=True).start()
        _pump(client, server, self.limit)
        for s in (client, server, self.listener):
            s.close()


def _pump(source: socket.socket, target: socket.socket, limit: int | None = None) -> None:
    sent = 0
    with contextlib.suppress(OSError):
        while data := source.recv(16384):
            target.sendall(data)
            sent += len(data)
            if limit is not None and sent > limit:
                break
        for s in (source, target):
            s.shutdown(socket.SHUT_RDWR)

