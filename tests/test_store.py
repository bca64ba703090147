"""The store of measurements: nothing is lost, nothing half-written, nothing misread."""

import dataclasses
import json
import multiprocessing
import os
import random
import signal
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest

from codegen.cli import main
from codegen.errors import CodegenError
from codegen.signature import Signature
from codegen.store import Context, Key, Measurement, Store, read_lines, store_path, write_lines
from codegen.store.records import conditions_text, total
from codegen.store.schema import APPLICATION

CONTEXT = Context("jetson-nano-cpu", "b" * 16, "virtual", "v1", "gcc 12 -O2")
LAYER = Signature('{"activation":null,"inputs":[],"op":"Relu","residual":-1,"tensors":[]}')
KEY = Key(LAYER, "unary_f32_neon", "nhwc", "c" * 16, "cold", CONTEXT)
MEASURED = Measurement(100, 70.0, 69.0, 60, 10, 20, 10, 0, 64, 0, "", "2026-01-02T00:00:00+00:00")

STATE = {"governor": "performance", "cur_freq_hz": 1430000000, "temperature_c": 41.5,
         "throttled": []}  # fmt: skip
CONDITIONS = conditions_text({"before": {**STATE, "temperature_c": 38.0}, "after": STATE})


@pytest.fixture
def store(tmp_path) -> Store:
    return Store(tmp_path / "store.sqlite")


def dated(day: int, cycles: int = 100) -> Measurement:
    return dataclasses.replace(MEASURED, cycles=cycles, date=f"2026-01-{day:02}T00:00:00+00:00")


# ---- what goes in comes out ----


def test_get_what_was_put(store):
    failed = Measurement(error="it does not compile: x", date="2026-01-01T00:00:00+00:00")
    other = dataclasses.replace(KEY, kernel="unary_f32_c")
    store.put([(KEY, MEASURED), (other, failed)])
    absent = dataclasses.replace(KEY, layout="nchw")
    assert store.get([KEY, other, absent]) == {KEY: MEASURED, other: failed}
    store.put([(KEY, dated(1, 5))])  # what was measured last counts
    assert store.get([KEY])[KEY].cycles == 5


def test_what_may_pass_is_not_kept(store):
    store.put([(KEY, MEASURED)])
    noisy = Measurement(error="noisy: it drifts", date=dated(9).date, passing=True)
    store.put([(KEY, noisy), (dataclasses.replace(KEY, kernel="other"), noisy)])
    assert store.add([(KEY, noisy)]) == 0
    assert dict(store.rows()) == {KEY: MEASURED}


@pytest.mark.parametrize(
    "change",
    [
        {"layer": Signature('{"op":"Relu"}')},
        {"kernel": "k"},
        {"layout": "nchw"},
        {"code": "d" * 16},
        {"weights": "warm"},
        *(
            {"context": dataclasses.replace(CONTEXT, **{field: "other"})}
            for field in ("board_sha256", "runner", "version", "toolchain")
        ),
    ],
    ids=lambda change: next(iter(change)),
)
def test_another_key_is_another_measurement(store, change):
    store.put([(KEY, MEASURED)])
    assert store.get([dataclasses.replace(KEY, **change)]) == {}


def test_a_boards_name_is_not_its_silicon(store):
    store.put([(KEY, MEASURED)])
    renamed = dataclasses.replace(KEY, context=dataclasses.replace(CONTEXT, board="mine"))
    assert store.get([renamed]) == {renamed: MEASURED}


def test_a_write_that_fails_writes_nothing(store):
    def rows():
        yield KEY, MEASURED
        raise RuntimeError

    with pytest.raises(RuntimeError):
        store.put(rows())
    assert list(store.rows()) == []


