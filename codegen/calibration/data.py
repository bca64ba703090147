"""A user's samples, with labels and halves, as a network reads them."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from codegen.calibration.files import Row, files_of, rows_of
from codegen.calibration.ports import Port, ports_of
from codegen.calibration.preprocess import Step, parse_preprocess
from codegen.errors import CodegenError
from codegen.graph import Tensor


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
    rows: tuple[Row, ...]
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
            "--data", "no data", "samples of what the network will see",
            "name a .npz, a .npy, or a folder of these or of images",
        )  # fmt: skip
    ports, steps = ports_of(inputs), parse_preprocess(preprocess)
    files = [f for path in paths for f in files_of(path)]
    rows = tuple(row for file in files for row in rows_of(file, ports))
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


def _half(rows: Sequence[Row], half: int) -> tuple[Row, ...]:
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
