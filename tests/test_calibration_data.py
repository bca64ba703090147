"""A user's samples: layouts, folders, labels, halves, preprocessing, and what is refused."""

import sys
from pathlib import Path

import numpy as np
import pytest

from codegen.calibration.data import load_labelled, open_data
from codegen.calibration.preprocess import apply_steps, parse_preprocess
from codegen.errors import CodegenError
from codegen.graph import Tensor
from codegen.types import DType

IMAGE = Tensor("input", (1, 3, 8, 6), DType.F32)
GREY = Tensor("input", (1, 1, 28, 28), DType.F32)
VECTOR = Tensor("v", (1, 5), DType.F32)
IDS = Tensor("ids", (1, 4), DType.I64)


@pytest.fixture
def rng():
    return np.random.default_rng(4)


def npy(tmp_path, array, name="a.npy"):
    np.save(tmp_path / name, array)
    return tmp_path / name


def npz(tmp_path, name="a.npz", **arrays):
    np.savez(tmp_path / name, **arrays)
    return tmp_path / name


def inputs_of(data, name="input"):
    return np.concatenate([b.inputs[name] for b in data.batches(range(len(data)))])


def read_all(*args, **kw):
    data = open_data(*args, **kw)
    return list(data.batches(range(len(data))))


def refused(said, *args, **kw):
    with pytest.raises(CodegenError, match=said):
        read_all(*args, **kw)


# --- layouts ---


@pytest.mark.parametrize("shape", [(4, 3, 8, 6), (4, 1, 3, 8, 6), (3, 8, 6), (1, 3, 8, 6)])
def test_samples_with_and_without_batch(shape, tmp_path, rng):
    x = rng.standard_normal(shape).astype(np.float32)
    data = open_data([npy(tmp_path, x)], [IMAGE])
    assert np.array_equal(inputs_of(data), x.reshape(-1, 3, 8, 6))


@pytest.mark.parametrize("single", [True, False])
def test_channels_last_images_for_a_channels_first_input(single, tmp_path, rng):
    x = rng.integers(0, 256, (4, 8, 6, 3), np.uint8)
    path = npy(tmp_path, x[0] if single else x)
    data = open_data([path], [IMAGE])
    assert np.array_equal(inputs_of(data), x[: len(data)].transpose(0, 3, 1, 2))
    assert inputs_of(data).dtype == np.float32


def test_channels_first_images_for_a_channels_last_input(tmp_path, rng):
    x = rng.standard_normal((4, 3, 8, 6)).astype(np.float32)
    data = open_data([npy(tmp_path, x)], [Tensor("input", (1, 8, 6, 3), DType.F32)])
    assert np.array_equal(inputs_of(data), x.transpose(0, 2, 3, 1))


def test_an_image_that_fits_as_it_is_stays_so(tmp_path, rng):
    x = rng.standard_normal((4, 3, 3, 3)).astype(np.float32)
    data = open_data([npy(tmp_path, x)], [Tensor("input", (1, 3, 3, 3), DType.F32)])
    assert np.array_equal(inputs_of(data), x)


def test_layout_that_could_be_either_is_refused(tmp_path):
    path = npy(tmp_path, np.zeros((2, 3, 40, 3)))
    refused("3 channels as either the first or the last", [path], [IMAGE], "resize=8x6")


@pytest.mark.parametrize("shape", [(9, 28, 28), (28, 28), (9, 28, 28, 1), (28, 28, 1)])
def test_grey_images_without_channels(shape, tmp_path, rng):
    x = rng.random(shape).astype(np.float32)
    data = open_data([npy(tmp_path, x)], [GREY])
    assert np.array_equal(inputs_of(data), x.reshape(-1, 1, 28, 28))


def test_batch_of_the_model(tmp_path, rng):
    """Samples are gathered into runs; the last run repeats its own."""
    x = rng.standard_normal((5, 5)).astype(np.float32)
    data = open_data([npy(tmp_path, x)], [Tensor("v", (3, 5), DType.F32)])
    first, last = data.batches(range(len(data)))
    assert (first.samples, last.samples) == ((0, 1, 2), (3, 4))
    assert np.array_equal(first.inputs["v"], x[:3])
    assert np.array_equal(last.inputs["v"], x[[3, 4, 3]])
    whole = open_data([npy(tmp_path, x[None, :3])], [Tensor("v", (3, 5), DType.F32)])
    (run,) = whole.batches([0])
    assert np.array_equal(run.inputs["v"], x[:3])


def test_input_without_batch(tmp_path, rng):
    x = rng.standard_normal((6, 5)).astype(np.float32)
    data = open_data([npy(tmp_path, x)], [Tensor("v", (5,), DType.F32)])
    assert [b.inputs["v"].shape for b in data.batches(range(6))] == [(5,)] * 6


# --- files ---


