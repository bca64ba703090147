"""A user's samples: arrays, folders of arrays and images, with labels and halves."""

import zipfile
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from codegen.calibration.ports import Port, ports_of
from codegen.calibration.preprocess import Step, parse_preprocess
from codegen.errors import CodegenError
from codegen.graph import Tensor
from codegen.models.optional import require

IMAGES = (".jpg", ".jpeg", ".png")
_READ = (".npz", ".npy", *IMAGES)
_ONLY = ("x", "images", "data")  # arrays of a network with one input may be called so
_LABELS, _GROUP = ("y", "labels"), "group"
_PICTURE_MODES = {1: "L", 3: "RGB", 4: "RGBA"}


@dataclass(frozen=True)
class _Row:
    """One sample: where it comes from, how its arrays are got, its label, and what it shares with
    the samples that must stay on its side."""

    where: str
    read: Callable[[], Mapping[str, np.ndarray]]
    label: Any = None
    group: Any = None


@dataclass(frozen=True)
class Batch:
    """What one run reads, and which samples these are. A last batch that is too small repeats its
    samples."""

    samples: tuple[int, ...]
    inputs: Mapping[str, np.ndarray]


@dataclass(frozen=True)
class Data:
    """Samples for all inputs of a network, read when they are asked for. `files` are the base names
    of what the user named, `preprocess` and `half` what `open_data` was asked for."""

    files: tuple[str, ...]
    ports: tuple[Port, ...]
    rows: tuple[_Row, ...]
    preprocess: str
    steps: tuple[Step, ...]
    half: int | None

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def labels(self) -> np.ndarray | None:
        """[samples]; None unless all have one."""
        given = [r.label for r in self.rows]
        return None if any(v is None for v in given) else np.array(given)

    def choose(self, samples: int | None, seed: int) -> tuple[int, ...]:
        """So many of the samples, drawn at random, in order; all where there are no more."""
        if samples is None or samples >= len(self):
            return tuple(range(len(self)))
        drawn = np.random.default_rng(seed).choice(len(self), samples, replace=False)
        return tuple(sorted(drawn.tolist()))

    def sample(self, i: int) -> dict[str, np.ndarray]:
        """One sample as the network reads it, by input."""
        row = self.rows[i]
        raw = row.read()
        return {
            p.tensor.name: p.finish(raw[p.tensor.name], self._steps(p), row.where)
            for p in self.ports
        }

    def _steps(self, port: Port) -> tuple[Step, ...]:
        """Preprocessing is for images; in a network of one input, for that."""
        return self.steps if port.is_image or len(self.ports) == 1 else ()

    def batches(self, samples: Iterable[int]) -> Iterator[Batch]:
        """What the runs over these samples read, one after the other."""
        waiting: list[tuple[int, dict[str, np.ndarray]]] = []
        for i in samples:
            value = self.sample(i)
            if all(value[p.tensor.name].size == p.tensor.size for p in self.ports):
                yield self._batch([(i, value)], 1)
                continue
            waiting.append((i, value))
            if len(waiting) == self.ports[0].batch:
                yield self._batch(waiting, len(waiting))
                waiting = []
        if waiting:
            yield self._batch(waiting, self.ports[0].batch)

    def _batch(self, rows: Sequence[tuple[int, Mapping[str, np.ndarray]]], size: int) -> Batch:
        values = [rows[k % len(rows)][1] for k in range(size)]
        names = {p.tensor.name: p for p in self.ports}
        return Batch(
            tuple(i for i, _ in rows),
            {n: p.stacked([v[n] for v in values]) for n, p in names.items()},
        )


def open_data(
    paths: Sequence[Path],
    inputs: Sequence[Tensor],
    preprocess: str = "",
    half: int | None = None,
) -> Data:
    """The samples in .npz and .npy files, images, and folders of these, for a network with these
    inputs. Of labelled data of which one half is calibrated on and the other tested, `half` 0 or 1:
    groups (key `group`, e.g. the photograph that a crop came from) alternate between the halves,
    and so do samples without group. CodegenError for data that do not fit; values are checked when
    they are read.
    """
    if not paths:
        raise CodegenError(
            "--data", "no data", "calibration needs samples of what the network will see",
            "name a .npz, a .npy, or a folder of these or of images",
        )  # fmt: skip
    ports, steps = ports_of(inputs), parse_preprocess(preprocess)
    files = [f for path in paths for f in _files(path)]
    rows = tuple(row for file in files for row in _rows(file, ports))
    rows = rows if half is None else _half(rows, half)
    names = tuple(p.resolve().name for p in paths)
    return Data(names, ports, rows, preprocess, steps, half)