def test_the_first_write_makes_the_file(tmp_path, capsys):
    path = tmp_path / "new" / "store.sqlite"
    store = Store(path)
    assert (store.get([KEY]), list(store.rows()), store.add([])) == ({}, [], 0)
    store.delete([KEY])
    assert codegen("store", "ls", "--store", path) == 0
    assert capsys.readouterr().out == f"0 measurements in {path}\n"
    assert not path.parent.exists()
    store.put([(KEY, MEASURED)])
    assert store.get([KEY]) == {KEY: MEASURED}


def test_a_place_where_no_file_can_be_made(tmp_path):
    (tmp_path / "notes").write_text("")
    with pytest.raises(CodegenError, match="cannot be made in .*/notes; "):
        Store(tmp_path / "notes" / "new" / "store.sqlite")


def test_failures_are_shown_as_such(store, capsys):
    error = "the program ended with signal 4: qemu: uncaught target signal\nmore"
    store.put([(KEY, Measurement(error=error, date=MEASURED.date))])
    assert codegen("store", "ls", "--store", store.path) == 0
    said = capsys.readouterr().out
    assert " failed: the program ended with signal 4: qemu: uncaught target signal " in said


def test_delete_leaves_no_orphans(store):
    other = dataclasses.replace(KEY, layer=Signature('{"op":"Exp"}'))
    store.put([(KEY, MEASURED), (other, MEASURED)])
    store.delete([KEY])
    assert [k for k, _ in store.rows()] == [other]
    with closing(sqlite3.connect(store.path)) as db:
        assert db.execute("SELECT text FROM layer").fetchall() == [('{"op":"Exp"}',)]


def test_total():
    assert total([MEASURED, MEASURED]).cycles == 200
    assert total([MEASURED, Measurement(ns=1.0)]).cycles is None
    assert total([MEASURED, Measurement(error="broken")]).error == "broken"
    assert Measurement(error="broken").cost == Measurement().cost == float("inf")


@pytest.mark.parametrize(
    ("option", "env", "expected"),
    [
        (None, None, "cache/measurements.sqlite"),
        (None, "env.sqlite", "env.sqlite"),
        ("option.sqlite", "env.sqlite", "option.sqlite"),
    ],
)
def test_where_it_is(monkeypatch, option, env, expected):
    monkeypatch.setenv("CODEGEN_CACHE", "cache")
    monkeypatch.delenv("CODEGEN_STORE", raising=False)
    if env:
        monkeypatch.setenv("CODEGEN_STORE", env)
    assert store_path(option) == Path(expected)


# ---- many writers, and writers that die ----


def _write_many(path: Path, who: int) -> None:
    store = Store(path)  # all make the file at once
    for i in range(20):
        store.put([(dataclasses.replace(KEY, kernel=f"{who}-{i}"), MEASURED)])


def test_writers_at_once_lose_nothing(tmp_path):
    path = tmp_path / "new" / "store.sqlite"
    spawn = multiprocessing.get_context("fork")
    writers = [spawn.Process(target=_write_many, args=(path, who)) for who in range(4)]
    for w in writers:
        w.start()
    for w in writers:
        w.join()
    assert [w.exitcode for w in writers] == [0] * 4
    wanted = {f"{who}-{i}" for who in range(4) for i in range(20)}
    assert {k.kernel for k, _ in Store(path).rows()} == wanted


WRITER = """
import dataclasses, sys, tests.test_store as t
from pathlib import Path
store = t.Store(Path(sys.argv[1]))
for i in range(10**9):
    store.put([(dataclasses.replace(t.KEY, kernel=f"{sys.argv[2]}-{i}"), t.MEASURED)])
    print(f"{sys.argv[2]}-{i}", flush=True)
"""


