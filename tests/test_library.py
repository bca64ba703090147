"""What a firmware engineer asks of a generated library before linking it: does it compile anywhere
without a warning, what does it pull in, what does it export, and are two builds the same bytes?"""

import os
import re
import shutil
import sys
from dataclasses import replace

import pytest

from codegen import emit
from codegen.board import load_board
from codegen.build import compile_library
from codegen.errors import CodegenError
from codegen.footprint import foreign_symbols, sections, symbols
from codegen.heuristic import default_plan
from codegen.pipeline import finish, generate
from codegen.resources import examples_dir
from codegen.sources import write
from codegen.toolchain import find_toolchain
from tests.kernel_cases import make_graph
from tests.library import bundled, check, quickest_board
from tests.library_cases import one_trial_per_operator

MODELS = ("mnist8", "mlperf_ic_resnet8")
MNIST = examples_dir() / "models" / "mnist8.onnx"


def _toolchain(name: str):
    """gcc and clang of this machine, and the cross compiler of a board."""
    if name == "aarch64":
        try:
            return find_toolchain(load_board("jetson-nano-cpu"))
        except CodegenError as e:
            pytest.skip(str(e))
    if not shutil.which(name):
        pytest.skip(f"no {name} on this machine")
    return replace(find_toolchain(load_board("local")), cc=(name,))


@pytest.fixture(scope="module")
def every_operator():
    """A network with one layer of every operator, as the default plan would compile it."""
    board = load_board("local")
    graph = make_graph(one_trial_per_operator(), seed=1)
    return finish(graph, default_plan(graph, board, "0" * 64), board, "every operator")


@pytest.mark.parametrize(
    ("compiler", "level"),
    [
        ("gcc", "-O3"),
        ("clang", "-O3"),
        ("aarch64", "-O0"),
        pytest.param("gcc", "-O0", marks=pytest.mark.slow),
        pytest.param("clang", "-O0", marks=pytest.mark.slow),
        pytest.param("aarch64", "-O3", marks=pytest.mark.slow),
    ],
)
def test_no_warning_at_any_level(every_operator, compiler, level, tmp_path):
    write(every_operator.sources, tmp_path)
    binary = compile_library(every_operator.sources, tmp_path, _toolchain(compiler), (level,))
    assert not binary.error, binary.error
    assert len(every_operator.sources.calls) > 40


@pytest.fixture(params=MODELS)
def library(request, build_network):
    return build_network(request.param, "local")


@pytest.mark.parametrize("standard", ["c++11", "c++17"])
def test_header_is_cpp_too(library, standard, tmp_path):
    if not shutil.which("g++"):
        pytest.skip("no g++ on this machine")
    name = library.name
    ports = [*library.generated.sources.inputs, *library.generated.sources.outputs]
    arrays = "".join(f"static {p.c_type} {p.c_name}[{p.tensor.size}];\n" for p in ports)
    args = ", ".join(p.c_name for p in ports)
    (tmp_path / "main.cpp").write_text(
        f'#include "{name}.h"\n#include "{name}.h"\nstatic {name}_arena mine;\n{arrays}'
        f"static_assert(sizeof mine == {name.upper()}_ARENA_BYTES, "
        f'"as in C");\nstatic_assert(alignof({name}_arena) == 64, "as in C");\n'
        f"int main() {{ {name}_run({args}); {name}_run_in(&mine, {args}); return 0; }}\n"
    )
    flags = (f"-std={standard}", "-Wall", "-Wextra", "-Wpedantic", "-Wconversion", "-Werror")
    include = f"-I{library.folder / 'include'}"
    check(["g++", *flags, include, "main.cpp", library.binary.library, "-lm", "-o", "main"],
          cwd=tmp_path)  # fmt: skip
    check([tmp_path / "main"])


def test_pulls_in_nothing_but_libm(library):
    assert foreign_symbols(library.binary.objects) == set()


def test_no_writable_globals_but_the_arena(library):
    sizes = {p.name: sections([p]) for p in library.binary.objects}
    assert all(s.data == 0 for s in sizes.values())
    zeroed = {name: s.bss for name, s in sizes.items() if s.bss}
    arena = library.generated.schedule.arena_bytes
    assert zeroed == {f"{library.name}_static.c.o": arena}


def test_every_global_symbol_has_the_prefix(library):
    names = check(["nm", "-g", "--defined-only", "-j", library.binary.library]).split()
    names = [n for n in names if not n.endswith(".o:")]
    assert f"{library.name}_run" in names
    assert [n for n in names if not n.startswith(f"{library.name}_")] == []


