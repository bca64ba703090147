"""Which input pixels make an output pixel of a Resize, and how much of each: one table per axis.

Follows onnx/reference/ops/op_resize.py. All coordinate modes, rounding modes and filters end here,
in Python: the kernels only see indices and weights.
"""

from dataclasses import dataclass

import numpy as np

from codegen.ops.base import Unsupported

NEAREST = {
    "round_prefer_floor": lambda x: np.ceil(x - 0.5),
    "round_prefer_ceil": lambda x: np.floor(x + 0.5),
    "floor": np.floor,
    "ceil": np.ceil,
}


@dataclass(frozen=True)
class Filter:
    """Attributes of a Resize that decide how one axis is sampled."""

    mode: str  # nearest, linear, cubic
    coordinates: str
    nearest: str = "round_prefer_floor"
    cubic: float = -0.75
    exclude_outside: bool = False
    antialias: bool = False


def positions(how: Filter, extent: int, out: int, scale: float) -> np.ndarray:
    """Where each of `out` pixels lies among `extent` input pixels, in pixels."""
    y = np.arange(out, dtype=np.float64)
    if how.coordinates == "align_corners":  # `out` as onnxruntime and PyTorch, not scale * extent
        return np.zeros(out) if out == 1 else y * (extent - 1) / (out - 1)
    if how.coordinates == "asymmetric":
        return y / scale
    if how.coordinates == "tf_half_pixel_for_nn":
        return (y + 0.5) / scale
    if how.coordinates == "pytorch_half_pixel" and out == 1:
        return np.zeros(out)
    if how.coordinates in ("half_pixel", "pytorch_half_pixel"):
        return (y + 0.5) / scale - 0.5
    if how.coordinates == "half_pixel_symmetric":
        return extent / 2 * (1 - out / (scale * extent)) + (y + 0.5) / scale - 0.5
    raise Unsupported(f"coordinate_transformation_mode {how.coordinates!r}")


def nearest_table(how: Filter, extent: int, out: int, scale: float) -> np.ndarray:
    """int32 (out,): the one pixel each output pixel copies."""
    x = positions(how, extent, out, scale)
    halves = np.rint(2 * x) / 2  # ties must not hang on the last bit of 1 / scale
    x = np.where(np.abs(x - halves) < 1e-5, halves, x)
    if how.nearest == "simple":  # opsets before 11
        rounded = np.ceil(x) if scale < 1 else np.floor(x)
    elif how.nearest in NEAREST:
        rounded = NEAREST[how.nearest](x)
    else:
        raise Unsupported(f"nearest_mode {how.nearest!r}")
    return np.clip(rounded, 0, extent - 1).astype(np.int32)


def _triangle(x: np.ndarray, how: Filter) -> np.ndarray:
    return np.clip(1 - np.abs(x), 0, None)


def _cubic(x: np.ndarray, how: Filter) -> np.ndarray:
    """Keys' cubic convolution with parameter a."""
    a, x = how.cubic, np.abs(x)
    near = ((a + 2) * x - (a + 3)) * x * x + 1
    far = ((a * x - 5 * a) * x + 8 * a) * x - 4 * a
    return np.where(x <= 1, near, np.where(x < 2, far, 0.0))


_KERNELS = {"linear": (_triangle, 1), "cubic": (_cubic, 2)}


def weight_table(how: Filter, extent: int, out: int, scale: float) -> tuple[np.ndarray, np.ndarray]:
    """int32 and float32 (out, taps): the pixels each output pixel is a weighted sum of.

    Indices beyond the edge are clamped to it. `antialias` widens a shrinking filter by 1 / scale.
    """
    if how.mode not in _KERNELS:
        raise Unsupported(f"resize mode {how.mode!r}")
    kernel, radius = _KERNELS[how.mode]
    squeeze = min(scale, 1.0) if how.antialias else 1.0
    x = positions(how, extent, out, scale)
    reach = int(np.ceil(radius / squeeze))
    index = np.floor(x).astype(np.int64)[:, None] + np.arange(1 - reach, reach + 1)
    weight = kernel((index - x[:, None]) * squeeze, how)
    if how.antialias:
        weight /= weight.sum(axis=1, keepdims=True)
    if how.exclude_outside:
        weight[(index < 0) | (index >= extent)] = 0
        weight /= weight.sum(axis=1, keepdims=True)
    used = weight.any(axis=0)  # e.g. an integer factor may leave whole columns unused
    index, weight = index[:, used], weight[:, used]
    return np.clip(index, 0, extent - 1).astype(np.int32), weight.astype(np.float32)
