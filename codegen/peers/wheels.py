"""Python packages for the board and for this machine: pinned, fetched with pip, unpacked in the
cache, never installed."""

import sys
import tempfile
import zipfile
from collections.abc import Callable
from pathlib import Path

from codegen.models import archive
from codegen.models.catalog import Package

NUMPY = Package("numpy", "2.4.6", "BSD-3-Clause")
ORT = Package("onnxruntime", "1.32.0", "MIT")
NCNN = Package("ncnn", "1.0.20261020", "BSD-3-Clause")
MNN = Package("MNN", "3.6.1", "Apache-2.0")
LITERT = Package("ai-edge-litert", "2.3.0", "Apache-2.0")
# Converters, which run on this machine.
PNNX = Package("pnnx", "20261020", "BSD-3-Clause")
FLATBUFFERS = Package("flatbuffers", "25.12.19", "Apache-2.0")
EMX = Package("emx-onnx-cgen", "1.4.0", "Apache-2.0")
EMX_NEEDS = (
    Package("emx-regex-cgen", "0.2.0", "Apache-2.0"),
    Package("sympy", "1.14.0", "BSD-3-Clause"),
    Package("mpmath", "1.4.1", "BSD-3-Clause"),
)

_PLATFORMS = ("manylinux_2_17", "manylinux_2_24", "manylinux_2_27", "manylinux_2_28",
              "manylinux2014")  # fmt: skip


def made(name: str, fill: Callable[[Path], None]) -> Path:
    """The folder of that name in the cache, filled where it is new: whole or not at all."""
    wanted = archive.cache_dir() / "peers" / name
    if not wanted.is_dir():
        wanted.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=wanted.parent, prefix=".partial-") as partial:
            folder = Path(partial) / "made"
            folder.mkdir()
            fill(folder)
            try:
                folder.rename(wanted)
            except OSError:
                if not wanted.is_dir():  # else another process was faster, which is as good
                    raise
    return wanted


def board_wheel(package: Package, python_version: str) -> Path:
    """An aarch64 wheel for that Python, unpacked; pure Python ones as well."""
    platforms = tuple(x for p in _PLATFORMS for x in ("--platform", f"{p}_aarch64"))
    options = ("--only-binary=:all:", *platforms, "--python-version", python_version,
               "--implementation", "cp")  # fmt: skip
    return _unpacked(package, options, f"aarch64-py{python_version}", f"py{python_version}")


def host_wheel(package: Package) -> Path:
    """A wheel for this machine's running Python, unpacked."""
    tag = f"host-py{sys.version_info.major}.{sys.version_info.minor}"
    return _unpacked(package, ("--only-binary=:all:",), tag, tag)


def _unpacked(package: Package, options: tuple[str, ...], machine: str, tag: str) -> Path:
    fetched = Package(package.name, package.version, package.licence, options)

    def unpack(folder: Path) -> None:
        with zipfile.ZipFile(archive.download(fetched, machine)) as z:
            z.extractall(folder)

    return made(f"{package.name}-{package.version}-{tag}", unpack)
