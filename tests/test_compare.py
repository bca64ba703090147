"""codegen compare: other engines on the user's own network, and the benchmark's tables."""

import json
import shutil
from argparse import Namespace
from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree

import pytest

from benchmarks.peers import missing as gaps
from benchmarks.peers import report, results, summary, sweep
from codegen.board import load_board
from codegen.cli import main
from codegen.peers.base import Engine
from codegen.peers.engines import ENGINES, ours
from codegen.peers.measure import Row
from codegen.peers.measure import measure as measure_for_real
from codegen.peers.network import load_network
from codegen.run.virtual import missing
from codegen.verbs import compare as verb

ROOT = Path(__file__).resolve().parent.parent
MNIST = ROOT / "examples" / "models" / "mnist8.onnx"
A57 = load_board("jetson-nano-cpu")
_WHY = missing(A57) or (
    "" if shutil.which("aarch64-linux-gnu-gcc") else "no aarch64-linux-gnu-gcc on this machine"
)


def row(engine: str, ms: float | None, error: str = "", **more) -> Row:
    fields = {"version": "1", "model": "m", "core": "a57", "dtype": "f32", **more}
    figures = {} if ms is None else {"ms": ms, "cycles": int(ms * 1e6), "peak_bytes": 1 << 20,
                                     "binary_bytes": 2 << 20, "max_rel_error": 1e-6}  # fmt: skip
    return Row(engine, **fields, **figures, error=error)


@pytest.fixture
def measured(monkeypatch):
    """Figures by engine, instead of runs."""
    rows = {"codegen": row("codegen", 2.0), "ncnn": row("ncnn", 3.0),
            "mnn": row("mnn", None, "operator Foo is unknown")}  # fmt: skip
    asked = []

    def fake(engine, network, board, dtype, runner, timeout):
        asked.append((engine.name, dtype, runner.name))
        if dtype not in engine.dtypes:
            return measure_for_real(engine, network, board, dtype, runner, timeout)
        return rows[engine.name]

    monkeypatch.setattr(verb, "measure", fake)
    monkeypatch.setattr(verb, "missing", lambda board: "")
    return rows, asked


def codegen(*args: object) -> int:
    with pytest.raises(SystemExit) as ended:
        main([str(a) for a in args])
    return ended.value.code


def compare(*args: object) -> int:
    return codegen("compare", MNIST, "--board", A57.name, *args)


def test_a_result_that_is_off_by_a_little_is_told(measured, capsys):
    measured[0]["ncnn"] = replace(row("ncnn", 3.0), max_rel_error=8.5e-3)
    assert compare("--with", "ncnn") == 0
    assert "ncnn: the result is off by 8.5e-03 of the output's scale" in capsys.readouterr().out


def test_json_has_a_row_for_every_engine_and_ours_first(measured, capsys):
    assert compare("--with", "ncnn,mnn,codegen", "--json") == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["model"], found["board"], found["core"], found["runner"]) == (
        "m", A57.name, "a57", "virtual")  # fmt: skip
    assert [(r["engine"], r["x_ours"]) for r in found["rows"]] == [
        ("codegen", 1.0), ("ncnn", 1.5), ("mnn", None)]  # fmt: skip
    assert found["rows"][2]["error"] == "operator Foo is unknown"
    assert "prfm" in found["limits"]
    assert measured[1] == [(n, "f32", "virtual") for n in ("codegen", "ncnn", "mnn")]


def test_progress_on_a_terminal(measured, capsys, monkeypatch):
    """On stderr, beside JSON too."""
    assert compare("--with", "ncnn", "--json") == 0
    assert capsys.readouterr().err == ""
    monkeypatch.setenv("FORCE_COLOR", "1")  # what a terminal is to rich
    assert compare("--with", "ncnn", "--json") == 0
    out, shown = capsys.readouterr()
    assert len(json.loads(out)["rows"]) == 2
    assert "ncnn" in shown
    assert compare("--with", "ncnn", "-q") == 0
    assert capsys.readouterr().err == ""


def test_table_shows_figures_and_reasons(measured, capsys):
    assert compare("--with", "ncnn,mnn", "-v") == 0
    out = capsys.readouterr().out
    line = next(x for x in out.splitlines() if x.startswith("ncnn"))
    assert line.split() == ["ncnn", "1", "f32", "3.000", "3,000,000", "1.50", "1.00", "2.00",
                            "1.0e-06"]  # fmt: skip
    assert "mnn: operator Foo is unknown" in out


