"""Pricing where something fails: what it costs the other candidates, and what is kept of it."""

import json

import pytest

from codegen.errors import CodegenError
from codegen.pricing import PricingError, Settings, price, price_layers, price_signatures, run
from codegen.pricing.run import Bed, measure
from codegen.pricing.trials import trials
from codegen.run import Outcome
from codegen.run.local import LocalRunner
from codegen.signature import signature_of
from codegen.toolchain import find_toolchain
from tests.pricing_cases import (
    A57,
    EVERYTHING,
    LOCAL,
    ONE,
    Faulty,
    Judging,
    first,
    needs_cc,
    needs_cross,
)


def _three(kws) -> list:
    """Trials of three layers, each by its portable row."""
    found = [t for op in ("Dense", "SoftmaxAxis", "AveragePool")
             for t in trials(signature_of(kws, first(kws, op)), LOCAL)]  # fmt: skip
    return [next(t for t in found if t.candidate.kernel == f"{family}_f32_c")
            for family in ("dense", "softmax")] + [
        next(t for t in found if t.candidate.kernel == "average_pool2d_nchw_f32_c")]  # fmt: skip


def _bed(runner) -> Bed:
    return Bed(LOCAL, runner, find_toolchain(LOCAL), warm=False, ms=1)


@needs_cc
def test_a_candidate_that_crashes_does_not_take_the_others_down(kws):
    runner = Faulty("bench_softmax_f32_c", Outcome(error="the program ended with signal 11"))
    found = measure(_three(kws), _bed(runner))
    assert [m.error for m in found] == ["", "the program ended with signal 11", ""]
    assert found[1].ns is None
    assert found[1].date


@needs_cc
def test_a_candidate_that_does_not_compile_does_not_take_the_others_down(kws, monkeypatch):
    def compile_program(sources, folder, toolchain, extra=()):
        """An identifier of one kernel is no C any more."""
        flags = (*extra, "-Dbench_dense_f32_c_1=1")
        return real(sources, folder, toolchain, flags)

    real = run.compile_program
    monkeypatch.setattr(run, "compile_program", compile_program)
    found = measure(_three(kws), _bed(LocalRunner()))
    assert [bool(m.error) for m in found] == [True, False, False]
    assert "it does not compile: " in found[0].error
    assert "error:" in found[0].error


@needs_cc
def test_a_candidate_that_does_not_compile_is_remembered(dense, store, monkeypatch):
    monkeypatch.setattr(run, "compile_program", lambda *a: "x.c:1: error: no such thing")
    args = ([dense], LOCAL, LocalRunner(), store, {"dense_f32_c"})
    prices = price_signatures(*args, settings=ONE)
    (measured,) = prices[dense].values()
    assert measured.error == "it does not compile: x.c:1: error: no such thing"
    assert measured.cost == float("inf")
    monkeypatch.setattr(price, "measure", None)
    assert price_signatures(*args, settings=ONE) == prices


@needs_cc
@pytest.mark.parametrize(
    "said",
    [
        "gcc: fatal error: Killed signal terminated program cc1",
        "x.c:7:1: fatal error: error writing to /tmp/x.s: No space left on device",
        "gcc did not finish in 600 s",
    ],
)
def test_a_compiler_that_fails_says_nothing_of_the_candidate(dense, store, monkeypatch, said):
    monkeypatch.setattr(run, "compile_program", lambda *a: said)
    args = ([dense], LOCAL, LocalRunner(), store, {"dense_f32_c"})
    (measured,) = price_signatures(*args, settings=ONE)[dense].values()
    assert measured.error == f"it does not compile: {said}"
    assert list(store.rows()) == []


