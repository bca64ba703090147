"""`codegen doctor`: it tells what works, and its exit status is about board local."""

import json
import shutil

import pytest
from click.testing import CliRunner

from codegen import health
from codegen.board import load_board
from codegen.errors import CodegenError
from codegen.health import Check, check_board, try_toolchain
from codegen.toolchain import Toolchain, find_toolchain
from codegen.verbs.doctor import doctor

needs_cc = pytest.mark.skipif(not shutil.which("cc"), reason="no C compiler on this machine")
CHECK_NAMES = {
    "python packages", "host C compiler", "SIMDe headers", "aarch64 gcc", "aarch64 C library",
    "qemu-aarch64", "llvm-mca", "llvm-mc", "cmake", "ziglang",
}  # fmt: skip


@needs_cc
def test_json_has_every_check_and_board():
    done = CliRunner().invoke(doctor, ["--json"])
    report = json.loads(done.output)
    assert done.exit_code == 0
    assert report["ok"] is True
    assert {c["name"] for c in report["checks"]} == CHECK_NAMES
    assert next(b for b in report["boards"] if b["name"] == "local")["runner"] == "local"
    for check in report["checks"]:
        assert check["ok"] == (not check["problem"]), check
        assert check["ok"] or check["install"] or check["name"] == "qemu-aarch64", check


@needs_cc
def test_table_lists_what_to_install(monkeypatch):
    missing = Check("qemu-aarch64", False, "", "is missing", "apt-get install qemu-user")
    monkeypatch.setattr(health, "CHECKS", (lambda: missing,))
    done = CliRunner().invoke(doctor)
    assert "qemu-aarch64" in done.output
    assert "\n  apt-get install qemu-user\n" in done.output
    assert done.exit_code == 0


def test_exit_status_without_a_compiler(monkeypatch):
    monkeypatch.setenv("PATH", "")
    done = CliRunner().invoke(doctor, ["--board", "local", "--json"])
    assert done.exit_code == 1
    (local,) = json.loads(done.output)["boards"]
    assert local["runner"] == "none"
    assert "apt-get install gcc" in local["problem"]


def test_every_check_survives_a_machine_with_nothing(monkeypatch):
    monkeypatch.setenv("PATH", "")
    for check in health.CHECKS[1:]:
        found = check()
        assert found.ok == (found.name == "ziglang" and not found.problem)
        assert found.ok or found.install or found.problem, found


def test_unknown_board():
    done = CliRunner().invoke(doctor, ["--board", "nope"])
    assert isinstance(done.exception, CodegenError)


@needs_cc
def test_found_is_not_the_same_as_working():
    good = find_toolchain(load_board("local"))
    bad = Toolchain(good.cc, ("false",), good.version, good.flags, "native")
    assert try_toolchain(good) == ""
    assert "exit code 1" in try_toolchain(bad)
    assert "does not start" in try_toolchain(good, ("no-such-emulator",))
    assert try_toolchain(good, ("echo",)).startswith("2 * 2 + 2 gave")


@needs_cc
def test_a_board_without_runner_is_compile_only():
    found = check_board(load_board("local"), lambda board: None)
    assert (found.ok, found.runner) == (False, "compile only")


@pytest.mark.parametrize(
    ("requirement", "said"),
    [
        ("click>=8.1", ""),
        ("no-such-package>=1", "is missing"),
        ("click>=999.0", "is older than 999.0"),
    ],
)
def test_package_problem(requirement, said):
    assert health._package_problem(requirement).endswith(said)
    assert bool(health._package_problem(requirement)) == bool(said)


def test_package_that_does_not_import(monkeypatch):
    def broken(name):
        raise ImportError("libstdc++.so.6: cannot open shared object file")

    monkeypatch.setattr(health.importlib, "import_module", broken)
    assert "does not import (ImportError: libstdc++" in health._package_problem("click>=8")
