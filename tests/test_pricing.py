"""Pricing: which candidates are run, what is kept, and what a failure costs the others."""

import dataclasses
import json
import shutil
from pathlib import Path

import pytest

from codegen.board import load_board
from codegen.errors import CodegenError
from codegen.footprint import functions
from codegen.graph import Graph, Node, Tensor
from codegen.kernels import candidates, family_rows, load_kernels
from codegen.layer import layer_of
from codegen.ops import OPS
from codegen.pipeline import load_graph
from codegen.pricing import (
    Candidate,
    PricingError,
    Settings,
    context,
    price,
    price_layers,
    price_signatures,
    run,
)
from codegen.pricing.context import context_of
from codegen.pricing.run import Bed, measure
from codegen.pricing.stale import reasons
from codegen.pricing.trials import trials
from codegen.run import Job, Outcome
from codegen.run.local import LocalRunner
from codegen.signature import Signature, conversion_signature, signature_of
from codegen.store import Store
from codegen.toolchain import find_host_cc, find_toolchain
from codegen.types import DType
from tests.kernel_cases import make_graph
from tests.kernel_cases import trials as cases_of

MODELS = Path(__file__).resolve().parent.parent / "examples" / "models"
LOCAL, A57 = load_board("local"), load_board("jetson-nano-cpu")
ONE = Settings(jobs=1, ms=1)
needs_cc = pytest.mark.skipif(not find_host_cc(), reason="no C compiler on this machine")
needs_cross = pytest.mark.skipif(
    not shutil.which("aarch64-linux-gnu-gcc"), reason="no aarch64-linux-gnu-gcc on this machine"
)


@pytest.fixture
def store(tmp_path) -> Store:
    return Store(tmp_path / "store.sqlite")


@pytest.fixture(scope="module")
def kws() -> Graph:
    return load_graph(MODELS / "mlperf_kws_dscnn.onnx")


def first(graph: Graph, op: str) -> Node:
    return next(n for n in graph.nodes if n.op == op)


@pytest.fixture(scope="module")
def dense(kws) -> Signature:
    """A small layer with few candidates."""
    return signature_of(kws, first(kws, "Dense"))


class Faulty(LocalRunner):
    """A board on which programs that contain a certain function end with `outcome`."""

    def __init__(self, function: str, outcome: Outcome):
        self.function, self.outcome = function, outcome

    def run(self, job: Job, board) -> Outcome:
        if any(self.function in f.name for f in functions(job.program)):
            return self.outcome
        return super().run(job, board)


EVERYTHING = "main"


# ---- which candidates there are ----


def test_candidates_are_the_rows_that_compute_the_layer(kws):
    node = first(kws, "Conv")
    found = [t.candidate for t in trials(signature_of(kws, node), A57)]
    wanted = [
        Candidate(r.name, layout, layout)
        for layout in ("nchw", "nhwc")
        for r in candidates(layer_of(kws, node, layout), A57)
        if r.layout in ("any", layout)
    ]
    assert len(found) > 5
    assert found == wanted


def test_layers_that_move_data_have_a_layout_at_either_end():
    shape = {"x": (2, 3, 4, 5), "y": (2, 4, 3, 5)}
    tensors = {n: Tensor(n, s, DType.F32) for n, s in shape.items()}
    node = Node("t", "Transpose", ("x",), ("y",), {"perm": (0, 2, 1, 3)})
    graph = Graph("g", ("x",), ("y",), (node,), tensors, {})
    found = {t.candidate.layouts for t in trials(signature_of(graph, node), LOCAL)}
    assert found == {"nchw", "nhwc", "nchw>nhwc", "nhwc>nchw"}


def test_a_changed_block_size_is_another_code_for_that_row_alone(dense, monkeypatch):
    before = {t.candidate.kernel: t.code for t in trials(dense, A57)}
    assert len(set(before.values())) == len(before) > 2
    rows = dict(load_kernels())
    name = "dense_f32_neon_nr16"
    rows[name] = dataclasses.replace(rows[name], params={**rows[name].params, "nr": 8})
    monkeypatch.setattr("codegen.schedule.load_kernels", lambda: rows)
    after = {t.candidate.kernel: t.code for t in trials(dense, A57)}
    assert [k for k in before if before[k] != after[k]] == [name]


# ---- measuring ----


def _one_layer_of_every_operator() -> list[Signature]:
    found = {}
    for op in OPS.values():
        rows = family_rows(op.family) if op.family else ()
        case = next((t for r in rows[:1] for t in cases_of(r) if t.op == op.name), None)
        if case is not None:
            graph = make_graph([case], seed=0)
            node = next(n for n in graph.nodes if n.op == op.name)
            found[op.name] = signature_of(graph, node)
    assert len(found) > 40
    return list(found.values())


@needs_cc
def test_every_operator_can_be_priced(store):
    """With its portable row, which needs no vector headers and so compiles fast."""
    layers = _one_layer_of_every_operator()
    portable = {r.name for s in layers for r in family_rows(OPS[s.op].family)[:1]}
    prices = price_signatures(layers, LOCAL, LocalRunner(), store, portable, settings=ONE)
    for signature, costs in prices.items():
        assert costs, signature
        for candidate, measured in costs.items():
            assert measured.error == "", (str(signature), str(candidate))
            assert measured.cycles is None  # never made up from a clock
            assert measured.ns >= measured.ns_min >= 0


