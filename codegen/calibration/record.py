"""calibration.json: the range of every activation, by each method. Plain JSON, versioned, checked
before it is believed."""

import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from codegen.calibration.corrections import Corrections, unpack
from codegen.errors import CodegenError
from codegen.types import WIDTHS

SCHEMA = 1
_WIDTHS = {str(bits): bits for bits in WIDTHS}
METHODS = ("minmax", "percentile", "mse", "entropy")  # from the values of a tensor
OUTPUT = "output"  # from what the network makes of them (calibration/outputs.py)
CHOICES = (*METHODS, OUTPUT)
_KEYS = {
    "schema": int, "model_sha256": str, "method": str, "percentile": (int, float), "data": dict,
    "tensors": dict, "means": dict, "not_calibrated": dict, "sensitivity": dict,
    "rounding": dict,
}  # fmt: skip
_OPTIONAL = ("means", "not_calibrated", "sensitivity", "rounding")
_DATA = {
    "files": list, "samples": int, "seed": int, "half": (int, type(None)), "preprocess": str,
    "sha256": str, "seen": list,
}  # fmt: skip
_LARGEST = float(np.finfo(np.float32).max)
SEEN = 12  # hexadecimal digits that are kept of one run's hash


@dataclass(frozen=True)
class Range:
    """The real values that 8 bits stand for: low <= 0 <= high, so that 0 is exact (padding needs
    it). Both are 0 where a tensor never was anything else."""

    low: float
    high: float

    @staticmethod
    def around(low: float, high: float) -> "Range":
        """The least range with these values and 0 in it, in float32."""
        return Range(min(_float32(low), 0.0), max(_float32(high), 0.0))


@dataclass(frozen=True)
class DataRecord:
    """What a network was calibrated on: base names of the files, how many samples were used, and
    the SHA-256 of what the network read; `seen`: the beginning of each run's (run_hash), none in
    files of old.
    `half`: which half of the data, None for all."""

    files: tuple[str, ...]
    samples: int
    seed: int
    half: int | None
    preprocess: str
    sha256: str
    seen: tuple[str, ...] = ()


@dataclass(frozen=True)
class Calibration:
    """Ranges of the float32 activations of the optimised graph, by tensor and method.

    `method` is the chosen one of CHOICES; the others are kept beside it, but "output" only where
    it was asked for. `not_calibrated` says of
    each tensor that has no range why. `sensitivity` has, per layer and width of its weights in
    bits, what the outputs lose where it alone is in int8 (codegen/calibration/sensitivity.py);
    empty where that was not measured. `means` has the mean of each channel of the tensors that
    convolutions and dense layers read, by which biases are corrected; none in files of old.
    `rounding` has, per layer and width, which weights are not rounded to the nearest code
    (codegen/calibration/rounding.py); empty where that was not asked for.
    """

    model_sha256: str
    method: str
    percentile: float
    data: DataRecord
    tensors: Mapping[str, Mapping[str, Range]]
    not_calibrated: Mapping[str, str] = field(default_factory=dict)
    sensitivity: Mapping[str, Mapping[int, float]] = field(default_factory=dict)
    means: Mapping[str, tuple[float, ...]] = field(default_factory=dict)
    rounding: Mapping[str, Mapping[int, str]] = field(default_factory=dict)

    def range_of(self, tensor: str, method: str = "") -> Range:
        """The range of a tensor by `method`, or by the chosen one. KeyError where it has none."""
        return self.tensors[tensor][method or self.method]

    @property
    def spans(self) -> dict[str, tuple[float, float]]:
        """(low, high) of each tensor by the chosen method."""
        return {t: (self.range_of(t).low, self.range_of(t).high) for t in self.tensors}

    @property
    def corrections(self) -> Corrections:
        """Of weights."""
        return Corrections(self.means, self.rounding)

    def to_json(self) -> str:
        """The file: one line per tensor, so that two calibrations can be compared with diff."""
        head = {
            "schema": SCHEMA,
            "model_sha256": self.model_sha256,
            "method": self.method,
            "percentile": self.percentile,
            "data": {k: list(v) if isinstance(v, tuple) else v
                     for k, v in asdict(self.data).items()},
        }
        rows = {
            name: {method: [r.low, r.high] for method, r in ranges.items()}
            for name, ranges in self.tensors.items()
        }
        blocks = {
            "tensors": rows,
            "means": {n: list(at) for n, at in self.means.items()},
            "not_calibrated": self.not_calibrated,
        }
        measured = {"sensitivity": self.sensitivity, "rounding": self.rounding}
        blocks |= {key: entries for key, entries in measured.items() if entries}
        lines = [f"  {json.dumps(k)}: {json.dumps(v)}" for k, v in head.items()]
        lines += [_block(key, entries) for key, entries in blocks.items()]
        return "{\n" + ",\n".join(lines) + "\n}\n"


def _block(key: str, entries: Mapping[str, Any]) -> str:
    rows = [f"    {json.dumps(k)}: {json.dumps(v)}" for k, v in entries.items()]
    return "\n".join([f"  {json.dumps(key)}: {{", *([",\n".join(rows)] if rows else []), "  }"])


