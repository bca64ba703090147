"""Libraries for several threads: the same bits for any number, no races, nothing new in the core
library, hooks instead of pthreads."""

import json
import re
from dataclasses import replace

import numpy as np
import pytest

from codegen.board import load_board
from codegen.build import compile_library
from codegen.errors import CodegenError
from codegen.footprint import foreign_symbols, sections
from codegen.pipeline import generate
from codegen.program import bench_program
from codegen.reference import random_inputs
from codegen.resources import examples_dir
from codegen.run import pick_runner
from codegen.sources import write
from codegen.toolchain import find_toolchain
from codegen.verify import Interface, infer
from tests.library import HARNESS, SANITIZE, Library, check, compiled, emulator, run_harness
from tests.test_library import _toolchain
from tests.test_library_runs import STACK_SLACK

C = HARNESS.parent
KWS = "mlperf_kws_dscnn"
SLOW = [
    pytest.param(m, marks=pytest.mark.slow) for m in ("mlperf_ic_resnet8", "mlperf_vww_mbv1_025")
]
RACES = ("-fsanitize=thread", "-g1", "-O1")


def find_or_skip(board: str) -> None:
    try:
        find_toolchain(load_board(board))
    except CodegenError as e:
        pytest.skip(str(e))


def threaded(model, board, threads, folder, extra=(), prefix="") -> Library:
    find_or_skip(board)
    path = examples_dir() / "models" / f"{model}.onnx"
    made = generate(path, load_board(board), name=prefix, threads=threads)
    return compiled(made, board, folder, extra)


def on_the_pool(lib: Library) -> list[dict[str, np.ndarray]]:
    """Two samples through the verify program, which runs its steps on its threads."""
    runner = pick_runner(load_board(lib.board))
    if runner is None:
        pytest.skip(f"no runner for {lib.board} on this machine")
    interface = Interface.of(lib.generated.sources, lib.generated.schedule)
    samples = [random_inputs(lib.generated.graph, s) for s in (0, 1)]
    return infer(interface, lib.binary.verify, runner, load_board(lib.board), samples)


def same(a: list[dict[str, np.ndarray]], b: list[dict[str, np.ndarray]]) -> bool:
    return all(
        x[k].tobytes() == y[k].tobytes() for x, y in zip(a, b, strict=True) for k in x
    )


@pytest.fixture(scope="module")
def kws(tmp_path_factory) -> Library:
    """For four threads, under the name that the C programs of the tests use."""
    return threaded(KWS, "local", 4, tmp_path_factory.mktemp("kws"), prefix="kws")


@pytest.mark.parametrize("model", ["mnist8", *SLOW])
def test_same_bits_for_any_number(model, build_network, tmp_path):
    one = on_the_pool(build_network(model, "local"))
    for n in (2, 3, 4):
        lib = threaded(model, "local", n, tmp_path / str(n))
        divided = [s for s in lib.generated.schedule.program.steps if s.parts]
        assert divided
        assert max(len(s.parts) for s in divided) <= n
        assert same(on_the_pool(lib), one), n


def test_same_bits_by_four(kws, build_network):
    assert same(on_the_pool(kws), on_the_pool(build_network(KWS, "local")))


def test_same_bits_on_the_board(build_network, tmp_path):
    one = build_network(KWS, "jetson-nano-cpu")
    assert same(on_the_pool(threaded(KWS, "jetson-nano-cpu", 3, tmp_path)), on_the_pool(one))


@pytest.mark.parametrize("model", [KWS, *SLOW])
@pytest.mark.parametrize("flags", [RACES, SANITIZE], ids=["thread", "address"])
def test_sanitizers_find_nothing(flags, model, build_network, tmp_path):
    lib = threaded(model, "local", 4, tmp_path, flags)
    assert same(on_the_pool(lib), on_the_pool(build_network(model, "local")))


