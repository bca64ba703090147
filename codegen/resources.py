"""Where the data is: beside `codegen/` in a checkout, in `codegen/_data/` once installed."""

from pathlib import Path

_PACKAGE = Path(__file__).resolve().parent
# pyproject.toml maps the checkout's folders into the wheel as the package `codegen._data`.
_ROOT = _PACKAGE / "_data" if (_PACKAGE / "_data").is_dir() else _PACKAGE.parent


def boards_dir() -> Path:
    """Folder of the board files, `<name>.toml`."""
    return _ROOT / "boards"


def templates_dir() -> Path:
    """Folder of the kernel rows and Jinja templates, `<op>/kernels.toml` and `<op>/*.j2`."""
    return _ROOT / "templates"


def runtime_dir() -> Path:
    """Folder of the hand-written C that is copied or compiled as is."""
    return _ROOT / "runtime_c"


def presets_file() -> Path:
    """The CMakePresets.json that every generated project carries a copy of."""
    return _ROOT / "CMakePresets.json"


def examples_dir() -> Path:
    """The example networks and projects; only in a checkout."""
    return _ROOT / "examples"
