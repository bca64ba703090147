"""benchmarks/results/CORE.json: a list of rows, one for each engine, network and element type."""

import hashlib
import json
from pathlib import Path
from typing import Any

from codegen.models.fetch import write_atomically
from codegen.peers.base import Engine
from codegen.peers.measure import Row
from codegen.resources import boards_dir, runtime_dir
from codegen.run import virtual

FOLDER = Path(__file__).resolve().parent.parent / "results"
_KEY = ("engine", "model", "dtype")


def scale() -> str:
    """Digest of what turns an execution into cycles: figures compare only where it is the same."""
    digest = hashlib.sha256()
    model = Path(virtual.__file__).parent
    folders = (boards_dir().iterdir(), model.glob("*.py"), (runtime_dir() / "vboard").iterdir())
    for files in folders:  # each sorted by itself: where a folder lies must not change the order
        for path in sorted(files):
            digest.update(path.name.encode() + path.read_bytes())
    return digest.hexdigest()[:12]


def load(core: str, folder: Path | None = None) -> list[dict[str, Any]]:
    """All rows of a core."""
    path = (folder or FOLDER) / f"{core}.json"
    return json.loads(path.read_text()) if path.is_file() else []


def find(
    core: str, engine: Engine, model: str, dtype: str, scale: str, code: str = "",
    folder: Path | None = None,
) -> dict[str, Any] | None:  # fmt: skip
    """The row that need not be measured again. `code`: the digest that the engine tells."""
    wanted = {"engine": engine.name, "version": engine.version, "model": model, "dtype": dtype,
              "scale": scale, "code": code}  # fmt: skip
    rows = load(core, folder)
    return next((r for r in rows if all(r.get(k, "") == v for k, v in wanted.items())), None)


def store(row: Row, scale: str, code: str = "", folder: Path | None = None) -> None:
    """Put a row in place of an older one, whole or not at all."""
    new = {**row.as_dict(), "scale": scale, **({"code": code} if code else {})}
    old = load(row.core, folder)
    rows = [r for r in old if any(r[k] != new[k] for k in _KEY)]
    rows = sorted([*rows, new], key=lambda r: [r[k] for k in ("model", "engine", "dtype")])
    text = "[\n" + ",\n".join(json.dumps(r) for r in rows) + "\n]\n"
    write_atomically((folder or FOLDER) / f"{row.core}.json", text.encode())
