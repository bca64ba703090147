"""A user's arrays and images in the shape and type of a network's inputs."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from codegen.calibration.preprocess import Step, apply_steps
from codegen.errors import CodegenError
from codegen.graph import Tensor

_CHANNELS = (1, 2, 3, 4)
_NO_CHANNELS = -1


@dataclass(frozen=True)
class Port:
    """One input and what a sample of it looks like. A run takes `batch` samples of `shape`, or, of
    an input without a batch dimension, one of the input's own shape. `channels` is the axis of a
    sample's channels where it is an image, else -1."""

    tensor: Tensor
    batch: int
    shape: tuple[int, ...]
    channels: int

    @property
    def is_image(self) -> bool:
        return self.channels != _NO_CHANNELS

    @property
    def depth(self) -> int:
        """Number of channels of an image."""
        return self.shape[self.channels]

    @property
    def layout(self) -> str:
        """Of an image."""
        return "CHW" if self.channels == 0 else "HWC"

    def split(self, array: np.ndarray, where: str) -> Sequence[np.ndarray]:
        """The samples in an array: of the input's shape, with one axis more, without the batch, or
        images in either layout. CodegenError where it is none of these, or no numbers."""
        _check_type(array.dtype, self.tensor, where)
        given, whole = array.shape, self.tensor.shape
        if self.is_image:
            samples = self._images(array)
        elif given == whole:
            samples = array.reshape(-1, *self.shape)
        elif given[1:] == whole:
            samples = array
        elif given == self.shape:
            samples = array[None]
        else:
            samples = array if given[1:] == self.shape else ()
        if not len(samples):
            raise CodegenError(
                where, f"the array for {self.tensor.name!r} has shape {given}",
                f"{whole}, or N of {self.shape}" + (" in either layout" if self.is_image else ""),
                "reshape the data",
            )  # fmt: skip
        return samples

    def _images(self, array: np.ndarray) -> Sequence[np.ndarray]:
        """As many as there are, each of rank 3; whether they fit is seen when they are read."""
        if array.ndim == 5:
            return array.reshape(-1, *array.shape[2:])
        if array.ndim == 4:
            return array
        if array.ndim == 3 and self.depth in (array.shape[0], array.shape[2]):
            return array[None]
        if self.depth == 1 and array.ndim in (2, 3):
            return array.reshape(-1, *array.shape[-2:])[:, None]
        return ()

    def finish(self, raw: np.ndarray, steps: Sequence[Step], where: str) -> np.ndarray:
        """A sample as the network reads it, preprocessed by `steps`. CodegenError where it does not
        fit, or holds NaN or infinity."""
        value = raw
        if self.is_image:
            value = self._preprocessed(raw, steps, where)
        elif steps:
            value = _scaled(raw, steps, self.tensor)
        if value.shape not in (self.shape, self.tensor.shape):
            raise CodegenError(
                where, f"shape {value.shape} for input {self.tensor.name!r}", f"{self.shape}",
                "reshape the data" + (", or use --preprocess resize=N,crop=N" if self.is_image
                                      else ""),
            )  # fmt: skip
        return _typed(value, self.tensor, where, bool(steps))

    def _preprocessed(self, raw: np.ndarray, steps: Sequence[Step], where: str) -> np.ndarray:
        layouts = [n for n, axis in (("CHW", 0), ("HWC", 2)) if raw.shape[axis] == self.depth]
        layout = self.layout if raw.shape == self.shape else layouts[0] if layouts else ""
        if not layout or (len(layouts) > 1 and raw.shape != self.shape):
            raise CodegenError(
                where, f"an image of shape {raw.shape} for input {self.tensor.name!r}",
                f"{self.depth} channels as either the first or the last axis",
                "transpose the data or convert the image",
            )  # fmt: skip
        if not steps:
            return raw if layout == self.layout else _moved(raw, layout)
        image = apply_steps(steps, raw if layout == "HWC" else _moved(raw, "CHW"))
        return image if self.layout == "HWC" else _moved(image, "HWC")

    def stacked(self, samples: Sequence[np.ndarray]) -> np.ndarray:
        """The input of one run: of `batch` samples, or of one that is a whole input already."""
        return np.ascontiguousarray(np.stack(samples).reshape(self.tensor.shape))


def ports_of(inputs: Sequence[Tensor]) -> tuple[Port, ...]:
    """What samples of each input look like. The first dimension is the batch where all inputs
    agree on it, or where it is 1."""
    first = {t.shape[0] if len(t.shape) > 1 else 0 for t in inputs}
    batch = first.pop() if len(first) == 1 else 1
    return tuple(_port(t, batch or 1) for t in inputs)


def _port(t: Tensor, batch: int) -> Port:
    shape = t.shape[1:] if len(t.shape) > 1 and t.shape[0] == batch else t.shape
    axes = [a for a in (0, 2) if len(shape) == 3 and shape[a] in _CHANNELS]
    is_image = len(t.shape) == 4 and axes and len(shape) == 3
    return Port(t, batch, shape, axes[0] if is_image else _NO_CHANNELS)


def _moved(image: np.ndarray, layout: str) -> np.ndarray:
    """From `layout` to the other one."""
    return np.moveaxis(image, 0, 2) if layout == "CHW" else np.moveaxis(image, 2, 0)


def _scaled(raw: np.ndarray, steps: Sequence[Step], t: Tensor) -> np.ndarray:
    bad = next((s.word for s in steps if s.of_images), "")
    if bad:
        raise CodegenError(
            "--preprocess", repr(bad), f"input {t.name!r} of shape {t.shape} is no image",
            "use scale, mean and std only",
        )  # fmt: skip
    return apply_steps(steps, raw.reshape(-1, 1, 1)).reshape(raw.shape)


def _check_type(dtype: np.dtype, t: Tensor, where: str) -> None:
    kinds = {"f": "fiub", "b": "b"}.get(t.dtype.numpy.kind, "iub")
    if dtype.kind not in kinds:
        raise CodegenError(
            where, f"the array for {t.name!r} has type {dtype}",
            f"what fits {t.dtype.numpy}", "convert the data",
        )  # fmt: skip


def _typed(value: np.ndarray, t: Tensor, where: str, rounded: bool) -> np.ndarray:
    """In the input's element type; preprocessed integers are rounded."""
    wanted = t.dtype.numpy
    value = np.rint(value) if rounded and wanted.kind != "f" else value
    with np.errstate(over="ignore", invalid="ignore"):
        out = value.astype(wanted)
    if wanted.kind == "f" and not np.isfinite(out).all():
        raise CodegenError(
            where, f"NaN or infinity for input {t.name!r}", f"finite {wanted}", "clean the data"
        )
    if wanted.kind in "iu" and not np.array_equal(out, value):
        raise CodegenError(
            where, f"values {value.min()} to {value.max()} for input {t.name!r}",
            f"what fits {wanted}", "scale the data",
        )  # fmt: skip
    return out
