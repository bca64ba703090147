"""Sources + Board -> Binary: compile the library and its tools with the board's toolchain."""

import hashlib
import os
import shutil
import subprocess
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from codegen.sources import Function, Sources
from codegen.stack import read_callgraph, read_frames
from codegen.toolchain import Toolchain

WARNINGS = ("-Wall", "-Wextra", "-Werror", "-Wconversion", "-Wshadow", "-Wpedantic")
# No path of this machine may reach an object file, or equal inputs would not give equal bytes.
_COMMON = ("-std=c11", "-ffunction-sections", "-fdata-sections")
_TIMEOUT_S = 600


@dataclass(frozen=True)
class Binary:
    """What the compiler made. `stack_bytes` is the deepest chain of frames inside the library,
    without libm and memcpy; None where the compiler does not tell. `error` is set, and the rest
    empty, when it failed."""

    library: Path | None = None
    objects: tuple[Path, ...] = ()
    verify: Path | None = None
    bench: Path | None = None
    stack_bytes: int | None = None
    error: str = ""


def compile_library(
    sources: Sources, folder: Path, toolchain: Toolchain, extra: Sequence[str] = ()
) -> Binary:
    """Compile what `sources.write` put into `folder`; objects, archive and programs land in
    folder/build.

    `extra` are further compiler flags, e.g. sanitizers. A failed compilation is a value, not an
    exception.
    """
    folder = folder.resolve()  # commands run in it
    out = folder / "build"
    out.mkdir(parents=True, exist_ok=True)
    flags = (*toolchain.flags, *_COMMON, *extra)
    tools = ["tools/verify.c", "tools/bench.c", f"tools/{sources.name}_steps.c"]
    stack = _stack_flags(toolchain)
    jobs = [(p, (*flags, *WARNINGS, *stack, "-Iinclude", "-Isrc")) for p in sources.library]
    more = (*sources.pool, *tools)
    jobs += [(p, (*flags, *WARNINGS, "-Iinclude", "-Isrc", "-Itools")) for p in more]
    try:
        with ThreadPoolExecutor(2) as pool:
            objects = list(pool.map(lambda j: _compile(toolchain, folder, *j), jobs))
        library_objects = objects[: len(sources.library)]
        library = _archive(toolchain, folder, sources.name, library_objects)
        threads = objects[len(library_objects) : -len(tools)]
        pool = [_archive(toolchain, folder, f"{sources.name}_threads", threads)] if threads else []
        steps = objects[-1]
        programs = [
            _link(toolchain, folder, flags, out / name, (obj, steps, *pool, library), bool(pool))
            for name, obj in (("verify", objects[-3]), ("bench", objects[-2]))
        ]
    except _CompileError as e:
        return Binary(error=str(e))
    return Binary(
        library, tuple(library_objects), programs[0], programs[1], _stack(library_objects, sources)
    )


def compile_program(
    sources: Sources, folder: Path, toolchain: Toolchain, extra: Sequence[str] = ()
) -> Path | str:
    """Compile and link all of what `sources.write` put into `folder`, one file after the other, as
    the library would be; the text of the error where it fails."""
    folder = folder.resolve()
    (folder / "build").mkdir(parents=True, exist_ok=True)
    flags = (*toolchain.flags, *_COMMON, *extra)
    try:
        objects = [_compile(toolchain, folder, p, (*flags, "-Isrc")) for p in sources.library]
        return _link(toolchain, folder, flags, folder / "build" / sources.name, objects)
    except _CompileError as e:
        return str(e)


def compile_verify(
    sources: Sources, folder: Path, toolchain: Toolchain, objects: Path
) -> Path | str:
    """Compile and link the verify program alone; the text of the error where it fails.

    Each kernel is compiled by itself and under a name of its own, and its object stays in `objects`
    by what it was made of: plans of a network differ in few kernels, and NEON's intrinsics take
    long to compile where they are emulated.
    """
    folder = folder.resolve()
    (folder / "build").mkdir(parents=True, exist_ok=True)
    objects.mkdir(parents=True, exist_ok=True)
    kernels = {f.path for f in sources.functions}
    names = {f.name: _symbol(f, sources, toolchain) for f in sources.functions}
    texts = {names[f.name]: f for f in sources.functions}
    flags = (*toolchain.flags, *_COMMON, "-Iinclude", "-Isrc", "-Itools")
    renamed = (*flags, *(f"-D{name}={symbol}" for name, symbol in names.items()))
    rest = [p for p in (*sources.library, *sources.pool) if p not in kernels]
    rest += ["tools/verify.c", f"tools/{sources.name}_steps.c"]
    try:
        with ThreadPoolExecutor(2) as pool:
            tasks = [pool.submit(_compile, toolchain, folder, p, renamed) for p in rest]
            tasks += [pool.submit(_kept, toolchain, folder, flags, symbol, function, objects)
                      for symbol, function in texts.items()]  # fmt: skip
            try:
                found = [t.result() for t in tasks]
            except _CompileError:
                pool.shutdown(cancel_futures=True)
                raise
        threads = bool(sources.pool)
        return _link(toolchain, folder, flags, folder / "build" / "verify", found, threads)
    except _CompileError as e:
        return str(e)