def test_shared_library_exports_the_entry_points_only(library, tmp_path):
    sources = [library.folder / p for p in library.generated.sources.library]
    include = [f"-I{library.folder / d}" for d in ("include", "src")]
    check([*library.toolchain.cc, *library.toolchain.flags, "-std=c11", "-fPIC", "-shared",
           *include, *sources, "-lm", "-o", tmp_path / "lib.so"])  # fmt: skip
    names = check(["nm", "-D", "-g", "--defined-only", "-j", tmp_path / "lib.so"]).split()
    assert sorted(names) == [f"{library.name}_run", f"{library.name}_run_in"]


def test_name_option_renames_everything(tmp_path):
    lib = bundled("mnist8", quickest_board(), tmp_path, prefix="1st net-ü")
    assert lib.name == "n1st_net"
    found = [s.name for s in symbols([lib.binary.library]) if s.section in ("text", "rodata")]
    assert found
    assert all(n.startswith("n1st_net_") for n in found)
    text = "".join(p.read_text() for p in (tmp_path / "src").glob("n1st_net*.c"))
    assert not re.search(r"\bmnist8_", text)


@pytest.mark.parametrize("blob", [False, True])
def test_two_builds_are_the_same_bytes(blob, tmp_path, monkeypatch):
    if blob:
        monkeypatch.setattr(emit, "BLOB_BYTES", 0)
    folders = tmp_path / "a", tmp_path / "a longer place" / "b"
    for folder in folders:
        bundled("mnist8", quickest_board(), folder)
    files = [
        {p.relative_to(f): p.read_bytes() for p in sorted(f.rglob("*")) if p.is_file()}
        for f in folders
    ]
    assert len(files[0]) > 20
    assert files[0].keys() == files[1].keys()
    assert [p for p in files[0] if files[0][p] != files[1][p]] == []
    assert not any(str(tmp_path).encode() in data for data in files[0].values())


def test_two_processes_generate_the_same_bytes(tmp_path):
    script = (
        "import sys, hashlib; from pathlib import Path; from codegen.board import load_board;"
        "from codegen.pipeline import generate;"
        "g = generate(Path(sys.argv[1]), load_board('jetson-nano-cpu'));"
        "print(g.plan.sha256, *(p + hashlib.sha256(d).hexdigest() for p, d in"
        " sorted(g.sources.files.items())))"
    )
    model = str(MNIST.with_name("mlperf_ic_resnet8.onnx"))
    printed = {
        check([sys.executable, "-c", script, model], env={**os.environ, "PYTHONHASHSEED": seed})
        for seed in ("1", "2")
    }
    assert len(printed) == 1


def test_names_from_the_model_cannot_break_the_text(tmp_path):
    """Names of tensors and nodes are free text: comment marks, new lines, C's and our own words."""
    import onnx

    proto = onnx.load(MNIST)
    renamed = {proto.graph.input[0].name: "context", proto.graph.output[0].name: "hook"}
    for value in (*proto.graph.input, *proto.graph.output):
        value.name = renamed.get(value.name, value.name)
    for i, node in enumerate(proto.graph.node):
        node.name = f"*/ /* {i}\n#error \\"
        node.input[:] = [renamed.get(n, n) for n in node.input]
        node.output[:] = [renamed.get(n, n) for n in node.output]
    onnx.save(proto, tmp_path / "odd.onnx")
    board = load_board(quickest_board())
    made = generate(tmp_path / "odd.onnx", board)
    write(made.sources, tmp_path / "out")
    toolchain = find_toolchain(board)
    binary = compile_library(made.sources, tmp_path / "out", toolchain)
    assert not binary.error, binary.error


def test_text_is_tidy(library):
    """Lines fit a screen, and nothing looks as if a machine had written it."""
    for path, data in library.generated.sources.files.items():
        if not path.endswith((".c", ".h")) or path.endswith("_weights.c"):
            continue
        text = data.decode()
        lines = text.splitlines()
        assert [x for x in lines if len(x) > 120] == [], path
        assert [x for x in lines if x != x.rstrip() or "\t" in x] == [], path
        assert [x for x in lines if re.search(r" [+-] 0[;,)\]]| [*/] 1[;,)\]]", x)] == [], path
        assert "\n\n\n" not in text, path
        assert text.endswith("\n"), path
        assert not text.endswith("\n\n"), path