def run_hash(inputs: Mapping[str, np.ndarray]) -> str:
    """Identity of what a network reads in one run: SHA-256."""
    digest = hashlib.sha256()
    for name, array in sorted(inputs.items()):
        digest.update(f"{name}{array.dtype}{array.shape}".encode())
        digest.update(np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()


def _float32(value: float) -> float:
    """The shortest number that is read as the same float32."""
    return float(str(np.float32(value)))


def read_calibration(path: Path) -> Calibration:
    """Parse a calibration file; CodegenError where it is not one."""
    where = str(path)
    try:
        raw = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise CodegenError(
            where, "no such file", "a calibration.json is needed", "check the path"
        ) from None
    except (OSError, ValueError, RecursionError) as e:
        raise CodegenError(
            where, f"not JSON ({e})", "a file written by `codegen calibrate`", "make it again"
        ) from None
    return calibration_of_dict(raw, where)


def calibration_of_dict(raw: Any, where: str) -> Calibration:
    """The calibration that parsed JSON is; CodegenError where it is none."""
    if not isinstance(raw, dict) or raw.get("schema") != SCHEMA:
        found = raw.get("schema") if isinstance(raw, dict) else type(raw).__name__
        raise CodegenError(
            where, f"schema {found!r}", f"schema {SCHEMA} is read", "calibrate again"
        )
    _check_keys(where, "", {**dict.fromkeys(_OPTIONAL, {}), **raw}, _KEYS)
    check_method(raw["method"], where)
    _check_keys(where, "data.", {"seen": [], **raw["data"]}, _DATA)
    methods = {*METHODS, raw["method"]}
    tensors = {n: _ranges(where, n, entry, methods) for n, entry in raw["tensors"].items()}
    return Calibration(
        raw["model_sha256"],
        raw["method"],
        raw["percentile"],
        DataRecord(**{k: tuple(map(str, v)) if isinstance(v, list) else v
                      for k, v in raw["data"].items()}),
        tensors,
        {k: str(v) for k, v in raw.get("not_calibrated", {}).items()},
        {n: _losses(where, n, entry) for n, entry in raw.get("sensitivity", {}).items()},
        {n: _means(where, n, entry) for n, entry in raw.get("means", {}).items()},
        {n: _rounding(where, n, entry) for n, entry in raw.get("rounding", {}).items()},
    )


def _check_keys(where: str, prefix: str, raw: Mapping[str, Any], kinds: Mapping[str, Any]) -> None:
    unknown = sorted(set(raw) - set(kinds))
    if unknown:
        raise CodegenError(
            where, f"unknown key {prefix + unknown[0]!r}", f"known keys: {', '.join(kinds)}",
            "remove it",
        )  # fmt: skip
    for key, kind in kinds.items():
        if key not in raw:
            raise CodegenError(
                where, f"no key {prefix + key!r}", f"keys: {', '.join(kinds)}", "calibrate again"
            )
        if not isinstance(raw[key], kind) or isinstance(raw[key], bool):
            raise CodegenError(
                where, f"{prefix}{key} is {raw[key]!r}", "a value as `codegen calibrate` writes it",
                "calibrate again",
            )  # fmt: skip


def _ranges(where: str, name: str, entry: Any, methods: set[str]) -> dict[str, Range]:
    def fits(pair: Any) -> bool:
        return (
            isinstance(pair, list)
            and len(pair) == 2
            and all(type(v) in (int, float) and abs(v) <= _LARGEST for v in pair)
            and pair[0] <= 0 <= pair[1]
        )

    if (
        not isinstance(entry, dict)
        or not methods <= set(entry) <= set(CHOICES)
        or not all(map(fits, entry.values()))
    ):
        raise CodegenError(
            where, f"entry of tensor {name!r} is {entry!r}",
            f"float32 [low, high] with low <= 0 <= high for each of {', '.join(sorted(methods))}",
            "calibrate again",
        )  # fmt: skip
    return {m: Range(float(entry[m][0]), float(entry[m][1])) for m in CHOICES if m in entry}


def _means(where: str, name: str, entry: Any) -> tuple[float, ...]:
    if not isinstance(entry, list) or not all(
        type(v) in (int, float) and math.isfinite(v) for v in entry
    ):
        raise CodegenError(
            where, f"means of tensor {name!r} are {entry!r}", "a finite number for each channel",
            "calibrate again",
        )  # fmt: skip
    return tuple(map(float, entry))


def _losses(where: str, name: str, entry: Any) -> dict[int, float]:
    def fits(width: str, loss: Any) -> bool:
        return width in _WIDTHS and type(loss) in (int, float) and 0 <= loss < math.inf

    if not isinstance(entry, dict) or not all(fits(w, v) for w, v in entry.items()):
        raise CodegenError(
            where, f"sensitivity of node {name!r} is {entry!r}",
            f"a loss of 0 or more for widths of {WIDTHS[-1]} to {WIDTHS[0]} bits",
            "calibrate again",
        )  # fmt: skip
    return {_WIDTHS[w]: float(v) for w, v in entry.items()}


def _rounding(where: str, name: str, entry: Any) -> dict[int, str]:
    try:
        for packed in entry.values():
            unpack(packed)
        return {_WIDTHS[w]: packed for w, packed in entry.items()}
    except (AttributeError, KeyError, TypeError, ValueError):
        raise CodegenError(
            where, f"rounding of node {name!r} is broken",
            f"packed differences for widths of {WIDTHS[-1]} to {WIDTHS[0]} bits",
            "calibrate again",
        ) from None  # fmt: skip


def check_method(method: str, where: str) -> None:
    """CodegenError unless `method` is one of CHOICES."""
    if method not in CHOICES:
        raise CodegenError(
            where, f"unknown method {method!r}", f"methods: {', '.join(CHOICES)}", "name one"
        )


def check_calibration(calibration: Calibration, sha256: str, where: str = "calibration") -> None:
    """CodegenError unless it was made for this model: `sha256` is codegen.pipeline.model_hash."""
    if calibration.model_sha256 != sha256:
        raise CodegenError(
            where,
            f"made for model {calibration.model_sha256[:12]}…",
            f"this model is {sha256[:12]}…",
            "calibrate this model (with the same --shape)",
        )
