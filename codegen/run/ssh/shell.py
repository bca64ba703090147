"""Commands on a board. Whatever comes from outside is an argument of a script, never part of its
text."""

import select
import shlex
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import TypeVar

import paramiko

from codegen.run.ssh.problems import BoardProblem, RunProblem

# What paramiko raises where the connection is gone.
GONE = (AttributeError, OSError, EOFError, paramiko.SSHException)
T = TypeVar("T", paramiko.Channel, paramiko.SFTPClient)
_LOOK_S = 0.5  # how often a silent command is asked whether its time is over
_CHUNK = 1 << 16


@dataclass(frozen=True)
class Done:
    """A finished command. `code` is negative for a signal, as Python's subprocess has it."""

    code: int
    stdout: bytes
    stderr: bytes


def posix(script: str, *args: str) -> str:
    """A command line for any login shell that runs `script` in sh with `args` as $1, $2, ..."""
    return "exec sh -c " + " ".join(map(shlex.quote, (script, "codegen", *args)))


def start(client: paramiko.SSHClient, command: str, timeout_s: float) -> paramiko.Channel:
    """A channel in which the command runs; BoardProblem where the connection is gone."""
    try:
        channel = client.get_transport().open_session(timeout=timeout_s)
        channel.settimeout(timeout_s)
        channel.exec_command(command)
    except GONE as e:
        raise BoardProblem(f"the board takes no command ({e or type(e).__name__})") from None
    return channel


def run(
    client: paramiko.SSHClient,
    command: str,
    timeout_s: float,
    stdin: bytes = b"",
    limit: int | None = None,
    check: Callable[[], None] = lambda: None,
) -> Done:
    """Run to the end. RunProblem where it does not end in time or prints more than `limit` bytes;
    BoardProblem where the connection breaks. `check` is called now and then and may raise."""
    with quietly(start(client, command, timeout_s)) as channel:
        end = time.monotonic() + timeout_s
        _send(channel, stdin)
        out, err = bytearray(), bytearray()
        while not _ended(channel):
            left = end - time.monotonic()
            if left <= 0:
                raise RunProblem(f"the program did not end within {timeout_s:g} s")
            select.select([channel], [], [], min(left, _LOOK_S))
            check()
            _drain(channel, out, err)
            if limit is not None and len(out) + len(err) > limit:
                raise RunProblem(f"the program printed more than {limit >> 20} MiB")
        _drain(channel, out, err)
        if not channel.status_event.wait(max(end - time.monotonic(), _LOOK_S)):
            raise RunProblem(f"the program did not end within {timeout_s:g} s")
        code = channel.exit_status
    if code < 0:
        check()
        raise BoardProblem("the connection broke while a program ran")
    return Done(128 - code if code > 128 else code, bytes(out), bytes(err))


@contextmanager
def quietly(opened: T) -> Iterator[T]:
    """Close at the end; saying goodbye on a dead connection fails, which is no news."""
    try:
        yield opened
    finally:
        with suppress(*GONE):
            opened.close()


def _ended(channel: paramiko.Channel) -> bool:
    over = channel.eof_received or channel.closed
    return over and not channel.recv_ready() and not channel.recv_stderr_ready()


def _send(channel: paramiko.Channel, data: bytes) -> None:
    try:
        channel.sendall(data)
        channel.shutdown_write()
    except TimeoutError:
        raise BoardProblem("the board takes no more data") from None
    except (OSError, EOFError):
        pass  # the command ended before it read all; its exit code and words tell why


def _drain(channel: paramiko.Channel, out: bytearray, err: bytearray) -> None:
    while channel.recv_ready():
        out += channel.recv(_CHUNK)
    while channel.recv_stderr_ready():
        err += channel.recv_stderr(_CHUNK)
