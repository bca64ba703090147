"""Files of other versions of the store, and files that are no store."""

import dataclasses
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from codegen.errors import CodegenError
from codegen.store import Store
from codegen.store.schema import APPLICATION, MIGRATIONS
from tests.test_store import CONDITIONS, CONTEXT, KEY, LAYER, MEASURED


@pytest.fixture
def store(tmp_path) -> Store:
    return Store(tmp_path / "store.sqlite")


NEXT = (*MIGRATIONS, ("ALTER TABLE context ADD COLUMN colour TEXT NOT NULL DEFAULT 'grey'",))


def colours(path: Path) -> list[tuple[str]]:
    with closing(sqlite3.connect(path)) as db:
        return db.execute("SELECT colour FROM context").fetchall()


def test_an_older_file_is_migrated_and_keeps_its_rows(store):
    store.put([(KEY, MEASURED)])
    newer = Store(store.path, NEXT)
    assert newer.get([KEY]) == {KEY: MEASURED}
    assert colours(store.path) == [("grey",)]


def test_a_failed_migration_changes_nothing(store):
    store.put([(KEY, MEASURED)])
    broken = (*NEXT[:-1], (*NEXT[-1], "no sql"))
    with pytest.raises(CodegenError, match="cannot be used"):
        Store(store.path, broken)
    assert store.get([KEY]) == {KEY: MEASURED}
    assert Store(store.path, NEXT).get([KEY]) == {KEY: MEASURED}


def test_a_newer_file_is_refused(store):
    store.put([(KEY, MEASURED)])
    Store(store.path, NEXT)
    said = f"schema {len(NEXT)}, made by a newer codegen.*update codegen"
    with pytest.raises(CodegenError, match=said):
        store.get([KEY])


def version_1(path: Path, rows: dict[str, str]) -> None:
    """A file as the first release made it: kernels with their errors."""
    with closing(sqlite3.connect(path)) as db, db:
        for statement in MIGRATIONS[0]:
            db.execute(statement)
        db.execute("INSERT INTO layer VALUES (?, ?)", (LAYER.key, LAYER.text))
        db.execute("INSERT INTO context VALUES (?, ?, ?, ?, ?, ?)",
                   (CONTEXT.key, *dataclasses.astuple(CONTEXT)))  # fmt: skip
        for kernel, error in rows.items():
            figures = (None,) * 7 if error else dataclasses.astuple(MEASURED)[:7]
            values = (LAYER.key, kernel, KEY.layout, KEY.code, KEY.weights, CONTEXT.key, *figures,
                      0, 64, 0, error, MEASURED.date)  # fmt: skip
            db.execute(f"INSERT INTO measurement VALUES ({', '.join('?' * 18)})", values)
        db.execute(f"PRAGMA application_id = {APPLICATION}")
        db.execute("PRAGMA user_version = 1")


def test_a_file_of_version_1(tmp_path):
    """Its figures and failures stay, its time-outs were never findings."""
    path = tmp_path / "old.sqlite"
    version_1(path, {
        KEY.kernel: "", "broken": "it does not compile: x",
        "late": "the program did not end within 300 s",
        "far": "pi4: the program did not end within 1.5 s",
    })  # fmt: skip
    found = {k.kernel: m for k, m in Store(path).rows()}
    assert set(found) == {KEY.kernel, "broken"}
    assert found[KEY.kernel] == MEASURED
    assert found["broken"].error == "it does not compile: x"
    hot = dataclasses.replace(MEASURED, conditions=CONDITIONS)
    Store(path).put([(KEY, hot)])
    assert Store(path).get([KEY]) == {KEY: hot}
    with closing(sqlite3.connect(path)) as db:
        assert db.execute("PRAGMA user_version").fetchone() == (2,)


def _text(path: Path) -> None:
    path.write_text("these are my notes, and not a database; " * 100)


def _other(path: Path) -> None:
    with closing(sqlite3.connect(path)) as db:
        db.execute("CREATE TABLE recipes (name TEXT)")


def _damaged(path: Path) -> None:
    Store(path).put((dataclasses.replace(KEY, kernel=str(i)), MEASURED) for i in range(500))
    data = bytearray(path.read_bytes())
    data[4096:] = bytes(len(data) - 4096)
    path.write_bytes(data)


def _folder(path: Path) -> None:
    path.mkdir()


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (_text, "is damaged or no SQLite file"),
        (_other, "a database of another program"),
        (_damaged, "is damaged or no SQLite file"),
        (_folder, "cannot be opened"),
    ],
)
def test_what_is_no_store(tmp_path, make, said):
    path = tmp_path / "x.sqlite"
    make(path)
    before = path.read_bytes() if path.is_file() else None
    with pytest.raises(CodegenError, match=said) as error:
        list(Store(path).rows())
    assert error.value.where == f"store {path}"
    assert before is None or path.read_bytes() == before


def test_a_locked_store_is_an_error_after_a_while(store, monkeypatch):
    monkeypatch.setattr("codegen.store.store._WAIT_S", 0.05)
    with closing(sqlite3.connect(store.path)) as other:
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(CodegenError, match="cannot be used .*locked"):
            store.put([(KEY, MEASURED)])
