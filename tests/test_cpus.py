"""A board's file asks compiler and emulator for a core that they do not know."""

import dataclasses
import shutil
from pathlib import Path

import pytest

from codegen import cpus
from codegen.board import load_board
from codegen.cpus import check_compiler, check_emulator
from codegen.errors import CodegenError
from codegen.health import check_board
from codegen.run import pick_runner
from codegen.toolchain import CROSS, find_qemu, find_toolchain

A57 = load_board("jetson-nano-cpu")
needs_gcc = pytest.mark.skipif(not shutil.which(f"{CROSS}gcc"), reason=f"no {CROSS}gcc here")
needs_qemu = pytest.mark.skipif(not find_qemu(), reason="no qemu-aarch64 on this machine")


@pytest.fixture(autouse=True)
def _forget():
    yield
    cpus._refusal.cache_clear()
    cpus._emulated.cache_clear()


def script(folder: Path, text: str) -> str:
    path = folder / "tool"
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)
    return str(path)


@needs_gcc
@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (("-O2", "-mcpu=cortex-x9"), r"cflags has '-mcpu=cortex-x9', which .*gcc refuses \(unknown "
         r"value .*; \d+ values, e\.g\. .*cortex-.*; correct cflags"),
        (("-mcpu=cortex-a57+neno",), r"'-mcpu=cortex-a57\+neno'.*\(invalid feature modifier"),
        (("-march=armv8.9-z",), r"'-march=armv8\.9-z'"),
    ],
)  # fmt: skip
def test_gcc_is_asked(flags, said):
    with pytest.raises(CodegenError, match=said) as caught:
        find_toolchain(dataclasses.replace(A57, cflags=flags))
    assert caught.value.where == "board jetson-nano-cpu"
    assert "\n" not in str(caught.value)


def test_compiler_that_lists_nothing(tmp_path):
    cc = script(tmp_path, "echo \"error: unknown CPU: 'cortex_x9'\" >&2; exit 1")
    said = r"refuses \(unknown CPU: 'cortex_x9'\); what this compiler takes; correct"
    with pytest.raises(CodegenError, match=said):
        check_compiler((cc,), ("-mcpu=cortex_x9",), A57)


@pytest.mark.parametrize(
    ("text", "flags"),
    [
        ("exit 1", ("-O2",)),  # not asked
        ("exit 0", ("-mcpu=cortex-a57",)),
        ("echo no space left >&2; exit 1", ("-mcpu=cortex-a57",)),  # another's fault
    ],
)
def test_compiler_that_does_not_mind(tmp_path, text, flags):
    check_compiler((script(tmp_path, text),), flags, A57)


def test_tools_that_cannot_be_asked():
    check_compiler(("/no/such/gcc",), ("-mcpu=cortex-a57",), A57)
    check_emulator("/no/such/qemu", A57)


@needs_qemu
@pytest.mark.parametrize("name", ["", "qemu", "virtual"])
def test_qemu_is_asked(name):
    other = dataclasses.replace(A57, qemu_cpu="cortex-x9")
    said = r"qemu_cpu = 'cortex-x9' is not known to qemu-aarch64.*; its cpus: .*cortex-a57.*; corr"
    with pytest.raises(CodegenError, match=said) as caught:
        pick_runner(other, name)
    assert "\n" not in str(caught.value)


@needs_qemu
@pytest.mark.parametrize("cpu", ["cortex-a57", "max", "max,sve=off"])
def test_cpus_of_qemu(cpu):
    assert pick_runner(dataclasses.replace(A57, qemu_cpu=cpu), "qemu").name == "qemu"


@needs_gcc
@needs_qemu
@pytest.mark.parametrize("change", [{"cflags": ("-mcpu=cortex-x9",)}, {"qemu_cpu": "cortex-x9"}])
def test_doctor_tells(change):
    found = check_board(dataclasses.replace(A57, **change), lambda b: pick_runner(b).name)
    assert not found.ok
    assert "cortex-x9" in found.problem
