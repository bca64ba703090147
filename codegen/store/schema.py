"""The tables of the store, and how files of earlier versions become files of this one."""

import sqlite3
from collections.abc import Sequence

APPLICATION = 0x43475354  # "CGST" in the file's header: a store, and not some other database

# Entry i brings a file of version i to version i + 1; version 0 is an empty file. Entries are never
# changed once released, only added.
MIGRATIONS: tuple[tuple[str, ...], ...] = (
    (
        "CREATE TABLE layer (key TEXT PRIMARY KEY, text TEXT NOT NULL) WITHOUT ROWID",
        """CREATE TABLE context (key TEXT PRIMARY KEY, board TEXT NOT NULL,
               board_sha256 TEXT NOT NULL, runner TEXT NOT NULL, version TEXT NOT NULL,
               toolchain TEXT NOT NULL) WITHOUT ROWID""",
        """CREATE TABLE measurement (
               layer TEXT NOT NULL REFERENCES layer, kernel TEXT NOT NULL, layout TEXT NOT NULL,
               code TEXT NOT NULL, weights TEXT NOT NULL, context TEXT NOT NULL REFERENCES context,
               cycles INTEGER, ns REAL, ns_min REAL, core INTEGER, branch INTEGER, l2 INTEGER,
               memory INTEGER, scratch_bytes INTEGER NOT NULL, code_bytes INTEGER NOT NULL,
               weights_bytes INTEGER NOT NULL, error TEXT NOT NULL, date TEXT NOT NULL,
               PRIMARY KEY (layer, kernel, layout, code, weights, context)) WITHOUT ROWID""",
    ),
    (
        "ALTER TABLE measurement ADD COLUMN conditions TEXT NOT NULL DEFAULT ''",
        "DELETE FROM measurement WHERE error LIKE '%the program did not end within%'",
    ),
)


class WrongSchema(Exception):
    """The file is newer than this program, or is not a store; the text says which."""


def migrate(db: sqlite3.Connection, steps: Sequence[Sequence[str]] = MIGRATIONS) -> None:
    """Bring an open file to the newest version, wholly or not at all; several processes may try at
    once. WrongSchema where it cannot be done."""
    if check(db, steps) == len(steps):
        return
    db.execute("BEGIN IMMEDIATE")
    try:
        for step in steps[check(db, steps) :]:  # another process may have been first
            for statement in step:
                db.execute(statement)
        db.execute(f"PRAGMA application_id = {APPLICATION}")
        db.execute(f"PRAGMA user_version = {len(steps)}")
        db.execute("COMMIT")
    except BaseException:
        db.execute("ROLLBACK")
        raise


def check(db: sqlite3.Connection, steps: Sequence[Sequence[str]] = MIGRATIONS) -> int:
    """The file's version; WrongSchema where it cannot be used. Nothing is written."""
    if db.in_transaction:
        application, version, empty = _header(db)
    else:  # all three as of one moment, while another process may be making the file
        db.execute("BEGIN")
        try:
            application, version, empty = _header(db)
        finally:
            db.execute("ROLLBACK")
    if not empty and application != APPLICATION:
        raise WrongSchema("a database of another program")
    if version > len(steps):
        raise WrongSchema(f"schema {version}, made by a newer codegen")
    return version


def _header(db: sqlite3.Connection) -> tuple[int, int, bool]:
    """Application, version, and whether the file has no tables."""
    empty = db.execute("SELECT 1 FROM sqlite_master").fetchone() is None
    (application,) = db.execute("PRAGMA application_id").fetchone()
    (version,) = db.execute("PRAGMA user_version").fetchone()
    return application, version, empty