@needs_cc
@needs_cross
@pytest.mark.parametrize(
    ("runner", "outcome", "kept"),
    [
        ("virtual", Outcome(error="signal 4: no such instruction", signal=4), True),
        ("virtual", Outcome(error="signal 11", signal=11), True),
        ("virtual", Outcome(error="signal 9: killed from outside", signal=9), False),
        ("virtual", Outcome(error="exit code 1: qemu has no memory"), False),
        ("virtual", Outcome(error="the program did not end within 300 s"), False),
        ("ssh", Outcome(error="pi: the program did not end within 300 s"), False),
        ("ssh", Outcome(error="signal 11", signal=11), False),
        ("local", Outcome(error="signal 11", signal=11), False),
    ],
    ids=lambda v: v.error if isinstance(v, Outcome) else None,
)  # fmt: skip
def test_only_what_will_happen_again_is_kept(dense, store, monkeypatch, runner, outcome, kept):
    """A crash under the emulator will; on a real board it may be the board's doing."""
    monkeypatch.setattr(price, "_check_tools", lambda board, runner: None)
    faulty = Faulty(EVERYTHING, outcome)
    faulty.name = runner
    board = A57 if runner == "virtual" else LOCAL
    prices = price_signatures([dense], board, faulty, store, {"dense_f32_c"}, settings=ONE)
    (measured,) = prices[dense].values()
    assert (measured.error, measured.cost) == (outcome.error, float("inf"))
    assert [m.error for _, m in store.rows()] == [outcome.error] * kept


@needs_cc
def test_a_noisy_candidate_is_no_figure_and_is_measured_again(kws, store):
    nodes, portable = [first(kws, "Dense"), first(kws, "SoftmaxAxis")], {
        "dense_f32_c", "softmax_f32_c"}  # fmt: skip
    args = (store, portable, None, ONE)
    found = price_layers(kws, nodes, LOCAL, Judging("", "it drifts by +9 %"), *args)
    steady, noisy = (m for costs in found.values() for m in costs.values())
    assert (steady.error, steady.ns, steady.ns_min) == ("", 7.0, 7.0)
    assert (noisy.error, noisy.ns, noisy.cost) == ("noisy: it drifts by +9 %", None, float("inf"))
    ((key, kept),) = store.rows()
    assert key.kernel == "dense_f32_c"
    assert json.loads(kept.conditions) == Judging.conditions
    again = price_layers(kws, nodes, LOCAL, Judging(""), *args)  # one program with one trial
    assert [m.ns for costs in again.values() for m in costs.values()] == [7.0, 7.0]
    assert len(list(store.rows())) == 2


@needs_cc
def test_a_lost_board_is_no_failure_of_a_candidate(dense, store):
    lost = Faulty(EVERYTHING, Outcome(error="connection reset", lost=True))
    with pytest.raises(PricingError, match="connection reset"):
        price_signatures([dense], LOCAL, lost, store, {"dense_f32_c"}, settings=ONE)
    assert list(store.rows()) == []


@needs_cc
def test_nothing_starts_after_a_stop(kws):
    bed = _bed(LocalRunner())
    bed.stop.set()
    with pytest.raises(run.BoardLost, match="stopped"):
        measure(_three(kws), bed)


@needs_cross
def test_a_missing_tool_is_no_failure_of_a_candidate(dense, store, monkeypatch):
    class Virtual(LocalRunner):
        name = "virtual"

    monkeypatch.setattr(price, "missing", lambda board: "llvm-mca is not installed")
    with pytest.raises(PricingError, match="llvm-mca is not installed"):
        price_signatures([dense], A57, Virtual(), store)
    monkeypatch.setattr(price, "missing", lambda board: "")

    def no_compiler(qemu):
        raise price.PluginError("this machine has no C compiler")

    monkeypatch.setattr(price, "plugin_path", no_compiler)
    with pytest.raises(PricingError, match="no C compiler"):
        price_signatures([dense], A57, Virtual(), store)
    assert list(store.rows()) == []


@needs_cross
def test_runners_that_measure_nothing(dense, store):
    class Qemu(LocalRunner):
        name = "qemu"

    with pytest.raises(CodegenError, match="'qemu' measures nothing; .* virtual, ssh"):
        price_signatures([dense], A57, Qemu(), store)


@needs_cc
def test_jobs_are_counted_from_nought(dense, store):
    with pytest.raises(CodegenError, match="--jobs: -1"):
        price_signatures([dense], LOCAL, LocalRunner(), store, settings=Settings(jobs=-1))
