"""codegen accuracy: scores against simulations and sums by hand, and the verb on this machine."""

import json
import shutil
import sys
from dataclasses import replace

import numpy as np
import pytest
from click.testing import CliRunner
from scipy.stats import binomtest

from codegen.accuracy.gauge import gauge_of, judge, native, run_plan
from codegen.accuracy.metrics import parse_metrics
from codegen.accuracy.scores import (
    Outputs,
    agreement,
    cosine,
    drop,
    group_numbers,
    mse,
    top1,
)
from codegen.board import load_board
from codegen.build import compile_library, compile_verify
from codegen.calibration.data import open_data
from codegen.errors import CodegenError
from codegen.pipeline import generate, load_graph
from codegen.reference import Reference
from codegen.resources import examples_dir
from codegen.run import pick_runner
from codegen.run.local import LocalRunner
from codegen.run.qemu import QemuRunner
from codegen.sources import write
from codegen.toolchain import find_toolchain
from codegen.verbs.accuracy import accuracy
from codegen.verbs.calibrate import calibrate
from codegen.verify import Interface
from tests.pricing_cases import LOCAL, needs_cc, needs_cross

KWS = examples_dir() / "models" / "mlperf_kws_dscnn.onnx"


def outputs(values) -> Outputs:
    array = np.asarray(values, float)
    return Outputs(array, array)


def hits(right: np.ndarray) -> Outputs:
    """Two classes, the label is 1."""
    return outputs(np.stack([1.0 - right, right], axis=1))


def test_shares_are_counted():
    right = np.array([1, 1, 0, 1, 0, 1, 1, 1])
    score = top1(hits(right), np.ones(8))
    assert score.value == 6 / 8
    assert 0 < score.low < score.value < score.high < 1
    assert agreement(hits(right), hits(1 - right)).value == 0
    assert agreement(hits(right), hits(right)).high == 1
    assert drop(hits(right), hits(np.ones(8)), np.ones(8)).value == 2 / 8


@pytest.mark.parametrize(("p", "n"), [(0.9, 60), (0.5, 200), (0.98, 400)])
def test_intervals_of_shares_have_the_true_share_that_often(p, n):
    rng = np.random.default_rng(0)
    inside = 0
    for _ in range(400):
        score = top1(hits((rng.random(n) < p).astype(int)), np.ones(n))
        inside += score.low <= p <= score.high
    assert 0.92 <= inside / 400 <= 0.99


@pytest.mark.parametrize(("lost", "won"), [(0.05, 0.02), (0.01, 0.01), (0.2, 0.1)])
def test_intervals_of_losses_have_the_true_loss_that_often(lost, won):
    rng, n, inside = np.random.default_rng(1), 300, 0
    for _ in range(400):
        draw = rng.random(n)
        before = (draw >= won).astype(int)
        right = ((draw >= won + lost) | (draw < won)).astype(int)
        score = drop(hits(right), hits(before), np.ones(n))
        inside += score.low <= lost - won <= score.high
    assert 0.92 <= inside / 400 <= 0.995


def test_views_of_one_photograph_count_once():
    right = np.repeat([1, 0, 1, 1], 10)
    many, few = (top1(hits(right), np.ones(40), k) for k in (0, 4))
    assert many.value == few.value
    assert few.low < many.low < many.high < few.high
    assert group_numbers([7, 7, 8, None, None]).tolist() == [0, 0, 1, 2, 3]
    paired = [drop(hits(right), hits(np.ones(40)), np.ones(40), k) for k in (0, 4)]
    assert paired[1].high - paired[1].low > paired[0].high - paired[0].low


def test_intervals_of_shares_are_of_the_share():
    """Ten photographs, of 20 views 15 right: not of 8 in 10."""
    score = top1(hits(np.repeat([1, 0, 1, 1], 5)), np.ones(20), 10)
    assert (score.low, score.high) == pytest.approx((0.4422, 0.9190), abs=1e-4)
    none = top1(hits(np.zeros(5)), np.ones(5))
    ci = binomtest(0, 5).proportion_ci(0.95, "wilson")
    assert (none.low, none.high) == pytest.approx((ci.low, ci.high))


