"""Files to a board and back: SFTP, or `cat` where the board's sshd has no such thing (dropbear)."""

import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from io import BytesIO
from typing import Protocol

import paramiko

from codegen.run.ssh.problems import BoardProblem, RunProblem
from codegen.run.ssh.shell import GONE, posix, quietly, run

# One transfer step may take this long for each MiB on top of the time-out: 32 KiB/s.
_S_PER_MIB = 32.0
_FAREWELL_S = 2.0  # for a board that refused SFTP to say that it ended


class Files(Protocol):
    """Paths are absolute, on the board."""

    def put(self, path: str, data: bytes, executable: bool = False) -> None:
        """Write a new file that only its owner may read. RunProblem where the board cannot."""
        ...

    def get(self, path: str) -> bytes | None:
        """The file's bytes, None where there is none."""
        ...


@contextmanager
def open_files(client: paramiko.SSHClient, timeout_s: float) -> Iterator[Files]:
    """SFTP if the board speaks it within the time-out, else `cat`."""
    sftp = _sftp(client, timeout_s)
    if sftp is None:
        yield Cat(client, timeout_s)
        return
    with quietly(sftp):
        yield Sftp(client, sftp)


def _sftp(client: paramiko.SSHClient, timeout_s: float) -> paramiko.SFTPClient | None:
    """None where the board has none. Its channel is over then: dropbear ends the next one with it
    where that is opened while the first one's program still dies."""
    channel = None
    try:
        channel = client.get_transport().open_session(timeout=timeout_s)
        channel.settimeout(timeout_s)
        channel.invoke_subsystem("sftp")
        return paramiko.SFTPClient(channel)
    except (*GONE, paramiko.SFTPError):
        if channel is not None:
            with quietly(channel):
                channel.status_event.wait(_FAREWELL_S)
        return None


class Sftp:
    """Through the subsystem sftp."""

    def __init__(self, client: paramiko.SSHClient, sftp: paramiko.SFTPClient):
        self.client, self.sftp = client, sftp

    def put(self, path: str, data: bytes, executable: bool = False) -> None:
        try:
            self.sftp.putfo(BytesIO(data), path)  # compares sizes at the end
            self.sftp.chmod(path, 0o700 if executable else 0o600)
        except (*GONE, paramiko.SFTPError) as e:
            raise _reason(self.client, e, f"{len(data)} bytes cannot be written") from None

    def get(self, path: str) -> bytes | None:
        out = BytesIO()
        try:
            self.sftp.getfo(path, out)
        except FileNotFoundError:
            return None
        except (*GONE, paramiko.SFTPError) as e:
            raise _reason(self.client, e, "a result cannot be read") from None
        return out.getvalue()


class Cat:
    """Through a command's input and output."""

    def __init__(self, client: paramiko.SSHClient, timeout_s: float):
        self.client, self.timeout_s = client, timeout_s

    def put(self, path: str, data: bytes, executable: bool = False) -> None:
        mode = "700" if executable else "600"
        script = 'umask 077; cat > "$1" && chmod "$2" "$1" && wc -c < "$1"'
        time_s = self.timeout_s + len(data) / (1 << 20) * _S_PER_MIB
        done = run(self.client, posix(script, path, mode), time_s, data)
        if done.code or done.stdout.split()[-1:] != [b"%d" % len(data)]:
            said = done.stderr.decode(errors="replace").strip() or f"exit code {done.code}"
            raise RunProblem(f"{len(data)} bytes cannot be written ({said}); is its disk full?")

    def get(self, path: str) -> bytes | None:
        mark = secrets.token_hex(16)  # what comes before it is a login shell's greeting
        script = '[ -f "$1" ] || exit 44; printf %s "$2"; exec cat "$1"'
        done = run(self.client, posix(script, path, mark), self.timeout_s)
        if done.code == 44:
            return None
        if done.code:
            raise RunProblem(f"a result cannot be read ({done.stderr.decode(errors='replace')})")
        return done.stdout.partition(mark.encode())[2]


def _reason(client: paramiko.SSHClient, e: Exception, what: str) -> Exception:
    """Is it the connection, or the board's disk? For the latter SFTP says "Failure"."""
    transport = client.get_transport()
    if isinstance(e, TimeoutError | EOFError) or transport is None or not transport.is_active():
        return BoardProblem(f"the connection broke during a transfer ({e or 'no answer'})")
    return RunProblem(f"{what} ({e}); is its disk full?")
