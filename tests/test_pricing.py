"""Pricing: which candidates are run, what is kept, and for how long it holds."""

import dataclasses

import pytest

from codegen.errors import CodegenError
from codegen.graph import Graph, Node, Tensor
from codegen.kernels import candidates, family_rows, load_kernels
from codegen.layer import layer_of
from codegen.ops import OPS
from codegen.pricing import Candidate, context, price, price_layers, price_signatures
from codegen.pricing.context import context_of
from codegen.pricing.harness import harness_text
from codegen.pricing.stale import reasons
from codegen.pricing.trials import trials
from codegen.run import Outcome
from codegen.run.local import LocalRunner
from codegen.signature import Signature, conversion_signature, signature_of
from codegen.store import Measurement
from codegen.toolchain import find_toolchain
from codegen.types import DType
from tests.kernel_cases import make_graph
from tests.kernel_cases import trials as cases_of
from tests.pricing_cases import (
    A57,
    EVERYTHING,
    LOCAL,
    ONE,
    Faulty,
    first,
    needs_cc,
    needs_cross,
)

# ---- which candidates there are ----


def test_candidates_are_the_rows_that_compute_the_layer(kws):
    node = first(kws, "Conv")
    found = [t.candidate for t in trials(signature_of(kws, node), A57)]
    wanted = [
        Candidate(r.name, layout, r.come(layout))
        for layout in ("nchw", "nhwc")
        for r in candidates(layer_of(kws, node, layout), A57)
        if r.layout in ("any", layout)
    ]
    assert len(found) > 5
    assert found == wanted
    assert {c.layouts for c in found} == {"nchw", "nhwc", "nchw>nhwc"}


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


@pytest.mark.parametrize(
    ("part", "value", "same"),
    [
        ("program.__version__", "9.9", True),
        ("program.comment", lambda text: "other words", True),
        ("program.NUMBERS", (), False),
        ("program.overwritable", lambda *_: iter(()), False),
        ("harness.APART", (), False),
        ("harness.arguments", lambda *_: ("3",), False),
        ("harness.figures", lambda *_: Measurement(7), False),
    ],
)
def test_prices_hold_while_measuring_does_the_same(part, value, same, monkeypatch):
    """A rearranged source file changes nothing: the program that measures is compared, not the text
    of what writes it."""
    before = harness_text("virtual")
    monkeypatch.setattr(f"codegen.pricing.{part}", value)
    assert (harness_text("virtual") == before) is same


def test_the_measuring_program_is_told_without_comments_and_kernels():
    text = harness_text("ssh")
    assert "dense_f32" not in text
    assert "/*" not in text
    assert "touch(elsewhere, EVICT_BYTES, 1)" in text