@pytest.mark.parametrize("key", ["input", "x", "images", "data", "whatever"])
def test_names_of_the_only_array(key, tmp_path, rng):
    x = rng.standard_normal((2, 3, 8, 6)).astype(np.float32)
    data = open_data([npz(tmp_path, **{key: x}, y=np.arange(2))], [IMAGE])
    assert np.array_equal(inputs_of(data), x)


def test_several_inputs_by_name(tmp_path, rng):
    v, ids = rng.random((3, 5)), rng.integers(0, 9, (3, 4)).astype(np.int32)
    data = open_data([npz(tmp_path, v=v, ids=ids)], [VECTOR, IDS])
    runs = list(data.batches(range(3)))
    assert np.array_equal(np.concatenate([b.inputs["ids"] for b in runs]), ids)
    assert runs[0].inputs["ids"].dtype == np.int64
    np.testing.assert_allclose(np.concatenate([b.inputs["v"] for b in runs]), v, rtol=1e-6)


def test_folder_in_order_and_several_data(tmp_path, rng):
    pillow = pytest.importorskip("PIL.Image")
    x = rng.integers(0, 256, (4, 8, 6, 3), np.uint8)
    folder = tmp_path / "folder"
    (folder / "more").mkdir(parents=True)
    npy(folder, x[0], "a.npy")
    pillow.fromarray(x[1]).save(folder / "b.png")
    npz(folder / "more", "c.npz", images=x[2:3])
    (folder / "notes.txt").write_text("not data")
    data = open_data([folder, npy(tmp_path, x[3])], [IMAGE])
    assert data.files == ("folder", "a.npy")
    assert np.array_equal(inputs_of(data), x.transpose(0, 3, 1, 2))


def test_files_are_not_kept_open(tmp_path, rng):
    """A folder may have more files than a process may open."""
    resource = pytest.importorskip("resource")
    for i in range(60):
        npy(tmp_path, np.full((2, 5), i), f"{i:02}.npy")
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (len(list(Path("/proc/self/fd").iterdir())) + 20,
                                                limits[1]))  # fmt: skip
    try:
        data = open_data([tmp_path], [VECTOR])
        assert inputs_of(data, "v")[:, 0].tolist() == np.repeat(np.arange(60), 2).tolist()
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)


def test_images_become_grey_for_one_channel(tmp_path, rng):
    pillow = pytest.importorskip("PIL.Image")
    picture = pillow.fromarray(rng.integers(0, 256, (28, 28, 3), np.uint8))
    picture.save(tmp_path / "a.png")
    data = open_data([tmp_path], [GREY])
    assert np.array_equal(inputs_of(data)[0, 0], np.asarray(picture.convert("L")))


def test_choice_is_by_the_seed(tmp_path):
    data = open_data([npy(tmp_path, np.zeros((50, 5)))], [VECTOR])
    assert data.choose(None, 0) == data.choose(99, 1) == tuple(range(50))
    some = data.choose(10, 1)
    assert some == data.choose(10, 1) != data.choose(10, 2)
    assert list(some) == sorted(set(some))
    assert len(some) == 10


# --- labels and halves ---


@pytest.mark.parametrize("key", ["y", "labels"])
def test_labels_stay_aside(key, tmp_path):
    path = npz(tmp_path, v=np.zeros((4, 5)), **{key: np.array([3, 1, 4, 1])})
    data, labels = load_labelled(path, [VECTOR])
    assert labels.tolist() == [3, 1, 4, 1]
    assert len(data) == 4
    with pytest.raises(CodegenError, match="no labels"):
        load_labelled(npz(tmp_path, v=np.zeros((4, 5))), [VECTOR])


def test_an_input_may_be_called_y(tmp_path):
    data = open_data([npz(tmp_path, y=np.zeros((4, 5)))], [Tensor("y", (1, 5), DType.F32)])
    assert len(data) == 4
    assert data.labels is None


def test_halves_share_no_group(tmp_path, rng):
    groups = np.repeat(["dog", "cat", "fox", "owl", "hen"], 10)
    x = np.arange(50.0)[:, None].repeat(5, 1)
    path = npz(tmp_path, x=x, y=np.arange(50), group=groups)
    halves = [load_labelled(path, [VECTOR], half=h)[1] for h in (0, 1)]
    assert sorted(np.concatenate(halves).tolist()) == list(range(50))
    assert not set(groups[halves[0]]) & set(groups[halves[1]])
    assert len(halves[0]) == 30
    data, labels = load_labelled(path, [VECTOR], half=1)
    assert np.array_equal(inputs_of(data, "v")[:, 0], labels)