def load_labelled(
    path: Path, inputs: Sequence[Tensor], preprocess: str = "", half: int | None = None
) -> tuple[Data, np.ndarray]:
    """The samples and their labels (key `y` or `labels`); CodegenError where there are none."""
    data = open_data([path], inputs, preprocess, half)
    if data.labels is None:
        raise CodegenError(
            str(path), "no labels", "an array `y` or `labels` with one per sample", "add it"
        )
    return data, data.labels


def _half(rows: Sequence[_Row], half: int) -> tuple[_Row, ...]:
    if half not in (0, 1):
        raise CodegenError("--half", f"{half!r}", "0 or 1", "choose one")
    keys = [("row", i) if r.group is None else ("group", r.group) for i, r in enumerate(rows)]
    side = {key: i % 2 for i, key in enumerate(dict.fromkeys(keys))}
    kept = tuple(r for r, key in zip(rows, keys, strict=True) if side[key] == half)
    if not kept:
        raise CodegenError(
            "--half", f"half {half} of {len(rows)} sample(s) is empty",
            "at least two groups", "give more data",
        )  # fmt: skip
    return kept


def _files(path: Path) -> list[Path]:
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


def _rows(file: Path, ports: Sequence[Port]) -> list[_Row]:
    suffix = file.suffix.lower()
    if suffix in IMAGES:
        return [_picture_row(file, ports)]
    if suffix not in _READ:
        raise CodegenError(
            str(file), f"a file of type {suffix or '(none)'!r}", f"files: {', '.join(_READ)}",
            "save the data with numpy",
        )  # fmt: skip
    arrays = _load(file)
    if isinstance(arrays, np.ndarray):
        return _samples(file, {_only(file, ports).tensor.name: arrays}, ports, {})
    names = [p.tensor.name for p in ports]
    aside = {k: v for k, v in arrays.items() if k in (*_LABELS, _GROUP) and k not in names}
    rest = {k: v for k, v in arrays.items() if k not in aside}
    return _samples(file, _named(file, rest, names), ports, aside)


def _load(file: Path) -> np.ndarray | dict[str, np.ndarray]:
    """Mapped into memory where the format allows it."""
    try:
        loaded = np.load(file, mmap_mode="r", allow_pickle=False)
        if isinstance(loaded, np.ndarray):
            return loaded
        with loaded:
            return {k: loaded[k] for k in loaded.files}
    except (ValueError, OSError, EOFError, zipfile.BadZipFile, zlib.error) as e:
        raise CodegenError(
            str(file), f"cannot be read ({e})", "a .npy or .npz of numbers",
            "save it again with numpy",
        ) from None  # fmt: skip


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
) -> list[_Row]:
    where = str(file)
    parts = {p.tensor.name: p.split(arrays[p.tensor.name], where) for p in ports}
    counts = {name: len(samples) for name, samples in parts.items()}
    counts |= {name: np.shape(v)[0] if np.ndim(v) else 0 for name, v in aside.items()}
    if len(set(counts.values())) > 1:
        found = ", ".join(f"{k} {n}" for k, n in counts.items())
        raise CodegenError(
            where, f"the arrays have different numbers of samples ({found})", "the same for each",
            "fix the data",
        )  # fmt: skip
    count = next(iter(counts.values()))
    labels = next((aside[k].tolist() for k in _LABELS if k in aside), [None] * count)
    groups = aside[_GROUP].tolist() if _GROUP in aside else [None] * count
    return [
        _Row(f"{where}[{i}]", partial(_pick, parts, i), labels[i], groups[i]) for i in range(count)
    ]


def _pick(parts: Mapping[str, Sequence[np.ndarray]], i: int) -> dict[str, np.ndarray]:
    return {name: np.asarray(samples[i]) for name, samples in parts.items()}


def _picture_row(file: Path, ports: Sequence[Port]) -> _Row:
    port = _only(file, ports)
    if not port.is_image or port.depth not in _PICTURE_MODES:
        raise CodegenError(
            str(file), f"an image for input {port.tensor.name!r} of shape {port.tensor.shape}",
            "inputs of 1, 3 or 4 channels take images", "give arrays in a .npz",
        )  # fmt: skip
    return _Row(str(file), partial(_picture, file, port))


def _picture(file: Path, port: Port) -> dict[str, np.ndarray]:
    """[H, W, C], 0..255, grey or RGB as the input has channels."""
    pillow = require("PIL.Image", "pillow", "decoding images", str(file))
    try:
        with pillow.open(file) as picture:
            pixels = np.asarray(picture.convert(_PICTURE_MODES[port.depth]))
    except (OSError, ValueError, SyntaxError) as e:
        raise CodegenError(
            str(file), f"cannot be read ({e})", "a JPEG or PNG image", "save it again"
        ) from None
    return {port.tensor.name: pixels.reshape(*pixels.shape[:2], port.depth)}
