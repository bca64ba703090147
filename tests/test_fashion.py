"""Fashion-MNIST out of Debian's package, and the network trained for it: offline what can be, with
apt-get what must be (slow)."""

import gzip
import hashlib
import io
import shutil
import struct
import sys
import tarfile
from dataclasses import replace
from importlib import import_module
from pathlib import Path

import numpy as np
import onnxruntime
import pytest

from benchmarks.accuracy import samples
from codegen.errors import CodegenError
from codegen.models import archive, catalog, data, debian, idx
from codegen.resources import examples_dir
from tests.library import labelled

MODEL = examples_dir() / "models" / "fashion_dscnn.onnx"
IMAGES = np.arange(2 * 28 * 28, dtype=np.uint32).astype(np.uint8).reshape(2, 28, 28)
LABELS = np.array([3, 9], np.uint8)
FAKE_APT = """
import shutil, sys
assert sys.argv[1:] == ["--quiet", "download", "dataset-fashion-mnist"]
shutil.copy({deb!r}, ".")
"""
BROKEN_APT = """
import sys
print("E: Unable to locate package", file=sys.stderr)
sys.exit(100)
"""
needs_dpkg = pytest.mark.skipif(not shutil.which("dpkg-deb"), reason="no dpkg-deb on this machine")


@pytest.fixture
def cache(tmp_path, monkeypatch) -> Path:
    monkeypatch.setenv("CODEGEN_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def idx_file(array: np.ndarray) -> bytes:
    return struct.pack(f">HBB{array.ndim}I", 0, 8, array.ndim, *array.shape) + array.tobytes()


def tar_gz(files: dict[str, bytes]) -> bytes:
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w:gz") as tar:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    return stream.getvalue()


def deb(files: dict[str, bytes]) -> bytes:
    """An `ar` archive of the three members that dpkg-deb wants."""
    members = (("debian-binary", b"2.0\n"), ("control.tar.gz", tar_gz({})),
               ("data.tar.gz", tar_gz(files)))  # fmt: skip
    out = b"!<arch>\n"
    for name, content in members:
        out += f"{name:16}{0:<12}{0:<6}{0:<6}{'100644':8}{len(content):<10}`\n".encode()
        out += content + b"\n" * (len(content) % 2)
    return out


def set_apt(monkeypatch, tmp_path: Path, program: str) -> None:
    script = tmp_path / "apt.py"
    script.write_text(program)
    monkeypatch.setattr(debian, "APT_GET", (sys.executable, str(script)))


@pytest.fixture
def offline(tmp_path, monkeypatch, cache) -> catalog.Dataset:
    """The row of the test images, served by a package that has two of them."""
    files = {
        "t10k-images-idx3-ubyte.gz": gzip.compress(idx_file(IMAGES)),
        "t10k-labels-idx1-ubyte.gz": gzip.compress(idx_file(LABELS)),
        "train-labels-idx1-ubyte.gz": b"not read",
    }
    path = tmp_path / "fashion_1_all.deb"
    path.write_bytes(deb({f"./usr/share/datasets/fashion-mnist/{n}": c for n, c in files.items()}))
    set_apt(monkeypatch, tmp_path, FAKE_APT.format(deb=str(path)))
    sha256 = hashlib.sha256(idx_file(IMAGES) + idx_file(LABELS)).hexdigest()
    row = replace(catalog.dataset("fashion_mnist"), sha256=sha256)
    monkeypatch.setattr(catalog, "DATASETS", (row,))
    return row


# --- Debian's packages ---


@needs_dpkg
@pytest.mark.parametrize("name", ["fashion_mnist", "fashion_dscnn"])
def test_images_and_labels(name, offline):
    images, labels = data.load(name)
    assert images.dtype == np.float32
    assert labels.dtype == np.int64
    np.testing.assert_array_equal(images, IMAGES[:, None])
    np.testing.assert_array_equal(labels, LABELS)


@needs_dpkg
def test_downloaded_once(offline, tmp_path, monkeypatch, cache):
    data.load("fashion_mnist")
    set_apt(monkeypatch, tmp_path, BROKEN_APT)
    data.load("fashion_mnist")
    assert [p.name for p in (cache / "packages").iterdir()] == ["debian-dataset-fashion-mnist"]


@needs_dpkg
def test_a_cache_that_is_a_relative_path(offline, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("CODEGEN_CACHE", "here")
    assert len(data.load("fashion_mnist")[0]) == 2


@needs_dpkg
def test_other_contents(offline, monkeypatch):
    monkeypatch.setattr(catalog, "DATASETS", (replace(offline, sha256="0" * 64),))
    with pytest.raises(CodegenError, match=r"dataset-fashion-mnist \(Debian\): .* pins 000"):
        data.load("fashion_mnist")


@needs_dpkg
def test_a_file_that_is_no_package(offline, cache):
    archive.download(offline.package).write_bytes(b"no archive")
    with pytest.raises(CodegenError, match=r"\(Debian\): dpkg-deb failed \(dpkg-deb: error: "):
        data.load("fashion_mnist")


def test_no_such_package_leaves_nothing(tmp_path, monkeypatch, cache):
    set_apt(monkeypatch, tmp_path, BROKEN_APT)
    with pytest.raises(CodegenError, match="failed .E: Unable to locate package.*fetch again"):
        data.load("fashion_mnist")
    assert not list((cache / "packages").iterdir())


@pytest.mark.parametrize("program", ["APT_GET", "DPKG_DEB"])
def test_a_machine_without_debians_programs(program, offline, monkeypatch):
    monkeypatch.setattr(debian, program, ("no-such-program",))
    with pytest.raises(CodegenError, match="no-such-program failed .*No such file.*with apt-get"):
        data.load("fashion_mnist")


# --- IDX files ---


@pytest.mark.parametrize("array", [LABELS, IMAGES, np.zeros((0, 5), np.uint8)])
def test_idx(array):
    np.testing.assert_array_equal(idx.read(idx_file(array), "a"), array)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "header ; an IDX file of unsigned bytes is expected"),
        (b"\0\0\x08", "header 000008;"),
        (b"\0\0\x0d\1\0\0\0\1\0\0\0\0", "header 00000d0100000001;"),
        (idx_file(IMAGES)[:15], "header 000008030000000200"),
        (idx_file(LABELS)[:-1], r"1 elements for the shape \(2,\);"),
        (idx_file(LABELS) + b"\0", r"3 elements for the shape \(2,\);"),
    ],
)
def test_what_is_not_idx(content, message):
    with pytest.raises(CodegenError, match=f"labels: {message}"):
        idx.read(content, "labels")


