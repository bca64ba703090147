"""A generated library at run time, driven by tests/c/harness.c: exact buffers, dirty buffers, two
at a time, stack, strict aliasing; on this machine and for a board under qemu."""

import importlib.util
import shutil
from dataclasses import replace

import numpy as np
import pytest

from codegen import emit
from codegen.board import load_board
from codegen.compare import difference, passes
from codegen.pipeline import generate
from codegen.reference import Reference, random_inputs
from codegen.resources import examples_dir
from codegen.stack import read_callgraph, read_frames
from codegen.toolchain import find_toolchain, ziglang_toolchain
from tests.library import bundled, check, compiled, quickest_board, run_harness

MODELS = ("mnist8", "mlperf_ic_resnet8")
BOARDS = ("local", "jetson-nano-cpu")
# Frames of libm and memcpy, what a call itself pushes, and alignment of the first frame.
STACK_SLACK = 512


@pytest.fixture(params=MODELS)
def model(request):
    return request.param


@pytest.fixture(params=BOARDS)
def library(request, model, build_network):
    return build_network(model, request.param)


def _check_outputs(lib, model, outputs):
    inputs = random_inputs(lib.generated.graph, 0)
    expected = Reference(examples_dir() / "models" / f"{model}.onnx").run(inputs)
    assert outputs.keys() == expected.keys()
    for name, y in outputs.items():
        assert passes(difference(y, expected[name]), "f32")


def test_right_and_inputs_untouched(library, model):
    _check_outputs(library, model, run_harness(library, "run", [0]))


def test_what_buffers_held_before_does_not_matter(library):
    run_harness(library, "fills", [3])


def test_two_threads_with_an_arena_each(library):
    run_harness(library, "threads", [1, 2])


def test_reported_stack_is_enough_and_not_absurd(library):
    """A painted stack: the report counts whole frames, the paint only what was written to."""
    measured = int(run_harness(library, "stack", [0]))
    reported = library.binary.stack_bytes
    assert measured <= reported + STACK_SLACK
    assert reported <= 4 * measured + STACK_SLACK


@pytest.mark.parametrize(
    "model", [pytest.param("mnist8", marks=pytest.mark.slow), "mlperf_ic_resnet8"]
)
def test_strict_aliasing_changes_nothing(model, tmp_path):
    board = quickest_board()
    generated = generate(examples_dir() / "models" / f"{model}.onnx", load_board(board))
    outputs = []
    for flags in (("-O3",), ("-O3", "-fno-strict-aliasing")):
        lib = compiled(generated, board, tmp_path / flags[-1], flags)
        outputs.append(run_harness(lib, "run", [0]))
    for name, y in outputs[0].items():
        assert np.array_equal(y, outputs[1][name])


@pytest.mark.parametrize("board", BOARDS)
def test_weights_in_a_blob(board, build_network, tmp_path, monkeypatch):
    """.S and .bin instead of .c: the same numbers, in a folder with a space in its name."""
    as_text = build_network("mnist8", board)
    monkeypatch.setattr(emit, "BLOB_BYTES", 0)
    blob = bundled("mnist8", board, tmp_path / "my firmware")
    assert "src/mnist8_weights.S" in blob.generated.sources.files
    assert "src/mnist8_weights.c" not in blob.generated.sources.files
    outputs = run_harness(blob, "run", [0])
    for name, y in run_harness(as_text, "run", [0]).items():
        assert np.array_equal(y, outputs[name])