def test_all_engines_compute_in_the_same_type(measured):
    assert compare("--with", "ncnn", "--dtype", "i8", "-q") == 0
    assert [a[:2] for a in measured[1]] == [("codegen", "i8"), ("ncnn", "i8")]


def test_an_engine_without_an_element_type_says_why(measured, capsys):
    assert compare("--with", "ncnn,blas", "--dtype", "i8") == 0
    out = capsys.readouterr().out
    assert f"blas: {ENGINES['blas'].lacks['i8']}" in out


def test_every_engine_does_an_element_type_or_tells_why_not():
    for engine in ENGINES.values():
        assert set(engine.dtypes) | set(engine.lacks) == set(gaps.DTYPES), engine.name
        assert not set(engine.dtypes) & set(engine.lacks), engine.name
        assert all(len(reason) > 20 for reason in engine.lacks.values()), engine.name


def test_failure_of_our_own_library_is_exit_code_1(measured):
    measured[0]["codegen"] = row("codegen", None, "does not compile")
    assert compare("--with", "ncnn", "-q") == 1


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (("--with", "tvm"), "engines: 'tvm' is not known"),
        (("--runner", "qemu"), "'qemu' tells no times of a board"),
        (("--runner", "virtual", "--host", "pi"), "a host goes with runner ssh"),
    ],
)
def test_bad_input(measured, capsys, args, said):
    assert compare(*args) == 2
    assert said in capsys.readouterr().err


def test_missing_tools_are_told_before_the_work(measured, monkeypatch, capsys):
    monkeypatch.setattr(verb, "missing", lambda board: "llvm-mca is not installed")
    assert compare() == 1
    assert "llvm-mca is not installed" in capsys.readouterr().err
    assert measured[1] == []


@pytest.mark.slow
@pytest.mark.skipif(bool(_WHY), reason=_WHY)
def test_a_real_comparison_twice_alike(capsys):
    found = []
    for _ in range(2):
        assert compare("--with", "litert,blas", "--json") == 0
        found.append(json.loads(capsys.readouterr().out))
    assert found[0] == found[1]
    assert all(r["cycles"] and r["peak_bytes"] and not r["error"] for r in found[0]["rows"])


# --- benchmarks/peers


def test_rows_are_kept_for_the_same_engine_and_cycle_model(tmp_path):
    engine = ENGINES["ncnn"]
    version = {"version": engine.version}
    results.store(row("ncnn", 3.0, **version), "s1", folder=tmp_path)
    results.store(row("mnn", 4.0), "s1", folder=tmp_path)
    assert results.find("a57", engine, "m", "f32", "s1", folder=tmp_path)["ms"] == 3.0
    assert results.find("a57", engine, "m", "f32", "s2", folder=tmp_path) is None
    assert results.find("a57", engine, "m", "i8", "s1", folder=tmp_path) is None
    assert results.find("a53", engine, "m", "f32", "s1", folder=tmp_path) is None
    results.store(row("ncnn", 5.0, **version), "s2", folder=tmp_path)
    assert [(r["engine"], r["ms"]) for r in results.load("a57", tmp_path)] == [
        ("mnn", 4.0), ("ncnn", 5.0)]  # fmt: skip
    assert [p.name for p in tmp_path.iterdir()] == ["a57.json"]


def test_rows_of_codegen_are_measured_again_when_its_code_changes(tmp_path):
    engine = ENGINES["codegen"]
    results.store(row("codegen", 3.0, version=engine.version), "s", "c1", tmp_path)
    found = [results.find("a57", engine, "m", "f32", "s", code, tmp_path)
             for code in ("c1", "c2", "")]  # fmt: skip
    assert [bool(x) for x in found] == [True, False, False]
    assert "code" not in row("ncnn", 1.0).as_dict()


def test_the_digest_of_generated_code_follows_the_sources(monkeypatch):
    network, again = load_network(MNIST), load_network(MNIST)
    code = ENGINES["codegen"].code
    before = code(network, A57, "f32")
    assert code(again, A57, "f32") == before
    assert code(network, load_board("raspberry-pi-4"), "f32") != before
    generate = ours.generate

    def changed(*args, **options):
        made = generate(*args, **options)
        files = {**made.sources.files, "src/kernels.c": b"another"}
        return replace(made, sources=replace(made.sources, files=files))

    monkeypatch.setattr(ours, "generate", changed)
    assert code(network, A57, "f32") != before