def test_kill_9_loses_nothing_that_was_reported(tmp_path):
    """A writer is killed after a random number of reports, so at any point of its next write."""
    path, reported, chance = tmp_path / "store.sqlite", set(), random.Random(1)
    root = Path(__file__).resolve().parent.parent
    for life in range(5):
        writer = subprocess.Popen(
            [sys.executable, "-c", WRITER, str(path), str(life)], stdout=subprocess.PIPE, text=True,
            cwd=root,
        )  # fmt: skip
        for _ in range(chance.randint(1, 40)):
            reported.add(writer.stdout.readline().strip())
        os.kill(writer.pid, signal.SIGKILL)
        reported.update(line.strip() for line in writer.stdout if line.endswith("\n"))
        writer.wait()
    with closing(sqlite3.connect(path)) as db:
        assert db.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        assert db.execute("PRAGMA application_id").fetchone() == (APPLICATION,)
    assert len(reported) > 5
    assert reported <= {k.kernel for k, _ in Store(path).rows()}


# ---- export, import, merge ----


def test_lines_come_back_and_are_stable(store, tmp_path):
    keys = [dataclasses.replace(KEY, kernel=k) for k in ("b", "a", "c")]
    store.put((k, MEASURED) for k in keys)
    text = "".join(write_lines(store.rows()))
    other = Store(tmp_path / "other.sqlite")
    assert other.add(read_lines(text.splitlines(), "x")) == 3
    assert list(other.rows()) == list(store.rows())
    assert "".join(write_lines(other.rows())) == text
    assert other.add(read_lines(text.splitlines(), "x")) == 0


def codegen(*args: object) -> int:
    with pytest.raises(SystemExit) as ended:
        main([str(a) for a in args])
    return ended.value.code


def test_conditions_travel(store, tmp_path, capsys):
    """Into the file, the list, the lines and another file."""
    hot = dataclasses.replace(MEASURED, conditions=CONDITIONS)
    other = dataclasses.replace(KEY, kernel="other")
    store.put([(KEY, hot), (other, MEASURED)])
    assert store.get([KEY]) == {KEY: hot}
    assert codegen("store", "ls", "--store", store.path) == 0
    (line,) = (x for x in capsys.readouterr().out.splitlines() if KEY.kernel in x)
    assert line.rstrip().endswith("performance, 1.43 GHz, 42 °C")
    assert codegen("store", "ls", "--kernel", KEY.kernel, "--store", store.path, "--json") == 0
    (row,) = json.loads(capsys.readouterr().out)
    assert row["measurement"]["conditions"]["after"] == STATE
    lines = tmp_path / "x.jsonl"
    assert codegen("store", "export", "--store", store.path, "--out", lines) == 0
    assert codegen("store", "import", lines, "--store", tmp_path / "other.sqlite") == 0
    assert list(Store(tmp_path / "other.sqlite").rows()) == list(store.rows())


def test_the_newer_measurement_stays(store):
    store.put([(KEY, dated(5, 500))])
    assert store.add([(KEY, dated(4, 400))]) == 0
    assert store.get([KEY])[KEY].cycles == 500
    assert store.add([(KEY, dated(6, 600))]) == 1
    assert store.get([KEY])[KEY].cycles == 600


def _line(**change) -> str:
    row = json.loads(next(write_lines([(KEY, MEASURED)])))
    return json.dumps({**row, **change})


@pytest.mark.parametrize(
    "line",
    [
        "not json",
        "[]",
        "{}",
        _line(colour="red"),
        _line(weights="hot"),
        _line(kernel=1),
        _line(layer={}),
        _line(context={"board": "x"}),
        _line(measurement={"cycles": "many"}),
        _line(measurement={"speed": 1}),
        _line(measurement={"cycles": 1, "passing": True}),
        _line(measurement={"cycles": 1, "conditions": "hot"}),
    ],
)
def test_a_wrong_line_imports_nothing(store, line):
    with pytest.raises(CodegenError, match="x.jsonl:2: not a measurement.*nothing was imported"):
        store.add(read_lines([_line() + "\n", line + "\n"], "x.jsonl"))
    assert list(store.rows()) == []


def test_binary_is_no_text(store, tmp_path):
    path = tmp_path / "x.jsonl"
    path.write_bytes(b"\xff\xfe\x00")
    with path.open(encoding="utf-8") as file, pytest.raises(CodegenError, match="not text"):
        store.add(read_lines(file, "x.jsonl"))
