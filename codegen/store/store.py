"""The store of measurements: one SQLite file that many processes may read and write at once.

Every call opens the file and closes it again, so that a store may be shared between threads and
survives a fork. A write is one transaction that is on the disk when the call returns.
"""

import os
import sqlite3
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import fields
from pathlib import Path

from codegen.errors import CodegenError
from codegen.models.archive import cache_dir
from codegen.signature import Signature
from codegen.store.records import MEASURED, Context, Key, Measurement
from codegen.store.schema import MIGRATIONS, WrongSchema, check, migrate

ENV_STORE = "CODEGEN_STORE"
_WAIT_S = 60.0  # for other writers
_KEY = ("layer", "kernel", "layout", "code", "weights", "context")
_CONTEXT = tuple(f.name for f in fields(Context))
_COLUMNS = ", ".join((*_KEY, *MEASURED))
_WIDTH = len(_KEY) + len(MEASURED)
_PUT = f"INSERT OR REPLACE INTO measurement ({_COLUMNS}) VALUES ({', '.join('?' * _WIDTH)})"
_READ = (
    f"SELECT l.text, {', '.join(f'm.{c}' for c in (*_KEY[1:5], *MEASURED))}, "
    f"{', '.join(f'c.{n}' for n in _CONTEXT)} FROM measurement m "
    "JOIN layer l ON l.key = m.layer JOIN context c ON c.key = m.context"
)
_ORDER = " ORDER BY l.text, m.kernel, m.layout, m.weights, m.code, m.context"
_WHERE = " WHERE " + " AND ".join(f"m.{k} = ?" for k in _KEY)


def store_path(option: str | Path | None = None) -> Path:
    """Where the store is: `option` (of --store), else $CODEGEN_STORE, else in the user's cache."""
    chosen = option or os.environ.get(ENV_STORE)
    return Path(chosen) if chosen else cache_dir() / "measurements.sqlite"


