"""Measurements in SQLite: what was measured once on a board is known to every later search."""

from codegen.store.lines import read_lines, write_lines
from codegen.store.records import Context, Key, Measurement
from codegen.store.store import Store, store_path

__all__ = ["Context", "Key", "Measurement", "Store", "read_lines", "store_path", "write_lines"]
