"""Generated code under AddressSanitizer and UndefinedBehaviorSanitizer, with inputs, outputs and
arena on the heap, exactly as large as promised: an element too far is an error.

NEON loads go through SIMDe here, so the sanitizers see each of them.
"""

import numpy as np
import pytest

from codegen.board import load_board
from codegen.compare import difference, passes
from codegen.heuristic import default_plan
from codegen.interpret import interpret
from codegen.kernels import load_kernels
from codegen.pipeline import finish
from codegen.reference import random_inputs
from codegen.resources import examples_dir
from tests.kernel_cases import EMULATED, make_graph, trials
from tests.library import SANITIZE, bundled, check, compiled, harness, of_trials, run_harness
from tests.library_cases import one_trial_per_operator

ROWS = [r for r in load_kernels().values() if r.isa not in EMULATED]
BUNDLED = sorted(p.stem for p in (examples_dir() / "models").glob("*.onnx"))
# For `make test`: of each family with vector kernels the last row, which has the largest tile.
QUICK = list({r.family: r for r in ROWS if r.isa != "c"}.values())


@pytest.fixture(scope="session", autouse=True)
def _sanitizers_work(tmp_path_factory):
    folder = tmp_path_factory.mktemp("sanitizers")
    (folder / "x.c").write_text("int main(void) { return 0; }\n")
    try:
        check(["cc", *SANITIZE, "x.c", "-o", "x"], cwd=folder)
        check([folder / "x"])
    except AssertionError as e:
        pytest.skip(f"the sanitizers do not work here: {e}"[:200])


def _check(lib):
    graph = lib.generated.graph
    expected = interpret(graph, random_inputs(graph, 0))
    for name, y in run_harness(lib, "run", [0]).items():
        assert passes(difference(y, np.asarray(expected[name])), DTYPES.get(str(y.dtype), "i64"))


DTYPES = {"float32": "f32", "float64": "f64", "float16": "f16"}


@pytest.mark.slow
@pytest.mark.parametrize("name", BUNDLED)
def test_bundled_network(name, tmp_path):
    _check(bundled(name, "local", tmp_path, extra=SANITIZE))


def test_every_operator(tmp_path):
    board = load_board("local")
    graph = make_graph(one_trial_per_operator(), seed=1)
    generated = finish(graph, default_plan(graph, board, "0" * 64), board, "operators")
    _check(compiled(generated, "local", tmp_path, SANITIZE))


@pytest.mark.parametrize("row", QUICK, ids=lambda r: r.name)
def test_some_layers_of_a_row(row, tmp_path):
    _check(of_trials(trials(row)[::6], row.name, tmp_path, SANITIZE))


@pytest.mark.slow
@pytest.mark.parametrize("row", ROWS, ids=lambda r: r.name)
def test_all_layers_of_a_row(row, tmp_path):
    _check(of_trials(trials(row), row.name, tmp_path, SANITIZE))


def test_one_element_less_is_noticed(tmp_path):
    """The check above can fail: a buffer that is one float short is an error."""
    lib = bundled("mnist8", "local", tmp_path, extra=SANITIZE)
    run_harness(lib, "run", [0])
    net = (tmp_path / "harness" / "net.h").read_text()
    short = net.replace("net_input_bytes[] = {3136}", "net_input_bytes[] = {3132}")
    assert short != net
    harness(lib, short)
    with pytest.raises(AssertionError, match="heap-buffer-overflow"):
        run_harness(lib, "run", [0])