def test_the_thread_sanitizer_would_see_a_race(tmp_path):
    """A fault put into the generated code: all parts write to one place, and last long enough for
    a worker to wake up."""
    made = generate(examples_dir() / "models" / "mnist8.onnx", load_board("local"), threads=2)
    files, path = dict(made.sources.files), "src/mnist8_tasks.c"
    fault = (
        b"    call->arena->f32[0] = (float)part;\n"
        b"    for (volatile int i = 0; i < 30000000; i++)\n        ;\n    switch (part)"
    )
    files[path] = files[path].replace(b"    switch (part)", fault)
    made = replace(made, sources=replace(made.sources, files=files))
    with pytest.raises(RuntimeError, match="ThreadSanitizer"):
        on_the_pool(compiled(made, "local", tmp_path, RACES))


def test_hooks_without_pthreads(kws, tmp_path):
    program = tmp_path / "hooks"
    check([*kws.toolchain.cc, *kws.toolchain.flags, "-std=c11", "-Wall", "-Wextra", "-Werror",
           f"-I{kws.folder / 'include'}", C / "hooks.c", kws.binary.library, "-lm",
           "-o", program])  # fmt: skip
    divided = sum(1 for s in kws.generated.schedule.program.steps if s.parts)
    assert check([program]) == f"{divided} jobs\n" * 3


@pytest.mark.parametrize("flags", [("-DWRAPPED", "-Wl,--wrap=pthread_create"), RACES, SANITIZE],
                         ids=["plain", "thread", "address"])  # fmt: skip
def test_the_pool(flags, kws, tmp_path):
    """It needs the header and its own file, and nothing of the network."""
    check(["gcc", "-std=c11", "-O1", "-D_POSIX_C_SOURCE=200809L", "-Wall", "-Wextra", *flags,
           f"-I{kws.folder / 'include'}", C / "pool.c", kws.folder / "src" / "kws_threads.c",
           "-pthread", "-o", tmp_path / "pool"])  # fmt: skip
    check([tmp_path / "pool"])


def test_the_pool_on_the_board(kws, tmp_path):
    """AArch64's memory order, as far as qemu has it."""
    toolchain, qemu = _toolchain("aarch64"), emulator("jetson-nano-cpu")
    check([*toolchain.cc, *toolchain.flags, "-std=c11", "-D_POSIX_C_SOURCE=200809L",
           f"-I{kws.folder / 'include'}", C / "pool.c", kws.folder / "src" / "kws_threads.c",
           "-static", "-pthread", "-o", tmp_path / "pool"])  # fmt: skip
    check([*qemu, tmp_path / "pool"])


def test_core_library_keeps_its_rules(kws):
    """No pthreads, no heap, no writable data but the arena, the prefix on every symbol."""
    assert foreign_symbols(kws.binary.objects) == set()
    sizes = {p.name: sections([p]) for p in kws.binary.objects}
    assert all(s.data == 0 for s in sizes.values())
    assert [name for name, s in sizes.items() if s.bss] == ["kws_static.c.o"]
    for library in (kws.binary.library, kws.binary.library.with_name("libkws_threads.a")):
        names = check(["nm", "-g", "--defined-only", "-j", library]).split()
        assert [n for n in names if not n.startswith("kws_") and not n.endswith(".o:")] == []


def test_pool_has_no_heap_and_no_globals(kws):
    pool = kws.binary.library.with_name("libkws_threads.a")
    sizes = sections([pool])
    assert (sizes.data, sizes.bss) == (0, 0)
    assert all(n.startswith("pthread_") for n in foreign_symbols([pool]))


def test_shared_library_exports_the_entry_points_only(kws, tmp_path):
    sources = [kws.folder / p for p in kws.generated.sources.library]
    include = [f"-I{kws.folder / d}" for d in ("include", "src")]
    check([*kws.toolchain.cc, *kws.toolchain.flags, "-std=c11", "-fPIC", "-shared", *include,
           *sources, "-lm", "-o", tmp_path / "lib.so"])  # fmt: skip
    names = check(["nm", "-D", "-g", "--defined-only", "-j", tmp_path / "lib.so"]).split()
    assert sorted(names) == ["kws_run", "kws_run_in", "kws_run_parallel"]


