"""Data to calibrate on and to test on, for the networks that have any."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from benchmarks.networks import path_of
from codegen.errors import CodegenError
from codegen.models import data
from codegen.models.optional import require

_CROPS = 120  # of each photograph
# Shares of its area, and width by height, as networks for ImageNet are trained with since Szegedy
# et al., Going Deeper with Convolutions, 2015 (arXiv:1409.4842), section 6.
_AREA, _RATIO = (0.08, 1.0), (3 / 4, 4 / 3)


@dataclass(frozen=True)
class Source:
    """Where a network's samples come from: crops of photographs (`side` pixels), made its input
    by `prepare`, and labelled data, of which there are `views` of each, on which alone top-1 is
    counted. Without a side these are all there are."""

    views: int = 0
    side: int = 0
    prepare: Callable[[np.ndarray], np.ndarray] = np.asarray

    @property
    def what(self) -> str:
        """For the page."""
        crops = f"{_CROPS} crops of each of 20 photographs, without labels" * bool(self.side)
        views = f"{self.views} views of each labelled picture" if self.views > 1 else "labelled"
        return "; ".join(filter(None, (crops, views * bool(self.views))))


def _unit(images: np.ndarray) -> np.ndarray:
    return images / np.float32(255)


def _around_zero(images: np.ndarray) -> np.ndarray:
    return images / np.float32(127.5) - np.float32(1)


def _last_bgr(images: np.ndarray) -> np.ndarray:
    """Channels last, minus the means that open_nsfw was trained with."""
    return np.moveaxis(images[:, ::-1], 1, -1) - np.array([104, 117, 123], np.float32)


SOURCES = {
    "mnist8": Source(1),
    "fashion_dscnn": Source(1),
    "squeezenet1_1": Source(10, 224, data.RECIPES["squeezenet1_1"].prepare),
    "efficientnet_lite0": Source(10, 224, data.RECIPES["efficientnet_lite0"].prepare),
    "mlperf_ic_resnet8": Source(2, 32, data.RECIPES["mlperf_ic_resnet8"].prepare),
    "mlperf_vww_mbv1_025": Source(side=96, prepare=_unit),
    "dog_mobilenetv2_160": Source(side=160, prepare=_around_zero),
    "open_nsfw": Source(side=224, prepare=_last_bgr),
}


def model_of(name: str) -> Path:
    """The network's file. CodegenError where there are no samples for it."""
    if name not in SOURCES:
        raise CodegenError("benchmarks.accuracy", f"no samples for '{name}'",
                           f"known: {', '.join(SOURCES)}", "choose one of these")  # fmt: skip
    return path_of(name)


def write_samples(name: str, folder: Path) -> Path:
    """A .npz of inputs, and the photograph of each as its group. A file that is there is not made
    again."""
    source, path = SOURCES[name], folder / "samples.npz"
    if not source.side:
        return write_labelled(name, folder)
    if path.exists():
        return path
    x, group = _crops(source.side)
    np.savez(path, x=np.asarray(source.prepare(x), np.float32), group=group)
    return path


def write_labelled(name: str, folder: Path) -> Path | None:
    """The same with labels; None where there are none."""
    source, path = SOURCES[name], folder / "labelled.npz"
    if not source.views:
        return None
    if path.exists():
        return path
    x, y = data.load(name, source.views)
    np.savez(path, x=x, y=y, group=np.arange(len(y)) // source.views)
    return path


def _crops(side: int) -> tuple[np.ndarray, np.ndarray]:
    """(RGB 0..255 [N, 3, side, side], number of the photograph [N]): crops as for training, half of
    them mirrored."""
    require("PIL.Image", "pillow", "decoding pictures")
    pictures, _ = data._pictures("imagenet")
    rng = np.random.default_rng(0)
    images, groups = [], []
    for k, picture in enumerate(pictures):
        for _ in range(_CROPS):
            crop = picture.resize((side, side), 2, _box(*picture.size, rng))
            image = np.asarray(crop, np.float32).transpose(2, 0, 1)
            images.append(image[..., ::-1] if rng.random() < 0.5 else image)
            groups.append(k)
    return np.stack(images), np.array(groups)


def _box(width: int, height: int, rng: np.random.Generator) -> tuple[int, int, int, int]:
    """Left, top, right, bottom; shares of the area and logarithms of the ratio equally likely."""
    while True:
        area = width * height * rng.uniform(*_AREA)
        ratio = np.exp(rng.uniform(*np.log(_RATIO)))
        w, h = round((area * ratio) ** 0.5), round((area / ratio) ** 0.5)
        if w <= width and h <= height:
            x, y = int(rng.integers(0, width - w + 1)), int(rng.integers(0, height - h + 1))
            return x, y, x + w, y + h