def test_halves_without_groups_and_groups_over_files(tmp_path):
    path = npy(tmp_path, np.arange(5.0)[:, None].repeat(5, 1))
    one = open_data([path], [VECTOR], half=1)
    assert inputs_of(one, "v")[:, 0].tolist() == [1, 3]
    a = npz(tmp_path, "a.npz", v=np.zeros((2, 5)), group=np.array([1, 2]))
    b = npz(tmp_path, "b.npz", v=np.zeros((2, 5)), group=np.array([2, 1]))
    assert len(open_data([a, b], [VECTOR], half=0)) == 2


def test_bad_halves(tmp_path):
    path = npz(tmp_path, v=np.zeros((3, 5)), group=np.zeros(3))
    refused("half 1 of 3 sample", [path], [VECTOR], half=1)
    refused("--half: 2; 0 or 1", [path], [VECTOR], half=2)
    odd = npz(tmp_path, v=np.zeros((3, 5)), group=np.zeros((3, 2)))
    refused(r"`group` has shape \(3, 2\)", [odd], [VECTOR])


# --- preprocessing ---


def test_words_apply_in_their_order(rng):
    x = rng.integers(0, 256, (9, 7, 3), np.uint8)
    steps = parse_preprocess("scale=1/255, mean=0.4:0.5:0.6,bgr,std=0.1:0.2:0.3,crop=5x3")
    expected = ((x / 255 - [0.4, 0.5, 0.6])[:, :, ::-1] / [0.1, 0.2, 0.3])[2:7, 2:5]
    np.testing.assert_allclose(apply_steps(steps, x), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("size", "spec", "out"), [
    ((40, 30), "resize=20", (27, 20)), ((16, 24), "resize=40x30", (40, 30)),
    ((30, 40), "resize=30", (30, 40)), ((100, 20), "resize=7x50", (7, 50)),
])  # fmt: skip
def test_resize_is_pillows_bilinear(size, spec, out, rng):
    pillow = pytest.importorskip("PIL.Image")
    x = rng.random((*size, 1)).astype(np.float32)
    found = apply_steps(parse_preprocess(spec), x)
    theirs = pillow.fromarray(x[:, :, 0]).resize(out[::-1], pillow.Resampling.BILINEAR)
    assert found.shape == (*out, 1)
    np.testing.assert_allclose(found[:, :, 0], np.asarray(theirs), atol=1e-5)


def test_images_of_any_size_and_layout_reach_the_input(tmp_path, rng):
    big = rng.integers(0, 256, (20, 30, 3), np.uint8)
    spec = "resize=10,crop=8x6,scale=1/128,mean=1"
    paths = [npy(tmp_path, a, n) for n, a in (("l.npy", big), ("f.npy", big.transpose(2, 0, 1)))]
    runs = inputs_of(open_data(paths, [IMAGE], spec))
    assert runs.shape == (2, 3, 8, 6)
    assert np.array_equal(runs[0], runs[1])
    expected = apply_steps(parse_preprocess(spec), big).transpose(2, 0, 1)
    assert np.array_equal(runs[0], expected)


def test_preprocessing_of_what_is_no_image(tmp_path):
    path = npy(tmp_path, np.full((2, 5), 10))
    data = open_data([path], [VECTOR], "mean=4,scale=1/2")
    assert inputs_of(data, "v").tolist() == [[3.0] * 5] * 2
    refused("'crop=2'; input 'v' of shape .* is no image", [path], [VECTOR], "crop=2")
    refused("one number, or 1 for 1 channels", [path], [VECTOR], "mean=1:2:3")


def test_preprocessing_leaves_other_inputs_alone(tmp_path):
    path = npz(tmp_path, input=np.full((2, 3, 8, 6), 10.0), v=np.full((2, 5), 10.0))
    (run, _) = open_data([path], [IMAGE, VECTOR], "scale=2").batches(range(2))
    assert run.inputs["input"].max() == 20
    assert run.inputs["v"].max() == 10


def test_preprocessed_integers_are_rounded(tmp_path):
    path = npy(tmp_path, np.full((1, 3, 8, 6), 5, np.uint8))
    data = open_data([path], [Tensor("input", IMAGE.shape, DType.U8)], "scale=0.33")
    assert set(inputs_of(data).reshape(-1).tolist()) == {2}


@pytest.mark.parametrize(("spec", "said"), [
    ("flip", "unknown word 'flip'"), ("scale", "unknown word 'scale'"), ("bgr=1", "unknown word"),
    ("scale=1,,bgr", "unknown word ''"), ("scale=x", "'scale=x'; a number or a fraction"),
    ("scale=1/0", "a number or a fraction"), ("mean=1,2", "unknown word '2'"),
    ("mean=a", "one per channel"), ("std=0:1:1", "other than 0"), ("resize=0", "N, or HxW"),
    ("crop=1x2x3", "N, or HxW"), ("mean=1:2", "one number, or 3 for 3 channels"),
    ("crop=99", "at most 8x6"),
])  # fmt: skip
def test_bad_preprocessing(spec, said, tmp_path):
    refused(said, [npy(tmp_path, np.zeros((1, 3, 8, 6)))], [IMAGE], spec)


