"""Kernel rows: every implementation there is, read from templates/*/kernels.toml;
candidates(layer, board) -> rows."""

import tomllib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

from codegen.board import Board
from codegen.errors import CodegenError
from codegen.resources import templates_dir
from codegen.types import DType

_TEXT = ("a string", lambda v: isinstance(v, str))
_TABLE = ("a table", lambda v: isinstance(v, dict))
# Key -> what it holds, in words and as a test.
_KEYS: Mapping[str, tuple[str, Callable[[Any], bool]]] = {
    "name": _TEXT,
    "template": _TEXT,
    "layout": ("any, nchw or nhwc", lambda v: v in ("any", "nchw", "nhwc")),
    "reads": ("nchw", lambda v: v == "nchw"),
    "dtype": (
        "a string or a list of strings",
        lambda v: all(isinstance(w, str) for w in (v if isinstance(v, list) else [v])),
    ),
    "isa": _TEXT,
    "when": _TABLE,
    "multiple_of": _TABLE,
    "at_most": _TABLE,
    "at_least": _TABLE,
    "params": _TABLE,
    "pack": _TEXT,
    "derive": _TEXT,
    "split": _TEXT,
    "inplace": ("input or residual", lambda v: v in ("input", "residual")),
    "pitch": ("true or false", lambda v: isinstance(v, bool)),
    "reals": ("true or false", lambda v: isinstance(v, bool)),
    "rate": (
        "a positive number, or a table of them by core with a default",
        lambda v: _is_rate(v) or _is_rate_table(v),
    ),
}


def _is_rate(v: Any) -> bool:
    return type(v) in (int, float) and v > 0


def _is_rate_table(v: Any) -> bool:
    return isinstance(v, dict) and "default" in v and all(map(_is_rate, v.values()))


@dataclass(frozen=True)
class Kernel:
    """One row. `rates` is the nominal work (MACs, or elements where there are none) per cycle by
    core, used only by the default plan; everything else is constraint or parameter.

    `reads`: the layout in which its first input must lie, where that is not the one of its output;
    templates, packers and sizes find it among the `params`.

    `pack` names a packer in weights.py ("" = constants in ONNX order), `derive` a function in
    derive.py that computes further sizes and scratch, `split` one in ranges.py that divides the
    output among threads ("" = computed whole). `inplace`: y may lie on an "input" of its size, or
    on the "residual". `pitch`: y's pixels may lie further apart than the number of channels, so
    that a concatenation can be written in place. `reals`: of codes it can write real values.
    """

    name: str
    family: str
    template: str
    layout: str = "any"
    reads: str = ""
    dtype: tuple[str, ...] = ("f32",)
    isa: str = "c"
    when: Mapping[str, Any] = field(default_factory=dict)
    multiple_of: Mapping[str, int] = field(default_factory=dict)
    at_most: Mapping[str, int] = field(default_factory=dict)
    at_least: Mapping[str, int] = field(default_factory=dict)
    params: Mapping[str, Any] = field(default_factory=dict)
    pack: str = ""
    derive: str = ""
    split: str = ""
    inplace: str = ""
    pitch: bool = False
    reals: bool = False
    rates: Mapping[str, float] = field(default_factory=lambda: {"default": 0.1})

    def come(self, layout: str) -> str:
        """The layout in which it wants its first input, where its output is in `layout`."""
        return self.reads or layout

    @property
    def scratch(self) -> DType:
        """Element type of its scratch, whose size `derive` gives in elements (scratch_floats)."""
        small = self.dtype in ((DType.F16.value,), (DType.I8.value,))
        return DType(self.dtype[0]) if small else DType.F32

    @property
    def peak(self) -> int:
        """Its multiply-adds in the time of one float32 multiply-add: vectors hold twice as many
        halves, and a multiplication of int8 makes 8 products."""
        return 2 if self.dtype in ((DType.F16.value,), (DType.I8.value,)) else 1

    def rate(self, core: str) -> float:
        """Nominal work per cycle on a core, named as in board files."""
        return self.rates.get(core, self.rates["default"])


@dataclass(frozen=True)
class Layer:
    """What a kernel is asked to compute: family, sizes and element types; no names, no values."""

    family: str
    dims: Mapping[str, Any]
    dtype: str


def _row(raw: dict[str, Any], family: str, path: Path) -> Kernel:
    where = f"templates/{family}/{path.name}"
    unknown = sorted(set(raw) - set(_KEYS))
    if unknown:
        raise CodegenError(
            where,
            f"unknown key {unknown[0]!r} in row {raw.get('name')!r}",
            f"known keys: {', '.join(sorted(_KEYS))}",
            "rename or remove it",
        )
    if "name" not in raw or "template" not in raw:
        raise CodegenError(
            where,
            f"row {raw.get('name', '?')!r} has no name or template",
            "both are needed",
            "add them",
        )
    for key, value in raw.items():
        holds, fits = _KEYS[key]
        if not fits(value):
            raise CodegenError(
                where,
                f"{key} = {value!r} in row {raw['name']!r}",
                f"{key} is {holds}",
                "fix the value",
            )
    if not (path.parent / raw["template"]).is_file():
        raise CodegenError(
            where,
            f"row {raw['name']!r} names template {raw['template']!r}, which does not exist",
            "a file in the same folder",
            "fix the name",
        )
    dtype = raw.get("dtype", "f32")
    if "rate" in raw:
        rate = raw.pop("rate")
        raw["rates"] = rate if isinstance(rate, dict) else {"default": rate}
    if raw.get("reads"):
        raw["params"] = {**raw.get("params", {}), "reads": raw["reads"]}
    return Kernel(
        **{
            **raw,
            "family": family,
            "template": f"{family}/{raw['template']}",
            "dtype": tuple(dtype) if isinstance(dtype, list) else (dtype,),
        }
    )


@lru_cache(maxsize=8)
def load_kernels(folder: Path | None = None) -> dict[str, Kernel]:
    """All rows by name, in file order within a family. Row 1 of a family is the portable one."""
    rows: dict[str, Kernel] = {}
    for path in sorted((folder or templates_dir()).glob("*/kernels.toml")):
        try:
            raw_rows = [dict(row) for row in tomllib.loads(path.read_text())["kernel"]]
        except (ValueError, TypeError, KeyError) as e:
            raise CodegenError(
                str(path), f"cannot be read ({e})", "a list of [[kernel]] tables", "fix the file"
            ) from None
        for raw in raw_rows:
            row = _row(raw, path.parent.name, path)
            if row.name in rows:
                raise CodegenError(
                    str(path),
                    f"kernel {row.name!r} is defined twice",
                    "names are unique",
                    "rename one",
                )
            rows[row.name] = row
    return rows


def refusal(row: Kernel, layer: Layer, isa: tuple[str, ...]) -> str:
    """Why `row` cannot compute `layer` on a core with `isa`; "" where it can."""
    if row.family != layer.family:
        return f"it computes {row.family}, not {layer.family}"
    if row.isa != "c" and row.isa not in isa:
        return f"it needs isa {row.isa!r}; the board has {', '.join(isa) or 'none'}"
    if "any" not in row.dtype and layer.dtype not in row.dtype:
        return f"it computes {'/'.join(row.dtype)}, not {layer.dtype}"
    if layer.dims.get("reals") and not row.reals:
        return "it writes codes, not real values"
    for key, wanted in row.when.items():
        allowed = wanted if isinstance(wanted, list) else [wanted]
        if layer.dims.get(key) not in allowed:
            return (
                f"it needs {key} = {'/'.join(map(str, allowed))}; here it is {layer.dims.get(key)}"
            )
    for key, unit in row.multiple_of.items():
        size = layer.dims.get(key)
        if size is None or size % unit:
            return f"it needs {key} to be a multiple of {unit}; here it is {size}"
    for key, most in row.at_most.items():
        if layer.dims[key] > most:
            return f"it needs {key} of at most {most}; here it is {layer.dims[key]}"
    for key, least in row.at_least.items():
        if layer.dims[key] < least:
            return f"it needs {key} of at least {least}; here it is {layer.dims[key]}"
    return ""


def candidates(layer: Layer, board: Board) -> list[Kernel]:
    """The rows that can compute `layer` on `board`, the portable one first."""
    return [r for r in load_kernels().values() if not refusal(r, layer, tuple(board.isa))]


def family_rows(family: str) -> list[Kernel]:
    """Every row of one family, in file order."""
    return [r for r in load_kernels().values() if r.family == family]
