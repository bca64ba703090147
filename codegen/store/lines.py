"""The store as JSON lines: for diffs, archives and other tools."""

import json
from collections.abc import Iterable, Iterator

from codegen.errors import CodegenError
from codegen.store.records import Key, Measurement, from_dict, to_dict


def write_lines(rows: Iterable[tuple[Key, Measurement]]) -> Iterator[str]:
    """One row a line; equal rows give equal text."""
    for key, measured in rows:
        yield json.dumps(to_dict(key, measured), sort_keys=True, allow_nan=False) + "\n"


def read_lines(file: Iterable[str], where: str) -> Iterator[tuple[Key, Measurement]]:
    """The rows of a file that `write_lines` made. CodegenError names the line that is none."""
    try:
        for number, line in enumerate(file, 1):
            if not line.strip():
                continue
            try:
                yield from_dict(json.loads(line))
            except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as e:
                raise CodegenError(
                    f"{where}:{number}",
                    f"not a measurement ({type(e).__name__}: {e})",
                    "lines that `codegen store export` wrote",
                    "fix or remove the line; nothing was imported",
                ) from None
    except UnicodeDecodeError as e:
        raise CodegenError(
            where, f"not text ({e})", "lines that `codegen store export` wrote", "check the file"
        ) from None
