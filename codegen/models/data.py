"""Labelled examples for tests and accuracy reports, in the form that each network expects.

Fetched like the networks and never part of the repository: the rights in the photographs are
unclear.
"""

import csv
import io
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from codegen.errors import CodegenError
from codegen.models import archive, catalog, idx
from codegen.models.optional import require

MNIST_SIZE = 28
CROP = 224
# The short side that a photograph is scaled to before 224 are cropped, customary for ImageNet.
SCALED = 256

Images = np.ndarray
Labelled = tuple[np.ndarray, np.ndarray]


@dataclass(frozen=True)
class Recipe:
    """Which data set a network is tested with, and what makes its input of RGB or grey images
    0..255."""

    dataset: str
    prepare: Callable[[Images], np.ndarray]


def _as_is(images: Images) -> np.ndarray:
    return images


def _bgr_minus_means(images: Images) -> np.ndarray:
    means = np.array([103.939, 116.779, 123.68], np.float32).reshape(1, 3, 1, 1)
    return images[:, ::-1] - means


def _centred(middle: float) -> Callable[[Images], np.ndarray]:
    return lambda images: (images - np.float32(middle)) / np.float32(128)


# The recipe of a data set's own name is that of the network most often tested with it.
RECIPES = {
    "mnist": Recipe("mnist", _as_is),
    "cifar10": Recipe("cifar10", _centred(128)),
    "imagenet": Recipe("imagenet", _centred(127)),
    "fashion_mnist": Recipe("fashion_mnist", _as_is),
    "fashion_mnist_train": Recipe("fashion_mnist_train", _as_is),
    "mnist8": Recipe("mnist", _as_is),
    "fashion_dscnn": Recipe("fashion_mnist", _as_is),
    "mlperf_ic_resnet8": Recipe("cifar10", _centred(128)),
    "squeezenet1_1": Recipe("imagenet", _bgr_minus_means),
    "efficientnet_lite0": Recipe("imagenet", _centred(127)),
}


def load(name: str, crops: int = 1) -> Labelled:
    """(inputs float32 [N, C, H, W] ready for the network, labels int64 [N]) for a data set or a
    model with one.

    `crops` > 1 gives that many views of each image (mirrored, and for photographs also from the
    corners, at most 10; 2 for cifar10), the views of one image next to each other. Fetches the data
    on first use. CodegenError for an unknown name or too many crops.
    """
    if name not in RECIPES:
        raise CodegenError(
            "codegen models",
            f"no labelled data for '{name}'",
            f"known: {', '.join(RECIPES)}",
            "choose one of these",
        )
    recipe = RECIPES[name]
    images, labels = LOADERS[recipe.dataset](recipe.dataset, crops)
    inputs = np.ascontiguousarray(recipe.prepare(images), np.float32)
    return inputs, np.repeat(labels, crops)


def _mnist(name: str, crops: int) -> Labelled:
    """Lines of 784 pixels and the label."""
    _limit_crops(name, crops, 1)
    (data,) = archive.members(catalog.dataset(name)).values()
    lines = csv.reader(io.StringIO(data.decode()))
    table = np.array([line for line in lines if line], np.float32)
    images = table[:, :-1].reshape(-1, 1, MNIST_SIZE, MNIST_SIZE)
    return images, table[:, -1].astype(np.int64)


def _fashion_mnist(name: str, crops: int) -> Labelled:
    _limit_crops(name, crops, 1)
    files = archive.members(catalog.dataset(name))
    images, labels = (idx.read(data, file) for file, data in files.items())
    return images[:, None].astype(np.float32), labels.astype(np.int64)


def _cifar10(name: str, crops: int) -> Labelled:
    _limit_crops(name, crops, 2)
    pictures, labels = _pictures(name)
    images = np.stack([_planes(picture) for picture in pictures])
    views = [images, images[..., ::-1]][:crops]
    return np.stack(views, 1).reshape(-1, *images.shape[1:]), labels


def _imagenet(name: str, crops: int) -> Labelled:
    """Scaled to 256, then the middle, its mirror image, the four corners and theirs."""
    _limit_crops(name, crops, 10)
    pictures, labels = _pictures(name)
    images = [view for picture in pictures for view in _views(_scaled(picture))[:crops]]
    return np.stack(images), labels


def _limit_crops(name: str, crops: int, most: int) -> None:
    if not 1 <= crops <= most:
        raise CodegenError(
            f"data set {name}", f"crops = {crops}", f"1 to {most} are possible", "choose fewer"
        )


def _pictures(name: str) -> tuple[list, np.ndarray]:
    """Decoded RGB pictures and their labels; files are called <set>_<number>_<label>.<type>."""
    pillow = require("PIL.Image", "pillow", "decoding pictures")
    files = archive.members(catalog.dataset(name))
    labels = [int(file.rsplit("_", 1)[1].split(".")[0]) for file in files]
    pictures = [pillow.open(io.BytesIO(data)).convert("RGB") for data in files.values()]
    return pictures, np.array(labels, np.int64)


def _planes(picture) -> np.ndarray:
    """[3, H, W], RGB, 0..255."""
    return np.asarray(picture, np.float32).transpose(2, 0, 1)


def _scaled(picture) -> np.ndarray:
    """Short side to 256, bilinear."""
    factor = SCALED / min(picture.size)
    size = tuple(round(n * factor) for n in picture.size)
    bilinear = 2  # PIL.Image.Resampling.BILINEAR
    return _planes(picture.resize(size, bilinear))


def _views(image: np.ndarray) -> list[np.ndarray]:
    low, right = (n - CROP for n in image.shape[1:])
    corners = [(low // 2, right // 2), (0, 0), (0, right), (low, 0), (low, right)]
    cuts = [image[:, y : y + CROP, x : x + CROP] for y, x in corners]
    return [view for cut in cuts for view in (cut, cut[..., ::-1])]


LOADERS: dict[str, Callable[[str, int], Labelled]] = {
    "mnist": _mnist,
    "cifar10": _cifar10,
    "imagenet": _imagenet,
    "fashion_mnist": _fashion_mnist,
    "fashion_mnist_train": _fashion_mnist,
}
