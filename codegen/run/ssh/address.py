"""Which machine an alias means, from ~/.ssh/config."""

import getpass
import glob
import io
import os
import re
from dataclasses import dataclass
from pathlib import Path

import paramiko

from codegen.errors import CodegenError

_HOST = re.compile(
    r"(?:(?P<user>[\w.][\w.+-]*)@)?"
    r"(?:\[(?P<v6>[0-9A-Fa-f:.]+(?:%\w+)?)\]|(?P<name>[\w.][\w.-]*))(?::(?P<port>\d{1,5}))?",
    re.ASCII,
)
_MOST_INCLUDES = 16  # as OpenSSH


@dataclass(frozen=True)
class Address:
    """Everything that connecting needs. `jumps` are aliases to go through, first to last; `proxy`
    is a command whose input and output are the connection. `key_name` is what known_hosts calls
    the host."""

    alias: str
    host: str
    port: int
    user: str
    key_name: str
    keys: tuple[str, ...] = ()
    only_keys: bool = False
    jumps: tuple[str, ...] = ()
    proxy: str = ""
    known_hosts: tuple[str, ...] = ()


def split_host(text: str) -> tuple[str, str, int | None]:
    """user, name and port of `user@host[:port]`; CodegenError for anything else, so that no host
    can be taken for an option or a command."""
    found = _HOST.fullmatch(text)
    port = int(found["port"]) if found and found["port"] else None
    if found is None or (port is not None and not 0 < port < 65536):
        raise CodegenError(
            "--host",
            f"{text!r}" if text else "no host is given for runner ssh",
            "an alias of ~/.ssh/config, or user@host[:port]",
            "name the board, e.g. --host pi@192.0.2.7",
        )
    return found["user"] or "", found["v6"] or found["name"], port


def find_address(text: str) -> Address:
    """What ~/.ssh/config and /etc/ssh/ssh_config say about the host; CodegenError where they
    cannot be read."""
    user, name, port = split_host(text)
    folder = Path.home() / ".ssh"
    found = _lookup(name, (folder / "config", Path("/etc/ssh/ssh_config")))
    host, port = found.get("hostname", name), port or int(found.get("port", 22))
    alias = found.get("hostkeyalias")
    known = found.get("userknownhostsfile", f"{folder}/known_hosts {folder}/known_hosts2").split()
    return Address(
        alias=text,
        host=host,
        port=port,
        user=user or found.get("user") or getpass.getuser(),
        key_name=alias or (host if port == 22 else f"[{host}]:{port}"),
        keys=tuple(map(os.path.expanduser, found.get("identityfile", ()))),
        only_keys=found.get("identitiesonly", "no").lower() == "yes",
        jumps=_jumps(found),
        proxy=_proxy(found),
        known_hosts=tuple(map(os.path.expanduser, known)),
    )


def _jumps(found: paramiko.SSHConfigDict) -> tuple[str, ...]:
    value = found.get("proxyjump", "none")
    hops = () if value.lower() == "none" else value.split(",")
    return tuple(h.strip().removeprefix("ssh://") for h in hops)


def _proxy(found: paramiko.SSHConfigDict) -> str:
    """ProxyJump wins where both are given."""
    return "" if _jumps(found) else found.get("proxycommand") or ""


def _lookup(name: str, files: tuple[Path, ...]) -> paramiko.SSHConfigDict:
    text = "\nHost *\n".join(_read(p, p.parent) for p in files)
    try:
        config = paramiko.SSHConfig()
        config.parse(io.StringIO(text))
        found = config.lookup(name)
        int(found.get("port", 22))
        return found
    # ImportError: `Match exec` needs a package that paramiko does not bring.
    except (paramiko.SSHException, ImportError, ValueError, KeyError) as e:
        raise CodegenError(
            str(files[0]),
            f"cannot be understood ({e})",
            "what OpenSSH's ssh_config allows, without Match exec",
            "correct the file",
        ) from None


def _read(path: Path, folder: Path, depth: int = 0) -> str:
    """The file with what it includes, which paramiko does not follow."""
    try:
        lines = path.read_text(errors="replace").splitlines()
    except OSError:
        return ""
    out: list[str] = []
    for line in lines:
        word, _, rest = line.strip().replace("=", " ", 1).partition(" ")
        if word.lower() != "include" or depth >= _MOST_INCLUDES:
            out.append(line)
            continue
        for pattern in rest.split():
            where = folder / os.path.expanduser(pattern.strip('"'))
            out += [_read(Path(p), folder, depth + 1) for p in sorted(glob.glob(str(where)))]
    return "\n".join(out)
