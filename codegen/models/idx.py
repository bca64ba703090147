"""IDX files, the form of MNIST and of the data sets made after it."""

import math
import struct

import numpy as np

from codegen.errors import CodegenError

_UNSIGNED_BYTES = b"\0\0\x08"


def read(data: bytes, name: str) -> np.ndarray:
    """The array of a file of unsigned bytes: their kind, the number of dimensions, these, and the
    elements. CodegenError if `data` is no such file, or not all of it."""
    start = 4 + 4 * int.from_bytes(data[3:4])
    if not data.startswith(_UNSIGNED_BYTES) or len(data) < start:
        raise _error(name, f"header {data[:start].hex()}")
    shape = struct.unpack(f">{data[3]}I", data[4:start])
    if len(data) - start != math.prod(shape):
        raise _error(name, f"{len(data) - start} elements for the shape {shape}")
    return np.frombuffer(data, np.uint8, offset=start).reshape(shape)


def _error(name: str, what: str) -> CodegenError:
    allowed = "an IDX file of unsigned bytes is expected"
    return CodegenError(name, what, allowed, "take one that is whole and of this kind")
