"""Packages that other engines come in, and the file system of a board made of them. No package
is fetched here."""

import json
import os
from dataclasses import replace
from pathlib import Path

import pytest

from codegen.board import load_board
from codegen.errors import CodegenError
from codegen.models.catalog import Package
from codegen.peers import measure, portable, sysroot, wheels
from codegen.peers.base import PeerError, Prepared
from codegen.peers.network import load_network
from codegen.run import Job
from codegen.run.qemu import QemuRunner
from tests.peer_cases import A57, KWS, needs_board, program


@pytest.fixture
def cache(tmp_path, monkeypatch) -> Path:
    monkeypatch.setenv("CODEGEN_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def test_a_folder_is_made_once_and_whole(cache):
    def fail(folder: Path) -> None:
        (folder / "half").touch()
        raise PeerError("stop")

    with pytest.raises(PeerError):
        wheels.made("x", fail)
    assert list((cache / "peers").iterdir()) == []
    assert (wheels.made("x", lambda f: (f / "all").touch()) / "all").is_file()
    assert wheels.made("x", fail) == cache / "peers" / "x"


def test_of_two_processes_that_make_a_folder_the_first_wins(cache):
    def slow(folder: Path) -> None:
        (folder / "mine").touch()
        (cache / "peers" / "x").mkdir()  # meanwhile another process was done
        (cache / "peers" / "x" / "theirs").touch()

    assert [p.name for p in wheels.made("x", slow).iterdir()] == ["theirs"]
    assert [p.name for p in (cache / "peers").iterdir()] == ["x"]


@pytest.mark.parametrize(
    ("apt", "said"),
    [(None, "apt-get is not on this machine"), ("echo E: no network >&2; exit 100", "no network")],
)
def test_debian_packages_that_cannot_be_had(cache, tmp_path, monkeypatch, apt, said):
    sysroot._release.cache_clear()
    if apt:
        program(tmp_path / "bin", "apt-get", apt)
        program(tmp_path / "bin", "dpkg-deb", "exit 1")
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    with pytest.raises(CodegenError, match=said):
        sysroot.sysroot(A57)
    sysroot._release.cache_clear()
    made = cache / "peers"
    assert not made.is_dir() or list(made.iterdir()) == []


def test_any_packages_are_unpacked_for_any_architecture(cache, tmp_path, monkeypatch):
    sysroot._release.cache_clear()
    program(tmp_path / "bin", "apt-get", f'echo "$*" >> {tmp_path}/asked')
    program(tmp_path / "bin", "dpkg-deb", "exit 1")
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}{os.pathsep}{os.environ['PATH']}")
    made = sysroot.unpacked(("busybox",), "riscv64")
    asked = (tmp_path / "asked").read_text().splitlines()
    assert asked[1].endswith("--no-install-recommends busybox")
    assert "APT::Architecture=riscv64" in asked[1]
    assert sysroot.unpacked(("busybox",), "riscv64") == made
    assert len((tmp_path / "asked").read_text().splitlines()) == len(asked) == 2
    sysroot._release.cache_clear()


def _fake_debian(folder: Path) -> None:
    for name in ("usr/bin", "usr/lib/python3.11", "usr/lib/aarch64-linux-gnu"):
        (folder / name).mkdir(parents=True)
    (folder / "usr" / "bin" / "python3.11").touch()
    (folder / "usr" / "lib" / "python3.11" / "os.py").write_text("# os")
    (folder / "lib" / "aarch64-linux-gnu").mkdir(parents=True)
    (folder / "lib" / "aarch64-linux-gnu" / "libx.so.1.2").write_text("x")
    (folder / "lib" / "aarch64-linux-gnu" / "libx.so.1").symlink_to("libx.so.1.2")


@pytest.fixture
def fake_root(cache, monkeypatch) -> Path:
    """A sysroot whose Debian is a handful of empty files, with one package."""
    monkeypatch.setattr(sysroot, "_unpack_debian", _fake_debian)
    package = Package("engine", "1", "MIT")
    monkeypatch.setattr(sysroot, "board_wheel", lambda p, v: wheels.made(p.name, _fake_wheel))
    return sysroot.sysroot(A57, [package])


def _fake_wheel(folder: Path) -> None:
    (folder / "engine" / "tests").mkdir(parents=True)
    (folder / "engine" / "__init__.py").write_text("hello")
    (folder / "engine" / "tests" / "test.py").touch()


def test_sysroot_describes_one_core_of_the_board(fake_root):
    assert "CPU part\t: 0xd07" in (fake_root / "proc" / "cpuinfo").read_text()
    cpu = fake_root / "sys" / "devices" / "system" / "cpu"
    assert (cpu / "online").read_text() == "0\n"
    assert (cpu / "cpu0" / "cpufreq" / "cpuinfo_max_freq").read_text() == "1430000\n"
    assert (cpu / "cpu0" / "cache" / "index2" / "size").read_text() == "2048K\n"
    assert (fake_root / "opt" / "engine" / "engine" / "__init__.py").read_text() == "hello"
    assert sysroot.python_version(fake_root) == "3.11"


def test_a_core_without_a_part_number(fake_root):
    with pytest.raises(CodegenError, match="no known part number"):
        sysroot.sysroot(replace(A57, core="cortex-a520"))


def test_another_core_has_a_sysroot_of_its_own(fake_root):
    other = sysroot.sysroot(load_board("raspberry-pi-4"), [Package("engine", "1", "MIT")])
    assert other != fake_root
    assert "0xd08" in (other / "proc" / "cpuinfo").read_text()


@needs_board
def test_a_job_with_a_root_becomes_one_without(fake_root):
    """The archive is unpacked on the board, links and all, and the linker started."""
    env = {"PYTHONHOME": "/usr", "PYTHONPATH": "/opt/engine", "LD_PRELOAD": "./h.so"}
    job = Job(sysroot.python(fake_root), ("run.py",), {"run.py": b""}, root=fake_root, env=env)
    told = 'printf \'{"link": "%s", "file": "%s", "home": "%s", "args": "%s"}\' ' \
        '$(readlink root/lib/aarch64-linux-gnu/libx.so.1) ' \
        '$(cat root/opt/engine/engine/__init__.py) $PYTHONHOME "$*"; ' \
        "test ! -e root/opt/engine/engine/tests -a ! -e root.pack"  # fmt: skip
    sent = portable.portable(job, A57, ("sh", "-c", told, "sh"))
    assert sent.root is None
    outcome = QemuRunner().run(sent, A57)
    assert not outcome.error
    assert outcome.report["link"] == "libx.so.1.2"
    assert outcome.report["file"] == "hello"
    assert Path(outcome.report["home"]).parts == ("root", "usr")
    assert outcome.report["args"].split()[-4:] == ["--preload", "./h.so", "root/usr/bin/python3.11",
                                                   "run.py"]  # fmt: skip


def test_script_engines_get_a_task(fake_root, monkeypatch):
    monkeypatch.setattr(measure, "sysroot", lambda *_: fake_root)
    prepared = Prepared({"m": b"1"}, script="ort.py", wheels=(Package("engine", "1", "MIT"),))
    job = measure.job_of(prepared, load_network(KWS), A57, 0, 60)
    task = json.loads(job.inputs["task.json"])
    assert task["runs"] == 0
    assert task["outputs"] == ["output"]
    assert task["inputs"][0]["shape"] == [1, 1, 50, 10]
    assert len(job.inputs[task["inputs"][0]["file"]]) == 4 * 500
    assert job.env["PYTHONPATH"] == "/opt/engine"
    assert (job.root, job.args) == (fake_root, ("ort.py",))