class Store:
    """The file at `path`, made by the first write; one that is not there has no rows. Every method
    raises CodegenError where the file cannot be read or written, is damaged, or was made by a newer
    codegen."""

    def __init__(self, path: Path, migrations: Sequence[Sequence[str]] = MIGRATIONS):
        self.path = path
        self._migrations = migrations
        if self._is_there():
            with self._open():
                pass
        else:
            self._check_place()

    def get(self, keys: Iterable[Key]) -> dict[Key, Measurement]:
        """The measurements that are there."""
        found: dict[Key, Measurement] = {}
        if not self._is_there():
            return found
        with self._open() as db:
            for key in keys:
                row = db.execute(_READ + _WHERE, key.columns).fetchone()
                if row:
                    found[key] = _record(row)[1]
        return found

    def put(self, rows: Iterable[tuple[Key, Measurement]]) -> None:
        """Write measurements, replacing those with the same key; all of them or none. Those that
        are `passing` are not kept."""
        self._write(rows, newer_only=False)

    def add(self, rows: Iterable[tuple[Key, Measurement]]) -> int:
        """Write those that are not there yet, or are newer than what is there. How many were."""
        return self._write(rows, newer_only=True)

    def rows(self) -> Iterator[tuple[Key, Measurement]]:
        """Everything, in an order that depends on nothing but the contents."""
        if not self._is_there():
            return iter(())
        with self._open() as db:
            rows = db.execute(_READ + _ORDER).fetchall()
        return map(_record, rows)

    def delete(self, keys: Iterable[Key]) -> None:
        """Remove rows, and what nothing refers to any more; the file shrinks."""
        if not self._is_there():
            return
        with self._open() as db:
            with _transaction(db):
                for key in keys:
                    where = " AND ".join(f"{k} = ?" for k in _KEY)
                    db.execute(f"DELETE FROM measurement WHERE {where}", key.columns)
                for table in ("layer", "context"):
                    db.execute(f"DELETE FROM {table} WHERE key NOT IN "
                               f"(SELECT {table} FROM measurement)")  # fmt: skip
            db.execute("VACUUM")

    def _write(self, rows: Iterable[tuple[Key, Measurement]], newer_only: bool) -> int:
        written = 0
        rows = [r for r in rows if not r[1].passing]
        if not rows:
            return 0
        with self._open() as db, _transaction(db):
            for key, measured in rows:
                old = newer_only and db.execute(
                    "SELECT m.date FROM measurement m" + _WHERE, key.columns
                ).fetchone()
                if old and old[0] >= measured.date:
                    continue
                db.execute("INSERT OR IGNORE INTO layer VALUES (?, ?)",
                           (key.layer.key, key.layer.text))  # fmt: skip
                c = key.context
                db.execute("INSERT OR IGNORE INTO context VALUES (?, ?, ?, ?, ?, ?)",
                           (c.key, *(getattr(c, n) for n in _CONTEXT)))  # fmt: skip
                db.execute(_PUT, (*key.columns, *(getattr(measured, n) for n in MEASURED)))
                written += 1
        return written

    def _is_there(self) -> bool:
        return os.path.exists(self.path)

    def _check_place(self) -> None:
        """Before hours of measuring: whether the file can be made."""
        folder = next(p for p in self.path.absolute().parents if os.path.exists(p))
        if not folder.is_dir() or not os.access(folder, os.W_OK | os.X_OK):
            raise self._error(f"cannot be made in {folder}", "check the path")

    @contextmanager
    def _open(self) -> Iterator[sqlite3.Connection]:
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            db = sqlite3.connect(self.path, timeout=_WAIT_S, isolation_level=None)
        except (OSError, sqlite3.Error) as e:
            raise self._error(f"cannot be opened ({e})", "check the path") from None
        try:
            check(db, self._migrations)  # before anything is changed in it
            _use_wal(db)
            db.execute("PRAGMA synchronous = FULL")  # a commit is on the disk, not in its cache
            migrate(db, self._migrations)
            yield db
        except WrongSchema as e:
            raise self._error(f"it is {e}", "update codegen, or name another file") from None
        except sqlite3.OperationalError as e:  # locked, full disk, read-only
            raise self._error(f"cannot be used ({e})", "try again, or name another file") from None
        except sqlite3.DatabaseError as e:
            raise self._error(
                f"is damaged or no SQLite file ({e})",
                "move it away: what is missing will be measured again",
            ) from None
        finally:
            db.close()

    def _error(self, what: str, todo: str) -> CodegenError:
        return CodegenError(
            f"store {self.path}", what, f"a store of schema {len(self._migrations)} or older", todo
        )


@contextmanager
def _transaction(db: sqlite3.Connection) -> Iterator[None]:
    """Writers wait here for one another, not in the middle."""
    db.execute("BEGIN IMMEDIATE")
    try:
        yield
        db.execute("COMMIT")
    except BaseException:
        if db.in_transaction:
            db.execute("ROLLBACK")
        raise


def _use_wal(db: sqlite3.Connection) -> None:
    """Readers and a writer at once. Only the change itself needs the file for itself, and SQLite
    does not wait for that by itself."""
    deadline = time.monotonic() + _WAIT_S
    while True:
        try:
            db.execute("PRAGMA journal_mode = WAL")
            return
        except sqlite3.OperationalError as e:
            if "locked" not in str(e) or time.monotonic() > deadline:
                raise
            time.sleep(0.01)


def _record(row: Sequence) -> tuple[Key, Measurement]:
    text, kernel, layout, code, weights, *rest = row
    measured = dict(zip(MEASURED, rest[: len(MEASURED)], strict=True))
    context = Context(*rest[len(MEASURED) :])
    key = Key(Signature(text), kernel, layout, code, weights, context)
    return key, Measurement(**measured)


def matches(key: Key, wanted: Mapping[str, str]) -> bool:
    """Whether a row is one of those that are asked for: `board`, `runner` and `op` as they are, a
    part of `kernel`, the beginning of `layer`."""
    return (
        wanted.get("board", key.context.board) == key.context.board
        and wanted.get("runner", key.context.runner) == key.context.runner
        and wanted.get("op", key.layer.op) == key.layer.op
        and wanted.get("kernel", "") in key.kernel
        and key.layer.key.startswith(wanted.get("layer", ""))
    )