def test_the_sweep_keeps_what_is_there_and_asks_for_the_code(tmp_path, monkeypatch, capsys):
    ran, codes = [], ["c1"]
    engines = [Engine("codegen", "1", ("f32",), None, {}, lambda *_: codes[-1]),
               Engine("ncnn", "1", ("f32", "i8"), None)]  # fmt: skip

    def fake(engine, network, board, dtype, runner, qemu):
        ran.append((engine.name, dtype))
        return row(engine.name, 1.0, dtype=dtype)

    monkeypatch.setattr(results, "FOLDER", tmp_path)
    monkeypatch.setattr(sweep, "_network", lambda model: None)
    monkeypatch.setattr(sweep, "measure", fake)
    options = Namespace(model="m", core="a57", dtype="f32,i8", again=set())
    sweep.sweep(options, engines)
    assert ran == [("codegen", "f32"), ("ncnn", "f32"), ("ncnn", "i8")]
    assert "m a57 codegen f32: 1.00 ms, 1,000,000 cycles" in capsys.readouterr().out
    sweep.sweep(options, engines)
    assert len(ran) == 3
    codes.append("c2")
    sweep.sweep(options, engines)
    assert ran[3:] == [("codegen", "f32")]
    sweep.sweep(Namespace(**{**vars(options), "again": {"ncnn"}}), engines)
    assert ran[4:] == [("ncnn", "f32"), ("ncnn", "i8")]


def test_scalar_code_is_not_counted_for_hours(tmp_path, monkeypatch, capsys):
    """The row says why; other engines, and small networks, are measured."""
    monkeypatch.setattr(results, "FOLDER", tmp_path)
    monkeypatch.setattr(sweep, "_network", lambda model: load_network(MNIST))
    monkeypatch.setattr(sweep, "measure", lambda e, *_, **__: row(e.name, 1.0))
    options = Namespace(model="m", core="a57", dtype="f32", again=set())
    engines = [Engine(n, "1", ("f32",), None) for n in ("emx", "ncnn")]
    sweep.sweep(options, engines)
    assert capsys.readouterr().out.count("1.00 ms") == 2
    monkeypatch.setattr(sweep, "MOST_SCALAR_MACS", 1000)
    options.again = {"emx", "ncnn"}
    sweep.sweep(options, engines)
    said = capsys.readouterr().out
    assert "emx f32: not measured: scalar code for 0.0 billion multiply-adds" in said
    assert said.count("1.00 ms") == 1


def test_scale_is_the_same_until_the_cycle_model_changes(tmp_path, monkeypatch):
    before = results.scale()
    assert results.scale() == before
    shutil.copytree(results.boards_dir(), tmp_path / "boards")
    monkeypatch.setattr(results, "boards_dir", lambda: tmp_path / "boards")
    assert results.scale() == before
    with (tmp_path / "boards" / f"{A57.name}.toml").open("a") as f:
        f.write("\n# changed\n")
    assert results.scale() != before


@pytest.fixture
def drawn(tmp_path) -> Path:
    for core, scale in (("a53", 2), ("a57", 1), ("a72", 0.5)):
        for model, mine, ncnn in (("big", 20.0, 10.0), ("small", 1.0, 2.0)):
            more = {"core": core, "model": model}
            results.store(row("codegen", mine * scale, **more), "s", folder=tmp_path)
            results.store(row("ncnn", ncnn * scale, **more), "s", folder=tmp_path)
        wrong = row("mnn", None, "wrong result: x", core=core, model="big")
        results.store(wrong, "s", folder=tmp_path)
    for engine, ms in (("codegen", 10.0), ("ort", 5.0)):
        results.store(row(engine, ms, model="big", dtype="i8"), "s", folder=tmp_path)
    report.draw(tmp_path, tmp_path / "docs", ("big", "huge"))
    return tmp_path / "docs"