@pytest.mark.parametrize(
    ("mode", "fault", "complaint"),
    [
        ("run", "((float *)Input3)[0] += 1.0f;", "an input was written to"),
        ("fills", "if (arena->u8[0] == 0x7F) return;", "what the buffers held before"),
        ("threads", "static int n; if (n++ == 9) { Plus214_Output_0[0] = 0; return; }", "disturb"),
    ],
)
def test_the_harness_sees_a_fault(mode, fault, complaint, build_network, tmp_path):
    """Faults put into the generated code: each mode must notice its own."""
    lib = build_network("mnist8", "local")
    folder = shutil.copytree(lib.folder, tmp_path / "lib")
    (folder / "harness" / "harness").unlink(missing_ok=True)
    source = (folder / "src" / "mnist8.c").read_text()
    faulty = source.replace("\n{\n", f"\n{{\n{fault}\n", 1)
    assert faulty != source
    (folder / "faulty.c").write_text(faulty)
    check([*lib.toolchain.cc, *lib.toolchain.flags, "-std=c11", "-w", "-Iinclude", "-Isrc",
           "-c", "faulty.c", "-o", "build/mnist8.c.o"], cwd=folder)  # fmt: skip
    check(["ar", "rcsD", "build/libmnist8.a", "build/mnist8.c.o"], cwd=folder)
    binary = replace(lib.binary, library=folder / "build" / "libmnist8.a")
    with pytest.raises(AssertionError, match=complaint):
        run_harness(replace(lib, folder=folder, binary=binary), mode, [0, 1])


@pytest.mark.slow
def test_zig_links_a_blob_too(build_network, tmp_path, monkeypatch):
    if importlib.util.find_spec("ziglang") is None:
        pytest.skip("the Python package ziglang is not installed")
    as_text = build_network("mnist8", "jetson-nano-cpu")
    monkeypatch.setattr(emit, "BLOB_BYTES", 0)
    board = load_board("jetson-nano-cpu")
    generated = generate(examples_dir() / "models" / "mnist8.onnx", board)
    zig = ziglang_toolchain(board)
    blob = compiled(generated, board.name, tmp_path / "my firmware", toolchain=zig)
    for name, y in run_harness(as_text, "run", [0]).items():
        assert passes(difference(run_harness(blob, "run", [0])[name], y), "f32")


def test_stack_of_known_functions(tmp_path):
    """Two functions with known arrays, one calling the other: the sum, not the larger."""
    (tmp_path / "x.c").write_text(
        "void use(char *);\n"
        "static __attribute__((noinline)) void inner(void) { char b[2000]; use(b); }\n"
        "void outer(void) { char a[1000]; use(a); inner(); use(a); }\n"
    )
    check(["gcc", "-O1", "-fcallgraph-info=su", "-c", "x.c"], cwd=tmp_path)
    assert 3000 <= read_callgraph([tmp_path / "x.ci"]).deepest("outer") <= 3200
    check(["gcc", "-O1", "-fstack-usage", "-c", "x.c"], cwd=tmp_path)
    assert 3000 <= read_frames([tmp_path / "x.su"], {"outer": []}).deepest("outer") <= 3200


def test_stack_is_unknown_where_a_file_of_its_frames_is_missing(tmp_path):
    """As with a compiler cache that brings objects back without them."""
    cc = tmp_path / "gcc"
    cc.write_text(
        "#!/bin/sh\n"
        'gcc "$@" && case "$*" in *"-o build/mnist8_conv2d.c.o") rm build/*_conv2d.c.ci; esac\n'
    )
    cc.chmod(0o755)
    generated = generate(examples_dir() / "models" / "mnist8.onnx", load_board("local"))
    native = find_toolchain(load_board("local"))
    assert compiled(generated, "local", tmp_path / "all").binary.stack_bytes
    lacking = replace(native, cc=(str(cc),))
    some = compiled(generated, "local", tmp_path / "some", toolchain=lacking)
    assert some.binary.stack_bytes is None


def test_compiler_caches_are_told_to_stay_out(tmp_path):
    cc = tmp_path / "gcc"
    cc.write_text('#!/bin/sh\n[ "$CCACHE_DISABLE" = 1 ] && gcc "$@"\n')
    cc.chmod(0o755)
    generated = generate(examples_dir() / "models" / "mnist8.onnx", load_board("local"))
    native = find_toolchain(load_board("local"))
    lib = compiled(generated, "local", tmp_path / "lib", toolchain=replace(native, cc=(str(cc),)))
    assert not lib.binary.error