def test_bgr_of_a_grey_image(tmp_path):
    path = npy(tmp_path, np.zeros((2, 28, 28)))
    refused("3 channels, but there are 1", [path], [GREY], "bgr")


# --- what is refused ---


def test_no_data():
    refused("--data: no data", [], [IMAGE])


def test_paths_that_hold_no_samples(tmp_path):
    refused("no such file or folder", [tmp_path / "none.npy"], [IMAGE])
    (tmp_path / "folder").mkdir()
    refused("nothing in this folder", [tmp_path / "folder"], [IMAGE])
    (tmp_path / "a.csv").write_text("1,2")
    refused(r"a file of type '\.csv'", [tmp_path / "a.csv"], [IMAGE])
    for name in ("a.npy", "a.npz"):
        (tmp_path / name).write_text("hello")
        refused("cannot be read", [tmp_path / name], [IMAGE])
    whole = npz(tmp_path, "b.npz", x=np.zeros(999)).read_bytes()
    (tmp_path / "c.npz").write_bytes(whole[:-40])
    refused("cannot be read", [tmp_path / "c.npz"], [IMAGE])
    objects = npy(tmp_path, np.array([{}, []], object), "o.npy")
    refused("cannot be read", [objects], [IMAGE])


def test_broken_image(tmp_path, monkeypatch):
    pillow = pytest.importorskip("PIL.Image")
    (tmp_path / "a.jpg").write_bytes(b"\xff\xd8 no image")
    refused(r"a\.jpg: cannot be read", [tmp_path / "a.jpg"], [IMAGE])
    refused("an image for input 'v'", [tmp_path / "a.jpg"], [VECTOR])
    pillow.new("RGB", (60, 60)).save(tmp_path / "b.png")
    monkeypatch.setattr(pillow, "MAX_IMAGE_PIXELS", 100)
    refused(r"b\.png: cannot be read", [tmp_path / "b.png"], [IMAGE])


def test_images_without_pillow(tmp_path, monkeypatch):
    (tmp_path / "a.png").write_bytes(b"")
    monkeypatch.setitem(sys.modules, "PIL.Image", None)
    refused("package 'pillow' is not installed", [tmp_path], [IMAGE])


@pytest.mark.parametrize("shape", [(2, 5), (2, 2, 2, 2, 2, 2), (0, 3, 8, 6), (4, 3, 8, 7), ()])
def test_wrong_shape(shape, tmp_path):
    refused("shape", [npy(tmp_path, np.zeros(shape))], [IMAGE])


def test_wrong_shape_of_a_vector(tmp_path):
    refused(r"shape \(3, 4\); \(1, 5\), or N", [npy(tmp_path, np.zeros((3, 4)))], [VECTOR])


@pytest.mark.parametrize(("array", "tensor", "said"), [
    (np.zeros((2, 5), complex), VECTOR, "has type complex128"),
    (np.zeros((2, 5), "U3"), VECTOR, "has type <U3"),
    (np.zeros((2, 4)), IDS, "has type float64; what fits int64"),
    (np.full((2, 4), 300), Tensor("ids", (1, 4), DType.U8), "values 300 to 300"),
    (np.zeros((2, 4), int), Tensor("ids", (1, 4), DType.BOOL), "what fits bool"),
])  # fmt: skip
def test_wrong_type(array, tensor, said, tmp_path):
    refused(said, [npy(tmp_path, array)], [tensor])


@pytest.mark.parametrize("bad", [np.nan, np.inf, 1e300])
def test_values_that_are_not_finite(bad, tmp_path):
    x = np.zeros((3, 5))
    x[1, 2] = bad
    refused(r"a\.npy\[1\]: NaN or infinity", [npy(tmp_path, x)], [VECTOR])


def test_names_and_counts_that_do_not_fit(tmp_path):
    one = npy(tmp_path, np.zeros((3, 5)))
    refused("one array for 2 inputs", [one], [VECTOR, IDS])
    refused("no array for input 'ids'", [npz(tmp_path, v=np.zeros((3, 5)))], [VECTOR, IDS])
    refused("no array for input 'v'", [npz(tmp_path, a=np.zeros(5), b=np.zeros(5))], [VECTOR])
    refused("no array for input 'v'; arrays: none", [npz(tmp_path, y=np.zeros(5))], [VECTOR])
    uneven = npz(tmp_path, v=np.zeros((3, 5)), ids=np.zeros((2, 4), int))
    refused(r"different numbers of samples \(v 3, ids 2\)", [uneven], [VECTOR, IDS])
    refused("v 3, y 2", [npz(tmp_path, v=np.zeros((3, 5)), y=np.zeros(2))], [VECTOR])
