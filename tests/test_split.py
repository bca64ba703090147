"""Steps in parts: every kernel row that says how it is divided computes the same bits as whole."""

from pathlib import Path

import numpy as np
import pytest

from codegen import split
from codegen.board import load_board
from codegen.heuristic import default_plan
from codegen.kernels import Kernel, load_kernels
from codegen.pipeline import finish, load_graph
from codegen.plan import Choice, Plan
from codegen.ranges import SPLITS
from codegen.regions import aligned
from codegen.resources import examples_dir
from codegen.schedule import lower
from tests.kernel_cases import Trial, make_graph, trials
from tests.library import compiled, quickest_board, run_harness

SHA = "0" * 64
BOARD = load_board("jetson-nano-cpu")
ROWS = [r for r in load_kernels().values() if r.split]
FAMILIES = sorted({(r.family, r.isa == "fp16") for r in ROWS})
HALF = "raspberry-pi-5"  # a board that has float16 arithmetic
THREADS = 3
TRIALS = 2


def of_row(row: Kernel) -> list[Trial]:
    """Large layers, which can be divided."""

    def size(trial: Trial) -> int:
        return sum(int(np.prod(s)) for s in trial.case.inputs[:2] if isinstance(s, tuple))

    return sorted(trials(row), key=size)[-TRIALS:]


@pytest.mark.parametrize(
    ("family", "half"), FAMILIES, ids=[f + "-half" * half for f, half in FAMILIES]
)
def test_same_bits_in_parts(family, half, tmp_path, monkeypatch):
    monkeypatch.setattr(split, "_LEAST_CYCLES", 1e-3)
    rows = [r for r in ROWS if (r.family, r.isa == "fp16") == (family, half)]
    pairs = [(row, t) for row in rows for t in of_row(row)]
    board = HALF if half else quickest_board()
    if half and quickest_board() == "local":
        pytest.skip("half precision needs a cross compiler and qemu")
    graph = make_graph([t for _, t in pairs], seed=1)
    names = {f"t{i}": Choice(row.name, t.layout) for i, (row, t) in enumerate(pairs)}
    outputs = []
    for n in (1, THREADS):
        plan = Plan(board, SHA, {x.name: names[x.name] for x in graph.nodes}, threads=n)
        made = finish(graph, plan, load_board(board), "trials")
        lib = compiled(made, board, tmp_path / str(n), ("-O1",))
        outputs.append(run_harness(lib, "run", [0]))
    divided = {s.kernel.name for s in made.schedule.program.steps if s.parts}
    assert divided >= {row.name for row, _ in pairs}
    one, several = outputs
    wrong = [
        f"{name}: {pairs[int(name[1:].split('_')[0])]}"
        for name in one
        if one[name].tobytes() != several[name].tobytes()
    ]
    assert wrong == []


@pytest.fixture(scope="module")
def program():
    graph = load_graph(examples_dir() / "models" / "mlperf_ic_resnet8.onnx")
    return lower(graph, default_plan(graph, BOARD, SHA), BOARD)


def test_one_thread_divides_nothing(program):
    assert split.split(program, 1, BOARD.core) is program


def test_short_steps_and_rows_without_a_split_stay_whole(program):
    found = split.split(program, 4, BOARD.core)
    whole = {s.kernel.name for s in found.steps if not s.parts}
    assert {"dense_f32_neon_nr16", "softmax_f32_neon_rows"} <= whole
    assert all(s.kernel.split for s in found.steps if s.parts)


def test_each_part_has_scratch_of_its_own(program):
    for step in split.split(program, 4, BOARD.core).steps:
        ends = 0
        for part in step.parts:
            assert part.scratch == ends
            ends += aligned(part.scratch_bytes)
        if step.parts:
            assert step.scratch_bytes == ends


def test_at_most_so_many_parts_of_equal_size():
    d = {"size": 1000}
    for n in range(1, 9):
        parts = SPLITS["elements"](d, {}, n)
        sizes = [p.dims["size"] for p in parts]
        assert len(parts) <= n
        assert sum(sizes) == 1000
        assert len(set(sizes[:-1])) <= 1
        assert sizes[-1] <= sizes[0]
        assert all(p.elements % 16 == 0 for p in parts)


@pytest.mark.parametrize(("pixels", "by"), [(100, "pixels"), (9, "channels")])
def test_a_product_with_more_weights_than_data_is_divided_by_channels(pixels, by):
    d = {"n": 1, "c": 64, "m": 96, "h": 1, "w": pixels, "oh": 1, "ow": pixels, "kh": 1, "kw": 1,
         "groups": 1, "residual": 0}  # fmt: skip
    params = {"mr": 8, "nr": 8}
    parts = SPLITS["pixels"](d, params, 3)
    assert len(parts) > 1
    assert ("m" in parts[0].dims) == (by == "channels")
    with_residual = SPLITS["pixels"]({**d, "residual": 1}, params, 3)
    assert "m" not in with_residual[0].dims


def test_windows_that_see_only_padding_are_not_divided():
    """The second half would have an image of no rows."""
    d = {"n": 1, "c": 4, "m": 4, "h": 1, "w": 4, "oh": 4, "ow": 4, "kh": 1, "kw": 1, "sh": 1,
         "dh": 1, "pt": 0, "pb": 3}  # fmt: skip
    assert SPLITS["rows"](d, {}, 2) == []


def test_the_folder_of_templates_says_how():
    """A row is divided by one word in its table."""
    text = Path(examples_dir().parent, "templates", "conv2d", "kernels.toml").read_text()
    assert text.count("split    = ") == sum(r.family == "conv2d" for r in ROWS)
