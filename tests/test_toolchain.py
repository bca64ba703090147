"""Choosing a compiler, with what is on PATH faked, and what the chosen one really makes."""

import importlib.util
import os
import shutil
import stat
import subprocess
import sys

import pytest

from codegen import toolchain
from codegen.board import load_board
from codegen.errors import CodegenError
from codegen.health import try_toolchain
from codegen.toolchain import find_llvm, find_qemu, find_toolchain, zig_flags

JETSON = load_board("jetson-nano-cpu")
LOCAL = load_board("local")
HAVE_ZIG = importlib.util.find_spec("ziglang") is not None


@pytest.fixture
def path(tmp_path, monkeypatch):
    """An empty PATH; call it to add a command that prints some text."""
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv(toolchain.ENV_CC, raising=False)
    for cached in (toolchain._version, toolchain._has_libc, toolchain._host_cpu_flags):
        cached.cache_clear()

    def add(name: str, says: str = "1.0", code: int = 0):
        file = tmp_path / name
        file.write_text(f"#!/bin/sh\nprintf '%s\\n' '{says}'\nexit {code}\n")
        file.chmod(file.stat().st_mode | stat.S_IXUSR)

    yield add
    for cached in (toolchain._version, toolchain._has_libc, toolchain._host_cpu_flags):
        cached.cache_clear()


@pytest.fixture
def no_zig(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)


def test_cross_gcc_is_preferred(path):
    path("aarch64-linux-gnu-gcc", "/usr/lib/libc.a")  # the answer to both questions it is asked
    found = find_toolchain(JETSON)
    assert found.kind == "gcc"
    assert (found.cc, found.ar) == (("aarch64-linux-gnu-gcc",), ("aarch64-linux-gnu-ar",))
    assert found.flags == JETSON.cflags


def test_gcc_without_libc_gives_way_to_zig(path, monkeypatch):
    path("aarch64-linux-gnu-gcc", "libc.a")
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: name == "ziglang")
    monkeypatch.setattr(toolchain, "_output", lambda command: f"{command[-2]} 9\nmore")
    found = find_toolchain(JETSON)
    assert found.kind == "zig"
    assert found.cc == (sys.executable, "-m", "ziglang", "cc")
    assert found.ar == (sys.executable, "-m", "ziglang", "ar")
    assert found.version == "zig ziglang 9, cc 9"
    assert "-mcpu=cortex_a57" in found.flags


@pytest.mark.usefixtures("no_zig")
def test_nothing_found(path):
    with pytest.raises(CodegenError, match="no compiler for aarch64-linux-gnu .*apt-get install"):
        find_toolchain(JETSON)
    path("aarch64-linux-gnu-gcc", "libc.a")
    with pytest.raises(CodegenError, match="is here without its C library.*libc6-dev-arm64-cross"):
        find_toolchain(JETSON)


@pytest.mark.usefixtures("no_zig")
def test_an_aarch64_machine_compiles_for_itself(path, monkeypatch):
    path("cc", "cc 14")
    monkeypatch.setattr(toolchain.platform, "machine", lambda: "aarch64")
    monkeypatch.setattr(toolchain.platform, "system", lambda: "Linux")
    assert find_toolchain(JETSON).cc == ("cc",)
    assert "-isystem" not in find_toolchain(LOCAL).flags


def test_override(path, monkeypatch):
    path("my-gcc-13", "my-gcc 13.1")
    path("my-ar")
    monkeypatch.setenv(toolchain.ENV_CC, "my-gcc-13 --sysroot=/x")
    found = find_toolchain(JETSON)
    assert found.cc == ("my-gcc-13", "--sysroot=/x")
    assert (found.ar, found.version, found.kind) == (("my-ar",), "my-gcc 13.1", "gcc")
    path("zig", "0.99")
    monkeypatch.setenv(toolchain.ENV_CC, "zig cc")
    found = find_toolchain(JETSON)
    assert (found.cc, found.ar, found.kind) == (("zig", "cc"), ("zig", "ar"), "zig")


def test_override_that_does_not_exist(path, monkeypatch):
    monkeypatch.setenv(toolchain.ENV_CC, "nowhere-gcc -x")
    with pytest.raises(CodegenError, match="there is no command 'nowhere-gcc'.*correct or unset"):
        find_toolchain(JETSON)


