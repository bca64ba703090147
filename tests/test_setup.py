"""`make setup` under every kind of privilege, with faked system commands that only write a log."""

import os
import pty
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
REAL = ("sh", "env", "dirname", "tr", "grep", "cat", "rm", "mkdir", "chmod", "touch", "make")
pytestmark = pytest.mark.skipif(not shutil.which("make"), reason="no make on this machine")

LOG = '#!/bin/sh\necho "${0##*/} $*" >> "$LOG"\n'
# A python3 whose venv holds a pip that only logs.
PYTHON = LOG + (
    'case $2 in venv) mkdir -p "$3/bin"; cp_pip=$3/bin/pip\n'
    'echo "#!/bin/sh" > "$cp_pip"; echo \'echo "pip $*" >> "$LOG"\' >> "$cp_pip"\n'
    'chmod +x "$cp_pip";; esac\n'
)


class Machine:
    """A checkout with only the files that setup needs, and a PATH of fakes."""

    def __init__(self, folder: Path):
        self.folder, self.bin, self.log = folder / "checkout", folder / "bin", folder / "log"
        self.bin.mkdir(parents=True)
        (self.folder / ".ci").mkdir(parents=True)
        for name in ("Makefile", "pyproject.toml", ".ci/setup.sh"):
            shutil.copy(ROOT / name, self.folder / name)
        for name in REAL:
            (self.bin / name).symlink_to(str(shutil.which(name)))
        self.fake("id", "#!/bin/sh\necho 1000\n")
        self.fake("python3", PYTHON)

    def fake(self, name: str, text: str = LOG) -> None:
        (self.bin / name).write_text(text)
        (self.bin / name).chmod(0o755)

    def debian(self) -> "Machine":
        """apt-get is here, its lists are read, nothing is installed."""
        self.fake("apt-get")
        self.fake("apt-cache", "#!/bin/sh\nexit 0\n")
        self.fake("dpkg-query", "#!/bin/sh\nexit 1\n")
        return self

    def make(self, *goals: str, stdin=subprocess.DEVNULL, **env: str):
        self.log.write_text("")
        return subprocess.run(
            ("make", *goals), cwd=self.folder, capture_output=True, text=True, stdin=stdin,
            env={"PATH": str(self.bin), "LOG": str(self.log), **env}, timeout=60,
        )  # fmt: skip

    def lines(self, word: str) -> list[str]:
        return [x for x in self.log.read_text().splitlines() if x.startswith(word)]


@pytest.fixture
def machine(tmp_path):
    return Machine(tmp_path)


def test_root_installs_without_asking(machine):
    machine.debian().fake("id", "#!/bin/sh\necho 0\n")
    done = machine.make("setup")
    assert done.returncode == 0, done.stderr
    (install,) = machine.lines("apt-get")
    assert install.startswith("apt-get install -y --no-install-recommends gcc-aarch64-linux-gnu")
    assert "libc6-dev-arm64-cross qemu-user" in install
    assert install.endswith("llvm-19")
    assert machine.lines("pip") == ["pip install --quiet --editable .[test]"]


def test_second_call_does_nothing(machine):
    machine.debian()
    assert machine.make("setup").returncode == 0
    assert machine.lines("pip")
    assert machine.make("setup").returncode == 0
    assert machine.log.read_text() == ""


def test_missing_lists_are_fetched_first(machine):
    machine.debian().fake("id", "#!/bin/sh\necho 0\n")
    machine.fake("apt-cache", "#!/bin/sh\nexit 1\n")
    assert machine.make("setup").returncode == 0
    update, install = machine.lines("apt-get")
    assert update == "apt-get update"
    assert install.endswith(" llvm")  # no llvm-19 in this Debian


def test_installed_packages_are_left_alone(machine):
    machine.debian().fake("dpkg-query", "#!/bin/sh\necho install ok installed\n")
    done = machine.make("setup")
    assert "all there" in done.stdout
    assert machine.lines("apt-get") == []
    assert machine.lines("pip") == ["pip install --quiet --editable .[test]"]


def test_sudo_with_yes(machine):
    machine.debian().fake("sudo", LOG + 'exec "$@"\n')
    assert machine.make("setup", YES="1").returncode == 0
    assert machine.lines("sudo env DEBIAN_FRONTEND=noninteractive apt-get install")
    assert machine.lines("apt-get install")