def _symbol(function: Function, sources: Sources, toolchain: Toolchain) -> str:
    """The hash of all that an object is made of."""
    digest = hashlib.sha256(repr((toolchain, _COMMON, function.alone)).encode())
    for path in sorted(p for p in sources.files if p.startswith("src/cg_")):
        digest.update(sources.files[path])
    return f"cg_{digest.hexdigest()[:24]}"


def _kept(
    toolchain: Toolchain, folder: Path, flags: Sequence[str], symbol: str, function: Function,
    objects: Path,
) -> Path:  # fmt: skip
    """The object of one kernel, compiled unless it is there."""
    target = objects.resolve() / f"{symbol}.o"
    if not target.exists():
        source = f"src/{symbol}.c"
        (folder / source).write_text(function.alone.replace("@", symbol))
        shutil.move(_compile(toolchain, folder, source, flags), target)
    return target


class _CompileError(Exception):
    pass


# ccache brings objects back without the compiler's files about frames and calls.
_UNCACHED = {"CCACHE_DISABLE": "1"}


def _run(command: Sequence[str], folder: Path) -> None:
    try:
        done = subprocess.run(
            command, cwd=folder, capture_output=True, text=True, timeout=_TIMEOUT_S,
            env=os.environ | _UNCACHED
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        raise _CompileError(f"{command[0]} did not finish in {_TIMEOUT_S} s") from None
    if done.returncode:
        raise _CompileError(f"{' '.join(command)}\n{done.stderr.strip()[:4000]}")


def _compile(toolchain: Toolchain, folder: Path, source: str, flags: Sequence[str]) -> Path:
    target = folder / "build" / (Path(source).name + ".o")
    if source.endswith(".S"):  # the assembler knows nothing of C dialects, warnings or frames
        flags = [
            f
            for f in flags
            if f.startswith(("-I", "-m", "-target", "--target")) or f in toolchain.flags
        ]
    _run((*toolchain.cc, *flags, "-c", source, "-o", str(target.relative_to(folder))), folder)
    return target


def _archive(toolchain: Toolchain, folder: Path, name: str, objects: Sequence[Path]) -> Path:
    target = folder / "build" / f"lib{name}.a"
    target.unlink(missing_ok=True)
    _run((*toolchain.ar, "rcsD", str(target), *map(str, objects)), folder)
    return target


def _link(
    toolchain: Toolchain, folder: Path, flags: Sequence[str], target: Path,
    objects: Sequence[Path], threads: bool = False,
) -> Path:  # fmt: skip
    static = () if any("sanitize" in f for f in flags) else ("-static",)
    libraries = (*map(str, objects), *(("-pthread",) if threads else ()), "-lm")
    _run((*toolchain.cc, *flags, *static, *libraries, "-o", str(target)), folder)
    return target


def is_clang(toolchain: Toolchain) -> bool:
    """clang, or zig, which is one."""
    return toolchain.kind == "zig" or "clang" in toolchain.version


def _stack_flags(toolchain: Toolchain) -> tuple[str, ...]:
    """gcc tells frames and call graph; clang only frames."""
    return ("-fstack-usage",) if is_clang(toolchain) else ("-fcallgraph-info=su",)


def _stack(objects: Sequence[Path], sources: Sources) -> int | None:
    """Bytes from `run` down to the deepest frame; None where the compiler did not write of every
    file in C."""
    compiled = [o for o in objects if o.stem.endswith(".c")]
    graphs, usages = ([o.with_suffix(suffix) for o in compiled] for suffix in (".ci", ".su"))
    run, calls = f"{sources.name}_run", _calls(sources)
    if all(p.is_file() for p in graphs):
        graph = read_callgraph(graphs)
        for caller, callees in calls.items():  # what goes through a pointer has no edge there
            graph.calls.setdefault(caller, set()).update(callees)
        return graph.deepest(run)
    if all(p.is_file() for p in usages):
        return read_frames(usages, calls).deepest(run)
    return None


def _calls(sources: Sources) -> dict[str, list[str]]:
    """Who calls whom, of the functions that the generator wrote. Tasks are called by
    `<name>_serial` or by the caller's own `parallel_for`, whose frames are not ours."""
    run, run_in, parallel, serial = (
        f"{sources.name}_{end}" for end in ("run", "run_in", "run_parallel", "serial")
    )
    whole = [c.function for c in sources.calls if not c.task]
    tasks = {c.task: [p.function for p in c.pieces] for c in sources.calls if c.task}
    if not sources.pool:
        return {run: [run_in], run_in: whole}
    chain = {run: [run_in], run_in: [parallel], parallel: [serial, *whole], serial: [*tasks]}
    return {**chain, **tasks}