@needs_cc
def test_what_is_known_is_not_measured_again(kws, store, monkeypatch):
    told = []
    nodes = [first(kws, "Dense"), first(kws, "SoftmaxAxis"), first(kws, "Dense")]
    portable = {"dense_f32_c", "softmax_f32_c"}
    args = (kws, nodes, LOCAL, LocalRunner(), store, portable)
    prices = price_layers(*args, lambda done, of: told.append((done, of)), ONE)
    assert told == [(0, 2), (2, 2)]
    assert [len(c) for c in prices.values()] == [1, 1]
    monkeypatch.setattr(price, "measure", None)  # a call would fail
    assert price_layers(*args, settings=ONE) == prices
    with pytest.raises(TypeError):
        price_layers(*args, settings=dataclasses.replace(ONE, again=True))
    with pytest.raises(TypeError):
        price_layers(*args, settings=dataclasses.replace(ONE, warm=True))


@needs_cc
def test_sizes(store, dense):
    prices = price_signatures([dense], LOCAL, LocalRunner(), store, {"dense_f32_c"}, settings=ONE)
    (measured,) = prices[dense].values()
    assert measured.weights_bytes == 4 * (64 * 12 + 12)
    assert measured.scratch_bytes == 0
    assert measured.code_bytes > 40


def test_a_change_of_layout_that_moves_nothing_is_free(store):
    flat = conversion_signature(Tensor("x", (1, 8, 1, 1), DType.F32), "nhwc", "nchw")
    lost = Faulty(EVERYTHING, Outcome(error="no board", lost=True))
    prices = price_signatures([flat], LOCAL, lost, store, settings=ONE)
    (measured,) = prices[flat].values()
    assert (measured.cycles, measured.ns, measured.error) == (0, 0, "")


# ---- failures ----


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


class Judging(LocalRunner):
    """A board that tells its conditions, and calls every list of runs noisy for which there is a
    reason in `said`."""

    name = "ssh"
    conditions = {"before": {"temperature_c": 40.0}, "after": {"temperature_c": 41.5}}

    def __init__(self, *said: str):
        self.said = said

    def run(self, job: Job, board) -> Outcome:
        outcome = super().run(job, board)
        runs = [[7.0] * 8 for _ in outcome.report["runs_ns"]]
        more = {"runs_ns": runs, "noisy": list(self.said), "conditions": self.conditions}
        return dataclasses.replace(outcome, report={**outcome.report, **more})


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


# ---- what makes a measurement valid ----


@needs_cross
@pytest.mark.parametrize(
    ("change", "same"),
    [
        ({"name": "mine", "title": "Mine", "flash_bytes": 5}, True),
        ({"clock_hz": 1}, False),
        ({"l2_bytes": 1 << 20}, False),
        ({"cflags": ("-O3",)}, False),
        ({"cycle_model": "branch"}, False),
        ({"cycle_model": "basis"}, True),
    ],
    ids=str,
)
def test_context_follows_silicon_and_compiler(change, same):
    if "cycle_model" in change:
        value = {"branch": 99, "basis": "guess"}[change["cycle_model"]]
        core = dataclasses.replace(A57.cycle_model.core, **{change["cycle_model"]: value})
        change = {"cycle_model": dataclasses.replace(A57.cycle_model, core=core)}
    other = dataclasses.replace(A57, **change)
    before, after = (context_of(b, "virtual", find_toolchain(b)) for b in (A57, other))
    assert (before.key == after.key) is same


@needs_cc
def test_what_changed_goes(kws, dense, store, monkeypatch):
    price_signatures([dense], LOCAL, LocalRunner(), store, {"dense_f32_c"}, settings=ONE)
    (row,) = store.rows()
    assert reasons([row]) == []
    key, measured = row

    def why(days=None, date=measured.date, context=key.context, **change) -> str:
        changed = dataclasses.replace(key, context=context, **change)
        ((_, text),) = reasons([(changed, dataclasses.replace(measured, date=date))], days)
        return text

    assert why(code="old") == "the kernel's code has changed"
    assert why(kernel="gone") == "no such candidate any more"
    assert why(layer=Signature('{"op":"Unheard"}')) == "no such candidate any more"
    assert why(days=3, date="2020-01-01T00:00:00+00:00") == "older than 3 days"
    assert why(days=3, date="yesterday") == "it has no date"
    for field, said in (
        ("board_sha256", "the board's figures have changed"),
        ("version", "what measures has changed"),
        ("toolchain", "the compiler or its flags have changed"),
    ):
        assert why(context=dataclasses.replace(key.context, **{field: "old"})) == said
    stranger = dataclasses.replace(key, context=dataclasses.replace(key.context, board="mine"))
    assert reasons([(stranger, measured)]) == []

    def no_compiler(board):
        raise CodegenError("board", "no compiler", "one", "install it")

    monkeypatch.setattr("codegen.pricing.stale.find_toolchain", no_compiler)
    old = dataclasses.replace(key, context=dataclasses.replace(key.context, version="old"))
    assert reasons([(old, measured)]) == []


def test_versions_name_the_tools():
    version = context._version("virtual")
    assert "qemu-aarch64 version" in version or "none" in version
    assert context._version("local") != context._version("ssh")