def test_tables(drawn):
    text = (drawn / "BENCHMARKS.md").read_text()
    assert "| engine | small | big | geometric mean |" in text
    assert "| codegen, default plan | **2.00** | **40.0** | 1.00x |" in text  # the A53
    assert "| ncnn | 2.00 (2.00x) | 10.0 (0.50x) | 1.00x |" in text  # the A57
    assert "| MNN |" not in text.split("## Engines")[0]
    assert "huge" not in text.split("## Missing figures")[0]
    assert "## int8" in text
    int8 = text.split("## int8")[1]
    assert "| codegen, default plan | – | **10.0** | 1.00x |" in int8
    assert "| onnxruntime | – | 5.00 (0.50x) | 0.50x |" in int8
    assert "| codegen, float32 | 1.00 | 20.0 (2.00x) | 2.00x |" in int8
    assert max(map(len, text.split("| engine")[0].splitlines())) <= 100


def test_the_table_of_the_readme():
    """Each network is in a mean only where both have a figure; and README.md has it as it is."""
    pairs = {"a": (2.0, 4.0), "b": (1.0, 8.0), "c": (None, 3.0), "d": (5.0, None)}
    rows = [row(e, ms, model=m).as_dict() for m, both in pairs.items()
            for e, ms in zip(("codegen", "mnn"), both, strict=True)]  # fmt: skip
    assert summary.table(rows).splitlines()[2:] == ["| MNN | – | 4.00x | – | – | – | – |"]
    text = summary.README.read_text()
    measured = [r for core in report.CORES for r in results.load(core)]
    assert text == summary.redrawn(text, measured)
    assert summary.redrawn(text, rows) != text


def test_results_that_are_less_exact_are_named_under_their_table(drawn):
    less = replace(row("ncnn", 10.0, model="big"), max_rel_error=2e-3)
    int8 = replace(row("ncnn", 5.0, model="big", dtype="i8"), max_rel_error=0.2)
    for r in (less, int8):
        results.store(r, "s", folder=drawn.parent)
    report.draw(drawn.parent, drawn, ())
    tables = (drawn / "BENCHMARKS.md").read_text().split("\n## ")
    note = "\n\nncnn, big: the result is off by 2.0e-03 of the output's scale.\n"
    assert [note in t for t in tables[1:4]] == [False, True, False]
    assert "".join(tables[1:]).count("the result is off") == 1


def test_every_missing_figure_has_a_reason(drawn):
    text = (drawn / "BENCHMARKS.md").read_text().split("## Missing figures")[1]
    told = dict(x.removeprefix("- ").split("): ", 1) for x in text.splitlines() if x[:2] == "- ")
    assert told["MNN (big f32"] == "wrong result: x"
    assert told["im2col + OpenBLAS (all i8"] == ENGINES["blas"].lacks["i8"]
    assert told["codegen, small weights (all i8"] == ENGINES["codegen-compact"].lacks["i8"]
    ours = "codegen, default plan (huge f32; small, huge i8; big i8 on a53, a72"
    assert told[ours] == gaps.NOT_MEASURED
    unmeasured = "codegen, small weights; im2col + OpenBLAS; emx-onnx-cgen; onnx2c (all f32"
    assert told[unmeasured] == gaps.NOT_MEASURED
    ort = next(k for k in told if k.startswith("onnxruntime"))
    assert ort == "onnxruntime (all f32; small, huge i8; big i8 on a53, a72"
    assert told[ort] == gaps.NOT_MEASURED


def test_nothing_is_missing_where_all_is_measured():
    rows = [row(e, 1.0, core=c, dtype=d).as_dict()
            for e in ENGINES for c in ("a53", "a57", "a72") for d in gaps.DTYPES]  # fmt: skip
    assert gaps.lines(rows, ["m"]) == []


def test_figures_of_different_cycle_models_are_told(drawn):
    assert "do not compare" not in (drawn / "BENCHMARKS.md").read_text()
    results.store(row("ncnn", 3.0, model="big"), "another", folder=drawn.parent)
    report.draw(drawn.parent, drawn, ())
    assert "do not compare" in (drawn / "BENCHMARKS.md").read_text()


def test_chart(drawn):
    root = ElementTree.parse(drawn / "benchmarks.svg").getroot()
    bars = [e.text for e in root.iter("{http://www.w3.org/2000/svg}title")]
    assert sorted(bars) == ["big, codegen: 1.00", *["big, ncnn: 2.00"] * 3,
                            *["small, ncnn: 0.50"] * 3][1:]  # fmt: skip
    width = float(root.get("viewBox").split()[2])
    right = [float(e.get("x")) + float(e.get("width"))
             for e in root.iter("{http://www.w3.org/2000/svg}rect") if e.get("x")]  # fmt: skip
    assert max(right) < width