# --- the network ---


def test_accuracy_is_measured_with_the_file_of_the_repository(monkeypatch):
    monkeypatch.setattr("benchmarks.networks.fetch", lambda name: f"fetched {name}")
    assert samples.model_of("fashion_dscnn") == MODEL
    assert samples.model_of("mnist8") == "fetched mnist8"
    with pytest.raises(CodegenError, match="no samples for 'mnist9'; known: .*fashion_dscnn"):
        samples.model_of("mnist9")


@needs_dpkg
def test_samples_for_accuracy(offline, tmp_path):
    path = samples.write_samples("fashion_dscnn", tmp_path)
    assert path == samples.write_labelled("fashion_dscnn", tmp_path)
    made = np.load(path)
    assert made["x"].shape == (2, 1, 28, 28)
    assert list(made["y"]) == list(LABELS)
    assert list(made["group"]) == [0, 1]


def test_training_says_that_it_needs_torch(monkeypatch):
    monkeypatch.setitem(sys.modules, "torch", None)
    monkeypatch.delitem(sys.modules, "benchmarks.train_fashion", raising=False)
    with pytest.raises(SystemExit, match="package 'torch' is not installed.*pip install torch"):
        import_module("benchmarks.train_fashion")


@pytest.mark.slow
def test_top1_of_the_network():
    images, labels = labelled("fashion_dscnn")
    assert images.shape == (10_000, 1, 28, 28)
    assert images.max() == 255
    assert list(np.bincount(labels)) == [1000] * 10
    run = onnxruntime.InferenceSession(MODEL, providers=["CPUExecutionProvider"])
    hits = [run.run(None, {"input": x[None]})[0].argmax() == y
            for x, y in zip(images, labels, strict=True)]  # fmt: skip
    assert np.mean(hits) >= 0.9


@pytest.mark.slow
def test_training_images():
    images, labels = labelled("fashion_mnist_train")
    assert images.shape == (60_000, 1, 28, 28)
    assert list(np.bincount(labels)) == [6000] * 10
