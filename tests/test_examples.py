"""The example projects, configured, built, installed and run with CMake as their comments say."""

import os
import re
import shutil
import subprocess

import numpy as np
import pytest

from codegen import emit
from codegen.board import load_board
from codegen.pipeline import generate
from codegen.reference import Reference
from codegen.resources import examples_dir, presets_file
from codegen.run import pick_runner
from codegen.sources import write

simde_py = pytest.importorskip("simde_py", reason="the package simde-py is not installed")

pytestmark = pytest.mark.skipif(shutil.which("cmake") is None, reason="cmake is not installed")

MODELS = {"resnet8": "mlperf_ic_resnet8", "kws": "mlperf_kws_dscnn"}
CROSS = "aarch64-linux-gnu-gcc"


def run(*command, cwd=None):
    env = {**os.environ, "SIMDE_INCLUDE": simde_py.get_include()}
    done = subprocess.run([*map(str, command)], cwd=cwd, env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def model(name):
    return examples_dir() / "models" / f"{MODELS[name]}.onnx"


def install(folder, board, *flags):
    """Generate both libraries, build them with CMake (out of source) and install them."""
    prefix = folder / "install"
    for name in MODELS:
        write(generate(model(name), load_board(board), name=name).sources, folder / name)
        shutil.copy(presets_file(), folder / name)
        build = folder / f"{name} build"  # a space in the path must not matter
        run("cmake", "-S", folder / name, "-B", build, f"-DCMAKE_INSTALL_PREFIX={prefix}", *flags)
        run("cmake", "--build", build, "--target", "install")
    return prefix


@pytest.fixture(scope="module")
def prefix(tmp_path_factory):
    return install(tmp_path_factory.mktemp("host"), "local", "-DCMAKE_BUILD_TYPE=Release")


def app(example, prefix, folder, *flags):
    """Build an example against the installed packages; the path of its program."""
    source = examples_dir() / example
    run("cmake", "-S", source, "-B", folder, f"-DCMAKE_PREFIX_PATH={prefix}", *flags)
    run("cmake", "--build", folder)
    return folder / "app"


def expected(name):
    """What onnxruntime says to the inputs that the examples make up."""
    reference = Reference(model(name))
    i = np.arange(3072 if name == "resnet8" else 500)
    x = (i * 7 % 255 - 128) / 128 if name == "resnet8" else i * 13 % 255
    shape = (1, 3, 32, 32) if name == "resnet8" else (1, 1, 50, 10)
    y = reference.run({"input": x.astype(np.float32).reshape(shape)})["output"]
    return int(y.argmax()), float(y.max())


def test_find_package(prefix, tmp_path):
    best, probability = expected("resnet8")
    out = run(app("find_package", prefix, tmp_path))
    assert out.startswith(f"class {best}, probability {probability:.4f}")


def test_own_arena(prefix, tmp_path):
    program = app("own_arena", prefix, tmp_path)
    assert run(program) == f"keyword {expected('kws')[0]}\n"
    symbols = run("nm", program)
    assert "kws_run_in" in symbols
    assert not re.search(r" \w kws_run\n", symbols), "the static arena's entry point was linked"


def test_threads(tmp_path):
    generated = generate(model("kws"), load_board("local"), name="kws", threads=2)
    write(generated.sources, tmp_path / "kws")
    where = tmp_path / "install"
    prefix = f"-DCMAKE_INSTALL_PREFIX={where}"
    run("cmake", "-S", tmp_path / "kws", "-B", tmp_path / "build", prefix)
    run("cmake", "--build", tmp_path / "build", "--target", "install")
    run("ctest", "--test-dir", tmp_path / "build")
    assert (where / "include" / "kws_threads.h").is_file()
    program = app("threads", where, tmp_path / "app")
    assert run(program) == f"keyword {expected('kws')[0]} by 2 threads\n"


@pytest.mark.skipif(
    not any(map(shutil.which, ("c++", "g++", "clang++"))), reason="no C++ compiler is installed"
)
def test_two_networks(prefix, tmp_path):
    out = run(app("two_networks", prefix, tmp_path))
    assert out == f"class {expected('resnet8')[0]}, keyword {expected('kws')[0]}\n"


def test_pkg_config(prefix, tmp_path):
    if shutil.which("pkg-config") is None:
        pytest.skip("pkg-config is not installed")
    libdir = next(prefix.rglob("resnet8.pc")).parent
    command = ["pkg-config", "--cflags", "--libs", "--static", "resnet8"]
    flags = subprocess.run(
        command, env={**os.environ, "PKG_CONFIG_PATH": str(libdir)}, capture_output=True, text=True
    )
    assert flags.returncode == 0, flags.stderr
    run(
        "cc",
        examples_dir() / "find_package" / "main.c",
        *flags.stdout.split(),
        "-o",
        "a",
        cwd=tmp_path,
    )
    assert run(tmp_path / "a").startswith("class ")


def test_find_package_on_the_board(tmp_path):
    runner = pick_runner(load_board("jetson-nano-cpu"))
    if shutil.which(CROSS) is None or runner is None:
        pytest.skip(f"{CROSS} or qemu-aarch64 is not installed")
    cross = [
        "-DCMAKE_SYSTEM_NAME=Linux", "-DCMAKE_SYSTEM_PROCESSOR=aarch64",
        f"-DCMAKE_C_COMPILER={CROSS}", "-DCMAKE_C_FLAGS=-mcpu=cortex-a57 -O2",
        "-DCMAKE_EXE_LINKER_FLAGS=-static",
    ]  # fmt: skip
    where = install(tmp_path, "jetson-nano-cpu", *cross)
    program = app(
        "find_package", where, tmp_path / "app", *cross, "-DCMAKE_FIND_ROOT_PATH_MODE_PACKAGE=BOTH"
    )
    best, probability = expected("resnet8")
    out = run("qemu-aarch64", "-cpu", "cortex-a57", program)
    assert out.startswith(f"class {best}, probability {probability:.4f}")


@pytest.mark.parametrize(
    "preset", ["host", pytest.param("host-asan", marks=pytest.mark.slow), "cortex-a57"]
)
def test_presets_of_a_generated_project(preset, tmp_path, monkeypatch):
    """Configure, build and self-check with the presets that lie in the generated folder; for the
    board with the weights in a blob, which the assembler must find."""
    tmp_path = tmp_path / "my firmware"
    board = "jetson-nano-cpu" if preset.startswith("cortex") else "local"
    if preset.startswith("cortex") and pick_runner(load_board(board)) is None:
        pytest.skip(f"no runner for {board} here")
    if board != "local":
        monkeypatch.setattr(emit, "BLOB_BYTES", 0)
    generated = generate(model("kws"), load_board(board), name="kws")
    assert ("src/kws_weights.S" in generated.sources.files) == (board != "local")
    write(generated.sources, tmp_path)
    shutil.copy(presets_file(), tmp_path)
    run("cmake", "--preset", preset, cwd=tmp_path)
    run(
        "cmake", "--build", "--preset", preset, cwd=tmp_path
    ) if preset in _build_presets() else run(
        "cmake", "--build", tmp_path / "build" / preset, cwd=tmp_path
    )
    tested = run("ctest", "--test-dir", tmp_path / "build" / preset, cwd=tmp_path)
    assert "100% tests passed, 0 tests failed out of 1" in tested
    x = np.random.default_rng(0).standard_normal((1, 1, 50, 10)).astype(np.float32)
    (tmp_path / "in.bin").write_bytes(x.tobytes())
    emulator = ["qemu-aarch64", "-cpu", "cortex-a57"] if preset.startswith("cortex") else []
    run(*emulator, tmp_path / "build" / preset / "kws_verify", "in.bin", "out.bin", cwd=tmp_path)
    y = np.frombuffer((tmp_path / "out.bin").read_bytes(), np.float32)
    np.testing.assert_allclose(y, Reference(model("kws")).run({"input": x})["output"][0], atol=1e-5)


def _build_presets():
    import json

    return {p["name"] for p in json.loads(presets_file().read_text()).get("buildPresets", [])}
