"""What is known about a board, from one flat TOML file with strict keys. Hardware is data here."""

import difflib
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from codegen.cores import HOST, PARTS
from codegen.cycle_model import CycleModel, read_cycle_model
from codegen.errors import CodegenError
from codegen.resources import boards_dir

ISAS = ("neon", "fp16", "dotprod", "i8mm")
RUNNERS = ("local", "qemu", "virtual", "ssh")
CORES = (HOST, *sorted(PARTS))
TRIPLES = ("aarch64-linux-gnu", "native")

# Inclusive ranges; 0 means "not known" or "not limited".
_RANGES = {
    "clock_hz": (0, 10_000_000_000),
    "cores": (0, 1024),
    "l1d_bytes": (0, 1 << 24),
    "l2_bytes": (0, 1 << 30),
    "ram_bytes": (0, 1 << 50),
    "flash_bytes": (0, 1 << 50),
}
_CHOICES = {"isa": ISAS, "runners": RUNNERS}


@dataclass(frozen=True)
class Board:
    """One board; `name` is the file's name without `.toml`, every other field is a key of the file.

    Sizes are bytes, `clock_hz` is hertz, and 0 means not known or not limited. `l2_bytes` is the
    last cache before memory that the cycle model knows. `triple` is "native" for the machine that
    codegen runs on. `cflags` are gcc flags, `qemu_cpu` is the `-cpu` of qemu-aarch64, `runners` is
    best first. `cycle_model` is the file's table of that name, which only the runner `virtual`
    needs.
    """

    name: str
    title: str
    core: str
    isa: tuple[str, ...]
    clock_hz: int
    cores: int
    l1d_bytes: int
    l2_bytes: int
    ram_bytes: int
    flash_bytes: int
    triple: str
    cflags: tuple[str, ...]
    qemu_cpu: str
    runners: tuple[str, ...]
    cycle_model: CycleModel | None = None


# Key -> type in the file; a tuple in the dataclass is a list in TOML.
_KEYS = {f.name: f.type for f in fields(Board) if f.name not in ("name", "cycle_model")}


def board_names() -> tuple[str, ...]:
    """Names of the boards that come with codegen, sorted."""
    return tuple(sorted(p.stem for p in boards_dir().glob("*.toml")))


def load_board(name_or_path: str | Path) -> Board:
    """The board of that name, or the one in a file of the user's own (anything ending in `.toml`).

    CodegenError for a name or file that does not exist and for whatever is wrong in the file.
    """
    text = str(name_or_path)
    if text.endswith(".toml"):
        return _read(Path(text), text)
    if text not in board_names():
        raise CodegenError(
            f"board {text!r}", "there is no such board",
            f"boards: {', '.join(board_names())}" + _near(text, board_names()),
            "name one of them, or give the path of a .toml file of your own",
        )
    return _read(boards_dir() / f"{text}.toml", f"boards/{text}.toml")


def _read(path: Path, where: str) -> Board:
    try:
        table = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as e:
        raise CodegenError(where, f"cannot be read ({e.strerror})", "a readable TOML file",
                           "check the path") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as e:
        raise CodegenError(where, f"is not TOML ({e})", "TOML 1.0 in UTF-8",
                           "correct the file") from None
    model = table.pop("cycle_model", None)
    _check_keys(table, where)
    for key, value in table.items():
        _check_type(key, value, where)
        _check_value(key, value, where)
    _check_together(table, where)
    values = {k: tuple(v) if isinstance(v, list) else v for k, v in table.items()}
    if model is not None:
        model = read_cycle_model(model, table["l1d_bytes"], table["l2_bytes"], where)
    return Board(name=path.stem, cycle_model=model, **values)


def _near(word: str, known: tuple[str, ...]) -> str:
    """` (did you mean 'x'?)` where something known is close, else nothing."""
    close = difflib.get_close_matches(word, known, 1)
    return f" (did you mean {close[0]!r}?)" if close else ""


def _check_keys(table: Mapping[str, Any], where: str) -> None:
    known = tuple(sorted(_KEYS))
    for key in table:
        if key not in known:
            raise CodegenError(where, f"unknown key {key!r}{_near(key, known)}",
                               f"known keys: {', '.join(known)}", "rename or remove it")
    missing = [k for k in known if k not in table]
    if missing:
        raise CodegenError(where, f"missing key {missing[0]!r}",
                           f"every board has: {', '.join(known)}", "add it")


def _check_type(key: str, value: Any, where: str) -> None:
    wanted = _KEYS[key]
    if wanted is str:
        good, words = isinstance(value, str), "a string"
    elif wanted is int:  # TOML's true is a Python int
        good, words = isinstance(value, int) and not isinstance(value, bool), "a whole number"
    else:
        good = isinstance(value, list) and all(isinstance(v, str) for v in value)
        words = "a list of strings"
    if not good:
        raise CodegenError(where, f"{key} = {value!r}", f"{key} is {words}", "correct the value")


def _check_value(key: str, value: Any, where: str) -> None:
    """Ranges and vocabularies of one key; its type is already right."""
    low, high = _RANGES.get(key, (0, 0))
    if key in _RANGES and not low <= value <= high:
        raise CodegenError(where, f"{key} = {value}", f"{key} is {low} to {high}, 0 for not known",
                           "correct the value")
    for word in value if key in _CHOICES else ():
        if word not in _CHOICES[key]:
            raise CodegenError(where, f"{key} has {word!r}{_near(word, _CHOICES[key])}",
                               f"{key} is made of: {', '.join(_CHOICES[key])}",
                               "correct or remove it")
    if key in _CHOICES and len(set(value)) != len(value):
        raise CodegenError(where, f"{key} = {value!r} repeats itself", "each word once",
                           "remove the repetition")
    if key == "triple" and value not in TRIPLES:
        raise CodegenError(where, f"triple = {value!r}{_near(value, TRIPLES)}",
                           f"triple is one of: {', '.join(TRIPLES)}", "correct the value")
    if key == "core" and value not in CORES:
        raise CodegenError(where, f"core = {value!r} is not known{_near(value, CORES)}",
                           f"core is one of: {', '.join(CORES)}",
                           "name one of them; codegen/cores.py is the list")


def _check_together(table: Mapping[str, Any], where: str) -> None:
    """Keys that must fit one another."""
    native = table["triple"] == "native"
    allowed = ("local",) if native else tuple(r for r in RUNNERS if r != "local")
    for runner in table["runners"]:
        if runner not in allowed:
            raise CodegenError(where, f"runner {runner!r} with triple = {table['triple']!r}",
                               f"this triple runs with: {', '.join(allowed)}",
                               "remove the runner or correct the triple")
    if table["core"] == HOST and not native:
        raise CodegenError(where, f"core = {HOST!r} with triple = {table['triple']!r}",
                           f"{HOST!r} is the core of this machine, triple 'native'",
                           "name the board's core")
    emulated = {"qemu", "virtual"} & set(table["runners"])
    if emulated and not table["qemu_cpu"]:
        raise CodegenError(where, f"qemu_cpu is empty, but runners has {sorted(emulated)[0]!r}",
                           "an emulated board names a cpu of `qemu-aarch64 -cpu help`",
                           "set qemu_cpu or remove the runner")