def test_distances_of_views_count_once():
    """The same samples a hundred times, of one group each, say no more than once."""
    rng = np.random.default_rng(0)
    a, b = rng.normal(size=(10, 4)), rng.normal(size=(10, 4))
    for score in (cosine, mse):
        once = score(outputs(a), outputs(b))
        many = [outputs(np.repeat(v, 100, axis=0)) for v in (a, b)]
        views = score(*many, np.repeat(np.arange(10), 100))
        assert (views.value, views.low, views.high) == pytest.approx(
            (once.value, once.low, once.high)
        )
        assert score(*many).high - score(*many).low < (once.high - once.low) / 5


def test_distances():
    a, b = outputs([[1.0, 0.0], [0.0, 2.0]]), outputs([[0.0, 1.0], [0.0, 1.0]])
    assert cosine(a, b).value == 0.5
    assert mse(a, b).value == (1.0 + 0.5) / 2
    assert mse(a, b).low >= 0
    zero = outputs([[0.0, 0.0]])
    assert cosine(zero, zero).value == 1.0
    assert cosine(zero, zero).low is None


@pytest.fixture(scope="module")
def samples(tmp_path_factory):
    """(data with labels and groups, a calibration of half of it)"""
    folder = tmp_path_factory.mktemp("accuracy")
    x = np.random.default_rng(0).standard_normal((24, 1, 50, 10)).astype(np.float32)
    reference = Reference(KWS)
    y = [next(iter(reference.run({"input": v[None]}).values())).argmax() for v in x]
    y[:5] = [(v + 1) % 12 for v in y[:5]]
    np.savez(folder / "data.npz", x=x, y=np.array(y), group=np.arange(24) // 2)
    ranges = folder / "ranges.json"
    args = [str(KWS), "--data", str(folder / "data.npz"), "--half", "0", "--out", str(ranges)]
    assert CliRunner().invoke(calibrate, args, catch_exceptions=False).exit_code == 0
    return folder / "data.npz", ranges


def run(samples, *more, half="1"):
    args = [str(KWS), "--board", "local", "--data", str(samples[0]), "--json", *more]
    args += ["--half", half] if half else []
    done = CliRunner().invoke(accuracy, args, catch_exceptions=False)
    return json.loads(done.stdout)


@needs_cc
def test_plans_side_by_side(samples):
    """Half 1 has the groups 1, 3, 5 ...: the labels of samples 2 and 3 are wrong."""
    found = run(samples, "--calibration", str(samples[1]))
    assert (found["samples"], found["independent"], found["labelled"]) == (12, 6, True)
    assert list(found["plans"]) == ["float model", "float32", "int8"]
    model, single, coded = found["plans"].values()
    assert model["top1"]["value"] == pytest.approx(10 / 12)
    assert model["agreement"] is None
    assert single["agreement"]["value"] == 1
    assert single["top1 lost"]["value"] == 0
    assert single["mse"]["value"] < coded["mse"]["value"] < 1e-2
    assert 0.99 < coded["cosine"]["value"] <= 1


@needs_cc
def test_plans_from_files(samples, tmp_path):
    """Each by its name; a calibration is for those in int8."""
    for name, made in (("a.json", generate(KWS, LOCAL)),
                       ("b.json", generate(KWS, LOCAL, calibration=samples[1]))):  # fmt: skip
        (tmp_path / name).write_text(made.plan.to_json())
    plans = [o for n in ("a.json", "b.json") for o in ("--plan", str(tmp_path / n))]
    more = ["--calibration", str(samples[1]), "--samples", "5", "--metric", "mse"]
    found = run(samples, *plans, *more)
    assert list(found["plans"]) == ["float model", "a.json", "b.json"]
    assert found["samples"] == 5
    assert found["plans"]["a.json"]["mse"]["value"] < found["plans"]["b.json"]["mse"]["value"]


@needs_cc
def test_a_function_of_ones_own(samples, tmp_path):
    (tmp_path / "mine.py").write_text(
        "def error(outputs, labels):\n    return (outputs.argmax(1) != labels).mean()\n"
    )
    found = run(samples, "--metric", f"{tmp_path}/mine.py:error")
    assert found["plans"]["float32"]["error"]["value"] == pytest.approx(2 / 12)
    text = CliRunner().invoke(
        accuracy, [str(KWS), "--board", "local", "--data", str(samples[0]), "--half", "1"]
    )
    assert "12 samples, 6 of them independent" in text.stdout


def test_data_that_were_calibrated_on_are_refused(samples, tmp_path):
    """Whatever their files are called; others are not, though they are called so."""
    copy = tmp_path / "copy.npz"
    shutil.copyfile(samples[0], copy)
    for half, data, said in (("0", samples[0], "12 of 12"), ("", samples[0], "12 of 24"),
                             ("0", copy, "12 of 12")):  # fmt: skip
        with pytest.raises(CodegenError, match=f"--data: {said} samples were calibrated on"):
            run((data,), "--calibration", str(samples[1]), half=half)
    other = tmp_path / "data.npz"
    np.savez(other, x=np.random.default_rng(9).standard_normal((4, 1, 50, 10)).astype(np.float32))
    assert run((other,), "--calibration", str(samples[1]), half="")["samples"] == 4


@pytest.mark.parametrize(("labels", "said"), [
    (np.eye(12)[[1, 2]], "`y` has shape .2, 12.; one entry per sample"),
    (np.array([3, 12]), "1 of 2 labels are no class, e.g. 12; whole numbers from 0 to 11"),
    (np.array([0.5, 1.0]), "1 of 2 labels are no class, e.g. 0.5"),
    (np.array(["a", "b"]), "2 of 2 labels are no class, e.g. 'a'"),
])  # fmt: skip
def test_labels_that_are_no_classes(labels, said, tmp_path):
    np.savez(tmp_path / "d.npz", x=np.zeros((2, 1, 50, 10), np.float32), y=labels)
    with pytest.raises(CodegenError, match=said):
        run((tmp_path / "d.npz",), half="")


def test_labels_in_a_column(samples, tmp_path):
    with np.load(samples[0]) as made:
        np.savez(tmp_path / "c.npz", x=made["x"], y=made["y"][:, None], group=made["group"])
    found = run((tmp_path / "c.npz",), half="")["plans"]["float32"]["top1"]["value"]
    assert found == run(samples, half="")["plans"]["float32"]["top1"]["value"] == 19 / 24


@needs_cc
def test_samples_with_another_answer(samples, monkeypatch):
    """With -v each of them is named, with its label and what each plan says of it."""

    def turned(gauge, *place):
        found = run_plan(gauge, *place)
        return replace(found, first=np.roll(found.first, 1, axis=1))

    monkeypatch.setattr("codegen.accuracy.gauge.run_plan", turned)
    asked = [str(KWS), "--board", "local", "--data", str(samples[0]), "--half", "1",
             "--samples", "4"]  # fmt: skip
    lines = CliRunner().invoke(accuracy, [*asked, "-v"]).stdout.splitlines()
    head = next(i for i, line in enumerate(lines) if line.startswith("largest output"))
    assert lines[head].split()[2:] == ["label", "float", "model", "float32"]
    assert len(lines[head + 1 :]) == 4
    for line in lines[head + 1 :]:
        where, _, told, ours = line.rsplit(None, 3)
        assert where.startswith(f"{samples[0]}[")
        assert int(ours) == (int(told) + 1) % 12
    monkeypatch.undo()
    assert "largest output" not in CliRunner().invoke(accuracy, [*asked, "-v"]).stdout


def test_a_module_in_the_current_folder(tmp_path, monkeypatch):
    """As `python -m` finds it."""
    (tmp_path / "my_own_metric.py").write_text("def f(o, y): return 1")
    monkeypatch.chdir(tmp_path)
    before = list(sys.path)
    assert [m.name for m in parse_metrics(["my_own_metric:f"], False)] == ["f"]
    assert sys.path == before


def test_functions_of_one_name(tmp_path):
    for name in ("a", "b"):
        (tmp_path / f"{name}.py").write_text("def good(o, y): return 1\ndef cosine(o, y): return 2")
    asked = ["cosine", f"{tmp_path}/a.py:good", f"{tmp_path}/b.py:good", f"{tmp_path}/a.py:cosine"]
    assert [m.name for m in parse_metrics(asked, False)] == [
        "cosine", "good", f"{tmp_path}/b.py:good", f"{tmp_path}/a.py:cosine",
    ]  # fmt: skip


@pytest.mark.parametrize("text", ["raise ValueError('x')", "import sys; sys.exit(3)", "1 +"])
def test_a_file_of_metrics_that_does_not_load(text, tmp_path):
    (tmp_path / "bad.py").write_text(text)
    with pytest.raises(CodegenError, match=r"--metric: .*bad\.py:f"):
        parse_metrics([f"{tmp_path}/bad.py:f"], False)


def test_a_metric_that_is_no_number_is_null(samples, tmp_path):
    (tmp_path / "nan.py").write_text("def f(outputs, labels):\n    return float('nan')\n")
    found = run(samples, "--metric", f"{tmp_path}/nan.py:f")["plans"]["float32"]
    assert found["f"]["value"] is None
    args = [str(KWS), "--board", "local", "--data", str(samples[0]), "--half", "1", "-q"]
    assert CliRunner().invoke(accuracy, args, catch_exceptions=False).stdout == ""


def test_labels_of_a_part_are_told(samples, tmp_path):
    np.save(tmp_path / "more.npy", np.ones((2, 1, 50, 10), np.float32))
    args = [str(KWS), "--board", "local", "--data", str(samples[0]), "--data",
            str(tmp_path / "more.npy"), "--json"]  # fmt: skip
    done = CliRunner().invoke(accuracy, args, catch_exceptions=False)
    assert "note: 24 of 26 samples have labels, and none is used" in done.stderr
    assert "top1" not in json.loads(done.stdout)["plans"]["float32"]


def test_a_calibration_that_does_not_say_its_samples_is_told(samples, tmp_path):
    raw = json.loads(samples[1].read_text())
    del raw["data"]["seen"]
    (tmp_path / "old.json").write_text(json.dumps(raw))
    args = [str(KWS), "--board", "local", "--data", str(samples[0]), "--half", "1", "--calibration"]
    said = [CliRunner().invoke(accuracy, [*args, str(path)], catch_exceptions=False).stderr
            for path in (tmp_path / "old.json", samples[1])]  # fmt: skip
    assert ["does not say on which samples" in text for text in said] == [True, False]


def test_another_preprocessing_is_told(samples):
    args = [str(KWS), "--board", "local", "--data", str(samples[0]), "--half", "1",
            "--calibration", str(samples[1]), "--preprocess", "scale=2"]  # fmt: skip
    said = CliRunner().invoke(accuracy, args, catch_exceptions=False).stderr
    assert "note: calibrated with --preprocess '', these data are read with 'scale=2'" in said


@pytest.mark.parametrize(("name", "said"), [
    ("best", "'best' .AttributeError: no such metric.; top1, agreement, cosine, mse"),
    ("nowhere.at_all:f", "No module named 'nowhere'"),
    ("json:nothing", "no attribute 'nothing'"),
    ("none.py:f", "No such file"),
])  # fmt: skip
def test_metrics_that_are_none(name, said):
    with pytest.raises(CodegenError, match=f"--metric: .*{said}"):
        parse_metrics([name], True)


def test_top1_needs_labels():
    assert [m.name for m in parse_metrics([], False)] == ["agreement", "cosine", "mse"]
    with pytest.raises(CodegenError, match="top1 of data without labels"):
        parse_metrics(["top1"], False)


def test_a_function_that_fails(samples, tmp_path):
    (tmp_path / "bad.py").write_text("def f(outputs, labels):\n    return 1 / 0\n")
    with pytest.raises(CodegenError, match="it failed .ZeroDivisionError"):
        run(samples, "--metric", f"{tmp_path}/bad.py:f")


def test_one_sample_per_run(tmp_path):
    np.save(tmp_path / "x.npy", np.zeros((4, 1, 50, 10), np.float32))
    with pytest.raises(CodegenError, match="a batch of 2; one sample per run; pin the batch"):
        run((tmp_path / "x.npy",), "--shape", "input=2x1x50x10", half="")


def test_a_plan_that_does_not_compile(samples, monkeypatch):
    monkeypatch.setattr("codegen.accuracy.gauge.compile_verify", lambda *_: "no such thing")
    args = [str(KWS), "--board", "local", "--data", str(samples[0])]
    done = CliRunner().invoke(accuracy, args, standalone_mode=False)
    assert done.return_value == 1
    assert "error: float32: does not compile: no such thing" in done.stderr


def test_boards_that_cannot_run(samples, monkeypatch):
    monkeypatch.setattr("codegen.verbs.accuracy.pick_runner", lambda *_: None)
    with pytest.raises(CodegenError, match="no runner for board local works here"):
        run(samples)


@needs_cross
def test_this_machine_computes_what_an_emulator_does(samples):
    """Integers alike; floats before and behind them differ by roundings."""
    board, graph = load_board("jetson-nano-cpu"), load_graph(KWS)
    emulator = pick_runner(board, "qemu")
    data = open_data([samples[0]], [graph.tensors["input"]], half=1)
    gauge = gauge_of(KWS, {}, data, None, 0)
    generated = generate(KWS, board, calibration=samples[1])
    here = judge(generated, gauge, native(generated, emulator), LocalRunner(), 100.0)
    there = judge(generated, gauge, board, emulator, 100.0)
    np.testing.assert_allclose(here.whole, there.whole, atol=1e-6)
    assert np.abs(here.whole - gauge.floats.whole).max() > 5e-6


@needs_cc
def test_kernels_of_another_plan_are_not_compiled_again(samples, tmp_path):
    """And compute what those of the library do."""
    data = open_data([samples[0]], [load_graph(KWS).tensors["input"]], half=1)
    gauge, here = gauge_of(KWS, {}, data, None, 0), load_board("local")
    plans = generate(KWS, here), generate(KWS, here, calibration=samples[1])
    objects, seen = tmp_path / "objects", []
    for i, plan in enumerate((*plans, *plans)):
        found = judge(plan, gauge, here, LocalRunner(), 100.0, objects)
        seen.append({p: p.stat().st_mtime_ns for p in objects.iterdir()})
        if i < len(plans):
            folder = tmp_path / f"library {i}"
            write(plan.sources, folder)
            binary = compile_library(plan.sources, folder, find_toolchain(here))
            interface = Interface.of(plan.sources, plan.schedule)
            whole = run_plan(gauge, interface, binary.verify, LocalRunner(), here, 100.0)
            np.testing.assert_array_equal(found.whole, whole.whole)
    floats, both = len(plans[0].sources.functions), len(plans[1].sources.functions)
    assert floats == len(seen[0]) < len(seen[1]) < floats + both
    assert seen[0].items() < seen[1].items()
    assert seen[1] == seen[2] == seen[3]


@needs_cc
def test_objects_depend_on_flags_and_headers(samples, tmp_path):
    sources, objects = generate(KWS, LOCAL).sources, tmp_path / "objects"
    native, many = find_toolchain(LOCAL), len(sources.functions)
    write(sources, tmp_path / "a")
    assert not isinstance(compile_verify(sources, tmp_path / "a", native, objects), str)
    flags = replace(native, flags=(*native.flags, "-O1"))
    compile_verify(sources, tmp_path / "a", flags, objects)
    assert len(list(objects.iterdir())) == 2 * many
    header = sources.files["src/cg_math.h"] + b"/* another */\n"
    changed = replace(sources, files={**sources.files, "src/cg_math.h": header})
    compile_verify(changed, tmp_path / "a", native, objects)
    assert len(list(objects.iterdir())) == 3 * many
    broken = replace(native, flags=(*native.flags, "-Dfor=nothing"))
    assert "error" in compile_verify(sources, tmp_path / "a", broken, objects)


@needs_cross
def test_kernels_alone_in_half_precision_and_for_threads(samples, tmp_path):
    board = load_board("raspberry-pi-5")
    for made in (generate(KWS, board, dtype="f16"), generate(KWS, board, threads=2)):
        folder = tmp_path / str(made.plan.threads)
        write(made.sources, folder)
        compiler = find_toolchain(board)
        program = compile_verify(made.sources, folder, compiler, tmp_path / "objects")
        assert not isinstance(program, str), program
        assert program.is_file()


def test_what_this_machine_has_nothing_for_is_emulated(samples, monkeypatch):
    board = load_board("raspberry-pi-5")
    halves = generate(KWS, board, dtype="f16")
    assert native(halves, QemuRunner()) is None
    floats = generate(KWS, board)
    assert native(floats, QemuRunner()).name == "local"
    assert native(floats, LocalRunner()) is None

    def missing(board):
        raise CodegenError("cc", "none", "a compiler", "install one")

    monkeypatch.setattr("codegen.accuracy.gauge.find_toolchain", missing)
    assert native(floats, QemuRunner()) is None