def test_sudo_without_a_terminal_means_no(machine):
    machine.debian().fake("sudo", LOG + 'exec "$@"\n')
    done = machine.make("setup")
    assert done.returncode == 0
    assert "these system packages are missing: gcc-aarch64-linux-gnu" in done.stdout
    assert "no terminal to ask on" in done.stdout
    assert machine.lines("sudo") == machine.lines("apt-get") == []
    assert machine.lines("pip") == ["pip install --quiet --editable .[test] ziglang"]


@pytest.mark.parametrize(("answer", "installs"), [("y", True), ("n", False), ("", False)])
def test_sudo_asks(machine, answer, installs):
    machine.debian().fake("sudo", LOG + 'exec "$@"\n')
    typed, terminal = pty.openpty()
    os.write(typed, f"{answer}\n".encode())
    done = machine.make("setup", stdin=terminal)
    os.close(typed)
    os.close(terminal)
    assert "with sudo? [y/N]" in done.stdout
    assert bool(machine.lines("sudo")) == installs
    assert machine.lines("pip")[0].endswith("ziglang") != installs


def test_failing_apt_goes_on_with_ziglang(machine):
    machine.debian().fake("id", "#!/bin/sh\necho 0\n")
    machine.fake("apt-get", LOG + "exit 100\n")
    done = machine.make("setup")
    assert done.returncode == 0
    assert "going on without; whoever may install them: apt-get install gcc-aarch64" in done.stdout
    assert machine.lines("pip")[0].endswith("ziglang")


@pytest.mark.parametrize("debian", [True, False])
def test_neither_root_nor_sudo(machine, debian):
    if debian:
        machine.debian()
    done = machine.make("setup")
    assert done.returncode == 0
    assert ("neither root nor sudo" if debian else "no apt-get here") in done.stdout
    assert "apt-get install gcc-aarch64-linux-gnu" in done.stdout
    assert machine.lines("pip") == ["pip install --quiet --editable .[test] ziglang"]


def test_no_ziglang_where_a_cross_compiler_is(machine):
    machine.fake("aarch64-linux-gnu-gcc")
    machine.fake("qemu-aarch64")
    machine.make("setup")
    assert machine.lines("pip") == ["pip install --quiet --editable .[test]"]


def test_old_python(machine):
    machine.fake("python3", "#!/bin/sh\necho Python 3.9.2\n[ $1 = --version ]\n")
    done = machine.make("setup")
    assert done.returncode != 0
    assert "Python 3.11 or newer is needed, python3 is Python 3.9.2" in done.stderr


def test_newer_python_under_another_name(machine):
    machine.fake("python3", "#!/bin/sh\nexit 1\n")
    machine.fake("python3.12", PYTHON)
    assert machine.make("setup").returncode == 0
    assert machine.lines("python3.12 -m venv .venv")


def test_python_without_venv(machine):
    machine.fake("python3", '#!/bin/sh\n[ $1 = -m ] && mkdir "$3" && exit 1\nexit 0\n')
    done = machine.make("setup")
    assert done.returncode != 0
    assert "apt-get install python3-venv" in done.stderr
    assert not (machine.folder / ".venv").exists()  # or the next call would take it for whole


@pytest.mark.parametrize(("works", "board"), [(True, "jetson-nano-cpu"), (False, "local")])
def test_run_falls_back_to_local(machine, works, board):
    assert machine.make("setup").returncode == 0
    codegen = machine.folder / ".venv/bin/codegen"
    codegen.write_text(LOG + f"[ $1 != doctor ] || exit {int(not works)}\n")
    codegen.chmod(0o755)
    assert machine.make("run").returncode == 0
    doctor, build = machine.lines("codegen")
    assert doctor == "codegen doctor --board jetson-nano-cpu"
    assert build == (f"codegen build examples/models/mlperf_ic_resnet8.onnx --board {board} "
                     "--out build/resnet8")


def test_ci_runs_make_test():
    text = (ROOT / ".ci/run").read_text()
    assert text.rstrip().endswith("\nmake test")
    assert os.access(ROOT / ".ci/run", os.X_OK)
    env = {k: v for k, v in os.environ.items() if k not in ("MAKEFLAGS", "MAKELEVEL", "MFLAGS")}
    command = ("make", "--no-print-directory", "-n", "test")
    plan = subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True)
    assert plan.stdout.rstrip().endswith('.venv/bin/pytest -n auto -m "not slow"')
    assert ".venv/bin/ruff check ." in plan.stdout
