"""What is shipped: the wheel with its data, the CMake presets, the licence."""

import json
import os
import re
import shutil
import subprocess
import sys
import tomllib
import zipfile
from importlib import metadata
from pathlib import Path

import pytest

from codegen import resources

ROOT = Path(__file__).resolve().parent.parent
DATA = ("boards", "templates", "runtime_c")
CORES = ("cortex-a53", "cortex-a55", "cortex-a57", "cortex-a72", "cortex-a76")
PRESETS = ("host", "host-asan", *CORES)
needs_cmake = pytest.mark.skipif(not shutil.which("cmake"), reason="no cmake on this machine")


def _version_of(package: str) -> int:
    try:
        return int(metadata.version(package).split(".")[0])
    except metadata.PackageNotFoundError:
        return 0


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> Path:
    """The wheel, built from a copy so that nothing is left in the checkout."""
    if _version_of("setuptools") < 77:
        pytest.skip("setuptools older than 77")
    folder = tmp_path_factory.mktemp("wheel")
    for name in (*DATA, "codegen", "rl"):
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "LICENSE", "CMakePresets.json"):
        shutil.copy(ROOT / name, folder)
    (folder / "README.md").touch()
    build = "from setuptools.build_meta import build_wheel; build_wheel('.')"
    done = subprocess.run((sys.executable, "-c", build), cwd=folder, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return next(folder.glob("*.whl"))


def test_wheel_has_all_data_and_code(wheel):
    names = set(zipfile.ZipFile(wheel).namelist())
    files = [p for d in DATA for p in (ROOT / d).rglob("*") if p.is_file()]
    wanted = {f"codegen/_data/{p.relative_to(ROOT)}" for p in files} | {
        str(p.relative_to(ROOT))
        for d in ("codegen", "rl")
        for p in (ROOT / d).rglob("*")
        if p.suffix in (".py", ".sh", ".toml", ".json")
    }
    assert wanted - names == set()
    extra = {n for n in names - wanted if ".dist-info/" not in n}
    assert extra == {"codegen/_data/CMakePresets.json"}
    assert any(n.endswith("licenses/LICENSE") for n in names)


def test_installed_wheel_finds_its_data_from_any_folder(wheel, tmp_path):
    zipfile.ZipFile(wheel).extractall(tmp_path / "site")
    ask = ("from codegen import resources as r; from codegen.board import board_names;"
           "print(r.boards_dir(), len(board_names()), r.templates_dir().is_dir(),"
           "r.runtime_dir().is_dir(), r.presets_file().is_file())")
    done = subprocess.run((sys.executable, "-c", ask), cwd=tmp_path, capture_output=True, text=True,
                          env={**os.environ, "PYTHONPATH": str(tmp_path / "site")}, check=True)
    boards = tmp_path / "site/codegen/_data/boards"
    assert done.stdout.split() == [str(boards), "9", "True", "True", "True"]


def test_checkout_finds_its_data():
    assert resources.boards_dir().is_dir()
    assert resources.templates_dir().is_dir()
    assert resources.runtime_dir().is_dir()
    assert resources.presets_file().is_file()


def test_every_package_is_declared():
    pyproject = tomllib.loads((ROOT / "pyproject.toml").read_text())
    declared = pyproject["tool"]["setuptools"]["packages"]
    found = {".".join(p.relative_to(ROOT).parent.parts)
             for d in ("codegen", "rl") for p in (ROOT / d).rglob("__init__.py")}
    assert set(declared) - {"codegen._data"} == found


def test_licence_is_apache_2():
    text = (ROOT / "LICENSE").read_text()
    assert "Apache License" in text
    assert "Version 2.0, January 2004" in text
    assert "END OF TERMS AND CONDITIONS" in text


def test_presets_stand_alone():
    text = (ROOT / "CMakePresets.json").read_text()
    presets = json.loads(text)
    assert presets["version"] <= 6  # what CMake 3.25 reads
    shown = [p["name"] for p in presets["configurePresets"] if not p.get("hidden")]
    assert shown == list(PRESETS)
    assert [p["name"] for p in presets["buildPresets"]] == list(PRESETS)
    assert not re.search(r'"/|\.\./|~/', text)


@needs_cmake
def test_cmake_accepts_the_presets(tmp_path):
    shutil.copy(ROOT / "CMakePresets.json", tmp_path)
    done = subprocess.run(("cmake", "--list-presets"), cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert re.findall(r'^ +"([^"]+)"', done.stdout, re.M) == list(PRESETS)


def _project(folder: Path) -> None:
    shutil.copy(ROOT / "CMakePresets.json", folder)
    (folder / "main.c").write_text("int main(int n, char **v) { (void)v; return n - 1; }\n")
    (folder / "CMakeLists.txt").write_text(
        "cmake_minimum_required(VERSION 3.20)\nproject(p C)\nenable_testing()\n"
        "add_executable(main main.c)\nadd_test(NAME main COMMAND main)\n"
    )


@needs_cmake
@pytest.mark.skipif(not shutil.which("aarch64-linux-gnu-gcc"), reason="no aarch64-linux-gnu-gcc")
@pytest.mark.skipif(not shutil.which("qemu-aarch64"), reason="no qemu-aarch64")
@pytest.mark.parametrize(
    "preset",
    [p if p == "cortex-a55" else pytest.param(p, marks=pytest.mark.slow) for p in PRESETS],
)
def test_preset_builds_and_runs(preset, tmp_path):
    _project(tmp_path)
    for command in (("cmake", "--preset", preset), ("cmake", "--build", "--preset", preset),
                    ("ctest", "--test-dir", f"build/{preset}", "--output-on-failure")):
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr
