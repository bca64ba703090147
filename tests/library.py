"""A generated library, compiled and run in ways that `codegen build` does not."""

import re
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest

from codegen.board import load_board
from codegen.build import Binary, compile_library
from codegen.errors import CodegenError
from codegen.kernels import load_kernels
from codegen.models import archive, catalog, data
from codegen.pipeline import Generated, finish, generate
from codegen.plan import Plan
from codegen.reference import random_inputs
from codegen.resources import examples_dir
from codegen.sources import write
from codegen.toolchain import Toolchain, find_qemu, find_toolchain
from tests.kernel_cases import Trial, make_graph, plan_nodes

HARNESS = Path(__file__).resolve().parent / "c" / "harness.c"
SANITIZE = (
    "-fsanitize=address,undefined", "-fno-sanitize-recover=all",
    "-fsanitize-recover=signed-integer-overflow", "-g1", "-O1",
)  # fmt: skip
# SIMDe multiplies unsigned integers, which wrap, as signed ones, which must not.
_WRAPS = re.compile(r"/simde/arm/neon/mul\.h:\d+:\d+: runtime error: signed integer overflow")


@dataclass(frozen=True)
class Library:
    """Sources in `folder`, compiled into folder/build by `toolchain`."""

    generated: Generated
    folder: Path
    board: str
    toolchain: Toolchain
    binary: Binary

    @property
    def name(self) -> str:
        return self.generated.sources.name

    def samples(self, seeds: Sequence[int]) -> bytes:
        """Random inputs, one sample per seed, as the harness reads them."""
        graph = self.generated.graph
        inputs = [random_inputs(graph, s) for s in seeds]
        return b"".join(np.ascontiguousarray(x[n]).tobytes() for x in inputs for n in graph.inputs)

    def outputs(self, data: bytes) -> dict[str, np.ndarray]:
        """What the harness wrote for one sample."""
        out, at = {}, 0
        for port in self.generated.sources.outputs:
            t = port.tensor
            out[t.name] = np.frombuffer(data, t.dtype.numpy, t.size, at).reshape(t.shape)
            at += t.bytes
        assert at == len(data)
        return out


def bundled(name: str, board: str, folder: Path, prefix: str = "", extra=()) -> Library:
    """One of the networks of examples/models."""
    model = examples_dir() / "models" / f"{name}.onnx"
    return compiled(generate(model, load_board(board), name=prefix), board, folder, extra)


def of_trials(batch: list[Trial], row: str, folder: Path, extra=()) -> Library:
    """A library with one kernel row on many layers, for this machine."""
    graph = make_graph(batch, seed=1)
    plan = Plan("local", "0" * 64, plan_nodes(graph, batch, load_kernels()[row]))
    return compiled(finish(graph, plan, load_board("local"), "trials"), "local", folder, extra)


def compiled(
    generated: Generated,
    board: str,
    folder: Path,
    extra: Sequence[str] = (),
    toolchain: Toolchain | None = None,
) -> Library:
    toolchain = toolchain or find_toolchain(load_board(board))
    write(generated.sources, folder)
    binary = compile_library(generated.sources, folder, toolchain, extra)
    assert not binary.error, binary.error
    toolchain = replace(toolchain, flags=(*toolchain.flags, *extra))
    return Library(generated, folder, board, toolchain, binary)


def _net_h(lib: Library) -> str:
    """The library as tests/c/harness.c wants to see it."""
    sources = lib.generated.sources
    ins, outs = sources.inputs, sources.outputs

    def table(name: str, values: Sequence[int]) -> str:
        return f"static const size_t {name}[] = {{{', '.join(map(str, values))}}};\n"

    args = [f"(const void *)in[{i}]" for i in range(len(ins))]
    args += [f"(void *)out[{i}]" for i in range(len(outs))]
    signature = "(void *arena, unsigned char **in, unsigned char **out)"
    return (
        f'#include "{lib.name}.h"\n'
        f"enum {{ NET_INPUTS = {len(ins)}, NET_OUTPUTS = {len(outs)} }};\n"
        f"#define NET_ARENA_BYTES {lib.name.upper()}_ARENA_BYTES\n"
        + table("net_input_bytes", [p.tensor.bytes for p in ins])
        + table("net_output_bytes", [p.tensor.bytes for p in outs])
        + table("net_input_element", [p.tensor.dtype.size for p in ins])
        + table("net_output_element", [p.tensor.dtype.size for p in outs])
        + f"static void net_run{signature} {{ {lib.name}_run_in(arena, {', '.join(args)}); }}\n"
        f"static void net_run_static{signature} "
        f"{{ (void)arena; {lib.name}_run({', '.join(args)}); }}\n"
    )


def harness(lib: Library, net: str = "") -> Path:
    """tests/c/harness.c linked with the library; `net` instead of its true description."""
    folder = lib.folder / "harness"
    folder.mkdir(exist_ok=True)
    (folder / "net.h").write_text(net or _net_h(lib))
    sanitized = any("sanitize" in f for f in lib.toolchain.flags)
    command = [
        *lib.toolchain.cc, *lib.toolchain.flags, "-std=c11", "-D_POSIX_C_SOURCE=200809L",
        f"-I{folder}", f"-I{lib.folder / 'include'}", str(HARNESS), str(lib.binary.library),
        *(() if sanitized else ("-static",)), "-pthread", "-lm", "-o", str(folder / "harness"),
    ]  # fmt: skip
    check(command)
    return folder / "harness"


def run_harness(lib: Library, mode: str, seeds: Sequence[int]) -> str | dict[str, np.ndarray]:
    """What the harness printed; for mode "run" with one seed the outputs."""
    program = lib.folder / "harness" / "harness"
    if not program.is_file():
        program = harness(lib)
    data, out = program.with_name("in"), program.with_name("out")
    data.write_bytes(lib.samples(seeds))
    printed = check([*emulator(lib.board), str(program), mode, str(data), str(out)])
    return lib.outputs(out.read_bytes()) if mode == "run" else printed


def quickest_board() -> str:
    """A board whose compiler and emulator are here, for tests that any board can serve: parsing
    arm_neon.h takes a third of the time that SIMDe takes."""
    try:
        find_toolchain(load_board("jetson-nano-cpu"))
    except CodegenError:
        return "local"
    return "jetson-nano-cpu" if find_qemu() else "local"


def emulator(board: str) -> tuple[str, ...]:
    """What goes before a program for the board; nothing for this machine."""
    target = load_board(board)
    if target.triple == "native":
        return ()
    return (str(find_qemu()), "-cpu", target.qemu_cpu)


def check(command: Sequence[str], env: Mapping[str, str] | None = None, **kw) -> str:
    """Run, expect success, return what was printed."""
    done = subprocess.run(
        [str(c) for c in command], capture_output=True, text=True, timeout=600, env=env, **kw
    )
    told = f"{' '.join(map(str, command))}\n{done.stdout}{done.stderr}"[:6000]
    assert done.returncode == 0, told
    wrong = [s for s in done.stderr.splitlines() if "runtime error" in s and not _WRAPS.search(s)]
    assert not wrong, told
    return done.stdout


def labelled(name: str, views: int = 1) -> data.Labelled:
    """codegen.models.data.load; skips, with the reason, where a package of Debian's is wanted and
    cannot be downloaded."""
    package = catalog.dataset(data.RECIPES[name].dataset).package
    if isinstance(package, catalog.DebianPackage):
        try:
            archive.download(package)
        except CodegenError as e:
            pytest.skip(str(e))
    return data.load(name, views)
