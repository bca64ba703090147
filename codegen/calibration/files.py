"""The files that hold samples: .npz, .npy, images, and folders of them."""

import zipfile
import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from codegen.calibration.ports import Port
from codegen.errors import CodegenError
from codegen.models.optional import require

IMAGES = (".jpg", ".jpeg", ".png")
_READ = (".npz", ".npy", *IMAGES)
_ONLY = ("x", "images", "data")  # arrays of a network with one input may be called so
_LABELS, _GROUP = ("y", "labels"), "group"
_PICTURE_MODES = {1: "L", 3: "RGB", 4: "RGBA"}


@dataclass(frozen=True)
class Row:
    """One sample: where it comes from, how its arrays are got, its label, and what it shares with
    the samples that must stay on its side."""

    where: str
    read: Callable[[], Mapping[str, np.ndarray]]
    label: Any = None
    group: Any = None


def files_of(path: Path) -> list[Path]:
    """The file, or what can be read in a folder and those below it, in order."""
    if path.is_file():
        return [path]
    if not path.is_dir():
        raise CodegenError(
            str(path), "no such file or folder", ".npz, .npy, images or a folder", "check the path"
        )
    found = sorted(p for p in path.rglob("*") if p.suffix.lower() in _READ and p.is_file())
    if not found:
        raise CodegenError(
            str(path), "nothing in this folder can be read", f"files: {', '.join(_READ)}",
            "name another folder",
        )  # fmt: skip
    return found


def rows_of(file: Path, ports: Sequence[Port]) -> list[Row]:
    """The samples in a file, by their shapes; values are read later. CodegenError where there are
    none that fit."""
    suffix = file.suffix.lower()
    if suffix in IMAGES:
        return [_picture_row(file, ports)]
    if suffix not in _READ:
        raise CodegenError(
            str(file), f"a file of type {suffix or '(none)'!r}", f"files: {', '.join(_READ)}",
            "save the data with numpy",
        )  # fmt: skip
    if suffix == ".npy":
        return _npy_rows(file, _only(file, ports))
    arrays = _load(file)
    names = [p.tensor.name for p in ports]
    aside = {k: v for k, v in arrays.items() if k in (*_LABELS, _GROUP) and k not in names}
    rest = {k: v for k, v in arrays.items() if k not in aside}
    return _samples(file, _named(file, rest, names), ports, aside)


def _load(file: Path) -> dict[str, np.ndarray]:
    """What a .npz holds, or the array of a .npy under the name "", mapped into memory."""
    try:
        loaded = np.load(file, mmap_mode="r", allow_pickle=False)
        if isinstance(loaded, np.ndarray):
            return {"": loaded}
        with loaded:
            return {k: loaded[k] for k in loaded.files}
    except (ValueError, OSError, EOFError, zipfile.BadZipFile, zlib.error) as e:
        raise CodegenError(
            str(file), f"cannot be read ({e})", "a .npy or .npz of numbers",
            "save it again with numpy",
        ) from None  # fmt: skip


def _npy_rows(file: Path, port: Port) -> list[Row]:
    """The file is opened for each sample: a folder may hold more of them than can be open."""
    count = len(_npy_samples(file, port))
    return [Row(f"{file}[{i}]", partial(_npy_sample, file, port, i)) for i in range(count)]


def _npy_samples(file: Path, port: Port) -> Sequence[np.ndarray]:
    (array,) = _load(file).values()
    return port.split(array, str(file))


def _npy_sample(file: Path, port: Port, i: int) -> dict[str, np.ndarray]:
    return {port.tensor.name: np.array(_npy_samples(file, port)[i])}


def _only(file: Path, ports: Sequence[Port]) -> Port:
    if len(ports) > 1:
        names = ", ".join(p.tensor.name for p in ports)
        raise CodegenError(
            str(file), f"one array for {len(ports)} inputs", f"a .npz with arrays {names}",
            "save the inputs together",
        )  # fmt: skip
    return ports[0]


def _named(
    file: Path, arrays: Mapping[str, np.ndarray], names: Sequence[str]
) -> dict[str, np.ndarray]:
    """The array of each input. The only input's may be called x, images or data, or be the only
    array."""
    if len(names) == 1 and names[0] not in arrays:
        known = [k for k in _ONLY if k in arrays]
        if len(known) == 1 or len(arrays) == 1:
            return {names[0]: arrays[known[0] if known else next(iter(arrays))]}
    missing = [n for n in names if n not in arrays]
    if missing:
        raise CodegenError(
            str(file), f"no array for input {missing[0]!r}",
            f"arrays: {', '.join(arrays) or 'none'}", "name the arrays after the model's inputs",
        )  # fmt: skip
    return {n: arrays[n] for n in names}


def _samples(
    file: Path,
    arrays: Mapping[str, np.ndarray],
    ports: Sequence[Port],
    aside: Mapping[str, np.ndarray],
) -> list[Row]:
    where = str(file)
    parts = {p.tensor.name: p.split(arrays[p.tensor.name], where) for p in ports}
    counts = {name: len(samples) for name, samples in parts.items()}
    aside = {k: v[:, 0] if v.ndim == 2 and v.shape[1] == 1 else v for k, v in aside.items()}
    counts |= {name: np.shape(v)[0] if np.ndim(v) else 0 for name, v in aside.items()}
    if len(set(counts.values())) > 1:
        found = ", ".join(f"{k} {n}" for k, n in counts.items())
        raise CodegenError(
            where, f"the arrays have different numbers of samples ({found})", "the same for each",
            "fix the data",
        )  # fmt: skip
    for name, value in aside.items():
        if value.ndim != 1:
            raise CodegenError(
                where, f"`{name}` has shape {value.shape}", "one entry per sample", "fix the data"
            )
    count = next(iter(counts.values()))
    labels = next((aside[k].tolist() for k in _LABELS if k in aside), [None] * count)
    groups = aside[_GROUP].tolist() if _GROUP in aside else [None] * count
    return [
        Row(f"{where}[{i}]", partial(_pick, parts, i), labels[i], groups[i]) for i in range(count)
    ]


def _pick(parts: Mapping[str, Sequence[np.ndarray]], i: int) -> dict[str, np.ndarray]:
    return {name: np.asarray(samples[i]) for name, samples in parts.items()}


def _picture_row(file: Path, ports: Sequence[Port]) -> Row:
    port = _only(file, ports)
    if not port.is_image or port.depth not in _PICTURE_MODES:
        raise CodegenError(
            str(file), f"an image for input {port.tensor.name!r} of shape {port.tensor.shape}",
            "inputs of 1, 3 or 4 channels take images", "give arrays in a .npz",
        )  # fmt: skip
    return Row(str(file), partial(_picture, file, port))


def _picture(file: Path, port: Port) -> dict[str, np.ndarray]:
    """[H, W, C], 0..255, grey or RGB as the input has channels."""
    pillow = require("PIL.Image", "pillow", "decoding images", str(file))
    try:
        with pillow.open(file) as picture:
            pixels = np.asarray(picture.convert(_PICTURE_MODES[port.depth]))
    except (OSError, ValueError, SyntaxError, pillow.DecompressionBombError) as e:
        raise CodegenError(
            str(file), f"cannot be read ({e})", "a JPEG or PNG image", "save it again"
        ) from None
    return {port.tensor.name: pixels.reshape(*pixels.shape[:2], port.depth)}