@pytest.mark.parametrize("compiler", ["clang", "aarch64"])
def test_no_warning(compiler, kws, tmp_path):
    write(kws.generated.sources, tmp_path)
    binary = compile_library(kws.generated.sources, tmp_path, _toolchain(compiler))
    assert not binary.error, binary.error


@pytest.mark.parametrize("standard", ["c++11", "c++17"])
def test_headers_are_cpp_too(kws, standard, tmp_path):
    (tmp_path / "main.cpp").write_text(
        '#include "kws_threads.h"\n#include "kws.h"\n'
        "static kws_threads threads;\nstatic kws_arena arena;\n"
        "static float in[KWS_INPUT_SIZE], out[KWS_OUTPUT_SIZE];\n"
        "int main() {\n    if (kws_threads_init(&threads, KWS_THREADS)) return 1;\n"
        "    kws_run_parallel(&arena, kws_threads_for, &threads, in, out);\n"
        "    kws_threads_destroy(&threads);\n    return 0;\n}\n"
    )
    flags = (f"-std={standard}", "-Wall", "-Wextra", "-Wpedantic", "-Wconversion", "-Werror")
    libraries = [kws.binary.library.with_name("libkws_threads.a"), kws.binary.library]
    check(["g++", *flags, f"-I{kws.folder / 'include'}", "main.cpp", *libraries, "-pthread",
           "-lm", "-o", "main"], cwd=tmp_path)  # fmt: skip
    check([tmp_path / "main"])


def test_stack_counts_what_goes_through_a_pointer(kws):
    measured = int(run_harness(kws, "stack", [0]))
    assert measured <= kws.binary.stack_bytes + STACK_SLACK
    assert kws.binary.stack_bytes <= 4 * measured + STACK_SLACK


def test_what_is_written_says_the_number(kws):
    header = kws.generated.sources.files["include/kws.h"].decode()
    assert "#define KWS_THREADS 4\n" in header
    assert "all scratch of 4 threads" in header


def test_text_is_tidy(kws):
    for path, data in kws.generated.sources.files.items():
        if not path.endswith((".c", ".h")) or path.endswith("_weights.c"):
            continue
        text = data.decode()
        assert [x for x in text.splitlines() if len(x) > 120 or x != x.rstrip()] == [], path
        assert [x for x in text.splitlines() if re.search(r" [+-] 0[;,)\]]", x)] == [], path
        assert "\n\n\n" not in text, path
        assert text.endswith("\n"), path
        assert not text.endswith("\n\n"), path


def test_the_virtual_board_counts_one_core(tmp_path):
    """Whether a plan or a folder says it; --threads is tested in test_cli.py."""
    board, said = load_board("jetson-nano-cpu"), "2 threads on the virtual board, which counts the"
    folder = tmp_path / "built"
    (folder / "build").mkdir(parents=True)
    (folder / "build" / "bench").touch()
    report = {"model": "m", "board": board.name, "layers": [], "threads": 2}
    (folder / "report.json").write_text(json.dumps(report))
    with (
        pytest.raises(CodegenError, match=said) as caught,
        bench_program(folder, board, None, {}, print, virtual=True),
    ):
        pass
    assert caught.value.where == str(folder)
    find_or_skip(board.name)
    model = examples_dir() / "models" / "mnist8.onnx"
    plan = tmp_path / "plan.json"
    plan.write_text(generate(model, board, threads=2).plan.to_json())
    with (
        pytest.raises(CodegenError, match=said),
        bench_program(model, board, plan, {}, lambda stage: None, virtual=True),
    ):
        pass


def test_one_thread_has_nothing_of_it(build_network):
    """Neither files nor words: what it was before there were threads."""
    sources = build_network(KWS, "local").generated.sources
    assert not any("thread" in p or "task" in p for p in sources.files)
    for path, data in sources.files.items():
        if path.startswith(("src/", "include/")) and not path.endswith("weights.c"):
            assert not re.search(rb"thread|parallel|pool\b|serial", data), path
