"""A connection to a board: host keys, keys, agent, jumps, time-outs. Nobody else opens one."""

import hashlib
import logging
import socket
from base64 import b64encode
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import paramiko

from codegen.run.ssh.address import Address, find_address
from codegen.run.ssh.problems import BoardProblem

_KEEPALIVE_S = 15
_SYSTEM_HOSTS = "/etc/ssh/ssh_known_hosts"
# Every failure is told by a BoardProblem; without a handler, Python would print paramiko's too.
logging.getLogger("paramiko").addHandler(logging.NullHandler())


@contextmanager
def connect(
    host: str, accept_host_key: bool = False, timeout_s: float = 15.0
) -> Iterator[paramiko.SSHClient]:
    """Logged in at an alias or user@host[:port]; closed at the end.

    BoardProblem, which says what to do, where the host cannot be reached, its key is not the known
    one, or it lets nobody in. `timeout_s` bounds each step: name and TCP, banner, login, channel.
    """
    client = None
    with ExitStack() as opened:
        for address in _route(host, ()):
            with _explained(address, timeout_s):
                sock = _socket(address, client, timeout_s)
                opened.callback(sock.close)
                client = paramiko.SSHClient()
                opened.callback(client.close)
                _login(client, sock, address, accept_host_key, timeout_s)
        yield client


def _route(host: str, seen: tuple[str, ...]) -> tuple[Address, ...]:
    """The hosts to log in to, the board last. The first jump may have jumps of its own."""
    address = find_address(host)
    if host in seen:
        raise BoardProblem(f"{host}: its ProxyJump leads back to itself; correct ~/.ssh/config")
    first = _route(address.jumps[0], (*seen, host)) if address.jumps else ()
    return (*first, *map(find_address, address.jumps[1:]), address)


def _socket(address: Address, through: paramiko.SSHClient | None, timeout_s: float):
    if through is not None:
        target = (address.host, address.port)
        return through.get_transport().open_channel(
            "direct-tcpip", target, ("127.0.0.1", 0), timeout=timeout_s
        )
    if address.proxy:
        return paramiko.ProxyCommand(address.proxy)
    return socket.create_connection((address.host, address.port), timeout_s)


def _login(
    client: paramiko.SSHClient, sock, address: Address, accept: bool, timeout_s: float
) -> None:
    for file in (*address.known_hosts, _SYSTEM_HOSTS):
        if Path(file).is_file():
            client.load_system_host_keys(file)
    client.set_missing_host_key_policy(_UnknownKey(address, accept))
    client.connect(
        address.key_name,  # with a socket given, only known_hosts is asked for this name and port
        port=22,
        sock=sock,
        username=address.user,
        key_filename=[k for k in address.keys if Path(k).is_file()],
        allow_agent=not address.only_keys,
        look_for_keys=not address.keys,
        timeout=timeout_s,
        banner_timeout=timeout_s,
        auth_timeout=timeout_s,
        channel_timeout=timeout_s,
    )
    client.get_transport().set_keepalive(_KEEPALIVE_S)


class _UnknownKey(paramiko.MissingHostKeyPolicy):
    """Refuse, or trust and remember as OpenSSH's `StrictHostKeyChecking=accept-new` does: one line
    more in the user's file, which paramiko's own policy would write anew."""

    def __init__(self, address: Address, accept: bool):
        self.address, self.accept = address, accept

    def missing_host_key(self, client, hostname, key) -> None:
        if not self.accept:
            raise BoardProblem(
                f"{self.address.alias}: its host key {key.get_name()} {_fingerprint(key)} is not "
                f"known; compare it on the board (ssh-keygen -l), then add --accept-host-key once"
            )
        path = Path(self.address.known_hosts[0])
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        old = path.read_bytes() if path.is_file() else b""
        with path.open("ab") as f:
            f.write(b"\n" if old and not old.endswith(b"\n") else b"")
            f.write(paramiko.hostkeys.HostKeyEntry([hostname], key).to_line().encode())


def _fingerprint(key: paramiko.PKey) -> str:
    """As OpenSSH prints it."""
    return "SHA256:" + b64encode(hashlib.sha256(key.asbytes()).digest()).decode().rstrip("=")


@contextmanager
def _explained(address: Address, timeout_s: float) -> Iterator[None]:
    """Every way in which connecting fails, as one sentence."""
    at = f"{address.alias} ({address.user}@{address.host}:{address.port})"
    try:
        yield
    except paramiko.BadHostKeyException as e:
        raise BoardProblem(
            f"{at}: its host key has CHANGED: known is {_fingerprint(e.expected_key)}, now it is "
            f"{_fingerprint(e.key)}; someone may be in between, or the board was set up anew: "
            f"then ssh-keygen -R '{address.key_name}'"
        ) from None
    except paramiko.PasswordRequiredException:
        raise BoardProblem(f"{at}: the key needs a passphrase; give it to ssh-agent with "
                           "ssh-add") from None  # fmt: skip
    except paramiko.AuthenticationException as e:
        raise BoardProblem(
            f"{at}: login refused ({e}); keys of ssh-agent, IdentityFile in ~/.ssh/config and "
            "~/.ssh/id_* are tried, no passwords: put one of their public keys into the board's "
            "authorized_keys"
        ) from None
    except TimeoutError:
        raise BoardProblem(f"{at}: no answer within {timeout_s:g} s; is the board on?") from None
    except socket.gaierror as e:
        raise BoardProblem(f"{at}: no such host ({e.strerror}); correct --host or ~/.ssh/config"
                           ) from None  # fmt: skip
    except (OSError, EOFError, paramiko.SSHException, ValueError) as e:
        raise BoardProblem(f"{at}: cannot connect ({e or type(e).__name__}); is sshd running "
                           "there?") from None  # fmt: skip