def test_override_that_does_not_start(path, monkeypatch):
    path("bad-gcc", "Segmentation fault", code=1)
    monkeypatch.setenv(toolchain.ENV_CC, "bad-gcc")
    with pytest.raises(CodegenError, match="bad-gcc: does not answer --version"):
        find_toolchain(JETSON)


def test_local_without_compiler(path):
    with pytest.raises(CodegenError, match="no C compiler .*apt-get install gcc"):
        find_toolchain(LOCAL)


def test_local_without_simde(monkeypatch):
    monkeypatch.setattr(toolchain.platform, "machine", lambda: "x86_64")
    monkeypatch.setitem(sys.modules, "simde_py", None)
    with pytest.raises(CodegenError, match="pip install simde-py"):
        find_toolchain(LOCAL)


@pytest.mark.parametrize(
    ("macros", "flags"),
    [
        ("#define __FMA__ 1\n#define __AVX2__ 1", ("-mfma", "-mavx2")),
        ("#define __SSE2__ 1", ()),
        (None, ()),
    ],
)
def test_host_flags_follow_the_cpu(monkeypatch, macros, flags):
    toolchain._host_cpu_flags.cache_clear()
    monkeypatch.setattr(toolchain, "_output", lambda command: macros)
    assert toolchain._host_cpu_flags("cc") == flags
    toolchain._host_cpu_flags.cache_clear()


@pytest.mark.parametrize(
    ("gcc", "zig"),
    [
        ("-mcpu=cortex-a57", ["-mcpu=cortex_a57"]),
        ("-mcpu=cortex-a76+fp16+dotprod", ["-mcpu=cortex_a76+fullfp16+dotprod"]),
        ("-mcpu=cortex-a53+crypto", ["-mcpu=cortex_a53+aes+sha2"]),
        ("-mcpu=cortex-a53+nocrypto", ["-mcpu=cortex_a53-aes-sha2"]),
        ("-mtune=cortex-a53", []),
        ("-O2", ["-O2"]),
    ],
)
def test_zig_flags(gcc, zig):
    assert list(zig_flags((gcc,), "x")) == ["-target", "aarch64-linux-musl", "-g0", *zig]


def test_zig_knows_no_march():
    with pytest.raises(CodegenError, match="b: cflags has '-march=armv8-a'.*takes -mcpu only"):
        zig_flags(("-march=armv8-a",), "b")


def test_newest_llvm(path):
    assert find_llvm("llvm-mca") is None
    for name in ("llvm-mca", "llvm-mca-14", "llvm-mca-19"):
        path(name)
    assert os.path.basename(find_llvm("llvm-mca") or "") == "llvm-mca-19"


def test_qemu(path):
    assert find_qemu() is None
    path("qemu-aarch64-static")
    assert os.path.basename(find_qemu() or "") == "qemu-aarch64-static"


@pytest.mark.skipif(not shutil.which("cc"), reason="no C compiler on this machine")
def test_local_really_compiles_and_runs():
    assert try_toolchain(find_toolchain(LOCAL)) == ""


@pytest.mark.skipif(not shutil.which("aarch64-linux-gnu-gcc"), reason="no aarch64-linux-gnu-gcc")
@pytest.mark.skipif(not find_qemu(), reason="no qemu-aarch64")
@pytest.mark.parametrize("name", ["jetson-nano-cpu", "raspberry-pi-5", "rock-3a"])
def test_cross_gcc_really_compiles_and_runs(name):
    board = load_board(name)
    assert try_toolchain(find_toolchain(board), (str(find_qemu()), "-cpu", board.qemu_cpu)) == ""


@pytest.mark.slow
@pytest.mark.skipif(not HAVE_ZIG, reason="the package ziglang is not installed")
@pytest.mark.skipif(not find_qemu(), reason="no qemu-aarch64")
@pytest.mark.parametrize("name", ["jetson-nano-cpu", "raspberry-pi-5", "rock-3a"])
def test_zig_really_compiles_and_runs(name, tmp_path):
    board = load_board(name)
    zig = toolchain.ziglang_toolchain(board)
    assert try_toolchain(zig, (str(find_qemu()), "-cpu", board.qemu_cpu)) == ""
    (tmp_path / "empty.c").write_text("int x(void) { return 1; }\n")
    command = (*zig.cc, *zig.flags, "-c", "empty.c", "-o", "empty.o")
    subprocess.run(command, cwd=tmp_path, check=True, capture_output=True)
    assert str(tmp_path).encode() not in (tmp_path / "empty.o").read_bytes()
