"""Packages of Debian: downloaded with apt-get, and read with dpkg-deb without installing them."""

import subprocess
from collections.abc import Sequence
from pathlib import Path

from codegen.errors import CodegenError
from codegen.models.catalog import DebianPackage

# Tuples so that tests can put a program that fails in their place.
APT_GET, DPKG_DEB = ("apt-get",), ("dpkg-deb",)


def download(package: DebianPackage, folder: Path) -> None:
    """Put the package's .deb, in the version that this machine's sources have, into a new
    folder."""
    folder.mkdir()
    _run([*APT_GET, "--quiet", "download", package.name], folder, package)


def tar_of(path: Path, package: DebianPackage) -> bytes:
    """The files of a .deb as a tar archive."""
    return _run([*DPKG_DEB, "--fsys-tarfile", path.name], path.parent, package)


def _run(command: Sequence[str], folder: Path, package: DebianPackage) -> bytes:
    try:
        result = subprocess.run(command, check=True, capture_output=True, cwd=folder)
    except (OSError, subprocess.CalledProcessError) as e:
        lines = (getattr(e, "stderr", b"") or b"").decode(errors="replace").splitlines()
        raise CodegenError(
            f"package {package.requirement}",
            f"{command[0]} failed ({lines[-1].strip() if lines else e})",
            "a machine with apt-get and dpkg-deb, such as Debian's, whose sources have it",
            f"check `apt-get update` and `apt-get download {package.name}`, then fetch again",
        ) from None
    return result.stdout
