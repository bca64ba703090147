"""PyTorch state dictionaries in the legacy (pre-zip) `.pth` format -> NumPy arrays, without
PyTorch.

The stream is: magic number, protocol version, system information, the pickled dictionary whose
tensors name their storages, the storage keys, then each storage as a 64-bit element count and its
raw elements.
"""

import collections
import io
import pickle
import struct
from dataclasses import dataclass

import numpy as np

from codegen.errors import CodegenError

MAGIC = 0x1950A86A20F9469CFC6C
STORAGE_TYPES = {
    "FloatStorage": np.float32,
    "DoubleStorage": np.float64,
    "HalfStorage": np.float16,
    "LongStorage": np.int64,
    "IntStorage": np.int32,
    "ByteStorage": np.uint8,
}


@dataclass(frozen=True)
class _Storage:
    key: str
    dtype: np.dtype


@dataclass(frozen=True)
class _View:
    """A tensor: strides and offset count elements of its storage."""

    storage: _Storage
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]

    def of(self, elements: np.ndarray) -> np.ndarray:
        strides = [s * elements.itemsize for s in self.strides]
        return np.lib.stride_tricks.as_strided(elements[self.offset :], self.shape, strides).copy()


class StateUnpickler(pickle.Unpickler):
    """Unpickles containers and tensor descriptions; any other class is refused."""

    def find_class(self, module: str, name: str):
        if module == "torch" and name in STORAGE_TYPES:
            return np.dtype(STORAGE_TYPES[name])
        if (module, name) == ("torch._utils", "_rebuild_tensor_v2"):
            return lambda storage, offset, shape, strides, *_: _View(
                storage, offset, shape, strides
            )
        if (module, name) == ("collections", "OrderedDict"):
            return collections.OrderedDict
        raise pickle.UnpicklingError(f"blocked class {module}.{name}")

    def persistent_load(self, pid: tuple) -> _Storage:
        _kind, dtype, key, *_ = pid
        return _Storage(key, dtype)


def load(data: bytes, where: str) -> dict[str, np.ndarray]:
    """Parameter name -> array. `where` names the file in errors."""
    stream = io.BytesIO(data)
    magic, _version, _system = (_unpickle(stream, where) for _ in range(3))
    if magic != MAGIC:
        raise CodegenError(
            where,
            f"magic number {magic!r}",
            "legacy .pth state dictionaries can be read",
            "save it again with _use_new_zipfile_serialization=False",
        )
    views, keys = _unpickle(stream, where), _unpickle(stream, where)
    dtypes = {view.storage.key: view.storage.dtype for view in views.values()}
    storages = {key: _read_storage(stream, dtypes[key]) for key in keys}
    return {name: view.of(storages[view.storage.key]) for name, view in views.items()}


def _unpickle(stream: io.BytesIO, where: str):
    try:
        return StateUnpickler(stream).load()
    except pickle.UnpicklingError as error:
        raise CodegenError(
            where,
            f"not a plain state dictionary ({error})",
            "tensors and dictionaries are allowed",
            "save only `model.state_dict()`",
        ) from None


def _read_storage(stream: io.BytesIO, dtype: np.dtype) -> np.ndarray:
    (count,) = struct.unpack("<q", stream.read(8))
    return np.frombuffer(stream.read(count * dtype.itemsize), dtype)
