"""What `--preprocess` does to images and arrays before the network reads them: a comma list such as
scale=1/255,mean=0.485:0.456:0.406,std=0.229:0.224:0.225,bgr,resize=256,crop=224, in that order."""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from codegen.errors import CodegenError

Run = Callable[[np.ndarray], np.ndarray]  # [H, W, C] float32 -> [H', W', C] float32
_NUMBER = r"-?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?"
_WORDS = "scale=1/255, mean=A:B:C, std=A:B:C, bgr, resize=N or HxW, crop=N or HxW"


@dataclass(frozen=True)
class Step:
    """One word of the list; `of_images`: it means nothing for other arrays."""

    word: str
    run: Run
    of_images: bool


def parse_preprocess(spec: str) -> tuple[Step, ...]:
    """The steps of a SPEC in order, each of an image [H, W, C]; "" is none. CodegenError for
    unknown words and values."""
    return tuple(_step(word.strip()) for word in spec.split(",")) if spec.strip() else ()


def apply_steps(steps: Sequence[Step], image: np.ndarray) -> np.ndarray:
    """The image [H, W, C] in float32 after every step."""
    image = image.astype(np.float32)
    for step in steps:
        image = step.run(image)
    return image


def _step(word: str) -> Step:
    name, equals, value = word.partition("=")
    if name == "bgr" and not equals:
        return Step(word, _bgr, True)
    makers = {"scale": _scale, "mean": _mean, "std": _std, "resize": _resize, "crop": _crop}
    if name not in makers or not equals:
        raise CodegenError(
            "--preprocess", f"unknown word {word!r}", f"words: {_WORDS}", "separate them by commas"
        )
    return Step(word, makers[name](word, value), name in ("resize", "crop"))


def _wrong(word: str, allowed: str) -> CodegenError:
    return CodegenError("--preprocess", repr(word), allowed, f"write e.g. {_WORDS}")


def _scale(word: str, value: str) -> Run:
    found = re.fullmatch(rf"({_NUMBER})(?:/({_NUMBER}))?", value)
    divisor = float(found[2] or 1) if found else 0.0
    if not divisor:
        raise _wrong(word, "a number or a fraction")
    factor = np.float32(float(found[1]) / divisor)
    return lambda image: image * factor


def _numbers(word: str, value: str) -> np.ndarray:
    """One number, or one per channel."""
    if not re.fullmatch(rf"{_NUMBER}(:{_NUMBER})*", value):
        raise _wrong(word, "a number, or one per channel with colons between them")
    return np.array([float(v) for v in value.split(":")], np.float32)


def _per_channel(word: str, values: np.ndarray, image: np.ndarray) -> np.ndarray:
    if values.size not in (1, image.shape[2]):
        raise _wrong(word, f"one number, or {image.shape[2]} for {image.shape[2]} channels")
    return values


def _mean(word: str, value: str) -> Run:
    values = _numbers(word, value)
    return lambda image: image - _per_channel(word, values, image)


def _std(word: str, value: str) -> Run:
    values = _numbers(word, value)
    if not np.all(values):
        raise _wrong(word, "numbers other than 0")
    return lambda image: image / _per_channel(word, values, image)


def _bgr(image: np.ndarray) -> np.ndarray:
    if image.shape[2] != 3:
        raise _wrong("bgr", f"3 channels, but there are {image.shape[2]}")
    return image[:, :, ::-1]


def _extents(word: str, value: str) -> tuple[int, ...]:
    """(n,) or (height, width)."""
    if not re.fullmatch(r"[1-9]\d*(x[1-9]\d*)?", value):
        raise _wrong(word, "N, or HxW")
    return tuple(int(v) for v in value.split("x"))


def _resize(word: str, value: str) -> Run:
    wanted = _extents(word, value)

    def resize(image: np.ndarray) -> np.ndarray:
        """Bilinear; of a single number, the short side."""
        h, w = image.shape[:2]
        short = min(h, w)
        size = wanted if len(wanted) == 2 else tuple(
            max(1, round(n * wanted[0] / short)) for n in (h, w)
        )  # fmt: skip
        rows, columns = _triangles(h, size[0]), _triangles(w, size[1])
        return np.einsum("ah,hwc,bw->abc", rows, image, columns, optimize=True)

    return resize


def _triangles(n: int, m: int) -> np.ndarray:
    """Weights [m, n] of n pixels in m: a triangle as wide as two pixels of the coarser grid, as
    Pillow's BILINEAR, which does not alias where an image shrinks."""
    scale = n / m
    support = max(scale, 1.0)
    centres = (np.arange(m) + 0.5) * scale
    distance = np.abs(np.arange(n) + 0.5 - centres[:, None]) / support
    weights = np.maximum(1.0 - distance, 0.0)
    return (weights / weights.sum(1, keepdims=True)).astype(np.float32)


def _crop(word: str, value: str) -> Run:
    wanted = _extents(word, value)

    def crop(image: np.ndarray) -> np.ndarray:
        """The middle."""
        height, width = wanted if len(wanted) == 2 else wanted * 2
        h, w = image.shape[:2]
        if height > h or width > w:
            raise _wrong(word, f"at most {h}x{w}, the size of the image")
        top, left = (h - height) // 2, (w - width) // 2
        return image[top : top + height, left : left + width]

    return crop
